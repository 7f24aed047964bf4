"""Docstrings in four styles (Google, NumPy, reST, Epydoc): what to tell a model, and nothing else.

`docstring-parser` reads the parameters. This adapter finds the sections (one regular expression tells the style), makes
full-width marks and Chinese headers plain, and keeps the prose between and after sections, which the library drops.
Knows nothing of functions: names that are no parameter are for the caller to ignore.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

__all__ = ["Docstring", "parse_docstring"]

_TITLES = (
    "args|arguments|parameters|params|keyword[ _]args|keyword[ _]arguments|other[ _]parameters|other[ _]args|"
    "attributes|fields|参数|参数列表|关键字参数|其他参数|属性|字段"
)
_OTHERS = (
    "returns?|yields?|raises?|exceptions|except|throws|warns|receives|examples?|usage|see[ _]also|references|todos?|"
    "methods|返回|返回值|返回结果|产出|生成|异常|抛出|引发|示例|例子|例|样例|用法|参见|参考|待办"
)
_FIELDS = "param|parameter|arg|argument|key|keyword|kwarg|attribute|var|ivar|cvar|参数"
_OTHER_FIELDS = "type|returns?|rtype|raises?|except|exception|yields?|ytype|vartype|meta|返回|返回值|异常"
_SECTION = re.compile(
    rf"(?:(?P<numpy>{_TITLES})|(?P<numpy_other>{_OTHERS}|notes?|warnings?|注意|备注|说明))\s*[:：]?\s*\n\s*[-=]{{3,}}\s*\Z"
    rf"|[:：@](?:(?P<field>(?:{_FIELDS})[ \t]+[^:：\n]+)|(?:{_FIELDS}|{_OTHER_FIELDS})(?:[ \t]+[^:：\n]*)?)[:：]"
    r"(?P<text>.*)"
    rf"|(?P<google>{_TITLES})\s*[:：]\s*(?:\n|\Z)|(?P<google_other>{_OTHERS})\s*[:：](?P<rest>.*)",
    re.IGNORECASE,
)
"""Matched against a line at the margin and the line below it."""
_GOOGLE_ITEM = re.compile(r"[*`]{0,4}(\w+)`{0,2}\s*(?:[(（].*?[)）]\s*)?[:：]\s*")
_NUMPY_ITEM = re.compile(r"(\*{0,2}\w+(?:\s*[,，、]\s*\*{0,2}\w+)*)\s*(?:[:：].*)?\Z")
_MARKED = re.compile(r"[:：@]|---|===")


@dataclass(frozen=True, slots=True, kw_only=True)
class Docstring:
    """What a docstring says to a caller."""

    description: str = ""
    """Summary and long description; no sections."""
    parameters: dict[str, str] = field(default_factory=dict[str, str])
    """Parameter name without stars -> its text."""
    has_sections: bool = False

    @property
    def summary(self) -> str:
        """The first paragraph."""
        return self.description.partition("\n\n")[0]


def parse_docstring(text: str | None) -> Docstring:
    """Return description and parameter texts of a docstring, cleaned (`inspect.getdoc`) or raw."""
    if not text or not text.strip():
        return Docstring()
    lines = [line.rstrip() for line in inspect.cleandoc(text).splitlines()]
    prose: list[str] = []
    found: dict[str, list[str]] = {"google": [], "numpy": [], "rest": []}
    at, has_sections, is_marked = 0, False, bool(_MARKED.search(text))
    while at < len(lines):
        section = _section_at(lines, at) if is_marked else None
        if section is None:
            prose.append(lines[at])
            at += 1
            continue
        has_sections = True
        at = _take(section, lines, at, found)
    parameters: dict[str, str] = {}
    for style, items in found.items():
        if items:
            parser, header = _parser(style)
            for item in parser.parse(header + "\n".join(items)).params:
                for name in re.split(r"[,，、]", item.arg_name) if style == "numpy" else (item.arg_name,):
                    parameters.setdefault(name.strip().lstrip("*"), (item.description or "").strip())
    description = "\n".join(prose).strip()
    if "\n\n\n" in description:  # where a section stood between two paragraphs
        description = re.sub(r"\n{3,}", "\n\n", description)
    return Docstring(description=description, parameters=parameters, has_sections=has_sections)


def _section_at(lines: list[str], at: int) -> re.Match[str] | None:
    """Return the match of a section that begins on this line; a summary with a colon is none."""
    line, below = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
    is_underlined = below[:3].strip() in ("---", "===")
    if not line or line[0].isspace() or not (is_underlined or _MARKED.search(line)):
        return None
    section = _SECTION.match(f"{line}\n{below}" if is_underlined else line)
    is_summary = section is not None and at == 0 and section["google_other"] and (section["rest"] or "").strip()
    return None if is_summary else section


def _take(section: re.Match[str], lines: list[str], at: int, found: dict[str, list[str]]) -> int:
    """Put the parameters of a section into `found` as the library reads them; return the line after the section."""
    if section["numpy"] or section["numpy_other"]:
        start = at = at + 2
        while at < len(lines) and not _is_numpy(lines, at):
            at += 1
        if section["numpy"]:
            found["numpy"] += _items(_dedented(lines[start:at]), _NUMPY_ITEM, "{} :")
        return at
    start = at = at + 1
    while at < len(lines) and (not lines[at] or lines[at][0].isspace()):
        at += 1
    body = lines[start:at]
    if section["field"]:
        name = section["field"].split()[-1]
        indented = (f"    {line}" for line in _dedented(body))
        found["rest"].append("\n".join([f":param {name}: {section['text'].strip()}", *indented]))
    if section["text"] is not None or (not section["google"] and any(body)):
        return at
    if not any(body):  # `Args:` as the first line loses its indent, and some authors leave it out
        while at < len(lines) and not _section_at(lines, at) and (section["google"] or lines[at]):
            if section["google"] and lines[at] and not lines[at][0].isspace() and not _GOOGLE_ITEM.match(lines[at]):
                break
            at += 1
        body = lines[start:at]
    if section["google"]:
        found["google"] += _items(_dedented(body), _GOOGLE_ITEM, "    {}: ")
    return at


def _is_numpy(lines: list[str], at: int) -> bool:
    section = _section_at(lines, at)
    return section is not None and bool(section["numpy"] or section["numpy_other"])


def _items(lines: list[str], item: re.Pattern[str], head: str) -> list[str]:
    """Return the items with plain marks and no types; a line at the margin that is no item continues the one before."""
    items: list[str] = []
    for line in lines:
        match = None if line[:1].isspace() else item.match(line)
        if match:
            items.append(head.format(match[1]) + line[match.end() :])
        elif items:
            items.append(f"        {line}" if line else "")
    return items


def _dedented(lines: list[str]) -> list[str]:
    margin = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return [line[margin:] for line in lines]


@cache
def _parser(style: str) -> tuple[Any, str]:
    """Return the library's parser of a style and the header of its parameters; loaded for docstrings with sections."""
    from docstring_parser import google, numpydoc, rest

    if style == "google":
        return google.GoogleParser([google.Section("参数", "param", google.SectionType.MULTIPLE)]), "\n参数:\n"
    if style == "numpy":
        parser = numpydoc.NumpydocParser()
        parser.add_section(numpydoc.ParamSection("参数", "param"))
        return parser, "\n参数\n--\n"
    return rest, "\n"
