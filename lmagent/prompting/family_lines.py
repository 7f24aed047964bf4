"""Calls written as lines of text: ReAct, structured chat, smolagents, Qwen's star words, Functionary, harmony."""

from __future__ import annotations

import re

from lmagent.prompting.buffer import Scan, find_char, find_text, match_literal, skip_space, take_while
from lmagent.prompting.family_json import (
    CallSite,
    Context,
    close_fence,
    envelope_json,
    json_value,
    named_call,
    open_arguments,
    open_fence,
    site_of,
)
from lmagent.toolkit.loose_json import CALL_START

__all__ = [
    "REACT_STARTS",
    "functionary",
    "harmony_header",
    "plain_harmony",
    "qwen_star",
    "react_action",
    "react_keyword",
]

_REACT_KEYWORDS = {
    **{word: word for word in ("Thought", "Action Input", "Action", "Observation", "Final Answer")},
    **{"思考": "Thought", "想法": "Thought", "动作": "Action", "行动": "Action", "观察": "Observation"},
    **{"动作输入": "Action Input", "行动输入": "Action Input", "最终答案": "Final Answer", "最终回答": "Final Answer"},
}
"""Keyword, English or Chinese -> the English one."""
_REACT_WORDS = tuple(_REACT_KEYWORDS)
REACT_STARTS = frozenset({word[0] for word in _REACT_WORDS} | set("*_#"))
"""Characters that a line with a keyword begins with."""
_DECORATION = re.compile(r"[*_# ]")
_AFTER_KEYWORD = re.compile(r"[*_ ]")
_ENCODED = re.compile(r'"[\\"\s]{0,20}[{\[]')
_DIGIT = re.compile(r"[0-9]")
_PLAIN_NAME = re.compile(r"[\w.:-]")
_SMALL = re.compile(r"[a-z]")
_EMPHASIS = re.compile(r"[*_]")
_COLON = re.compile(r"[:： ]")
_COLON_OR_SPACE = re.compile(r"[:：\s]")
_STAR = re.compile("✿")
_LINE_END = re.compile(r"\n")
_NO_TOOL = ("none", "n/a", "no action", "-", "no tool", "nothing")
_FINAL_ANSWER = ("final answer", "final_answer", "directly-answer", "directly_answer")
_RECIPIENT = re.compile(r"to=([^\s<]{1,100})")
_HARMONY_ENDS = ("<|call|>", "<|end|>", "<|return|>")


def react_keyword(context: Context, at: int) -> Scan[tuple[str, int] | None]:
    """Return the ReAct keyword that begins the line at `at` and the index after its colon.

    Markdown decoration may surround the keyword, and a number may follow it (`Action 1:`).
    """
    buffer = context.buffer
    here = yield from take_while(buffer, at, _DECORATION, 6)
    word = yield from match_literal(buffer, here, _REACT_WORDS)
    if not word:
        return None
    here = yield from take_while(buffer, here + len(word), _AFTER_KEYWORD, 4)
    here = yield from take_while(buffer, here, _DIGIT, 3)
    here = yield from take_while(buffer, here, _AFTER_KEYWORD, 4)
    while here >= len(buffer.text) and not buffer.ended:
        yield
    if buffer.text[here : here + 1] not in (":", "："):
        return None
    here = yield from take_while(buffer, here + 1, _EMPHASIS, 2)
    return _REACT_KEYWORDS[word], here


def react_action(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read what follows `Action:`: a tool's name and an input, or a JSON object; None when it is prose."""
    buffer, tools = context.buffer, context.tools
    here = yield from skip_space(buffer, at)
    if here >= len(buffer.text):
        return None
    first = yield from skip_space(buffer, here + 1)
    if buffer.text[here] in "{｛" or (buffer.text[here] in "[［" and buffer.text[first : first + 1] in ("{", "｛")):
        return (yield from _action_json(context, here, ""))
    if buffer.text[here] == "`":
        ticks, body = yield from open_fence(context, here)
        if len(ticks) >= 3:
            if body >= len(buffer.text):
                return context.unfinished(here, body) if buffer.truncated else None
            return (yield from _action_json(context, body, ticks)) if buffer.text[body] in "{[｛［" else None
    line = yield from find_char(buffer, at, _LINE_END)
    if here > line:
        return None
    name = _undecorated(buffer.text[here:line])
    after = yield from skip_space(buffer, line)
    found = (yield from react_keyword(context, after)) if after < len(buffer.text) else None
    if found and found[0] == "Action Input":
        if name.lower() in _NO_TOOL:
            return None
        if name.lower() in _FINAL_ANSWER:
            end = yield from skip_space(buffer, found[1], lines=False)
            return CallSite(end, text=" ")
        return (yield from _action_input(context, name, start, found[1]))
    if CALL_START.match(name):
        outcomes = tools.from_python(name, marked=False) if name.endswith(")") else None
        if outcomes:
            return CallSite(line, outcomes, react=True)
    if after >= len(buffer.text) or found is not None:
        return _action_without_input(context, name, start, line, at_end=after >= len(buffer.text))
    if buffer.truncated and "Action Input:".startswith(buffer.text[after:].strip(" *_#")):
        return context.unfinished(start)
    return None


def _undecorated(name: str) -> str:
    """Return the name without the quotes and Markdown that models put around it."""
    return name.strip().strip("*_`\"'“” ").strip().rstrip(".。").strip("`*")


def _action_without_input(context: Context, name: str, start: int, line: int, *, at_end: bool) -> CallSite | None:
    """Read an action that has no input: a call of a tool without parameters, else an error."""
    tools = context.tools
    if at_end and context.buffer.truncated:
        return context.unfinished(start, line, name=name[:64])
    if not tools.knows(name):
        return None
    if tools.takes_arguments(name):
        return context.malformed(start, line, "expected a line 'Action Input: {...}' after the action", name)
    return _as_action(site_of(tools.from_fields(name, [], context.raw(start, line)), line))


def _as_action(site: CallSite | None) -> CallSite | None:
    if site is not None:
        site.react = True
    return site


def _action_json(context: Context, at: int, ticks: str) -> Scan[CallSite]:
    """Read an action that is JSON; one that names the final answer is text.

    Args:
        context: The text and the tools.
        at: Where the JSON begins.
        ticks: Backticks of the fence around it, or none.
    """
    extent = yield from json_value(context, at, (ticks,) if ticks else ())
    raw = context.raw(at, extent.end)
    answer = context.tools.final_answer(raw, _FINAL_ANSWER) if extent.balanced else None
    if answer is not None:
        site = CallSite(extent.end, text=answer)
    elif (outcomes := envelope_json(context, extent)) is None:
        site = CallSite(extent.end, text=raw, plain_text=True)
    else:
        site = CallSite(extent.end, outcomes, react=True)
    if ticks:
        site.end = yield from close_fence(context, site.end, ticks)
    return site


def _action_input(context: Context, name: str, start: int, at: int) -> Scan[CallSite | None]:
    buffer, tools = context.buffer, context.tools
    here = yield from skip_space(buffer, at)
    ticks, here = yield from open_fence(context, here)
    if here < len(buffer.text) and buffer.text[here] in "{｛":
        return _as_action((yield from named_call(context, name, start, here, ticks=ticks)))
    end = yield from _plain_input_end(context, at)
    if end >= len(buffer.text) and buffer.truncated:
        return context.unfinished(start, end, name=name)
    text, raw = buffer.text[at:end].strip(), context.raw(start, end)
    if _ENCODED.match(text):
        outcome = tools.from_arguments(name, text, raw)
    else:
        outcome = tools.from_text(name, text.strip("`").strip() if ticks else text.strip('"'), raw)
    return _as_action(site_of(outcome, end))


def _plain_input_end(context: Context, at: int) -> Scan[int]:
    """Return where plain input ends: before the next line that begins with a ReAct keyword."""
    buffer = context.buffer
    while True:
        at = yield from find_char(buffer, at, _LINE_END)
        if at >= len(buffer.text):
            return at
        if (yield from react_keyword(context, at + 1)):
            return at
        at += 1


def qwen_star(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read `✿FUNCTION✿: name` and `✿ARGS✿: {…}`."""
    buffer, tools = context.buffer, context.tools
    here = yield from take_while(buffer, at, _COLON, 4)
    line = yield from find_char(buffer, here, _LINE_END)
    name = buffer.text[here:line].strip()
    after = yield from skip_space(buffer, line)
    mark = (yield from match_literal(buffer, after, ("✿ARGS✿",))) if after < len(buffer.text) else None
    if not mark:
        cut = buffer.truncated and "✿ARGS✿".startswith(buffer.text[after:])
        return context.unfinished(start) if cut else None
    here = yield from take_while(buffer, after + len(mark), _COLON_OR_SPACE, 20)
    ticks, here = yield from open_fence(context, here)
    if here >= len(buffer.text):
        return context.unfinished(start, here, name=name)
    if buffer.text[here] in "{｛":
        return (yield from named_call(context, name, start, here, ticks=ticks))
    end = yield from find_char(buffer, here, _STAR)
    if end >= len(buffer.text) and buffer.truncated:
        return context.unfinished(start, end, name=name)
    arguments = buffer.text[here:end].strip().strip("`")
    return site_of(tools.from_arguments(name, arguments, context.raw(start, end)), end)


def functionary(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read `>>>name`, a line end, JSON; or `>>>all`, a line end, text. `at` is where the name begins."""
    buffer = context.buffer
    line = yield from find_text(buffer, at, "\n", 120)
    if line < 0:
        cut = buffer.truncated and buffer.ended and buffer.text[start:at] == ">>>"
        return context.unfinished(start) if cut else None
    name = buffer.text[at:line].strip()
    here = yield from skip_space(buffer, line)
    if name == "all":
        return CallSite(here, text=" ")
    if here >= len(buffer.text):
        return context.unfinished(start, here, name=name) if buffer.truncated else None
    opened = None if " " in name else (yield from open_arguments(context, here))
    if not opened:
        return None
    return (yield from named_call(context, name, start, opened[1], (">>>",), ticks=opened[0]))


def plain_harmony(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read a harmony call without its special tokens; `at` is after `to=functions.`.

    The tool's name, then the words `commentary` and `json`, glued to it or not, then JSON.
    """
    buffer, tools = context.buffer, context.tools
    end = yield from take_while(buffer, at, _PLAIN_NAME, 100)
    name = buffer.text[at:end]
    for word in ("json", "code", "commentary"):
        name = name if tools.knows(name) else name.removesuffix(word)
    here = yield from skip_space(buffer, end)
    for _ in range(2):
        after = yield from take_while(buffer, here, _SMALL, 12)
        if buffer.text[here:after] in ("commentary", "json", "code"):
            here = yield from skip_space(buffer, after)
    opened = yield from open_arguments(context, here)
    if opened:
        return (yield from named_call(context, name, start, opened[1], ticks=opened[0]))
    return context.unfinished(start) if buffer.truncated and here >= len(buffer.text) else None


def harmony_header(context: Context, start: int, at: int, word: str) -> Scan[tuple[str, CallSite | None]]:
    """Read a harmony header up to its content.

    Returns:
        `analysis` (thinking follows), `text`, `call` (with its site), `foreign` (another role speaks: invented) or
        `prose` (no header at all).
    """
    buffer, tools = context.buffer, context.tools
    end = yield from find_text(buffer, at, "<|message|>", 300)
    if end < 0:
        site = context.cut_header(start, at, 300)
        return ("call" if site else "prose"), site
    header = buffer.text[at:end]
    role, _, channel = header.partition("<|channel|>") if word == "<|start|>" else ("assistant", "", header)
    if not role.strip().startswith("assistant"):
        return "foreign", None
    body = end + len("<|message|>")
    recipient = _RECIPIENT.search(header)
    if not recipient:
        words = channel.split()
        return ("analysis" if words and words[0] == "analysis" else "text"), CallSite(body)
    name = recipient.group(1)
    here = yield from skip_space(buffer, body)
    opened = yield from open_arguments(context, here)
    if opened:
        return "call", (
            yield from named_call(
                context, name, start, opened[1], _HARMONY_ENDS,
                ticks=opened[0], closers=_HARMONY_ENDS, drop_template=True,
            )
        )  # fmt: skip
    mark = yield from match_literal(buffer, here, ("<|call|>", "<|end|>"))
    if not mark:
        return "call", context.unfinished(start, here, name=name)
    outcome = tools.from_arguments(name, "", context.raw(start, here))
    return "call", CallSite(here + len(mark), [outcome] if outcome else [])
