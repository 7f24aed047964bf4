"""Zhipu v4: OpenAI's language with a few rules of its own, and CharGLM on it, with the card of a role play."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lmagent.core.events import Delta, Done
from lmagent.core.json_text import JSON
from lmagent.core.messages import Message, Reply, SystemMessage
from lmagent.errors import ServerFailed
from lmagent.providers.base import ChatCall, Request
from lmagent.providers.calls import fitting_ids
from lmagent.providers.conversation import answered, split_system, text_only, tools_as_text, turns
from lmagent.providers.openai.chat import ModelRule, OpenAICodec, Profile
from lmagent.providers.openai.reply import ChatState
from lmagent.providers.vendors import ZHIPU
from lmagent.providers.zhipu import CHARACTER

__all__ = ["CharacterV4Codec", "ZhipuV4Codec"]

_BROKEN_OFF = "network_error"


class ZhipuV4Codec(OpenAICodec):
    """Chat Completions of Zhipu v4.

    Args:
        model: Model name, such as `"glm-4.6"`.
        base_url: Up to `/v4`.
        model_rules: As in `OpenAICodec`.
        profile: What the server is like.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        model_rules: Sequence[ModelRule] | None = None,
        profile: Profile = ZHIPU,
    ) -> None:
        super().__init__(model, base_url=base_url, profile=profile, model_rules=model_rules)

    def build_request(self, call: ChatCall) -> Request:
        return super().build_request(replace(call, messages=tuple(self._in_turns(call.messages))))

    def _in_turns(self, messages: Sequence[Message]) -> Sequence[Message]:
        """A conversation of system or assistant messages alone is refused, and so are calls without results."""
        system, others = split_system(messages)
        ordered = turns(self._with_calls(others))
        return [SystemMessage(system), *ordered] if system else ordered

    def _with_calls(self, messages: Sequence[Message]) -> Sequence[Message]:
        return fitting_ids(answered(messages))

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        reply = super().parse_reply(body, prefix=prefix)
        if reply.raw_finish_reason == _BROKEN_OFF:
            raise self._broken_off(body)
        return reply

    def parse_event(self, state: ChatState, data: bytes, event: str = "") -> Sequence[Delta]:
        return self._unbroken(super().parse_event(state, data, event))

    def finish(self, state: ChatState) -> Sequence[Delta]:
        return self._unbroken(super().finish(state))

    def _unbroken(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        last = deltas[-1] if deltas else None
        if isinstance(last, Done) and last.raw_finish_reason == _BROKEN_OFF:
            raise self._broken_off(last.raw)
        return deltas

    def _broken_off(self, body: JSON) -> ServerFailed:
        """A finish reason that is a failure of the platform: the same request may succeed."""
        return ServerFailed(
            "The platform broke the answer off (finish reason 'network_error').",
            provider=self.provider,
            model=self.model,
            code=_BROKEN_OFF,
            body=body,
        )


_ROLE_PLAY = replace(
    ZHIPU,
    provider="zhipu-character",
    features=replace(
        ZHIPU.features,
        tools=False,
        parallel_calls=False,
        stream_tools=False,
        tool_choice=frozenset(),
        images=False,
        json_schema="none",
        reasoning=False,
    ),
)


class CharacterV4Codec(ZhipuV4Codec):
    """CharGLM on v4. It has no tools.

    Args:
        model: Model name, such as `"charglm-4"`.
        base_url: Up to `/v4`.
        meta: The card, over `CHARACTER`. The parameter `meta` of a call goes over this one.
        model_rules: As in `OpenAICodec`.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        meta: Mapping[str, str] | None = None,
        model_rules: Sequence[ModelRule] | None = None,
    ) -> None:
        super().__init__(model, base_url=base_url, model_rules=model_rules, profile=_ROLE_PLAY)
        self.meta = {**CHARACTER, **(meta or {})}

    def build_request(self, call: ChatCall) -> Request:
        self.refuse_tools(call)
        card = {**self.meta, **call.parameters.get("meta", {})}
        parameters = {**call.parameters, "meta": card}
        return super().build_request(replace(call, tools=(), tool_choice="auto", parameters=parameters))

    def _with_calls(self, messages: Sequence[Message]) -> Sequence[Message]:
        return tools_as_text(text_only(messages, self.refuse))
