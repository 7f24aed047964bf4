"""The local work source: any iterable, read one item at a time. And what identifies an item in a journal."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from hashlib import blake2b
from inspect import isasyncgen, isgenerator
from typing import Any, Protocol, cast, runtime_checkable

from lmagent.asking.limits import Permit
from lmagent.core.messages import Message
from lmagent.core.prompts import as_messages, message_to_dict
from lmagent.errors import ConfigurationError, MessageError

__all__ = [
    "InThread",
    "Journal",
    "LocalSource",
    "Row",
    "SharedLimiter",
    "Work",
    "WorkSource",
    "canonical",
    "identity",
    "read_item",
]


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


_END: Any = object()


class LocalSource:
    """Takes items from an iterable or an async iterable.

    Args:
        prompts: Prompts, or mappings with `prompt` (or `messages`), `id` and `parameters`.
        in_thread: Whether an iterable of unknown length, which may wait for something, is read in a thread of its own.

    Raises:
        ConfigurationError: It is a single text, or nothing one can go through.
    """

    def __init__(self, prompts: Any, *, in_thread: bool = False) -> None:
        self._next = 0
        self._iterator: Iterator[Any] | None = None
        self._async_iterator: AsyncIterator[Any] | None = None
        if isinstance(prompts, str | bytes | Mapping):
            raise ConfigurationError("The prompts are an iterable of prompts; put a single one into a list.")
        if hasattr(prompts, "__aiter__"):
            self._async_iterator = aiter(prompts)
        elif in_thread and isinstance(prompts, Iterable) and not isinstance(prompts, Sized):
            self._async_iterator = InThread(iter(cast("Iterable[Any]", prompts)))
        elif isinstance(prompts, Iterable):
            self._iterator = iter(cast("Iterable[Any]", prompts))
        else:
            raise ConfigurationError(f"The prompts are an iterable of prompts, not {type(prompts).__name__}.")

    async def take(self) -> Work | None:
        """Return the next item, None at the end. What the iterable raises comes out as it is."""
        if self._iterator is not None:
            item = next(self._iterator, _END)
        else:
            item = await anext(cast("AsyncIterator[Any]", self._async_iterator), _END)
        if item is _END:
            return None
        index, self._next = self._next, self._next + 1
        return read_item(item, index)

    async def aclose(self) -> None:
        """Close a generator."""
        if isgenerator(self._iterator):
            self._iterator.close()
        if isasyncgen(self._async_iterator) or isinstance(self._async_iterator, InThread):
            await self._async_iterator.aclose()


_RESERVE = 32
"""Items taken before they are asked for: waking a thread for each would cost more than most items do."""
_PATIENCE = 1.0
"""Seconds that closing waits for an iterator that is waiting itself; its thread then ends when that wait does."""


class InThread(AsyncIterator[Any]):
    """Gives the items of an iterator. Nobody asks for one while another is asked for."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._reserve: deque[tuple[Any, BaseException | None]] = deque()
        self._changed = threading.Condition()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    async def __anext__(self) -> Any:
        if self._thread is None:
            work = copy_context().run
            self._thread = threading.Thread(target=work, args=(self._work,), name="lmagent-source", daemon=True)
            self._thread.start()
        while not self._reserve:
            waiter = None
            with self._changed:
                self._changed.notify()
                if not self._reserve:
                    self._waiter = waiter = asyncio.get_running_loop().create_future()
            if waiter is not None:
                await waiter
        item, failure = self._reserve.popleft()
        if item is not _END:
            return item
        self._reserve.append((_END, None))  # whoever asks again meets the end again
        raise failure or StopAsyncIteration

    def _work(self) -> None:
        item, failure = None, None
        while item is not _END and not self._closed:
            try:
                item = next(self._iterator, _END)
            except BaseException as error:  # carried over to the loop's thread
                item, failure = _END, error
            with self._changed:
                self._reserve.append((item, failure))
                self._wake()
                while len(self._reserve) >= _RESERVE and not self._closed:
                    self._changed.wait()  # until the reserve is used up
        with self._changed:
            while not self._closed:
                self._changed.wait()
        with suppress(Exception):
            if isgenerator(self._iterator):
                self._iterator.close()
        with self._changed:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with suppress(RuntimeError):  # the loop has gone
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    async def aclose(self) -> None:
        """Close a generator and end the thread."""
        if self._thread is None:
            return
        with self._changed:
            self._closed = True
            self._waiter = over = asyncio.get_running_loop().create_future()
            self._changed.notify()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await over
                self._thread.join()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # who waited may have been cancelled
        waiter.set_result(None)


_FIELDS = {"prompt", "messages", "id", "parameters"}


def read_item(item: Any, index: int) -> Work:
    """Return an item as work; what cannot be read is work with a problem."""
    name, given = str(index), item
    parameters: dict[str, Any] = {}
    try:
        if isinstance(item, Exception):
            raise item
        if isinstance(item, Mapping) and "role" not in item:
            fields = cast("Mapping[str, Any]", item)
            unknown = sorted(str(key) for key in fields.keys() - _FIELDS)
            if unknown or ("prompt" in fields) == ("messages" in fields):
                raise MessageError(
                    f"Item {index} is a dict with 'prompt' (or 'messages') and, if wanted, 'id' and 'parameters'; "
                    f"it has {sorted(str(key) for key in fields)}."
                )
            name = str(fields["id"]) if fields.get("id") is not None else name
            given = fields["prompt"] if "prompt" in fields else fields["messages"]
            found: Any = fields.get("parameters") or {}
            if not isinstance(found, Mapping):
                raise MessageError(f"The parameters of item {index} are a dict, not {type(found).__name__}.")
            parameters = dict(cast("Mapping[str, Any]", found))
        return Work(index=index, id=name, messages=as_messages(given), parameters=parameters)
    except (MessageError, TypeError) as error:
        problem = error if isinstance(error, MessageError) else MessageError(f"Item {index}: {error}")
        return Work(index=index, id=name, problem=problem)


def canonical(value: Any) -> str:
    """Return plain values in one form: keys sorted, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)


def identity(frame: str, messages: tuple[Message, ...], parameters: Mapping[str, Any]) -> str:
    """Return the hash of everything that decides on an answer.

    Args:
        frame: What all items share, in canonical form: model, tools, instructions.
        messages: Of the item.
        parameters: Of the item, over the defaults.
    """
    text = canonical([[message_to_dict(message) for message in messages], dict(parameters)])
    return blake2b(f"{frame}\n{text}".encode(), digest_size=16).hexdigest()
