"""Servers of OpenAI's dialect that need custom code: Qianfan v2, MiniMax, Zhipu v4 and CharGLM, Hunyuan.

Differences in data only are in their profiles (`vendor_profiles`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from lmagent.core.events import Delta, Done
from lmagent.core.json_text import JSON, dumps
from lmagent.core.messages import AssistantMessage, Message, Reply, SystemMessage, ToolMessage, UserMessage
from lmagent.errors import ProviderError, ServerFailed
from lmagent.providers.base import ChatCall, Request
from lmagent.providers.conversation import (
    CONTINUE,
    NO_OUTPUT,
    settled,
    split_system,
    system_in_front,
    text_only,
    tools_as_text,
    turns,
    with_system,
)
from lmagent.providers.fields import mapping, objects, parsed
from lmagent.providers.hunyuan import obeys_tools
from lmagent.providers.openai.calls import ThinkSplitter
from lmagent.providers.openai.chat import OpenAICodec, Profile
from lmagent.providers.openai.reply import ChatState
from lmagent.providers.openai.vendor_profiles import HUNYUAN, MINIMAX, WENXIN, ZHIPU
from lmagent.providers.zhipu import CHARACTER

__all__ = [
    "CharacterV4Codec", "FlaggedCodec", "HunyuanCompatibleCodec", "MinimaxV2Codec", "WenxinV2Codec", "ZhipuV4Codec",
]  # fmt: skip


@dataclass(slots=True, eq=False)
class _State(ChatState):
    flagged: dict[str, Any] = field(default_factory=dict[str, Any])


class FlaggedCodec(OpenAICodec):
    """Base for servers that mark a safety hit on an ordinary answer.

    A marked answer ends with `content_filter`; it keeps its text, and the marks are in the message's details.
    """

    flags: ClassVar[tuple[str, ...]]
    """Members of the body or of its choice; true means a safety hit."""
    facts: ClassVar[tuple[str, ...]] = ()
    """Members with more information about a safety hit."""
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
        return _State(ThinkSplitter() if self.profile.think_tags else None)

    def parse_event(self, state: ChatState, data: bytes, event: str = "") -> Sequence[Delta]:
        if self._marked.search(data) and isinstance(state, _State):
            with suppress(TypeError):  # `super().parse_event` reports invalid data
                state.flagged |= self._flags_of(parsed(data))
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
    default_profile = WENXIN

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST. The API refuses system text alone and a blank last message."""
        return super().build_request(replace(call, messages=_not_blank_at_the_end(call.messages)))


def _not_blank_at_the_end(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if all(isinstance(message, SystemMessage) for message in messages):
        return tuple(system_in_front(messages))
    last = messages[-1]
    match last:
        case ToolMessage(content=content) if not content.strip():
            return (*messages[:-1], replace(last, content=NO_OUTPUT))
        case UserMessage(content=str(content)) if not content.strip():
            return (*messages[:-1], UserMessage(CONTINUE))
        case AssistantMessage(content=content, tool_calls=()) if not content.strip():
            return (*messages[:-1], UserMessage(CONTINUE))
        case _:
            return messages


class MinimaxV2Codec(FlaggedCodec):
    """MiniMax's chatcompletion_v2 and its current API; the profile decides which."""

    flags = ("input_sensitive", "output_sensitive")
    facts = ("input_sensitive_type", "output_sensitive_type")
    default_profile = MINIMAX

    def parse_event(self, state: ChatState, data: bytes, event: str = "") -> Sequence[Delta]:
        """Translate one chunk. Search results come as deltas of role `tool`, which are not part of the answer."""
        if b'"tool"' in data:
            data = _without_results(data)
        return super().parse_event(state, data, event) if data else ()


def _without_results(data: bytes) -> bytes:
    body = mapping(parsed(data))
    try:
        choices = objects(body.get("choices"))
    except TypeError:
        return data
    kept = [choice for choice in choices if mapping(choice.get("delta")).get("role") != "tool"]
    if len(kept) == len(choices):
        return data
    return dumps({**body, "choices": kept}) if kept else b""


class _OrderedCodec(OpenAICodec):
    """Base for servers with rules of order: system text first, then turns that begin with the user."""

    user_behind_result: ClassVar[bool] = True

    def build_request(self, call: ChatCall) -> Request:
        return super().build_request(replace(call, messages=tuple(self._in_turns(call.messages))))

    def _in_turns(self, messages: Sequence[Message]) -> list[Message]:
        system, others = split_system(messages)
        return with_system(system, turns(self._with_calls(others), user_behind_result=self.user_behind_result))

    def _with_calls(self, messages: Sequence[Message]) -> Sequence[Message]:
        return settled(messages) if self.features.tools else tools_as_text(messages)


_BROKEN_OFF = "network_error"


class ZhipuV4Codec(_OrderedCodec):
    """Chat Completions of Zhipu v4, which refuses system or assistant messages alone and calls without results."""

    default_profile = ZHIPU

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

    def _broken_off(self, body: JSON) -> ProviderError:
        """Return the error for this finish reason: the service failed, and the same request may succeed."""
        words = "The service broke the answer off (finish reason 'network_error')."
        return self.failure(ServerFailed, words, code=_BROKEN_OFF, body=body)


def _without_tools(profile: Profile, **features: Any) -> Profile:
    """Return the profile of a model without function calls."""
    without = replace(
        profile.features, tools=False, parallel_calls=False, stream_tools=False, tool_choice=frozenset(), **features
    )
    return replace(profile, features=without)


_ROLE_PLAY = replace(
    _without_tools(ZHIPU, images=False, json_schema="none", reasoning=False), provider="zhipu-character"
)


class CharacterV4Codec(ZhipuV4Codec):
    """CharGLM on v4, for role play. It has no tools.

    Args:
        model: Model name, such as `"charglm-4"`.
        meta: The card, over `CHARACTER`. The parameter `meta` of a call overrides it.
        **options: As in `OpenAICodec`.
    """

    default_profile = _ROLE_PLAY

    def __init__(self, model: str, *, meta: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.meta = {**CHARACTER, **(meta or {})}

    def build_request(self, call: ChatCall) -> Request:
        self.refuse_tools(call)
        card = {**self.meta, **call.parameters.get("meta", {})}
        parameters = {**call.parameters, "meta": card}
        return super().build_request(replace(call, tools=(), tool_choice="auto", parameters=parameters))

    def _with_calls(self, messages: Sequence[Message]) -> Sequence[Message]:
        return tools_as_text(text_only(messages, self.refuse))


class HunyuanCompatibleCodec(_OrderedCodec):
    """Chat Completions of Hunyuan or TokenHub, with the cloud API's rules of order.

    "user (tool) and assistant take turns, beginning with user, ending with user (tool)": other histories are answered
    with a 400 (code 1001, seen by users in 2025).

    Args:
        model: Model name, such as `"hunyuan-turbos-latest"`.
        tools: Whether the model has function calls; None: by its name.
        **options: As in `OpenAICodec`.
    """

    user_behind_result = False

    def __init__(self, model: str, *, tools: bool | None = None, **options: Any) -> None:
        has_tools = obeys_tools(model) if tools is None else tools
        super().__init__(model, profile=HUNYUAN if has_tools else _without_tools(HUNYUAN), **options)

    def build_request(self, call: ChatCall) -> Request:
        if not self.features.tools:
            self.refuse_tools(call)
            call = replace(call, tools=(), tool_choice="auto")
        return super().build_request(call)

    def _in_turns(self, messages: Sequence[Message]) -> list[Message]:
        return [
            replace(message, content=NO_OUTPUT)
            if isinstance(message, ToolMessage) and not message.content.strip()
            else message
            for message in super()._in_turns(messages)
        ]
