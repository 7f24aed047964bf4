"""The items of a bulk run, the three protocols that can be replaced, and the local work source.

`WorkSource`, `SharedLimiter` and `Journal` are what several machines would share. Their local implementations are
`LocalSource` (here), `RateLimiter` and `SQLiteJournal`.
"""

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
from lmagent.core.messages import Message, as_messages, message_to_dict
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
    """One item of the input in its normal form."""

    index: int
    id: str
    messages: tuple[Message, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    problem: Exception | None = None
    """Error in the item itself; such an item fails without a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished item as a journal stores it: plain JSON values."""

    key: str
    index: int
    id: str
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    retryable: bool = False
    """Whether a resumed run asks a failed item again by default."""
    attempts: int = 0
    started: float = 0.0
    """Seconds since 1970."""
    finished: float = 0.0


@runtime_checkable
class WorkSource(Protocol):
    """Provide the items of a run, each to one worker. Indexes may have gaps; a run yields in the order of `take`."""

    async def take(self) -> Work | None:
        """Return the next item, None at the end. Not re-entrant: one pending call at a time."""
        ...

    async def aclose(self) -> None:
        """Release the source; `take` is not called again."""
        ...


@runtime_checkable
class SharedLimiter(Protocol):
    """The rate limits of one API key, shared by all of its users: decides when a request may start.

    `now` is the caller's monotonic clock. Waits are durations in seconds, so an implementation on another machine can
    use its own clock.
    """

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited. False: every `tokens` argument is 0."""
        ...

    def peek(self, now: float, tokens: float) -> float:
        """Return how long a request booked now would wait. An estimate: another run may book first."""
        ...

    def book(self, now: float, tokens: float) -> Permit:
        """Reserve the next slot and return its permit without waiting."""
        ...

    def pause(self, seconds: float) -> None:
        """Block new requests for `seconds`."""
        ...


@runtime_checkable
class Journal(Protocol):
    """Store finished items durably. One run at a time opens it, and closes it at its end."""

    @property
    def known(self) -> int:
        """Number of items stored by earlier runs."""
        ...

    @property
    def in_doubt(self) -> int:
        """Number of items that an earlier run began and did not finish."""
        ...

    def open(self, fingerprint: Mapping[str, Any], *, accept_change: bool) -> None:
        """Begin a run.

        Args:
            fingerprint: Settings that all items share, by name: model, parameters, tools; plain JSON values.
            accept_change: Whether to use a journal that has another fingerprint. It is safe: items are found by their
                own keys, so an answer is never used for another question.

        Raises:
            JournalError: The journal has another fingerprint, is in use, or cannot be opened.
        """
        ...

    def ordinal(self, base: str) -> int:
        """Count an item with the hash `base`; return how many identical items came before it in this run."""
        ...

    def find(self, key: str) -> Row | None:
        """Return the stored item of `key`, or None."""
        ...

    def is_in_doubt(self, key: str) -> bool:
        """Whether an earlier run began `key` and did not finish it."""
        ...

    def begin(self, key: str) -> Awaitable[None]:
        """Record that `key` is about to be asked; done when it is on disk."""
        ...

    def put(self, row: Row) -> Awaitable[None]:
        """Store a finished item and replace an older row of its key; done when it is on disk."""
        ...

    def close(self) -> None:
        """End the run: commit pending items and release all resources."""
        ...


_END: Any = object()


class LocalSource:
    """Take the items from an iterable or an async iterable.

    Args:
        prompts: Prompts, or mappings with `prompt` (or `messages`), `id` and `parameters`.
        in_thread: Whether to read an iterable without a length, which may block, in a separate thread.

    Raises:
        ConfigurationError: `prompts` is a single string or dict, or is not iterable.
    """

    def __init__(self, prompts: Any, *, in_thread: bool = False) -> None:
        self._next = 0
        self._iterator: Iterator[Any] | None = None
        self._async_iterator: AsyncIterator[Any] | None = None
        if isinstance(prompts, str | bytes | Mapping):
            raise ConfigurationError("prompts must be an iterable of prompts; put a single prompt into a list.")
        if hasattr(prompts, "__aiter__"):
            self._async_iterator = aiter(prompts)
        elif in_thread and isinstance(prompts, Iterable) and not isinstance(prompts, Sized):
            self._async_iterator = InThread(iter(cast("Iterable[Any]", prompts)))
        elif isinstance(prompts, Iterable):
            self._iterator = iter(cast("Iterable[Any]", prompts))
        else:
            raise ConfigurationError(f"prompts must be an iterable of prompts, not {type(prompts).__name__}.")

    async def take(self) -> Work | None:
        """Return the next item, None at the end. Exceptions of the iterable propagate unchanged."""
        if self._iterator is not None:
            item = next(self._iterator, _END)
        else:
            item = await anext(cast("AsyncIterator[Any]", self._async_iterator), _END)
        if item is _END:
            return None
        index, self._next = self._next, self._next + 1
        return read_item(item, index)

    async def aclose(self) -> None:
        """Close the iterable if it is a generator."""
        if isgenerator(self._iterator):
            self._iterator.close()
        if isasyncgen(self._async_iterator) or isinstance(self._async_iterator, InThread):
            await self._async_iterator.aclose()


_RESERVE = 32
"""Items read ahead: waking the thread for each item would cost more than most items do."""
_CLOSE_TIMEOUT = 1.0
"""Seconds that closing waits for a blocked iterator; its thread ends when the iterator returns."""


class InThread(AsyncIterator[Any]):
    """Read an iterator in a thread. Not re-entrant: one pending `anext` at a time."""

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
        self._reserve.append((_END, None))  # a later `anext` finds the end again
        raise failure or StopAsyncIteration

    def _work(self) -> None:
        item, failure = None, None
        while item is not _END and not self._closed:
            try:
                item = next(self._iterator, _END)
            except BaseException as error:  # re-raised in the event loop's thread
                item, failure = _END, error
            with self._changed:
                self._reserve.append((item, failure))
                self._wake()
                while len(self._reserve) >= _RESERVE and not self._closed:
                    self._changed.wait()  # until the buffered items are used up
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
            with suppress(RuntimeError):  # the loop is closed
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    async def aclose(self) -> None:
        """Close the iterator if it is a generator, and end the thread."""
        if self._thread is None:
            return
        with self._changed:
            self._closed = True
            self._waiter = over = asyncio.get_running_loop().create_future()
            self._changed.notify()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await over
                self._thread.join()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # the waiting task may have been cancelled
        waiter.set_result(None)


_FIELDS = {"prompt", "messages", "id", "parameters"}


def read_item(item: Any, index: int) -> Work:
    """Convert an item to `Work`. An item that cannot be read becomes `Work` with a `problem`."""
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
                    f"Item {index} must have 'prompt' (or 'messages') and may have 'id' and 'parameters'; "
                    f"it has {sorted(str(key) for key in fields)}."
                )
            name = str(fields["id"]) if fields.get("id") is not None else name
            given = fields["prompt"] if "prompt" in fields else fields["messages"]
            found: Any = fields.get("parameters") or {}
            if not isinstance(found, Mapping):
                raise MessageError(f"The parameters of item {index} must be a dict, not {type(found).__name__}.")
            parameters = dict(cast("Mapping[str, Any]", found))
        return Work(index=index, id=name, messages=as_messages(given), parameters=parameters)
    except (MessageError, TypeError) as error:
        problem = error if isinstance(error, MessageError) else MessageError(f"Item {index}: {error}")
        return Work(index=index, id=name, problem=problem)


def canonical(value: Any) -> str:
    """Return plain values as canonical JSON: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)


def identity(frame: str, messages: tuple[Message, ...], parameters: Mapping[str, Any]) -> str:
    """Return the hash of everything that determines an answer.

    Args:
        frame: Canonical form of the settings that all items share: model, tools, instructions.
        messages: Messages of the item.
        parameters: Parameters of the item; they override the defaults.
    """
    text = canonical([[message_to_dict(message) for message in messages], dict(parameters)])
    return blake2b(f"{frame}\n{text}".encode(), digest_size=16).hexdigest()
