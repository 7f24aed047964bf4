"""Blocking sockets: how long one sleep lasts, and what a wait in several sleeps adds up to."""

from __future__ import annotations

import socket
import time

import pytest

from lmagent.errors import RequestTimeout
from lmagent.transport import sockets
from lmagent.transport.base import Timeouts
from lmagent.transport.clocks import Clocks
from lmagent.transport.sockets import SocketStream


def reader(idle: float, total: float) -> tuple[SocketStream, socket.socket]:
    ours, theirs = socket.socketpair()
    clocks = Clocks()
    clocks.start(Timeouts(idle=idle), time.monotonic() + total)
    return SocketStream(ours, clocks), theirs


@pytest.mark.parametrize(("idle", "total", "which"), [(0.05, 9, "read"), (9, 0.05, "total")])
def test_a_wait_in_several_sleeps_ends_with_its_clock(monkeypatch, idle, total, which):
    # A signal that comes just before the sleep is heard only after it, so no sleep is long.
    monkeypatch.setattr(sockets, "NAP", 0.02)
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

    monkeypatch.setattr(sockets, "NAP", 0.01)
    pair, theirs = socket.socketpair()
    clocks = Clocks()
    clocks.start(Timeouts(idle=9), time.monotonic() + 9)
    with theirs:
        stream = SocketStream(Sleepy(fileno=pair.detach()), clocks)
        assert stream.read() == b"late"
        stream.close()
    assert naps == [0.01] * 3
