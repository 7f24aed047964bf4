"""MiniMax's two old dialects: `chatcompletion` (no tools) and `chatcompletion_pro` (bots, `functions`).

Wire facts: docs/providers/minimax.md. The later endpoints are OpenAI's dialect with differences and no business of this
module.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from lmagent.core.events import Delta, Done, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, dumps
from lmagent.core.messages import AssistantMessage, FinishReason, Message, Reply, ToolMessage, Usage
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    MessageError,
    ParameterError,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.providers.base import ChatCall, Codec, Features, ParameterRule, Request, error_for_status, joined
from lmagent.providers.conversation import (
    TextOnlyCodec,
    alternating,
    answered,
    fitting_ids,
    messages_of,
    one_call_each,
    system_apart,
    text_only,
    tools_as_text,
)
from lmagent.providers.fields import (
    call_arguments,
    elsewhere,
    first_text,
    mapping,
    object_of,
    objects,
    one_call_a_reply,
    same,
    text,
    usage_of,
    within,
)
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import ToolSpec, inline_refs
from lmagent.toolkit.schema_dialects import never_blank

__all__ = ["BASE_URL", "BOT_NAME", "MINIMAX_ERRORS", "USER_NAME", "MinimaxCodec", "MinimaxProCodec"]

BASE_URL = VENDORS["minimax"].api("classic").address
BOT_NAME = "MM智能助理"
USER_NAME = "用户"
_BOT_CONTENT = "{}是MiniMax的大语言模型助手。"
"""The pro API insists on a text about the bot; this one stands where there is no system prompt."""

MINIMAX_ERRORS: Mapping[str, type[ProviderError]] = {
    "1000": ServerFailed,
    "1001": RequestTimeout,
    "1002": RateLimited,
    "1004": AuthenticationFailed,
    "1008": QuotaExceeded,
    "1013": ServerFailed,
    "1024": ServerFailed,
    "1026": ContentFiltered,
    "1027": ContentFiltered,
    "1033": ServerFailed,
    "1039": RateLimited,
    "1041": RateLimited,
    "2013": BadRequest,
    "2049": AuthenticationFailed,
    "2056": QuotaExceeded,
}
"""`base_resp.status_code`, the same at every MiniMax endpoint."""

_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "max_output": "length"}


_SHARED: Mapping[str, ParameterRule] = {
    "temperature": within("temperature", 0, 1, sent=(0.01, 1)),
    "top_p": within("top_p", 0, 1, sent=(0.01, 1)),
    "max_tokens": "tokens_to_generate",
}
_CHAT_PARAMETERS: Mapping[str, ParameterRule] = {
    **_SHARED,
    "beam_width": within("beam_width", 1, 4),
    **same("skip_info_mask", "continue_last_message"),
}
_PRO_PARAMETERS: Mapping[str, ParameterRule] = {
    **_SHARED,
    "parallel_tool_calls": one_call_a_reply,
    **same("mask_sensitive_info", "sample_messages", "plugins"),
    "bot_setting": elsewhere,
    "glyph": elsewhere,
}


class _State:
    """What one stream has told so far."""

    __slots__ = ("called", "ended", "last", "shown", "usage")

    def __init__(self) -> None:
        self.shown = 0
        """Characters of the answer handed out."""
        self.called = False
        self.usage: Usage | None = None
        self.last: JSON = None
        """The last event that told a finish reason."""
        self.ended = False


class _OldCodec(Codec):
    """What both dialects share: address, envelope, streams whose last event repeats the whole answer, errors."""

    path: ClassVar[str]

    def __init__(
        self,
        model: str,
        *,
        group_id: str,
        base_url: str = BASE_URL,
        user_name: str = USER_NAME,
        bot_name: str = BOT_NAME,
    ) -> None:
        self.model = model
        self.group_id = group_id
        self.base_url = base_url.rstrip("/")
        self.user_name = user_name
        self.bot_name = bot_name

    def _request(self, call: ChatCall, head: Mapping[str, Any], parts: Mapping[str, list[bytes]]) -> Request:
        content = joined(head, {name: items for name, items in parts.items() if name not in head})
        return self.post(f"{self.base_url}{self.path}", content, call, params={"GroupId": self.group_id})

    @abstractmethod
    def _answer(self, body: JSON, *, whole: bool) -> tuple[str, Mapping[str, Any] | None]:
        """Return the text and the function call of a reply (`whole`) or of one event."""

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        builder = ReplyBuilder(prefix)
        with self.reading(body):
            state = self.new_state()
            for delta in self._deltas(state, *self._answer(body, whole=True)):
                builder.add(delta)
            state.usage = usage_of(body.get("usage"), "prompt_tokens", "completion_tokens", "total_tokens")
            builder.add(_done(state, body))
        return builder.reply(self.model_id)

    def new_state(self) -> _State:
        return _State()

    def parse_event(self, state: _State, data: bytes, event: str = "") -> Iterable[Delta]:
        if state.ended or data.strip() == b"[DONE]":
            return
        body = object_of(self, data)
        self.check(body)
        with self.reading(body):
            usage = usage_of(body.get("usage"), "prompt_tokens", "completion_tokens", "total_tokens")
            if usage is not None and usage.total_tokens:
                state.usage = usage
            # The last event repeats the whole answer: only what was not shown yet is new.
            whole = bool(body.get("reply")) or bool(usage and usage.total_tokens)
            said, call = self._answer(body, whole=whole)
            yield from self._deltas(state, said[state.shown :] if whole else said, call)
            if any(choice.get("finish_reason") for choice in objects(body.get("choices"))) or whole:
                state.last = body
            if whole:
                state.ended = True
                yield _done(state, body)

    def finish(self, state: _State) -> Iterable[Delta]:
        if not state.ended and state.last is not None:
            state.ended = True
            yield _done(state, state.last)

    def _deltas(self, state: _State, said: str, call: Mapping[str, Any] | None) -> Iterator[Delta]:
        if said:
            state.shown += len(said)
            yield TextDelta(said)
        if call and not state.called:
            state.called = True
            yield ToolCallDelta(0, name=call["name"], arguments=call_arguments(call.get("arguments")))

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        fields = mapping(body)
        resp = mapping(fields.get("base_resp"))
        code = resp.get("status_code")
        if status < 400 and code in (None, 0, "0"):
            return None
        return self.failure(
            MINIMAX_ERRORS.get(str(code)) or error_for_status(status),
            resp.get("status_msg"),
            status=status,
            headers=headers,
            body=body,
            text=text,
            code=code,
            request_ids=(fields.get("id"), fields.get("request_id"), headers.get("trace-id")),
        )


def _done(state: _State, body: JSON) -> Done:
    choices = objects(body.get("choices"))
    raw = text(choices[0].get("finish_reason") if choices else None) or None
    reason: FinishReason = _FINISH.get(raw, "other") if raw else "stop"
    if body.get("input_sensitive") or body.get("output_sensitive"):
        reason = "content_filter"
    return Done(
        finish_reason=reason,
        raw_finish_reason=raw,
        usage=state.usage,
        response_id=first_text(body.get("id"), body.get("request_id")),
        raw=body,
    )


class MinimaxCodec(_OldCodec):
    """`chatcompletion`: sender types and texts, no tools (prompt mode takes over).

    Args:
        model: For example `abab5.5-chat`.
        group_id: The account's group, a query parameter of every call.
        base_url: The host; keys of the regions are not interchangeable.
        user_name: What the system prompt calls the user.
        bot_name: What the system prompt calls the model.
    """

    provider: ClassVar[str] = "minimax"
    path: ClassVar[str] = "/v1/text/chatcompletion"
    features = replace(TextOnlyCodec.features, system=True)

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST. Calls and results of earlier turns become text."""
        self.refuse_tools(call)
        system, messages = system_apart(text_only(messages_of(call), self.refuse))
        messages = alternating(tools_as_text(messages))
        going_on = bool(call.parameters.get("continue_last_message"))
        if going_on and len(messages) > 1 and isinstance(call.messages[-1], AssistantMessage):
            del messages[-1]  # the made-up "please continue": the model goes on with its own last message
        head: dict[str, Any] = {"model": self.model}
        if system:
            head |= {"prompt": system, "role_meta": {"user_name": self.user_name, "bot_name": self.bot_name}}
        if call.stream:
            head |= {"stream": True, "use_standard_sse": True}
        head |= self.render_parameters(call.parameters, _CHAT_PARAMETERS)
        return self._request(call, head, {"messages": [_chat_message(message) for message in messages]})

    def _answer(self, body: JSON, *, whole: bool) -> tuple[str, Mapping[str, Any] | None]:
        if whole:
            choice = objects(body["choices"])[0]
            return text(body.get("reply")) or text(choice.get("text")) or text(choice.get("delta")), None
        return "".join(text(choice.get("delta")) for choice in objects(body["choices"])[:1]), None


def _chat_message(message: Message) -> bytes:
    encoded = message.wire.get("minimax")
    if encoded is None:
        sender = "BOT" if isinstance(message, AssistantMessage) else "USER"
        encoded = message.wire["minimax"] = dumps({"sender_type": sender, "text": _text(message)})
    return encoded


def _text(message: Message) -> str:
    return message.content if isinstance(message.content, str) else ""


class MinimaxProCodec(_OldCodec):
    """`chatcompletion_pro`: named senders, a bot with a text about it, `functions` with one call a reply.

    Args:
        model: For example `abab5.5-chat`.
        group_id: The account's group, a query parameter of every call.
        base_url: The host; keys of the regions are not interchangeable.
        user_name: Sender name of user messages.
        bot_name: The bot that answers; must be one of `bot_setting` where that parameter is given.
        function_sender: Whose name stands on a result: the function's or the bot's. Sources differ on it.
    """

    provider: ClassVar[str] = "minimax_pro"
    path: ClassVar[str] = "/v1/text/chatcompletion_pro"
    features = Features(
        parallel_calls=False,
        tool_choice=frozenset({"auto", "none"}),
        images=False,
        json_schema="none",
        stop=False,
    )

    def __init__(self, model: str, *, function_sender: Literal["function", "bot"] = "function", **options: Any) -> None:
        super().__init__(model, **options)
        self.function_sender = function_sender

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST. The system text is what the bot is told about itself."""
        if call.tool_choice not in ("auto", "none"):
            raise ParameterError(f"tool_choice={call.tool_choice!r}: minimax's pro API knows only 'auto' and 'none'.")
        specs = call.tools if call.tool_choice != "none" else ()
        system, messages = system_apart(text_only(messages_of(call), self.refuse))
        bots = self._bots(call.parameters.get("bot_setting"), system)
        names = [bot["bot_name"] for bot in bots]
        speaker = self.bot_name if self.bot_name in names else names[0]
        constraints: dict[str, Any] = {"sender_type": "BOT", "sender_name": speaker}
        glyph = call.parameters.get("glyph")
        if glyph is not None:
            if specs or call.stream or call.parameters.get("plugins"):
                raise ParameterError("glyph cannot go with stream, functions or plugins in minimax's pro API.")
            constraints["glyph"] = glyph
        head: dict[str, Any] = {"model": self.model, "bot_setting": bots, "reply_constraints": constraints}
        if call.stream:
            head["stream"] = True
        head |= self.render_parameters(call.parameters, _PRO_PARAMETERS)
        pairs = one_call_each(fitting_ids(answered(messages)))
        parts = {"messages": [self._message(message, speaker) for message in alternating(pairs)]}
        if specs:
            parts["functions"] = [self._function(spec) for spec in specs]
        return self._request(call, head, parts)

    def _bots(self, given: Sequence[Mapping[str, str]] | None, system: str) -> list[dict[str, str]]:
        if not given:
            return [{"bot_name": self.bot_name, "content": system or _BOT_CONTENT.format(self.bot_name)}]
        if not all(bot.get("bot_name") for bot in given):
            raise ParameterError(f"minimax_pro: every bot of bot_setting needs a 'bot_name', got {given!r}.")
        bots = [dict(bot) for bot in given]
        if not system:
            return bots
        if len(bots) > 1:
            raise MessageError("minimax_pro cannot express a system prompt beside several bots: whose would it be?")
        content = "\n\n".join(part for part in (bots[0].get("content", ""), system) if part)
        return [{**bots[0], "content": content}]

    def _message(self, message: Message, speaker: str) -> bytes:
        key = ("minimax_pro", self.user_name, speaker, self.function_sender)
        encoded = message.wire.get(key)
        if encoded is None:
            encoded = message.wire[key] = dumps(self._rendered(message, speaker))
        return encoded

    def _rendered(self, message: Message, speaker: str) -> dict[str, Any]:
        match message:
            case AssistantMessage(tool_calls=(call, *_)):
                function_call = {"name": _own_name(call.name), "arguments": call.arguments}
                said = {"sender_type": "BOT", "sender_name": speaker, "text": message.content}
                return said | {"function_call": function_call}
            case AssistantMessage():
                return {"sender_type": "BOT", "sender_name": speaker, "text": message.content}
            case ToolMessage():
                name = _own_name(message.name) if self.function_sender == "function" else speaker
                return {"sender_type": "FUNCTION", "sender_name": name, "text": message.content}
            case _:
                return {"sender_type": "USER", "sender_name": self.user_name, "text": _text(message)}

    def _function(self, spec: ToolSpec) -> bytes:
        encoded = spec.encoded.get(self.provider)
        if encoded is None:
            if spec.name.startswith("plugin_"):
                raise self.refuse(f"a tool named {spec.name!r}: the prefix 'plugin_' is its own")
            parameters: dict[str, Any] = {"type": "object", "properties": {}, **inline_refs(spec.parameters)}
            function = {"name": spec.name, "description": never_blank(spec.name, spec.description)}
            encoded = spec.encoded[self.provider] = dumps({**function, "parameters": parameters})
        return encoded

    def _answer(self, body: JSON, *, whole: bool) -> tuple[str, Mapping[str, Any] | None]:
        """Take the last message of the bot; those before it are the work of plugins, which ran on the server."""
        messages = objects(objects(body["choices"])[0].get("messages"))
        spoken = [message for message in messages if message.get("sender_type", "BOT") == "BOT"]
        last = spoken[-1] if spoken else {}
        call = mapping(last.get("function_call"))
        if whole and not call:
            call = mapping(body.get("function_call"))
        if text(call.get("name")).startswith("plugin_"):
            call = {}
        said = text(last.get("text"))
        return (said or text(body.get("reply")) if whole else said), call or None


def _own_name(name: str) -> str:
    """Return the name of a call in a history as the platform takes it: what begins with `plugin_` would be its own."""
    return f"_{name}"[:64] if name.startswith("plugin_") else name
