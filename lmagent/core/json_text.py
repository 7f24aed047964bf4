"""The one JSON door: everything from outside comes in through `loads`, everything we send leaves through `dumps`.

`loads` bounds size and depth, refuses NaN and Infinity, accepts a byte-order mark and makes text storable (a lone
surrogate becomes U+FFFD). With duplicate keys the last one wins, for validation and for execution alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

__all__ = ["JSON", "JSONError", "dumps", "dumps_text", "loads", "may_overflow", "storable"]

JSON: TypeAlias = Any
"""dict, list, str, int, float, bool or None. `Any`, because a recursive alias helps no caller of a wire format."""

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 200
_MAX_DIGITS = 4300
"""Longer integers are refused: converting them is quadratic and no provider means them."""


class JSONError(ValueError):
    """The text is not JSON within the limits. Callers turn it into an error of the public tree."""


@cache
def _core() -> Any:
    # Loaded with the first JSON, not with the front door: 35 ms, as much as all our modules of an agent together.
    import pydantic_core

    return pydantic_core


def storable(text: str) -> str:
    """Return `text` with lone surrogates as U+FFFD, so that it can be sent, printed and written anywhere."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # A pair of surrogates that were escaped one by one is a real character: utf-16 puts them together.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def loads(data: bytes | str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> JSON:
    """Read one JSON value.

    Raises:
        JSONError: Not JSON, too long, too deep, NaN or Infinity, or an absurdly long number.
    """
    size = len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise JSONError(f"{size} bytes of JSON, more than {max_bytes}")
    if isinstance(data, bytes) and data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    elif isinstance(data, str) and data.startswith("\ufeff"):
        data = data[1:]
    try:
        # pydantic_core stops at depth 201 by itself and is 3-4 times as fast as json.
        value = _core().from_json(data, allow_inf_nan=False)
    except (ValueError, TypeError) as error:  # TypeError: a str with lone surrogates is no str to it
        value = _slow_loads(data, error)
    if may_overflow(data) and _has_nan(value):
        raise JSONError("a number out of range")
    if max_depth < MAX_DEPTH and _depth(value) > max_depth:
        raise JSONError(f"nested deeper than {max_depth}")
    return value


_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_HUGE = b"0" * 309


def may_overflow(data: bytes | str) -> bool:
    """Return whether a number may be too large for a float: one cheap pass, because pydantic makes it Infinity."""
    plain = (data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")).translate(_DIGITS)
    return b"0e0" in plain or b"0e+" in plain or _HUGE in plain


def _slow_loads(data: bytes | str, cause: ValueError | TypeError) -> JSON:
    """Second reading for what pydantic_core refuses and json can mend: lone surrogates, raw control characters."""
    try:
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else storable(data)
        value = json.loads(text, strict=False, parse_constant=_refuse_constant, parse_int=_bounded_int)
    except (ValueError, RecursionError) as error:
        raise JSONError(str(cause) or type(error).__name__) from error
    if _depth(value) > MAX_DEPTH:
        raise JSONError(f"nested deeper than {MAX_DEPTH}")
    return _storable_value(value)


def _refuse_constant(name: str) -> JSON:
    raise JSONError(f"{name} is not JSON")


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise JSONError(f"a number of {len(digits)} digits")
    return int(digits)


def _depth(value: JSON) -> int:
    depth, level = 0, [value]
    while level:
        inner: list[JSON] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            elif isinstance(item, list):
                inner.extend(item)  # pyright: ignore[reportUnknownArgumentType]
        containers = any(isinstance(item, dict | list) for item in level)
        depth += containers
        level = inner
    return depth


def _storable_value(value: JSON) -> JSON:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable_value(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {storable(k): _storable_value(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def dumps(value: JSON) -> bytes:
    """Return `value` as compact UTF-8 JSON. Lone surrogates become U+FFFD.

    Raises:
        JSONError: `value` holds something JSON cannot carry (NaN, Infinity, an object).
    """
    try:
        return _core().to_json(value, inf_nan_mode="constants") if not _has_nan(value) else _fail_nan()
    except RecursionError as error:
        raise JSONError("not JSON: nested too deep, or inside itself") from error
    except (_core().PydanticSerializationError, UnicodeEncodeError):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise JSONError(f"not JSON: {error}") from error
        return storable(text).encode()


def _has_nan(value: JSON) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_has_nan(item) for item in value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return any(_has_nan(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
    return False


def _fail_nan() -> bytes:
    raise JSONError("NaN and Infinity are not JSON")


def dumps_text(value: JSON, *, indent: int | None = None) -> str:
    """Return `value` as JSON text, never ASCII-escaped. With `indent` it is laid out for people."""
    if indent is None:
        return dumps(value).decode()
    return storable(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))
