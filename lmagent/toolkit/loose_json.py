"""Read what a model wrote as JSON or as Python: `read_json` for nearly-JSON, `read_calls` for `[name(key=value)]`.

Strict JSON comes first, then a closed list of repairs that cannot change a value. Text that has two readings is
refused: elisions, NaN, thousands separators, missing values or commas, quotes inside strings, lone surrogates, a key
given twice with different values. Of Python, keyword calls with literal values are read and nothing is evaluated:
positional arguments, nested calls, attribute access, operators and f-strings are refused. An own reader instead of
`ast.parse`, because it is linear, has no recursion limit, gives no compiler warnings, and reads `true`, `false` and
`null` too. Both readers make one pass from left to right. Knows nothing of tools, tags or schemas.

Over 400 lines because both notations share errors, limits, words and numbers, and one is tried after the other.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn, cast

__all__ = [
    "CALL_START",
    "MAX_DEPTH",
    "JSONReadError",
    "PythonCall",
    "Reading",
    "duplicate_key",
    "read_calls",
    "read_json",
    "read_literal",
]

MAX_DEPTH = 200
"""Deepest nesting of brackets that is read."""

_SPACE = " \t\n\r\u00a0\u3000\ufeff\u200b\u2028\u2029\u202f\u2007"
_PLAIN_SPACE = " \t\n\r"
_WIDE = {"：": ":", "，": ",", "｛": "{", "｝": "}", "［": "[", "］": "]"}
_CLOSERS = "}]｝］"
_QUOTES = {'"': '"', "'": "'", "“": "“”", "”": "“”", "‘": "‘’", "’": "‘’", "＂": "＂", "＇": "＇"}
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_WIDE_NUMBER = str.maketrans("０１２３４５６７８９．－＋", "0123456789.-+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DOT_NUMBER = re.compile(r"-?\.[0-9]+(?:[eE][+-]?[0-9]+)?")
_LONGEST = 400
_TOKEN = re.compile(rf"[^\s,:{{}}\[\]\"'“”‘’：，｛｝［］]{{1,{_LONGEST}}}")
_KEY = re.compile(r"[^\W\d]\w*(?:-\w+)*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_START = re.compile(r"[{\[\s]*\\\"")
_ESCAPE_OR_QUOTE = re.compile(r"[\\\"]")
_JSON_WORD = re.compile(r"(?:json|JSON)\b")
_FENCE_END = re.compile(r"`{3,}")
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_BODY = {closer: re.compile(rf"[^\\{re.escape(closer)}\x00-\x1f]+") for closer in set(_QUOTES.values())}
_FENCE = re.compile(r"`{3,}[ \t]*(?:json|JSON|tool_call)?[ \t]*\n?")


class JSONReadError(ValueError):
    """Text that cannot be read for certain, with the place, what was expected and what came.

    Attributes:
        position: Offset of the fault in the text, 0 for the first character.
        at_end: True when the text simply stopped too early.
    """

    def __init__(self, text: str, position: int, expected: str, came: str | None = None) -> None:
        position = min(position, len(text))
        line = text.count("\n", 0, position) + 1
        column = position - (text.rfind("\n", 0, position) + 1) + 1
        if came is None:
            came = repr(text[position : position + 20]) if position < len(text) else "the end of the text"
        super().__init__(f"line {line} column {column} (char {position}): expected {expected}, got {came}")
        self.position = position
        self.at_end = position >= len(text)


@dataclass(frozen=True, slots=True)
class Reading:
    """A value and the repairs that were needed to read it (none: the text is strict JSON)."""

    value: Any
    repairs: tuple[str, ...] = ()


def read_json(text: str, *, depth: int = MAX_DEPTH, repair: bool = True, closed: bool = False) -> Reading:
    """Return the value that `text` spells.

    Args:
        text: One JSON value, nothing around it.
        depth: Deepest nesting that is accepted.
        repair: False for strict JSON only.
        closed: An intact closing delimiter followed the text, so missing closing brackets may be added.

    Raises:
        JSONReadError: The text has no reading, or more than one.
    """
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse_constant)
        _check_depth(text, depth)
        _check_value(value, text)
        return Reading(value)
    except JSONReadError:
        raise
    except RecursionError:
        raise JSONReadError(text, 0, f"at most {depth} levels of nesting", "more") from None
    except json.JSONDecodeError as error:
        if not repair:
            raise JSONReadError(text, error.pos, error.msg.lower()) from None
    except ValueError as error:
        _Reader(text, depth, closed).document()  # refuses the same, and says where
        raise JSONReadError(text, 0, "plain JSON values", str(error)) from None
    try:
        reading = _read_loose(text, depth, closed)
    except RecursionError:  # the caller's own stack is nearly full
        raise JSONReadError(text, 0, f"at most {depth} levels of nesting", "more") from None
    _check_value(reading.value, text)
    return reading


def _read_loose(text: str, depth: int, closed: bool) -> Reading:
    reader = _Reader(text, depth, closed)
    try:
        return reader.document()
    except JSONReadError as error:
        plain = _unescape_throughout(text)
        if plain is None:
            raise
        try:
            inner = read_json(plain, depth=depth, closed=closed)
        except JSONReadError:
            raise error from None
        return Reading(inner.value, ("escaped quotes", *inner.repairs))


def _unescape_throughout(text: str) -> str | None:
    r"""Undo one level of escaping of `{\"a\": \"b\"}`; None when some quote is bare or some escape is not JSON."""
    body = text.strip(_SPACE)
    if not _ESCAPED_START.match(body):
        return None
    out: list[str] = []
    at = 0
    while True:
        found = _ESCAPE_OR_QUOTE.search(body, at)
        if found is None:
            out.append(body[at:])
            return "".join(out)
        out.append(body[at : found.start()])
        at = found.start()
        escape = body[at + 1 : at + 2]
        if body[at] == '"' or escape not in _ESCAPES:
            return None
        # \n between tokens is a line break that was escaped with the rest; inside a string it reads the same way.
        out.append(_ESCAPES[escape])
        at += 2


class _DuplicateKey(ValueError):
    pass


def duplicate_key(text: str) -> str:
    """Return what is wrong with a key that an object in strict JSON has twice with different values, else nothing."""
    try:
        json.loads(text, strict=False, object_pairs_hook=_pairs)
    except _DuplicateKey as error:
        return str(error)
    except (ValueError, RecursionError):  # not for this function to judge
        return ""
    return ""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: dict[str, Any] = {}
        for key, item in pairs:
            if key in seen and not _same(seen[key], item):
                raise _DuplicateKey(f"the key {key!r} twice with different values")
            seen[key] = item
    return value


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON number")


def _check_depth(text: str, depth: int) -> None:
    if text.count("{") + text.count("[") <= depth:
        return
    level = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', text, re.DOTALL):
        mark = token.group()
        if mark in "{[":
            level += 1
            if level > depth:
                raise JSONReadError(text, token.start(), f"at most {depth} levels of nesting", "more")
        elif mark in "}]":
            level -= 1


def _check_value(value: Any, text: str) -> None:
    """Refuse what JSON text may spell but no JSON writer may send: infinite numbers and lone surrogates."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise JSONReadError(text, 0, "whole characters", "half of a surrogate pair") from None
    except ValueError:
        raise JSONReadError(text, 0, "finite numbers", "one that is too large") from None


class _Reader:
    """Recursive descent over the loose grammar; notes each repair once, in order."""

    def __init__(self, text: str, depth: int, closed: bool) -> None:
        self.text = text
        self.at: int = 0
        self.depth = depth
        self.tail = len(text.rstrip(_SPACE + _CLOSERS + "`")) if closed else len(text) + 1
        self.repairs: dict[str, None] = {}

    def document(self) -> Reading:
        self._skip()
        fence = _FENCE.match(self.text, self.at)
        if fence:
            self._note("inner code fence")
            self.at = fence.end()
            self._skip()
        word = _JSON_WORD.match(self.text, self.at)
        if word:
            self._note("leading word json")
            self.at = word.end()
            self._skip()
        value = self._value(1)
        self._skip()
        if isinstance(value, (dict, list)) and self.at < len(self.text) and self._peek() in "}]":
            while self.at < len(self.text) and self._peek() in "}]":
                self.at += 1
                self._skip()
            self._note("surplus closing bracket")
        if fence:
            close = _FENCE_END.match(self.text, self.at)
            if close:
                self.at = close.end()
                self._skip()
        if self.at < len(self.text):
            self._fail("the end of the value")
        return Reading(value, tuple(self.repairs))

    def _note(self, repair: str) -> None:
        self.repairs[repair] = None

    def _fail(self, expected: str, came: str | None = None) -> NoReturn:
        raise JSONReadError(self.text, self.at, expected, came)

    def _peek(self) -> str:
        """The character here with full-width structure folded; empty at the end."""
        char = self.text[self.at : self.at + 1]
        return _WIDE.get(char, char)

    def _take(self) -> None:
        if self.text[self.at] in _WIDE:
            self._note("full-width structure")
        self.at += 1

    def _skip(self) -> None:
        text, at = self.text, self.at
        while at < len(text):
            char = text[at]
            if char in _SPACE:
                if char not in _PLAIN_SPACE:
                    self._note("odd white space")
                at += 1
            elif char == "#" or text.startswith("//", at):
                end = text.find("\n", at)
                at = len(text) if end < 0 else end
                self._note("comment")
            elif text.startswith("/*", at):
                end = text.find("*/", at + 2)
                if end < 0:
                    self.at = at
                    self._fail("the end of the comment", "none")
                at = end + 2
                self._note("comment")
            else:
                break
        self.at = at

    def _value(self, level: int) -> Any:
        if level > self.depth + 1:
            self._fail(f"at most {self.depth} levels of nesting", "more")
        char = self._peek()
        if char == "{":
            return self._object(level)
        if char == "[":
            return self._array(level)
        if char and char in _QUOTES:
            return self._string()
        return self._scalar()

    def _object(self, level: int) -> Any:
        if level > self.depth:
            self._fail(f"at most {self.depth} levels of nesting", "more")
        self._take()
        self._skip()
        if level == 1 and self._peek() == "{":
            value = self._object(2)
            self._skip()
            if self._peek() == "}":
                self._take()
            elif self.at < len(self.text):
                self._fail("the second closing brace")
            self._note("doubled braces")
            return value
        value: dict[str, Any] = {}
        while True:
            if self._peek() == "}":
                self._take()
                return value
            if value and self._ends_here():  # a bracket just opened says nothing of what it was to hold
                return value
            key = self._key()
            self._skip()
            if self._peek() != ":":
                self._fail("':'")
            self._take()
            self._skip()
            item = self._value(level + 1)
            if key in value and not _same(value[key], item):
                self._fail(f"one value for the key {key!r}", "two")
            value[key] = item
            self._separator("}")

    def _array(self, level: int) -> list[Any]:
        if level > self.depth:
            self._fail(f"at most {self.depth} levels of nesting", "more")
        self._take()
        self._skip()
        value: list[Any] = []
        while True:
            if self._peek() == "]":
                self._take()
                return value
            if value and self._ends_here():  # a bracket just opened says nothing of what it was to hold
                return value
            value.append(self._value(level + 1))
            self._separator("]")

    def _separator(self, closer: str) -> None:
        """Pass one comma; leave a closing bracket for the caller."""
        self._skip()
        if self._peek() == ",":
            self._take()
            self._skip()
            if self._peek() == closer:
                self._note("trailing comma")
            elif self.at >= len(self.text):
                self._fail("a value after the comma")
        elif self._peek() != closer and not self._only_closers():
            self._fail(f"',' or {closer!r}")

    def _only_closers(self) -> bool:
        """True where only closing brackets are left, and a delimiter vouches that nothing was cut off."""
        return self.at >= self.tail

    def _ends_here(self) -> bool:
        if self._only_closers():
            self._note("missing closing bracket")
            return True
        return False

    def _key(self) -> str:
        char = self._peek()
        if char and char in _QUOTES:
            return self._string()
        found = _KEY.match(self.text, self.at)
        if not found:
            self._fail("a key in double quotes")
        self.at = found.end()
        self._note("unquoted key")
        return found.group()

    def _string(self) -> str:
        opened = self.at
        opener = self.text[opened]
        closers = _QUOTES[opener]
        if opener != '"':
            self._note("single quotes" if opener == "'" else "smart quotes")
        body = _BODY[closers]
        out: list[str] = []
        kept_backslash = control_escape = False
        self.at += 1
        while True:
            run = body.match(self.text, self.at)
            if run:
                out.append(run.group())
                self.at = run.end()
            if self.at >= len(self.text):
                raise JSONReadError(self.text, self.at, f"the end of the string that opens at char {opened}")
            char = self.text[self.at]
            if char in closers:
                self.at += 1
                if kept_backslash and control_escape:
                    # `\d` beside `\n`: whether the writer escaped at all cannot be known.
                    raise JSONReadError(self.text, opened, "one way of escaping", r"both \d and \n kinds")
                return _join_surrogates("".join(out))
            if char == "\\":
                piece, legal = self._escape()
                kept_backslash |= not legal
                control_escape |= legal and len(piece) == 1 and piece in "\b\f\n\r\t"
                out.append(piece)
            else:
                self._note("raw control character")
                out.append(char)
                self.at += 1

    def _escape(self) -> tuple[str, bool]:
        char = self.text[self.at + 1 : self.at + 2]
        if char in _ESCAPES and char:
            self.at += 2
            return _ESCAPES[char], True
        if char == "u":
            digits = _HEX4.match(self.text, self.at + 2)
            if digits:
                self.at = digits.end()
                return chr(int(digits.group(), 16)), True
            if self.text[self.at + 2 : self.at + 3] in "0123456789abcdefABCDEF":
                self._fail(r"four hexadecimal digits after \u")
        if not char or char in "\r\n":
            self._fail("a legal escape")
        self.at += 2
        self._note("illegal escape")
        return ("'", True) if char == "'" else ("\\" + char, False)

    def _scalar(self) -> Any:
        found = _TOKEN.match(self.text, self.at)
        if not found:
            self._fail("a value")
        token = found.group()
        if len(token) >= _LONGEST:
            self._fail("a value of sensible length", "a longer one")
        if token.rstrip("`") in _WORDS:
            token = token.rstrip("`")
            if token[0].isupper():
                self._note("Python literal")
            self.at += len(token)
            return _WORDS[token]
        return self._number(token)

    def _number(self, token: str) -> int | float:
        for stop in ("//", "/*", "#", "`"):
            token = token.split(stop, 1)[0]
        plain = token.translate(_WIDE_NUMBER)
        if _DOT_NUMBER.fullmatch(plain):
            plain = plain.replace(".", "0.", 1)
            self._note("leading-dot number")
        if not _NUMBER.fullmatch(plain):
            self._fail("a value", repr(token[:40]))
        if plain != token and not token.startswith((".", "-.")):
            self._note("full-width structure")
        self.at += len(token)
        return cast("int | float", json.loads(plain))


def _join_surrogates(text: str) -> str:
    r"""Join the two halves that `\ud83d\ude00` gives; a lone half stays and is refused later."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


PythonCall = tuple[str, dict[str, Any]]
CALL_START = re.compile(r"[^\W\d][\w.-]{0,99}[ \t]*\(")
"""`name(` at the beginning of a call."""

_CALL_NAME = re.compile(r"[^\W\d][\w.-]{0,99}")
_KEYWORD = re.compile(r"[^\W\d]\w{0,99}")
_PYTHON_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_PYTHON_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_PYTHON_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "a": "\a",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_CODES = {"x": re.compile(r"[0-9a-fA-F]{2}"), "u": re.compile(r"[0-9a-fA-F]{4}"), "U": re.compile(r"[0-9a-fA-F]{8}")}
_STRING_BODY = {quote: re.compile(rf"[^\\{quote}]+") for quote in "\"'"}


def read_calls(text: str) -> list[PythonCall]:
    """Return the calls that `text` lists: `[a(x=1), b()]`, or the same without brackets, one a line or after `;`.

    Raises:
        JSONReadError: Anything else stands there.
    """
    return _PythonReader(text).calls()


def read_literal(text: str) -> Any:
    """Return the value of one Python literal.

    Raises:
        JSONReadError: Anything but a literal stands there.
    """
    reader = _PythonReader(text)
    reader.skip()
    value = reader.value(1)
    reader.skip()
    if reader.at < len(text):
        reader.fail("the end of the value")
    return value


class _PythonReader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, expected: str) -> NoReturn:
        raise JSONReadError(self.text, self.at, expected)

    def skip(self) -> None:
        found = _PYTHON_SPACE.match(self.text, self.at)
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
        name = _CALL_NAME.match(self.text, self.at)
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
        found = _PYTHON_NUMBER.match(self.text, self.at)
        token = found.group() if found else ""
        digits = token.removeprefix("+")
        if digits.startswith((".", "-.")):
            digits = digits.replace(".", "0.", 1)
        if digits.endswith("."):
            digits += "0"
        after = self.text[self.at + len(token) : self.at + len(token) + 1]
        if not _NUMBER.fullmatch(digits) or (after and (after.isalnum() or after in "_.")):
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
        if char in _PYTHON_ESCAPES:
            self.at += 2
            return _PYTHON_ESCAPES[char]
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
