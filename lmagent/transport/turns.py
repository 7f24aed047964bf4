"""Turns: one at a time, first come first served, for threads and event loops together."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError

from lmagent.transport.clocks import in_naps, is_done

__all__ = ["Turns"]


class Turns:
    """A lock that a thread and the tasks of any event loop may wait for alike; waiting costs no polling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[Future[None]] = deque()

    def _join(self) -> Future[None] | None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return None
            place: Future[None] = Future()
            self._waiting.append(place)
            return place

    def take(self, seconds: float) -> bool:
        """Wait for the turn, at most so many seconds; False when it did not come."""
        place = self._join()
        if place is None:
            return True
        try:
            return in_naps(lambda nap: is_done(place, nap), seconds) or not self._leave(place)
        except BaseException:
            self._abandon(place)
            raise

    async def async_take(self, seconds: float) -> bool:
        """`take`, awaiting."""
        place = self._join()
        if place is None:
            return True
        import asyncio  # there already: someone runs a loop

        try:
            # Shielded: a cancelled wait must not cancel the place itself, or a turn that was just given would be lost.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(place)), seconds)
        except TimeoutError:
            return not self._leave(place)
        except BaseException:
            self._abandon(place)
            raise
        return True

    def _leave(self, place: Future[None]) -> bool:
        """Give up waiting; False when the turn had come in the same moment."""
        return place.cancel()

    def _abandon(self, place: Future[None]) -> None:
        if not self._leave(place):
            self.give()

    def give(self) -> None:
        """End the turn; the next in line has it."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._taken = False
                    return
                place = self._waiting.popleft()
            try:
                place.set_result(None)
            except InvalidStateError:  # that one gave up
                continue
            return
