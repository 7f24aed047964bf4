"""HTTP/1.1 on one connection, by h11: bytes to send and bytes received, one request after another. No I/O.

Why not httpcore on top: it hands out each chunk of a chunked body by itself through four generators, takes locks that
suspend, and takes twice as long to import. What is left to do without it is this module.
"""

from __future__ import annotations

import re
from functools import lru_cache

import h11

from lmagent.http.address import Address, header_lines, target_of
from lmagent.providers.base import Request

__all__ = ["ChunkJoiner", "Dialogue"]

_MAX_HEAD = 100 * 1024
_END = h11.EndOfMessage()


@lru_cache
def _announced(method: str) -> h11.Request:
    return h11.Request(method=method, target="/", headers=[("host", "h")])


class Dialogue:
    """The client's half of one connection."""

    __slots__ = ("_chunks", "_ended", "_h11")

    def __init__(self) -> None:
        self._ended = False
        self._chunks: ChunkJoiner | None = None
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    def request(self, address: Address, request: Request) -> bytes:
        """Return the bytes of a whole request, whose headers have been checked."""
        headers = header_lines(address, request)
        # h11 only needs to know the method, to read the answer: checking and writing the head there costs 20 us of 53.
        self._h11.send(_announced(request.method))
        self._h11.send(_END)
        first = f"{request.method} {target_of(address, request)} HTTP/1.1".encode()
        return b"\r\n".join([first, *[b"%b: %b" % line for line in headers], b"", request.content])

    def head(self, received: bytes) -> tuple[int, dict[str, str]] | None:
        """Take bytes; return status and headers (lower-case names, repeated ones joined) once they are whole.

        Raises:
            ConnectionResetError: The peer closed the connection instead.
            h11.RemoteProtocolError: This is no HTTP.
        """
        if not received:
            raise ConnectionResetError("the server closed the connection")
        # The head is given by itself, so that the body begins at a place that is known.
        head, blank, rest = received.partition(b"\r\n\r\n")
        self._h11.receive_data(head + blank)
        self._chunks = None
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA and rest:
                self._h11.receive_data(rest)
                rest = b""
                continue
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                headers: dict[str, str] = {}
                for name, value in event.headers:
                    key, text = name.decode("latin-1"), value.decode("latin-1")
                    headers[key] = f"{headers[key]}, {text}" if key in headers else text
                if headers.get("transfer-encoding", "").lower() == "chunked" and not self._h11.trailing_data[0]:
                    self._chunks = ChunkJoiner()
                if rest:
                    self.receive(rest)
                return event.status_code, headers
            if not isinstance(event, h11.InformationalResponse):
                return None

    def receive(self, received: bytes) -> None:
        """Take bytes of the body; empty when the peer closed the connection."""
        self._ended = self._ended or not received
        if self._chunks is not None:
            received = self._chunks.feed(received) if received else self._chunks.close()
            if not received and not self._ended:
                return
        self._h11.receive_data(received)
        if self._ended and received:
            self._h11.receive_data(b"")

    def body(self) -> tuple[bytes, bool]:
        """Return all of the body that is there by now, and whether that was the end.

        Raises:
            ConnectionResetError: The peer closed the connection in the middle of it.
            h11.RemoteProtocolError: This is no HTTP.
        """
        pieces: list[bytes] = []
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                if self._ended:
                    raise ConnectionResetError("the body is cut short") from error
                raise
            if isinstance(event, h11.Data):
                pieces.append(event.data)
            else:
                ended = event is not h11.NEED_DATA
                return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces), ended

    def next_cycle(self) -> bool:
        """Get ready for another request; False when the connection cannot serve one."""
        connection = self._h11
        # Bytes after the end would be taken for the next answer.
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE and not connection.trailing_data[0]:
            connection.start_next_cycle()
            return True
        return False


class ChunkJoiner:
    """Makes one chunk of the many small ones of a chunked body, in one pass over the bytes.

    Servers send each event of a stream as a chunk, and h11 takes 8 us for each: half of what an event costs. What is
    anything but a plain whole chunk (the end, an extension, a fault) goes on as it came, for h11 to judge.
    """

    __slots__ = ("_held", "_off", "_owed")

    def __init__(self) -> None:
        self._held: bytes = b""
        """A size line that is not whole."""
        self._owed = 0
        """How many bytes of a chunk that was handed on in part are still to come."""
        self._off = False

    def feed(self, data: bytes) -> bytes:
        """Return the same bytes of body with fewer chunks around them; nothing but half a size line is kept back."""
        if self._off:
            return data
        if self._owed >= len(data):
            self._owed -= len(data)
            return data
        data, at = self._held + data, self._owed
        self._held, self._owed = b"", 0
        begun = data[:at]
        pieces: list[bytes] = []
        while True:
            line = _SIZE_LINE.match(data, at)
            if line is None and _PART_OF_ONE.match(data, at):
                self._held, data = data[at:], data[:at]
                break
            size = int(line[1], 16) if line else 0
            start = line.end() if line else at
            end = start + size
            if size == 0 or not b"\r\n".startswith(data[end : end + 2]):
                self._off = True  # the end of the body, or nothing we know
                break
            if end + 2 > len(data):
                self._owed = end + 2 - len(data)
                break
            pieces.append(data[start:end])
            at = end + 2
        if len(pieces) < 2:
            return data
        joined = b"".join(pieces)
        return b"%b%x\r\n%b\r\n%b" % (begun, len(joined), joined, data[at:])

    def close(self) -> bytes:
        """Return what is left at the end of the connection."""
        held, self._held = self._held, b""
        return held


_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,16})\r\n")
_PART_OF_ONE = re.compile(rb"[0-9a-fA-F]{0,16}\r?\Z")
