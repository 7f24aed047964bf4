"""`Prompted(codec)`: a codec that writes the tools into the prompt and lifts calls out of the answer.

It obeys the same five functions, so no other floor knows that the provider has no function calling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lmagent.errors import ProviderError
from lmagent.events import Delta, Done, ReasoningDelta, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.jsontext import JSON
from lmagent.messages import AssistantMessage, Message, Reply, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.prompting.formats import Language, PromptFormat, format_for
from lmagent.prompting.neutralise import neutralise
from lmagent.prompting.scanner import (
    CallDelta,
    CallFailed,
    CallFound,
    CallStarted,
    Piece,
    Scanner,
    TextPiece,
    ThinkingPiece,
)
from lmagent.providers.base import ChatCall, Codec, OutputSchema, Request

__all__ = ["Prompted", "neutralise_user"]


@dataclass(slots=True)
class _State:
    inner: Any
    scanner: Scanner | None
    blanks: _Blanks = field(default_factory=lambda: _Blanks())


class Prompted(Codec):
    """Tools through the prompt, over any codec.

    Args:
        codec: The dialect that carries the text.
        format: Name or instance of a `PromptFormat`; None: what the model's family knows best, or the whole-reply
            form where decoding can be constrained.
        language: Of the instructions; None: Chinese when the conversation begins in Chinese, else English.
        repair: Whether broken JSON in a call is mended, losslessly or not at all.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        format: str | PromptFormat | None = None,
        language: Language | None = None,
        repair: bool = True,
    ) -> None:
        self.inner = codec
        self.format = format_for(codec.model, format or ("object" if codec.features.constrained else None))
        self.language: Language | None = language
        self.repair = repair
        self.features = replace(codec.features, tools=True, parallel_calls=self.format.parallel)
        self.framing = codec.framing
        self.model = codec.model
        self._call: ChatCall | None = None

    @property
    def provider(self) -> str:  # type: ignore[override]  # the wrapped dialect's
        """The wrapped dialect's provider."""
        return self.inner.provider

    @property
    def model_id(self) -> str:
        return self.inner.model_id

    def for_call(self, call: ChatCall) -> Codec:
        """Return a copy that knows the tools of `call`: reading a reply needs their names and schemas."""
        bound = object.__new__(Prompted)
        bound.__dict__.update(self.__dict__)
        bound._call = call
        return bound

    def build_request(self, call: ChatCall) -> Request:
        return self.inner.build_request(self.render(call))

    def render(self, call: ChatCall) -> ChatCall:
        """Return `call` as plain conversation: tools in the system text, calls and results as text."""
        language = self.language or _language(call.messages)
        section = self.format.section(call.tools, call.tool_choice, language) if call.tools else ""
        messages = tuple(self._plain(call.messages, language))
        if section:
            messages = _with_section(messages, section)
        parameters = call.parameters
        if section and self.format.stop() and self.inner.features.stop:
            parameters = {**parameters, "stop": [*parameters.get("stop", ()), *self.format.stop()]}
        return replace(
            call,
            messages=messages,
            tools=(),
            tool_choice="auto",
            parameters=parameters,
            output_schema=call.output_schema or self._schema(call),
        )

    def _schema(self, call: ChatCall) -> OutputSchema | None:
        if not call.tools or call.tool_choice == "none" or not self.inner.features.constrained:
            return None
        schema = self.format.response_schema(call.tools, call.tool_choice)
        return OutputSchema(name="reply", schema=schema, strict=False) if schema else None

    def _plain(self, messages: Iterable[Message], language: Language) -> Iterator[Message]:
        results: list[ToolMessage] = []
        for message in messages:
            if isinstance(message, ToolMessage):
                results.append(message)
                continue
            if results:
                yield self._results(results, language)
                results = []
            yield self._plain_message(message)
        if results:
            yield self._results(results, language)

    def _plain_message(self, message: Message) -> Message:
        """Render one message; the rendering is kept on the message, which never changes."""
        if isinstance(message, AssistantMessage) and message.tool_calls:
            key = ("prompted", self.format.name)
            kept: Any = message.wire.get(key)
            if kept is None:
                text = "\n".join(part for part in (message.content, self.format.calls(message.tool_calls)) if part)
                kept = AssistantMessage(text, reasoning=message.reasoning, details=message.details)
                message.wire[key] = kept
            return kept
        if isinstance(message, UserMessage) and isinstance(message.content, str):
            kept = message.wire.get("neutral")
            if kept is None:
                clean = neutralise_user(message.content)
                kept = message if clean == message.content else UserMessage(clean, name=message.name)
                message.wire["neutral"] = kept
            return kept
        return message

    def _results(self, results: list[ToolMessage], language: Language) -> Message:
        key = ("prompted", self.format.name, language, len(results))
        kept: Any = results[0].wire.get(key)
        if kept is None:
            kept = results[0].wire[key] = UserMessage(self.format.results(results, language))  # type: ignore[assignment]
        return kept

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        reply = self.inner.parse_reply(body, prefix=prefix)
        scanner = self._scanner()
        if scanner is None:
            return reply
        builder = ReplyBuilder(prefix)
        if reply.message.reasoning:
            builder.add(ReasoningDelta(reply.message.reasoning))
        blanks = _Blanks()
        for piece in (*scanner.feed(reply.reply), *scanner.finish(reply.finish_reason)):
            for delta in blanks.take(_delta(piece)):
                builder.add(delta)
        for delta in blanks.end():
            builder.add(delta)
        builder.add(
            Done(
                finish_reason=reply.finish_reason,
                raw_finish_reason=reply.raw_finish_reason,
                usage=reply.usage,
                details=reply.message.details,
                response_id=reply.response_id,
                raw=reply.raw,
            )
        )
        made = builder.reply(reply.model_id)
        return replace(made, message=replace(made.message, refusal=reply.message.refusal))

    def new_state(self) -> _State:
        return _State(self.inner.new_state(), self._scanner())

    def parse_event(self, state: _State, data: bytes, event: str = "") -> Iterable[Delta]:
        return self._lift(state, self.inner.parse_event(state.inner, data, event))

    def finish(self, state: _State) -> Iterable[Delta]:
        return self._lift(state, self.inner.finish(state.inner))

    def _lift(self, state: _State, deltas: Iterable[Delta]) -> Iterable[Delta]:
        scanner = state.scanner
        if scanner is None:
            return deltas
        lifted: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, TextDelta):
                pieces = scanner.feed(delta.text)
            elif isinstance(delta, Done):
                pieces = scanner.finish(delta.finish_reason)
            else:
                lifted.append(delta)
                continue
            for piece in pieces:
                lifted.extend(state.blanks.take(_delta(piece)))
            if isinstance(delta, Done):
                lifted.extend(state.blanks.end())
                lifted.append(delta)
        return lifted

    def _scanner(self) -> Scanner | None:
        call = self._call
        if call is None or not call.tools or call.tool_choice == "none":
            return None
        return Scanner({tool.name: tool.parameters for tool in call.tools}, repair=self.repair, stop=self.format.stop())

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        return self.inner.parse_error(status, headers, body, text)


class _Blanks:
    """Holds blanks back until text follows: those around calls belong to the markup, not to the answer."""

    __slots__ = ("_has_calls", "_held")

    def __init__(self) -> None:
        self._held: list[str] = []
        self._has_calls = False

    def take(self, delta: Delta) -> tuple[Delta, ...]:
        """Return what can be handed on."""
        if not isinstance(delta, TextDelta):
            self._has_calls = self._has_calls or (isinstance(delta, ToolCallDelta) and delta.whole is not None)
            return (delta,)
        shown = delta.text.rstrip()
        if not shown:
            self._held.append(delta.text)
            return ()
        text = "".join(self._held) + shown
        self._held = [delta.text[len(shown) :]]
        return (TextDelta(text),)

    def end(self) -> tuple[Delta, ...]:
        """Return the blanks at the end of an answer without calls."""
        text = "" if self._has_calls else "".join(self._held)
        return (TextDelta(text),) if text else ()


def _delta(piece: Piece) -> Delta:
    return _DELTAS[type(piece)](piece)


_DELTAS: dict[type[Any], Callable[[Any], Delta]] = {
    TextPiece: lambda piece: TextDelta(piece.text),
    ThinkingPiece: lambda piece: ReasoningDelta(piece.text),
    CallStarted: lambda piece: ToolCallDelta(piece.index, name=piece.name),
    CallDelta: lambda piece: ToolCallDelta(piece.index, arguments=piece.arguments),
    CallFound: lambda piece: ToolCallDelta(
        piece.index, whole=ToolCall(id="", name=piece.name, arguments=piece.arguments, repairs=piece.repairs)
    ),
    CallFailed: lambda piece: ToolCallDelta(
        piece.index,
        whole=ToolCall(
            id="",
            name=piece.name or "unreadable_call",
            arguments=piece.raw,
            # An unknown tool is answered by the registry, which knows the names.
            problem="" if piece.reason == "unknown_tool" else piece.message,
        ),
    ),
}


def neutralise_user(text: str) -> str:
    """Return the user's text with chat-template tokens and tool markup made harmless."""
    return neutralise(text) if any(mark in text for mark in ("<|", "<｜", "[INST", "[TOOL", "<tool", "✿")) else text


def _language(messages: Iterable[Message]) -> Language:
    """Chinese when the first thing the user says has a Chinese character; it then stays so, for prompt caches."""
    for message in messages:
        if isinstance(message, UserMessage):
            return "zh" if any("\u4e00" <= char <= "\u9fff" for char in message.text) else "en"
    return "en"


def _with_section(messages: tuple[Message, ...], section: str) -> tuple[Message, ...]:
    """Append the tool section to the system text: the last of the leading system messages, or one of its own."""
    leading = 0
    while leading < len(messages) and isinstance(messages[leading], SystemMessage):
        leading += 1
    if not leading:
        return (SystemMessage(section), *messages)
    last = messages[leading - 1]
    assert isinstance(last, SystemMessage)
    return (*messages[: leading - 1], SystemMessage(f"{last.content}\n\n{section}"), *messages[leading:])
