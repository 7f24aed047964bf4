"""Calls in a top-level code fence: JSON (what we ask for by default), Gemma's `tool_code`; and bare JSON replies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from lmagent.prompting.buffer import Extent, Scan, Source, json_extent, literal, skip_space, take_while, until
from lmagent.prompting.calls import ARGUMENT_KEYS, ENVELOPE_KEYS, Outcome, Tools
from lmagent.prompting.scanner_events import CallDelta, CallStarted, Piece
from lmagent.toolkit.python_literals import CALL_START

__all__ = [
    "CALL_INFOS",
    "Context",
    "Site",
    "SiteProgress",
    "arguments_json",
    "bare",
    "close_fence",
    "envelope_json",
    "fence",
    "foreign_key",
    "json_value",
    "open_fence",
]

_HEAD = re.compile(
    r"""[\[{\s]{0,40}"(?:name|tool|tool_name|function_name|action)"\s{0,9}:\s{0,9}"([\w.-]{1,64})"\s{0,9},"""
    r"""\s{0,40}"(?:arguments|parameters|params|args|input|tool_input|action_input)"\s{0,9}:\s{0,40}(?=\{)"""
)
_HEAD_LIMIT = 600
_SURPLUS = re.compile(r"[}\]｝］ \t\r\n]")
_TICK = re.compile("`")
_WORD = re.compile(r"\w")


@dataclass(slots=True)
class Site:
    """The outcome of one call site."""

    end: int
    """Index after the markup."""
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    text: str = ""
    """What of the site is visible text (a template, a final answer)."""
    react: bool = False
    """An action of the ReAct kind: a `Final Answer:` after it is invented."""
    whole_text: bool = False
    """Nothing ran: the site is plain text from its first to its last character."""


@dataclass(slots=True)
class Context:
    """What a family may use."""

    src: Source
    tools: Tools
    emit: Callable[[Piece], None]
    next_index: int = 0
    """Index of the next call, counted in order of appearance."""
    stop: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    """Words that begin an invented result."""

    def raw(self, start: int, end: int) -> str:
        """Return the text between two indices."""
        return self.src.buf[start:end]

    def progress(self, name: str | None = None) -> SiteProgress:
        """Return a new observer of one call's arguments; with a name, the whole JSON is arguments."""
        return SiteProgress(self, name)


class SiteProgress:
    """Tells the consumer the name of a call and its arguments as they arrive."""

    __slots__ = ("_at", "_context", "_done", "_index", "_name")

    def __init__(self, context: Context, name: str | None) -> None:
        self._context = context
        self._index = context.next_index
        self._name = name
        self._at = -1
        self._done = False

    def __call__(self, extent: Extent, reached: int, depth: int) -> None:
        if self._done:
            return
        if self._at < 0 and not self._begin(extent):
            return
        end = reached
        for key, start, stop in extent.spans:
            if start <= self._at <= stop and key:
                end, self._done = stop, True
        if depth == 0:
            self._done = True
        if end > self._at:
            text = self._context.src.buf[self._at : end]
            self._at = end
            self._context.emit(CallDelta(self._index, text.rstrip() if self._done else text))

    def _begin(self, extent: Extent) -> bool:
        context = self._context
        if self._name is not None:
            self._at = extent.start
            name = self._name
        else:
            head = _HEAD.match(context.src.buf, extent.start)
            if not head:
                self._done = len(context.src.buf) - extent.start > _HEAD_LIMIT
                return False
            self._at = head.end()
            name = head.group(1)
        if not context.tools.knows(name):
            self._done = True
            return False
        context.emit(CallStarted(self._index, context.tools.clean(name)))
        return True


def json_value(
    context: Context,
    at: int,
    delimiters: tuple[str, ...],
    *,
    name: str | None = None,
    watch: Callable[[str, Extent], bool] | None = None,
) -> Scan[Extent]:
    """Find the JSON value at `at`, with surplus closing brackets after it."""
    src = context.src
    extent = yield from json_extent(src, at, delimiters, watch=watch, progress=context.progress(name))
    if extent.balanced:
        after = yield from skip_space(src, extent.end)
        if src.buf[after : after + 1] in ("}", "]", "｝", "］"):
            after = yield from take_while(src, after, _SURPLUS, 200)
            extent.end = after
    return extent


def open_fence(context: Context, at: int) -> Scan[tuple[str, int]]:
    """Return the backticks at `at` (none: empty) and where the content begins, after the info word of a fence."""
    src = context.src
    run = yield from take_while(src, at, _TICK, 20)
    info = (yield from take_while(src, run, _WORD, 20)) if run - at >= 3 else run
    body = yield from skip_space(src, info)
    return src.buf[at:run], body


def close_fence(context: Context, end: int, ticks: str) -> Scan[int]:
    """Return the index after the backticks that close `ticks`; `end` when others stand there, or none."""
    src = context.src
    after = yield from skip_space(src, end)
    close = yield from take_while(src, after, _TICK, 20)
    return close if ticks and (close - after >= len(ticks) or close >= len(src.buf)) else end


def envelope_json(context: Context, extent: Extent, *, sure: bool = True) -> list[Outcome] | None:
    """Read the calls in an extent that names them itself."""
    src, tools = context.src, context.tools
    raw = src.buf[extent.start : extent.end]
    if not extent.balanced and extent.delimiter is None:
        if not sure and not tools.may_become_call(raw, cut=src.length):
            return None
        return [tools.unfinished(raw, length=src.length)]
    spans = [(key, src.buf[start:stop]) for key, start, stop in extent.spans]
    return tools.from_envelopes(raw, spans, closed=not extent.balanced, sure=sure)


def arguments_json(context: Context, name: str, extent: Extent, start: int) -> Outcome | None:
    """Read the arguments in an extent whose call was named before it."""
    src, tools = context.src, context.tools
    raw = src.buf[start : extent.end]
    if not extent.balanced and extent.delimiter is None:
        return tools.unfinished(raw, length=src.length, name=name)
    return tools.from_arguments(name, src.buf[extent.start : extent.end], raw, closed=not extent.balanced)


CALL_INFOS = frozenset(
    {"", "json", "json5", "jsonc", "tool_call", "tool_calls", "tool_code", "function_call", "action"}
)
"""Info strings of fences that may hold a call."""

_NAME = re.compile(r"[\w.-]")
_KEY = re.compile(r"[\w\s]")
_END_WORDS = ("<|eom_id|>", "<|eot_id|>", "<|eot|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "</s>", "<|python_end|>")
_JOINERS = re.compile(r"[;,\s]")


def foreign_key(key: str, extent: Extent) -> bool:
    """True for a key that no call has, as long as no arguments were seen."""
    return key not in ENVELOPE_KEYS and not any(seen in ARGUMENT_KEYS for seen, _, _ in extent.spans)


def fence(context: Context, ticks: str, info: str, body: int) -> Scan[tuple[Site | None, int]]:
    """Read the calls in a fence whose content begins at `body`.

    Returns:
        The site, or None when the fence holds something else; and the index up to which the text was looked at.
    """
    src = context.src
    if info == "tool_code":
        return (yield from _tool_code(context, ticks, body))
    outcomes: list[Outcome] = []
    at = yield from skip_space(src, body)
    if at >= len(src.buf) and src.length and info:
        return Site(at, [context.tools.unfinished("", length=True)]), at
    while at < len(src.buf) and src.buf[at] in "{[｛［":
        extent = yield from json_value(context, at, (ticks,), watch=foreign_key)
        if extent.foreign:
            return None, extent.end
        found = envelope_json(context, extent, sure=False)
        if not found:
            return None, extent.end
        outcomes.extend(found)
        at = yield from skip_space(src, extent.end)
        if not extent.balanced and extent.delimiter is None:
            return Site(at, outcomes), at
        if at < len(src.buf) and src.buf[at] in ",;":
            at = yield from skip_space(src, at + 1)
    if not outcomes:
        return None, at
    if at >= len(src.buf):
        return Site(at, outcomes), at
    close = yield from take_while(src, at, _TICK, 40)
    if close - at < len(ticks) and close < len(src.buf):
        return None, at
    return Site(close, outcomes), close


def _tool_code(context: Context, ticks: str, body: int) -> Scan[tuple[Site | None, int]]:
    src, tools = context.src, context.tools
    end = yield from until(src, body, "\n" + ticks)
    text = src.buf[body : end if end >= 0 else len(src.buf)].strip()
    if end < 0 and src.length:
        return Site(len(src.buf), [tools.unfinished(text, length=True)]), len(src.buf)
    close = len(src.buf) if end < 0 else end + 1 + len(ticks)
    if text.startswith("print(") and text.endswith(")") and "\n" not in text:
        text = text[6:-1]
    outcomes = tools.from_python(text.replace("\n", "\n;") if _one_a_line(text) else text, sure=True)
    return (Site(close, outcomes) if outcomes else None), close


def _one_a_line(text: str) -> bool:
    """True when every line is a call of its own."""
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) > 1 and all(CALL_START.match(line) and line.rstrip().endswith(")") for line in lines)


def bare(context: Context, at: int) -> Scan[Site | None]:
    """Read a reply that is nothing but JSON calls (or Python calls); None when anything else stands there."""
    src = context.src
    if src.buf[at] in "[［":
        first = yield from skip_space(src, at + 1)
        end = yield from take_while(src, first, _NAME, 100)
        while end >= len(src.buf) and not src.ended:
            yield
        after = yield from skip_space(src, end, lines=False)
        if end > first and src.buf[after : after + 1] == "(":
            return (yield from _bare_python(context, at, src.buf[first:end], after + 1))
    outcomes: list[Outcome] = []
    while at < len(src.buf) and src.buf[at] in "{[｛［":
        extent = yield from json_value(context, at, (), watch=foreign_key)
        if extent.foreign:
            return (yield from _answer(context, at))
        found = envelope_json(context, extent, sure=False)
        if not found:
            return None
        outcomes.extend(found)
        at = yield from take_while(src, extent.end, _JOINERS, 100)
        if src.ended and at >= len(src.buf):
            return Site(at, outcomes)
    if not outcomes or not (yield from _at_end(context, at)):
        return None
    return Site(at, outcomes)


def _answer(context: Context, at: int) -> Scan[Site | None]:
    """`{"response": "text"}` of a constrained whole-reply object is text; calls may stand beside it."""
    src = context.src
    opened = yield from skip_space(src, at + 1)
    if not (yield from literal(src, opened, ('"response"', '"thought"', '"tool_calls"'))):
        return None
    extent = yield from json_extent(src, at)
    if not extent.balanced or (yield from skip_space(src, extent.end)) < len(src.buf):
        return None
    found = context.tools.whole_reply(context.raw(at, extent.end))
    return None if found is None else Site(len(src.buf), found[1], text=found[0] or " ")


def _bare_python(context: Context, at: int, first: str, arguments: int) -> Scan[Site | None]:
    """Read a reply that is a list of Python calls; `first` is the first name, `arguments` where its arguments begin."""
    src, tools = context.src, context.tools
    known = tools.knows(first)
    if not known:
        key = yield from take_while(src, arguments, _KEY, 100)
        if tools.native or src.buf[key : key + 1] not in ("=", ")"):
            return None
    extent = yield from json_extent(src, at)
    raw = context.raw(at, extent.end)
    if not extent.balanced:
        return Site(extent.end, [tools.unfinished(raw, length=src.length, name=first)]) if known or src.length else None
    after = yield from skip_space(src, extent.end)
    if not (yield from _at_end(context, after)):
        return None
    outcomes = tools.from_python(raw, sure=True)
    return Site(after, outcomes) if outcomes else None


def _at_end(context: Context, at: int) -> Scan[bool]:
    """True at the end of the reply, or where it goes on with a token that ends it or an invented result."""
    src = context.src
    if at >= len(src.buf):
        return True
    if src.buf[at] == "<":
        return bool((yield from literal(src, at, (*_END_WORDS, *context.results))))
    word = yield from literal(src, at, ("Observation:", "Observation：", "[TOOL_RESULTS]"))
    return word is not None
