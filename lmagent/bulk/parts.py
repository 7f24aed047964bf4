"""The pieces that the machines of a distributed run would share, as protocols; each has one local implementation.

`WorkSource` (`LocalSource`, work.py), `SharedLimiter` (`RateLimiter`, transport/limits.py) and `Journal`
(`SQLiteJournal`, journal.py). `CompletionEngine` takes any of them and a run asks them for nothing else. All calls come
from the run's event loop; those that are not awaited hold it up and so must be quick.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lmagent.asking.limits import Permit
from lmagent.core.messages import Message

__all__ = ["Journal", "Row", "SharedLimiter", "Work", "WorkSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One item of the input, read."""

    index: int
    id: str
    messages: tuple[Message, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    problem: Exception | None = None
    """Why it cannot be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished item, as a journal keeps it: plain JSON."""

    key: str
    index: int
    id: str
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    retryable: bool = False
    """Whether a failed item is asked again by a resumed run without being told so."""
    attempts: int = 0
    started: float = 0.0
    """Wall clock."""
    finished: float = 0.0


@runtime_checkable
class WorkSource(Protocol):
    """Gives each item to one worker. A run yields in the order in which it took; indexes may have gaps."""

    async def take(self) -> Work | None:
        """Return the next item, None at the end. Nobody calls it while another call waits."""
        ...

    async def aclose(self) -> None:
        """Take no more."""
        ...


@runtime_checkable
class SharedLimiter(Protocol):
    """The rate limits of a key, for all who use it: who may start when.

    Waits are in seconds, so an owner elsewhere goes by its own clock; `now` is the caller's monotonic clock.
    """

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited; else every `tokens` is 0."""
        ...

    def peek(self, now: float, tokens: float) -> float:
        """Return how long a request booked now would wait. A hint: another run may book first."""
        ...

    def book(self, now: float, tokens: float) -> Permit:
        """Take the next place; never waits for it."""
        ...

    def pause(self, seconds: float) -> None:
        """Let nobody start for so long."""
        ...


@runtime_checkable
class Journal(Protocol):
    """Keeps what is finished, durably. One run at a time opens it, and closes it at its end."""

    @property
    def known(self) -> int:
        """Items that earlier runs kept."""
        ...

    @property
    def in_doubt(self) -> int:
        """Items that an earlier run began and never finished."""
        ...

    def open(self, fingerprint: Mapping[str, Any], *, accept_change: bool) -> None:
        """Begin a run.

        Args:
            fingerprint: What all items share, by name: model, parameters, tools; plain JSON.
            accept_change: Whether a journal of another fingerprint is used nevertheless (items are found by their own
                keys, so nothing wrong is ever reused); else it is refused.

        Raises:
            JournalError: It is refused, in use, or cannot be opened.
        """
        ...

    def ordinal(self, base: str) -> int:
        """Count an item of this run whose hash is `base`; return how many of its equals came before."""
        ...

    def find(self, key: str) -> Row | None:
        """Return what is kept under `key`."""
        ...

    def is_in_doubt(self, key: str) -> bool:
        """Whether an earlier run began `key` and never finished it."""
        ...

    def begin(self, key: str) -> Awaitable[None]:
        """Note that `key` is about to be asked; done when that is on disk."""
        ...

    def put(self, row: Row) -> Awaitable[None]:
        """Keep a finished item, over an older row of its key; done when it is on disk."""
        ...

    def close(self) -> None:
        """End the run: commit what was put and free everything."""
        ...
