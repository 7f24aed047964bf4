"""Run tool calls: one or many, synchronous or asynchronous, within time and size limits.

Theory of operation. `prepare` finds out whether a call can run: it validates the arguments and gives a `PreparedCall`,
or a `ToolOutcome` that tells the model what is wrong. An approval may stand between preparing and running. Running
never raises for a tool that fails: every exception of its body becomes an outcome. Only KeyboardInterrupt, SystemExit
and cancellation pass through.

Several calls run in stages (`_stages`): calls of one stage run at the same time, at most `max_concurrent` of them; a
sequential tool is a stage of its own. Outcomes are kept in call order.

- A synchronous run calls a single synchronous tool in place, without a thread, unless it has a timeout of its own.
  Otherwise each call has a daemon thread. A thread cannot be killed: after its timeout the call is answered and the
  thread is dropped. Async tools run on one event loop for the whole run (`core.async_bridge.shared_loop`), beside the
  synchronous ones of their stage. With `in_thread=False` a synchronous tool always runs in the caller's thread, before
  the others of its stage.
- An asynchronous run awaits coroutines in its loop and puts synchronous bodies into threads, unless `in_thread=False`.
  Cancelling stops the waiting, not the thread.

Generators are collected (`Collector`) until they are exhausted, out of time or over the size limits; between two items
a dropped thread can be stopped. A wrapper that looks synchronous may return an awaitable: it is awaited afterwards.

Over 400 lines because the synchronous and the asynchronous form of each step stand side by side.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from dataclasses import replace
from queue import Empty, SimpleQueue
from time import perf_counter
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from lmagent.core.async_bridge import POLL_INTERVAL, in_loop, run_coroutine, shared_loop
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import InvalidArguments, ToolError
from lmagent.toolkit.context import MAX_RESULT_CHARS, OutcomeKind, RunContext, ToolOutcome, cut, failure_text, render
from lmagent.toolkit.tool import Tool, is_awaitable

if TYPE_CHECKING:
    from lmagent.toolkit.arguments import BoundArguments
    from lmagent.toolkit.definitions import Plan

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "MAX_CONCURRENT",
    "MAX_ITEMS",
    "MAX_ITEM_CHARS",
    "Call",
    "Collector",
    "Overdue",
    "PreparedCall",
    "async_run_all",
    "async_run_prepared",
    "prepare",
    "run_all",
    "run_prepared",
]

MAX_ITEMS = 100_000
"""How many items a generator may yield."""
MAX_ITEM_CHARS = 16 * 1024 * 1024
"""How much text or bytes they may have together."""


class Overdue(Exception):
    """A generator still had items when the time of its call was over."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Collector:
    """Takes the items of one generator. A thread cannot be killed, but between two items it can be stopped.

    Args:
        seconds: How long the call may take; None: no limit.
        started: When it began, as `perf_counter` tells it.
    """

    def __init__(self, seconds: float | None, started: float) -> None:
        self._seconds = seconds
        self._deadline = float("inf") if seconds is None else started + seconds
        self._items: list[Any] = []
        self._chars = 0
        self.is_dropped = False
        """Set from outside when the result is no longer awaited."""

    def collected(self, value: Any) -> Any:
        """Return the items of a generator as a list, and anything else as it is."""
        if not isinstance(value, GeneratorType):
            return value
        generator = cast("GeneratorType[Any, Any, Any]", value)
        try:
            for item in generator:
                self._take(item)
        finally:
            generator.close()
        return self._items

    async def async_collected(self, generator: AsyncGeneratorType[Any, Any]) -> list[Any]:
        """Return the items of an async generator."""
        try:
            async for item in generator:
                self._take(item)
        finally:
            await generator.aclose()
        return self._items

    def _take(self, item: Any) -> None:
        if self.is_dropped or perf_counter() > self._deadline:
            raise Overdue(self._seconds or 0.0)
        self._items.append(item)
        if isinstance(item, str | bytes):
            self._chars += len(item)
        if len(self._items) > MAX_ITEMS or self._chars > MAX_ITEM_CHARS:
            raise ToolError(
                f"the tool was stopped: it yielded more than {MAX_ITEMS} items or {MAX_ITEM_CHARS} characters"
            )


DEFAULT_TIMEOUT_S = 60.0
MAX_CONCURRENT = 8
T = TypeVar("T")


class Call(Protocol):
    """The fields of a call that running needs; `lmagent.core.messages.ToolCall` has it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> str: ...


@fast_dataclass()  # not frozen, as BoundArguments
class PreparedCall:
    """A call whose tool is found and whose arguments are valid. An approval may stand between this and the run."""

    call: Any
    tool: Tool[..., Any]
    plan: Plan
    arguments: BoundArguments


def prepare(call: Call, tool: Tool[..., Any], repair: bool = False) -> PreparedCall | ToolOutcome:
    """Validate the arguments; what is wrong with them is an outcome for the model."""
    problem = getattr(call, "problem", "")  # a `ToolCall` that was cut or could not be read says so
    if problem:
        return ToolOutcome(call.id, call.name, problem, True, kind="invalid_arguments")
    plan, text = tool.plan, call.arguments
    try:
        if type(text) is str:
            arguments = plan.read(plan.name, text, repair, plan.options.max_argument_bytes)
        else:
            arguments = tool.validate(text, repair=repair)
    except InvalidArguments as error:
        return ToolOutcome(call.id, call.name, str(error), True, kind="invalid_arguments", error=error)
    return PreparedCall(call, tool, plan, arguments)


# Deciding


def _context_for(prepared: PreparedCall, context: RunContext[Any] | None) -> RunContext[Any] | None:
    """Return the run context with the call in it, if the tool wants one."""
    if not prepared.plan.supplies:
        return None
    return replace(context if context is not None else RunContext(), tool_call=prepared.call)


def _finish(prepared: PreparedCall, value: Any, started: float) -> ToolOutcome:
    call, options = prepared.call, prepared.plan.options
    repairs = prepared.arguments.repairs
    try:
        content = render(value)
    except Exception as error:  # serialising runs the user's own code, too
        _, why = failure_text(error, expose=options.expose_errors)
        text = f"the result of {call.name} cannot be written as JSON ({why})"
        return ToolOutcome(
            call.id, call.name, text, True, None, perf_counter() - started, "unserialisable", repairs, error
        )
    limit = options.max_result_chars or MAX_RESULT_CHARS
    if len(content) > limit:
        content = cut(content, limit)
    return ToolOutcome(call.id, call.name, content, False, value, perf_counter() - started, "ok", repairs)


def _fail(prepared: PreparedCall, error: BaseException, started: float) -> ToolOutcome:
    if isinstance(error, Overdue):
        return _timed_out(prepared, error.seconds, started)
    kind, text = failure_text(error, expose=prepared.plan.options.expose_errors)
    limit = prepared.plan.options.max_result_chars or MAX_RESULT_CHARS
    return _error(prepared, kind, cut(text, limit), started, error)


def _is_failure(error: BaseException, requested: int | None = None) -> bool:
    """Return whether what a body raised is a failed call: an exception, or a CancelledError of the tool's own.

    Args:
        error: What was raised.
        requested: In a task: how often it had been asked to cancel before the body began.
    """
    if isinstance(error, Exception):
        return True
    asyncio = sys.modules.get("asyncio")  # without it loaded there is no such error
    if asyncio is None or not isinstance(error, asyncio.CancelledError):
        return False
    return requested is None or _cancel_requests() == requested


def _cancel_requests() -> int:
    import asyncio

    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _timed_out(prepared: PreparedCall, seconds: float, started: float) -> ToolOutcome:
    return _error(prepared, "timeout", f"{prepared.call.name} timed out after {seconds:g} seconds", started, None)


def _error(
    prepared: PreparedCall, kind: OutcomeKind, text: str, started: float, error: BaseException | None
) -> ToolOutcome:
    call = prepared.call
    duration = perf_counter() - started
    return ToolOutcome(call.id, call.name, text, True, None, duration, kind, prepared.arguments.repairs, error)


def _timeout_of(prepared: PreparedCall, default: float | None) -> float | None:
    own = prepared.plan.options.timeout
    return default if own is None else own


def _stages(items: Sequence[PreparedCall | ToolOutcome]) -> Iterable[list[tuple[int, PreparedCall]]]:
    """Yield what may run together, in order: a sequential tool is a stage of its own."""
    stage: list[tuple[int, PreparedCall]] = []
    for place, item in enumerate(items):
        if isinstance(item, ToolOutcome):
            continue
        if item.plan.options.sequential:
            if stage:
                yield stage
            yield [(place, item)]
            stage = []
        else:
            stage.append((place, item))
    if stage:
        yield stage


# Synchronous


def run_prepared(
    prepared: PreparedCall, *, context: RunContext[Any] | None = None, default_timeout: float | None = DEFAULT_TIMEOUT_S
) -> ToolOutcome:
    """Run one call."""
    plan = prepared.plan
    if plan.is_async:
        return run_coroutine(lambda: async_run_prepared(prepared, context=context, default_timeout=default_timeout))
    if not plan.options.in_thread or _is_untimed(plan, default_timeout):
        return _run_in_place(prepared, context, _timeout_of(prepared, default_timeout), perf_counter())
    [(_, outcome)] = _run_stage([(0, prepared)], context, 1, default_timeout)
    return outcome


def _is_untimed(plan: Plan, default_timeout: float | None) -> bool:
    return plan.options.timeout is None and default_timeout in (None, DEFAULT_TIMEOUT_S)


def _run_in_place(
    prepared: PreparedCall, context: RunContext[Any] | None, timeout: float | None, started: float
) -> ToolOutcome:
    if context is None or context.around is None:
        return _run_untraced(prepared, context, timeout, started)
    with context.around(prepared.call) as seen:
        return seen(_run_untraced(prepared, context, timeout, started))


def _run_untraced(
    prepared: PreparedCall, context: RunContext[Any] | None, timeout: float | None, started: float
) -> ToolOutcome:
    value: Any = None  # an injected context manager may swallow what the body raises
    try:
        if prepared.plan.managed:
            with ExitStack() as cleanup:
                value = prepared.tool.start(
                    prepared.arguments, context=_context_for(prepared, context), cleanup=cleanup
                )
                value = _whole(value, timeout, started)
        else:
            value = prepared.tool.start(prepared.arguments, context=_context_for(prepared, context))
            if type(value) is not str:
                value = _whole(value, timeout, started)
    except BaseException as error:  # the one place where a user's tool runs
        if not _is_failure(error):
            raise
        return _fail(prepared, error, started)
    return _finish(prepared, value, started)


def _whole(value: Any, timeout: float | None, started: float) -> Any:
    """Return what a body gave, waited for and collected."""
    if isinstance(value, GeneratorType):
        return Collector(timeout, started).collected(value)
    if isinstance(value, AsyncGeneratorType):
        items = cast("AsyncGeneratorType[Any, None]", value)
        return _waited_for(Collector(timeout, started).async_collected(items))
    return _waited_for(value) if is_awaitable(value) else value


def _waited_for(awaitable: Awaitable[T]) -> T:
    async def wait() -> T:
        return await awaitable

    return run_coroutine(wait)


def run_all(
    items: Sequence[PreparedCall | ToolOutcome],
    *,
    context: RunContext[Any] | None = None,
    max_concurrent: int = MAX_CONCURRENT,
    default_timeout: float | None = DEFAULT_TIMEOUT_S,
) -> list[ToolOutcome]:
    """Run many calls; outcomes in their order. Outcomes among them are handed on."""
    if len(items) == 1:  # as most replies have it
        (item,) = items
        if isinstance(item, PreparedCall):
            return [run_prepared(item, context=context, default_timeout=default_timeout)]
        return [item]
    outcomes: list[Any] = list(items)
    with shared_loop() as loop, in_loop(loop):
        for stage in _stages(items):
            in_place = [(place, p) for place, p in stage if not p.plan.is_async and not p.plan.options.in_thread]
            for place, prepared in in_place:  # in this thread, however many calls there are
                outcomes[place] = run_prepared(prepared, context=context, default_timeout=default_timeout)
            rest = [item for item in stage if item not in in_place] if in_place else stage
            for place, outcome in _run_beside(rest, context, max_concurrent, default_timeout):
                outcomes[place] = outcome
    return outcomes


def _run_beside(
    stage: list[tuple[int, PreparedCall]],
    context: RunContext[Any] | None,
    max_concurrent: int,
    default_timeout: float | None,
) -> Iterable[tuple[int, ToolOutcome]]:
    """Run the calls of a stage at the same time: on an event loop if one of them is async, else in threads."""
    if len(stage) <= 1:
        return [(place, run_prepared(p, context=context, default_timeout=default_timeout)) for place, p in stage]
    if not any(prepared.plan.is_async for _, prepared in stage):
        return _run_stage(stage, context, max_concurrent, default_timeout)
    calls = [prepared for _, prepared in stage]
    outcomes = run_coroutine(
        lambda: async_run_all(calls, context=context, max_concurrent=max_concurrent, default_timeout=default_timeout)
    )
    return zip([place for place, _ in stage], outcomes, strict=True)


@fast_dataclass()
class _Job:
    place: int
    prepared: PreparedCall
    started: float
    timeout: float | None

    @property
    def deadline(self) -> float:
        return float("inf") if self.timeout is None else self.started + self.timeout


def _run_stage(
    stage: list[tuple[int, PreparedCall]],
    context: RunContext[Any] | None,
    max_concurrent: int,
    default_timeout: float | None,
) -> Iterable[tuple[int, ToolOutcome]]:
    """Run calls in a thread each, at most `max_concurrent` at once, and drop those that take too long."""
    waiting = deque(stage)
    running: dict[int, _Job] = {}
    done: SimpleQueue[tuple[int, ToolOutcome | BaseException]] = SimpleQueue()
    finished: list[tuple[int, ToolOutcome]] = []
    while waiting or running:
        while waiting and len(running) < max_concurrent:
            place, prepared = waiting.popleft()
            job = _Job(place, prepared, perf_counter(), _timeout_of(prepared, default_timeout))
            running[place] = job
            _in_thread(
                lambda job=job: _run_in_place(job.prepared, context, job.timeout, job.started),
                lambda r, job=job: done.put((job.place, r)),
            )
        nearest = min(job.deadline for job in running.values())
        try:
            place, result = done.get(timeout=max(0.0, min(POLL_INTERVAL, nearest - perf_counter())))
        except Empty:
            now = perf_counter()
            for job in [job for job in running.values() if job.deadline <= now]:
                del running[job.place]
                finished.append((job.place, _timed_out(job.prepared, cast("float", job.timeout), job.started)))
            continue
        if running.pop(place, None) is None:
            continue  # its time was over
        if isinstance(result, BaseException):
            raise result  # KeyboardInterrupt, SystemExit: never an outcome
        finished.append((place, result))
    return finished


def _in_thread(work: Callable[[], ToolOutcome], report: Callable[[ToolOutcome | BaseException], None]) -> None:
    """Start a daemon thread with the caller's context variables."""
    context = copy_context()

    def body() -> None:
        try:
            result: ToolOutcome | BaseException = context.run(work)
        except BaseException as error:  # carried over to the waiting thread
            result = error
        report(result)

    threading.Thread(target=body, name="lmagent-tool", daemon=True).start()


# Asynchronous


async def async_run_prepared(
    prepared: PreparedCall, *, context: RunContext[Any] | None = None, default_timeout: float | None = DEFAULT_TIMEOUT_S
) -> ToolOutcome:
    """Run one call in the running event loop."""
    import asyncio  # a program of synchronous runs never pays for it

    plan, started = prepared.plan, perf_counter()
    timeout = _timeout_of(prepared, default_timeout)
    collector = Collector(timeout, started)
    if not plan.is_async and not plan.options.in_thread:
        return await _run_in_loop(prepared, context, started, collector)
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            if plan.is_async or plan.options.async_form is not None:
                outcome = await _run_in_loop(prepared, context, started, collector)
            else:
                outcome = await _run_beside_loop(prepared, context, collector)
    except TimeoutError:
        if not limit.expired():
            raise
        return _timed_out(prepared, cast("float", timeout), started)
    # A body may swallow the cancellation, or hold up the loop so long that there was none: late all the same.
    if limit.expired() or (timeout is not None and outcome.duration >= timeout):
        return _timed_out(prepared, cast("float", timeout), started)
    return outcome


async def _run_in_loop(
    prepared: PreparedCall, context: RunContext[Any] | None, started: float, collector: Collector
) -> ToolOutcome:
    if context is None or context.around is None:
        return await _run_in_loop_untraced(prepared, context, started, collector)
    with context.around(prepared.call) as seen:
        return seen(await _run_in_loop_untraced(prepared, context, started, collector))


async def _run_in_loop_untraced(
    prepared: PreparedCall, context: RunContext[Any] | None, started: float, collector: Collector
) -> ToolOutcome:
    requested = _cancel_requests()
    value: Any = None  # as in `_run_untraced`
    try:
        async with AsyncExitStack() as cleanup:
            value = await prepared.tool.async_start(
                prepared.arguments, context=_context_for(prepared, context), cleanup=cleanup
            )
            if isinstance(value, AsyncGeneratorType):
                value = await collector.async_collected(cast("AsyncGeneratorType[Any, None]", value))
            value = collector.collected(value)
    except BaseException as error:  # the asynchronous twin of the one place where a user's tool runs
        if not _is_failure(error, requested):
            raise
        return _fail(prepared, error, started)
    return _finish(prepared, value, started)


async def _run_beside_loop(
    prepared: PreparedCall, context: RunContext[Any] | None, collector: Collector
) -> ToolOutcome:
    """Run a synchronous body in a thread; cancelling stops the waiting, not the thread."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[ToolOutcome] = loop.create_future()
    started = perf_counter()

    def settle(result: Any) -> None:
        if future.done():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    def report(result: Any) -> None:
        try:
            loop.call_soon_threadsafe(settle, result)
        except RuntimeError:  # the loop was closed while a dropped call still ran
            return

    def work() -> Any:
        if context is None or context.around is None:
            return run_body()
        with context.around(prepared.call) as seen:
            return seen(run_body())

    def run_body() -> Any:
        value: Any = None  # as in `_run_untraced`
        try:
            with ExitStack() as cleanup:
                value = prepared.tool.start(
                    prepared.arguments, context=_context_for(prepared, context), cleanup=cleanup
                )
                value = collector.collected(value)
                if is_awaitable(value) or isinstance(value, AsyncGeneratorType):
                    return _Unfinished(value, cleanup.pop_all())
        except BaseException as error:
            if not _is_failure(error):
                raise
            return _fail(prepared, error, started)
        return _finish(prepared, value, started)

    _in_thread(work, report)
    try:
        outcome: Any = await future
    finally:
        collector.is_dropped = True
    if isinstance(outcome, _Unfinished):  # a wrapper that looks synchronous around an async function
        requested = _cancel_requests()
        try:
            value: Any = outcome.value
            is_generator = isinstance(value, AsyncGeneratorType)
            rest = Collector(None, started)  # the loop's own time limit stands around it
            with outcome.cleanup:
                value = await (
                    rest.async_collected(cast("AsyncGeneratorType[Any, None]", value)) if is_generator else value
                )
        except BaseException as error:
            if not _is_failure(error, requested):
                raise
            return _fail(prepared, error, started)
        return _finish(prepared, value, started)
    return cast("ToolOutcome", outcome)


@fast_dataclass()
class _Unfinished:
    value: Any
    cleanup: ExitStack


async def async_run_all(
    items: Sequence[PreparedCall | ToolOutcome],
    *,
    context: RunContext[Any] | None = None,
    max_concurrent: int = MAX_CONCURRENT,
    default_timeout: float | None = DEFAULT_TIMEOUT_S,
) -> list[ToolOutcome]:
    """Run many calls in the running event loop; outcomes in their order. Cancelling cancels them all."""
    import asyncio

    outcomes: list[Any] = list(items)
    for stage in _stages(items):
        if len(stage) == 1:
            ((place, prepared),) = stage
            outcomes[place] = await async_run_prepared(prepared, context=context, default_timeout=default_timeout)
            continue
        waiting = deque(stage)

        async def work(waiting: deque[tuple[int, PreparedCall]] = waiting) -> None:
            while waiting:
                place, prepared = waiting.popleft()
                outcomes[place] = await async_run_prepared(prepared, context=context, default_timeout=default_timeout)

        workers = [asyncio.create_task(work()) for _ in range(min(max_concurrent, len(stage)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return outcomes
