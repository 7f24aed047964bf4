"""Docstrings in four styles (Google, NumPy, reST, Epydoc): what to tell a model, and nothing else.

`docstring-parser` reads the parameters. One regular expression tells the style; this adapter makes full-width marks and
Chinese headers plain, and keeps the prose between and after sections, which the library drops.
Knows nothing of functions: names that are no parameter are for the caller to ignore.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from functools import cache
from textwrap import dedent
from typing import Any

__all__ = ["Docstring", "parse_docstring"]

_PARAMETERS = frozenset(
    "args arguments parameters params keyword_args keyword_arguments other_parameters other_args attributes fields "
    "参数 参数列表 关键字参数 其他参数 属性 字段".split()
)
_OTHERS = frozenset(
    "return returns yield yields raise raises exceptions except throws warns receives example examples usage see_also "
    "references todo todos methods 返回 返回值 返回结果 产出 生成 异常 抛出 引发 示例 例子 例 样例 用法 参见 "
    "参考 待办".split()
)
_NUMPY_OTHERS = _OTHERS | frozenset("note notes warning warnings 注意 备注 说明".split())
_FIELDS = frozenset("param parameter arg argument key keyword kwarg attribute var ivar cvar 参数".split())
_OTHER_FIELDS = frozenset(
    "type return returns rtype raise raises except exception yield yields ytype vartype meta 返回 返回值 异常".split()
)
_INDENTED = r"(?:(?:[ \t].*)?\n)*"
_UNDERLINE = r"\n[ \t]*(?:---|===)"
_SECTION = re.compile(
    rf"^(?:[:：@](?P<field>\w+)(?:[ \t]+(?P<name>[^:：\n]*))?[:：](?P<text>.*\n{_INDENTED})"
    rf"|(?P<title>\w+(?: \w+)?)[ \t]*(?:[:：]?{_UNDERLINE}[-=]*\n(?P<rows>(?:(?!.+{_UNDERLINE}).*\n)*)"
    # `Args:` as the first line loses the indent of its items, and some authors leave it out.
    rf"|[:：](?P<rest>.*)\n(?P<items>(?=\n*[ \t]){_INDENTED}|(?:(?!\w+[ \t]*[:：]\n).+\n)*)))",
    re.MULTILINE,
)
"""What may be a section of any style, with its body; its title or its field says whether it is one."""
_ITEM = r"[*`]{0,4}(\w+)`{0,2}[ \t]*(?:[(（].*?[)）][ \t]*)?[:：][ \t]*"
_GOOGLE_ITEM = re.compile(f"^{_ITEM}", re.MULTILINE)
_GOOGLE_LINE = re.compile(f"^(?:{_ITEM}|(?=.))", re.MULTILINE)
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
    text = "\n".join([line.rstrip() for line in inspect.cleandoc(text).splitlines()]) + "\n"
    prose: list[str] = []
    found = {"google": "", "numpy": "", "rest": ""}
    at = start = 0
    while section := _SECTION.search(text, at) if at or _MARKED.search(text) else None:
        if not _take(section, found):
            at = section.start() + 1
            continue
        prose.append(text[start : section.start()])
        at = start = section.end()
    parameters: dict[str, str] = {}
    for style in filter(found.get, found):
        parse, header, unread = _parser(style)
        try:
            items = parse(header + found[style]).params
        except unread:  # a docstring that the library does not take: the model gets it whole
            return Docstring(description=text.strip())
        for item in items:
            for name in re.split(r"[,，、]", re.split("[:：]", item.arg_name)[0]):
                parameters.setdefault(name.strip("*` \t"), (item.description or "").strip())
    description = "\n".join([*prose, text[start:]]).strip()
    if "\n\n\n" in description:  # where a section stood between two paragraphs
        description = re.sub(r"\n{3,}", "\n\n", description)
    return Docstring(description=description, parameters=parameters, has_sections=start > 0)


def _take(section: re.Match[str], found: dict[str, str]) -> bool:
    """Add the parameters of a section to `found` in the spelling of the library; return whether it is a section."""
    field, title = section["field"], (section["title"] or "").lower().replace(" ", "_")
    if field:
        name = (section["name"] or "").split()
        if field in _FIELDS and name:
            found["rest"] += f":param {name[-1]}: {section['text']}"
        return field in _OTHER_FIELDS or (field in _FIELDS and bool(name))
    if section["rows"] is not None:
        found["numpy"] += dedent(section["rows"]) if title in _PARAMETERS else ""
        return title in _PARAMETERS or title in _NUMPY_OTHERS
    if title in _PARAMETERS and not section["rest"]:
        body = dedent(section["items"])
        if first := _GOOGLE_ITEM.search(body):
            found["google"] += _GOOGLE_LINE.sub(_google_line, body[first.start() :])
        return True
    return title in _OTHERS and not (section["rest"] and section.start() == 0)  # a summary with a colon is prose


def _google_line(line: re.Match[str]) -> str:
    """Return the start of an item with plain marks and no type; any other line continues the item before it."""
    return f"    {line[1]}: " if line[1] else "        "


@cache
def _parser(style: str) -> tuple[Any, str, type[Exception]]:
    """Return the library's parser of a style, a header for the parameters, and its error."""
    from docstring_parser import ParseError, google, numpydoc, rest  # only for docstrings with sections

    if style == "google":
        return google.GoogleParser().parse, "\nArgs:\n", ParseError
    if style == "numpy":
        return numpydoc.NumpydocParser().parse, "\nParameters\n----------\n", ParseError
    return rest.parse, "\n", ParseError
