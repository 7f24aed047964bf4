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

__all__ = [
    "TICK",
    "Extent",
    "Scan",
    "TextBuffer",
    "find_char",
    "find_text",
    "json_extent",
    "match_literal",
    "skip_space",
    "take_while",
]

T = TypeVar("T")
Scan = Generator[None, None, T]

TICK = re.compile("`")
_HELD = 4096
_SPACE = re.compile(r"[\s\ufeff\u200b]*")
_BLANK = re.compile(r"[ \t\u00a0]*")


class TextBuffer:
    """A growing buffer. Indices stay valid until `compact`, which only the outermost loop calls."""

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        """First character that nobody has taken yet."""
        self.offset = 0
        """How many characters of the reply lie before the buffer."""
        self.ended = False
        self.truncated = False
        """The reply was cut by a length limit; set when it ends."""
        self._waiting: list[str] = []
        self._waiting_chars = 0

    def feed(self, text: str) -> bool:
        """Append `text`; False while a long held-back buffer collects more, which keeps appending linear."""
        self._waiting.append(text)
        self._waiting_chars += len(text)
        if len(self.text) > _HELD and self._waiting_chars < len(self.text) >> 8:
            return False
        self._join()
        return True

    def end(self, *, truncated: bool) -> None:
        """Say that no more text comes."""
        self._join()
        self.ended = True
        self.truncated = truncated

    def compact(self) -> None:
        """Forget what was taken, but for one character that look-behinds may want."""
        if self.position > 1 and self.position * 2 > len(self.text):
            self.offset += self.position - 1
            self.text = self.text[self.position - 1 :]
            self.position = 1

    def _join(self) -> None:
        self.text += "".join(self._waiting)
        self._waiting.clear()
        self._waiting_chars = 0


def skip_space(buffer: TextBuffer, at: int, *, lines: bool = True) -> Scan[int]:
    """Return the index of the first character at or after `at` that is no white space."""
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


@lru_cache(maxsize=256)
def _prefixes(options: tuple[str, ...]) -> tuple[int, frozenset[str], frozenset[str], tuple[int, ...]]:
    """Longest length, all proper beginnings, the words, and their lengths from long to short."""
    begun = frozenset(option[:end] for option in options for end in range(len(option)))
    lengths = tuple(sorted({len(option) for option in options}, reverse=True))
    return (lengths[0] if lengths else 0), begun, frozenset(options), lengths


def match_literal(buffer: TextBuffer, at: int, options: tuple[str, ...]) -> Scan[str | None]:
    """Return the longest of `options` that stands at `at`; waits while a longer one is still possible."""
    longest, begun, words, lengths = _prefixes(options)
    if buffer.text[at : at + 2] not in begun and len(buffer.text) >= at + 2 and lengths and lengths[-1] > 2:
        return None
    while True:
        rest = buffer.text[at : at + longest]
        if buffer.ended or rest not in begun:
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
    """Where a JSON value stands in the buffer."""

    start: int
    end: int
    balanced: bool = False
    delimiter: str | None = None
    """The closing delimiter that stands at `end` while brackets are still open."""
    rejected: bool = False
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
            cursor.depth += 1
            second = cursor.depth == 2 and cursor.top == 1 and char in "{｛"
            if second and (buffer.text[start] in "[［" or not buffer.text[start + 1 : at].strip()):
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
            if whole and cursor.depth == cursor.top and cursor.expects_key:
                cursor.key = buffer.text[opened:at].strip("\"'“”‘’＂＇\\")
                cursor.expects_key = False
                if reject and reject(cursor.key, extent):
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
    """Return the index after the string at `at`, and whether it is a whole string.

    One character further and False where that quote cannot open a string.
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
