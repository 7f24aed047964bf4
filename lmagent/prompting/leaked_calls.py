"""Calls that a server leaks into the text of a native reply: LM Studio, vLLM without its parser, Ollama, proxies.

`LeakedCallReader(codec)` wraps a native codec where replies are read. Text without a marker costs one search a piece.
Where a reply has calls of its own its text stays as it is; where it has none, markup that calls a known tool becomes
the call, noted as `leaked_markup` among its repairs. Code blocks, inline code and quotes are text, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmagent.core.events import Delta, Done, ReasoningDelta, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, dumps_text
from lmagent.core.messages import Reply, ToolCall
from lmagent.errors import ProviderError
from lmagent.prompting.scanner_events import (
    CallDelta,
    CallFailed,
    CallFound,
    CallStarted,
    Piece,
    TextPiece,
    ThinkingPiece,
)
from lmagent.providers.base import ChatCall, Codec, NamedTool, Request

if TYPE_CHECKING:
    from lmagent.prompting.scanner import Scanner
    from lmagent.toolkit.schema import ToolSpec

__all__ = ["LEAKED", "UNREADABLE", "Blanks", "LeakedCallReader", "delta_of", "trusted", "watched"]

UNREADABLE = "unreadable_call"
"""Name of a call whose own could not be read."""


class Blanks:
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
        text = "" if self._has_calls else self.flush()
        return (TextDelta(text),) if text else ()

    def flush(self) -> str:
        """Return the blanks that are held, and hold them no longer."""
        text = "".join(self._held)
        self._held = []
        return text


def delta_of(piece: Piece) -> Delta:
    """Return what a codec says of a piece. A failure is a call too: its `problem` is what the model is told."""
    return _DELTAS[type(piece)](piece)


def _failed(piece: CallFailed) -> Delta:
    arguments = _arguments_in(piece.raw) if piece.reason == "invalid_arguments" else piece.raw
    call = ToolCall(id="", name=piece.name or UNREADABLE, arguments=arguments, problem=piece.message or piece.reason)
    return ToolCallDelta(piece.index, whole=call)


def _arguments_in(raw: str) -> str:
    """Return the arguments of a call that could be read but does not fit, so that it goes back as it was meant."""
    from lmagent.prompting.calls import read_envelopes  # needed only for replies that went wrong
    from lmagent.toolkit.loose_json import JSONReadError, read_json

    try:
        envelopes = read_envelopes(read_json(raw, closed=True).value)
    except JSONReadError:
        return raw
    arguments = envelopes[0].arguments if envelopes and len(envelopes) == 1 else None
    return dumps_text(arguments) if isinstance(arguments, dict) else raw


_DELTAS: dict[type[Any], Callable[[Any], Delta]] = {
    TextPiece: lambda piece: TextDelta(piece.text),
    ThinkingPiece: lambda piece: ReasoningDelta(piece.text),
    CallStarted: lambda piece: ToolCallDelta(piece.index, name=piece.name, tentative=True),
    CallDelta: lambda piece: ToolCallDelta(piece.index, arguments=piece.arguments, tentative=True),
    CallFound: lambda piece: ToolCallDelta(
        piece.index, whole=ToolCall(id="", name=piece.name, arguments=piece.arguments, repairs=piece.repairs)
    ),
    CallFailed: _failed,
}


LEAKED = "leaked_markup"
"""The repair noted on a call that stood in the text of a native reply."""

_LATER = re.compile(r"[<\[✿]")
"""What markup of a call begins with, anywhere."""
_FIRST = re.compile(r"\s*(?:[{｛［]|f(?:u|\Z))")
"""What it may begin with where the reply begins: bare JSON, `functools[`."""

_NO_LIMIT = 1 << 62
_LISTS = (list, tuple)
_GAP = 24
"""The longest marker of thinking."""

_TRUSTED = (
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "aiplatform.googleapis.com",
    "openai.azure.com",
    "cognitiveservices.azure.com",
    "services.ai.azure.com",
)
"""Hosts whose own serving never leaks markup: there a text that spells a call is data, perhaps an attacker's."""


def trusted(codec: Codec) -> bool:
    """Whether the codec speaks to a platform that never leaks, so that its text is never read for calls."""
    try:
        host = urlsplit(str(getattr(codec, "base_url", ""))).hostname or ""
    except ValueError:  # no URL at all: the first request says so
        return False
    return any(host == name or host.endswith(("." + name, "-" + name)) for name in _TRUSTED)


def watched(codec: Codec, wanted: bool | None = None) -> Codec:
    """Return what reads the replies of a native codec.

    Args:
        codec: The dialect.
        wanted: Whether leaked calls are read; None: where a server may leak.
    """
    if not codec.features.tools or codec.reads_text or wanted is False or (wanted is None and trusted(codec)):
        return codec
    return LeakedCallReader(codec)


class LeakedCallReader(Codec):
    """A native codec whose replies to calls with tools are read for leaked markup.

    Args:
        codec: The native dialect.
        repair: Whether broken JSON in a leaked call is mended.
    """

    def __init__(self, codec: Codec, *, repair: bool = True) -> None:
        self.inner = codec
        self.repair = repair
        self.features = codec.features
        self.framing = codec.framing
        self.model = codec.model
        self._tools: tuple[ToolSpec, ...] = ()
        """Those that may be called."""

    @property
    def provider(self) -> str:  # type: ignore[override]  # the wrapped dialect's
        """The wrapped dialect's provider."""
        return self.inner.provider

    @property
    def model_id(self) -> str:
        return self.inner.model_id

    def for_call(self, call: ChatCall) -> Codec:
        """Return the codec that reads the answer: the native one alone when no tool may be called."""
        inner = self.inner.for_call(call)
        if not call.tools or call.tool_choice == "none":
            return inner
        bound = copy(self)
        bound.inner = inner
        bound.repair = self.repair and call.repair
        bound._tools, choice = call.tools, call.tool_choice
        if isinstance(choice, NamedTool):
            bound._tools = tuple(tool for tool in call.tools if tool.name == choice.name)
        return bound

    def build_request(self, call: ChatCall) -> Request:
        return self.inner.build_request(call)

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        return self.inner.parse_error(status, headers, body, text)

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        reply = self.inner.parse_reply(body, prefix=prefix)
        message = reply.message
        begin = None if message.tool_calls or not self._tools else _at_start(message.content)
        if begin is None:
            return reply
        reader = _Reader(self._scanner)
        builder = ReplyBuilder(prefix)
        # Cut where a stream would begin to look closer, so that both read the same.
        text, rest = message.content[: begin.start()], message.content[begin.start() :]
        done = Done(finish_reason=reply.finish_reason)
        for delta in (ReasoningDelta(message.reasoning), TextDelta(text), TextDelta(rest), done):
            for read in reader.take(delta):
                builder.add(read)
        made = builder.reply()
        if not made.tool_calls and made.message.content == message.content:
            return reply
        content, reasoning, calls = made.message.content, made.message.reasoning, made.message.tool_calls
        return replace(
            reply,
            message=replace(message, content=content, reasoning=reasoning, tool_calls=calls),
            finish_reason=made.finish_reason,
        )

    def new_state(self) -> _State:
        return _State(self.inner.new_state(), _Reader(self._scanner) if self._tools else None)

    def parse_event(self, state: _State, data: bytes, event: str = "") -> Iterable[Delta]:
        deltas = self.inner.parse_event(state.inner, data, event)
        return _read(state.reader, deltas) if state.reader else deltas

    def finish(self, state: _State) -> Iterable[Delta]:
        deltas = self.inner.finish(state.inner)
        return _read(state.reader, deltas) if state.reader else deltas

    def _scanner(self) -> Scanner:
        from lmagent.prompting.scanner import Scanner  # large: only when a text may hold markup

        schemas = {tool.name: tool.parameters for tool in self._tools}
        return Scanner(schemas, native=True, repair=self.repair, max_reply_chars=_NO_LIMIT)


class _State:
    __slots__ = ("inner", "reader")

    def __init__(self, inner: Any, reader: _Reader | None) -> None:
        self.inner = inner
        self.reader = reader


def _at_start(text: str) -> re.Match[str] | None:
    """Find what may begin markup in the first words of a reply."""
    return _FIRST.match(text) or _LATER.search(text)


def _read(reader: _Reader, deltas: Iterable[Delta]) -> Iterable[Delta]:
    """Hand on what the dialect read, markup lifted out; the hot path of streams."""
    if reader.off:
        return deltas
    if reader.idle:
        deltas = deltas if isinstance(deltas, _LISTS) else list(deltas)
        for delta in deltas:
            # A few looks at a piece of text, and nothing else: a pattern takes twice as long.
            if type(delta) is not TextDelta or "<" in (text := delta.text) or "[" in text or "✿" in text:
                break
            reader.seen.append(text)
        else:
            return deltas
        at = next(index for index, one in enumerate(deltas) if one is delta)
        return [*deltas[:at], *(read for delta in deltas[at:] for read in reader.take(delta))]
    return [read for delta in deltas for read in reader.take(delta)]


class _Reader:
    """Reads the text of one reply: idle until something in it may be a marker."""

    __slots__ = (
        "_aligned",
        "_held",
        "_holds",
        "_make_scanner",
        "_raw",
        "_scanner",
        "_tail",
        "_thinking",
        "idle",
        "off",
        "scanning",
        "seen",
    )

    def __init__(self, make_scanner: Callable[[], Scanner]) -> None:
        self._make_scanner = make_scanner
        self._scanner: Any = None
        self.seen: list[str] = []
        self.idle = False
        """The reply has begun as text, and nothing in it was a marker."""
        self.scanning = False
        self.off = False
        """The reply has calls of its own: the rest passes as it is."""
        self._raw = ""
        self._aligned = 0
        """How much of the raw text was shown, or known to be thinking."""
        self._held: list[Piece] = []
        self._holds = False
        """Markup was met: what follows is kept until it is known whether the reply has calls of its own."""
        self._thinking = False
        self._tail = ""

    def take(self, delta: Delta) -> Iterable[Delta]:
        """Read one delta."""
        if self.off:
            return (delta,)
        if isinstance(delta, TextDelta):
            return self._text(delta)
        if isinstance(delta, ToolCallDelta):
            self.off, self.idle = True, False
            return (*self._as_it_came(), delta)
        if isinstance(delta, Done) and self.scanning:
            self.off = True
            return (*self._end(delta.finish_reason), delta)
        return (delta,)

    def _text(self, delta: TextDelta) -> Iterable[Delta]:
        if not self.scanning:
            find = _LATER.search if self.idle else _at_start
            if not find(delta.text):
                self.seen.append(delta.text)
                self.idle = self.idle or bool(delta.text.strip())
                return (delta,)
            self._begin()
        self._raw += delta.text
        return self._show(self._scanner.feed(delta.text))

    def _begin(self) -> None:
        """Bring the scanner up to what was shown already: it must know of open code blocks and quotes."""
        self.scanning, self.idle = True, False
        self._scanner = self._make_scanner()
        self._raw = "".join(self.seen)
        self.seen.clear()
        shown = sum(len(piece.text) for piece in self._scanner.feed(self._raw) if isinstance(piece, TextPiece))
        # What it holds back is on show already: dropped when it comes.
        self._tail = self._raw[shown:]
        self._aligned = shown

    def _show(self, pieces: Iterable[Piece]) -> list[Delta]:
        shown: list[Delta] = []
        for piece in pieces:
            if not self._holds and not self._align(piece):
                self._holds = True
            if self._holds:
                self._held.append(piece)
            else:
                self._out(piece, shown)
        return shown

    def _align(self, piece: Piece) -> bool:
        """True when the piece is the next of the raw text (but for markers of thinking), so that it may be shown."""
        if not isinstance(piece, (TextPiece, ThinkingPiece)):
            return False
        raw, text, at = self._raw, piece.text, self._aligned
        thinking, self._thinking = self._thinking, isinstance(piece, ThinkingPiece)
        if not raw.startswith(text, at):
            if not (thinking or self._thinking):
                return False
            at = raw.find(text, at, at + len(text) + 2 * _GAP)
            if at < 0:
                return False
        self._aligned = at + len(text)
        return True

    def _out(self, piece: Piece, shown: list[Delta]) -> None:
        if self._tail and isinstance(piece, TextPiece):
            skipped = min(len(self._tail), len(piece.text))
            self._tail = self._tail[skipped:]
            if skipped == len(piece.text):
                return
            piece = TextPiece(piece.text[skipped:])
        made = delta_of(piece)
        if isinstance(made, ToolCallDelta) and made.whole is not None:
            made.whole = _leaked(made.whole)
        shown.append(made)

    def _as_it_came(self) -> list[Delta]:
        """The reply has calls of its own: what was kept back is shown as it came."""
        if not self.scanning:
            return []
        rest = self._raw[self._aligned + len(self._tail) :]
        return [TextDelta(rest)] if rest else []

    def _end(self, finish_reason: str) -> list[Delta]:
        shown = self._show(self._scanner.finish(finish_reason))
        held: list[Delta] = []
        for piece in self._held:
            self._out(piece, held)
        calls = any(isinstance(delta, ToolCallDelta) and delta.whole is not None for delta in held)
        texts = [delta for delta in held if isinstance(delta, TextDelta)]
        while calls and texts and not texts[-1].text.strip():
            texts.pop().text = ""  # blanks around markup belong to it
        if calls and texts:
            texts[-1].text = texts[-1].text.rstrip()
        return [*shown, *held]


def _leaked(call: ToolCall) -> ToolCall:
    return replace(call, repairs=(*call.repairs, LEAKED))
