"""Hunyuan's endpoint in OpenAI's language: the words are OpenAI's, the rules of order are Hunyuan's own.

"user (tool) and assistant take turns, beginning with user, ending with user (tool)": a history that breaks them is
answered with a 400 (code 1001, seen by users in 2025), so it is put in order here as for the cloud API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lmagent.core.messages import Message, SystemMessage, ToolMessage
from lmagent.providers.base import ChatCall, Request
from lmagent.providers.calls import fitting_ids
from lmagent.providers.conversation import answered, split_system, tools_as_text, turns
from lmagent.providers.hunyuan import NO_OUTPUT, obeys_tools
from lmagent.providers.openai.chat import ModelRule, OpenAICodec
from lmagent.providers.vendors import HUNYUAN

__all__ = ["HunyuanCompatibleCodec"]


class HunyuanCompatibleCodec(OpenAICodec):
    """Chat Completions of Hunyuan or TokenHub.

    Args:
        model: Model name, such as `"hunyuan-turbos-latest"`.
        base_url: Up to `/v1`.
        tools: Whether the model has function calls; None: by its name.
        model_rules: As in `OpenAICodec`.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        tools: bool | None = None,
        model_rules: Sequence[ModelRule] | None = None,
    ) -> None:
        has_tools = obeys_tools(model) if tools is None else tools
        profile = HUNYUAN
        if not has_tools:
            features = replace(
                HUNYUAN.features, tools=False, parallel_calls=False, stream_tools=False, tool_choice=frozenset()
            )
            profile = replace(HUNYUAN, features=features)
        super().__init__(model, base_url=base_url, profile=profile, model_rules=model_rules)

    def build_request(self, call: ChatCall) -> Request:
        if not self.features.tools:
            self.refuse_tools(call)
            call = replace(call, tools=(), tool_choice="auto")
        return super().build_request(replace(call, messages=tuple(self._in_turns(call.messages))))

    def _in_turns(self, messages: Sequence[Message]) -> list[Message]:
        system, others = split_system(messages)
        others = fitting_ids(answered(others)) if self.features.tools else tools_as_text(others)
        ordered = [
            replace(message, content=NO_OUTPUT)
            if isinstance(message, ToolMessage) and not message.content.strip()
            else message
            for message in turns(others, user_behind_result=False)
        ]
        return [SystemMessage(system), *ordered] if system else ordered
