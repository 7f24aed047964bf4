"""Reads `[name(key=value, ...), ...]`: calls with keyword arguments whose values are Python (or JSON) literals.

Nothing is evaluated. Positional arguments, calls as arguments, attribute access, operators and f-strings are refused.
A reader of our own instead of `ast.parse`: the same grammar, linear, without recursion limits or compiler warnings, and
`true`, `false`, `null` are read as well.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from lmagent.toolkit.loose_json import MAX_DEPTH, JSONReadError

__all__ = ["CALL_START", "PythonCall", "read_calls", "read_literal"]

PythonCall = tuple[str, dict[str, Any]]
CALL_START = re.compile(r"[^\W\d][\w.-]{0,99}[ \t]*\(")
"""`name(` at the beginning of a call."""

_NAME = re.compile(r"[^\W\d][\w.-]{0,99}")
_KEYWORD = re.compile(r"[^\W\d]\w{0,99}")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_STRICT_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\\": "\\", "'": "'", '"': '"'}
_CODES = {"x": re.compile(r"[0-9a-fA-F]{2}"), "u": re.compile(r"[0-9a-fA-F]{4}"), "U": re.compile(r"[0-9a-fA-F]{8}")}
_STRING_BODY = {quote: re.compile(rf"[^\\{quote}]+") for quote in "\"'"}


def read_calls(text: str) -> list[PythonCall]:
    """Return the calls that `text` lists: `[a(x=1), b()]`, or the same without brackets, one a line or after `;`.

    Raises:
        JSONReadError: Anything else stands there.
    """
    return _Reader(text).calls()


def read_literal(text: str) -> Any:
    """Return the value of one Python literal.

    Raises:
        JSONReadError: Anything but a literal stands there.
    """
    reader = _Reader(text)
    reader.skip()
    value = reader.value(1)
    reader.skip()
    if reader.at < len(text):
        reader.fail("the end of the value")
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, expected: str) -> NoReturn:
        raise JSONReadError(self.text, self.at, expected)

    def skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        if found:
            self.at = found.end()

    def _next(self, char: str) -> bool:
        """Pass `char` and the white space after it, if it is here."""
        if self.text.startswith(char, self.at):
            self.at += len(char)
            self.skip()
            return True
        return False

    def calls(self) -> list[PythonCall]:
        self.skip()
        listed = self._next("[")
        calls: list[PythonCall] = []
        while self.at < len(self.text) and not (listed and self.text[self.at] == "]"):
            calls.append(self._call())
            comma = self._next(",") or (not listed and self._next(";"))
            if listed and not comma:
                break
        if listed and not self._next("]"):
            self.fail("',' or ']'")
        if self.at < len(self.text):
            self.fail("the end of the list")
        return calls

    def _call(self) -> PythonCall:
        name = _NAME.match(self.text, self.at)
        if not name:
            self.fail("the name of a tool")
        self.at = name.end()
        self.skip()
        if not self._next("("):
            self.fail("'('")
        arguments: dict[str, Any] = {}
        while not self._next(")"):
            key = _KEYWORD.match(self.text, self.at)
            if not key:
                self.fail("a keyword argument (key=value)")
            start = self.at
            self.at = key.end()
            self.skip()
            if not self._next("=") or key.group() in arguments:
                self.at = start
                self.fail("a keyword argument (key=value), each key once")
            arguments[key.group()] = self.value(1)
            self.skip()
            if not self._next(",") and not self.text.startswith(")", self.at):
                self.fail("',' or ')'")
        return name.group(), arguments

    def value(self, level: int) -> Any:
        if level > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} levels of nesting")
        char = self.text[self.at : self.at + 1]
        if char and char in "\"'":
            return self._string_value()
        if char == "[":
            return self._items("[", "]", level)
        if char == "(":
            return self._tuple(level)
        if char == "{":
            return self._dict(level)
        word = _KEYWORD.match(self.text, self.at)
        if word and word.group() in _WORDS:
            self.at = word.end()
            return _WORDS[word.group()]
        return self._number()

    def _number(self) -> int | float:
        found = _NUMBER.match(self.text, self.at)
        token = found.group() if found else ""
        digits = token.removeprefix("+")
        if digits.startswith((".", "-.")):
            digits = digits.replace(".", "0.", 1)
        if digits.endswith("."):
            digits += "0"
        after = self.text[self.at + len(token) : self.at + len(token) + 1]
        if not _STRICT_NUMBER.fullmatch(digits) or (after and (after.isalnum() or after in "_.")):
            self.fail("a literal value")
        try:
            value = json.loads(digits)
        except ValueError:
            self.fail("a number of sensible length")
        self.at += len(token)
        return value

    def _items(self, opener: str, closer: str, level: int) -> list[Any]:
        self._next(opener)
        items: list[Any] = []
        while not self._next(closer):
            items.append(self.value(level + 1))
            self.skip()
            if not self._next(",") and not self.text.startswith(closer, self.at):
                self.fail(f"',' or {closer!r}")
        return items

    def _tuple(self, level: int) -> Any:
        start = self.at
        items = self._items("(", ")", level)
        if len(items) == 1:  # `(x)` is x, `(x,)` is a tuple: too easily mixed up
            self.at = start
            self.fail("a literal value")
        return items

    def _dict(self, level: int) -> dict[str, Any]:
        self._next("{")
        value: dict[str, Any] = {}
        while not self._next("}"):
            if self.text[self.at : self.at + 1] not in ('"', "'"):
                self.fail("a key in quotes")
            key = self._string_value()
            self.skip()
            if not self._next(":") or key in value:
                self.fail("':' (and each key once)")
            value[key] = self.value(level + 1)
            self.skip()
            if not self._next(",") and not self.text.startswith("}", self.at):
                self.fail("',' or '}'")
        return value

    def _string_value(self) -> str:
        quote = self.text[self.at]
        value = self._string(quote, quote * 3 if self.text.startswith(quote * 3, self.at) else quote)
        self.skip()
        if self.text[self.at : self.at + 1] in ('"', "'"):
            self.fail("',' (two strings side by side may be a forgotten comma)")
        return value

    def _string(self, quote: str, fence: str) -> str:
        self.at += len(fence)
        out: list[str] = []
        while not self.text.startswith(fence, self.at):
            run = _STRING_BODY[quote].match(self.text, self.at)
            if run:
                out.append(run.group())
                self.at = run.end()
            elif self.at >= len(self.text):
                self.fail("the end of the string")
            elif self.text[self.at] == "\\":
                out.append(self._escape())
            else:
                out.append(quote)
                self.at += 1
        self.at += len(fence)
        return "".join(out)

    def _escape(self) -> str:
        char = self.text[self.at + 1 : self.at + 2]
        if char in _ESCAPES:
            self.at += 2
            return _ESCAPES[char]
        if char == "\n":
            self.at += 2
            return ""
        if char in _CODES:
            digits = _CODES[char].match(self.text, self.at + 2)
            if not digits or int(digits.group(), 16) > 0x10FFFF:
                self.fail("a legal escape")
            self.at = digits.end()
            return chr(int(digits.group(), 16))
        if not char or char in "N01234567\r":
            self.fail("a legal escape")
        self.at += 2
        return "\\" + char
