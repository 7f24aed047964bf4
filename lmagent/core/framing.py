"""Framing of streamed bodies: bytes in, frames out. Knows nothing of HTTP or of providers.

Fed by a plain `for` or an `async for`, the same object serves both colours. A decoder keeps at most one unfinished
line and one unfinished event, both bounded.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["MAX_EVENT", "Frame", "Framing", "FramingError", "LineDecoder", "SSEDecoder"]

MAX_EVENT = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Frame(NamedTuple):
    """One message of a stream."""

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
        """Return what is left when the body ended: at most one frame, which may be cut short."""
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
            # A mark may itself be cut: hold back until three bytes are there or it cannot be one.
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
        """Return the event that no blank line ended. (The standard drops it; servers do forget the last newline.)"""
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
                if self._size:  # an event without data, or with blank data, says nothing
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
