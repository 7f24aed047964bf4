"""Calls written as JSON or as a Python list, fenced or bare, and what all families share.

Shared by the family modules: `Context` (the text, the tools), `CallSite` (the result of reading one call site) and the
readers of a JSON value that names its calls or holds the arguments of a named one. The families here are the code
fence that `json` prompts ask for, Gemma's `tool_code` fence, and replies that are nothing but calls. Over 400 lines
because the families here and the readers that all others share build on the same few functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from lmagent.prompting.buffer import (
    TICK,
    Extent,
    Scan,
    TextBuffer,
    find_text,
    json_extent,
    match_literal,
    skip_space,
    take_while,
)
from lmagent.prompting.calls import ARGUMENT_KEYS, ENVELOPE_KEYS, Outcome, Tools
from lmagent.prompting.markers import END_WORDS, RESULTS
from lmagent.prompting.scanner_events import CallDelta, CallStarted, Piece
from lmagent.toolkit.loose_json import CALL_START

__all__ = [
    "CALL_INFOS",
    "CallSite",
    "Context",
    "bare_calls",
    "close_fence",
    "encoded_end",
    "envelope_json",
    "envelope_site",
    "fenced_calls",
    "json_value",
    "named_call",
    "open_arguments",
    "open_fence",
    "site_of",
]

CALL_INFOS = frozenset(
    {"", "json", "json5", "jsonc", "tool_call", "tool_calls", "tool_code", "function_call", "action"}
)
"""Info strings of fences that may hold a call."""

_CALL_HEAD = re.compile(
    r"""[\[{\s]{0,40}"(?:name|tool|tool_name|function_name|action)"\s{0,9}:\s{0,9}"([\w.-]{1,64})"\s{0,9},"""
    r"""\s{0,40}"(?:arguments|parameters|params|args|input|tool_input|action_input)"\s{0,9}:\s{0,40}(?=\{)"""
)
_MAX_CALL_HEAD = 600
_SURPLUS_BRACKETS = re.compile(r"[}\]｝］ \t\r\n]")
_WORD = re.compile(r"\w")
_NAME = re.compile(r"[\w.-]")
_KEY = re.compile(r"[\w\s]")
_SEPARATORS = re.compile(r"[;,\s]")
_ENCODING = re.compile(r'["\\\s]')
_TILDE = re.compile("~")
_AFTER_CALLS = (*END_WORDS, "<|python_end|>", *RESULTS)
"""Words that may follow a reply of bare calls: tokens that end it, and invented results."""


@dataclass(slots=True)
class CallSite:
    """The result of reading one place in the text where calls may stand."""

    end: int
    """Index after the markup."""
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    text: str = ""
    """The part of the site that is visible text (a template, a final answer)."""
    react: bool = False
    """A ReAct action: a `Final Answer:` after it is invented."""
    plain_text: bool = False
    """No call was found: the whole site is plain text."""


@dataclass(slots=True)
class Context:
    """What a family reads from and writes to."""

    buffer: TextBuffer
    tools: Tools
    emit: Callable[[Piece], None]
    next_index: int = 0
    """Index of the next call, counted in order of appearance."""
    stop: tuple[str, ...] = ()

    def raw(self, start: int, end: int) -> str:
        """Return the text between two indices."""
        return self.buffer.text[start:end]

    def unfinished(
        self, start: int, end: int | None = None, *, name: str | None = None, truncated: bool | None = None
    ) -> CallSite:
        """Return the site of a call whose end is missing.

        Args:
            start: Where the call begins.
            end: Where its text ends; None: at the end of the reply.
            name: Of the tool, if it is known.
            truncated: Whether the length limit cut the call; None: if it cut the reply.
        """
        end = len(self.buffer.text) if end is None else end
        truncated = self.buffer.truncated if truncated is None else truncated
        return CallSite(end, [self.tools.unfinished(self.raw(start, end), truncated=truncated, name=name)])

    def malformed(self, start: int, end: int, message: str, name: str) -> CallSite:
        """Return the site of a call that cannot be read."""
        return CallSite(end, [self.tools.failed(self.raw(start, end), "malformed", message, name)])

    def cut_header(self, start: int, at: int, limit: int) -> CallSite | None:
        """Return a truncated call for a marker whose header never came; None when the text only names the marker.

        Args:
            start: Where the marker begins.
            at: Where the header begins.
            limit: Length of the longest header, in characters.
        """
        buffer = self.buffer
        cut = buffer.ended and buffer.truncated and len(buffer.text) - at < limit
        return self.unfinished(start) if cut else None


def site_of(outcome: Outcome | None, end: int) -> CallSite | None:
    """Return the site of one call; None when there is none."""
    return None if outcome is None else CallSite(end, [outcome])


class _CallProgress:
    """Emits the name of a call and its arguments while they arrive; with a name, the whole JSON is arguments."""

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
            text = self._context.buffer.text[self._at : end]
            self._at = end
            self._context.emit(CallDelta(self._index, text.rstrip() if self._done else text))

    def _begin(self, extent: Extent) -> bool:
        context = self._context
        if self._name is not None:
            self._at = extent.start
            name = self._name
        else:
            head = _CALL_HEAD.match(context.buffer.text, extent.start)
            if not head:
                self._done = len(context.buffer.text) - extent.start > _MAX_CALL_HEAD
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
    reject: Callable[[str, Extent], bool] | None = None,
) -> Scan[Extent]:
    """Find the JSON value at `at`, with surplus closing brackets after it."""
    buffer = context.buffer
    progress = _CallProgress(context, name)
    extent = yield from json_extent(buffer, at, delimiters, reject=reject, progress=progress)
    if extent.balanced:
        after = yield from skip_space(buffer, extent.end)
        if buffer.text[after : after + 1] in ("}", "]", "｝", "］"):
            after = yield from take_while(buffer, after, _SURPLUS_BRACKETS, 200)
            extent.end = after
    return extent


def open_fence(context: Context, at: int) -> Scan[tuple[str, int]]:
    """Return the backticks at `at` (empty: there are none) and where the content begins, after the info string."""
    buffer = context.buffer
    run = yield from take_while(buffer, at, TICK, 20)
    info = (yield from take_while(buffer, run, _WORD, 20)) if run - at >= 3 else run
    body = yield from skip_space(buffer, info)
    return buffer.text[at:run], body


def close_fence(context: Context, end: int, ticks: str) -> Scan[int]:
    """Return the index after the backticks that close `ticks`; `end` when there are none, or too few."""
    buffer = context.buffer
    after = yield from skip_space(buffer, end)
    close = yield from take_while(buffer, after, TICK, 20)
    return close if ticks and (close - after >= len(ticks) or close >= len(buffer.text)) else end


def open_arguments(context: Context, at: int) -> Scan[tuple[str, int] | None]:
    """Return the backticks before the arguments at `at`, and where their JSON begins; None when none begin there.

    The JSON is an object, perhaps in a code fence, perhaps encoded as a string.
    """
    buffer = context.buffer
    ticks, body = yield from open_fence(context, at)
    if len(ticks) in (1, 2):
        return None
    char = buffer.text[body : body + 1]
    if char == '"':
        inside = yield from take_while(buffer, body, _ENCODING, 20)
        char = buffer.text[inside : inside + 1] or "{"
    return (ticks, body) if char and char in "{｛" else None


def encoded_end(buffer: TextBuffer, at: int) -> Scan[int]:
    """Return the index after the JSON string at `at`; -1 when it does not end."""
    end = at + 1
    while True:
        end = yield from find_text(buffer, end, '"')
        if end < 0:
            return -1
        slashes = end
        while slashes > at + 1 and buffer.text[slashes - 1] == "\\":
            slashes -= 1
        end += 1
        if (end - 1 - slashes) % 2 == 0:
            return end


def envelope_json(context: Context, extent: Extent, *, marked: bool = True) -> list[Outcome] | None:
    """Read the calls in a JSON value that names them itself; None when it is data or a template."""
    buffer, tools = context.buffer, context.tools
    raw = buffer.text[extent.start : extent.end]
    if not extent.balanced and extent.delimiter is None:
        if not marked and not tools.may_become_call(raw, cut=buffer.truncated):
            return None
        return [tools.unfinished(raw, truncated=buffer.truncated)]
    spans = [(key, buffer.text[start:stop]) for key, start, stop in extent.spans]
    return tools.from_envelopes(raw, spans, closed=not extent.balanced, marked=marked)


def envelope_site(context: Context, at: int, delimiters: tuple[str, ...], *, marked: bool = True) -> Scan[CallSite]:
    """Read the JSON value at `at`, which names its calls itself; data and templates are plain text."""
    extent = yield from json_value(context, at, delimiters)
    outcomes = envelope_json(context, extent, marked=marked)
    if outcomes is None:
        return CallSite(extent.end, text=context.raw(at, extent.end), plain_text=True)
    return CallSite(extent.end, outcomes)


def named_call(
    context: Context,
    name: str,
    start: int,
    at: int,
    delimiters: tuple[str, ...] = (),
    *,
    ticks: str = "",
    closers: tuple[str, ...] = (),
    drop_template: bool = False,
) -> Scan[CallSite | None]:
    """Read the JSON arguments at `at` of a call whose name stood before them; None for a template.

    They are an object, or a string that holds one.

    Args:
        context: The text and the tools.
        name: Of the tool.
        start: Where the call begins.
        at: Where the JSON begins.
        delimiters: Closing words that end the JSON when brackets are still open.
        ticks: Backticks of the fence around the JSON.
        closers: Closing words that belong to the call when one of them follows.
        drop_template: Return a site without calls instead of None, so that the markup does not show.
    """
    buffer, tools = context.buffer, context.tools
    if buffer.text[at] == '"':
        end = yield from encoded_end(buffer, at)
        extent = Extent(at, len(buffer.text) if end < 0 else end, balanced=end >= 0)
    else:
        extent = yield from json_value(context, at, (*delimiters, ticks) if ticks else delimiters, name=name)
    if not extent.balanced and extent.delimiter is None:
        return context.unfinished(start, extent.end, name=name)
    raw, arguments = context.raw(start, extent.end), context.raw(at, extent.end)
    site = site_of(tools.from_arguments(name, arguments, raw, closed=not extent.balanced), extent.end)
    if site is None:
        if not drop_template:
            return None
        site = CallSite(extent.end)
    if ticks:
        site.end = yield from close_fence(context, site.end, ticks)
    if closers:
        after = yield from skip_space(buffer, site.end)
        closer = yield from match_literal(buffer, after, closers)
        site.end = after + len(closer) if closer else site.end
    return site


def _is_data_key(key: str, extent: Extent) -> bool:
    """Return whether no call has such a key. After the arguments any key may follow."""
    return key not in ENVELOPE_KEYS and not any(seen in ARGUMENT_KEYS for seen, _, _ in extent.spans)


def fenced_calls(context: Context, ticks: str, info: str, body: int) -> Scan[tuple[CallSite | None, int]]:
    """Read the calls in a fence whose content begins at `body`.

    Returns:
        The site, or None when the fence holds something else; and the index up to which the text was read.
    """
    buffer = context.buffer
    if info == "tool_code":
        return (yield from _tool_code(context, ticks, body))
    outcomes: list[Outcome] = []
    at = yield from _skip_comments(buffer, body)
    if at >= len(buffer.text) and buffer.truncated and info:
        return context.unfinished(at, at), at
    while at < len(buffer.text) and buffer.text[at] in "{[｛［":
        extent = yield from json_value(context, at, (ticks,), reject=_is_data_key)
        if extent.rejected:
            return None, extent.end
        found = envelope_json(context, extent, marked=False)
        if not found:
            return None, extent.end
        outcomes.extend(found)
        at = yield from _skip_comments(buffer, extent.end)
        if not extent.balanced and extent.delimiter is None:
            return CallSite(at, outcomes), at
        if at < len(buffer.text) and buffer.text[at] in ",;":
            at = yield from _skip_comments(buffer, at + 1)
    if not outcomes:
        return None, at
    if at >= len(buffer.text):
        return CallSite(at, outcomes), at
    close = yield from take_while(buffer, at, TICK if ticks[0] == "`" else _TILDE, 40)
    if close - at < len(ticks) and close < len(buffer.text):
        return None, at
    return CallSite(close, outcomes), close


def _skip_comments(buffer: TextBuffer, at: int) -> Scan[int]:
    """Return the index of the first character at or after `at` that is neither white space nor in a comment."""
    while True:
        at = yield from skip_space(buffer, at)
        opening = yield from match_literal(buffer, at, ("//", "/*", "#"))
        if not opening:
            return at
        closing = "*/" if opening == "/*" else "\n"
        end = yield from find_text(buffer, at + len(opening), closing)
        at = len(buffer.text) if end < 0 else end + len(closing)


def _tool_code(context: Context, ticks: str, body: int) -> Scan[tuple[CallSite | None, int]]:
    """Read Gemma's fence of Python calls."""
    buffer, tools = context.buffer, context.tools
    end = yield from find_text(buffer, body, "\n" + ticks)
    text = buffer.text[body : end if end >= 0 else len(buffer.text)].strip()
    if end < 0 and buffer.truncated:
        return CallSite(len(buffer.text), [tools.unfinished(text, truncated=True)]), len(buffer.text)
    close = len(buffer.text) if end < 0 else end + 1 + len(ticks)
    if text.startswith("print(") and text.endswith(")") and "\n" not in text:
        text = text[6:-1]
    outcomes = tools.from_python(text.replace("\n", "\n;") if _has_call_per_line(text) else text, marked=True)
    return (CallSite(close, outcomes) if outcomes else None), close


def _has_call_per_line(text: str) -> bool:
    lines = [line for line in text.split("\n") if line.strip()]
    return len(lines) > 1 and all(CALL_START.match(line) and line.rstrip().endswith(")") for line in lines)


def bare_calls(context: Context, at: int) -> Scan[CallSite | None]:
    """Read a reply that is nothing but JSON calls (or Python calls); None for any other reply."""
    buffer = context.buffer
    if buffer.text[at] in "[［":
        first = yield from skip_space(buffer, at + 1)
        end = yield from take_while(buffer, first, _NAME, 100)
        while end >= len(buffer.text) and not buffer.ended:
            yield
        after = yield from skip_space(buffer, end, lines=False)
        if end > first and buffer.text[after : after + 1] == "(":
            return (yield from _bare_python(context, at, buffer.text[first:end], after + 1))
    outcomes: list[Outcome] = []
    while at < len(buffer.text) and buffer.text[at] in "{[｛［":
        extent = yield from json_value(context, at, (), reject=_is_data_key)
        if extent.rejected:
            return (yield from _whole_reply_object(context, at))
        found = envelope_json(context, extent, marked=False)
        if not found:
            return None
        outcomes.extend(found)
        at = yield from take_while(buffer, extent.end, _SEPARATORS, 100)
        if buffer.ended and at >= len(buffer.text):
            return CallSite(at, outcomes)
    if not outcomes or not (yield from _reply_ends(context, at)):
        return None
    return CallSite(at, outcomes)


def _whole_reply_object(context: Context, at: int) -> Scan[CallSite | None]:
    """Read the object of constrained decoding: `{"response": "text"}` is text, and calls may stand beside it."""
    buffer = context.buffer
    opened = yield from skip_space(buffer, at + 1)
    if not (yield from match_literal(buffer, opened, ('"response"', '"thought"', '"tool_calls"'))):
        return None
    extent = yield from json_extent(buffer, at)
    if not extent.balanced or (yield from skip_space(buffer, extent.end)) < len(buffer.text):
        return None
    found = context.tools.whole_reply(context.raw(at, extent.end))
    return None if found is None else CallSite(len(buffer.text), found[1], text=found[0] or " ")


def _bare_python(context: Context, at: int, first: str, arguments: int) -> Scan[CallSite | None]:
    """Read a reply that is a list of Python calls.

    Args:
        context: The text and the tools.
        at: Where the list begins.
        first: Name of the first call.
        arguments: Where the arguments of the first call begin.
    """
    buffer, tools = context.buffer, context.tools
    known = tools.knows(first)
    if not known:
        key = yield from take_while(buffer, arguments, _KEY, 100)
        if tools.native or buffer.text[key : key + 1] not in ("=", ")"):
            return None
    extent = yield from json_extent(buffer, at)
    if not extent.balanced:
        return context.unfinished(at, extent.end, name=first) if known or buffer.truncated else None
    after = yield from skip_space(buffer, extent.end)
    if not (yield from _reply_ends(context, after)):
        return None
    outcomes = tools.from_python(context.raw(at, extent.end), marked=True)
    return CallSite(after, outcomes) if outcomes else None


def _reply_ends(context: Context, at: int) -> Scan[bool]:
    """Return whether the reply ends at `at`, or goes on with a token that ends it or with an invented result."""
    buffer = context.buffer
    if at >= len(buffer.text):
        return True
    if buffer.text[at] == "<":
        return bool((yield from match_literal(buffer, at, _AFTER_CALLS)))
    word = yield from match_literal(buffer, at, ("Observation:", "Observation：", "[TOOL_RESULTS]"))
    return word is not None
