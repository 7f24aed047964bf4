"""`CompletionEngine`: many prompts, bounded, within rate limits, and never paid for twice."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping, Sized
from contextlib import aclosing, suppress
from contextvars import copy_context
from functools import partial
from os import PathLike
from typing import Any, Literal, TypeVar

from lmagent.agent.agent import Agent
from lmagent.asking.limits import RateLimiter
from lmagent.core.async_bridge import POLL_INTERVAL
from lmagent.core.budget import Budget, Price
from lmagent.engines.bulk.gate import Gate
from lmagent.engines.bulk.journal import SQLiteJournal
from lmagent.engines.bulk.results import Completion, Progress, ProgressBar, Summary, progress_of
from lmagent.engines.bulk.run import BulkRun, ErrorMode, RetryFailed, Settings
from lmagent.engines.bulk.target import Target, own_limiter
from lmagent.engines.bulk.work import Journal, LocalSource, SharedLimiter, WorkSource
from lmagent.errors import ConfigurationError
from lmagent.models.model import ChatModel

__all__ = ["CompletionEngine", "iterate"]


_SLACK = 0.005
"""Of a minute: 0.3 s by which one request may reach the server later after its start than another."""
_PACE = 1.05
"""Starts stay evenly spaced, at most a twentieth above the rate, and pauses are made up for within the minute."""


class CompletionEngine:
    """Asks a model, or runs an agent, for each of many prompts: `run`, `async_run`.

        engine = CompletionEngine(OpenAIChat(), async_capacity=20, max_requests_per_minute=500, journal="run.db")
        for completion in engine.run(prompts):
            print(completion.id, completion.reply)
        print(engine.summary)

    With a journal every answer is on disk before it is yielded. A run that was killed goes on where it was when it is
    run again with the same journal; only the items in flight are asked a second time (of an agent the whole run).

    What an agent's own tools ask of other models, nested agents included, passes the engine's limits by: give all of
    the models one `limiter=` instead.

    Args:
        model_or_agent: What is asked. An agent makes a whole run of each item, tools included.
        async_capacity: Items at once, at most.
        max_requests_per_minute: Most requests in any 60 seconds, repeats and an agent's further rounds included.
        max_tokens_per_minute: Most tokens in any 60 seconds, as far as they are known before: a request reserves a
            quarter of its prompt's bytes and `max_tokens` (else the longest answers of late), and is corrected by the
            usage when it is answered.
        error_mode: `raise`: the first failed item stops the run. `return`: it is yielded with its `.error`. `skip`: it
            is only counted. Errors that every item would meet (credentials, quota, no such model, a spent budget, a
            full disk) stop the run and are raised in each mode.
        progress_bar: True (a bar on a terminal, lines elsewhere), `rich`, `plain`, or a function of the `Summary`.
        journal: File that keeps what is finished, made when it is not there; or a `Journal` of your own.
        in_order: Yield in the order of the input; False: as they come.
        retry_failed: Of the items that failed in an earlier run, ask again: `retryable` ones, all (True), or none.
        share_identical: Ask equal items once and give all of them the answer.
        budget: What the run may spend; shared with whatever else uses it.
        prices: Model id -> `Price`, for the cost in the summary, when no `budget` with prices is given.
        adaptive: Whether concurrency gives way when the provider is overloaded.
        limiter: A rate limiter shared with other engines or models, instead of the two limits: a `RateLimiter`, or a
            `SharedLimiter` of your own.
        track_in_doubt: Write each item down before it is asked, so that a killed run knows what it may have paid for.
        ask_in_doubt: Whether such items are asked again; else they fail with a `JournalError`.
        on_change: A journal of another model, parameters or tools: `refuse`, or `accept` (its answers are kept, and
            asked anew are all items that they do not fit).
        grace: Seconds that running items may take to end when a run stops.
        ahead: How many items may be taken before the oldest of them is yielded; default four times the capacity.
        **parameters: Of the model, over its own and the agent's.

    Raises:
        ConfigurationError: A limit is not positive, an option is unknown, or limits are given twice.
        ParameterError: A parameter is unknown or out of range.
    """

    def __init__(
        self,
        model_or_agent: ChatModel | Agent,
        async_capacity: int = 5,
        max_requests_per_minute: float | None = None,
        max_tokens_per_minute: float | None = None,
        *,
        error_mode: ErrorMode = "raise",
        progress_bar: ProgressBar = False,
        journal: str | PathLike[str] | Journal | None = None,
        in_order: bool = True,
        retry_failed: RetryFailed = "retryable",
        share_identical: bool = False,
        budget: Budget | None = None,
        prices: Mapping[str, Price] | None = None,
        adaptive: bool = True,
        limiter: SharedLimiter | None = None,
        track_in_doubt: bool = False,
        ask_in_doubt: bool = True,
        on_change: Literal["refuse", "accept"] = "refuse",
        grace: float = 10.0,
        ahead: int | None = None,
        **parameters: object,
    ) -> None:
        _check("error_mode", error_mode, ("raise", "return", "skip"))
        _check("on_change", on_change, ("refuse", "accept"))
        _check("retry_failed", retry_failed, (True, False, "retryable"))
        _check_number("async_capacity", async_capacity, int, 1)
        _check_number("grace", grace, float, 0)
        if ahead is not None:
            _check_number("ahead", ahead, int, async_capacity)
        if budget is not None and prices is not None:
            raise ConfigurationError("Prices are the budget's when there is one: Budget(prices=...).")
        self._target = Target(model_or_agent, parameters)
        self._limits = self._limits_of(max_requests_per_minute, max_tokens_per_minute, limiter)
        self._settings = Settings(
            capacity=async_capacity,
            error_mode=error_mode,
            in_order=in_order,
            retry_failed=retry_failed,
            share_identical=share_identical,
            track_in_doubt=track_in_doubt,
            ask_in_doubt=ask_in_doubt,
            grace=grace,
            ahead=ahead if ahead is not None else max(4 * async_capacity, 64),
        )
        progress_of(progress_bar)
        self._progress_bar: ProgressBar = progress_bar
        self._journal = _journal_of(journal, share_identical)
        self._keeps = journal is not None
        self._budget = budget
        self._prices = prices
        self._adaptive = adaptive
        self._accept_change = on_change == "accept"
        self._running: list[tuple[asyncio.AbstractEventLoop, BulkRun]] = []
        self.summary = Summary()
        """Of the latest run; it grows while the run goes on."""

    def _limits_of(self, requests: float | None, tokens: float | None, given: SharedLimiter | None) -> SharedLimiter:
        if given is not None and not isinstance(given, SharedLimiter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"limiter= is a RateLimiter or a SharedLimiter, not {type(given).__name__}.")
        asked = requests is not None or tokens is not None
        own = own_limiter(self._target.model)
        if asked + (given is not None) + (own is not None) > 1:
            raise ConfigurationError(
                "Rate limits are given once: to the engine, as limiter=, or to the model (limiter=)."
            )
        found = given or own
        return found or RateLimiter(requests, tokens, burst=2, slack=_SLACK, pace=_PACE)

    def run(self, prompts: Iterable[Any] | AsyncIterable[Any] | WorkSource) -> Generator[Completion]:
        """Yield a completion an item, as they come; works inside a running event loop too.

        The work is done by a private event loop in one thread, and the items are taken from `prompts` in another, where
        they may wait for something. Closing the iterator, or leaving it in any other way, ends the run, the threads and
        its connections. With a journal Ctrl-C waits first, for `grace` seconds at most, and keeps what is running; a
        second one ends it at once.

        Args:
            prompts: Any iterable (also an endless one) of prompts, or of dicts with `prompt`, `id` and `parameters`; or
                a `WorkSource` of your own.

        Raises:
            ConfigurationError: The prompts are a single text.
            JournalError: The journal is locked, foreign or of another model, or the disk is full.
            LMAgentError: What stopped the run; see `error_mode`.
        """
        source = prompts if isinstance(prompts, WorkSource) else LocalSource(prompts, in_thread=True)
        return iterate(lambda: self._completions(source, _total(prompts)), stop=self._hear_ctrl_c)

    def async_run(self, prompts: Iterable[Any] | AsyncIterable[Any] | WorkSource) -> AsyncGenerator[Completion]:
        """`run`, asynchronous, in the running event loop, which takes the items as well.

        Use `contextlib.aclosing` when you may leave it early.
        """
        source = prompts if isinstance(prompts, WorkSource) else LocalSource(prompts)
        return self._completions(source, _total(prompts))

    async def _completions(self, source: WorkSource, total: int | None) -> AsyncGenerator[Completion]:
        summary = self.summary = Summary(total=total)
        journal = self._journal() if self._journal is not None else None
        if journal is not None:
            journal.open(self._target.fingerprint, accept_change=self._accept_change)
        tick = progress_of(self._progress_bar)
        budget = self._budget or Budget(prices=self._prices)
        gate = Gate(self._limits, self._settings.capacity, adaptive=self._adaptive)
        has_prices = budget.has_prices
        if has_prices:
            summary.cost = 0.0
        run = BulkRun(self._target, source, gate, journal, self._settings, budget, summary, tick, has_prices=has_prices)
        entry = (asyncio.get_running_loop(), run)
        self._running.append(entry)
        try:
            async with aclosing(run.completions()) as completions:
                async for completion in completions:
                    yield completion
        finally:
            self._running.remove(entry)
            if isinstance(tick, Progress):
                tick.close(summary)
            elif tick is not None:
                tick(summary)

    def _hear_ctrl_c(self) -> bool:
        """Let what runs end where it is kept; False: nothing is, or this was asked before."""
        if not self._keeps or any(run.asked_to_stop for _, run in self._running):
            return False
        self.stop()
        return True

    def stop(self) -> None:
        """End the runs in progress early, from any thread or signal handler: nothing new is asked.

        What runs may end within the grace time; it is kept and yielded, then the iterator ends.
        """
        for loop, run in list(self._running):
            run.asked_to_stop = True
            loop.call_soon_threadsafe(run.stop)


def _check(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}.")


def _check_number(name: str, value: object, kind: type[int] | type[float], least: int) -> None:
    wanted = int if kind is int else int | float
    if not isinstance(value, wanted) or not value >= least:  # the second way round, for NaN
        raise ConfigurationError(
            f"{name} is {'a whole' if kind is int else 'a'} number of at least {least}, not {value!r}."
        )


def _journal_of(given: str | PathLike[str] | Journal | None, share_identical: bool) -> Callable[[], Journal] | None:
    """Return what makes the journal of a run: a file's is each run's own, so that a second one meets its lock."""
    if given is None and not share_identical:
        return None
    if given is None or isinstance(given, str | PathLike):
        return partial(SQLiteJournal, given)
    if not isinstance(given, Journal):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"journal= is a path or a Journal, not {type(given).__name__}.")
    return lambda: given


def _total(prompts: object) -> int | None:
    return len(prompts) if isinstance(prompts, Sized) else None


T = TypeVar("T")

_BUFFER = 64


class _Channel(deque[T]):
    """Items on their way from the loop's thread to the reader's."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.over = False
        self.failure: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.room: asyncio.Event | None = None

    async def fill(self, make: Callable[[], AsyncGenerator[T]]) -> None:
        """Put in what the iterator yields; waits while the reader is behind."""
        self.loop, self.task, self.room = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
        with self.changed:
            self.changed.notify()
        async with aclosing(make()) as items:
            async for item in items:
                with self.changed:
                    self.append(item)
                    self.changed.notify()
                    full = len(self) >= _BUFFER
                    if full:
                        self.room.clear()
                if full:
                    await self.room.wait()

    def read(self) -> Generator[T]:
        while True:
            with self.changed:
                while not self and not self.over:
                    self.changed.wait(POLL_INTERVAL)
                if not self:
                    break
                item = self.popleft()
                wake = len(self) == _BUFFER // 2
            if wake and self.loop is not None and self.room is not None:
                with suppress(RuntimeError):  # closed meanwhile
                    self.loop.call_soon_threadsafe(self.room.set)
            yield item
        if self.failure is not None:
            raise self.failure

    def cancel(self) -> None:
        """End the filling; also one that has hardly begun."""
        with self.changed:
            while self.task is None and not self.over:
                self.changed.wait()
        if self.loop is not None and self.task is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.task.cancel)


def iterate(make: Callable[[], AsyncGenerator[T]], *, stop: Callable[[], bool] = lambda: False) -> Generator[T]:
    """Yield what the async iterator of `make()` yields, or raise what it raises.

    Args:
        make: Makes the async iterator, in its loop.
        stop: Asked at a Ctrl-C; True: the iterator is about to end, and runs to its end unheard. A second Ctrl-C
            closes it.
    """
    channel: _Channel[T] = _Channel()
    context = copy_context()

    def work() -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(channel.fill(make), context=context)
        except asyncio.CancelledError:
            pass  # the reader went away
        except BaseException as error:  # carried over to the reader's thread
            channel.failure = error
        finally:
            with channel.changed:
                channel.over = True
                channel.changed.notify()

    thread = threading.Thread(target=work, name="lmagent-bulk", daemon=True)
    thread.start()
    try:
        yield from channel.read()
    except KeyboardInterrupt:
        if stop():
            with suppress(Exception):
                deque(channel.read(), maxlen=0)
        raise
    finally:
        channel.cancel()
        thread.join()
