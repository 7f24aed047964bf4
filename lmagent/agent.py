"""The agent: a model, tools and limits. The loop is flow.py, its drivers are drivers.py."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmagent.context import RunContext
from lmagent.drivers import Approver, Handoff, Job, async_drive, async_stream, drive, stream
from lmagent.errors import LimitExceeded, OutputError, ToolError
from lmagent.events import Event, NestedEvent
from lmagent.flow import Decision, Limits, Pause, RunResult, RunState, agent_flow
from lmagent.function import Tool, function
from lmagent.history import History, open_calls
from lmagent.hooks import Hooks
from lmagent.messages import Message, Prompt, SystemMessage, ToolCall
from lmagent.model import ChatModel, resolve_tool_choice
from lmagent.output import OutputMode, TypedOutput
from lmagent.prompts import as_messages
from lmagent.providers.base import ToolChoice
from lmagent.registry import ToolRegistry
from lmagent.running import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from lmagent.budget import Budget

__all__ = ["Agent", "Approver", "canonical_arguments", "mend_arguments"]


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
        approval: Tool name -> rule, over the tools' own `requires_approval`: True or `always`, `once`, `never` or
            False, or a function of the call. `*` stands for all others.
        hooks: Callables at named points of every run.
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
        approval: Mapping[str, Any] | None = None,
        hooks: Hooks | None = None,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = DEFAULT_TIMEOUT_S,
        repair: bool = True,
        **parameters: object,
    ) -> None:
        if not isinstance(model, ChatModel):  # pyright: ignore[reportUnnecessaryIsInstance]  # the commonest slip
            raise TypeError(
                f"Agent needs a model, such as load_from_model_id('openai/gpt-5.4-mini'), not {model!r:.80}."
            )
        if not isinstance(limits, Limits | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"limits is a Limits(...), not {limits!r:.80}.")
        self.model = model
        self.tools = tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools)
        self.name = name
        self.limits = limits or Limits()
        self.approve = approve
        self.system_prompt = system_prompt
        self._system = (SystemMessage(system_prompt),) if system_prompt else ()
        self._tool_choice: ToolChoice = resolve_tool_choice(tool_choice, self.tools.specs)
        self.approval = dict(approval or {})
        self.hooks = hooks or Hooks()
        self._repair = mend_arguments if repair else None
        self.tool_settings: Mapping[str, Any] = {
            "max_concurrent": max_concurrent_tools,
            "default_timeout": tool_timeout,
            "repair": self._repair,
        }
        """How the registry runs calls; see `ToolRegistry.run`."""
        self._output_mode: OutputMode = output_mode
        self._output = self._typed(output_type)
        self._parameters = model.check_parameters(parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of every run (a copy)."""
        return dict(self._parameters)

    @property
    def typed_output(self) -> TypedOutput | None:
        """How structured answers are read, when the agent has an `output_type`."""
        return self._output

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
        budget: Budget | None = None,
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
            budget: What this run, its nested agents and other runs may spend together.
            on_event: Called with what happens between requests: rounds and tools.
            **parameters: Of the model, for this run.

        Raises:
            LimitExceeded: `.run` holds everything up to the limit.
            ProviderError: The provider failed; `.run` holds everything up to then.
            MessageError: The prompt has no known form.
        """
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, budget, parameters, on_event=on_event)
        return drive(job)

    async def async_run(
        self,
        prompt: Prompt,
        *,
        history: History | Sequence[Message] | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        tool_choice: ToolChoice | str | None = None,
        output_type: Any = None,
        budget: Budget | None = None,
        on_event: Callable[[Event], None] | None = None,
        **parameters: object,
    ) -> RunResult:
        """`run`, asynchronous."""
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, budget, parameters, on_event=on_event)
        return await async_drive(job)

    def stream_run(
        self,
        prompt: Prompt,
        *,
        history: History | Sequence[Message] | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        tool_choice: ToolChoice | str | None = None,
        output_type: Any = None,
        budget: Budget | None = None,
        **parameters: object,
    ) -> Iterator[Event]:
        """`run`, yielding events as they happen; the last is `RunEnd` with the result. See `lmagent.events`."""
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, budget, parameters, streams=True)
        return stream(job)

    def async_stream_run(
        self,
        prompt: Prompt,
        *,
        history: History | Sequence[Message] | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        tool_choice: ToolChoice | str | None = None,
        output_type: Any = None,
        budget: Budget | None = None,
        **parameters: object,
    ) -> AsyncIterator[Event]:
        """`stream_run`, asynchronous."""
        job = self._job(prompt, history, deps, limits, tool_choice, output_type, budget, parameters, streams=True)
        return async_stream(job)

    def resume(
        self,
        paused: RunResult,
        decisions: Mapping[str, Decision | bool],
        *,
        history: History | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        output_type: Any = None,
        budget: Budget | None = None,
        on_event: Callable[[Event], None] | None = None,
        **parameters: object,
    ) -> RunResult:
        """Go on with a run that waits for decisions; also in another process, from `RunResult.from_dict`.

        Args:
            paused: A result whose `pending` calls wait.
            decisions: Call id -> `Allow()`, `Deny(reason)`, `Edit(arguments)` or a bool. A call without one waits on.
            history: The paused run's own `History`, if it is to grow; default: a copy of the result's messages.
            deps: As of `run`; so are the others.

        Raises:
            ValueError: The result waits for nothing.
        """
        job = self._resumed(
            paused, decisions, history, deps, limits, output_type, budget, parameters, on_event=on_event
        )
        return drive(job)

    async def async_resume(
        self,
        paused: RunResult,
        decisions: Mapping[str, Decision | bool],
        *,
        history: History | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        output_type: Any = None,
        budget: Budget | None = None,
        on_event: Callable[[Event], None] | None = None,
        **parameters: object,
    ) -> RunResult:
        """`resume`, asynchronous."""
        job = self._resumed(
            paused, decisions, history, deps, limits, output_type, budget, parameters, on_event=on_event
        )
        return await async_drive(job)

    def stream_resume(
        self,
        paused: RunResult,
        decisions: Mapping[str, Decision | bool],
        *,
        history: History | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        output_type: Any = None,
        budget: Budget | None = None,
        **parameters: object,
    ) -> Iterator[Event]:
        """`resume`, yielding events as `stream_run` does."""
        return stream(
            self._resumed(paused, decisions, history, deps, limits, output_type, budget, parameters, streams=True)
        )

    def async_stream_resume(
        self,
        paused: RunResult,
        decisions: Mapping[str, Decision | bool],
        *,
        history: History | None = None,
        deps: Any = None,
        limits: Limits | None = None,
        output_type: Any = None,
        budget: Budget | None = None,
        **parameters: object,
    ) -> AsyncIterator[Event]:
        """`stream_resume`, asynchronous."""
        return async_stream(
            self._resumed(paused, decisions, history, deps, limits, output_type, budget, parameters, streams=True)
        )

    def as_function(self, name: str | None = None, description: str | None = None) -> Tool[..., Any]:
        """Return a tool that asks this agent: it shares the budget and deps of the run that calls it.

        Args:
            name: Default: the agent's name.
            description: When the model should ask it; default: the system prompt's first line.
        """

        def ask(prompt: str, context: RunContext[Any]) -> Any:
            with _as_tool(self):
                result = self.run(prompt, deps=context.deps, budget=context.budget, on_event=self._nested(context))
                return _answer_of(self, result)

        async def async_ask(prompt: str, context: RunContext[Any]) -> Any:
            with _as_tool(self):
                result = await self.async_run(
                    prompt, deps=context.deps, budget=context.budget, on_event=self._nested(context)
                )
                return _answer_of(self, result)

        about = description or self.system_prompt.partition("\n")[0] or f"Ask the agent {self.name}."
        return function(ask, name=name or self.name, description=about, timeout=_NO_TIMEOUT, async_form=async_ask)

    def as_handoff(self, name: str | None = None, description: str | None = None) -> Tool[..., Any]:
        """Return a tool that hands the conversation over to this agent: it answers from then on, with the history."""

        def hand_over() -> Handoff:
            return Handoff(self)

        about = description or f"Hand the conversation over to {self.name}. {self.system_prompt.partition(chr(10))[0]}"
        return function(hand_over, name=name or f"hand_over_to_{self.name}", description=about.strip(), in_thread=False)

    def take_over(self, job: Job) -> None:
        """Make a run in progress this agent's (the drivers call it on a hand-off)."""
        output = job.state.output
        job.parameters = self._parameters
        job.system = self._instructions(output if isinstance(output, TypedOutput) else None)
        job.specs = (*self.tools.specs, output.tool) if output and output.tool else self.tools.specs
        job.approve = self.approve or job.approve
        job.hooks = self.hooks
        job.state.tool_choice = "auto"
        job.state.needs_approval = self._needs_approval

    def _nested(self, context: RunContext[Any]) -> Callable[[Event], None] | None:
        emit = context.emit
        return (lambda event: emit(NestedEvent(self.name, event))) if emit else None

    def _job(
        self,
        prompt: Prompt,
        history: History | Sequence[Message] | None,
        deps: Any,
        limits: Limits | None,
        tool_choice: ToolChoice | str | None,
        output_type: Any,
        budget: Budget | None,
        parameters: Mapping[str, object],
        *,
        streams: bool = False,
        on_event: Callable[[Event], None] | None = None,
    ) -> Job:
        messages = as_messages(prompt)
        record = history if isinstance(history, History) else History(history or ())
        choice: ToolChoice = (
            self._tool_choice if tool_choice is None else resolve_tool_choice(tool_choice, self.tools.specs)
        )
        output = self._output if output_type is None else self._typed(output_type)
        checked = self.model.check_parameters(parameters, over=self._parameters)
        record.answer_open_calls()
        start = len(record)
        record.extend(messages)
        state = RunState(
            history=record,
            clock=time.monotonic,
            limits=limits or self.limits,
            start=start,
            tool_choice=choice,
            output=output,
            budget=budget,
            needs_approval=self._needs_approval,
            canonical=canonical_arguments,
        )
        return self._job_of(state, checked, deps, self.approve, streams, on_event)

    def _resumed(
        self,
        paused: RunResult,
        decisions: Mapping[str, Decision | bool],
        history: History | None,
        deps: Any,
        limits: Limits | None,
        output_type: Any,
        budget: Budget | None,
        parameters: Mapping[str, object],
        *,
        streams: bool = False,
        on_event: Callable[[Event], None] | None = None,
    ) -> Job:
        waiting = open_calls(paused.messages)
        if not paused.pending or not waiting:
            raise ValueError("This run waits for no decision.")
        record = history if history is not None else History.restored(paused.messages)
        state = RunState(
            history=record,
            clock=time.monotonic,
            limits=limits or self.limits,
            start=len(paused.messages) - len(paused.new_messages),
            output=self._output if output_type is None else self._typed(output_type),
            budget=budget,
            needs_approval=self._needs_approval,
            canonical=canonical_arguments,
            resumed=waiting,
            usage=paused.usage,
            rounds=paused.rounds,
            requests=paused.requests,
            calls=list(paused.tool_calls),
        )

        def decide(call: ToolCall, context: RunContext[Any]) -> Any:
            if call.id in decisions:
                return decisions[call.id]
            return self.approve(call, context) if self.approve else Pause()

        checked = self.model.check_parameters(parameters, over=self._parameters)
        return self._job_of(state, checked, deps, decide, streams, on_event)

    def _job_of(
        self,
        state: RunState,
        parameters: Mapping[str, Any],
        deps: Any,
        approve: Approver | None,
        streams: bool,
        on_event: Callable[[Event], None] | None,
    ) -> Job:
        output = state.output
        return Job(
            agent=self,
            state=state,
            flow=agent_flow(state),
            parameters=parameters,
            system=self._instructions(output if isinstance(output, TypedOutput) else None),
            specs=(*self.tools.specs, output.tool) if output and output.tool else self.tools.specs,
            deps=deps,
            approve=approve,
            hooks=self.hooks,
            stream=streams,
            emit=on_event,
        )

    def _needs_approval(self, call: ToolCall, allowed: Collection[str]) -> bool:
        if call.name not in self.tools:
            return False  # an unknown tool is answered, not run
        rule = self.tools.get(call.name).options.requires_approval
        rule = self.approval.get(call.name, self.approval.get("*", rule) if rule is None else rule)
        if callable(rule):
            try:
                return bool(rule(call))
            except Exception:  # the user's rule: what cannot be decided needs a decision
                return True
        return rule in (True, "always") or (rule == "once" and call.name not in allowed)


def _answer_of(agent: Agent, result: RunResult) -> Any:
    if result.is_paused:
        names = ", ".join(call.name for call in result.pending)
        raise ToolError(f"{agent.name} needs an approval for {names}, and nobody is there to give it.")
    return result.reply if result.output is None else result.output


_NO_TIMEOUT = 86_400.0
"""A nested agent has limits and clocks of its own."""


class _as_tool:  # reads as a statement: `with _as_tool(agent):`
    """Turns a nested run's own limits into a result that the outer model can act on."""

    __slots__ = ("_agent",)

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, LimitExceeded | OutputError):
            so_far = getattr(error.run, "reply", "") or "nothing"
            raise ToolError(f"{self._agent.name} stopped: {error.message} Its answer so far: {so_far}") from error


def mend_arguments(text: str, schema: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Read arguments that strict JSON could not: lossless repairs or nothing (the reader loads when needed)."""
    from lmagent.prompting.coerce import repair_arguments

    return repair_arguments(text, schema)


def canonical_arguments(arguments: str) -> str:
    """Return arguments in one form (keys sorted, no blanks), or as they are when they are no JSON."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments
