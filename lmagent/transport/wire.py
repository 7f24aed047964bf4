"""One request over a connection of `Pool`."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import httpcore

from lmagent.errors import ResponseTooLarge
from lmagent.providers.base import Request
from lmagent.transport.address import address_of, header_lines, target_of
from lmagent.transport.base import Timeouts
from lmagent.transport.bodies import Body
from lmagent.transport.failures import as_ours, refuse_redirect
from lmagent.transport.pool import Lane, Pool

__all__ = ["Wire", "header_map", "open_wire", "wire_request"]


def wire_request(request: Request) -> httpcore.Request:
    """Return httpcore's form of `request`."""
    address = address_of(request.url)
    return httpcore.Request(
        request.method,
        httpcore.URL(
            scheme=address.scheme.encode(),
            host=address.host.encode(),
            port=address.port,
            target=target_of(address, request).encode(),
        ),
        headers=header_lines(address, request),
        content=request.content,
    )


def header_map(lines: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return header lines as a dict with lower-case names; repeated ones are joined by a comma."""
    headers: dict[str, str] = {}
    for name, value in lines:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def open_wire(pool: Pool, request: Request, proxy: str | None, timeouts: Timeouts, deadline: float, limit: int) -> Wire:
    """Send `request`; return once status and headers are there."""
    address = address_of(request.url)
    while True:
        lane = pool.take(address, proxy, deadline)
        try:
            lane.clocks.start(timeouts, deadline)
            response = pool.connect(lane, address).handle_request(wire_request(request))
            return Wire(pool, lane, response, limit)
        except BaseException as error:
            pool.give_back(lane)
            # The peer closed a kept connection while the request was under way: it cannot have been answered.
            stale = lane.used and not lane.clocks.received
            if stale and isinstance(error, httpcore.NetworkError | httpcore.RemoteProtocolError):
                continue
            if isinstance(error, Exception):
                raise as_ours(error, lane.clocks.received) from error
            raise


class Wire:
    """An answer whose body has not been read."""

    def __init__(self, pool: Pool, lane: Lane[Any], response: httpcore.Response, limit: int) -> None:
        self.status = response.status
        self.headers = header_map(response.headers)
        self._pool = pool
        self._lane = lane
        self._response = response
        self._closed = False
        refuse_redirect(self.status, self.headers)
        self._body = Body(self.headers, limit)

    def chunks(self) -> Iterator[bytes]:
        """Yield the decoded body as it arrives."""
        body = self._body
        try:
            for data in self._response.iter_stream():
                if body.plain:
                    yield body.count(data)
                else:
                    yield from body.feed(data)
        except Exception as error:
            raise as_ours(error, True) from error
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
        return b"".join(pieces)

    def end_soon(self, seconds: float) -> None:
        """Let what is still read of the body take at most `seconds`."""
        clocks = self._lane.clocks
        clocks.deadline = min(clocks.deadline, monotonic() + seconds)

    def close(self) -> None:
        """Free the connection: kept if the body was read to its end, closed otherwise."""
        if not self._closed:
            self._closed = True
            try:
                self._response.close()
            finally:
                self._pool.give_back(self._lane)
