"""The network backends: waits in several sleeps, which address is reached and how soon, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lmagent.errors import RequestTimeout
from lmagent.http import network
from lmagent.http.async_network import AsyncNetwork
from lmagent.http.base import Clocks, Timeouts
from lmagent.http.network import Network, SocketStream, addresses_of


def reader(idle: float, total: float) -> tuple[SocketStream, socket.socket]:
    ours, theirs = socket.socketpair()
    clocks = Clocks()
    clocks.start(Timeouts(idle=idle), time.monotonic() + total)
    return SocketStream(ours, clocks), theirs


@pytest.mark.parametrize(("idle", "total", "which"), [(0.05, 9, "read"), (9, 0.05, "total")])
def test_a_wait_in_several_sleeps_ends_with_its_clock(monkeypatch, idle, total, which):
    # A signal that comes just before the sleep is heard only after it, so no sleep is long.
    monkeypatch.setattr(network, "POLL_INTERVAL", 0.02)
    stream, theirs = reader(idle, total)
    begun = time.monotonic()
    with theirs, pytest.raises(RequestTimeout) as caught:
        stream.read(1000)
    stream.close()
    assert caught.value.which == which
    assert 0.045 <= time.monotonic() - begun < 0.2


def test_what_comes_after_some_sleeps_is_read(monkeypatch):
    waits: list[float] = []
    reads: list[int] = []

    class Sleepy(socket.socket):
        def settimeout(self, value: float | None) -> None:
            waits.append(value or 0)
            super().settimeout(value)

        def recv(self, size: int, flags: int = 0) -> bytes:
            reads.append(size)
            if len(reads) == 3:
                theirs.sendall(b"late")
            return super().recv(size, flags)

    monkeypatch.setattr(network, "POLL_INTERVAL", 0.01)
    pair, theirs = socket.socketpair()
    clocks = Clocks()
    clocks.start(Timeouts(idle=9), time.monotonic() + 9)
    with theirs:
        stream = SocketStream(Sleepy(fileno=pair.detach()), clocks)
        assert stream.read(1000) == b"late"
        stream.close()
    assert len(reads) == 3
    assert waits == [0.01]  # set once: it is a system call


def _connect(host: str, port: int, timeouts: Timeouts, total: float = 9) -> None:
    opened = Network()
    opened.clocks.start(timeouts, time.monotonic() + total)
    opened.connect_tcp(host, port).close()


def _async_connect(host: str, port: int, timeouts: Timeouts, total: float = 9) -> None:
    async def main() -> None:
        opened = AsyncNetwork()
        opened.clocks.start(timeouts, time.monotonic() + total)
        (await opened.connect_tcp(host, port)).close()

    asyncio.run(main())


both = pytest.mark.parametrize("connects", [_connect, _async_connect], ids=["sync", "async"])


@contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """An address that takes no connection and refuses none: its queue is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()
        for filler in fillers:
            filler.close()


def named(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


@both
def test_a_dead_first_address_costs_at_most_300_ms(connects, monkeypatch):
    with silent_address() as dead, socket.create_server(("127.0.0.1", 0)) as alive:
        named(monkeypatch, dead, alive.getsockname())
        begun = time.monotonic()
        connects("two.example", 80, Timeouts())
        assert 0.2 < time.monotonic() - begun < 0.3


@both
def test_after_a_refused_address_the_next_one_is_tried_at_once(connects, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        refused = gone.getsockname()
    with socket.create_server(("127.0.0.1", 0)) as alive:
        named(monkeypatch, refused, refused, alive.getsockname())
        begun = time.monotonic()
        connects("three.example", 80, Timeouts())
        assert time.monotonic() - begun < 0.15


@both
def test_only_dead_addresses_end_with_the_connect_clock(connects, monkeypatch):
    with silent_address() as dead:
        named(monkeypatch, dead, dead)
        before = len(os.listdir("/dev/fd"))
        begun = time.monotonic()
        with pytest.raises(RequestTimeout) as caught:
            connects("dead.example", 80, Timeouts(connect=0.4))
        assert caught.value.which == "connect"
        assert 0.35 < time.monotonic() - begun < 0.8
        assert len(os.listdir("/dev/fd")) == before


def test_an_address_is_reached_while_the_first_one_is_still_silent(monkeypatch):
    """The first address answers late, the second never: the first one wins."""
    with silent_address() as dead, socket.create_server(("127.0.0.1", 0)) as alive:
        named(monkeypatch, alive.getsockname(), dead)
        _connect("x.example", 80, Timeouts())
        _async_connect("x.example", 80, Timeouts())


def test_families_take_turns(monkeypatch):
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(family, 1, 6, "", (name, 80)) for family, name in [(six, "a"), (six, "b"), (four, "c"), (four, "d")]]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert [each[4][0] for each in addresses_of("x.example", 80).result(1)] == ["a", "c", "b", "d"]


def test_nothing_is_left_of_a_connect_that_is_cancelled(monkeypatch):
    async def main(seconds: float) -> None:
        task = asyncio.ensure_future(asyncio.to_thread(lambda: None))
        await task  # the executor's thread is there
        before = len(os.listdir("/dev/fd"))
        opened = AsyncNetwork()
        opened.clocks.start(Timeouts(), time.monotonic() + 9)
        task = asyncio.create_task(opened.connect_tcp("two.example", 80))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.02)
        assert len(os.listdir("/dev/fd")) == before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with silent_address() as dead:
        named(monkeypatch, dead, dead)
        for seconds in (0.05, 0.25, 0.3):
            asyncio.run(main(seconds))


@both
@pytest.mark.parametrize(("connect_s", "total", "which"), [(0.05, 9, "connect"), (9, 0.05, "total")])
def test_a_name_server_that_is_silent_holds_nobody_up(connects, monkeypatch, connect_s, total, which):
    silent = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silent.wait(5) and [])
    begun = time.monotonic()
    with pytest.raises(RequestTimeout) as caught:
        connects("slow.example", 80, Timeouts(connect=connect_s), total)
    assert caught.value.which == which
    assert time.monotonic() - begun < 0.5
    silent.set()


@both
def test_a_name_without_addresses(connects, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(OSError, match="no address"):
        connects("none.example", 80, Timeouts())


@both
def test_a_name_that_cannot_be_looked_up(connects, monkeypatch):
    def refuse(host: str, *_, **__):
        host.encode("idna")  # as `socket.getaddrinfo` does

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OSError, match="looked up"):
        connects("a" * 70 + ".example", 80, Timeouts())
