"""What the families share: the text, the tools, and the result of reading one call site."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from lmagent.prompting.buffer import Extent, Scan, Source, json_extent, skip_space, take_while
from lmagent.prompting.calls import Outcome, Tools
from lmagent.prompting.scanner_events import CallDelta, CallStarted, Piece

__all__ = [
    "Context",
    "Site",
    "SiteProgress",
    "arguments_json",
    "close_fence",
    "envelope_json",
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
