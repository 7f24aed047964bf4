"""HTTP/1.1 on one connection, by h11: bytes to send and bytes received, one request after another. No I/O.

Why not httpcore on top: it hands out each chunk of a chunked body by itself through four generators, takes locks that
suspend, and takes twice as long to import. What is left to do without it is this module.
"""

from __future__ import annotations

import h11

__all__ = ["Dialogue"]

_MAX_HEAD = 100 * 1024


class Dialogue:
    """The client's half of one connection."""

    __slots__ = ("_ended", "_h11")

    def __init__(self) -> None:
        self._ended = False
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    def request(self, method: str, target: str, headers: list[tuple[bytes, bytes]], content: bytes) -> bytes:
        """Return the bytes of a whole request."""
        send = self._h11.send
        pieces = [send(h11.Request(method=method, target=target, headers=headers))]
        if content:
            pieces.append(send(h11.Data(data=content)))
        pieces.append(send(h11.EndOfMessage()))
        return b"".join(piece for piece in pieces if piece)

    def head(self, received: bytes) -> tuple[int, dict[str, str]] | None:
        """Take bytes; return status and headers (lower-case names, repeated ones joined) once they are whole.

        Raises:
            ConnectionResetError: The peer closed the connection instead.
            h11.RemoteProtocolError: This is no HTTP.
        """
        if not received:
            raise ConnectionResetError("the server closed the connection without an answer")
        self._h11.receive_data(received)
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                headers: dict[str, str] = {}
                for name, value in event.headers:
                    key, text = name.decode("latin-1"), value.decode("latin-1")
                    headers[key] = f"{headers[key]}, {text}" if key in headers else text
                return event.status_code, headers
            if not isinstance(event, h11.InformationalResponse):
                return None

    def receive(self, received: bytes) -> None:
        """Take bytes of the body; empty when the peer closed the connection."""
        self._ended = self._ended or not received
        self._h11.receive_data(received)

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
