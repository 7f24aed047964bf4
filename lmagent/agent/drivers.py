"""The four drivers of the agent loop: they perform the steps of flow.py, in two colours, streamed or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import field, replace
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

from lmagent.agent.loop import Approve, AskModel, PausedRun, RunState, RunStep, RunTools
from lmagent.agent.result import Approver, Decision, Deny, Pause, RunResult, as_decision
from lmagent.core.async_bridge import in_thread, run_coroutine
from lmagent.core.events import (
    Event,
    RunEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolDecided,
    ToolEnd,
    ToolStart,
)
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.messages import Reply, SystemMessage, ToolCall, ToolMessage
from lmagent.errors import LMAgentError
from lmagent.observe.hooks import UNSEEN, Hooks, NoopSpan, RunTracer, SpanContext
from lmagent.providers.base import ChatCall
from lmagent.toolkit.context import RunContext, ToolOutcome
from lmagent.toolkit.schema import ToolSpec

if TYPE_CHECKING:
    from lmagent.agent.agent import Agent

__all__ = ["Handoff", "Job", "async_drive", "async_stream", "drive", "stream"]


class Handoff(str):
    """What a tool returns to hand the conversation to another agent; as a text it is the tool's result."""

    __slots__ = ("agent",)
    agent: Agent

    def __new__(cls, agent: Agent) -> Handoff:
        made = super().__new__(cls, f"Handed over to {agent.name}.")
        made.agent = agent
        return made


@fast_dataclass(kw_only=True)
class Job:
    """One run in progress: the flow and what its steps need."""

    agent: Agent
    """Who answers; a hand-off changes it."""
    state: RunState
    flow: Generator[RunStep, Any, RunResult]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    system: tuple[SystemMessage, ...] = ()
    specs: tuple[ToolSpec, ...] = ()
    hooks: Hooks = Hooks()
    deps: Any = None
    approve: Approver | None = None
    approval_timeout: float | None = None
    stream: bool = False
    emit: Callable[[Any], None] | None = None
    watch: RunTracer | None = None
    shared: dict[str, Any] = field(default_factory=dict[str, Any])
    """The `state` of the run context."""

    def call(self, step: AskModel) -> ChatCall:
        """Return the question of a step."""
        messages = (*self.system, *step.messages) if self.system else step.messages
        return ChatCall(
            messages=messages,
            tools=self.specs,
            parameters=self.parameters,
            tool_choice=step.tool_choice,
            output_schema=step.output_schema,
            stream=self.stream,
            meter=self.state.budget,
            position=len(messages),
            repair=self.agent.tool_settings["repair"],
        )

    def context(self, step: RunTools | None = None) -> RunContext[Any]:
        """Return what tools and approvers may know of the run."""
        state = self.state
        return RunContext(
            deps=self.deps,
            messages=state.history.messages,
            round=step.round if step else state.rounds,
            usage=state.usage,
            budget=state.budget,
            agent_name=self.agent.name,
            emit=self.emit,
            approve=self.approve,
            resumed=state.resumed.nested if state.resumed else {},
            state=self.shared,
            around=self.watch.tool if self.watch else None,
        )

    def asking(self, call: ChatCall) -> SpanContext | NoopSpan:
        """Return the context in which a question is put."""
        if self.watch is None:
            return UNSEEN
        return self.watch.sight("model", call, agent=self.agent.name, model_id=self.agent.model.model_id)

    def note(self, event: Event) -> None:
        """Tell those who watch what the flow decided."""
        if self.watch and isinstance(event, ToolDecided):
            self.watch.decided(event)

    def take_outcomes(self, outcomes: Sequence[ToolOutcome]) -> None:
        """Change the agent when a tool handed the conversation over."""
        target = next((outcome.value for outcome in outcomes if isinstance(outcome.value, Handoff)), None)
        if target is not None:
            self.agent = target.agent
            self.agent.take_over(self)


class _Keeping:
    """Puts the run so far on an error that leaves, so that nothing is lost; tells those who watch when it is over."""

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        job = self._job
        agent = job.agent
        job.watch = RunTracer.over(
            job.hooks.observers,
            agent=agent.name,
            model_id=agent.model.model_id,
            given=lambda: job.state.history.since(job.state.start),
            system=agent.system_prompt,
        )

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        state = self._job.state
        if isinstance(error, LMAgentError) and getattr(error, "run", None) is None:
            state.requests += getattr(error, "attempts", 0)
            error.run = state.result()
        watch = self._job.watch
        if watch is not None:
            watch.end(watch.span, state.result(), error)


def drive(job: Job) -> RunResult:
    """Run to the end."""
    outcome: Any = None
    with _Keeping(job), closing(job.flow):
        while True:
            try:
                step = job.flow.send(outcome)
            except StopIteration as stop:
                return stop.value
            match step:
                case AskModel():
                    outcome = _ask(job, step)
                case RunTools():
                    outcome = _run_tools(job, step)
                case Approve():
                    outcome = [_decide(job, call) for call in step.calls]
                case _:
                    outcome = None
                    job.note(step)
                    if job.emit:
                        job.emit(step)


async def async_drive(job: Job) -> RunResult:
    """Run to the end, asynchronous."""
    outcome: Any = None
    with _Keeping(job), closing(job.flow):
        while True:
            try:
                step = job.flow.send(outcome)
            except StopIteration as stop:
                return stop.value
            match step:
                case AskModel():
                    outcome = await _async_ask(job, step)
                case RunTools():
                    outcome = await _async_run_tools(job, step)
                case Approve():
                    outcome = [await _async_decide(job, call) for call in step.calls]
                case _:
                    outcome = None
                    job.note(step)
                    if job.emit:
                        job.emit(step)


def stream(job: Job) -> Iterator[Event]:
    """Yield events to the end. What a nested run emits comes when its tool has ended."""
    outcome: Any = None
    nested: list[Any] = []
    job.emit = nested.append
    with _Keeping(job), closing(job.flow):
        while True:
            try:
                step = job.flow.send(outcome)
            except StopIteration as stop:
                if job.watch:  # now: a reader may leave at the last event
                    job.watch.end(job.watch.span, stop.value)
                yield RunEnd(stop.value)
                return
            match step:
                case AskModel():
                    call = _changed(job, "before_model", job.call(step))
                    asked = cast("Any", job.agent.model.exchange.stream(call))
                    with job.asking(call) as seen, closing(asked) as items:
                        try:
                            for item in items:
                                if type(item) is Reply:
                                    outcome = _changed(job, "after_model", seen(item))
                                else:
                                    yield _named(job, item) if type(item) in _OF_CALLS else item
                        except LMAgentError as error:
                            _changed(job, "on_error", error)
                            raise
                case RunTools():
                    for call in step.calls:
                        yield ToolStart(call)
                    outcome = _run_tools(job, step)
                    yield from nested
                    nested.clear()
                    for call, ended in zip(step.calls, outcome, strict=True):
                        if not isinstance(ended.value, PausedRun):
                            yield _tool_end(call, ended)
                case Approve():
                    outcome = [_decide(job, call) for call in step.calls]
                case _:
                    outcome = None
                    job.note(step)
                    yield step


async def async_stream(job: Job) -> AsyncIterator[Event]:
    """Yield events to the end, asynchronous; events of nested runs come as they happen."""
    outcome: Any = None
    with _Keeping(job), closing(job.flow):
        while True:
            try:
                step = job.flow.send(outcome)
            except StopIteration as stop:
                if job.watch:  # now: a reader may leave at the last event
                    job.watch.end(job.watch.span, stop.value)
                yield RunEnd(stop.value)
                return
            match step:
                case AskModel():
                    call = await _async_changed(job, "before_model", job.call(step))
                    asked = cast("Any", job.agent.model.exchange.async_stream(call))
                    with job.asking(call) as seen:
                        async with aclosing(asked) as items:
                            try:
                                async for item in items:
                                    if type(item) is Reply:
                                        outcome = await _async_changed(job, "after_model", seen(item))
                                    else:
                                        yield _named(job, item) if type(item) in _OF_CALLS else item
                            except LMAgentError as error:
                                await _async_changed(job, "on_error", error)
                                raise
                case RunTools():
                    for call in step.calls:
                        yield ToolStart(call)
                    async with aclosing(_watched_tools(job, step)) as items:
                        async for item in items:
                            if isinstance(item, list):
                                outcome = cast("list[ToolOutcome]", item)
                            else:
                                yield item
                    for call, ended in zip(step.calls, outcome, strict=True):
                        if not isinstance(ended.value, PausedRun):
                            yield _tool_end(call, ended)
                case Approve():
                    outcome = [await _async_decide(job, call) for call in step.calls]
                case _:
                    outcome = None
                    job.note(step)
                    yield step


_OF_CALLS = frozenset((ToolCallStart, ToolCallDelta, ToolCallEnd))


def _named(job: Job, event: Any) -> Any:
    """Give an event of a call the id that the call has in the history."""
    id = job.state.own_id(event.id)
    if id == event.id:
        return event
    if isinstance(event, ToolCallEnd):
        return ToolCallEnd(id, event.index, replace(event.call, id=id))
    return replace(event, id=id)


async def _watched_tools(job: Job, step: RunTools) -> AsyncGenerator[Any]:
    """Run tools and yield what nested runs emit meanwhile; last the list of outcomes."""
    import asyncio  # sync programs never pay for it

    queue: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def emit(event: Any) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, event)  # tools may run on threads

    job.emit = emit
    task = asyncio.ensure_future(_async_run_tools(job, step))
    end = object()
    task.add_done_callback(lambda _: loop.call_soon(queue.put_nowait, end))
    try:
        while (item := await queue.get()) is not end:
            yield item
        yield task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _tool_end(call: ToolCall, outcome: ToolOutcome) -> ToolEnd:
    message = ToolMessage(outcome.content, tool_call_id=outcome.call_id, name=outcome.name, is_error=outcome.is_error)
    return ToolEnd(call, message, outcome.duration)


def _ask(job: Job, step: AskModel) -> Reply:
    call = _changed(job, "before_model", job.call(step))
    try:
        with job.asking(call) as seen:
            reply = seen(job.agent.model.exchange.ask(call))
    except LMAgentError as error:
        _changed(job, "on_error", error)
        raise
    return _changed(job, "after_model", reply)


async def _async_ask(job: Job, step: AskModel) -> Reply:
    call = await _async_changed(job, "before_model", job.call(step))
    try:
        with job.asking(call) as seen:
            reply = seen(await job.agent.model.exchange.async_ask(call))
    except LMAgentError as error:
        await _async_changed(job, "on_error", error)
        raise
    return await _async_changed(job, "after_model", reply)


def _run_tools(job: Job, step: RunTools) -> list[ToolOutcome]:
    calls = [_changed(job, "before_tool", call) for call in step.calls] if job.hooks.before_tool else step.calls
    outcomes = job.agent.tools.run(calls, **_tool_settings(job, step))
    if job.watch:
        job.watch.outcomes(calls, outcomes)
    if job.hooks.after_tool:
        outcomes = [_changed(job, "after_tool", outcome) for outcome in outcomes]
    job.take_outcomes(outcomes)
    return outcomes


async def _async_run_tools(job: Job, step: RunTools) -> list[ToolOutcome]:
    calls: Sequence[Any] = step.calls
    if job.hooks.before_tool:
        calls = [await _async_changed(job, "before_tool", call) for call in calls]
    outcomes = await job.agent.tools.async_run(calls, **_tool_settings(job, step))
    if job.watch:
        job.watch.outcomes(calls, outcomes)
    if job.hooks.after_tool:
        outcomes = [await _async_changed(job, "after_tool", outcome) for outcome in outcomes]
    job.take_outcomes(outcomes)
    return outcomes


def _tool_settings(job: Job, step: RunTools) -> dict[str, Any]:
    return {"context": job.context(step), **job.agent.tool_settings}


def _changed(job: Job, point: str, value: Any) -> Any:
    """Call the hooks of one point; what a hook returns takes the value's place, `None` leaves it."""
    for hook in getattr(job.hooks, point):
        answer = hook(value)
        value = _taken(point, value, _waited(answer) if isawaitable(answer) else answer)
    return value


async def _async_changed(job: Job, point: str, value: Any) -> Any:
    for hook in getattr(job.hooks, point):
        answer = getattr(hook, "async_form", hook)(value)
        value = _taken(point, value, await answer if isawaitable(answer) else answer)
    return value


def _taken(point: str, value: Any, answer: Any) -> Any:
    """Return what a point goes on with after a hook answered."""
    if answer is None or point == "on_error":
        return value
    if not isinstance(answer, type(value)):
        raise TypeError(f"A hook of {point} returns a {type(value).__name__} or None, not {answer!r:.80}.")
    return answer


def _decide(job: Job, call: ToolCall) -> tuple[Decision, str]:
    """Return the decision on one call and who made it."""
    if job.approve is None:
        return Pause(), "nobody"
    if job.approval_timeout is not None:
        return run_coroutine(lambda: _async_decide(job, call))
    try:
        answer = job.approve(call, replace(job.context(), tool_call=call))
        return as_decision(_waited(answer) if isawaitable(answer) else answer), "approver"
    except Exception as error:  # the user's approver
        return _failed(call, error)


async def _async_decide(job: Job, call: ToolCall) -> tuple[Decision, str]:
    if job.approve is None:
        return Pause(), "nobody"
    approve = partial(job.approve, call, replace(job.context(), tool_call=call))
    try:
        if job.approval_timeout is None:
            answer = approve()
            return as_decision(await answer if isawaitable(answer) else answer), "approver"
        import asyncio  # sync programs never pay for it

        async with asyncio.timeout(job.approval_timeout):
            answer = await in_thread(approve)
            return as_decision(await answer if isawaitable(answer) else answer), "approver"
    except TimeoutError:
        return Deny("Not allowed: nobody decided in time."), "nobody"
    except Exception as error:  # the user's approver
        return _failed(call, error)


def _waited(awaitable: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await awaitable

    return run_coroutine(wait)


def _failed(call: ToolCall, error: Exception) -> tuple[Decision, str]:
    """An approver that raises has not allowed anything; the program learns why from the log."""
    from lmagent.core.redaction import library_logger

    library_logger("agent").warning("the approver raised %s for %s", type(error).__name__, call.name, exc_info=error)
    return Deny("Not allowed: the approval could not be decided."), "approver"
