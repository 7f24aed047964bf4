"""Families with a wrapper around the call: Hermes, Qwen3-Coder, GLM, MiniMax, DeepSeek, Kimi, Granite and others.

One table gives opening and closing words; what may stand between them is the same for all, because models mix
families: JSON, a list of JSON, a fenced JSON, XML functions, GLM keys, DeepSeek and Kimi inner markers, Python calls.
"""

from __future__ import annotations

import re

from lmagent.prompting.buffer import Scan, json_extent, literal, skip_space, take_while, until
from lmagent.prompting.calls import Outcome, RawField
from lmagent.prompting.family_json import (
    Context,
    Site,
    arguments_json,
    close_fence,
    envelope_json,
    json_value,
    open_fence,
)
from lmagent.prompting.markers import CLOSERS, ELEMENTS, WRAPPERS
from lmagent.toolkit.python_literals import CALL_START

__all__ = ["element", "wrapper"]

_MAX_NESTING = 3
_PROSE = 2000
"""Characters in which the end of a call is looked for that reads like prose."""
_NAME = re.compile(r"[^\s<>{}\[\]()\"'`=]")
_ATTRIBUTE_NAME = re.compile(r"""\s+name\s*=\s*("[^"<>\n]{1,200}"|'[^'<>\n]{1,200}'|[^\s"'<>]{1,200})([^<>]{0,80})>""")
_JSON_START = ("{", "｛", '"', "\\")
_LIST_START = ("[", "［")


def wrapper(context: Context, opener: str, start: int, at: int, nesting: int = 0) -> Scan[Site | None]:
    """Read the calls between `opener` (which ends at `at`) and its closing word; None when prose only names it."""
    src = context.src
    closers = WRAPPERS[opener]
    if opener == "functools[":
        return (yield from _json_list(context, at - 1, closers))
    site = Site(at)
    while True:
        here = yield from skip_space(src, site.end)
        if here >= len(src.buf):
            break
        if site.outcomes and src.buf[here] in ",;":
            site.end = here + 1
            continue
        closer = yield from literal(src, here, closers)
        if closer:
            site.end = here + len(closer)
            site.whole_text = not site.outcomes
            return site if site.outcomes or site.text else None
        stray = yield from literal(src, here, CLOSERS)
        if stray and site.outcomes:
            site.end = here + len(stray)
            if "tool_call" in stray and "tool_call" in opener:
                return site
            continue
        if site.outcomes and (yield from literal(src, here, (opener,))):
            break  # the closing word was forgotten; the next wrapper is a site of its own
        inner = yield from element(context, opener, here, nesting)
        if inner is None:
            break
        site.outcomes.extend(inner.outcomes)
        site.text += inner.text
        site.end = inner.end
    if site.outcomes or site.text:
        site.whole_text = not site.outcomes
        return site
    if src.ended and src.length and _cut_inside(context, src.buf[at : at + 100].strip(), len(src.buf) - at):
        return Site(len(src.buf), [context.tools.unfinished(context.raw(start, len(src.buf)), length=True)])
    return None


def _cut_inside(context: Context, rest: str, size: int) -> bool:
    """True when `rest`, the last of the reply, may be the beginning of what stands in a wrapper."""
    if size > 100:
        return False
    words = (*ELEMENTS, *WRAPPERS, "<|plugin|>", *context.tools.schemas)
    return any(word.startswith(rest.removeprefix("<|plugin|>").lstrip("[ \n")) for word in words)


def element(context: Context, opener: str, at: int, nesting: int) -> Scan[Site | None]:
    """Read one call at `at`, in whatever family it is spelled."""
    src = context.src
    if at >= len(src.buf):
        return None
    char = src.buf[at]
    closers = WRAPPERS.get(opener, ())
    if char in _JSON_START:
        return (yield from _json(context, at, closers))
    if char in _LIST_START:
        if opener != "[TOOL_CALLS]" and (yield from literal(src, at, ("[TOOL_CALLS]", "[ARGS]"))):
            return None
        return (yield from _json_list(context, at, closers))
    if char == "`":
        return (yield from _fenced(context, at, closers))
    if char == "<":
        mark = yield from literal(src, at, (*ELEMENTS, *WRAPPERS, "<|plugin|>"))
        if mark == "<|plugin|>":
            after = yield from skip_space(src, at + len(mark))
            return (yield from element(context, opener, after, nesting)) if after < len(src.buf) else None
        if mark in _ELEMENT_READERS:
            return (yield from _ELEMENT_READERS[mark](context, at, at + len(mark)))
        if mark and nesting < _MAX_NESTING:
            return (yield from wrapper(context, mark, at, at + len(mark), nesting + 1))
        return None
    if opener == "[TOOL_CALLS]":
        return (yield from _mistral(context, at))
    return (yield from _named(context, opener, at))


def _json(context: Context, at: int, closers: tuple[str, ...]) -> Scan[Site | None]:
    src = context.src
    if src.buf[at] == "\\" or src.buf[at] == '"':
        return (yield from _encoded(context, at))
    extent = yield from json_value(context, at, (*closers, *CLOSERS))
    outcomes = envelope_json(context, extent)
    if outcomes is None:
        return Site(extent.end, text=context.raw(at, extent.end), whole_text=True)
    return Site(extent.end, outcomes)


def _encoded(context: Context, at: int) -> Scan[Site | None]:
    """A whole call that was encoded as a JSON string."""
    src = context.src
    end = at + 1
    while True:
        end = yield from until(src, end, '"')
        if end < 0:
            break
        slashes = end
        while slashes > at + 1 and src.buf[slashes - 1] == "\\":
            slashes -= 1
        end += 1
        if (end - 1 - slashes) % 2 == 0:
            break
    body = src.buf[at + 1 :].lstrip()[:1]
    if body not in ("{", "[", "\\"):
        return None
    if end < 0:
        return Site(len(src.buf), [context.tools.unfinished(context.raw(at, len(src.buf)), length=src.length)])
    outcomes = context.tools.from_envelopes(context.raw(at, end))
    return Site(end, outcomes or [], text="" if outcomes else context.raw(at, end))


def _json_list(context: Context, at: int, closers: tuple[str, ...]) -> Scan[Site | None]:
    """A list of JSON calls, or of Python calls."""
    src = context.src
    first = yield from skip_space(src, at + 1)
    if first < len(src.buf) and src.buf[first] not in "{｛[］］]\"'":
        end = yield from take_while(src, first, _NAME, 100)
        if not CALL_START.match(src.buf, first) and src.buf[end : end + 1] != "(":
            return None
        extent = yield from json_extent(src, at, (*closers, *CLOSERS))
        raw = context.raw(at, extent.end)
        if not extent.balanced:
            return Site(extent.end, [context.tools.unfinished(raw, length=src.length and extent.delimiter is None)])
        outcomes = context.tools.from_python(raw, sure=True)
        return Site(extent.end, outcomes) if outcomes else None
    extent = yield from json_value(context, at, (*closers, *CLOSERS))
    outcomes = envelope_json(context, extent)
    if outcomes is None:
        return Site(extent.end, text=context.raw(at, extent.end), whole_text=True)
    return Site(extent.end, outcomes)


def _fenced(context: Context, at: int, closers: tuple[str, ...]) -> Scan[Site | None]:
    """A code fence inside the wrapper."""
    src = context.src
    ticks, body = yield from open_fence(context, at)
    if len(ticks) < 3 or body >= len(src.buf) or src.buf[body] not in "{[｛［":
        return None
    inner = (
        yield from _json_list(context, body, ("```", *closers))
        if src.buf[body] in _LIST_START
        else _json(context, body, ("```", *closers))
    )
    if inner is not None:
        inner.end = yield from close_fence(context, inner.end, ticks)
    return inner


def _named(context: Context, opener: str, at: int) -> Scan[Site | None]:
    """GLM (`name`, then keys and values), or a name followed by its arguments as JSON."""
    src, tools = context.src, context.tools
    closers = WRAPPERS.get(opener, ())
    end = yield from take_while(src, at, _NAME, 100)
    name = src.buf[at:end]
    if not name:
        return None
    if name in ("json", "JSON"):
        after = yield from skip_space(src, end)
        return (yield from element(context, opener, after, 3)) if src.buf[after : after + 1] in ("{", "[") else None
    after = yield from skip_space(src, end)
    if after >= len(src.buf):
        if src.length:
            return (
                Site(after, [tools.unfinished(context.raw(at, after), length=True)]) if "\n" in src.buf[end:] else None
            )
        if not tools.knows(name) or opener != "<tool_call>":
            return None
        if not _may_stop_here(context) and tools.takes_arguments(name):
            return Site(after, [tools.unfinished(context.raw(at, after), length=False, name=name)])
        return _site(tools.from_fields(name, [], context.raw(at, after)), after)
    if src.buf[after] in "{｛":
        if not tools.knows(name):
            return None
        extent = yield from json_value(context, after, (*closers, *CLOSERS), name=name)
        return _site(arguments_json(context, name, extent, at), extent.end)
    mark = yield from literal(src, after, ("<arg_key>", *closers))
    if mark == "<arg_key>":
        return (yield from _glm_fields(context, name, at, after))
    if mark and (tools.knows(name) or "\n" in src.buf[end:after]):
        return _site(tools.from_fields(name, [], context.raw(at, after)), after)
    if src.length and any(word.startswith(src.buf[after : after + 40]) for word in ("<arg_key>", *closers)):
        return Site(len(src.buf), [tools.unfinished(context.raw(at, len(src.buf)), length=True, name=name)])
    return None


def _may_stop_here(context: Context) -> bool:
    """True when a closing word was a stop sequence, so that the provider took it from the reply.

    JSON shows by its brackets that it is whole; values between tags do not.
    """
    return any(stop in CLOSERS for stop in context.stop)


def _site(outcome: Outcome | None, end: int) -> Site | None:
    return None if outcome is None else Site(end, [outcome])


def _glm_fields(context: Context, name: str, start: int, at: int) -> Scan[Site | None]:
    src, tools = context.src, context.tools
    fields: list[RawField] = []
    while True:
        key_end = yield from until(src, at, "</arg_key>")
        value = (yield from skip_space(src, key_end + 10)) if key_end >= 0 else -1
        opened = (yield from literal(src, value, ("<arg_value>",))) if value >= 0 else None
        value_end = (yield from until(src, value + 11, "</arg_value>")) if opened else -1
        if value_end < 0:
            cut = key_end < 0 or opened is not None or "<arg_value>".startswith(src.buf[value : value + 20])
            return (yield from _broken(context, name, start, at, "</tool_call>", cut=cut))
        fields.append((src.buf[at + 9 : key_end].strip(), src.buf[value + 11 : value_end], "schema"))
        at = yield from skip_space(src, value_end + 12)
        mark = yield from literal(src, at, ("<arg_key>", "</tool_call>"))
        if mark == "<arg_key>":
            continue
        if mark is None and (src.length or at < len(src.buf) or not _may_stop_here(context)):
            rest = src.buf[at : at + 20]
            cut = src.length and ("</tool_call>".startswith(rest) or "<arg_key>".startswith(rest))
            end = len(src.buf) if cut else at
            return Site(end, [tools.unfinished(context.raw(start, end), length=cut, name=name)])
        return _site(tools.from_fields(name, fields, context.raw(start, at)), at)


def _broken(context: Context, name: str, start: int, at: int, closer: str, *, cut: bool) -> Scan[Site]:
    """A call whose tags are in disorder from `at` on: it ends with its closing word, or with the reply.

    Args:
        context: The text.
        name: Of the tool.
        start: Where the call begins.
        at: Where the disorder begins.
        closer: The closing word of the call.
        cut: The end of the reply may have cut it here.
    """
    src, tools = context.src, context.tools
    found = yield from until(src, at, closer)
    if found < 0:
        raw = context.raw(start, len(src.buf))
        return Site(len(src.buf), [tools.unfinished(raw, length=src.length and cut, name=name)])
    end = found + len(closer)
    message = f"the tags between the name and {closer} are not those of a call"
    return Site(end, [tools.failed(context.raw(start, end), "malformed", message, name)])


def _function(context: Context, start: int, at: int) -> Scan[Site | None]:
    """`<function=name>`: JSON or `<parameter=key>` values, then `</function>`."""
    src, tools = context.src, context.tools
    end = yield from until(src, at, ">", 120)
    name = src.buf[at : max(end, at)].strip(" \"'")
    if end < 0 or not name or "\n" in name or "<" in name:
        if end < 0 and src.ended and src.length and len(src.buf) - at < 120:
            return Site(len(src.buf), [tools.unfinished(context.raw(start, len(src.buf)), length=True)])
        return None
    return (yield from _xml_body(context, name, start, end + 1, "function"))


def _invoke(context: Context, start: int, at: int) -> Scan[Site | None]:
    """`<invoke name="n">`: `<parameter name="k">` values or JSON, then `</invoke>`; DSML has `｜DSML｜` before each."""
    src, tools = context.src, context.tools
    end = yield from until(src, at, ">", 200)
    if end < 0:
        if src.ended and src.length and len(src.buf) - at < 200:
            return Site(len(src.buf), [tools.unfinished(context.raw(start, len(src.buf)), length=True)])
        return None
    found = _ATTRIBUTE_NAME.match(src.buf, at, end + 1)
    if not found:
        return None
    prefix = "｜DSML｜" if src.buf.startswith("<｜", start) else ""
    return (yield from _xml_body(context, found.group(1).strip("\"'"), start, end + 1, prefix + "invoke"))


def _xml_body(context: Context, name: str, start: int, at: int, word: str) -> Scan[Site | None]:
    src, tools = context.src, context.tools
    prefix = word.removesuffix("invoke").removesuffix("function")
    closer = f"</{word}>"
    at = yield from skip_space(src, at)
    if at < len(src.buf) and src.buf[at] in "{｛":
        extent = yield from json_value(context, at, CLOSERS, name=name)
        outcome = arguments_json(context, name, extent, start)
        end = yield from skip_space(src, extent.end)
        mark = yield from literal(src, end, (closer,))
        return _site(outcome, end + len(mark) if mark else extent.end)
    fields: list[RawField] = []
    while True:
        opening = f"<{prefix}parameter"
        mark = yield from literal(src, at, (closer, opening, *CLOSERS))
        if mark == opening:
            step = yield from _parameter(context, at, len(opening), prefix)
            if step is None:
                return (yield from _broken(context, name, start, at, closer, cut=True))
            parameter, at = step
            fields.append(parameter)
            at = yield from skip_space(src, at)
            continue
        raw = context.raw(start, at)
        if mark:
            return _site(tools.from_fields(name, fields, raw), at + (len(mark) if mark == closer else 0))
        if at < len(src.buf):
            if not fields and not tools.knows(name):
                return None
            if src.length and any(word.startswith(src.buf[at:]) for word in (opening, closer)):
                return Site(len(src.buf), [tools.unfinished(raw, length=True, name=name)])
            if not fields and src.buf[at] != "<" and (yield from until(src, at, closer, _PROSE)) < 0:
                return None  # a sentence names the tag
            return (yield from _broken(context, name, start, at, closer, cut=False))
        if fields and not src.length and _may_stop_here(context):
            return _site(tools.from_fields(name, fields, raw), at)
        if not fields and not src.length and not tools.knows(name):
            return None
        return Site(at, [tools.unfinished(raw, length=src.length, name=name)])


def _parameter(context: Context, at: int, width: int, prefix: str) -> Scan[tuple[RawField, int] | None]:
    """Read one parameter; the first closing tag ends the value, nothing in it is decoded."""
    src = context.src
    opened = yield from until(src, at + width, ">", 300)
    if opened < 0:
        return None
    head = src.buf[at + width : opened + 1]
    mode = "schema"
    if head.startswith("="):
        key = head[1:-1].strip(" \"'")
    else:
        found = _ATTRIBUTE_NAME.match(head)
        if not found:
            return None
        key = found.group(1).strip("\"'")
        if 'string="true"' in found.group(2):
            mode = "text"
        elif 'string="false"' in found.group(2):
            mode = "json"
    closer = f"</{prefix}parameter>"
    end = yield from until(src, opened + 1, closer)
    if end < 0:
        return None
    value = src.buf[opened + 1 : end]
    if head.startswith("="):
        value = _trim_line_ends(value)
    return (key, value, mode), end + len(closer)


def _trim_line_ends(value: str) -> str:
    """Take one line end off each side (Qwen3-Coder writes values on lines of their own)."""
    if value.startswith("\r\n") and value.endswith("\r\n"):
        return value[2:-2]
    return value.removeprefix("\n").removesuffix("\n")


def _deepseek(context: Context, start: int, at: int) -> Scan[Site | None]:
    """V3 (`function`, separator, name, fenced JSON) or V3.1 (name, separator, JSON)."""
    src, tools = context.src, context.tools
    separator = yield from until(src, at, "<｜tool▁sep｜>", 300)
    if separator < 0:
        return _cut(context, start, 300)
    name = src.buf[at:separator].strip()
    body = separator + len("<｜tool▁sep｜>")
    end_mark = "<｜tool▁call▁end｜>"
    here = yield from skip_space(src, body)
    if name == "function" and src.buf[here : here + 1] not in ("{", "｛"):
        line = yield from until(src, here, "\n", 200)
        if line < 0:
            return _cut(context, start, 600)
        name = src.buf[here:line].strip()
        here = yield from skip_space(src, line)
    ticks, here = yield from open_fence(context, here)
    if here >= len(src.buf) or src.buf[here] not in "{｛":
        mark = yield from literal(src, here, (end_mark,))
        if mark:
            return _site(tools.from_arguments(name, "", context.raw(start, here)), here + len(mark))
        if here >= len(src.buf):
            return Site(here, [tools.unfinished(context.raw(start, here), length=src.length, name=name)])
        message = "expected a JSON object of arguments"
        return Site(here, [tools.failed(context.raw(start, here), "malformed", message, name)])
    extent = yield from json_value(
        context, here, (end_mark, "<｜tool▁calls▁end｜>", *((ticks,) if ticks else ())), name=name
    )
    outcome = arguments_json(context, name, extent, start)
    end = yield from close_fence(context, extent.end, ticks)
    end = yield from skip_space(src, end)
    mark = yield from literal(src, end, (end_mark,))
    return _site(outcome, end + len(mark) if mark else end)


def _kimi(context: Context, start: int, at: int) -> Scan[Site | None]:
    """`functions.name:0`, the argument marker, JSON, the end marker."""
    src, tools = context.src, context.tools
    marker = "<|tool_call_argument_begin|>"
    separator = yield from until(src, at, marker, 300)
    if separator < 0:
        return _cut(context, start, 300)
    name = re.sub(r":\d+$", "", src.buf[at:separator].strip())
    here = yield from skip_space(src, separator + len(marker))
    end_mark = "<|tool_call_end|>"
    if here >= len(src.buf) or src.buf[here] not in "{｛":
        mark = yield from literal(src, here, (end_mark,))
        if mark:
            return _site(tools.from_arguments(name, "", context.raw(start, here)), here + len(mark))
        return Site(here, [tools.unfinished(context.raw(start, here), length=src.length, name=name)])
    extent = yield from json_value(context, here, (end_mark, "<|tool_calls_section_end|>"), name=name)
    outcome = arguments_json(context, name, extent, start)
    end = yield from skip_space(src, extent.end)
    mark = yield from literal(src, end, (end_mark,))
    return _site(outcome, end + len(mark) if mark else extent.end)


def _cut(context: Context, start: int, limit: int) -> Site | None:
    """A marker without its continuation: cut by the length limit, or only named."""
    src = context.src
    if src.ended and src.length and len(src.buf) - start < limit:
        return Site(len(src.buf), [context.tools.unfinished(context.raw(start, len(src.buf)), length=True)])
    return None


def _mistral(context: Context, at: int) -> Scan[Site | None]:
    """`name[ARGS]{…}`, perhaps `[CALL_ID]id` before `[ARGS]`, or `name{…}`."""
    src, tools = context.src, context.tools
    end = yield from take_while(src, at, _NAME, 100)
    name = src.buf[at:end]
    if not name:
        return None
    here = end
    mark = yield from literal(src, here, ("[CALL_ID]", "[ARGS]"))
    if mark == "[CALL_ID]":
        here = yield from until(src, here, "[ARGS]", 120)
        if here < 0:
            return _cut(context, at, 300)
        mark = "[ARGS]"
    after = yield from skip_space(src, here + (len(mark) if mark else 0))
    if after >= len(src.buf):
        if mark or src.length:
            return Site(after, [tools.unfinished(context.raw(at, after), length=src.length, name=name)])
        return None
    if src.buf[after] not in "{｛" or not (mark or tools.knows(name)):
        if mark and tools.knows(name):
            message = "expected a JSON object of arguments"
            return Site(after, [tools.failed(context.raw(at, after), "malformed", message, name)])
        rest = src.buf[here:]
        if src.length and rest and ("[ARGS]".startswith(rest) or "[CALL_ID]".startswith(rest)):
            return Site(len(src.buf), [tools.unfinished(context.raw(at, len(src.buf)), length=True, name=name)])
        return None
    extent = yield from json_value(context, after, ("[TOOL_CALLS]", *CLOSERS), name=name)
    return _site(arguments_json(context, name, extent, at), extent.end)


_ELEMENT_READERS = {
    "<function=": _function,
    "<invoke": _invoke,
    "<｜DSML｜invoke": _invoke,
    "<｜tool▁call▁begin｜>": _deepseek,
    "<|tool_call_begin|>": _kimi,
}
