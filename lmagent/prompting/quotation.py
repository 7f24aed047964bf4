"""Which call markup of a reply is only quoted: it stands in quotation marks, or in an earlier text of the conversation.

`OpenQuotation` follows the text before a call site. `EarlierTexts` holds tool results and user messages: a call that
stands there was written by somebody else, so a model that repeats it does not ask for it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from lmagent.core.messages import Message, ToolMessage, UserMessage
from lmagent.prompting.markers import CLOSERS, ELEMENTS, WRAPPERS
from lmagent.prompting.scanner_events import CallFound

__all__ = ["EarlierTexts", "OpenQuotation"]

_PAIRS = {"“": "”", "„": "“”", "«": "»", "‹": "›", "「": "」", "『": "』", '"': '"'}
_ELEMENT = r"pre|code|samp|kbd|blockquote|xmp|textarea|q"
_TOKEN = re.compile(
    rf"(?P<code>`[^`\n]*`)|(?P<blank>\n[ \t]*\n)|<(?P<element>{_ELEMENT})(?:\s[^<>]{{0,120}})?>|"
    rf"</(?P<end>{_ELEMENT})\s?>|(?P<comment><!--)|(?P<comment_end>-->)|(?P<quote>[“”„«»‹›「」『』\"])",
    re.IGNORECASE,
)
_NOT_BEFORE_QUOTE = re.compile(r"[\w.!?)\]}\"”]")
"""Characters after which a straight quotation mark does not open: 5", a word's end."""


class OpenQuotation:
    """Knows whether a quotation is open at the end of the text that was added.

    Added text is only collected; it is read when a call site asks.
    """

    __slots__ = ("_before", "_element", "_parts", "_quote")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._before = ""
        """Last character that was read."""
        self._element = ""
        """The closing tag of an open HTML element or comment."""
        self._quote = ""
        """The closing characters of an open quotation mark."""

    def add(self, text: str) -> None:
        """Add visible text."""
        self._parts.append(text)

    def forget(self) -> None:
        """Drop the open quotation: it never closes."""
        self._element = self._quote = ""

    def closing(self) -> re.Pattern[str] | None:
        """Return what closes the open quotation (group `end`) or ends its paragraph; None when none is open."""
        self._read()
        if self._element:
            return _closing_pattern(self._element, element=True)
        return _closing_pattern(self._quote, element=False) if self._quote else None

    def _read(self) -> None:
        text = self._before + "".join(self._parts)
        start = len(self._before)
        self._parts.clear()
        self._before = text[-1:]
        for found in _TOKEN.finditer(text, start):
            if self._element:
                ends = "-->" if found["comment_end"] else f"</{found['end'].lower()}" if found["end"] else ""
                if ends and ends == self._element:
                    self._element = ""
            elif found["element"]:
                self._element = f"</{found['element'].lower()}"
            elif found["comment"]:
                self._element = "-->"
            elif found["blank"]:
                self._quote = ""
            elif mark := found["quote"]:
                self._mark(mark, text, found.start(), found.end())

    def _mark(self, mark: str, text: str, at: int, after: int) -> None:
        if self._quote:
            if mark in self._quote:
                self._quote = ""
        elif mark != '"':
            self._quote = _PAIRS.get(mark, "")
        elif not (at and _NOT_BEFORE_QUOTE.match(text, at - 1)) and not text[after : after + 1].isspace():
            self._quote = mark


@lru_cache(maxsize=64)
def _closing_pattern(closing: str, *, element: bool) -> re.Pattern[str]:
    if element:
        return re.compile(f"(?P<end>{re.escape(closing)})", re.IGNORECASE)
    return re.compile(rf"(?P<end>[{re.escape(closing)}])|\n[ \t]{{0,100}}\r?\n")


_IGNORED = re.compile(r"[\s\\\u200b\ufeff]+")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_OUTER = "|".join(re.escape(re.sub(r"\s", "", word)) for word in sorted((*WRAPPERS, *CLOSERS), key=len, reverse=True))
_LEADING = re.compile(rf"(?:{_OUTER}|`{{3,}}\w*)+")
_TRAILING = re.compile(rf"(?:{_OUTER}|`{{3,}})+\Z")
_STRUCTURE = re.compile(r"[{(\[<]")
_NEAR = 200
"""Characters between a tool's name and its arguments in markup."""


def _fold(text: str) -> str:
    """Return the text without white space, and without the backslashes of JSON in JSON."""
    return _IGNORED.sub("", text)


def _folded_source(text: str) -> str:
    """Return a source folded, also as it reads when its escapes are decoded."""
    decoded = _UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text.replace("\\n", " ").replace("\\t", " "))
    folded = dict.fromkeys((_fold(text), _fold(decoded), _fold(html.unescape(decoded))))
    return "\n".join(folded)


class EarlierTexts:
    """Tool results and user messages of a conversation. They are data: a call that stands in one is never lifted.

    Args:
        messages: The conversation; its folded texts are kept on the messages.
        texts: More texts.
    """

    __slots__ = ("_messages", "_texts")

    def __init__(self, messages: Sequence[Message] = (), texts: Iterable[str] = ()) -> None:
        self._messages = messages
        self._texts = tuple(texts)

    def hold(self, markup: str, calls: Sequence[CallFound]) -> bool:
        """Return whether `markup`, which makes `calls`, or one of several calls in it stands in an earlier text."""
        folded = _fold(markup)
        core = _TRAILING.sub("", folded)
        leading = _LEADING.match(core)
        if leading and not core.startswith(ELEMENTS):
            core = core[leading.end() :]
        if not _STRUCTURE.search(core):  # a bare name stands in many texts
            core = folded
        several = [(call.name, _fold(_compact(call.arguments))) for call in calls] if len(calls) > 1 else []
        return any(
            core in source or any(_call_in(name, arguments, source) for name, arguments in several)
            for source in self._sources()
        )

    def _sources(self) -> Iterator[str]:
        for message in self._messages:
            if isinstance(message, (ToolMessage, UserMessage)):
                folded = message.wire.get("folded")
                if folded is None:
                    text = message.content if isinstance(message, ToolMessage) else message.text
                    folded = message.wire["folded"] = _folded_source(text)
                yield folded
        for text in self._texts:
            yield _folded_source(text)


def _compact(arguments: str) -> str:
    return json.dumps(json.loads(arguments), ensure_ascii=False)


def _call_in(name: str, arguments: str, source: str) -> bool:
    """Return whether a call with these (folded) arguments stands in a source."""
    at = source.find(arguments) if len(arguments) > 2 else -1
    while at >= 0:
        if name in source[max(at - _NEAR, 0) : at]:
            return True
        at = source.find(arguments, at + 1)
    return False
