"""JSON text, and the framing of streamed bodies that carry it. Knows nothing of HTTP or of providers.

All JSON from outside is read by `loads`, all JSON that we send is written by `dumps`. `loads` bounds size and depth,
refuses NaN and Infinity, accepts a byte-order mark and makes text storable (a lone surrogate becomes U+FFFD). With
duplicate keys the last one wins, for validation and for execution alike.

`SSEDecoder` and `LineDecoder` cut a streamed body into frames, each of which holds one JSON value. Fed by a plain `for`
or an `async for`, the same object serves sync and async. A decoder keeps at most one unfinished line and one unfinished
event, both bounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeAlias

__all__ = [
    "JSON", "MAX_EVENT", "Frame", "Framing", "FramingError", "JSONError", "LineDecoder", "SSEDecoder", "dumps",
    "dumps_text", "loads", "may_overflow", "storable",
]  # fmt: skip

JSON: TypeAlias = Any
"""dict, list, str, int, float, bool or None. `Any`, because a recursive alias helps no caller of a wire format."""

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 200
_MAX_DIGITS = 4300
"""Longer integers are refused: converting them takes quadratic time, and no provider sends such numbers."""


class JSONError(ValueError):
    """The text is not JSON within the limits. Callers turn it into an error of the public tree."""


@cache
def _core() -> Any:
    # Imported at the first use, not by `import lmagent`: 35 ms, as much as all modules of an agent together.
    import pydantic_core

    return pydantic_core


def storable(text: str) -> str:
    """Return `text` with lone surrogates as U+FFFD, so that it can be sent, printed and written anywhere."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Two surrogates that were escaped one by one are one real character: utf-16 joins them.
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
        # pydantic_core stops at depth 201 without our help and is 3-4 times as fast as json.
        value = _core().from_json(data, allow_inf_nan=False)
    except (ValueError, TypeError) as error:  # TypeError: raised for a str with lone surrogates
        value = _slow_loads(data, error)
    if may_overflow(data) and _has_nan(value):
        raise JSONError("a number out of range")
    if max_depth < MAX_DEPTH and _depth(value) > max_depth:
        raise JSONError(f"nested deeper than {max_depth}")
    return value


_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_HUGE = b"0" * 309


def may_overflow(data: bytes | str) -> bool:
    """Return whether a number may be too large for a float, which pydantic reads as Infinity. One cheap pass."""
    plain = (data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")).translate(_DIGITS)
    return b"0e0" in plain or b"0e+" in plain or _HUGE in plain


def _slow_loads(data: bytes | str, cause: ValueError | TypeError) -> JSON:
    """Read what pydantic_core refuses and `json` accepts: lone surrogates, raw control characters."""
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
    """Return `value` as JSON text, never ASCII-escaped; `indent` makes it readable for people."""
    if indent is None:
        return dumps(value).decode()
    return storable(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


MAX_EVENT = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Frame(NamedTuple):
    """One message of a streamed body."""

    data: bytes
    """The payload, UTF-8 (not checked)."""
    event: str = ""
    """The SSE `event:` name, or empty."""


class FramingError(ValueError):
    """A line or an event is longer than the limit."""


class Framing(Protocol):
    """How a streamed body is cut into frames."""

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that `chunk` completes."""
        ...

    def close(self) -> list[Frame]:
        """Called at the end of the body; return at most one final frame, which may be incomplete."""
        ...


class _Lines:
    """Cuts bytes into lines at LF, CRLF or CR, however they arrive; linear in the input."""

    __slots__ = ("_held_cr", "_pieces", "_size", "_started")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._held_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> list[bytes]:
        if not self._started:
            # The byte-order mark may be split, too: wait for three bytes, or until it cannot be one.
            chunk = b"".join(self._pieces) + chunk
            self._pieces, self._size = [], 0
            if len(chunk) < 3 and _BOM.startswith(chunk):
                self._pieces, self._size = [chunk], len(chunk)
                return []
            self._started = True
            chunk = chunk.removeprefix(_BOM)
        if self._held_cr and chunk:
            self._held_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._held_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in chunk:
            self._keep(chunk)
            return []
        lines = chunk.split(b"\n")
        if self._pieces:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces, self._size = [], 0
        self._keep(lines.pop())
        return lines

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > MAX_EVENT:
                raise FramingError(f"a line of the stream is longer than {MAX_EVENT} bytes")

    def close(self) -> bytes:
        rest = b"".join(self._pieces)
        self._pieces = []
        return rest


class SSEDecoder:
    """Server-sent events: one frame per event that has data. Comments, `id:` and `retry:` are skipped."""

    __slots__ = ("_data", "_event", "_lines", "_size")

    def __init__(self) -> None:
        self._lines = _Lines()
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""

    def feed(self, chunk: bytes) -> list[Frame]:
        return self._take(self._lines.feed(chunk))

    def close(self) -> list[Frame]:
        """Return the last event if no blank line ended it. (The standard drops it, but servers forget that newline.)"""
        return self._take([self._lines.close(), b""])

    def _take(self, lines: list[bytes]) -> list[Frame]:
        frames: list[Frame] = []
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                data.append(value)
                self._size += len(value)
                if self._size > MAX_EVENT:
                    raise FramingError(f"an event of the stream is longer than {MAX_EVENT} bytes")
            elif not line:
                if self._size:  # an event without data, or with empty data, is skipped
                    frames.append(Frame(data[0] if len(data) == 1 else b"\n".join(data), self._event))
                data.clear()
                self._size = 0
                self._event = ""
            elif line.startswith(b"event:"):
                self._event = line[6:].strip().decode("utf-8", "replace")
        return frames


class LineDecoder:
    """One JSON value a line (NDJSON); blank lines are skipped."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, chunk: bytes) -> list[Frame]:
        return [Frame(line) for line in self._lines.feed(chunk) if line.strip()]

    def close(self) -> list[Frame]:
        rest = self._lines.close()
        return [Frame(rest)] if rest.strip() else []
