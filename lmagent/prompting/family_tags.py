"""Calls between marker words: Hermes, Qwen3-Coder, GLM, MiniMax, DeepSeek, Kimi, Mistral, Granite and others.

The table `WRAPPERS` in `markers` gives opening and closing words. What may stand between them is read the same way for
all, because models mix families: JSON, a list of JSON, fenced JSON, XML functions, GLM keys and values, the inner
markers of DeepSeek and Kimi, Python calls. Add a family of the usual shape to the table; only a new way of writing
name and arguments needs a reader here.
"""

from __future__ import annotations

import re

from lmagent.prompting.buffer import Scan, find_text, json_extent, match_literal, skip_space, take_while
from lmagent.prompting.calls import RawField
from lmagent.prompting.family_json import (
    CallSite,
    Context,
    close_fence,
    envelope_site,
    named_call,
    open_fence,
    site_of,
)
from lmagent.prompting.markers import CLOSERS, ELEMENTS, WRAPPERS
from lmagent.toolkit.loose_json import CALL_START

__all__ = ["one_call", "wrapped_calls"]

_MAX_NESTING = 3
_MAX_PROSE = 2000
"""Characters in which the end of a call must come when its beginning reads like prose."""
_NAME = re.compile(r"[^\s<>{}\[\]()\"'`=]")
_NAME_ATTRIBUTE = re.compile(r"""\s+name\s*=\s*("[^"<>\n]{1,200}"|'[^'<>\n]{1,200}'|[^\s"'<>]{1,200})([^<>]{0,80})>""")
_NO_OBJECT = "expected a JSON object of arguments"


def wrapped_calls(context: Context, opener: str, start: int, at: int, nesting: int = 0) -> Scan[CallSite | None]:
    """Read the calls between `opener` (which ends at `at`) and its closing word; None when prose only names it."""
    buffer = context.buffer
    closers = WRAPPERS[opener]
    if opener == "functools[":
        return (yield from _list(context, at - 1, closers))
    site = CallSite(at)
    while True:
        here = yield from skip_space(buffer, site.end)
        if here >= len(buffer.text):
            break
        if site.outcomes and buffer.text[here] in ",;":
            site.end = here + 1
            continue
        closer = yield from match_literal(buffer, here, closers)
        if closer:
            site.end = here + len(closer)
            site.plain_text = not site.outcomes
            return site if site.outcomes or site.text else None
        stray = yield from match_literal(buffer, here, CLOSERS)
        if stray and site.outcomes:
            site.end = here + len(stray)
            if "tool_call" in stray and "tool_call" in opener:
                return site
            continue
        if site.outcomes and (yield from match_literal(buffer, here, (opener,))):
            break  # the closing word was forgotten; the next wrapper is a site of its own
        inner = yield from one_call(context, opener, here, nesting)
        if inner is None:
            break
        site.outcomes.extend(inner.outcomes)
        site.text += inner.text
        site.end = inner.end
    if site.outcomes or site.text:
        site.plain_text = not site.outcomes
        return site
    if buffer.ended and buffer.truncated and _may_begin_call(context, buffer.text[at:]):
        return context.unfinished(start)
    return None


def _may_begin_call(context: Context, rest: str) -> bool:
    """Return whether `rest`, the end of a cut reply, may be the beginning of the content of a wrapper."""
    if len(rest) > 100:
        return False
    words = (*ELEMENTS, *WRAPPERS, "<|plugin|>", *context.tools.schemas)
    begun = rest.strip().removeprefix("<|plugin|>").lstrip("[ \n")
    return any(word.startswith(begun) for word in words)


def one_call(context: Context, opener: str, at: int, nesting: int) -> Scan[CallSite | None]:
    """Read the call at `at`, whichever family wrote it."""
    buffer = context.buffer
    if at >= len(buffer.text):
        return None
    char = buffer.text[at]
    closers = WRAPPERS.get(opener, ())
    if char in '"\\':
        return (yield from _encoded(context, at))
    if char in "{｛":
        return (yield from envelope_site(context, at, (*closers, *CLOSERS)))
    if char in "[［":
        if opener != "[TOOL_CALLS]" and (yield from match_literal(buffer, at, ("[TOOL_CALLS]", "[ARGS]"))):
            return None
        return (yield from _list(context, at, closers))
    if char == "`":
        return (yield from _fenced(context, at, closers))
    if char == "<":
        mark = yield from match_literal(buffer, at, (*ELEMENTS, *WRAPPERS, "<|plugin|>"))
        if mark == "<|plugin|>":
            after = yield from skip_space(buffer, at + len(mark))
            return (yield from one_call(context, opener, after, nesting)) if after < len(buffer.text) else None
        if mark in _ELEMENT_READERS:
            return (yield from _ELEMENT_READERS[mark](context, at, at + len(mark)))
        if mark and nesting < _MAX_NESTING:
            return (yield from wrapped_calls(context, mark, at, at + len(mark), nesting + 1))
        return None
    if opener == "[TOOL_CALLS]":
        return (yield from _mistral(context, at))
    return (yield from _name_first(context, opener, at))


def _encoded(context: Context, at: int) -> Scan[CallSite | None]:
    """Read a whole call that was encoded as a JSON string."""
    buffer = context.buffer
    end = at + 1
    while True:
        end = yield from find_text(buffer, end, '"')
        if end < 0:
            break
        slashes = end
        while slashes > at + 1 and buffer.text[slashes - 1] == "\\":
            slashes -= 1
        end += 1
        if (end - 1 - slashes) % 2 == 0:
            break
    body = buffer.text[at + 1 :].lstrip()[:1]
    if body not in ("{", "[", "\\"):
        return None
    if end < 0:
        return context.unfinished(at)
    outcomes = context.tools.from_envelopes(context.raw(at, end))
    return CallSite(end, outcomes or [], text="" if outcomes else context.raw(at, end))


def _list(context: Context, at: int, closers: tuple[str, ...]) -> Scan[CallSite | None]:
    """Read a list of JSON calls, or of Python calls."""
    buffer = context.buffer
    first = yield from skip_space(buffer, at + 1)
    if first >= len(buffer.text) or buffer.text[first] in "{｛[］]\"'":
        return (yield from envelope_site(context, at, (*closers, *CLOSERS)))
    end = yield from take_while(buffer, first, _NAME, 100)
    if not CALL_START.match(buffer.text, first) and buffer.text[end : end + 1] != "(":
        return None
    extent = yield from json_extent(buffer, at, (*closers, *CLOSERS))
    if not extent.balanced:
        return context.unfinished(at, extent.end, truncated=buffer.truncated and extent.delimiter is None)
    outcomes = context.tools.from_python(context.raw(at, extent.end), marked=True)
    return CallSite(extent.end, outcomes) if outcomes else None


def _fenced(context: Context, at: int, closers: tuple[str, ...]) -> Scan[CallSite | None]:
    """Read a code fence inside the wrapper."""
    buffer = context.buffer
    ticks, body = yield from open_fence(context, at)
    if len(ticks) < 3 or body >= len(buffer.text) or buffer.text[body] not in "{[｛［":
        return None
    if buffer.text[body] in "[［":
        site = yield from _list(context, body, ("```", *closers))
    else:
        site = yield from envelope_site(context, body, ("```", *closers, *CLOSERS))
    if site is not None:
        site.end = yield from close_fence(context, site.end, ticks)
    return site


def _name_first(context: Context, opener: str, at: int) -> Scan[CallSite | None]:
    """Read a name followed by GLM's keys and values, or by its arguments as JSON."""
    buffer, tools = context.buffer, context.tools
    closers = WRAPPERS.get(opener, ())
    end = yield from take_while(buffer, at, _NAME, 100)
    name = buffer.text[at:end]
    if not name:
        return None
    after = yield from skip_space(buffer, end)
    following = buffer.text[after : after + 1]
    if name in ("json", "JSON"):
        return (yield from one_call(context, opener, after, 3)) if following in ("{", "[") else None
    if not following:
        if buffer.truncated:
            return context.unfinished(at, after) if "\n" in buffer.text[end:] else None
        if not tools.knows(name) or opener != "<tool_call>":
            return None
        if not _closer_was_stop(context) and tools.takes_arguments(name):
            return context.unfinished(at, after, name=name)
        return site_of(tools.from_fields(name, [], context.raw(at, after)), after)
    if following in "{｛":
        if not tools.knows(name):
            return None
        return (yield from named_call(context, name, at, after, (*closers, *CLOSERS)))
    mark = yield from match_literal(buffer, after, ("<arg_key>", *closers))
    if mark == "<arg_key>":
        return (yield from _glm_fields(context, name, at, after))
    if mark and (tools.knows(name) or "\n" in buffer.text[end:after]):
        return site_of(tools.from_fields(name, [], context.raw(at, after)), after)
    if buffer.truncated and any(word.startswith(buffer.text[after : after + 40]) for word in ("<arg_key>", *closers)):
        return context.unfinished(at, name=name)
    return None


def _closer_was_stop(context: Context) -> bool:
    """Return whether a closing word was a stop sequence, so that the provider took it from the reply.

    JSON shows by its brackets that it is complete; values between tags do not.
    """
    return any(stop in CLOSERS for stop in context.stop)


def _glm_fields(context: Context, name: str, start: int, at: int) -> Scan[CallSite | None]:
    """Read `<arg_key>k</arg_key><arg_value>v</arg_value>` pairs up to `</tool_call>`."""
    buffer, tools = context.buffer, context.tools
    fields: list[RawField] = []
    while True:
        key_end = yield from find_text(buffer, at, "</arg_key>")
        value = (yield from skip_space(buffer, key_end + 10)) if key_end >= 0 else -1
        opened = (yield from match_literal(buffer, value, ("<arg_value>",))) if value >= 0 else None
        value_end = (yield from find_text(buffer, value + 11, "</arg_value>")) if opened else -1
        if value_end < 0:
            cut = key_end < 0 or opened is not None or "<arg_value>".startswith(buffer.text[value : value + 20])
            return (yield from _wrong_tags(context, name, start, at, "</tool_call>", cut=cut))
        fields.append((buffer.text[at + 9 : key_end].strip(), buffer.text[value + 11 : value_end], "schema"))
        at = yield from skip_space(buffer, value_end + 12)
        mark = yield from match_literal(buffer, at, ("<arg_key>", "</tool_call>"))
        if mark == "<arg_key>":
            continue
        if mark is None and (buffer.truncated or at < len(buffer.text) or not _closer_was_stop(context)):
            rest = buffer.text[at : at + 20]
            cut = buffer.truncated and ("</tool_call>".startswith(rest) or "<arg_key>".startswith(rest))
            return context.unfinished(start, len(buffer.text) if cut else at, name=name, truncated=cut)
        return site_of(tools.from_fields(name, fields, context.raw(start, at)), at)


def _wrong_tags(context: Context, name: str, start: int, at: int, closer: str, *, cut: bool) -> Scan[CallSite]:
    """Fail a call whose tags are in disorder; it ends with its closing word, or with the reply.

    Args:
        context: The text and the tools.
        name: Of the tool.
        start: Where the call begins.
        at: Where the disorder begins.
        closer: The closing word of the call.
        cut: Whether the end of the reply may have cut it here.
    """
    found = yield from find_text(context.buffer, at, closer)
    if found < 0:
        return context.unfinished(start, name=name, truncated=context.buffer.truncated and cut)
    message = f"the tags between the name and {closer} are not those of a call"
    return context.malformed(start, found + len(closer), message, name)


def _function(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read `<function=name>`: JSON or `<parameter=key>` values, then `</function>`."""
    buffer = context.buffer
    end = yield from find_text(buffer, at, ">", 120)
    name = buffer.text[at : max(end, at)].strip(" \"'")
    if end < 0:
        return context.cut_header(start, at, 120)
    if not name or "\n" in name or "<" in name:
        return None
    return (yield from _xml_body(context, name, start, end + 1, "", "function"))


def _invoke(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read `<invoke name="n">`: `<parameter name="k">` values or JSON, then `</invoke>`.

    DSML writes `｜DSML｜` before each of the three words.
    """
    buffer = context.buffer
    end = yield from find_text(buffer, at, ">", 200)
    if end < 0:
        return context.cut_header(start, at, 200)
    found = _NAME_ATTRIBUTE.match(buffer.text, at, end + 1)
    if not found:
        return None
    prefix = "｜DSML｜" if buffer.text.startswith("<｜", start) else ""
    return (yield from _xml_body(context, found.group(1).strip("\"'"), start, end + 1, prefix, "invoke"))


def _xml_body(context: Context, name: str, start: int, at: int, prefix: str, word: str) -> Scan[CallSite | None]:
    """Read the arguments between `<word ...>`, which ends at `at`, and `</word>`."""
    buffer, tools = context.buffer, context.tools
    opening, closer = f"<{prefix}parameter", f"</{prefix}{word}>"
    at = yield from skip_space(buffer, at)
    if at < len(buffer.text) and buffer.text[at] in "{｛":
        return (yield from named_call(context, name, start, at, CLOSERS, closers=(closer,)))
    fields: list[RawField] = []
    while True:
        mark = yield from match_literal(buffer, at, (closer, opening, *CLOSERS))
        if mark == opening:
            step = yield from _parameter(context, at, len(opening), prefix)
            if step is None:
                return (yield from _wrong_tags(context, name, start, at, closer, cut=True))
            parameter, at = step
            fields.append(parameter)
            at = yield from skip_space(buffer, at)
            continue
        raw = context.raw(start, at)
        if mark:
            return site_of(tools.from_fields(name, fields, raw), at + (len(mark) if mark == closer else 0))
        if at < len(buffer.text):
            if not fields and not tools.knows(name):
                return None
            if buffer.truncated and any(word.startswith(buffer.text[at:]) for word in (opening, closer)):
                return CallSite(len(buffer.text), context.unfinished(start, at, name=name).outcomes)
            if not fields and buffer.text[at] != "<" and (yield from find_text(buffer, at, closer, _MAX_PROSE)) < 0:
                return None  # a sentence names the tag
            return (yield from _wrong_tags(context, name, start, at, closer, cut=False))
        if fields and not buffer.truncated and _closer_was_stop(context):
            return site_of(tools.from_fields(name, fields, raw), at)
        if not fields and not buffer.truncated and not tools.knows(name):
            return None
        return context.unfinished(start, at, name=name)


def _parameter(context: Context, at: int, width: int, prefix: str) -> Scan[tuple[RawField, int] | None]:
    """Read one parameter. The first closing tag ends the value, and no entity in it is decoded."""
    buffer = context.buffer
    opened = yield from find_text(buffer, at + width, ">", 300)
    if opened < 0:
        return None
    head = buffer.text[at + width : opened + 1]
    mode = "schema"
    if head.startswith("="):
        key = head[1:-1].strip(" \"'")
    else:
        found = _NAME_ATTRIBUTE.match(head)
        if not found:
            return None
        key = found.group(1).strip("\"'")
        if 'string="true"' in found.group(2):
            mode = "text"
        elif 'string="false"' in found.group(2):
            mode = "json"
    closer = f"</{prefix}parameter>"
    end = yield from find_text(buffer, opened + 1, closer)
    if end < 0:
        return None
    value = buffer.text[opened + 1 : end]
    if head.startswith("="):
        value = _without_outer_newlines(value)
    return (key, value, mode), end + len(closer)


def _without_outer_newlines(value: str) -> str:
    """Remove one newline from each side: Qwen3-Coder writes values on lines of their own."""
    if value.startswith("\r\n") and value.endswith("\r\n"):
        return value[2:-2]
    return value.removeprefix("\n").removesuffix("\n")


def _deepseek(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read V3 (`function`, separator, name, fenced JSON) or V3.1 (name, separator, JSON)."""
    buffer = context.buffer
    separator = yield from find_text(buffer, at, "<｜tool▁sep｜>", 300)
    if separator < 0:
        return context.cut_header(start, start, 300)
    name = buffer.text[at:separator].strip()
    here = yield from skip_space(buffer, separator + len("<｜tool▁sep｜>"))
    if name == "function" and buffer.text[here : here + 1] not in ("{", "｛"):
        line = yield from find_text(buffer, here, "\n", 200)
        if line < 0:
            return context.cut_header(start, start, 600)
        name = buffer.text[here:line].strip()
        here = yield from skip_space(buffer, line)
    return (yield from _token_call(context, name, start, here, "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"))


def _kimi(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read `functions.name:0`, the argument marker, JSON, the end marker."""
    buffer = context.buffer
    marker = "<|tool_call_argument_begin|>"
    separator = yield from find_text(buffer, at, marker, 300)
    if separator < 0:
        return context.cut_header(start, start, 300)
    name = re.sub(r":\d+$", "", buffer.text[at:separator].strip())
    here = yield from skip_space(buffer, separator + len(marker))
    return (yield from _token_call(context, name, start, here, "<|tool_call_end|>", "<|tool_calls_section_end|>"))


def _token_call(
    context: Context, name: str, start: int, at: int, closer: str, section_closer: str
) -> Scan[CallSite | None]:
    """Read the arguments of a call written with special tokens: JSON at `at`, perhaps fenced, up to `closer`."""
    buffer, tools = context.buffer, context.tools
    ticks, at = yield from open_fence(context, at)
    if at < len(buffer.text) and buffer.text[at] in "{｛":
        delimiters = (closer, section_closer)
        return (yield from named_call(context, name, start, at, delimiters, ticks=ticks, closers=(closer,)))
    mark = yield from match_literal(buffer, at, (closer,))
    if mark:
        return site_of(tools.from_arguments(name, "", context.raw(start, at)), at + len(mark))
    if at >= len(buffer.text):
        return context.unfinished(start, at, name=name)
    return context.malformed(start, at, _NO_OBJECT, name)


def _mistral(context: Context, at: int) -> Scan[CallSite | None]:
    """Read `name[ARGS]{…}`, perhaps with `[CALL_ID]id` before `[ARGS]`, or `name{…}`."""
    buffer, tools = context.buffer, context.tools
    end = yield from take_while(buffer, at, _NAME, 100)
    name = buffer.text[at:end]
    if not name:
        return None
    here = end
    mark = yield from match_literal(buffer, here, ("[CALL_ID]", "[ARGS]"))
    if mark == "[CALL_ID]":
        here = yield from find_text(buffer, here, "[ARGS]", 120)
        if here < 0:
            return context.cut_header(at, at, 300)
        mark = "[ARGS]"
    after = yield from skip_space(buffer, here + (len(mark) if mark else 0))
    if after >= len(buffer.text):
        return context.unfinished(at, after, name=name) if mark or buffer.truncated else None
    if buffer.text[after] in "{｛" and (mark or tools.knows(name)):
        return (yield from named_call(context, name, at, after, ("[TOOL_CALLS]", *CLOSERS)))
    if mark and tools.knows(name):
        return context.malformed(at, after, _NO_OBJECT, name)
    rest = buffer.text[here:]
    if buffer.truncated and rest and ("[ARGS]".startswith(rest) or "[CALL_ID]".startswith(rest)):
        return context.unfinished(at, name=name)
    return None


_ELEMENT_READERS = {
    "<function=": _function,
    "<invoke": _invoke,
    "<｜DSML｜invoke": _invoke,
    "<｜tool▁call▁begin｜>": _deepseek,
    "<|tool_call_begin|>": _kimi,
}
