"""Calls in a top-level code fence: JSON (what we ask for by default), Gemma's `tool_code`; and bare JSON replies."""

from __future__ import annotations

import re

from lmagent.prompting.buffer import Extent, Scan, json_extent, literal, skip_space, take_while, until
from lmagent.prompting.calls import Outcome
from lmagent.prompting.envelope import ARGUMENT_KEYS, ENVELOPE_KEYS
from lmagent.prompting.families.site import Context, Site, envelope_json, json_value
from lmagent.toolkit.loose_json import CALL_START

__all__ = ["CALL_INFOS", "bare", "fence", "foreign_key"]

CALL_INFOS = frozenset(
    {"", "json", "json5", "jsonc", "tool_call", "tool_calls", "tool_code", "function_call", "action"}
)
"""Info strings of fences that may hold a call."""

_TICK = re.compile("`")
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
