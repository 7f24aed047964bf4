"""The agent: a model, tools and limits, and four thin drivers of the one loop in flow.py."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

from lmagent.context import RunContext
from lmagent.errors import LMAgentError
from lmagent.events import Event, RunEnd, ToolEnd, ToolStart
from lmagent.flow import (
    Allow,
    Approve,
    AskModel,
    Decision,
    Deny,
    Edit,
    Limits,
    Pause,
    RunResult,
    RunState,
    RunTools,
    Step,
    agent_flow,
)
from lmagent.history import History
from lmagent.messages import Message, Prompt, Reply, SystemMessage, ToolCall, ToolMessage
from lmagent.model import ChatModel, resolve_tool_choice
from lmagent.outcomes import ToolOutcome
from lmagent.output import OutputMode, TypedOutput
from lmagent.portal import run_coroutine
from lmagent.prompts import as_messages
from lmagent.providers.base import ChatCall, ToolChoice
from lmagent.registry import ToolRegistry
from lmagent.running import DEFAULT_TIMEOUT_S
from lmagent.schema import ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Agent", "Approver"]

Approver = Callable[[ToolCall, RunContext[Any]], Any]
"""Decides on one call: returns `Allow()`, `Deny(reason)`, `Edit(arguments)`, `Pause()` or a bool; may be async."""


@dataclass(slots=True, kw_only=True)
class _Job:
    """One run in progress: the flow and what its steps need."""

    state: RunState
    flow: Generator[Step, Any, RunResult]
    parameters: Mapping[str, Any]
    system: tuple[SystemMessage, ...]
    specs: tuple[ToolSpec, ...]
    deps: Any
    approve: Approver | None
    stream: bool = False
    emit: Callable[[Any], None] | None = None


class Agent:
    """Answers prompts with the help of tools: `run`, `async_run`, `stream_run`, `async_stream_run`.

        agent = Agent(OpenAIChat(), tools=[get_weather])
        print(agent.run("Weather in Shanghai?").reply)

    An agent holds no state of a run: any number of runs may go on at once, on threads and in tasks.

    Args:
        model: Any `ChatModel`.
        tools: Functions, tools, or a `ToolRegistry`. A function that can't be described is refused here.
        system_prompt: Instructions sent in front of every request; not part of the history.
        name: For traces and for agents used as tools.
        limits: Where runs end at the latest.
        tool_choice: `auto`, `required`, `none` or a tool's name; a forced choice holds for a run's first ask.
        output_type: What `.output` of a run is: a pydantic model, dataclass, TypedDict, Literal, union, list …
        output_mode: How it is asked for: `native` JSON schema, a forced `tool`, the `prompt`, or `auto`.
        approve: Decides on calls of tools that need approval; without it a run pauses at them.
        max_concurrent_tools: How many calls of one reply run at once.
        tool_timeout: Seconds for a tool without a timeout of its own; None: no limit. (A single synchronous tool of
            a synchronous run has only a limit of its own: see `ToolRegistry.run`.)
        repair: Mend broken JSON in arguments where that loses nothing; each repair is noted on the call.
        **parameters: Of the model, over its defaults.

    Raises:
        ConfigurationError: Two tools of one name, an unknown tool choice.
        FunctionDefinitionError: A function that cannot be described.
        ParameterError: A parameter that is unknown or out of range.
    """

    def __init__(
        self,
        model: ChatModel,
        tools: Iterable[Any] = (),
        *,
        system_prompt: str = "",
        name: str = "agent",
        limits: Limits | None = None,
        tool_choice: ToolChoice | str = "auto",
        output_type: Any = None,
        output_mode: OutputMode = "auto",
        approve: Approver | None = None,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = DEFAULT_TIMEOUT_S,
        repair: bool = True,
        **parameters: object,
    ) -> None:
        self.model = model
        self.tools = tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools)
        self.name = name
        self.limits = limits or Limits()
        self.approve = approve
        self.system_prompt = system_prompt
        self._system = (SystemMessage(system_prompt),) if system_prompt else ()
        self._tool_choice = resolve_tool_choice(tool_choice, self.tools.specs)
        self._max_concurrent_tools = max_concurrent_tools
        self._tool_timeout = tool_timeout
        self._repair = mend_arguments if repair else None
        self._output_mode: OutputMode = output_mode
        self._output = self._typed(output_type)
        self._parameters = model.check_parameters(parameters)

    def _typed(self, output_type: Any) -> TypedOutput | None:
        if output_type is None or output_type is str:
            return None
        return TypedOutput(output_type, self.model.codec.features, mode=self._output_mode, repair=self._repair)

    def _instructions(self, output: TypedOutput | None) -> tuple[SystemMessage, ...]:
        if output is None or not output.instruction:
            return self._system
        return (SystemMessage(f"{self.system_prompt}\n\n{output.instruction}".strip()),)

    def __repr__(self) -> str:
        return f"Agent({self.model.model_id!r}, tools={list(self.tools.names)})"

    def run(
        self,
        prompt: Prompt,
        *,
        history: History | Sequence[Message] | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        tool_choice: ToolChoice | str | None = None,
        output_type: Any = None,
        on_event: Callable[[Event], None] | None = None,
        **parameters: object,
    ) -> RunResult:
        """Answer one prompt, running tools as the model asks for them.

        Args:
            prompt: Text, a message, a dict, or a list of them.
            history: What was said before. A `History` grows as the run goes on, so that nothing a cancelled or
                failed run had done is lost; a sequence is copied.
            deps: Handed to tools that ask for a `RunContext`.
            limits: Instead of the agent's.
            tool_choice: Instead of the agent's.
            output_type: Instead of the agent's.
            on_event: Called with what happens between requests: rounds and tools.
            **parameters: Of the model, for this run.

        Raises:
            LimitExceeded: `.run` holds everything up to the limit.
            ProviderError: The provider failed; `.run` holds everything up to then.
            MessageError: The prompt has no known form.
        """
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, parameters, on_event=on_event)
        return self._drive(job)

    async def async_run(
        self,
        prompt: Prompt,
        *,
        history: History | Sequence[Message] | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        tool_choice: ToolChoice | str | None = None,
        output_type: Any = None,
        on_event: Callable[[Event], None] | None = None,
        **parameters: object,
    ) -> RunResult:
        """`run`, asynchronous."""
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, parameters, on_event=on_event)
        return await self._async_drive(job)

    def stream_run(
        self,
        prompt: Prompt,
        *,
        history: History | Sequence[Message] | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        tool_choice: ToolChoice | str | None = None,
        output_type: Any = None,
        **parameters: object,
    ) -> Iterator[Event]:
        """`run`, yielding events as they happen; the last is `RunEnd` with the result. See `lmagent.events`."""
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, parameters, stream=True)
        return self._stream(job)

    def async_stream_run(
        self,
        prompt: Prompt,
        *,
        history: History | Sequence[Message] | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        tool_choice: ToolChoice | str | None = None,
        output_type: Any = None,
        **parameters: object,
    ) -> AsyncIterator[Event]:
        """`stream_run`, asynchronous."""
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, parameters, stream=True)
        return self._async_stream(job)

    def _job(
        self,
        prompt: Prompt,
        history: History | Sequence[Message] | None,
        deps: Any,
        limits: Limits | None,
        tool_choice: ToolChoice | str | None,
        output_type: Any,
        parameters: Mapping[str, object],
        *,
        stream: bool = False,
        on_event: Callable[[Event], None] | None = None,
    ) -> _Job:
        messages = as_messages(prompt)
        record = history if isinstance(history, History) else History(history or ())
        record.answer_open_calls()
        start = len(record)
        record.extend(messages)
        choice = self._tool_choice if tool_choice is None else resolve_tool_choice(tool_choice, self.tools.specs)
        output = self._output if output_type is None else self._typed(output_type)
        state = RunState(
            history=record,
            clock=time.monotonic,
            limits=limits or self.limits,
            start=start,
            tool_choice=choice,
            output=output,
            needs_approval=self._needs_approval,
            canonical=canonical_arguments,
        )
        return _Job(
            state=state,
            flow=agent_flow(state),
            parameters=self.model.check_parameters(parameters, over=self._parameters),
            system=self._instructions(output),
            specs=(*self.tools.specs, output.tool) if output and output.tool else self.tools.specs,
            deps=deps,
            approve=self.approve,
            stream=stream,
            emit=on_event,
        )

    def _drive(self, job: _Job) -> RunResult:
        outcome: Any = None
        with closing(job.flow), _keeping(job.state):
            while True:
                try:
                    step = job.flow.send(outcome)
                except StopIteration as stop:
                    return stop.value
                match step:
                    case AskModel():
                        outcome = self.model.exchange.ask(_call(job, step))
                    case RunTools():
                        outcome = self._run_tools(job, step)
                    case Approve():
                        outcome = self._decide(job, step)
                    case _:
                        outcome = None
                        if job.emit:
                            job.emit(step)

    async def _async_drive(self, job: _Job) -> RunResult:
        outcome: Any = None
        with closing(job.flow), _keeping(job.state):
            while True:
                try:
                    step = job.flow.send(outcome)
                except StopIteration as stop:
                    return stop.value
                match step:
                    case AskModel():
                        outcome = await self.model.exchange.async_ask(_call(job, step))
                    case RunTools():
                        outcome = await self._async_run_tools(job, step)
                    case Approve():
                        outcome = await self._async_decide(job, step)
                    case _:
                        outcome = None
                        if job.emit:
                            job.emit(step)

    def _stream(self, job: _Job) -> Iterator[Event]:
        outcome: Any = None
        with closing(job.flow), _keeping(job.state):
            while True:
                try:
                    step = job.flow.send(outcome)
                except StopIteration as stop:
                    yield RunEnd(stop.value)
                    return
                match step:
                    case AskModel():
                        with closing(cast("Any", self.model.exchange.stream(_call(job, step)))) as items:
                            for item in items:
                                if type(item) is Reply:
                                    outcome = item
                                else:
                                    yield item
                    case RunTools():
                        for call in step.calls:
                            yield ToolStart(call)
                        outcome = self._run_tools(job, step)
                        for call, ended in zip(step.calls, outcome, strict=True):
                            yield _tool_end(call, ended)
                    case Approve():
                        outcome = self._decide(job, step)
                    case _:
                        yield step
                        outcome = None

    async def _async_stream(self, job: _Job) -> AsyncIterator[Event]:
        outcome: Any = None
        with closing(job.flow), _keeping(job.state):
            while True:
                try:
                    step = job.flow.send(outcome)
                except StopIteration as stop:
                    yield RunEnd(stop.value)
                    return
                match step:
                    case AskModel():
                        stream = cast("Any", self.model.exchange.async_stream(_call(job, step)))
                        async with aclosing(stream) as items:
                            async for item in items:
                                if type(item) is Reply:
                                    outcome = item
                                else:
                                    yield item
                    case RunTools():
                        for call in step.calls:
                            yield ToolStart(call)
                        outcome = await self._async_run_tools(job, step)
                        for call, ended in zip(step.calls, outcome, strict=True):
                            yield _tool_end(call, ended)
                    case Approve():
                        outcome = await self._async_decide(job, step)
                    case _:
                        yield step
                        outcome = None

    def _run_tools(self, job: _Job, step: RunTools) -> list[ToolOutcome]:
        return self.tools.run(
            step.calls,
            context=_context(self, job, step),
            max_concurrent=self._max_concurrent_tools,
            default_timeout=self._tool_timeout,
            repair=self._repair,
        )

    async def _async_run_tools(self, job: _Job, step: RunTools) -> list[ToolOutcome]:
        return await self.tools.async_run(
            step.calls,
            context=_context(self, job, step),
            max_concurrent=self._max_concurrent_tools,
            default_timeout=self._tool_timeout,
            repair=self._repair,
        )

    def _needs_approval(self, call: ToolCall) -> bool:
        rule = self.tools.get(call.name).options.requires_approval if call.name in self.tools else None
        return bool(rule(call)) if callable(rule) else bool(rule)

    def _decide(self, job: _Job, step: Approve) -> list[Decision]:
        if job.approve is None:
            return [Pause() for _ in step.calls]
        context = _context(self, job, None)
        decisions: list[Decision] = []
        for call in step.calls:
            answer = job.approve(call, context)
            decisions.append(_decision(_waited(answer) if isawaitable(answer) else answer))
        return decisions

    async def _async_decide(self, job: _Job, step: Approve) -> list[Decision]:
        if job.approve is None:
            return [Pause() for _ in step.calls]
        context = _context(self, job, None)
        decisions: list[Decision] = []
        for call in step.calls:
            answer = job.approve(call, context)
            decisions.append(_decision(await answer if isawaitable(answer) else answer))
        return decisions


class _keeping:  # reads as a statement: `with _keeping(state):`
    """Puts the run so far on an error that leaves, so that nothing is lost."""

    __slots__ = ("_state",)

    def __init__(self, state: RunState) -> None:
        self._state = state

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, LMAgentError) and getattr(error, "run", None) is None:
            error.run = self._state.result()


def _call(job: _Job, step: AskModel) -> ChatCall:
    return ChatCall(
        messages=(*job.system, *step.messages) if job.system else step.messages,
        tools=job.specs,
        parameters=job.parameters,
        tool_choice=step.tool_choice,
        output_schema=step.output_schema,
        stream=job.stream,
    )


def _context(agent: Agent, job: _Job, step: RunTools | None) -> RunContext[Any]:
    state = job.state
    return RunContext(
        deps=job.deps,
        messages=state.history.messages,
        round=step.round if step else state.rounds,
        usage=state.usage,
        agent_name=agent.name,
        emit=job.emit,
    )


def _tool_end(call: ToolCall, outcome: ToolOutcome) -> ToolEnd:
    message = ToolMessage(outcome.content, tool_call_id=outcome.call_id, name=outcome.name, is_error=outcome.is_error)
    return ToolEnd(call, message, outcome.duration)


def mend_arguments(text: str, schema: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Read arguments that strict JSON could not: lossless repairs or nothing (the reader loads when needed)."""
    from lmagent.prompting.json_reader import repair_arguments

    return repair_arguments(text, schema)


def _waited(awaitable: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await awaitable

    return run_coroutine(wait)


def _decision(answer: Any) -> Decision:
    """Read what an approver returned: anything that is not clearly a yes is a no."""
    if isinstance(answer, Allow | Deny | Edit | Pause):
        return answer
    return Allow() if answer is True else Deny()


def canonical_arguments(arguments: str) -> str:
    """Return arguments in one form (keys sorted, no blanks), or as they are when they are no JSON."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments
