"""Calls between marker words: Hermes, Qwen3-Coder, GLM, MiniMax, DeepSeek, Kimi, Mistral, Granite, Gemma and others.

The tables in `markers` are data: `WRAPPERS` gives opening and closing words, `ELEMENT_FORMS` calls that are elements
with attributes, `TOKEN_FORMS` names and JSON between special tokens. What may stand in a wrapper is read the same way
for all, because models mix families. Add a family of a known shape to a table; only a new way of writing name and
arguments needs a reader here. Over 400 lines because any of these readers may be called inside any wrapper.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from lmagent.core.json_text import dumps_text
from lmagent.prompting.buffer import (
    Scan,
    TextBuffer,
    find_char,
    find_text,
    json_extent,
    match_literal,
    skip_space,
    take_while,
)
from lmagent.prompting.calls import RawField
from lmagent.prompting.family_json import (
    CallSite,
    Context,
    close_fence,
    encoded_end,
    envelope_site,
    named_call,
    open_arguments,
    open_fence,
    site_of,
)
from lmagent.prompting.markers import (
    CLOSERS,
    ELEMENT_FORMS,
    ELEMENTS,
    END_WORDS,
    RESULTS,
    TOKEN_FORMS,
    WRAPPERS,
    ElementForm,
)
from lmagent.prompting.scanner_events import CallFound
from lmagent.toolkit.loose_json import CALL_START
from lmagent.toolkit.schema import item_schema, kinds_of, property_schema, resolved

__all__ = ["one_call", "wrapped_calls"]

_MAX_NESTING = 3
_MAX_PROSE = 2000
"""Characters in which the end of a call must come when its beginning reads like prose."""
_NAME = re.compile(r"[^\s<>{}\[\]()\"'`=]")
_ATTRIBUTE = re.compile(r"""\s+([\w:.-]{1,40})\s*=\s*("[^"<>\n]{0,200}"|'[^'<>\n]{0,200}'|[^\s"'<>]{1,200})""")
_MAX_HEAD = 300
"""Characters of the longest opening tag."""
_CALL_END = re.compile(r"""[()"'<`]""")
_SUFFIX = re.compile(r"[\w.-]")
_MAX_DEPTH = 60
"""Deepest nesting of elements that is read."""
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
        if site.outcomes and buffer.text[here] == "]" and opener == "[Calling tool:":
            closer = "]"
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
        # Between `<tools>` tags a model may also repeat the list of tools.
        return (yield from envelope_site(context, at, (*closers, *CLOSERS), marked=opener != "<tools>"))
    if char in "[［":
        if opener != "[TOOL_CALLS]" and (yield from match_literal(buffer, at, ("[TOOL_CALLS]", "[ARGS]"))):
            return None
        return (yield from _list(context, at, closers))
    if char == "`":
        return (yield from _fenced(context, at, closers))
    if char in "<]":
        mark = yield from match_literal(buffer, at, (*ELEMENTS, *WRAPPERS, "<|plugin|>"))
        if mark == "<|plugin|>":
            after = yield from skip_space(buffer, at + len(mark))
            return (yield from one_call(context, opener, after, nesting)) if after < len(buffer.text) else None
        if mark in ELEMENTS:
            return (yield from _ELEMENT_READERS.get(mark, _element)(context, mark, at, at + len(mark)))
        if mark and nesting < _MAX_NESTING:
            return (yield from wrapped_calls(context, mark, at, at + len(mark), nesting + 1))
        return None
    if opener == "[TOOL_CALLS]":
        return (yield from _mistral(context, at))
    if (yield from match_literal(buffer, at, (_GEMMA,))):
        return (yield from _gemma(context, at, at + len(_GEMMA)))
    return (yield from _name_first(context, opener, at))


def _encoded(context: Context, at: int) -> Scan[CallSite | None]:
    """Read a whole call that was encoded as a JSON string."""
    buffer = context.buffer
    end = yield from encoded_end(buffer, at)
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
    if following == "(" and after == end:
        return (yield from _python_call(context, opener, name, at, end))
    if name in ("json", "JSON"):
        return (yield from one_call(context, opener, after, 3)) if following in ("{", "[") else None
    if not following:
        if buffer.truncated:
            return context.unfinished(at, after) if "\n" in buffer.text[end:] else None
        if not tools.knows(name) or opener != "<tool_call>":
            return None
        if not _closer_was_stop(context):
            return context.unfinished(at, after, name=name)
        return site_of(tools.from_fields(name, [], context.raw(at, after)), after)
    if tools.knows(name) and (opened := (yield from open_arguments(context, after))):
        return (yield from named_call(context, name, at, opened[1], (*closers, *CLOSERS), ticks=opened[0]))
    mark = yield from match_literal(buffer, after, (*_PAIRS, "<tool_sep>", *closers))
    if mark == "<tool_sep>":  # Hunyuan V3
        after = yield from skip_space(buffer, after + len(mark))
        mark = yield from match_literal(buffer, after, (*_PAIRS, *closers))
    if mark in _PAIRS:
        return (yield from _pairs(context, name, at, after, *_PAIRS[mark]))
    if mark and (tools.knows(name) or "\n" in buffer.text[end:after]):
        return site_of(tools.from_fields(name, [], context.raw(at, after)), after)
    rest = buffer.text[after : after + 40]
    if buffer.truncated and any(word.startswith(rest) for word in (*_PAIRS, "<tool_sep>", *closers)):
        return context.unfinished(at, name=name)
    return None


def _closer_was_stop(context: Context) -> bool:
    """Return whether a closing word was a stop sequence, so that the provider took it from the reply.

    JSON shows by its brackets that it is complete; values between tags do not.
    """
    return any(stop in CLOSERS for stop in context.stop)


_PAIRS = {"<arg_key>": ("", ""), "<longcat_arg_key>": ("longcat_", "")}
"""Opening of the first pair of key and value -> what stands before and after the names of its tags."""


def _pairs(context: Context, name: str, start: int, at: int, prefix: str, suffix: str) -> Scan[CallSite | None]:
    """Read `<arg_key>k</arg_key><arg_value>v</arg_value>` pairs up to `</tool_call>` (GLM and others).

    The last closing tag may be missing if nothing else is: all pairs are closed and the call fits the schema.

    Args:
        context: The text and the tools.
        name: Of the tool.
        start: Where the call begins.
        at: Where the first pair begins.
        prefix: Before the names of all tags, such as `longcat_`.
        suffix: After the names of all tags, such as `:6124c78e`.
    """
    buffer, tools = context.buffer, context.tools
    key_open, key_close = f"<{prefix}arg_key{suffix}>", f"</{prefix}arg_key{suffix}>"
    value_open, value_close = f"<{prefix}arg_value{suffix}>", f"</{prefix}arg_value{suffix}>"
    opener, closer = f"<{prefix}tool_call{suffix}>", f"</{prefix}tool_call{suffix}>"
    fields: list[RawField] = []
    while True:
        key_end = yield from find_text(buffer, at, key_close)
        value = (yield from skip_space(buffer, key_end + len(key_close))) if key_end >= 0 else -1
        opened = (yield from match_literal(buffer, value, (value_open,))) if value >= 0 else None
        value_end = (yield from find_text(buffer, value + len(value_open), value_close)) if opened else -1
        if value_end < 0:
            cut = key_end < 0 or opened is not None or value_open.startswith(buffer.text[value : value + 20])
            return (yield from _wrong_tags(context, name, start, at, closer, cut=cut))
        text = buffer.text[value + len(value_open) : value_end]
        fields.append((buffer.text[at + len(key_open) : key_end].strip(), text, "schema"))
        at = yield from skip_space(buffer, value_end + len(value_close))
        mark = yield from match_literal(buffer, at, (key_open, closer))
        if mark == key_open:
            continue
        found = tools.from_fields(name, fields, context.raw(start, at))
        if mark == closer or (at >= len(buffer.text) and not buffer.truncated and _closer_was_stop(context)):
            return site_of(found, at)
        rest = buffer.text[at : at + 40]
        if buffer.truncated and (closer.startswith(rest) or key_open.startswith(rest)):
            return context.unfinished(start, name=name)
        ends = at >= len(buffer.text) or (yield from match_literal(buffer, at, (opener, *END_WORDS, *RESULTS)))
        if ends and not buffer.truncated and tools.repair and isinstance(found, CallFound):
            repairs = list(found.repairs)
            repairs.append("missing closing tag")
            found.repairs = tuple(repairs)
            return CallSite(at, [found])
        return context.unfinished(start, at, name=name, truncated=False)


def _suffixed(context: Context, mark: str, start: int, at: int) -> Scan[CallSite | None]:
    """Read Hunyuan V4's calls, whose tags all end with the same identifier: `<tool_call:6124c78e>name`, then pairs."""
    buffer, tools = context.buffer, context.tools
    end = yield from take_while(buffer, at, _SUFFIX, 40)
    if buffer.text[end : end + 1] != ">" or end == at:
        return context.cut_header(start, start, 60) if end >= len(buffer.text) else None
    suffix = buffer.text[at - 1 : end]
    opener, closer, last = f"<tool_call{suffix}>", f"</tool_call{suffix}>", f"</tool_calls{suffix}>"
    key, separator = f"<arg_key{suffix}>", f"<tool_sep{suffix}>"
    site = CallSite(end + 1)
    inside = mark == "<tool_call:"
    while True:
        here = yield from skip_space(buffer, site.end)
        if not inside:
            found = yield from match_literal(buffer, here, (opener, last))
            if found != opener:
                site.end = here + len(last) if found else site.end
                cut = buffer.truncated and here >= len(buffer.text)
                return site if site.outcomes else context.unfinished(start) if cut else None
            here = yield from skip_space(buffer, here + len(opener))
        inside = False
        end = yield from take_while(buffer, here, _NAME, 100)
        name = buffer.text[here:end]
        after = yield from skip_space(buffer, end)
        if (yield from match_literal(buffer, after, (separator,))):
            after = yield from skip_space(buffer, after + len(separator))
        found = yield from match_literal(buffer, after, (key, closer))
        if not name or not found:
            if after >= len(buffer.text):
                site.outcomes.extend(context.unfinished(start, name=name or None).outcomes)
                site.end = after
            return site if site.outcomes else None
        if found == key:
            call = yield from _pairs(context, name, here, after, "", suffix)
            if call is None:
                return site if site.outcomes else None
        else:
            call = CallSite(after)
            outcome = tools.from_fields(name, [], context.raw(here, after))
            call.outcomes = [outcome] if outcome else []
        site.outcomes.extend(call.outcomes)
        site.end = call.end
        if (yield from match_literal(buffer, site.end, (closer,))):
            site.end += len(closer)


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


def _element(context: Context, mark: str, start: int, at: int) -> Scan[CallSite | None]:
    """Read a call that is an element: `<function=name>` or `<invoke name="n">`, values or JSON, a closing tag."""
    buffer, form = context.buffer, ELEMENT_FORMS[mark]
    end = yield from find_text(buffer, at, form.head_end, _MAX_HEAD)
    if end < 0:
        return context.cut_header(start, at, _MAX_HEAD)
    if mark == "<function=":
        name = buffer.text[at:end].strip(" \"'")
        if "\n" in name or "<" in name:
            return None
    else:
        name = _attributes(buffer.text[start + len(mark.split(" ")[0]) : end]).get(form.name, "")
    if not name:
        return None
    return (yield from _element_body(context, name, start, end + len(form.head_end), form))


def _attributes(text: str) -> dict[str, str]:
    """Return the attributes in an opening tag; none when something else stands there."""
    found: dict[str, str] = {}
    at = 0
    while match := _ATTRIBUTE.match(text, at):
        value = match.group(2)
        found[match.group(1)] = value[1:-1] if value[0] in "\"'" else value
        at = match.end()
    return {} if "<" in text[at:] or ">" in text[at:] else found


def _element_body(context: Context, name: str, start: int, at: int, form: ElementForm) -> Scan[CallSite | None]:
    """Read the arguments from `at`, after the opening tag, to the closing tag."""
    buffer, tools = context.buffer, context.tools
    closer, openings = form.closer, tuple(form.parameters)
    at = yield from skip_space(buffer, at)
    if form.whole and (yield from match_literal(buffer, at, (form.whole,))):
        end = yield from find_text(buffer, at, form.head_end, _MAX_HEAD)
        if end < 0:
            return context.cut_header(start, at, _MAX_HEAD)
        at = yield from skip_space(buffer, end + len(form.head_end))
    opened = yield from open_arguments(context, at)
    if opened:
        return (yield from named_call(context, name, start, opened[1], CLOSERS, ticks=opened[0], closers=(closer,)))
    fields: list[RawField] = []
    while True:
        mark = yield from match_literal(buffer, at, (closer, *openings, *CLOSERS))
        if mark and mark in form.parameters:
            step = yield from _parameter(context, at, mark, form)
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
            if buffer.truncated and any(word.startswith(buffer.text[at:]) for word in (*openings, form.whole, closer)):
                return CallSite(len(buffer.text), context.unfinished(start, at, name=name).outcomes)
            if not fields and buffer.text[at] != "<" and (yield from find_text(buffer, at, closer, _MAX_PROSE)) < 0:
                return None  # a sentence names the tag
            return (yield from _wrong_tags(context, name, start, at, closer, cut=False))
        if fields and not buffer.truncated and _closer_was_stop(context):
            return site_of(tools.from_fields(name, fields, raw), at)
        if not fields and not buffer.truncated and not tools.knows(name):
            return None
        return context.unfinished(start, at, name=name)


def _parameter(context: Context, at: int, opening: str, form: ElementForm) -> Scan[tuple[RawField, int] | None]:
    """Read one parameter. The first closing tag ends the value, and no entity in it is decoded."""
    buffer = context.buffer
    opened = yield from find_text(buffer, at + len(opening), form.head_end, _MAX_HEAD)
    if opened < 0:
        return None
    head = buffer.text[at + len(opening) : opened]
    begin = opened + len(form.head_end)
    mode = "schema"
    if head.startswith("="):
        key = head[1:].strip(" \"'")
    else:
        attributes = _attributes(head)
        key = attributes.get(form.key, "")
        if not key:
            return None
        if "string" in attributes:
            mode = {"true": "text", "false": "json"}.get(attributes["string"], mode)
        elif form.key == "key" and "type" in attributes:
            mode = "text" if attributes["type"] == "string" else "json"
    closer = form.parameters[opening]
    end = yield from find_text(buffer, begin, closer)
    if end < 0:
        return None
    value = buffer.text[begin:end]
    if head.startswith("="):
        value = _without_outer_newlines(value)
    elif value.startswith("<![CDATA[") and value.endswith("]]>"):
        value = value[9:-3]
    return (key, value, mode), end + len(closer)


def _without_outer_newlines(value: str) -> str:
    """Remove one newline from each side: Qwen3-Coder writes values on lines of their own."""
    if value.startswith("\r\n") and value.endswith("\r\n"):
        return value[2:-2]
    return value.removeprefix("\n").removesuffix("\n")


def _tokens(context: Context, mark: str, start: int, at: int) -> Scan[CallSite | None]:
    """Read a name and JSON arguments between special tokens.

    DeepSeek V3 writes `function`, the separator, the name and fenced JSON; V3.1 and Kimi K2 (`functions.name:0`) the
    name, the separator and JSON; Step-3 `function`, the separator and an element.
    """
    buffer, form = context.buffer, TOKEN_FORMS[mark]
    separator = yield from find_text(buffer, at, form.separator, 300)
    if separator < 0:
        return context.cut_header(start, start, 300)
    name = re.sub(r":\d+$", "", buffer.text[at:separator].strip())
    here = yield from skip_space(buffer, separator + len(form.separator))
    if name == "function" and (element := (yield from match_literal(buffer, here, tuple(ELEMENT_FORMS)))):
        site = yield from _element(context, element, here, here + len(element))
        return site if site is not None or not buffer.truncated else context.unfinished(start)
    if name == "function" and buffer.text[here : here + 1] not in ("{", "｛"):
        line = yield from find_text(buffer, here, "\n", 200)
        if line < 0:
            return context.cut_header(start, start, 600)
        name = buffer.text[here:line].strip()
        here = yield from skip_space(buffer, line)
    return (yield from _token_call(context, name, start, here, form.closer, form.section_closer))


def _token_call(
    context: Context, name: str, start: int, at: int, closer: str, section_closer: str
) -> Scan[CallSite | None]:
    """Read the arguments of a call written with special tokens: JSON at `at` up to `closer`."""
    buffer, tools = context.buffer, context.tools
    if opened := (yield from open_arguments(context, at)):
        ticks, begin = opened
        delimiters = (closer, section_closer)
        return (yield from named_call(context, name, start, begin, delimiters, ticks=ticks, closers=(closer,)))
    _, at = yield from open_fence(context, at)
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
    opened = (yield from open_arguments(context, after)) if mark or tools.knows(name) else None
    if opened:
        return (yield from named_call(context, name, at, opened[1], ("[TOOL_CALLS]", *CLOSERS), ticks=opened[0]))
    if mark and tools.knows(name):
        return context.malformed(at, after, _NO_OBJECT, name)
    rest = buffer.text[here:]
    if buffer.truncated and rest and ("[ARGS]".startswith(rest) or "[CALL_ID]".startswith(rest)):
        return context.unfinished(at, name=name)
    return None


def _python_call(context: Context, opener: str, name: str, at: int, bracket: int) -> Scan[CallSite | None]:
    """Read `name(key=value)`, or `name({...})` with JSON; OLMo 3 writes one a line, LFM2 after `[Calling tool:`."""
    buffer, tools = context.buffer, context.tools
    inside = yield from skip_space(buffer, bracket + 1)
    if inside < len(buffer.text) and buffer.text[inside] in "{｛":
        return (yield from named_call(context, name, at, inside, CLOSERS, closers=(")",)))
    end, complete = yield from _call_end(buffer, bracket, (*WRAPPERS.get(opener, ()), *CLOSERS))
    if not complete:
        if not tools.knows(name):
            return context.unfinished(at) if buffer.truncated and end >= len(buffer.text) else None
        return context.unfinished(at, end, name=name, truncated=buffer.truncated and end >= len(buffer.text))
    outcomes = tools.from_python(buffer.text[at:end], marked=True)
    return CallSite(end, outcomes) if outcomes else None


def _call_end(buffer: TextBuffer, at: int, closers: tuple[str, ...]) -> Scan[tuple[int, bool]]:
    """Return the index after the bracket that closes the one at `at`, and True; else where the text ends, and False."""
    depth = 0
    while True:
        at = yield from find_char(buffer, at, _CALL_END)
        if at >= len(buffer.text):
            return at, False
        char = buffer.text[at]
        if char in "()":
            depth += 1 if char == "(" else -1
            at += 1
            if depth == 0:
                return at, True
        elif char in "\"'":
            at = yield from _string_end(buffer, at)
        elif (yield from match_literal(buffer, at, closers)):
            return at, False
        else:
            at += 1


def _string_end(buffer: TextBuffer, at: int) -> Scan[int]:
    """Return the index after the Python string at `at`; the end of the text when it does not end."""
    quote = buffer.text[at]
    ends = re.compile(rf"[\\{quote}]")
    at += 1
    while True:
        at = yield from find_char(buffer, at, ends)
        if at >= len(buffer.text) or buffer.text[at] == quote:
            return min(at + 1, len(buffer.text))
        while len(buffer.text) < at + 2 and not buffer.ended:
            yield
        at = min(at + 2, len(buffer.text))


_GEMMA = "call:"
_GEMMA_STRINGS = ('<|"|>', "<escape>")
_GEMMA_MARK = re.compile(r'[{}\[\]<"]')
_GEMMA_TOKEN = re.compile(
    r"""<\|"\|>(?P<a>.*?)<\|"\|>|<escape>(?P<b>.*?)<escape>|(?P<json>"(?:[^"\\]|\\.)*"|[{}\[\],:]|\s+)"""
    r"""|(?P<bare>[^{}\[\],:<"\s](?:[^{}\[\],:<]*[^{}\[\],:<\s])?)""",
    re.DOTALL,
)
_LITERAL = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _gemma(context: Context, start: int, at: int) -> Scan[CallSite | None]:
    """Read `call:name{key:<|"|>text<|"|>,n:1}` of Gemma 4; FunctionGemma writes `<escape>` around texts."""
    buffer, tools = context.buffer, context.tools
    here = yield from take_while(buffer, at, _NAME, 100)
    name = buffer.text[at:here]
    here = yield from skip_space(buffer, here)
    if here >= len(buffer.text) and buffer.truncated:
        return context.unfinished(start)
    if not name or buffer.text[here : here + 1] != "{":
        return None
    depth, end = 0, here
    while True:
        end = yield from find_char(buffer, end, _GEMMA_MARK)
        if end >= len(buffer.text):
            return context.unfinished(start, name=name)
        char = buffer.text[end]
        if char in "{}[]":
            depth += 1 if char in "{[" else -1
            end += 1
            if depth == 0:
                break
            continue
        mark = (yield from match_literal(buffer, end, (*_GEMMA_STRINGS, *CLOSERS))) if char == "<" else None
        if mark in _GEMMA_STRINGS:
            closing = yield from find_text(buffer, end + len(mark), mark)
            end = closing + len(mark) if closing >= 0 else -1
        elif mark:
            return context.malformed(start, end, "brackets of the arguments are still open", name)
        elif char == '"' and buffer.text[here:end].rstrip()[-1:] in ":,[{":
            end = yield from encoded_end(buffer, end)
        else:
            end += 1
        if end < 0:
            return context.unfinished(start, name=name)
    text = _gemma_json(buffer.text[here:end])
    return site_of(tools.from_arguments(name, text, context.raw(start, end)), end)


def _gemma_json(text: str) -> str:
    """Return Gemma's arguments as JSON: texts in quotes, keys in quotes, everything else as it is."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        token = _GEMMA_TOKEN.match(text, at)
        if not token:
            parts.append(text[at])
            at += 1
            continue
        at = token.end()
        bare = token["bare"]
        if token["json"] is not None:
            parts.append(token["json"])
        elif bare is not None and _LITERAL.fullmatch(bare) and text[at : at + 1] != ":":
            parts.append(bare)
        else:
            parts.append(dumps_text(next(one for one in (token["a"], token["b"], bare) if one is not None)))
    return "".join(parts)


_MINIMAX = "]<]minimax[>["


def _minimax_m3(context: Context, mark: str, start: int, at: int) -> Scan[CallSite | None]:
    """Read MiniMax M3's call: `<invoke name="n">`, an element a key, nested for objects and lists, `</invoke>`.

    `]<]minimax[>[` stands before each tag, so no value can hold one.
    """
    buffer, tools = context.buffer, context.tools
    head = yield from find_text(buffer, at, ">", _MAX_HEAD)
    if head < 0:
        return context.cut_header(start, at, _MAX_HEAD)
    name = _attributes(buffer.text[at:head]).get("name")
    if not name:
        return None
    closer = _MINIMAX + "</invoke>"
    end = yield from find_text(buffer, head, closer)
    if end < 0:
        return context.unfinished(start, name=name)
    raw = context.raw(start, end)
    root = tools.schemas.get(tools.clean(name), {})
    fields = _minimax_fields(buffer.text[head + 1 : end], root)
    if fields is None:
        return context.malformed(start, end + len(closer), "the tags of the arguments are in disorder", name)
    return site_of(tools.from_fields(name, fields, raw), end + len(closer))


def _minimax_fields(body: str, root: Mapping[str, Any]) -> list[RawField] | None:
    """Return the values between MiniMax M3's tags by key; None when the tags are in disorder."""
    stack: list[tuple[str, str, list[tuple[str, Any]]]] = [("", "", [])]  # tag, text in it, elements in it
    first, *chunks = body.split(_MINIMAX)
    if first.strip():
        return None
    for chunk in chunks:
        tag, found, text = chunk.partition(">")
        if not found or not tag.startswith("<") or len(stack) > _MAX_DEPTH:
            return None
        if not tag.startswith("</"):
            stack.append((tag[1:].strip(), text, []))
            continue
        name, value, children = stack.pop()
        if not stack or tag[2:].strip() != name or text.strip() or (children and value.strip()):
            return None
        keys = [key for key, _ in children if key != "item"]
        if len(keys) > len(set(keys)):
            return None
        stack[-1][2].append((name, children or value))
    if len(stack) != 1:
        return None
    fields: list[RawField] = []
    for key, value in stack[0][2]:
        made = _minimax_value(value, property_schema(resolved(root, root), key), root)
        fields.append((key, made if isinstance(made, str) else dumps_text(made), "schema"))
    return fields


def _minimax_value(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """Return the value of an element; its texts are fitted to the schema later."""
    schema = resolved(schema, root)
    if isinstance(value, str):
        kinds = kinds_of(schema, root)
        if value.strip() or "string" in kinds:
            return value
        return [] if "array" in kinds else {} if "object" in kinds else value
    children = cast("list[tuple[str, Any]]", value)
    if all(key == "item" for key, _ in children):
        return [_minimax_value(one, item_schema(schema, index), root) for index, (_, one) in enumerate(children)]
    return {key: _minimax_value(one, property_schema(schema, key), root) for key, one in children}


_ELEMENT_READERS: dict[str, Callable[[Context, str, int, int], Scan[CallSite | None]]] = {
    **dict.fromkeys(TOKEN_FORMS, _tokens),
    "]<]minimax[>[<invoke": _minimax_m3,
    "<tool_calls:": _suffixed,
    "<tool_call:": _suffixed,
}
"""Readers of elements of other forms than those in `ELEMENT_FORMS`."""
