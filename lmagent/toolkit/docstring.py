"""Docstrings in four styles (Google, NumPy, reST, Epydoc) read in one pass: what to tell a model, and nothing else.

English and Chinese section headers, half- and full-width colons. Knows nothing of functions: names that are no
parameter are for the caller to ignore.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

__all__ = ["Docstring", "parse_docstring"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ITEM_SECTIONS = _words(
    "args arguments parameters params keyword_args keyword_arguments other_parameters other_args attributes "
    "fields 参数 参数列表 关键字参数 其他参数 属性 字段"
)
_OTHER_SECTIONS = _words(
    "return returns yield yields raise raises exceptions except throws warns receives example examples usage "
    "see_also references todo todos methods 返回 返回值 返回结果 产出 生成 异常 抛出 引发 示例 例子 例 样例 "
    "用法 参见 参考 待办"
)
_NUMPY_ONLY = _words("note notes warning warnings 注意 备注 说明")
"""Under a NumPy underline these are sections; as `Note:` they are prose that a model should read."""

_HEADER = re.compile(r"(\w+(?: \w+)?)\s*[:：]\s*(.*)\Z")
_GOOGLE_ITEM = re.compile(r"[*`]{0,4}(\w+)`{0,2}\s*(?:[:：]|(?=[(（]))")
_NUMPY_ITEM = re.compile(r"(\*{0,2}\w+(?:\s*[,，、]\s*\*{0,2}\w+)*)\s*(?:[:：].*)?\Z")
_FIELD = re.compile(r"[:：@](\w+)(?:[ \t]+([^:：]*))?[:：]\s*(.*)\Z")
_PARAMETER_FIELDS = _words("param parameter arg argument key keyword kwarg attribute var ivar cvar 参数")
_OTHER_FIELDS = _words(
    "type return returns rtype raise raises except exception yield yields ytype vartype meta 返回 返回值 异常"
)
_ALL_SECTIONS = _ITEM_SECTIONS | _OTHER_SECTIONS
_ALL_FIELDS = _PARAMETER_FIELDS | _OTHER_FIELDS
_MARKED = re.compile(r"[:：@]|---")


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
    cleaned = inspect.cleandoc(text)
    if not _MARKED.search(cleaned):
        return Docstring(description=_squeezed(cleaned.splitlines()))
    return _Reader(cleaned.splitlines()).read()


class _Reader:
    """One pass over the lines. A section or field ends where the next begins or where prose starts after a blank."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = [line.rstrip() for line in lines]
        self._at = 0
        self._prose: list[str] = []
        self._parameters: dict[str, str] = {}

    def read(self) -> Docstring:
        sections = False
        while self._at < len(self._lines):
            if self._section():
                sections = True
            else:
                self._prose.append(self._lines[self._at])
                self._at += 1
        return Docstring(description=_squeezed(self._prose), parameters=self._parameters, has_sections=sections)

    def _section(self) -> bool:
        line = self._lines[self._at]
        if not line or line[0].isspace():
            return False
        return self._numpy(line) or self._field(line) or self._google(line)

    def _numpy(self, line: str) -> bool:
        if not self._is_numpy_header(self._at):
            return False
        name = _key(line)
        self._at += 2
        body: list[str] = []
        while self._at < len(self._lines) and not self._is_numpy_header(self._at):
            body.append(self._lines[self._at])
            self._at += 1
        if name in _ITEM_SECTIONS:
            self._items(body, numpy=True)
        return True

    def _is_numpy_header(self, at: int) -> bool:
        if at + 1 >= len(self._lines):
            return False
        underline = self._lines[at + 1].strip()
        if len(underline) < 3 or underline.strip("-="):
            return False
        name = _key(self._lines[at])
        return name in _ALL_SECTIONS or name in _NUMPY_ONLY

    def _field(self, line: str) -> bool:
        match = _FIELD.match(line)
        if match is None or match[1].lower() not in _ALL_FIELDS:
            return False
        self._at += 1
        text = "\n".join([match[3], *_dedented(self._indented())]).strip()
        if match[1].lower() in _PARAMETER_FIELDS and match[2]:
            self._keep(match[2].split()[-1], text)
        return True

    def _google(self, line: str) -> bool:
        match = _HEADER.match(line)
        if match is None:
            return False
        name, rest = _key(match[1]), match[2]
        others = name in _OTHER_SECTIONS
        if not (others or name in _ITEM_SECTIONS) or (rest and (self._at == 0 or not others)):
            return False
        self._at += 1
        body = self._indented()
        if not others and not any(body):
            body = self._flat_items()
        if not others:
            self._items(body, numpy=False)
        elif not any(body):
            self._flat_lines()
        return True

    def _indented(self) -> list[str]:
        """Take the following lines that are blank or indented."""
        start = self._at
        while self._at < len(self._lines) and (not self._lines[self._at] or self._lines[self._at][0].isspace()):
            self._at += 1
        return self._lines[start : self._at]

    def _flat_items(self) -> list[str]:
        """Take items at the margin: `Args:` as the first line loses its indent, and some authors leave it out."""
        start = self._at
        while self._at < len(self._lines):
            line = self._lines[self._at]
            margin = bool(line) and not line[0].isspace()
            if margin and (not _GOOGLE_ITEM.match(line) or self._starts_section()):
                break
            self._at += 1
        return self._lines[start : self._at]

    def _flat_lines(self) -> None:
        """Skip the text of a section of no interest that stands at the margin, up to a blank line."""
        while self._at < len(self._lines) and self._lines[self._at] and not self._starts_section():
            self._at += 1

    def _starts_section(self) -> bool:
        line = self._lines[self._at]
        header = _HEADER.match(line)
        mark = _FIELD.match(line)
        return (
            (header is not None and _key(header[1]) in _ALL_SECTIONS)
            or (mark is not None and mark[1].lower() in _ALL_FIELDS)
            or self._is_numpy_header(self._at)
        )

    def _items(self, body: list[str], *, numpy: bool) -> None:
        """Read `name: text` or, in NumPy style, `name : type` with the text below, at the body's own margin."""
        lines = _dedented(body)
        names: list[str] = []
        text: list[str] = []
        for line in [*lines, None]:
            if line is not None and (not line or line[0].isspace()):
                text.append(line)
                continue
            item = None if line is None else _numpy_item(line) if numpy else _google_item(line)
            if line is not None and item is None:
                text.append(line)
                continue
            first, *rest = text or [""]
            whole = "\n".join([first, *_dedented(rest)]) if not numpy else "\n".join(_dedented(text))
            for name in names:
                self._keep(name, whole.strip())
            if item is not None:
                names, head = item
                text = [] if numpy else [head]

    def _keep(self, name: str, text: str) -> None:
        self._parameters.setdefault(name.strip().lstrip("*").strip("`"), text)


def _google_item(line: str) -> tuple[list[str], str] | None:
    """Split `name (type, optional): text`; the type may hold brackets of its own."""
    match = _GOOGLE_ITEM.match(line)
    if match is None:
        return None
    rest = line[match.end() :]
    if rest[:1] in ("(", "（"):
        end = _closing(rest)
        rest = rest[end:].lstrip()
        if rest[:1] not in (":", "："):
            return None
        rest = rest[1:]
    return [match[1]], rest.strip()


def _closing(text: str) -> int:
    """Return the place after the bracket that closes the first one, or the end."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{（") - (character in ")]}）")
        if depth == 0:
            return place + 1
    return len(text)


def _numpy_item(line: str) -> tuple[list[str], str] | None:
    match = _NUMPY_ITEM.match(line)
    return None if match is None else (re.split(r"\s*[,，、]\s*", match[1]), "")


def _dedented(lines: list[str]) -> list[str]:
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[margin:] for line in lines]


def _squeezed(lines: list[str]) -> str:
    """Join prose, with one blank line where a section stood between two paragraphs."""
    return re.sub(r"\n\s*\n\s*\n+", "\n\n", "\n".join(lines)).strip()


def _key(header: str) -> str:
    return header.strip().rstrip(":：").strip().lower().replace(" ", "_")
