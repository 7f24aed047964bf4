"""One request over a connection of `Pool`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic

from lmagent.errors import ResponseTooLarge
from lmagent.http.address import address_of, refuse_odd_headers
from lmagent.http.base import Timeouts
from lmagent.http.bodies import Body
from lmagent.http.failures import as_ours, refuse_redirect
from lmagent.http.pool import Lane, Pool
from lmagent.http.sockets import SocketStream
from lmagent.providers.base import Request

__all__ = ["Wire", "open_wire"]


def open_wire(pool: Pool, request: Request, timeouts: Timeouts, deadline: float, limit: int) -> Wire:
    """Send `request`; return once status and headers are there."""
    address = address_of(request.url)
    refuse_odd_headers(request)
    fresh = False
    while True:
        lane = pool.take(address, deadline, fresh=fresh)
        try:
            lane.clocks.start(timeouts, deadline)
            stream = pool.connected(lane, address)
            try:
                # No name for the bytes: they hold the key, and a traceback may show what names hold.
                stream.write(lane.dialogue.request(address, request))
            except ConnectionError:
                if lane.used:
                    raise
                # A server may refuse a request before it has read all of it: then its answer is there to be read.
            head = None
            while head is None:
                head = lane.dialogue.head(stream.read())
            return Wire(pool, lane, stream, head, limit)
        except BaseException as error:
            pool.give_back(lane)
            # The peer closed a kept connection while the request was under way: it cannot have been answered.
            if lane.used and not lane.clocks.received and isinstance(error, ConnectionError):
                fresh = True
                continue
            if isinstance(error, Exception):
                raise as_ours(error, received=lane.clocks.received) from error
            raise


class Wire:
    """An answer whose body has not been read."""

    __slots__ = ("_body", "_lane", "_open", "_pool", "_stream", "headers", "status")

    def __init__(
        self,
        pool: Pool,
        lane: Lane[SocketStream],
        stream: SocketStream,
        head: tuple[int, Mapping[str, str]],
        limit: int,
    ) -> None:
        self.status, self.headers = head
        self._pool = pool
        self._lane = lane
        self._stream = stream
        refuse_redirect(self.status, self.headers)
        self._body = Body(self.headers, limit)
        self._open = True

    def chunks(self) -> Iterator[bytes]:
        """Yield the decoded body as it arrives."""
        body, dialogue = self._body, self._lane.dialogue
        try:
            ended = not self._open
            while not ended:
                data, ended = dialogue.body()
                if body.plain:
                    if data:
                        yield body.count(data)
                else:
                    yield from body.feed(data)
                if not self._open:  # closed by the reader meanwhile
                    return
                if not ended:
                    dialogue.receive(self._stream.read())
        except Exception as error:
            raise as_ours(error, received=True) from error
        finally:
            self.close()

    def read(self, limit: int) -> bytes:
        """Return the whole decoded body."""
        pieces: list[bytes] = []
        size = 0
        for piece in self.chunks():
            size += len(piece)
            if size > limit:
                raise ResponseTooLarge(f"The answer is longer than {limit} bytes.")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end_soon(self, seconds: float) -> None:
        """Let what is still read of the body take at most `seconds`."""
        clocks = self._lane.clocks
        clocks.deadline = min(clocks.deadline, monotonic() + seconds)

    def close(self) -> None:
        """Free the connection: kept if the body was read to its end, closed otherwise."""
        if self._open:
            self._open = False
            self._pool.give_back(self._lane)
