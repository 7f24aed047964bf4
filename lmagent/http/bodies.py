"""Response bodies: decoded as they come and counted after decoding. Knows no sockets."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from lmagent.errors import InvalidResponse, ResponseTooLarge

__all__ = ["Body"]

_PIECE = 64 * 1024
_IDENTITY = ("", "identity", "none", "utf-8")
"""`utf-8` is a mistake that servers make; it means no encoding."""


class Body:
    """What one answer may hold, and how it is coded.

    Args:
        headers: Lower-case names.
        limit: Most bytes after decoding.

    Raises:
        ResponseTooLarge: The declared length alone is over the limit.
        InvalidResponse: A content encoding that was not asked for.
    """

    __slots__ = ("_coding", "_inflate", "_left", "_limit", "_started")

    def __init__(self, headers: Mapping[str, str], limit: int) -> None:
        self._limit = self._left = limit
        declared = headers.get("content-length", "")
        # Longer than 18 digits is more than any limit, and int() of thousands of digits is refused by Python.
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
            raise self._too_large()
        self._started = False
        self._coding = headers.get("content-encoding", "").strip().lower()
        self._inflate = None
        if self._coding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(47 if "gzip" in self._coding else 15)
        elif self._coding not in _IDENTITY:
            raise InvalidResponse(f"The answer is encoded as {self._coding[:40]!r}, which was not asked for.")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield `data` decoded, in pieces.

        Raises:
            ResponseTooLarge: More than the limit in all.
            InvalidResponse: The data cannot be decoded.
        """
        if self._inflate is None:
            yield self._count(data)
            return
        while data:
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                if self._started or self._coding != "deflate":
                    raise InvalidResponse(f"The answer is not {self._coding} as it says: {error}.") from error
                self._inflate = zlib.decompressobj(-15)  # deflate without its wrapper, as some servers send it
                self._started = True
                continue
            self._started = True
            data = self._inflate.unconsumed_tail
            if piece:
                yield self._count(piece)
            if self._inflate.eof:
                data = self._inflate.unused_data
                if not data.startswith(b"\x1f\x8b"):  # anything but a further gzip member is padding
                    return
                self._inflate = zlib.decompressobj(47)

    def _count(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_large()
        return piece

    @property
    def plain(self) -> bool:
        """Whether the bytes come as they are (then `count` does instead of `feed`)."""
        return self._inflate is None

    count = _count

    def _too_large(self) -> ResponseTooLarge:
        return ResponseTooLarge(
            f"The answer is longer than {self._limit} bytes; raise max_response_bytes to allow more."
        )
