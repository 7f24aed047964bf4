"""The pieces that the machines of a distributed run would share, as protocols; each has one local implementation.

`WorkSource` (work.py), `Admission` (gate.py) and `JournalStore` (journal.py). A run asks for nothing else, so an
engine that spreads work over machines replaces these three and leaves the rest as it is.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmagent.messages import Message

__all__ = ["Admission", "JournalStore", "Row", "Work", "WorkSource"]


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


class WorkSource(Protocol):
    """Gives each item to one worker."""

    async def take(self) -> Work | None:
        """Return the next item, None at the end."""
        ...

    async def aclose(self) -> None:
        """Take no more."""
        ...


class Admission(Protocol):
    """Says when the next item may start: limits, concurrency, pauses."""

    async def enter(self, tokens: float) -> bool:
        """Wait until an item may start; False: nothing starts any more."""
        ...

    def leave(self, error: Exception | None) -> None:
        """An item that entered is over."""
        ...

    def stop(self) -> None:
        """Let nobody in any more; those who wait hear False."""
        ...


class JournalStore(Protocol):
    """Keeps what is finished, durably. Every method but the futures' wait is quick."""

    def claim(self, base: str) -> str:
        """Return the key of the next item whose hash is `base`: the n-th of its equals."""
        ...

    def find(self, key: str) -> Row | None:
        """Return what an earlier run kept under `key`."""
        ...

    def begin(self, key: str) -> Future[None]:
        """Note that `key` is about to be asked; done when that is on disk."""
        ...

    def put(self, row: Row) -> Future[None]:
        """Keep a finished item; done when it is on disk."""
        ...

    def close(self) -> None:
        """Commit what was put and free everything."""
        ...
