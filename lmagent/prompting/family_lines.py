"""Families written as lines of text: ReAct, structured chat, smolagents, Qwen's flowers, Functionary, harmony."""

from __future__ import annotations

import re

from lmagent.prompting.buffer import Scan, json_extent, literal, skip_space, take_while, until, until_any
from lmagent.prompting.calls import Outcome
from lmagent.prompting.family_json import (
    Context,
    Site,
    arguments_json,
    close_fence,
    envelope_json,
    json_value,
    open_fence,
)
from lmagent.toolkit.loose_json import CALL_START

__all__ = ["REACT_WORDS", "action", "flower", "functionary", "harmony_header", "react_word"]

REACT_WORDS = ("Thought", "Action Input", "Action", "Observation", "Final Answer")
_DECORATION = re.compile(r"[*_# ]")
_AFTER_WORD = re.compile(r"[*_ ]")
_EMPHASIS = re.compile(r"[*_]")
_COLON = re.compile(r"[:： ]")
_COLON_OR_SPACE = re.compile(r"[:：\s]")
_FLOWER = re.compile("✿")
_LINE_END = re.compile(r"\n")
_NO_TOOL = ("none", "n/a", "no action", "-", "no tool", "nothing")
_FINAL = ("final answer", "final_answer", "directly-answer", "directly_answer")
_RECIPIENT = re.compile(r"to=([^\s<]{1,100})")


def react_word(context: Context, at: int) -> Scan[tuple[str, int] | None]:
    """Return the ReAct word that begins the line at `at` and the index after its colon; decoration may surround it."""
    src = context.src
    here = yield from take_while(src, at, _DECORATION, 6)
    word = yield from literal(src, here, REACT_WORDS)
    if not word:
        return None
    here = yield from take_while(src, here + len(word), _AFTER_WORD, 4)
    while here >= len(src.buf) and not src.ended:
        yield
    if src.buf[here : here + 1] not in (":", "："):
        return None
    here = yield from take_while(src, here + 1, _EMPHASIS, 2)
    return word, here


def action(context: Context, start: int, at: int) -> Scan[Site | None]:
    """Read what follows `Action:`: a tool's name and an input, or a JSON object; None when it is prose."""
    src, tools = context.src, context.tools
    here = yield from skip_space(src, at)
    if here >= len(src.buf):
        return None
    first = yield from skip_space(src, here + 1)
    if src.buf[here] in "{｛" or (src.buf[here] in "[［" and src.buf[first : first + 1] in ("{", "｛")):
        return (yield from _action_json(context, here))
    if src.buf[here] == "`":
        ticks, body = yield from open_fence(context, here)
        if len(ticks) >= 3:
            return (yield from _action_fence(context, here, ticks, body))
    line = yield from until_any(src, at, _LINE_END)
    if here > line:
        return None
    name = _bare(src.buf[here:line])
    after = yield from skip_space(src, line)
    found = (yield from react_word(context, after)) if after < len(src.buf) else None
    if found and found[0] == "Action Input":
        if name.lower() in _NO_TOOL:
            return None
        if name.lower() in _FINAL:
            return (yield from _final_input(context, found[1]))
        return (yield from _action_input(context, name, start, found[1]))
    if CALL_START.match(name):
        outcomes = tools.from_python(name, sure=False) if name.endswith(")") else None
        if outcomes:
            return Site(line, outcomes, react=True)
    if after >= len(src.buf) or found is not None:
        return _without_input(context, name, start, line, at_end=after >= len(src.buf))
    if src.length and any(word.startswith(src.buf[after:].strip(" *_#")) for word in ("Action Input:",)):
        return Site(len(src.buf), [tools.unfinished(context.raw(start, len(src.buf)), length=True, name=None)])
    return None


def _bare(name: str) -> str:
    """The name without the decoration that models put around it."""
    return name.strip().strip("*_`\"'“” ").strip().rstrip(".。").strip("`*")


def _without_input(context: Context, name: str, start: int, line: int, *, at_end: bool) -> Site | None:
    """An action that has no input: fine for a tool without parameters, else an error."""
    src, tools = context.src, context.tools
    raw = context.raw(start, line)
    if at_end and src.length:
        return Site(line, [tools.unfinished(raw, length=True, name=name[:64])])
    if not tools.knows(name):
        return None
    if tools.takes_arguments(name):
        return Site(
            line, [tools.failed(raw, "malformed", "expected a line 'Action Input: {...}' after the action", name)]
        )
    outcome = tools.from_fields(name, [], raw)
    return Site(line, [outcome], react=True) if outcome else None


def _action_json(context: Context, at: int) -> Scan[Site | None]:
    extent = yield from json_value(context, at, ())
    return _final_or_calls(context, extent.start, extent.end, envelope_json(context, extent), extent.balanced)


def _final_or_calls(context: Context, start: int, end: int, outcomes: list[Outcome] | None, balanced: bool) -> Site:
    """An envelope whose tool is the final answer is text."""
    from_envelope = context.tools.final_answer(context.raw(start, end), _FINAL) if balanced else None
    if from_envelope is not None:
        return Site(end, text=from_envelope)
    if outcomes is None:
        return Site(end, text=context.raw(start, end), whole_text=True)
    return Site(end, outcomes, react=True)


def _action_fence(context: Context, fence: int, ticks: str, body: int) -> Scan[Site | None]:
    src = context.src
    if body >= len(src.buf):
        return Site(body, [context.tools.unfinished(context.raw(fence, body), length=True)]) if src.length else None
    if src.buf[body] not in "{[｛［":
        return None
    extent = yield from json_value(context, body, (ticks,))
    site = _final_or_calls(context, body, extent.end, envelope_json(context, extent), extent.balanced)
    site.end = yield from close_fence(context, site.end, ticks)
    return site


def _final_input(context: Context, at: int) -> Scan[Site | None]:
    at = yield from skip_space(context.src, at, lines=False)
    return Site(at, text=" ")


def _action_input(context: Context, name: str, start: int, at: int) -> Scan[Site | None]:
    src, tools = context.src, context.tools
    here = yield from skip_space(src, at)
    ticks, here = yield from open_fence(context, here)
    if here < len(src.buf) and src.buf[here] in "{｛":
        extent = yield from json_value(context, here, (ticks,) if ticks else (), name=name)
        outcome = arguments_json(context, name, extent, start)
        if outcome is None:
            return None
        end = yield from close_fence(context, extent.end, ticks)
        return Site(end, [outcome], react=True)
    end = yield from _plain_end(context, at)
    raw = context.raw(start, end)
    if end >= len(src.buf) and src.length:
        return Site(end, [tools.unfinished(raw, length=True, name=name)])
    text = src.buf[at:end].strip()
    if text.startswith(('"{', '"[')):
        outcome = tools.from_arguments(name, text, raw)
    else:
        outcome = tools.from_text(name, text.strip("`").strip() if ticks else text.strip('"'), raw)
    return Site(end, [outcome], react=True) if outcome else None


def _plain_end(context: Context, at: int) -> Scan[int]:
    """Plain input ends before the next line that begins with a ReAct word."""
    src = context.src
    while True:
        at = yield from until_any(src, at, _LINE_END)
        if at >= len(src.buf):
            return at
        if (yield from react_word(context, at + 1)):
            return at
        at += 1


def flower(context: Context, start: int, at: int) -> Scan[Site | None]:
    """`✿FUNCTION✿: name` and `✿ARGS✿: {…}`."""
    src, tools = context.src, context.tools
    here = yield from take_while(src, at, _COLON, 4)
    line = yield from until_any(src, here, _LINE_END)
    name = src.buf[here:line].strip()
    after = yield from skip_space(src, line)
    mark = (yield from literal(src, after, ("✿ARGS✿",))) if after < len(src.buf) else None
    if not mark:
        cut = src.length and "✿ARGS✿".startswith(src.buf[after:])
        return Site(len(src.buf), [tools.unfinished(context.raw(start, len(src.buf)), length=True)]) if cut else None
    here = yield from take_while(src, after + len(mark), _COLON_OR_SPACE, 20)
    ticks, here = yield from open_fence(context, here)
    if here >= len(src.buf):
        return Site(here, [tools.unfinished(context.raw(start, here), length=src.length, name=name)])
    if src.buf[here] not in "{｛":
        end = yield from until_any(src, here, _FLOWER)
        raw = context.raw(start, end)
        if end >= len(src.buf) and src.length:
            return Site(end, [tools.unfinished(raw, length=True, name=name)])
        outcome = tools.from_arguments(name, src.buf[here:end].strip().strip("`"), raw)
        return Site(end, [outcome]) if outcome else None
    extent = yield from json_value(context, here, (ticks,) if ticks else (), name=name)
    outcome = arguments_json(context, name, extent, start)
    if outcome is None:
        return None
    end = yield from close_fence(context, extent.end, ticks)
    return Site(end, [outcome])


def functionary(context: Context, start: int, at: int) -> Scan[Site | None]:
    """`>>>name`, a line end, JSON; or `>>>all`, a line end, text. `at` is where the name begins."""
    src, tools = context.src, context.tools
    line = yield from until(src, at, "\n", 120)
    if line < 0:
        if src.length and src.ended and src.buf[start:at] == ">>>":
            return Site(len(src.buf), [tools.unfinished(context.raw(start, len(src.buf)), length=True)])
        return None
    name = src.buf[at:line].strip()
    here = yield from skip_space(src, line)
    if name == "all":
        return Site(here, text=" ")
    if here >= len(src.buf):
        return Site(here, [tools.unfinished(context.raw(start, here), length=True, name=name)]) if src.length else None
    if src.buf[here] not in "{｛" or " " in name:
        return None
    extent = yield from json_value(context, here, (">>>",), name=name)
    outcome = arguments_json(context, name, extent, start)
    return Site(extent.end, [outcome]) if outcome else None


def harmony_header(context: Context, start: int, at: int, word: str) -> Scan[tuple[str, Site | None]]:
    """Read a harmony header up to its content.

    Returns:
        `analysis` (thinking follows), `text`, `call` (with its site), `foreign` (another role speaks: invented) or
        `prose` (no header at all).
    """
    src, tools = context.src, context.tools
    end = yield from until(src, at, "<|message|>", 300)
    if end < 0:
        if src.length and src.ended and len(src.buf) - at < 300:
            return "call", Site(len(src.buf), [tools.unfinished(context.raw(start, len(src.buf)), length=True)])
        return "prose", None
    header = src.buf[at:end]
    role, _, channel = header.partition("<|channel|>") if word == "<|start|>" else ("assistant", "", header)
    if not role.strip().startswith("assistant"):
        return "foreign", None
    body = end + len("<|message|>")
    recipient = _RECIPIENT.search(header)
    if not recipient:
        words = channel.split()
        return ("analysis" if words and words[0] == "analysis" else "text"), Site(body)
    name = recipient.group(1)
    here = yield from skip_space(src, body)
    if here >= len(src.buf) or src.buf[here] not in "{｛":
        mark = yield from literal(src, here, ("<|call|>", "<|end|>"))
        raw = context.raw(start, here)
        outcome = tools.from_arguments(name, "", raw) if mark else tools.unfinished(raw, length=src.length, name=name)
        return "call", Site(here + len(mark or ""), [outcome] if outcome else [])
    extent = yield from json_extent(src, here, ("<|call|>", "<|end|>", "<|return|>"), progress=context.progress(name))
    outcome = arguments_json(context, name, extent, start)
    site = Site(extent.end, [outcome] if outcome else [])
    after = yield from skip_space(src, site.end)
    mark = yield from literal(src, after, ("<|call|>", "<|end|>", "<|return|>"))
    if mark:
        site.end = after + len(mark)
    return "call", site
