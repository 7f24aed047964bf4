"""The text so far, and the primitives that wait for more of it.

Every scanning function is a generator that yields when the text at hand does not decide; `Scanner.feed` resumes it.
So one sequential description of a format serves whole and streamed text alike. Decisions never look at where a chunk
ended: a primitive waits until no continuation could change its answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

__all__ = ["Extent", "Scan", "Source", "json_extent", "literal", "skip_space", "take_while", "until", "until_any"]

T = TypeVar("T")
Scan = Generator[None, None, T]

_HELD = 4096
_SPACE = re.compile(r"[\s\ufeff\u200b]*")
_BLANK = re.compile(r"[ \t\u00a0]*")


class Source:
    """A growing buffer. Indices stay valid until `compact`, which only the outermost loop calls."""

    def __init__(self) -> None:
        self.buf = ""
        self.pos = 0
        """First character that nobody has taken yet."""
        self.base = 0
        """How many characters of the reply lie before the buffer."""
        self.ended = False
        self.length = False
        """The reply was cut by a length limit; set when it ends."""
        self._waiting: list[str] = []
        self._waiting_chars = 0

    def feed(self, text: str) -> bool:
        """Append `text`; False while a long held-back buffer collects more, which keeps appending linear."""
        self._waiting.append(text)
        self._waiting_chars += len(text)
        if len(self.buf) > _HELD and self._waiting_chars < len(self.buf) >> 8:
            return False
        self._join()
        return True

    def end(self, *, length: bool) -> None:
        """Say that no more text comes."""
        self._join()
        self.ended = True
        self.length = length

    def compact(self) -> None:
        """Forget what was taken, but for one character that look-behinds may want."""
        if self.pos > 1 and self.pos * 2 > len(self.buf):
            self.base += self.pos - 1
            self.buf = self.buf[self.pos - 1 :]
            self.pos = 1

    def _join(self) -> None:
        self.buf += "".join(self._waiting)
        self._waiting.clear()
        self._waiting_chars = 0


def skip_space(src: Source, at: int, *, lines: bool = True) -> Scan[int]:
    """Return the index of the first character at or after `at` that is no white space."""
    pattern = _SPACE if lines else _BLANK
    while True:
        found = pattern.match(src.buf, at)
        at = found.end() if found else at
        if at < len(src.buf) or src.ended:
            return at
        yield


def take_while(src: Source, at: int, pattern: re.Pattern[str], limit: int) -> Scan[int]:
    """Return the end of the run of `pattern` (one character) from `at`, at most `limit` characters further."""
    end = at
    while True:
        while end < len(src.buf) and end - at < limit and pattern.match(src.buf, end):
            end += 1
        if end < len(src.buf) or end - at >= limit or src.ended:
            return end
        yield


@lru_cache(maxsize=256)
def _words(options: tuple[str, ...]) -> tuple[int, frozenset[str], frozenset[str], tuple[int, ...]]:
    """Longest length, all proper beginnings, the words, and their lengths from long to short."""
    begun = frozenset(option[:end] for option in options for end in range(len(option)))
    lengths = tuple(sorted({len(option) for option in options}, reverse=True))
    return (lengths[0] if lengths else 0), begun, frozenset(options), lengths


def literal(src: Source, at: int, options: tuple[str, ...]) -> Scan[str | None]:
    """Return the longest of `options` that stands at `at`; waits while a longer one is still possible."""
    longest, begun, words, lengths = _words(options)
    if src.buf[at : at + 2] not in begun and len(src.buf) >= at + 2 and lengths and lengths[-1] > 2:
        return None
    while True:
        rest = src.buf[at : at + longest]
        if src.ended or rest not in begun:
            return next((rest[:length] for length in lengths if rest[:length] in words), None)
        yield


def until(src: Source, at: int, mark: str, limit: int | None = None) -> Scan[int]:
    """Return the index of the next `mark`, or -1 if the text ends (or `limit` characters pass) before it."""
    start = at
    while True:
        stop = len(src.buf) if limit is None else min(len(src.buf), start + limit)
        found = src.buf.find(mark, at, stop)
        if found >= 0:
            return found
        if src.ended or (limit is not None and stop - start >= limit):
            return -1
        at = max(at, len(src.buf) - len(mark) + 1)
        yield


def until_any(src: Source, at: int, pattern: re.Pattern[str]) -> Scan[int]:
    """Return the index of the next character that `pattern` (one character) matches, or the end of the text."""
    while True:
        found = pattern.search(src.buf, at)
        if found:
            return found.start()
        if src.ended:
            return len(src.buf)
        at = len(src.buf)
        yield


@dataclass(slots=True)
class Extent:
    """Where a JSON value stands in the buffer."""

    start: int
    end: int
    balanced: bool = False
    delimiter: str | None = None
    """The closing delimiter that stands at `end` while brackets are still open."""
    foreign: bool = False
    """A key at the top of the value was refused by the watcher, which ended the scan."""
    spans: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    """Key, start and end of each value at the top."""


_DEEP = re.compile(r"[{}\[\]\"'“”‘’＂＇｛｝［］\\/#<`]")
_SHALLOW = re.compile(r"[{}\[\]\"'“”‘’＂＇｛｝［］\\/#<`,:，：]")
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


class _Cursor:
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
    src: Source,
    start: int,
    delimiters: tuple[str, ...] = (),
    *,
    watch: Callable[[str, Extent], bool] | None = None,
    progress: Callable[[Extent, int, int], None] | None = None,
) -> Scan[Extent]:
    """Find the end of the object or array at `start` by its strings and brackets.

    Args:
        src: The text.
        start: Index of the opening bracket.
        delimiters: Closing delimiters that end the scan when they stand outside strings.
        watch: Called with each key at the top; True ends the scan (`foreign`).
        progress: Called with the extent, the index reached and the depth before each wait.
    """
    cursor = _Cursor(start)
    extent = cursor.extent
    at = start

    def notify(reached: int) -> None:
        if progress:
            progress(extent, reached, cursor.depth)

    while True:
        pattern = _SHALLOW if cursor.depth <= cursor.top else _DEEP
        found = pattern.search(src.buf, at)
        if not found:
            at = len(src.buf)
            if src.ended:
                break
            notify(at)
            yield
            continue
        at = found.start()
        char = src.buf[at]
        if char in _OPEN:
            cursor.depth += 1
            second = cursor.depth == 2 and cursor.top == 1 and char in "{｛"
            if second and (src.buf[start] in "[［" or not src.buf[start + 1 : at].strip()):
                cursor.top = 2
            if cursor.depth == cursor.top and char in "{｛":
                cursor.expects_key = True
            at += 1
        elif char in _CLOSE:
            if cursor.depth == cursor.top:
                cursor.close_value(at)
            cursor.depth -= 1
            at += 1
            if cursor.depth == 0:
                extent.end, extent.balanced = at, True
                notify(at)
                return extent
        elif char in ",，":
            if cursor.depth == cursor.top:
                cursor.close_value(at)
                cursor.expects_key = True
            at += 1
        elif char in ":：":
            cursor.expects_key = False
            if cursor.depth == cursor.top and cursor.key is not None and cursor.value_start < 0:
                cursor.value_start = at + 1
            at += 1
        elif char in "<`":
            mark = yield from literal(src, at, delimiters)
            if mark:
                extent.end, extent.delimiter = at, mark
                return extent
            at += 1
        elif char in "/#":
            at = yield from _comment_end(src, at)
        else:
            opened = at
            at, whole = yield from _string_end(src, at, start, notify)
            if whole and cursor.depth == cursor.top and cursor.expects_key:
                cursor.key = src.buf[opened:at].strip("\"'“”‘’＂＇\\")
                cursor.expects_key = False
                if watch and watch(cursor.key, extent):
                    extent.end, extent.foreign = at, True
                    return extent
    extent.end = len(src.buf)
    return extent


def _comment_end(src: Source, at: int) -> Scan[int]:
    if src.buf[at] == "#":
        end = yield from until(src, at, "\n")
        return len(src.buf) if end < 0 else end
    mark = yield from literal(src, at, ("//", "/*"))
    if not mark:
        return at + 1
    end = yield from until(src, at + 2, "\n" if mark == "//" else "*/")
    return len(src.buf) if end < 0 else end


def _string_end(src: Source, at: int, start: int, notify: Callable[[int], None]) -> Scan[tuple[int, bool]]:
    """Return the index after the string at `at`, and whether it is a whole string.

    One character further and False where that quote cannot open a string.
    """
    quote = src.buf[at]
    escaped = quote == "\\"
    if escaped:
        while len(src.buf) <= at + 1 and not src.ended:
            yield
        if src.buf[at + 1 : at + 2] != '"':
            return at + 2, False
        quote = '"'
        at += 1
    elif quote != '"':
        before = at - 1
        while before > start and src.buf[before].isspace():
            before -= 1
        if src.buf[before] not in _BEFORE_STRING:
            return at + 1, False
    at += 1
    end = _STRING_END[quote]
    while True:
        found = end.search(src.buf, at)
        if not found:
            at = len(src.buf)
            if src.ended:
                return at, False
            notify(at)
            yield
            continue
        at = found.start()
        if src.buf[at] != "\\":
            return at + 1, True
        if escaped:
            # Text that was escaped as a whole: of n backslashes before a quote, n % 4 == 1 closes the string.
            run = at
            while True:
                while run < len(src.buf) and src.buf[run] == "\\":
                    run += 1
                if run < len(src.buf) or src.ended:
                    break
                yield
            closes = src.buf[run : run + 1] == '"' and (run - at) % 4 == 1
            at = run + 1
            if closes:
                return min(at, len(src.buf)), True
            continue
        at += 2
        while len(src.buf) < at and not src.ended:
            yield
        at = min(at, len(src.buf))
