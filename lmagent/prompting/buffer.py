"""The text received so far, and the search primitives that wait for more of it.

Every scanning function is a generator. It yields when the text so far does not decide, and `Scanner.feed` resumes it.
So one sequential description of a format serves whole and streamed text. The place where a chunk ends never matters: a
primitive waits until no continuation could change its answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeVar

__all__ = [
    "TICK",
    "Extent",
    "PrefixTable",
    "Scan",
    "TextBuffer",
    "find_char",
    "find_pattern",
    "find_text",
    "json_extent",
    "match_literal",
    "prefix_table",
    "skip_space",
    "take_while",
]

T = TypeVar("T")
Scan = Generator[None, None, T]

TICK = re.compile("`")
_LONG_BUFFER = 4096
_SPACE = re.compile(r"[\s\ufeff\u200b]*")
_BLANK = re.compile(r"[ \t\u00a0]*")


class TextBuffer:
    """The part of a reply that is still needed. Indices stay valid until `compact`, which only the main loop calls."""

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        """Index of the first character that is not yet used."""
        self.offset = 0
        """Number of characters of the reply before the buffer."""
        self.ended = False
        self.truncated = False
        """A length limit cut the reply; set when it ends."""
        self._waiting: list[str] = []
        self._waiting_chars = 0

    def feed(self, text: str) -> bool:
        """Append `text`; False while more is collected for a long buffer, which keeps appending linear."""
        if not self._waiting and len(self.text) <= _LONG_BUFFER:
            self.text += text
            return True
        self._waiting.append(text)
        self._waiting_chars += len(text)
        if len(self.text) > _LONG_BUFFER and self._waiting_chars < len(self.text) >> 8:
            return False
        self._join()
        return True

    def end(self, *, truncated: bool) -> None:
        """Mark the end of the reply."""
        self._join()
        self.ended = True
        self.truncated = truncated

    def compact(self) -> None:
        """Drop the used text, except one character for look-behinds."""
        if self.position > 1 and self.position * 2 > len(self.text):
            self.offset += self.position - 1
            self.text = self.text[self.position - 1 :]
            self.position = 1

    def _join(self) -> None:
        self.text += "".join(self._waiting)
        self._waiting.clear()
        self._waiting_chars = 0


def skip_space(buffer: TextBuffer, at: int, *, lines: bool = True) -> Scan[int]:
    """Return the index of the first character at or after `at` that is not white space."""
    pattern = _SPACE if lines else _BLANK
    while True:
        found = pattern.match(buffer.text, at)
        at = found.end() if found else at
        if at < len(buffer.text) or buffer.ended:
            return at
        yield


def take_while(buffer: TextBuffer, at: int, pattern: re.Pattern[str], limit: int) -> Scan[int]:
    """Return the end of the run of `pattern` (one character) from `at`, at most `limit` characters further."""
    end = at
    while True:
        while end < len(buffer.text) and end - at < limit and pattern.match(buffer.text, end):
            end += 1
        if end < len(buffer.text) or end - at >= limit or buffer.ended:
            return end
        yield


class PrefixTable(NamedTuple):
    """Words prepared for `match_literal`."""

    longest: int
    prefixes: frozenset[str]
    """All proper prefixes."""
    words: frozenset[str]
    lengths: tuple[int, ...]
    """From long to short."""


@lru_cache(maxsize=256)
def prefix_table(options: tuple[str, ...]) -> PrefixTable:
    """Prepare words for `match_literal`. It does so itself, but to look up a long tuple takes a microsecond."""
    prefixes = frozenset(option[:end] for option in options for end in range(len(option)))
    lengths = tuple(sorted({len(option) for option in options}, reverse=True))
    return PrefixTable(lengths[0] if lengths else 0, prefixes, frozenset(options), lengths)


def match_literal(buffer: TextBuffer, at: int, options: tuple[str, ...] | PrefixTable) -> Scan[str | None]:
    """Return the longest of `options` at `at`, or None; waits while a longer one is still possible."""
    table = options if isinstance(options, PrefixTable) else prefix_table(options)
    longest, prefixes, words, lengths = table
    if buffer.text[at : at + 2] not in prefixes and len(buffer.text) >= at + 2 and lengths and lengths[-1] > 2:
        return None
    while True:
        rest = buffer.text[at : at + longest]
        if buffer.ended or rest not in prefixes:
            return next((rest[:length] for length in lengths if rest[:length] in words), None)
        yield


def find_text(buffer: TextBuffer, at: int, mark: str, limit: int | None = None) -> Scan[int]:
    """Return the index of the next `mark`, or -1 if the text ends (or `limit` characters pass) before it."""
    start = at
    while True:
        stop = len(buffer.text) if limit is None else min(len(buffer.text), start + limit)
        found = buffer.text.find(mark, at, stop)
        if found >= 0:
            return found
        if buffer.ended or (limit is not None and stop - start >= limit):
            return -1
        at = max(at, len(buffer.text) - len(mark) + 1)
        yield


def find_pattern(buffer: TextBuffer, at: int, pattern: re.Pattern[str], longest: int) -> Scan[re.Match[str] | None]:
    """Return the next match of `pattern`, which is at most `longest` characters; None if the text ends before it."""
    while True:
        found = pattern.search(buffer.text, at)
        if found or buffer.ended:
            return found
        at = max(at, len(buffer.text) - longest + 1)
        yield


def find_char(buffer: TextBuffer, at: int, pattern: re.Pattern[str]) -> Scan[int]:
    """Return the index of the next character that `pattern` (one character) matches, or the end of the text."""
    while True:
        found = pattern.search(buffer.text, at)
        if found:
            return found.start()
        if buffer.ended:
            return len(buffer.text)
        at = len(buffer.text)
        yield


@dataclass(slots=True)
class Extent:
    """The place of a JSON value in the buffer."""

    start: int
    end: int
    balanced: bool = False
    delimiter: str | None = None
    """The closing delimiter at `end`, when brackets are still open there."""
    rejected: bool = False
    """`reject` refused a key at the top of the value, which ended the scan."""
    spans: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    """Key, start and end of each value at the top."""


_INSIDE = re.compile(r"[{}\[\]\"'“”‘’＂＇｛｝［］\\/#<`]")
_AT_TOP = re.compile(r"[{}\[\]\"'“”‘’＂＇｛｝［］\\/#<`,:，：]")
_OPEN, _CLOSE = "{[｛［", "}]｝］"
_STRING_END = {
    '"': re.compile(r'[\\"]'),
    "'": re.compile(r"[\\']"),
    "＂": re.compile(r"[\\＂]"),
    "＇": re.compile(r"[\\＇]"),
    "“": re.compile(r"[\\“”]"),
    "”": re.compile(r"[\\“”]"),
    "‘": re.compile(r"[\\‘’]"),
    "’": re.compile(r"[\\‘’]"),
}
_BEFORE_STRING = "{[(,:=｛［，："


class _ScanState:
    """State of one extent scan."""

    __slots__ = ("depth", "expects_key", "extent", "key", "top", "value_start")

    def __init__(self, start: int) -> None:
        self.extent = Extent(start, start)
        self.depth = 0
        self.top = 1
        self.key: str | None = None
        self.expects_key = False
        self.value_start = -1

    def close_value(self, end: int) -> None:
        if self.key is not None and self.value_start >= 0:
            self.extent.spans.append((self.key, self.value_start, end))
        self.key, self.value_start = None, -1


def json_extent(
    buffer: TextBuffer,
    start: int,
    delimiters: tuple[str, ...] = (),
    *,
    reject: Callable[[str, Extent], bool] | None = None,
    progress: Callable[[Extent, int, int], None] | None = None,
) -> Scan[Extent]:
    """Find the end of the object or array at `start` by its strings and brackets.

    Args:
        buffer: The text.
        start: Index of the opening bracket.
        delimiters: Closing delimiters that end the scan outside strings.
        reject: Called with each key at the top; True ends the scan (`Extent.rejected`).
        progress: Called with the extent, the index reached and the depth before each wait.
    """
    state = _ScanState(start)
    extent = state.extent
    at = start

    def notify(reached: int) -> None:
        if progress:
            progress(extent, reached, state.depth)

    while True:
        pattern = _AT_TOP if state.depth <= state.top else _INSIDE
        found = pattern.search(buffer.text, at)
        if not found:
            at = len(buffer.text)
            if buffer.ended:
                break
            notify(at)
            yield
            continue
        at = found.start()
        char = buffer.text[at]
        if char in _OPEN:
            state.depth += 1
            second = state.depth == 2 and state.top == 1 and char in "{｛"
            if second and (buffer.text[start] in "[［" or not buffer.text[start + 1 : at].strip()):
                state.top = 2
            if state.depth == state.top and char in "{｛":
                state.expects_key = True
            at += 1
        elif char in _CLOSE:
            if state.depth == state.top:
                state.close_value(at)
            state.depth -= 1
            at += 1
            if state.depth == 0:
                extent.end, extent.balanced = at, True
                notify(at)
                return extent
        elif char in ",，":
            if state.depth == state.top:
                state.close_value(at)
                state.expects_key = True
            at += 1
        elif char in ":：":
            state.expects_key = False
            if state.depth == state.top and state.key is not None and state.value_start < 0:
                state.value_start = at + 1
            at += 1
        elif char in "<`":
            mark = yield from match_literal(buffer, at, delimiters)
            if mark:
                extent.end, extent.delimiter = at, mark
                return extent
            at += 1
        elif char in "/#":
            at = yield from _comment_end(buffer, at)
        else:
            opened = at
            at, whole = yield from _string_end(buffer, at, start, notify)
            if whole and state.depth == state.top and state.expects_key:
                state.key = buffer.text[opened:at].strip("\"'“”‘’＂＇\\")
                state.expects_key = False
                if reject and reject(state.key, extent):
                    extent.end, extent.rejected = at, True
                    return extent
    extent.end = len(buffer.text)
    return extent


def _comment_end(buffer: TextBuffer, at: int) -> Scan[int]:
    if buffer.text[at] == "#":
        end = yield from find_text(buffer, at, "\n")
        return len(buffer.text) if end < 0 else end
    mark = yield from match_literal(buffer, at, ("//", "/*"))
    if not mark:
        return at + 1
    end = yield from find_text(buffer, at + 2, "\n" if mark == "//" else "*/")
    return len(buffer.text) if end < 0 else end


def _string_end(buffer: TextBuffer, at: int, start: int, notify: Callable[[int], None]) -> Scan[tuple[int, bool]]:
    """Return the index after the string at `at`, and whether the string is complete.

    Where that quote cannot open a string: one character further, and False.
    """
    quote = buffer.text[at]
    escaped = quote == "\\"
    if escaped:
        while len(buffer.text) <= at + 1 and not buffer.ended:
            yield
        if buffer.text[at + 1 : at + 2] != '"':
            return at + 2, False
        quote = '"'
        at += 1
    elif quote != '"':
        before = at - 1
        while before > start and buffer.text[before].isspace():
            before -= 1
        if buffer.text[before] not in _BEFORE_STRING:
            return at + 1, False
    at += 1
    end = _STRING_END[quote]
    while True:
        found = end.search(buffer.text, at)
        if not found:
            at = len(buffer.text)
            if buffer.ended:
                return at, False
            notify(at)
            yield
            continue
        at = found.start()
        if buffer.text[at] != "\\":
            return at + 1, True
        if escaped:
            # Text that was escaped as a whole: of n backslashes before a quote, n % 4 == 1 closes the string.
            run = at
            while True:
                while run < len(buffer.text) and buffer.text[run] == "\\":
                    run += 1
                if run < len(buffer.text) or buffer.ended:
                    break
                yield
            closes = buffer.text[run : run + 1] == '"' and (run - at) % 4 == 1
            at = run + 1
            if closes:
                return min(at, len(buffer.text)), True
            continue
        at += 2
        while len(buffer.text) < at and not buffer.ended:
            yield
        at = min(at, len(buffer.text))
