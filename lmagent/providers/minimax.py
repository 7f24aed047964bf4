"""MiniMax's two old dialects: `chatcompletion` (no tools) and `chatcompletion_pro` (bots, `functions`).

Wire reference: docs/providers/minimax.md. The later endpoints speak OpenAI's dialect (`openai.variants`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from lmagent import errors
from lmagent.core.events import Delta, Done, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON
from lmagent.core.messages import AssistantMessage, Message, ToolMessage
from lmagent.errors import ParameterError
from lmagent.providers.base import (
    ChatCall,
    EventCodec,
    Fault,
    Features,
    ParameterRule,
    ReplyState,
    Request,
    error_for_status,
)
from lmagent.providers.conversation import (
    TextOnlyCodec,
    alternating,
    messages_of,
    one_call_each,
    settled,
    system_apart,
    text_only,
    tools_as_text,
)
from lmagent.providers.fields import (
    by_code,
    call_arguments,
    elsewhere,
    encoded,
    ended,
    first_text,
    joined,
    mapping,
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
"""The pro API requires a text about the bot; this one is sent if there is no system prompt."""

MINIMAX_ERRORS = by_code(
    (errors.ServerFailed, "1000 1013 1024 1033"),
    (errors.RequestTimeout, "1001"),
    (errors.RateLimited, "1002 1039 1041"),
    (errors.AuthenticationFailed, "1004 2049"),
    (errors.QuotaExceeded, "1008 2056"),
    (errors.ContentFiltered, "1026 1027"),
    (errors.BadRequest, "2013"),
)
"""`base_resp.status_code`, the same at every MiniMax endpoint."""

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


@dataclass(slots=True)
class _State(ReplyState):
    shown: int = 0
    """Characters of the answer that were passed on."""
    called: bool = False


class _OldCodec(EventCodec):
    """Base of both dialects: address, envelope, errors, streams whose last event repeats the whole answer."""

    state_class = _State
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
        return self.post(f"{self.base_url}{self.path}", joined(head, parts), call, params={"GroupId": self.group_id})

    @abstractmethod
    def _answer(self, body: JSON, *, whole: bool) -> tuple[str, Mapping[str, Any] | None]:
        """Return the text and the function call of a reply (`whole`) or of one event."""

    def read(self, state: _State, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        usage = usage_of(body.get("usage"))
        is_last = bool(body.get("reply")) or bool(usage and usage.total_tokens)
        if usage is not None and (whole or usage.total_tokens):
            state.usage = usage
        # The last event repeats the whole answer; only the text that was not passed on yet is new.
        whole = whole or is_last
        said, call = self._answer(body, whole=whole)
        said = said[state.shown :] if whole else said
        if said:
            state.shown += len(said)
            yield TextDelta(said)
        if call and not state.called:
            state.called = True
            yield ToolCallDelta(0, name=call["name"], arguments=call_arguments(call.get("arguments")))
        if any(choice.get("finish_reason") for choice in objects(body.get("choices"))) or whole:
            state.last = body
        if whole:
            yield from self.finish(state)

    def finish(self, state: _State) -> Iterable[Delta]:
        if not state.ended and state.last is not None:
            state.ended = True
            yield _done(state, state.last)

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        resp = mapping(body.get("base_resp"))
        code = resp.get("status_code")
        if status < 400 and code in (None, 0, "0"):
            return None
        kind = MINIMAX_ERRORS.get(str(code)) or error_for_status(status)
        ids = (body.get("id"), body.get("request_id"), headers.get("trace-id"))
        return Fault(kind, resp.get("status_msg"), code, ids)


def _done(state: _State, body: JSON) -> Done:
    choices = objects(body.get("choices"))
    return ended(
        text(choices[0].get("finish_reason") if choices else None),
        body,
        usage=state.usage,
        response_id=first_text(body.get("id"), body.get("request_id")),
        finish_reason="content_filter" if body.get("input_sensitive") or body.get("output_sensitive") else None,
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
            del messages[-1]  # the inserted "please continue": the model continues its own last message
        head: dict[str, Any] = {"model": self.model}
        if system:
            head |= {"prompt": system, "role_meta": {"user_name": self.user_name, "bot_name": self.bot_name}}
        if call.stream:
            head |= {"stream": True, "use_standard_sse": True}
        head |= self.render_parameters(call.parameters, _CHAT_PARAMETERS)
        rendered = [encoded(message.wire, "minimax", _chat_message, message) for message in messages]
        return self._request(call, head, {"messages": rendered})

    def _answer(self, body: JSON, *, whole: bool) -> tuple[str, Mapping[str, Any] | None]:
        if whole:
            choice = objects(body["choices"])[0]
            return text(body.get("reply")) or text(choice.get("text")) or text(choice.get("delta")), None
        return "".join(text(choice.get("delta")) for choice in objects(body["choices"])[:1]), None


def _chat_message(message: Message) -> dict[str, Any]:
    return {"sender_type": "BOT" if isinstance(message, AssistantMessage) else "USER", "text": message.content}


class MinimaxProCodec(_OldCodec):
    """`chatcompletion_pro`: named senders, a bot with a text about it, `functions` with one call a reply.

    Args:
        model: For example `abab5.5-chat`.
        group_id: The account's group, a query parameter of every call.
        base_url: The host; keys of the regions are not interchangeable.
        user_name: Sender name of user messages.
        bot_name: The bot that answers; must be one of `bot_setting` if that parameter is given.
        function_sender: Whose name is the sender of a result: the function's or the bot's. Sources differ.
    """

    provider: ClassVar[str] = "minimax_pro"
    path: ClassVar[str] = "/v1/text/chatcompletion_pro"
    features = Features(
        parallel_calls=False, tool_choice=frozenset({"auto", "none"}), images=False, json_schema="none", stop=False
    )

    def __init__(self, model: str, *, function_sender: Literal["function", "bot"] = "function", **options: Any) -> None:
        super().__init__(model, **options)
        self.function_sender = function_sender

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST. The system text describes the bot."""
        specs = call.tools if self.choice_of(call) != "none" else ()
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
        ordered = alternating(one_call_each(settled(messages)))
        key = ("minimax_pro", self.user_name, speaker, self.function_sender)
        parts = {"messages": [encoded(message.wire, key, self._rendered, message, speaker) for message in ordered]}
        if specs:
            parts["functions"] = [encoded(spec.encoded, self.provider, self._function, spec) for spec in specs]
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
            raise self.refuse(f"a system prompt with {len(bots)} bots in bot_setting; put it into their 'content'")
        content = "\n\n".join(part for part in (bots[0].get("content", ""), system) if part)
        return [{**bots[0], "content": content}]

    def _rendered(self, message: Message, speaker: str) -> dict[str, Any]:
        match message:
            case AssistantMessage(tool_calls=calls):
                functions = [{"name": _own_name(call.name), "arguments": call.arguments} for call in calls[:1]]
                said = {"sender_type": "BOT", "sender_name": speaker, "text": message.content}
                return {**said, "function_call": functions[0]} if functions else said
            case ToolMessage():
                name = _own_name(message.name) if self.function_sender == "function" else speaker
                return {"sender_type": "FUNCTION", "sender_name": name, "text": message.content}
            case _:
                return {"sender_type": "USER", "sender_name": self.user_name, "text": message.content}

    def _function(self, spec: ToolSpec) -> dict[str, Any]:
        if spec.name.startswith("plugin_"):
            raise self.refuse(f"a tool named {spec.name!r}: the prefix 'plugin_' is reserved; rename the tool")
        parameters: dict[str, Any] = {"type": "object", "properties": {}, **inline_refs(spec.parameters)}
        function = {"name": spec.name, "description": never_blank(spec.name, spec.description)}
        return {**function, "parameters": parameters}

    def _answer(self, body: JSON, *, whole: bool) -> tuple[str, Mapping[str, Any] | None]:
        """Return the last message of the bot; those before it come from plugins, which ran on the server."""
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
    """Return the name of a call in a history; names that begin with `plugin_` are reserved by the provider."""
    return f"_{name}"[:64] if name.startswith("plugin_") else name
