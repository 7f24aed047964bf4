"""`CompletionEngine`: many prompts with bounded concurrency, rate limits and a journal.

The public class, its options and their checks. The run itself is `lmagent.engines.bulk.run`.
"""

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
"""Part of a minute (0.3 s) by which network delays of two requests may differ without breaking the rate limit."""
_PACE = 1.05
"""Starts are evenly spaced at up to 5% above the rate, so that time lost in a pause is regained in the minute."""


class CompletionEngine:
    """Ask a model, or run an agent, for each of many prompts.

        engine = CompletionEngine(OpenAIChat(), async_capacity=20, max_requests_per_minute=500, journal="run.db")
        for completion in engine.run(prompts):
            print(completion.id, completion.reply)
        print(engine.summary)

    With a journal, every answer is on disk before it is yielded. To resume a run that was killed, run it again with
    the same journal: only the items that were in flight are asked again (with an agent, their whole runs).

    Requests of nested agents and of other models that tools use bypass the engine's limits. To include them, give one
    `limiter=` to all of the models instead.

    Args:
        model_or_agent: The model to ask, or an agent to run. With an agent, each item is a whole run with tools.
        async_capacity: Maximum number of items in progress.
        max_requests_per_minute: Maximum number of requests in any 60 seconds. Retries and further rounds count too.
        max_tokens_per_minute: Maximum number of tokens in any 60 seconds, as far as can be estimated: a request
            reserves a quarter of its prompt's bytes plus `max_tokens` (without it: the length of recent long
            answers). The reported usage replaces the estimate when the answer arrives.
        error_mode: What happens to a failed item. `raise`: it stops the run and its error is raised. `return`: it is
            yielded with its `.error`. `skip`: it is only counted. Errors that every item would have (credentials,
            quota, unknown model, budget used up, disk full) stop the run and are raised in every mode.
        progress_bar: True (a bar on a terminal, lines elsewhere), `rich`, `plain`, or a function of the `Summary`.
        journal: Path of the file that stores finished items, created if missing; or your own `Journal`.
        in_order: Yield in the order of the input. False: in the order of completion.
        retry_failed: Which items that failed in an earlier run to ask again: `retryable` ones, all (True), or none.
        share_identical: Ask identical items once and use the answer for all of them.
        budget: Budget of the run; it may be shared with other runs and engines.
        prices: Model id -> `Price`, for the cost in the summary, if no `budget` with prices is given.
        adaptive: Whether to reduce concurrency when the provider is overloaded.
        limiter: A rate limiter shared with other engines or models, instead of the two limits: a `RateLimiter`, or
            your own `SharedLimiter`.
        track_in_doubt: Record each item before it is asked, so that a resumed run knows which items were in flight
            when the process was killed and may have been paid for.
        ask_in_doubt: Whether such items are asked again. False: they fail with a `JournalError`.
        on_change: What to do with a journal of another model, parameters or tools: `refuse` it, or `accept` it (its
            answers are kept, and items that do not match them are asked).
        grace: Seconds that items in progress may take to finish when a run stops.
        ahead: Maximum number of items taken before the oldest of them is yielded. Default: four times the capacity.
        **parameters: Model parameters; they override those of the model and the agent.

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
            raise ConfigurationError("Pass prices= or budget=, not both; with a budget: Budget(prices=...).")
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
        """Summary of the latest run, updated while it runs."""

    def _limits_of(self, requests: float | None, tokens: float | None, given: SharedLimiter | None) -> SharedLimiter:
        if given is not None and not isinstance(given, SharedLimiter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"limiter= must be a RateLimiter or a SharedLimiter, not {type(given).__name__}.")
        asked = requests is not None or tokens is not None
        own = own_limiter(self._target.model)
        if asked + (given is not None) + (own is not None) > 1:
            raise ConfigurationError(
                "Pass rate limits once: as limits of the engine, as its limiter=, or as the model's limiter=."
            )
        found = given or own
        return found or RateLimiter(requests, tokens, burst=2, slack=_SLACK, pace=_PACE)

    def run(self, prompts: Iterable[Any] | AsyncIterable[Any] | WorkSource) -> Generator[Completion]:
        """Yield one completion per item as they become ready. Works inside a running event loop too.

        A private event loop in one thread does the work; another thread takes the items from `prompts`, which may
        block. Closing the iterator, or leaving it in any other way, ends the run, its threads and its connections.
        With a journal, the first Ctrl-C lets items in progress finish and be stored, for at most `grace` seconds; a
        second one ends the run at once.

        Args:
            prompts: An iterable (also an infinite one) of prompts, or of dicts with `prompt`, `id` and `parameters`;
                or your own `WorkSource`.

        Raises:
            ConfigurationError: `prompts` is a single string.
            JournalError: The journal is locked, belongs to another program or model, or the disk is full.
            LMAgentError: The error that stopped the run; see `error_mode`.
        """
        source = prompts if isinstance(prompts, WorkSource) else LocalSource(prompts, in_thread=True)
        return iterate(lambda: self._completions(source, _total(prompts)), stop=self._on_ctrl_c)

    def async_run(self, prompts: Iterable[Any] | AsyncIterable[Any] | WorkSource) -> AsyncGenerator[Completion]:
        """Async version of `run`: uses the running event loop, also for taking the items.

        Use `contextlib.aclosing` if you may leave the iteration early.
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

    def _on_ctrl_c(self) -> bool:
        """Stop the run if a journal stores the results. False: there is no journal, or the run is stopping already."""
        if not self._keeps or any(run.asked_to_stop for _, run in self._running):
            return False
        self.stop()
        return True

    def stop(self) -> None:
        """Stop the runs in progress: no new item is asked. Call it from any thread or signal handler.

        Items in progress may finish within the grace time; they are stored and yielded, then the iterator ends.
        """
        for loop, run in list(self._running):
            run.asked_to_stop = True
            loop.call_soon_threadsafe(run.stop)


def _check(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")


def _check_number(name: str, value: object, kind: type[int] | type[float], least: int) -> None:
    wanted = int if kind is int else int | float
    if not isinstance(value, wanted) or not value >= least:  # not `value < least`: false for NaN
        raise ConfigurationError(
            f"{name} must be {'an integer' if kind is int else 'a number'} of at least {least}, not {value!r}."
        )


def _journal_of(given: str | PathLike[str] | Journal | None, share_identical: bool) -> Callable[[], Journal] | None:
    """Return a factory for the journal of a run. Each run opens the file, so a second run finds it locked."""
    if given is None and not share_identical:
        return None
    if given is None or isinstance(given, str | PathLike):
        return partial(SQLiteJournal, given)
    if not isinstance(given, Journal):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"journal= must be a path or a Journal, not {type(given).__name__}.")
    return lambda: given


def _total(prompts: object) -> int | None:
    return len(prompts) if isinstance(prompts, Sized) else None


T = TypeVar("T")

_BUFFER = 64


class _Channel(deque[T]):
    """A bounded queue from the event loop's thread to the reader's thread."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.over = False
        self.failure: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.has_space: asyncio.Event | None = None

    async def fill(self, make: Callable[[], AsyncGenerator[T]]) -> None:
        """Add the items that the iterator yields; wait while the queue is full."""
        self.loop, self.task, self.has_space = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
        with self.changed:
            self.changed.notify()
        async with aclosing(make()) as items:
            async for item in items:
                with self.changed:
                    self.append(item)
                    self.changed.notify()
                    full = len(self) >= _BUFFER
                    if full:
                        self.has_space.clear()
                if full:
                    await self.has_space.wait()

    def read(self) -> Generator[T]:
        while True:
            with self.changed:
                while not self and not self.over:
                    self.changed.wait(POLL_INTERVAL)
                if not self:
                    break
                item = self.popleft()
                wake = len(self) == _BUFFER // 2
            if wake and self.loop is not None and self.has_space is not None:
                with suppress(RuntimeError):  # the loop is closed
                    self.loop.call_soon_threadsafe(self.has_space.set)
            yield item
        if self.failure is not None:
            raise self.failure

    def cancel(self) -> None:
        """Cancel `fill`; wait until it has begun if necessary."""
        with self.changed:
            while self.task is None and not self.over:
                self.changed.wait()
        if self.loop is not None and self.task is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.task.cancel)


def iterate(make: Callable[[], AsyncGenerator[T]], *, stop: Callable[[], bool] = lambda: False) -> Generator[T]:
    """Iterate over the async iterator of `make()` from sync code, also inside a running event loop.

    A private event loop runs it in a thread that ends with the iteration: at its end, an error, `close()` or Ctrl-C.

    Args:
        make: Creates the async iterator, in its event loop.
        stop: Called at the first Ctrl-C. True: the iterator is stopping; its remaining items are discarded. A second
            Ctrl-C cancels it.
    """
    channel: _Channel[T] = _Channel()
    context = copy_context()

    def work() -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(channel.fill(make), context=context)
        except asyncio.CancelledError:
            pass  # the reader left
        except BaseException as error:  # re-raised in the reader's thread
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
