"""The four drivers of the agent loop: sync and async, plain and streamed.

A driver takes the steps of `agent_flow`, performs them, and sends back what came out. It decides nothing. What differs
between the four is how they wait and whether events reach the caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from dataclasses import replace
from functools import partial
from inspect import isawaitable
from typing import Any, cast

from lmagent.agent.loop import Approve, AskModel, RunTools, agent_flow
from lmagent.agent.result import Decision, Deny, Pause, RunResult, as_decision
from lmagent.agent.run import Handoff, PausedRun, Run
from lmagent.core.async_bridge import in_loop, in_thread, run_coroutine, shared_loop
from lmagent.core.events import Event, RunEnd, ToolCallDelta, ToolCallEnd, ToolCallStart, ToolEnd, ToolStart
from lmagent.core.messages import Reply, ToolCall, ToolMessage
from lmagent.errors import LMAgentError
from lmagent.providers.base import ChatCall
from lmagent.toolkit.context import RunContext, ToolOutcome

__all__ = ["async_drive", "async_stream", "drive", "stream"]


def drive(run: Run) -> RunResult:
    """Run to the end and return the result."""
    outcome: Any = None
    with run, shared_loop() as loop, in_loop(loop), closing(agent_flow(run)) as flow:
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                return stop.value
            match step:
                case AskModel():
                    outcome = _ask(run, step)
                case RunTools():
                    outcome = _run_tools(run, step)
                case Approve():
                    outcome = [_decide(run, call) for call in step.calls]
                case _:
                    outcome = None
                    run.notify(step)
                    if run.emit:
                        run.emit(step)


async def async_drive(run: Run) -> RunResult:
    """`drive`, asynchronous."""
    outcome: Any = None
    with run, closing(agent_flow(run)) as flow:
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                return stop.value
            match step:
                case AskModel():
                    outcome = await _async_ask(run, step)
                case RunTools():
                    outcome = await _async_run_tools(run, step)
                case Approve():
                    outcome = [await _async_decide(run, call) for call in step.calls]
                case _:
                    outcome = None
                    run.notify(step)
                    if run.emit:
                        run.emit(step)


def stream(run: Run) -> Iterator[Event]:
    """Yield the events of a run; the last has the result. Events of nested runs come when their tool has ended."""
    outcome: Any = None
    nested: list[Any] = []
    run.emit = nested.append
    with run, shared_loop() as loop, closing(agent_flow(run)) as flow:
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                if run.tracer:  # before the last event, as the reader may stop there
                    run.tracer.end(run.tracer.span, stop.value)
                yield RunEnd(stop.value)
                return
            match step:
                case AskModel():
                    with in_loop(loop):
                        call = _changed(run, "before_model", _chat_call(run, step))
                    asked = cast("Any", run.agent.model.exchange.stream(call))
                    with _span(run, call) as record, closing(asked) as items:
                        try:
                            for item in items:
                                if type(item) is Reply:
                                    with in_loop(loop):
                                        outcome = _changed(run, "after_model", record(item))
                                else:
                                    yield _named(run, item) if type(item) in _OF_CALLS else item
                        except LMAgentError as error:
                            with in_loop(loop):
                                _changed(run, "on_error", error)
                            raise
                case RunTools():
                    for call in step.calls:
                        yield ToolStart(call)
                    with in_loop(loop):
                        outcome = _run_tools(run, step)
                    yield from nested
                    nested.clear()
                    for call, ended in zip(step.calls, outcome, strict=True):
                        if not isinstance(ended.value, PausedRun):
                            yield _tool_end(call, ended)
                case Approve():
                    with in_loop(loop):
                        outcome = [_decide(run, call) for call in step.calls]
                case _:
                    outcome = None
                    run.notify(step)
                    yield step


async def async_stream(run: Run) -> AsyncIterator[Event]:
    """`stream`, asynchronous. Events of nested runs come as they happen."""
    outcome: Any = None
    with run, closing(agent_flow(run)) as flow:
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                if run.tracer:  # before the last event, as the reader may stop there
                    run.tracer.end(run.tracer.span, stop.value)
                yield RunEnd(stop.value)
                return
            match step:
                case AskModel():
                    call = await _async_changed(run, "before_model", _chat_call(run, step))
                    asked = cast("Any", run.agent.model.exchange.async_stream(call))
                    with _span(run, call) as record:
                        async with aclosing(asked) as items:
                            try:
                                async for item in items:
                                    if type(item) is Reply:
                                        outcome = await _async_changed(run, "after_model", record(item))
                                    else:
                                        yield _named(run, item) if type(item) in _OF_CALLS else item
                            except LMAgentError as error:
                                await _async_changed(run, "on_error", error)
                                raise
                case RunTools():
                    for call in step.calls:
                        yield ToolStart(call)
                    async with aclosing(_tools_with_events(run, step)) as items:
                        async for item in items:
                            if isinstance(item, list):
                                outcome = cast("list[ToolOutcome]", item)
                            else:
                                yield item
                    for call, ended in zip(step.calls, outcome, strict=True):
                        if not isinstance(ended.value, PausedRun):
                            yield _tool_end(call, ended)
                case Approve():
                    outcome = [await _async_decide(run, call) for call in step.calls]
                case _:
                    outcome = None
                    run.notify(step)
                    yield step


_OF_CALLS = frozenset((ToolCallStart, ToolCallDelta, ToolCallEnd))


def _named(run: Run, event: Any) -> Any:
    """Return the event with the id that its call has in the history."""
    id = run.own_id(event.id)
    if id == event.id:
        return event
    if isinstance(event, ToolCallEnd):
        return ToolCallEnd(id, event.index, replace(event.call, id=id))
    return replace(event, id=id)


async def _tools_with_events(run: Run, step: RunTools) -> AsyncGenerator[Any]:
    """Run tools and yield the events of nested runs meanwhile; the last item is the list of outcomes."""
    import asyncio  # not loaded by sync programs

    queue: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def emit(event: Any) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, event)  # tools may run on threads

    run.emit = emit
    task = asyncio.ensure_future(_async_run_tools(run, step))
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


def _chat_call(run: Run, step: AskModel) -> ChatCall:
    messages = (*run.system, *step.messages) if run.system else step.messages
    return ChatCall(
        messages=messages,
        tools=run.specs,
        parameters=run.parameters,
        tool_choice=step.tool_choice,
        output_schema=step.output_schema,
        stream=run.stream,
        meter=run.budget,
        position=len(messages),
        repair=run.agent.tool_settings["repair"],
    )


def _context(run: Run, round: int) -> RunContext[Any]:
    """Return what tools and approvers may know of the run."""
    return RunContext(
        deps=run.deps,
        messages=run.history.messages,
        round=round,
        usage=run.usage,
        budget=run.budget,
        agent_name=run.agent.name,
        emit=run.emit,
        approve=run.approve,
        resumed=run.resumed.nested if run.resumed else {},
        state=run.tool_state,
        around=run.tracer.tool if run.tracer else None,
    )


_NO_SPAN: AbstractContextManager[Callable[[Any], Any]] = nullcontext(lambda reply: reply)


def _span(run: Run, call: ChatCall) -> AbstractContextManager[Callable[[Any], Any]]:
    """Return the context of one request: its span, if the run is traced. It gives a function that takes the reply."""
    if run.tracer is None:
        return _NO_SPAN
    return run.tracer.request(call, agent=run.agent.name, model_id=run.agent.model.model_id)


def _take_handoff(run: Run, outcomes: Sequence[ToolOutcome]) -> None:
    """Change the agent if a tool handed the conversation over."""
    for outcome in outcomes:
        if isinstance(outcome.value, Handoff):
            outcome.value.agent.take_over(run)
            return


def _ask(run: Run, step: AskModel) -> Reply:
    call = _changed(run, "before_model", _chat_call(run, step))
    try:
        with _span(run, call) as record:
            reply = record(run.agent.model.exchange.ask(call))
    except LMAgentError as error:
        _changed(run, "on_error", error)
        raise
    return _changed(run, "after_model", reply)


async def _async_ask(run: Run, step: AskModel) -> Reply:
    call = await _async_changed(run, "before_model", _chat_call(run, step))
    try:
        with _span(run, call) as record:
            reply = record(await run.agent.model.exchange.async_ask(call))
    except LMAgentError as error:
        await _async_changed(run, "on_error", error)
        raise
    return await _async_changed(run, "after_model", reply)


def _run_tools(run: Run, step: RunTools) -> list[ToolOutcome]:
    calls = [_changed(run, "before_tool", call) for call in step.calls] if run.hooks.before_tool else step.calls
    outcomes = run.agent.tools.run(calls, **_tool_settings(run, step))
    if run.tracer:
        run.tracer.outcomes(calls, outcomes)
    if run.hooks.after_tool:
        outcomes = [_changed(run, "after_tool", outcome) for outcome in outcomes]
    _take_handoff(run, outcomes)
    return outcomes


async def _async_run_tools(run: Run, step: RunTools) -> list[ToolOutcome]:
    calls: Sequence[Any] = step.calls
    if run.hooks.before_tool:
        calls = [await _async_changed(run, "before_tool", call) for call in calls]
    outcomes = await run.agent.tools.async_run(calls, **_tool_settings(run, step))
    if run.tracer:
        run.tracer.outcomes(calls, outcomes)
    if run.hooks.after_tool:
        outcomes = [await _async_changed(run, "after_tool", outcome) for outcome in outcomes]
    _take_handoff(run, outcomes)
    return outcomes


def _tool_settings(run: Run, step: RunTools) -> dict[str, Any]:
    return {"context": _context(run, step.round), **run.agent.tool_settings}


def _changed(run: Run, point: str, value: Any) -> Any:
    """Call the hooks of one point. What a hook returns replaces the value; `None` keeps it."""
    for hook in getattr(run.hooks, point):
        answer = hook(value)
        value = _replaced(point, value, _wait_for(answer) if isawaitable(answer) else answer)
    return value


async def _async_changed(run: Run, point: str, value: Any) -> Any:
    for hook in getattr(run.hooks, point):
        answer = getattr(hook, "async_form", hook)(value)
        value = _replaced(point, value, await answer if isawaitable(answer) else answer)
    return value


def _replaced(point: str, value: Any, answer: Any) -> Any:
    """Return the value after a hook: its answer, checked, or the value itself."""
    if answer is None or point == "on_error":
        return value
    if not isinstance(answer, type(value)):
        raise TypeError(f"A hook of {point} returns a {type(value).__name__} or None, not {answer!r:.80}.")
    return answer


def _decide(run: Run, call: ToolCall) -> tuple[Decision, str]:
    """Return the decision on one call, and who made it."""
    if run.approve is None:
        return Pause(), "nobody"
    if run.approval_timeout is not None:
        return run_coroutine(lambda: _async_decide(run, call))
    try:
        answer = run.approve(call, replace(_context(run, run.rounds), tool_call=call))
        return as_decision(_wait_for(answer) if isawaitable(answer) else answer), "approver"
    except Exception as error:  # the user's approver
        return _denied(call, error)


async def _async_decide(run: Run, call: ToolCall) -> tuple[Decision, str]:
    if run.approve is None:
        return Pause(), "nobody"
    approve = partial(run.approve, call, replace(_context(run, run.rounds), tool_call=call))
    try:
        if run.approval_timeout is None:
            answer = approve()
            return as_decision(await answer if isawaitable(answer) else answer), "approver"
        import asyncio  # not loaded by sync programs

        async with asyncio.timeout(run.approval_timeout):
            answer = await in_thread(approve)
            return as_decision(await answer if isawaitable(answer) else answer), "approver"
    except TimeoutError:
        return Deny("Not allowed: there was no decision in time."), "nobody"
    except Exception as error:  # the user's approver
        return _denied(call, error)


def _wait_for(awaitable: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await awaitable

    return run_coroutine(wait)


def _denied(call: ToolCall, error: Exception) -> tuple[Decision, str]:
    """Deny a call whose approver raised, and log the error."""
    from lmagent.core.redaction import library_logger

    library_logger("agent").warning("the approver raised %s for %s", type(error).__name__, call.name, exc_info=error)
    return Deny("Not allowed: the approval could not be decided."), "approver"
