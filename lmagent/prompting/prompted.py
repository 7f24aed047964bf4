"""`Prompted(codec)`: a codec that writes the tools into the prompt and lifts calls out of the answer.

It obeys the same five functions, so no other floor knows that the provider has no function calling.
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
from lmagent.prompting.formats import Language, PromptFormat, format_for, words
from lmagent.prompting.leaked_calls import Blanks, delta_of
from lmagent.prompting.markers import neutralise
from lmagent.prompting.retry_prompts import complaint, failures_at_end, without_failures
from lmagent.prompting.scanner import Scanner
from lmagent.prompting.scanner_events import CallFailed, Piece
from lmagent.prompting.whole_reply import ObjectReader
from lmagent.providers.base import ChatCall, Codec, NamedTool, Request
from lmagent.toolkit.schema import OutputSchema, inline_refs

__all__ = ["LOCAL", "TINY", "Bounds", "Prompted", "bounded", "neutralise_user"]

_OWN_CALLS = 100
"""Index of the first call that the server has read itself, behind those that stood in the text."""
_WARM = 0.3
"""Least temperature of a second re-ask: the same question at temperature 0 repeats the same fault."""
_DRAFT = 4000
"""Characters after an invented result in which a thinking model may still show that it all was a draft."""


@dataclass(slots=True)
class _State:
    inner: Any
    scanner: Scanner | ObjectReader | None
    blanks: Blanks = field(default_factory=Blanks)
    dropped: int = 0
    """Characters that came after the reply was cut."""
    whole: bool = False
    """The reply is there already: there is no stream to close."""
    done: bool = False


class Prompted(Codec):
    """Tools through the prompt, over any codec.

    Args:
        codec: The dialect that carries the text.
        format: Name or instance of a `PromptFormat`; None: what the model's family knows best, or the whole-reply
            form where decoding can be constrained.
        language: Of the instructions; None: Chinese when the conversation begins in Chinese, else English.
        repair: Whether broken JSON in a call is mended, losslessly or not at all.
        bounded: Whether lengths in the schema of a whole reply are bounded, for grammars.
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
            # Elsewhere the prompt can only ask for a call.
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
        """Return a copy that knows the tools of `call`: reading a reply needs their names and schemas."""
        bound = copy(self)
        bound.inner = self.inner.for_call(call)
        bound._bind(call)
        return bound

    def _bind(self, call: ChatCall) -> None:
        named = call.tool_choice.name if isinstance(call.tool_choice, NamedTool) else None
        self._call = call
        self._schemas = {tool.name: tool.parameters for tool in call.tools if named in (None, tool.name)}

    # Writing

    def build_request(self, call: ChatCall) -> Request:
        return self.inner.build_request(self.render(call))

    def render(self, call: ChatCall) -> ChatCall:
        """Return `call` as plain conversation: tools in the system text, calls and results as text."""
        language = self.language or _language(call.messages)
        offered = bool(call.tools) and call.tool_choice != "none"
        parameters = dict(call.parameters)
        single = parameters.pop("parallel_tool_calls", None) is False
        section = self._section(call, language, single=single) if call.tools else ""
        schema, asked = self._answer_form(call, language, single=single)
        messages = tuple(self._plain(without_failures(call.messages), language))
        for text in (section, asked):
            messages = _with_section(messages, text) if text else messages
        if offered and self.format.stop() and self.inner.features.stop:
            parameters["stop"] = list(dict.fromkeys((*parameters.get("stop", ()), *self.format.stop())))
        if "temperature" in parameters and failures_at_end(call.messages) > 1:
            parameters["temperature"] = max(parameters["temperature"], _WARM)
        return replace(
            call, messages=messages, tools=(), tool_choice="auto", parameters=parameters, output_schema=schema
        )

    def _section(self, call: ChatCall, language: Language, *, single: bool) -> str:
        if call.tool_choice == "none":
            # A conversation full of calls invites another one.
            return words("none", language) if any(isinstance(m, ToolMessage) for m in call.messages) else ""
        if single:  # asked for only when needed: formats of users may not know the word
            return self.format.section(call.tools, call.tool_choice, language, single=True)
        return self.format.section(call.tools, call.tool_choice, language)

    def _answer_form(self, call: ChatCall, language: Language, *, single: bool) -> tuple[OutputSchema | None, str]:
        """Return the schema that is sent, and what the prompt says of a structured answer."""
        wanted, level = call.output_schema, self.inner.features.json_schema
        if call.tools and call.tool_choice != "none":
            if self.format.whole_reply and level != "none":
                answer = wanted.schema if wanted else None
                schema = self.format.response_schema(call.tools, call.tool_choice, answer=answer, single=single)
                if schema is not None:
                    schema = _bounded(schema) if self.bounded else schema
                    said = _asked(wanted, call, language) if wanted else ""
                    return OutputSchema(name="reply", schema=schema, strict=False), said
        elif wanted is None or level != "none":
            return wanted, ""
        # Text with calls in it fits no schema, so the answer's form is only asked for.
        return None, _asked(wanted, call, language) if wanted else ""

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
        if isinstance(message, UserMessage):
            kept = message.wire.get("neutral")
            if kept is None:
                kept = message.wire["neutral"] = _neutral(message)
            return kept
        return message

    def _results(self, results: list[ToolMessage], language: Language) -> Message:
        key = ("prompted", self.format.name, language, len(results))
        kept: Any = results[0].wire.get(key)
        if kept is None:
            kept = results[0].wire[key] = UserMessage(self.format.results(results, language))  # type: ignore[assignment]
        return kept

    # Reading

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        reply = self.inner.parse_reply(body, prefix=prefix)
        if not self._reads:
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
        for delta in self._lift(_State(None, self._scanner(), whole=True), deltas):
            builder.add(delta)
        made = builder.reply(reply.model_id)
        return replace(made, message=replace(made.message, refusal=reply.message.refusal))

    def new_state(self) -> Any:
        return _State(self.inner.new_state(), self._scanner() if self._reads else None)

    def parse_event(self, state: Any, data: bytes, event: str = "") -> Iterable[Delta]:
        if state.done:
            return ()
        return self._lift(state, self.inner.parse_event(state.inner, data, event))

    def finish(self, state: Any) -> Iterable[Delta]:
        return () if state.done else self._lift(state, self.inner.finish(state.inner))

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
                if isinstance(delta, ToolCallDelta):
                    delta.index += _OWN_CALLS
                lifted.append(delta)
                continue
            self._take(state, pieces, lifted)
            if isinstance(delta, Done):
                lifted.extend(state.blanks.end())
                lifted.append(delta)
                state.done = True
            elif scanner.cut and not state.whole and self._is_over(state, delta.text):
                # The model plays the tools by itself: nothing more of it is wanted, so the stream is closed.
                self._take(state, scanner.finish(), lifted)
                lifted.extend(state.blanks.end())
                lifted.append(Done(raw_finish_reason="cut"))
                state.done = True
                break
        return lifted

    def _take(self, state: _State, pieces: Iterable[Piece], lifted: list[Delta]) -> None:
        for piece in pieces:
            delta = delta_of(piece)
            if isinstance(delta, ToolCallDelta) and delta.whole is not None:
                self._judge(piece, delta)
            lifted.extend(state.blanks.take(delta))

    def _judge(self, piece: Piece, delta: ToolCallDelta) -> None:
        call, whole = self._call, delta.whole
        assert call is not None
        assert whole is not None
        if isinstance(piece, CallFailed):
            if piece.reason == "unknown_tool" and not isinstance(call.tool_choice, NamedTool):
                problem = ""  # answered by the registry, which knows the names
            else:
                problem = complaint(piece, self._schemas, self.format.form(self.language or _language(call.messages)))
            delta.whole = replace(whole, problem=problem)
        elif delta.index and call.parameters.get("parallel_tool_calls") is False:
            delta.whole = replace(whole, problem="This call was not run: only one call in a reply was asked for.")

    def _is_over(self, state: _State, text: str) -> bool:
        state.dropped += len(text)
        return not self.inner.features.reasoning or state.dropped > _DRAFT

    @property
    def _reads(self) -> bool:
        """Whether the reply may have calls: without tools, text is text."""
        return self._call is not None and bool(self._call.tools) and self._call.tool_choice != "none"

    def _scanner(self) -> Scanner | ObjectReader:
        call = self._call
        assert call is not None
        stop = (*self.format.stop(), *call.parameters.get("stop", ()))
        scanner = Scanner(self._schemas, repair=self.repair and call.repair, stop=stop)
        return ObjectReader(scanner) if self.format.whole_reply else scanner

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        return self.inner.parse_error(status, headers, body, text)


def neutralise_user(text: str) -> str:
    """Return the user's text with chat-template tokens and tool markup made harmless; code stays code."""
    return neutralise(text, fences=False)


def _neutral(message: UserMessage) -> UserMessage:
    """Return the message with every text in it made harmless; itself when nothing had to change."""
    content = message.content
    if isinstance(content, str):
        clean: Any = neutralise_user(content)
    else:
        clean = tuple(TextPart(neutralise_user(part.text)) if isinstance(part, TextPart) else part for part in content)
    return message if clean == content or (clean == tuple(content)) else UserMessage(clean, name=message.name)


def _bounded(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    from lmagent.prompting.prompted import LOCAL, bounded  # only for models in this process

    return bounded(schema, LOCAL)


def _asked(wanted: OutputSchema, call: ChatCall, language: Language) -> str:
    schema = dumps_text(inline_refs(wanted.schema))
    if any(isinstance(message, SystemMessage) and schema in message.content for message in call.messages):
        return ""  # the system text says so already
    return f"{words('answer', language)}\n{schema}"


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


@dataclass(frozen=True, slots=True)
class Bounds:
    """The longest values a grammar lets a model write."""

    string: int | None
    """Characters; None: as long as the token limit allows."""
    items: int


TINY = Bounds(string=80, items=12)
"""For models that do not find an end by themselves."""
LOCAL = Bounds(string=None, items=64)
"""For any model in this process."""

_ONLY_COST = frozenset({"description", "default", "title", "examples", "format", "pattern", "$schema"})
_VALUES = frozenset({"enum", "const", "required"})


def bounded(schema: Any, bounds: Bounds = TINY) -> Any:
    """Return `schema` for a grammar."""
    if isinstance(schema, list):
        return [bounded(item, bounds) for item in cast("list[Any]", schema)]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in cast("Mapping[str, Any]", schema).items():
        if key == "properties":
            made[key] = {name: bounded(inner, bounds) for name, inner in value.items()}
        elif key not in _ONLY_COST:
            made[key] = value if key in _VALUES else bounded(value, bounds)
    if made.get("type") == "string" and not {"enum", "const"} & made.keys() and bounds.string:
        made["maxLength"] = min(made.get("maxLength", bounds.string), bounds.string)
    if made.get("type") == "array":
        made["maxItems"] = min(made.get("maxItems", bounds.items), bounds.items)
    return made
