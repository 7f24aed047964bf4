"""Tags of thinking: which text opens and closes it, in whatever spelling.

Tokens of model families stand in `markers.THINKING`. Everything written like a tag is a pattern: any case, with a
namespace (`<seed:think>`) or an id (`<think:7>`), with attributes. A tag that no table knows counts as thinking as soon
as its name contains think, thought or reason: a call in a draft must not run because the model's family is new.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from lmagent.prompting.buffer import Scan, TextBuffer
from lmagent.prompting.markers import THINK_CLOSERS, THINKING

__all__ = [
    "ANY_THINK_TAG",
    "MAX_THINK_TAG",
    "Closer",
    "ThinkTag",
    "after_think_tags",
    "closer_of",
    "closes_thinking",
    "literal_closer",
    "other_tag",
    "think_tag",
]

MAX_THINK_TAG = 240
"""Length of the longest tag of thinking."""

_WORD = r"(?:think|thought|reason|scratch_?pad)"
_TAG = re.compile(
    rf"<(?P<slash>/?)(?=[\w.:-]{{0,100}}{_WORD})(?P<name>[\w.:-]{{1,100}})(?:\s[^<>\n]{{0,120}})?>"
    rf"|<\|(?P<ends>/?)(?=[\w-]{{0,40}}{_WORD})(?P<token>[\w-]{{1,80}})\|>",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(
    rf"<[|/]{{0,2}}[\w.:-]{{0,100}}\|?|</?[\w.:-]{{0,100}}{_WORD}[\w.:-]{{0,100}}\s[^<>\n]{{0,120}}", re.I
)
"""The end of the text so far that may still become such a tag."""
_OTHER = re.compile(rf"<(?:/?(?!\|)(?![\w.:-]{{0,100}}{_WORD})[\w.:-]{{0,100}}[^\w.:|/-]|[^\w|/])", re.IGNORECASE)
_KNOWN = re.compile(r"(?:[\w.-]*_)?think(?:ing)?|thoughts?|reasoning|scratch_?pad", re.IGNORECASE)
"""Names that are certainly thinking, whatever the reply is about. `<reason>` may be data."""
_TOKEN_END = re.compile(rf"<\|(?:/|(?=[\w-]{{0,60}}end))[\w-]{{0,40}}{_WORD}[\w-]{{0,40}}\|>", re.IGNORECASE)
_TAIL = re.compile(r"<[|/]{0,2}[\w.:-]{0,130}\|?\s{0,9}")


@dataclass(frozen=True, slots=True)
class Closer:
    """The end of thinking that one opening tag needs."""

    pattern: re.Pattern[str]
    literal: str = ""
    """The closing word where it has one spelling only."""

    def held_from(self, text: str, start: int) -> int:
        """Return where the end of `text` may begin a closing tag; its length when it does not."""
        if not self.literal:
            at = text.rfind("<", max(start, len(text) - MAX_THINK_TAG))
            return at if at >= 0 and _TAIL.fullmatch(text, at) else len(text)
        at = text.find(self.literal[0], max(start, len(text) - len(self.literal) + 1))
        while at >= 0 and not self.literal.startswith(text[at:]):
            at = text.find(self.literal[0], at + 1)
        return at if at >= 0 else len(text)


@dataclass(frozen=True, slots=True)
class ThinkTag:
    """One tag: `closer` is None when it closes thinking itself."""

    end: int
    closer: Closer | None


@lru_cache(maxsize=64)
def literal_closer(word: str) -> Closer:
    """Return the closer with one spelling."""
    return Closer(re.compile(re.escape(word)), word)


@lru_cache(maxsize=256)
def _tag_closer(name: str) -> Closer:
    """Return the closer of a tag; a namespace or an id may be missing in it, as models forget them."""
    parts = name.split(":")
    base = next((part for part in parts if re.search(_WORD, part, re.IGNORECASE)), name)
    return Closer(
        re.compile(rf"</(?:[\w.-]{{1,40}}:){{0,2}}{re.escape(base)}(?::[\w.-]{{1,64}}){{0,2}}\s{{0,9}}>", re.IGNORECASE)
    )


def closer_of(word: str) -> Closer:
    """Return the closer of an opening word of `markers.THINKING`."""
    return _tag_closer(word[1:-1]) if re.fullmatch(r"<\w+>", word) else literal_closer(THINKING[word])


def other_tag(text: str, at: int) -> bool:
    """Return whether the `<` at `at` certainly begins no tag of thinking; a quick test for HTML and comparisons."""
    return _OTHER.match(text, at) is not None


def think_tag(buffer: TextBuffer, at: int, *, known: bool) -> Scan[ThinkTag | None]:
    """Read the tag of thinking at `at`, where a `<` stands; None when there is none.

    Args:
        buffer: The text.
        at: Index of the `<`.
        known: Whether only names count that are certainly thinking.
    """
    while True:
        found = _TAG.match(buffer.text, at)
        if found:
            return _read(found, known=known)
        if buffer.ended or not _UNFINISHED.fullmatch(buffer.text, at):
            return None
        yield


def _read(found: re.Match[str], *, known: bool) -> ThinkTag | None:
    name: str | None = found["name"]
    if name and known and not any(_KNOWN.fullmatch(part) for part in name.split(":")):
        return None
    if closes_thinking(found):
        return ThinkTag(found.end(), None)
    if name and found.group().endswith("/>"):
        return ThinkTag(found.end(), _EMPTY)
    return ThinkTag(found.end(), _tag_closer(name) if name else _TOKEN_CLOSER)


_TOKEN_CLOSER = Closer(_TOKEN_END)
_EMPTY = Closer(re.compile(""))
"""`<think/>` closes itself."""

_LITERALS = [word for word in (*THINKING, *THINK_CLOSERS) if not re.fullmatch(r"</?\w+>", word)]
ANY_THINK_TAG = re.compile("|".join([*map(re.escape, _LITERALS), f"(?i:{_TAG.pattern})"]))
"""Any tag that opens or closes thinking."""


def closes_thinking(found: re.Match[str]) -> bool:
    """Return whether a match of `ANY_THINK_TAG` is a closing tag."""
    if found["name"] is None and found["token"] is None:
        return found.group() in THINK_CLOSERS
    return bool(found["slash"] or found["ends"] or (found["token"] and "end" in found["token"].lower()))


def after_think_tags(text: str, at: int) -> int:
    """Return the index after all tags of thinking that stand in a row at `at`."""
    while found := ANY_THINK_TAG.match(text, at):
        at = found.end()
    return at
