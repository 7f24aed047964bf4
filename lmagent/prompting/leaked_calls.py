"""Reads calls that a server leaks into the text of a native reply: LM Studio, vLLM without its parser, Ollama, proxies.

`LeakedCallReader(codec)` wraps a native codec. Text without a marker costs one search per delta. If a reply has native
calls, its text stays as it is. If it has none, markup that names a known tool becomes the call, with `leaked_markup`
among its repairs. Code blocks, inline code and quotes are text, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmagent.core.events import Delta, Done, ReasoningDelta, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON
from lmagent.core.messages import Message, Reply, ToolCall
from lmagent.errors import ProviderError
from lmagent.prompting.scanner_events import Piece, TextPiece, ThinkingPiece, call_in_thinking, delta_of
from lmagent.prompting.thinking_tags import after_think_tags
from lmagent.providers.base import ChatCall, Codec, NamedTool, Request

if TYPE_CHECKING:
    from lmagent.prompting.scanner import Scanner
    from lmagent.toolkit.schema import ToolSpec

__all__ = ["LEAKED", "LeakedCallReader", "has_no_leaks", "with_leaked_calls"]

LEAKED = "leaked_markup"
"""The repair noted on a call that stood in the text of a native reply."""

_MAY_BE_MARKUP = re.compile(r"[<\[✿◁]|\](?=<)")
"""First characters of call markup, anywhere in the text."""
_MAY_BE_CALL_AT_START = re.compile(r"\s*(?:[{｛［\]]|f(?:u|\Z)|a(?:[ns]|\Z)|-(?:>|\Z))")
"""First characters of call markup where the reply begins: bare JSON, `functools[`, harmony without its tokens."""

_NO_LIMIT = 1 << 62
_SEQUENCES = (list, tuple)

_HOSTS_WITHOUT_LEAKS = (
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "aiplatform.googleapis.com",
    "openai.azure.com",
    "cognitiveservices.azure.com",
    "services.ai.azure.com",
)
"""Hosts that never leak markup: text there that spells a call is data, perhaps an attacker's."""


def has_no_leaks(codec: Codec) -> bool:
    """Return whether the codec speaks to a platform that never leaks, so that its text is not read for calls."""
    try:
        host = urlsplit(str(getattr(codec, "base_url", ""))).hostname or ""
    except ValueError:  # not a URL; the first request reports it
        return False
    return any(host == name or host.endswith(("." + name, "-" + name)) for name in _HOSTS_WITHOUT_LEAKS)


def with_leaked_calls(codec: Codec, enabled: bool | None = None) -> Codec:
    """Return the codec, wrapped so that it reads leaked calls where that is wanted.

    Args:
        codec: The dialect.
        enabled: Whether leaked calls are read; None: where a server may leak them.
    """
    if not codec.features.tools or codec.reads_text or enabled is False or (enabled is None and has_no_leaks(codec)):
        return codec
    return LeakedCallReader(codec)


class LeakedCallReader(Codec):
    """A native codec that also reads leaked markup in replies to calls with tools.

    Args:
        codec: The native dialect.
        repair: Whether broken JSON in a leaked call is repaired.
    """

    def __init__(self, codec: Codec, *, repair: bool = True) -> None:
        self.inner = codec
        self.repair = repair
        self.features = codec.features
        self.framing = codec.framing
        self.model = codec.model
        self._tools: tuple[ToolSpec, ...] = ()
        """Tools that may be called."""
        self._messages: Sequence[Message] = ()

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
        bound._messages = call.messages
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
        if message.tool_calls or not self._tools:
            return reply
        begin = _find_markup(message.content)
        if begin is None and (message.content.strip() or not _find_markup(message.reasoning)):
            return reply
        at = begin.start() if begin else len(message.content)
        reader = _TextReader(self._scanner)
        builder = ReplyBuilder(prefix)
        # Split where a stream would start the scanner, so that streamed and whole replies read the same.
        text, rest = message.content[:at], message.content[at:]
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
        return _State(self.inner.new_state(), _TextReader(self._scanner) if self._tools else None)

    def parse_event(self, state: _State, data: bytes, event: str = "") -> Iterable[Delta]:
        deltas = self.inner.parse_event(state.inner, data, event)
        return _read_deltas(state.reader, deltas) if state.reader else deltas

    def finish(self, state: _State) -> Iterable[Delta]:
        deltas = self.inner.finish(state.inner)
        return _read_deltas(state.reader, deltas) if state.reader else deltas

    def _scanner(self) -> Scanner:
        from lmagent.prompting.quotation import EarlierTexts
        from lmagent.prompting.scanner import Scanner  # large: only when a text may hold markup

        schemas = {tool.name: tool.parameters for tool in self._tools}
        earlier = EarlierTexts(self._messages)
        return Scanner(schemas, native=True, repair=self.repair, max_reply_chars=_NO_LIMIT, earlier=earlier)


class _State:
    __slots__ = ("inner", "reader")

    def __init__(self, inner: Any, reader: _TextReader | None) -> None:
        self.inner = inner
        self.reader = reader


def _find_markup(text: str) -> re.Match[str] | None:
    """Find the first place in a reply where markup may begin."""
    return _MAY_BE_CALL_AT_START.match(text) or _MAY_BE_MARKUP.search(text)


def _read_deltas(reader: _TextReader, deltas: Iterable[Delta]) -> Iterable[Delta]:
    """Pass on the deltas of the dialect, with calls read from the text. The hot path of streams."""
    if reader.off:
        return deltas
    if reader.idle:
        deltas = deltas if isinstance(deltas, _SEQUENCES) else list(deltas)
        for delta in deltas:
            # Three tests by hand: a regular expression takes twice as long. Only "<" and "[" are ASCII.
            if type(delta) is not TextDelta or "<" in (text := delta.text) or "[" in text:
                break
            if not text.isascii() and ("✿" in text or "◁" in text):
                break
            reader.seen.append(text)
        else:
            return deltas
        at = next(index for index, one in enumerate(deltas) if one is delta)
        return [*deltas[:at], *(read for delta in deltas[at:] for read in reader.take(delta))]
    return [read for delta in deltas for read in reader.take(delta)]


class _TextReader:
    """Reads the text of one reply; idle until something in it may be a marker."""

    __slots__ = (
        "_already_shown",
        "_held",
        "_holding",
        "_make_scanner",
        "_raw",
        "_reasoning",
        "_scanner",
        "_shown_to",
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
        """The reply began with text, and no marker came yet."""
        self.scanning = False
        self.off = False
        """The reply has native calls: the rest passes unchanged."""
        self._reasoning: list[str] = []
        self._raw = ""
        self._shown_to = 0
        """Number of characters of the raw text that were shown, or are known to be thinking."""
        self._held: list[Piece] = []
        self._holding = False
        """Markup came: pieces are held until it is known whether the reply has native calls."""
        self._already_shown = ""

    def take(self, delta: Delta) -> Iterable[Delta]:
        """Read one delta."""
        if self.off:
            return (delta,)
        if isinstance(delta, TextDelta):
            return self._text(delta)
        if isinstance(delta, ToolCallDelta):
            self.off, self.idle = True, False
            return (*self._held_text(), delta)
        if isinstance(delta, ReasoningDelta):
            self._reasoning.append(delta.text)
        elif isinstance(delta, Done):
            self.off = True
            ending = self._end(delta.finish_reason) if self.scanning else []
            return (*ending, *self._call_in_thinking(delta.finish_reason), delta)
        return (delta,)

    def _call_in_thinking(self, finish_reason: str) -> list[Delta]:
        """Report a call in the reasoning of a reply that has no text: the model believes that it called."""
        reasoning = "".join(self._reasoning)
        if self.idle or self._raw.strip() or finish_reason == "length" or not _find_markup(reasoning):
            return []
        scanner = self._make_scanner()
        failure = call_in_thinking((*scanner.feed(reasoning), *scanner.finish()))
        return [] if failure is None else [delta_of(failure)]

    def _text(self, delta: TextDelta) -> Iterable[Delta]:
        if not self.scanning:
            find = _MAY_BE_MARKUP.search if self.idle else _find_markup
            if not find(delta.text):
                self.seen.append(delta.text)
                self.idle = self.idle or bool(delta.text.strip())
                return (delta,)
            self._begin()
        self._raw += delta.text
        return self._show(self._scanner.feed(delta.text))

    def _begin(self) -> None:
        """Start the scanner on the text shown so far: it must know of open code blocks and quotes."""
        self.scanning, self.idle = True, False
        self._scanner = self._make_scanner()
        self._raw = "".join(self.seen)
        self.seen.clear()
        shown = sum(len(piece.text) for piece in self._scanner.feed(self._raw) if isinstance(piece, TextPiece))
        # The scanner may hold back text that was shown already; dropped when the scanner emits it.
        self._already_shown = self._raw[shown:]
        self._shown_to = shown

    def _show(self, pieces: Iterable[Piece]) -> list[Delta]:
        shown: list[Delta] = []
        for piece in pieces:
            if not self._holding and not self._continues_raw(piece):
                self._holding = True
            if self._holding:
                self._held.append(piece)
            else:
                self._emit(piece, shown)
        return shown

    def _continues_raw(self, piece: Piece) -> bool:
        """Return whether the piece continues the raw text (apart from markers of thinking), so that it may be shown."""
        if not isinstance(piece, (TextPiece, ThinkingPiece)):
            return False
        raw, text, at = self._raw, piece.text, self._shown_to
        if not raw.startswith(text, at):
            at = after_think_tags(raw, at)
            if not raw.startswith(text, at):
                return False
        self._shown_to = at + len(text)
        return True

    def _emit(self, piece: Piece, shown: list[Delta]) -> None:
        if self._already_shown and isinstance(piece, TextPiece):
            skipped = min(len(self._already_shown), len(piece.text))
            self._already_shown = self._already_shown[skipped:]
            if skipped == len(piece.text):
                return
            piece = TextPiece(piece.text[skipped:])
        made = delta_of(piece)
        if isinstance(made, ToolCallDelta) and made.whole is not None:
            made.whole = _as_leaked(made.whole)
        shown.append(made)

    def _held_text(self) -> list[Delta]:
        """Return the text that was held back, unchanged: the reply has native calls."""
        if not self.scanning:
            return []
        rest = self._raw[self._shown_to + len(self._already_shown) :]
        return [TextDelta(rest)] if rest else []

    def _end(self, finish_reason: str) -> list[Delta]:
        shown = self._show(self._scanner.finish(finish_reason))
        held: list[Delta] = []
        for piece in self._held:
            self._emit(piece, held)
        calls = any(isinstance(delta, ToolCallDelta) and delta.whole is not None for delta in held)
        texts = [delta for delta in held if isinstance(delta, TextDelta)]
        while calls and texts and not texts[-1].text.strip():
            texts.pop().text = ""  # white space around markup belongs to it
        if calls and texts:
            texts[-1].text = texts[-1].text.rstrip()
        return [*shown, *held]


def _as_leaked(call: ToolCall) -> ToolCall:
    return replace(call, repairs=(*call.repairs, LEAKED))
