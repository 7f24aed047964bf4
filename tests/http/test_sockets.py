"""Sockets: how long one sleep lasts, what a wait in several sleeps adds up to, and which address is reached."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from lmagent.errors import RequestTimeout
from lmagent.http import sockets
from lmagent.http.async_sockets import async_connect
from lmagent.http.base import Timeouts
from lmagent.http.clocks import Clocks
from lmagent.http.sockets import SocketStream, connect


def reader(idle: float, total: float) -> tuple[SocketStream, socket.socket]:
    ours, theirs = socket.socketpair()
    clocks = Clocks()
    clocks.start(Timeouts(idle=idle), time.monotonic() + total)
    return SocketStream(ours, clocks), theirs


@pytest.mark.parametrize(("idle", "total", "which"), [(0.05, 9, "read"), (9, 0.05, "total")])
def test_a_wait_in_several_sleeps_ends_with_its_clock(monkeypatch, idle, total, which):
    # A signal that comes just before the sleep is heard only after it, so no sleep is long.
    monkeypatch.setattr(sockets, "POLL_INTERVAL", 0.02)
    stream, theirs = reader(idle, total)
    begun = time.monotonic()
    with theirs, pytest.raises(RequestTimeout) as caught:
        stream.read()
    stream.close()
    assert caught.value.which == which
    assert 0.045 <= time.monotonic() - begun < 0.2


def test_what_comes_after_some_sleeps_is_read(monkeypatch):
    naps: list[float] = []

    class Sleepy(socket.socket):
        def settimeout(self, value: float | None) -> None:
            naps.append(value or 0)
            super().settimeout(value)
            if len(naps) == 3:
                theirs.sendall(b"late")

    monkeypatch.setattr(sockets, "POLL_INTERVAL", 0.01)
    pair, theirs = socket.socketpair()
    clocks = Clocks()
    clocks.start(Timeouts(idle=9), time.monotonic() + 9)
    with theirs:
        stream = SocketStream(Sleepy(fileno=pair.detach()), clocks)
        assert stream.read() == b"late"
        stream.close()
    assert naps == [0.01] * 3


def _connect(host: str, port: int, clocks: Clocks) -> None:
    connect(host, port, clocks, None).close()


def _async_connect(host: str, port: int, clocks: Clocks) -> None:
    async def main() -> None:
        (await async_connect(host, port, clocks, None)).close()

    asyncio.run(main())


colours = pytest.mark.parametrize("connects", [_connect, _async_connect], ids=["sync", "async"])


def running(connect_s: float, total: float = 9) -> Clocks:
    clocks = Clocks()
    clocks.start(Timeouts(connect=connect_s), time.monotonic() + total)
    return clocks


@colours
def test_behind_an_address_that_swallows_everything_the_next_one_is_reached(connects, monkeypatch):
    with socket.socket() as full, socket.create_server(("127.0.0.1", 0)) as alive:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        both = [(*kind, full.getsockname()), (*kind, alive.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        begun = time.monotonic()
        connects("two.example", 80, running(0.3))
        assert 0.1 < time.monotonic() - begun < 0.29
        for filler in fillers:
            filler.close()


@colours
@pytest.mark.parametrize(("connect_s", "total", "which"), [(0.05, 9, "connect"), (9, 0.05, "total")])
def test_a_name_server_that_is_silent_holds_nobody_up(connects, monkeypatch, connect_s, total, which):
    silent = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silent.wait(5) and [])
    begun = time.monotonic()
    with pytest.raises(RequestTimeout) as caught:
        connects("slow.example", 80, running(connect_s, total))
    assert caught.value.which == which
    assert time.monotonic() - begun < 0.5
    silent.set()


@colours
def test_a_name_without_addresses(connects, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(OSError, match="no address"):
        connects("none.example", 80, running(1))
