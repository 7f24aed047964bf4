"""One bulk run: `capacity` workers over one source, results in order or as completed.

A worker takes an item, finds it in the journal or asks the target, waits until the answer is on disk, delivers it, and
takes the next one. So a killed process loses at most the `capacity` items in flight. However a run ends, no task,
thread or connection is left.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from lmagent.agent.result import RunResult
from lmagent.core.budget import Budget
from lmagent.core.messages import Usage
from lmagent.engines.bulk.gate import Gate
from lmagent.engines.bulk.results import (
    Completion,
    Summary,
    check_finish,
    error_from_dict,
    is_fatal,
    row_of,
)
from lmagent.engines.bulk.target import Target
from lmagent.engines.bulk.work import Journal, Row, Work, WorkSource
from lmagent.errors import JournalError, LimitExceeded, LMAgentError

__all__ = ["BulkRun", "ErrorMode", "RetryFailed", "Settings"]

ErrorMode = Literal["raise", "return", "skip"]
RetryFailed: TypeAlias = bool | Literal["retryable"]


_CUT = ("length", "content_filter", "refusal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of a run; see `CompletionEngine`."""

    capacity: int
    error_mode: ErrorMode
    in_order: bool
    retry_failed: RetryFailed
    share_identical: bool
    track_in_doubt: bool
    ask_in_doubt: bool
    grace: float
    ahead: int


class BulkRun:
    """A single run: `async for completion in run.completions()`, once."""

    def __init__(
        self,
        target: Target,
        source: WorkSource,
        gate: Gate,
        journal: Journal | None,
        settings: Settings,
        budget: Budget,
        summary: Summary,
        tick: Callable[[Summary], None] | None,
        *,
        has_prices: bool,
    ) -> None:
        self._target = target.bound(gate)
        self._source = source
        self._gate = gate
        self._journal = journal
        self._settings = settings
        self._budget = budget
        self._spent = budget.spent
        self._summary = summary
        self._tick = tick
        self._has_prices = has_prices
        self._began = time.monotonic()
        self._taking = asyncio.Lock()
        self._slots = asyncio.Semaphore(settings.ahead)
        # Keyed by the order of taking: the indexes of a source may have gaps.
        self._taken = 0
        self._ready: dict[int, Completion | None] = {}
        self._arrived: deque[int] = deque()
        self._next = 0
        self._news = asyncio.Event()
        self._taker: asyncio.Task[Any] | None = None
        self._sharing: dict[str, asyncio.Future[Row]] = {}
        self._stopping = False
        self.asked_to_stop = False
        """Set from any thread before `stop` is called in the event loop."""
        self._fatal: BaseException | None = None
        self._fatal_place: int | None = None
        self._stopped_at = 0.0
        self._used = 0
        if journal is not None:
            summary.in_doubt = journal.in_doubt

    def stop(self, why: str = "asked to stop") -> None:
        """Start no more items; items in progress may finish within the grace time."""
        if not self._stopping:
            self._stopping = True
            self._stopped_at = time.monotonic()
            self._summary.stopped = why
            self._gate.stop()
            for _ in range(self._settings.capacity):
                self._slots.release()  # wake workers that wait for a slot
            if self._taker is not None:
                self._taker.cancel()
            self._news.set()

    async def completions(self) -> AsyncGenerator[Completion]:
        """Yield finished items. Raises the error that stops the run; closing the iterator cancels items in progress."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._settings.capacity)]
        ticking = asyncio.create_task(self._keep_ticking()) if self._tick else None
        try:
            while True:
                self._news.clear()
                over = all(worker.done() for worker in workers)
                for completion in self._take_ready():
                    self._slots.release()
                    if completion is not None:
                        yield completion
                if over and not self._has_ready():
                    break
                if not over and not await self._wait():
                    for worker in workers:
                        worker.cancel()
                    await asyncio.wait(workers)
            for worker in workers:
                if not worker.cancelled() and worker.exception() is not None and self._fatal is None:
                    self._fatal = worker.exception()
            if self._fatal is None and not self._stopping and self._journal is not None:
                self._summary.unused = max(self._journal.known - self._used, 0)
            if self._fatal is not None:
                raise self._fatal
        finally:
            self._stopping = True
            self._gate.stop()
            await _end([*workers, *([ticking] if ticking else [])])
            self._count()
            try:
                if self._journal is not None:
                    self._journal.close()
            finally:
                with suppress(RuntimeError):
                    await self._source.aclose()
                await self._target.model.aclose()

    # Consumer side.

    def _take_ready(self) -> list[Completion | None]:
        if not self._settings.in_order:
            taken = [self._ready.pop(place) for place in self._arrived]
            self._arrived.clear()
            return taken
        taken: list[Completion | None] = []
        while self._next in self._ready:
            if self._settings.error_mode == "raise" and self._next == self._fatal_place:
                break
            taken.append(self._ready.pop(self._next))
            self._next += 1
        return taken

    def _has_ready(self) -> bool:
        if not self._settings.in_order:
            return bool(self._arrived)
        if self._settings.error_mode != "raise" and self._stopping and self._ready and self._next not in self._ready:
            self._next = min(self._ready)  # items that were stopped before they were asked leave gaps
        return self._next in self._ready and not (
            self._settings.error_mode == "raise" and self._next == self._fatal_place
        )

    async def _wait(self) -> bool:
        """Wait for a change. Return False if the run is stopping and its grace time is over."""
        if not self._stopping:
            await self._news.wait()
            return True
        left = self._stopped_at + self._settings.grace - time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(left, 0)):
                await self._news.wait()
                return True
        return False

    async def _keep_ticking(self) -> None:
        assert self._tick is not None
        while True:
            self._count()
            self._tick(self._summary)
            await asyncio.sleep(0.5)

    def _count(self) -> None:
        """Update the summary."""
        spent, before, summary = self._budget.spent, self._spent, self._summary
        summary.requests = spent.requests - before.requests
        summary.usage = Usage(
            input_tokens=spent.input_tokens - before.input_tokens,
            output_tokens=spent.output_tokens - before.output_tokens,
            total_tokens=spent.tokens - before.tokens,
        )
        if self._has_prices:
            summary.cost = spent.cost - before.cost
        summary.seconds = time.monotonic() - self._began

    # Worker side.

    async def _work(self) -> None:
        try:
            while (taken := await self._take()) is not None:
                place, work = taken
                completion = await self._complete(work)
                if completion is None:
                    return
                self._deliver(place, completion)
        except Exception as error:
            self._stop_for(error, None)
        finally:
            # Deferred, because the task is not yet done here.
            asyncio.get_running_loop().call_soon(self._news.set)

    async def _take(self) -> tuple[int, Work] | None:
        async with self._taking:
            await self._slots.acquire()
            if self._stopping:
                return None
            self._taker = asyncio.current_task()
            try:
                work = await self._source.take()
            finally:
                self._taker = None
            if work is None:
                self._slots.release()
                return None
            self._summary.items += 1
            place, self._taken = self._taken, self._taken + 1
            return place, work

    def _deliver(self, place: int, completion: Completion) -> None:
        summary, error = self._summary, completion.error
        if error is None:
            summary.done += 1
            reason = completion.result.finish_reason if completion.result is not None else ""
            if reason in _CUT:
                summary.cut[reason] = summary.cut.get(reason, 0) + 1
        else:
            name = type(error).__name__
            summary.failed[name] = summary.failed.get(name, 0) + 1
        summary.from_journal += completion.from_journal
        if completion.from_journal and completion.usage is not None:
            summary.journal_usage += completion.usage
            if self._has_prices:
                cost = self._budget.cost_of(completion.model_id, completion.usage) or 0.0
                summary.journal_cost = (summary.journal_cost or 0.0) + cost
        if error is not None:
            stops = not completion.from_journal and (is_fatal(error) or self._is_spent(error))
            if stops or self._settings.error_mode == "raise":
                self._stop_for(error, place)
        skipped = error is not None and self._settings.error_mode == "skip"
        self._ready[place] = None if skipped else completion
        raised = self._settings.error_mode == "raise" and error is not None
        if raised and not self._settings.in_order:
            del self._ready[place]  # raised, not yielded
        else:
            self._arrived.append(place)
        self._news.set()

    def _is_spent(self, error: Exception) -> bool:
        """Whether the budget of the run is used up. (The limits of an agent stop only its item.)"""
        if not isinstance(error, LimitExceeded):
            return False
        limit = self._budget.limits.get(error.limit)
        return limit is not None and limit == error.value

    def _stop_for(self, error: BaseException, place: int | None) -> None:
        known = self._fatal_place
        earlier = known is not None and place is not None and place < known
        if self._fatal is None or (self._settings.in_order and earlier):
            self._fatal, self._fatal_place = error, place
        self.stop(f"{type(error).__name__}: {error}")

    async def _complete(self, work: Work) -> Completion | None:
        """Return the completion of an item, stored on disk; None if the run stopped before the item was asked."""
        if work.problem is not None:
            return Completion(index=work.index, id=work.id, error=work.problem)
        journal = self._journal
        if journal is None:
            return await self._ask(work, "")
        base = self._target.identity(work)
        ordinal = journal.ordinal(base)
        shares = self._settings.share_identical
        key = f"{base}-{0 if shares else ordinal}"
        known = journal.find(key)
        self._used += known is not None and (not ordinal or not shares)
        if known is not None and not self._asks_again(known):
            return self._read(work, known)
        if known is None and not self._settings.ask_in_doubt and journal.is_in_doubt(key):
            error = JournalError("This item was being asked when an earlier run was killed, and ask_in_doubt is False.")
            return Completion(index=work.index, id=work.id, error=error)
        if not shares:
            return await self._asked_and_kept(work, key, known)
        equal = self._sharing.get(key)
        if equal is not None:
            return self._read(work, await asyncio.shield(equal))
        shared = self._sharing[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._asked_and_kept(work, key, known, shared)
        finally:
            del self._sharing[key]
            shared.cancel()

    async def _asked_and_kept(
        self, work: Work, key: str, known: Row | None, shared: asyncio.Future[Row] | None = None
    ) -> Completion | None:
        self._summary.retried += known is not None
        outcome = await self._ask(work, key)
        if outcome is None:
            self._summary.retried -= known is not None
        elif shared is not None:
            shared.set_result(row_of(outcome, key, 0.0))
        return outcome

    def _asks_again(self, row: Row) -> bool:
        if row.result is not None:
            # Another version, or a custom journal, may have stored such an answer as done.
            return (row.result.get("run") or row.result).get("finish_reason") == "error"
        choice = self._settings.retry_failed
        return row.retryable if choice == "retryable" else choice

    def _read(self, work: Work, row: Row) -> Completion:
        made = Completion(index=work.index, id=work.id, from_journal=True, attempts=row.attempts)
        try:
            if row.result is None:
                assert row.error is not None
                return replace(made, error=error_from_dict(row.error))
            return replace(made, result=self._target.result_of(row))
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            raise JournalError(
                f"The journal's row of item {work.id!r} cannot be read; it is damaged or of another version. Use a "
                "copy of the journal, or another file."
            ) from error

    async def _ask(self, work: Work, key: str) -> Completion | None:
        """Ask the target and store the answer before returning it."""
        target, gate, journal = self._target, self._gate, self._journal
        try:
            parameters = target.parameters(work)
        except Exception as error:
            return Completion(index=work.index, id=work.id, error=error)
        if not await gate.enter(gate.estimate(target.size(work), parameters)):
            return None
        started, failure = time.time(), None
        made = Completion(index=work.index, id=work.id)
        try:
            if journal is not None and self._settings.track_in_doubt:
                await journal.begin(key)
            result = await target.ask(work, self._budget)
            requests = getattr(result, "requests", None) or getattr(result, "attempts", 1)
            made = replace(made, result=result, attempts=requests)
            check_finish(result)
            gate.learn(result.usage, requests)
        except Exception as error:  # including errors of a user's hook or tool: they fail this item only
            failure = error
            run = error.run if isinstance(error, LMAgentError) else None
            so_far = run if isinstance(run, RunResult) else None
            made = replace(made, error=error, result=made.result or so_far, attempts=getattr(error, "attempts", 0))
        finally:
            gate.leave(failure)
        if isinstance(failure, JournalError):
            raise failure
        # An item that failed because the budget is used up is not stored: the next run asks it.
        if journal is not None and not (failure is not None and self._is_spent(failure)):
            await journal.put(row_of(made, key, started))
        return made


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait for them, even if this coroutine is cancelled meanwhile."""
    for task in tasks:
        task.cancel()
    interrupted = None
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            interrupted = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # mark as retrieved: reported already, or irrelevant at the end
    if interrupted is not None:
        raise interrupted
