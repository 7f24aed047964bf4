"""Qianfan v2 and MiniMax's later endpoints: OpenAI's dialect, with marks of a safety hit on ordinary answers.

What is only a difference in data is in their profiles (`compatible`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from lmagent.core.events import Delta, Done
from lmagent.core.json_text import JSON, JSONError, dumps, loads
from lmagent.core.messages import AssistantMessage, Message, Reply, SystemMessage, ToolMessage, UserMessage
from lmagent.errors import ServerFailed
from lmagent.providers.base import ChatCall, Request
from lmagent.providers.conversation import (
    CONTINUE,
    answered,
    fitting_ids,
    split_system,
    system_in_front,
    text_only,
    tools_as_text,
    turns,
)
from lmagent.providers.fields import mapping, objects
from lmagent.providers.hunyuan import NO_OUTPUT, obeys_tools
from lmagent.providers.openai.chat import ModelRule, OpenAICodec, Profile
from lmagent.providers.openai.reply import ChatState
from lmagent.providers.openai.vendor_profiles import HUNYUAN, MINIMAX, WENXIN, ZHIPU
from lmagent.providers.zhipu import CHARACTER

__all__ = [
    "CharacterV4Codec",
    "FlaggedCodec",
    "HunyuanCompatibleCodec",
    "MinimaxV2Codec",
    "WenxinV2Codec",
    "ZhipuV4Codec",
]

_NO_OUTPUT = "(no output)"
"""Stands in for an empty result at the end."""


class _State(ChatState):
    __slots__ = ("flagged",)

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self.flagged: dict[str, Any] = {}


class FlaggedCodec(OpenAICodec):
    """Reads a marked answer as `content_filter`, with its text and the marks in the message's details."""

    flags: ClassVar[tuple[str, ...]]
    """Members of the body or of its choice; true means a safety hit."""
    facts: ClassVar[tuple[str, ...]] = ()
    """Members that say more about one."""
    _marked: ClassVar[re.Pattern[bytes]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._marked = re.compile(rb'"(?:%s)"\s*:\s*true' % "|".join(cls.flags).encode())

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        reply = super().parse_reply(body, prefix=prefix)
        flagged = self._flags_of(body)
        if not flagged:
            return reply
        details = {**reply.message.details, self.provider: self._merged(reply.message.details, flagged)}
        return replace(reply, finish_reason="content_filter", message=replace(reply.message, details=details))

    def new_state(self) -> ChatState:
        return _State(self.profile)

    def parse_event(self, state: ChatState, data: bytes, event: str = "") -> Sequence[Delta]:
        if self._marked.search(data) and isinstance(state, _State):
            with suppress(JSONError, TypeError):  # the reader below says what is wrong with it
                state.flagged |= self._flags_of(loads(data))
        return self._with_flags(state, super().parse_event(state, data, event))

    def finish(self, state: ChatState) -> Sequence[Delta]:
        return self._with_flags(state, super().finish(state))

    def _with_flags(self, state: ChatState, deltas: Sequence[Delta]) -> Sequence[Delta]:
        if not isinstance(state, _State) or not state.flagged or not deltas:
            return deltas
        return [
            replace(
                delta,
                finish_reason="content_filter",
                details={**delta.details, self.provider: self._merged(delta.details, state.flagged)},
            )
            if isinstance(delta, Done)
            else delta
            for delta in deltas
        ]

    def _flags_of(self, body: JSON) -> dict[str, Any]:
        fields = mapping(body)
        choices = objects(fields.get("choices"))
        members = {**(choices[0] if choices else {}), **fields}
        if not any(members.get(name) is True for name in self.flags):
            return {}
        return {name: members[name] for name in (*self.flags, *self.facts) if members.get(name)}

    def _merged(self, details: Mapping[str, Any], flagged: Mapping[str, Any]) -> dict[str, Any]:
        return {**mapping(details.get(self.provider)), **flagged}


class WenxinV2Codec(FlaggedCodec):
    """Qianfan v2."""

    flags = ("need_clear_history",)
    facts = ("ban_round",)

    def __init__(self, model: str, *, profile: Profile = WENXIN, **options: Any) -> None:
        super().__init__(model, profile=profile, **options)

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST. A conversation is more than system text, and its last message is not blank."""
        return super().build_request(replace(call, messages=_not_blank_at_the_end(call.messages)))


def _not_blank_at_the_end(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if all(isinstance(message, SystemMessage) for message in messages):
        return tuple(system_in_front(messages))
    last = messages[-1]
    match last:
        case ToolMessage(content=content) if not content.strip():
            return (*messages[:-1], replace(last, content=_NO_OUTPUT))
        case UserMessage(content=str(content)) if not content.strip():
            return (*messages[:-1], UserMessage(CONTINUE))
        case AssistantMessage(content=content, tool_calls=()) if not content.strip():
            return (*messages[:-1], UserMessage(CONTINUE))
        case _:
            return messages


class MinimaxV2Codec(FlaggedCodec):
    """MiniMax's chatcompletion_v2 and its current API; which of them is the profile's to say."""

    flags = ("input_sensitive", "output_sensitive")
    facts = ("input_sensitive_type", "output_sensitive_type")

    def __init__(self, model: str, *, profile: Profile = MINIMAX, **options: Any) -> None:
        super().__init__(model, profile=profile, **options)

    def parse_event(self, state: ChatState, data: bytes, event: str = "") -> Sequence[Delta]:
        """Translate one chunk. Search results come as deltas of a role `tool`: they are no answer."""
        if b'"tool"' in data:
            data = _without_results(data)
        return super().parse_event(state, data, event) if data else ()


def _without_results(data: bytes) -> bytes:
    try:
        body = mapping(loads(data))
        choices = objects(body.get("choices"))
    except (JSONError, TypeError):
        return data
    kept = [choice for choice in choices if mapping(choice.get("delta")).get("role") != "tool"]
    if len(kept) == len(choices):
        return data
    return dumps({**body, "choices": kept}) if kept else b""


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
