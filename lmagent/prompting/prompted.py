"""`Prompted(codec)`: a codec that writes the tools into the prompt and reads calls from the text of the reply.

Theory of operation:

- `Prompted` wraps any codec and is a codec itself, so no other layer knows that a provider has no function calling.
  The wrapped codec sees only plain conversation, without tools.
- Writing (`render`): the tool section goes to the end of the system text, earlier calls become assistant text, and
  results become user text. A `PromptFormat` writes all three. Renderings are kept on the messages, so a turn
  costs nothing for older messages and the bytes stay equal for the prompt cache of the provider.
- User text and results are data: marker words in them are made harmless (`markers.neutralise`), they are never
  scanned, and a call that the model repeats from them is text (`quotation.EarlierTexts`).
- Reading: deltas of the wrapped codec are fed to a scanner, and its pieces become deltas again. Whole replies take the
  same path as one delta. Calls come last, when the reply ends; white space around them is dropped.
- A call that cannot be read is a call with a `problem`. It is answered with that problem instead of being run, and the
  model sends it again. Once a later reply is better, the failed call is left out of the prompt; the history keeps it.
- Where decoding can be constrained and the format is a whole-reply object, `render` sends a schema of all possible
  replies, which enforces a forced tool choice. Elsewhere the prompt can only ask.
- A stream in which the model invents a tool result is closed at once. With a reasoning model the reader waits a while,
  because all of it may have been a draft.
- `for_call` binds a copy to the tools of one request. The codec itself has no state and is shared by conversations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, cast

from lmagent.core.events import Delta, Done, ReasoningDelta, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, dumps_text
from lmagent.core.messages import AssistantMessage, Message, Reply, SystemMessage, TextPart, ToolMessage, UserMessage
from lmagent.errors import ProviderError
from lmagent.prompting.formats import Language, PromptFormat, callable_tools, format_for, instruction
from lmagent.prompting.markers import neutralise
from lmagent.prompting.quotation import EarlierTexts
from lmagent.prompting.retry_prompts import failed_rounds_at_end, failure_message, without_failed_calls
from lmagent.prompting.scanner import Scanner
from lmagent.prompting.scanner_events import CallFailed, Piece, WhitespaceHolder, call_in_thinking, delta_of
from lmagent.prompting.whole_reply import WholeReplyReader
from lmagent.providers.base import ChatCall, Codec, NamedTool, Request
from lmagent.toolkit.schema import OutputSchema, inline_refs

__all__ = ["LOCAL", "TINY", "Bounds", "Prompted", "bound_lengths", "neutralise_user"]

_FIRST_NATIVE_INDEX = 100
"""Index of the first native call, after those in the text."""
_RETRY_TEMPERATURE = 0.3
"""Lowest temperature of a second retry: at temperature 0 the model repeats its mistake."""
_MAX_DRAFT = 4000
"""Characters after an invented result in which a reasoning model may still end its thinking."""


@dataclass(slots=True)
class _State:
    inner: Any
    scanner: Scanner | WholeReplyReader | None
    whitespace: WhitespaceHolder = field(default_factory=WhitespaceHolder)
    dropped: int = 0
    """Number of characters received after the reply was cut."""
    whole: bool = False
    """The reply is complete, so there is no stream to close."""
    done: bool = False
    reasoning: list[str] = field(default_factory=list[str])
    answered: bool = False
    """Text or a call came."""


class Prompted(Codec):
    """Tools through the prompt, over any codec.

    Args:
        codec: The dialect that carries the text.
        format: Name or instance of a `PromptFormat`; None: the format of the model's family, or the whole-reply object
            where decoding can be constrained.
        language: Of the instructions; None: Chinese when the conversation begins in Chinese, else English.
        repair: Whether broken JSON in a call is repaired, losslessly or not at all.
        bounded: Whether the schema of a whole reply bounds lengths, for grammars.
    """

    reads_text = True

    def __init__(
        self,
        codec: Codec,
        *,
        format: str | PromptFormat | None = None,
        language: Language | None = None,
        repair: bool = True,
        bounded: bool = False,
    ) -> None:
        self.inner = codec
        self.format = format_for(codec.model, format or ("object" if codec.features.constrained else None))
        self.language: Language | None = language
        self.repair = repair
        self.bounded = bounded
        forced = self.format.whole_reply and bool(codec.features.constrained)
        self.features = replace(
            codec.features,
            tools=True,
            parallel_calls=self.format.parallel,
            # Where decoding is free, the prompt can only ask for a call.
            tool_choice=frozenset({"auto", "none", "required", "named"} if forced else {"auto", "none"}),
        )
        self.framing = codec.framing
        self.model = codec.model
        self._call: ChatCall | None = None
        self._schemas: dict[str, Mapping[str, Any]] = {}

    @property
    def provider(self) -> str:  # type: ignore[override]  # the wrapped dialect's
        """The wrapped dialect's provider."""
        return self.inner.provider

    @property
    def model_id(self) -> str:
        return self.inner.model_id

    def for_call(self, call: ChatCall) -> Codec:
        """Return a copy bound to `call`: reading a reply needs the names and schemas of its tools."""
        bound = copy(self)
        bound.inner = self.inner.for_call(call)
        bound._bind(call)
        return bound

    def _bind(self, call: ChatCall) -> None:
        self._call = call
        self._schemas = {tool.name: tool.parameters for tool in callable_tools(call.tools, call.tool_choice)}

    def build_request(self, call: ChatCall) -> Request:
        return self.inner.build_request(self.render(call))

    def render(self, call: ChatCall) -> ChatCall:
        """Return `call` as plain conversation: tools in the system text, calls and results as text."""
        language = self.language or _language(call.messages)
        offered = bool(call.tools) and call.tool_choice != "none"
        parameters = dict(call.parameters)
        single = parameters.pop("parallel_tool_calls", None) is False
        section = self._section(call, language, single=single) if call.tools else ""
        schema, answer_text = self._answer_form(call, language, single=single)
        messages = tuple(self._as_text(without_failed_calls(call.messages), language))
        for text in (section, answer_text):
            messages = _with_section(messages, text) if text else messages
        if offered and self.format.stop() and self.inner.features.stop:
            parameters["stop"] = list(dict.fromkeys((*parameters.get("stop", ()), *self.format.stop())))
        if "temperature" in parameters and failed_rounds_at_end(call.messages) > 1:
            parameters["temperature"] = max(parameters["temperature"], _RETRY_TEMPERATURE)
        return replace(
            call, messages=messages, tools=(), tool_choice="auto", parameters=parameters, output_schema=schema
        )

    def _section(self, call: ChatCall, language: Language, *, single: bool) -> str:
        if call.tool_choice == "none":
            # After a conversation with calls, models tend to write another one.
            return instruction("none", language) if any(isinstance(m, ToolMessage) for m in call.messages) else ""
        if single:  # passed only when needed: a format of the user may not have the parameter
            return self.format.section(call.tools, call.tool_choice, language, single=True)
        return self.format.section(call.tools, call.tool_choice, language)

    def _answer_form(self, call: ChatCall, language: Language, *, single: bool) -> tuple[OutputSchema | None, str]:
        """Return the schema to send, and the instruction for a structured answer."""
        wanted, level = call.output_schema, self.inner.features.json_schema
        if call.tools and call.tool_choice != "none":
            if self.format.whole_reply and level != "none":
                answer = wanted.schema if wanted else None
                schema = self.format.response_schema(call.tools, call.tool_choice, answer=answer, single=single)
                if schema is not None:
                    schema = bound_lengths(schema, LOCAL) if self.bounded else schema
                    text = _answer_instruction(wanted, call, language) if wanted else ""
                    return OutputSchema(name="reply", schema=schema, strict=False), text
        elif wanted is None or level != "none":
            return wanted, ""
        # Text with calls in it fits no schema, so the prompt asks for the form of the answer.
        return None, _answer_instruction(wanted, call, language) if wanted else ""

    def _as_text(self, messages: Iterable[Message], language: Language) -> Iterator[Message]:
        results: list[ToolMessage] = []
        for message in messages:
            if isinstance(message, ToolMessage):
                results.append(message)
                continue
            if results:
                yield self._results_as_text(results, language)
                results = []
            yield self._message_as_text(message)
        if results:
            yield self._results_as_text(results, language)

    def _message_as_text(self, message: Message) -> Message:
        """Render one message; keep the rendering on the message, which never changes."""
        if isinstance(message, AssistantMessage) and message.tool_calls:
            key = ("prompted", self.format.name)
            kept: Any = message.wire.get(key)
            if kept is None:
                text = "\n".join(part for part in (message.content, self.format.calls(message.tool_calls)) if part)
                kept = AssistantMessage(text, reasoning=message.reasoning, details=message.details)
                message.wire[key] = kept
            return kept
        if isinstance(message, UserMessage):
            kept = message.wire.get("neutral")
            if kept is None:
                kept = message.wire["neutral"] = _neutral(message)
            return kept
        return message

    def _results_as_text(self, results: list[ToolMessage], language: Language) -> Message:
        key = ("prompted", self.format.name, language, len(results))
        kept: Any = results[0].wire.get(key)
        if kept is None:
            kept = results[0].wire[key] = UserMessage(self.format.results(results, language))  # type: ignore[assignment]
        return kept

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        reply = self.inner.parse_reply(body, prefix=prefix)
        if not self._reads_calls:
            return reply
        builder = ReplyBuilder(prefix)
        done = Done(
            finish_reason=reply.finish_reason,
            raw_finish_reason=reply.raw_finish_reason,
            usage=reply.usage,
            details=reply.message.details,
            response_id=reply.response_id,
            raw=reply.raw,
        )
        calls = (ToolCallDelta(index, whole=call) for index, call in enumerate(reply.message.tool_calls))
        deltas: Iterable[Delta] = (ReasoningDelta(reply.message.reasoning), TextDelta(reply.reply), *calls, done)
        for delta in self._read_deltas(_State(None, self._scanner(), whole=True), deltas):
            builder.add(delta)
        built = builder.reply(reply.model_id)
        return replace(built, message=replace(built.message, refusal=reply.message.refusal))

    def new_state(self) -> Any:
        return _State(self.inner.new_state(), self._scanner() if self._reads_calls else None)

    def parse_event(self, state: Any, data: bytes, event: str = "") -> Iterable[Delta]:
        if state.done:
            return ()
        return self._read_deltas(state, self.inner.parse_event(state.inner, data, event))

    def finish(self, state: Any) -> Iterable[Delta]:
        return () if state.done else self._read_deltas(state, self.inner.finish(state.inner))

    def _read_deltas(self, state: _State, deltas: Iterable[Delta]) -> Iterable[Delta]:
        scanner = state.scanner
        if scanner is None:
            return deltas
        read: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, TextDelta):
                pieces = scanner.feed(delta.text)
            elif isinstance(delta, Done):
                pieces = scanner.finish(delta.finish_reason)
            else:
                if isinstance(delta, ToolCallDelta):
                    delta.index += _FIRST_NATIVE_INDEX
                    state.answered = True
                elif isinstance(delta, ReasoningDelta):
                    state.reasoning.append(delta.text)
                read.append(delta)
                continue
            self._add_pieces(state, pieces, read)
            if isinstance(delta, Done):
                if not state.answered and state.reasoning and delta.finish_reason != "length":
                    self._add_pieces(state, self._call_in_thinking("".join(state.reasoning)), read)
                read.extend(state.whitespace.end())
                read.append(delta)
                state.done = True
            elif scanner.cut and not state.whole and self._stream_is_over(state, delta.text):
                # The model invents results: the rest is not wanted, so the stream is closed.
                self._add_pieces(state, scanner.finish(), read)
                read.extend(state.whitespace.end())
                read.append(Done(raw_finish_reason="cut"))
                state.done = True
                break
        return read

    def _call_in_thinking(self, reasoning: str) -> list[Piece]:
        """Report a call in the reasoning of a reply that has nothing else: the model believes that it called."""
        scanner = self._text_scanner()
        failure = call_in_thinking((*scanner.feed(reasoning), *scanner.finish()))
        return [] if failure is None else [failure]

    def _add_pieces(self, state: _State, pieces: Iterable[Piece], read: list[Delta]) -> None:
        for piece in pieces:
            delta = delta_of(piece)
            if isinstance(delta, ToolCallDelta) and delta.whole is not None:
                self._check(piece, delta)
                state.answered = True
            elif isinstance(delta, TextDelta) and not state.answered:
                state.answered = bool(delta.text.strip())
            read.extend(state.whitespace.feed(delta))

    def _check(self, piece: Piece, delta: ToolCallDelta) -> None:
        call, whole = self._call, delta.whole
        assert call is not None
        assert whole is not None
        if isinstance(piece, CallFailed):
            if piece.reason == "unknown_tool" and not isinstance(call.tool_choice, NamedTool):
                problem = ""  # the registry answers it, and knows all names
            else:
                problem = failure_message(
                    piece, self._schemas, self.format.form(self.language or _language(call.messages))
                )
            delta.whole = replace(whole, problem=problem)
        elif delta.index and call.parameters.get("parallel_tool_calls") is False:
            delta.whole = replace(whole, problem="This call was not run: only one call in a reply was asked for.")

    def _stream_is_over(self, state: _State, text: str) -> bool:
        state.dropped += len(text)
        return not self.inner.features.reasoning or state.dropped > _MAX_DRAFT

    @property
    def _reads_calls(self) -> bool:
        """Whether the reply may have calls; without tools all text is text."""
        return self._call is not None and bool(self._call.tools) and self._call.tool_choice != "none"

    def _scanner(self) -> Scanner | WholeReplyReader:
        scanner = self._text_scanner()
        return WholeReplyReader(scanner) if self.format.whole_reply else scanner

    def _text_scanner(self) -> Scanner:
        call = self._call
        assert call is not None
        stop = (*self.format.stop(), *call.parameters.get("stop", ()))
        earlier = EarlierTexts(call.messages)
        return Scanner(self._schemas, repair=self.repair and call.repair, stop=stop, earlier=earlier)

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        return self.inner.parse_error(status, headers, body, text)


def neutralise_user(text: str) -> str:
    """Return the user's text with chat-template tokens and tool markup made harmless; code fences stay."""
    return neutralise(text, fences=False)


def _neutral(message: UserMessage) -> UserMessage:
    """Return the message with its texts made harmless; the same message when nothing had to change."""
    content = message.content
    if isinstance(content, str):
        clean: Any = neutralise_user(content)
    else:
        clean = tuple(TextPart(neutralise_user(part.text)) if isinstance(part, TextPart) else part for part in content)
    return message if clean == content or (clean == tuple(content)) else UserMessage(clean, name=message.name)


def _answer_instruction(wanted: OutputSchema, call: ChatCall, language: Language) -> str:
    schema = dumps_text(inline_refs(wanted.schema))
    if any(isinstance(message, SystemMessage) and schema in message.content for message in call.messages):
        return ""  # the system text has the schema already
    return f"{instruction('answer', language)}\n{schema}"


def _language(messages: Iterable[Message]) -> Language:
    """Return Chinese when the first user message has a Chinese character. It never changes later, for prompt caches."""
    for message in messages:
        if isinstance(message, UserMessage):
            return "zh" if any("\u4e00" <= char <= "\u9fff" for char in message.text) else "en"
    return "en"


def _with_section(messages: tuple[Message, ...], section: str) -> tuple[Message, ...]:
    """Append the section to the last of the leading system messages, or add a system message for it."""
    leading = 0
    while leading < len(messages) and isinstance(messages[leading], SystemMessage):
        leading += 1
    if not leading:
        return (SystemMessage(section), *messages)
    last = messages[leading - 1]
    assert isinstance(last, SystemMessage)
    return (*messages[: leading - 1], SystemMessage(f"{last.content}\n\n{section}"), *messages[leading:])


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds for the values that a model writes under a grammar."""

    string: int | None
    """Characters of a text; None: as many as the token limit allows."""
    items: int


TINY = Bounds(string=80, items=12)
"""For models that do not end a value by themselves."""
LOCAL = Bounds(string=None, items=64)
"""For other models in this process."""

_IGNORED_KEYS = frozenset({"description", "default", "title", "examples", "format", "pattern", "$schema"})
_KEPT_KEYS = frozenset({"enum", "const", "required"})


def bound_lengths(schema: Any, bounds: Bounds = TINY) -> Any:
    """Return `schema` for a grammar: lengths are bounded, and keys that a grammar ignores are left out."""
    if isinstance(schema, list):
        return [bound_lengths(item, bounds) for item in cast("list[Any]", schema)]
    if not isinstance(schema, Mapping):
        return schema
    bounded: dict[str, Any] = {}
    for key, value in cast("Mapping[str, Any]", schema).items():
        if key == "properties":
            bounded[key] = {name: bound_lengths(inner, bounds) for name, inner in value.items()}
        elif key not in _IGNORED_KEYS:
            bounded[key] = value if key in _KEPT_KEYS else bound_lengths(value, bounds)
    if bounded.get("type") == "string" and not {"enum", "const"} & bounded.keys() and bounds.string:
        bounded["maxLength"] = min(bounded.get("maxLength", bounds.string), bounds.string)
    if bounded.get("type") == "array":
        bounded["maxItems"] = min(bounded.get("maxItems", bounds.items), bounds.items)
    return bounded
