"""`Agent`: a model, tools and options, shared by any number of runs.

The record of one run is `run.py`, the loop `loop.py`, the four drivers `drivers.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Unpack

from lmagent.agent.drivers import async_drive, async_stream, drive, stream
from lmagent.agent.output import OutputMode, TypedOutput
from lmagent.agent.result import ApprovalRule, Approver, Resumption, RunResult
from lmagent.agent.run import RUN_KEYWORDS, Handoff, Limits, PausedRun, Policy, Run, RunOptions, check_parameters
from lmagent.core.budget import price_of
from lmagent.core.events import Event, NestedEvent
from lmagent.core.history import History
from lmagent.core.messages import Prompt, SystemMessage, as_messages
from lmagent.errors import ConfigurationError, LimitExceeded, OutputError, ToolError
from lmagent.models.model import ChatModel, resolve_tool_choice
from lmagent.observe.hooks import Hooks
from lmagent.providers.base import ToolChoice
from lmagent.toolkit.context import RunContext
from lmagent.toolkit.execution import DEFAULT_TIMEOUT_S
from lmagent.toolkit.registry import ToolRegistry
from lmagent.toolkit.tool import Tool, function

__all__ = ["Agent"]


class Agent:
    """Answers prompts with the help of tools: `run`, `async_run`, `stream_run`, `async_stream_run`.

        agent = Agent(OpenAIChat(), tools=[get_weather])
        print(agent.run("Weather in Shanghai?").reply)

    An agent keeps no state of its runs: any number of them may be active at once, on threads and in tasks.

    Args:
        model: Any `ChatModel`.
        tools: Functions, tools, or a `ToolRegistry`. A function without a usable schema is rejected here.
        system_prompt: Instructions sent in front of every request; not part of the history.
        name: For traces and for agents used as tools.
        limits: Limits of each run.
        tool_choice: `auto`, `required`, `none` or a tool's name; a forced choice holds for a run's first request.
        output_type: Type of a run's `.output`: a pydantic model, dataclass, TypedDict, Literal, union, list …
        output_mode: How the model is asked for it: `native` JSON schema, a forced `tool`, the `prompt`, or `auto`.
        approve: Decides on calls of tools that need approval; without it a run pauses at them.
        approval: Tool name, or `*`, -> whether its calls need approval; overrides the tools' own setting.
        approval_timeout: Seconds that `approve` may take; then the call is denied. None: no limit.
        max_concurrent_tools: How many calls of one reply run at once.
        tool_timeout: Seconds for a tool without a timeout of its own; None: no limit. (A single synchronous tool of
            a synchronous run has only a limit of its own: see `ToolRegistry.run`.)
        hooks: Functions called at named points of every run.
        repair: Repair broken JSON in arguments where that loses nothing; each repair is noted on the call.
        **parameters: Model parameters, over the model's defaults.

    Raises:
        ConfigurationError: Two tools have one name, or a tool choice or rule is unknown.
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
        approval: Mapping[str, ApprovalRule] | None = None,
        approval_timeout: float | None = None,
        hooks: Hooks | None = None,
        max_concurrent_tools: int = 8,
        tool_timeout: float | None = DEFAULT_TIMEOUT_S,
        repair: bool = True,
        **parameters: object,
    ) -> None:
        _check_type("model", model, ChatModel, "a model, such as load_from_model_id('openai/gpt-5.4-mini')")
        _check_type("limits", limits, Limits | None, "Limits(...)")
        _check_type("hooks", hooks, Hooks | None, "Hooks(...)")
        _check_type("approve", approve, Callable | None, "a function of a call and the run context")
        self.model = model
        self.tools = tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools)
        self.name = name
        self.limits = limits or Limits()
        self.approve = approve
        self.approval_timeout = approval_timeout
        self.system_prompt = system_prompt
        self._system = (SystemMessage(system_prompt),) if system_prompt else ()
        self._tool_choice: ToolChoice = resolve_tool_choice(tool_choice, self.tools.specs)
        self._repair = repair
        self._policy = Policy(self.tools, approval or {}, repair=self._repair)
        self.hooks = hooks or Hooks()
        self.tool_settings: Mapping[str, Any] = {
            "max_concurrent": max_concurrent_tools,
            "default_timeout": tool_timeout,
            "repair": self._repair,
        }
        """How the registry runs calls; see `ToolRegistry.run`."""
        self._output_mode: OutputMode = output_mode
        self._output = self._typed(output_type)
        self._parameters = check_parameters(model, parameters, _KEYWORDS)

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
        output = TypedOutput(output_type, self.model.codec.features, mode=self._output_mode, repair=self._repair)
        self._check_name(output)
        return output

    def _check_name(self, output: TypedOutput | None) -> None:
        """Refuse a tool with the name of the tool whose call is the structured answer: one would hide the other."""
        if output and output.tool and output.tool.name in self.tools.names:
            raise ConfigurationError(
                f"The tool {output.tool.name!r} has the name of the tool that takes the structured answer. Rename it "
                "with @function(name=...), or choose another output_mode."
            )

    def __repr__(self) -> str:
        return f"Agent({self.model.model_id!r}, tools={list(self.tools.names)})"

    def run(
        self,
        prompt: Prompt | Resumption,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Answer one prompt; run the tools that the model calls.

        Args:
            prompt: Text, a message, a dict, or a list of them; or a paused run with decisions (`RunResult.decide`).
            on_event: Called with what happens between requests: rounds and decisions.
            **options: `history`, `deps`, `limits`, `tool_choice`, `output_type`, `budget` and `approve` (see
                `RunOptions`), and model parameters. What is not given is the agent's.

        Raises:
            LimitExceeded: `.run` has everything up to the limit.
            ProviderError: The provider failed; `.run` has everything before.
            MessageError: The prompt has no known form.
            UnknownParameter: A keyword that is neither an option nor a parameter of the model (also a `TypeError`).
        """
        return drive(self._begin(prompt, options, emit=on_event))

    async def async_run(
        self,
        prompt: Prompt | Resumption,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """`run`, asynchronous."""
        return await async_drive(self._begin(prompt, options, emit=on_event))

    def stream_run(self, prompt: Prompt | Resumption, **options: Unpack[RunOptions]) -> Iterator[Event]:
        """`run`, yielding events as they happen; the last is `RunEnd` with the result. See `lmagent.core.events`."""
        return stream(self._begin(prompt, options, streams=True))

    def async_stream_run(self, prompt: Prompt | Resumption, **options: Unpack[RunOptions]) -> AsyncIterator[Event]:
        """`stream_run`, asynchronous."""
        return async_stream(self._begin(prompt, options, streams=True))

    def as_function(self, name: str | None = None, description: str | None = None) -> Tool[..., Any]:
        """Return a tool that runs this agent, with the budget, deps and approver of the calling run.

        If the nested run waits for a decision, the outer run pauses, and both resume together.

        Args:
            name: Default: the agent's name.
            description: When the model should ask it; default: the system prompt's first line.
        """

        def ask(prompt: str, context: RunContext[Any]) -> Any:
            with _as_tool(self):
                return _answer_of(self.run(_asked(prompt, context), **self._shared(context)))

        async def async_ask(prompt: str, context: RunContext[Any]) -> Any:
            with _as_tool(self):
                return _answer_of(await self.async_run(_asked(prompt, context), **self._shared(context)))

        about = description or self.system_prompt.partition("\n")[0] or f"Ask the agent {self.name}."
        return function(ask, name=name or self.name, description=about, timeout=_NO_TIMEOUT, async_form=async_ask)

    def as_handoff(self, name: str | None = None, description: str | None = None) -> Tool[..., Any]:
        """Return a tool that hands the conversation over to this agent: it answers from then on, with the history."""
        about = description or f"Hand the conversation over to {self.name}. {self.system_prompt.partition(chr(10))[0]}"
        return function(
            _HandOver(self), name=name or f"hand_over_to_{self.name}", description=about.strip(), in_thread=False
        )

    def take_over(self, run: Run) -> None:
        """Continue a run that another agent began; called by the drivers on a hand-off."""
        run.approve = self.approve or run.approve
        run.tool_choice = "auto"
        self._equip(run, self._parameters)

    def _equip(self, run: Run, parameters: Mapping[str, Any]) -> None:
        """Set the fields of a run that come from its agent."""
        output = run.output
        run.agent, run.hooks, run.policy = self, self.hooks, self._policy
        run.parameters = parameters
        self._check_name(output)  # a registry may have got tools since
        run.specs = (*self.tools.specs, output.tool) if output and output.tool else self.tools.specs
        run.system = self._system
        if output and output.instruction:
            run.system = (SystemMessage(f"{self.system_prompt}\n\n{output.instruction}".strip()),)

    def _shared(self, context: RunContext[Any]) -> dict[str, Any]:
        """Return the options that a nested run gets from the run that calls it."""
        emit = context.emit

        def nested(event: Event) -> None:
            if emit:
                emit(NestedEvent(self.name, event))

        approve = self.approve or context.approve
        return {"deps": context.deps, "budget": context.budget, "approve": approve, "on_event": emit and nested}

    def _begin(
        self,
        prompt: Prompt | Resumption,
        options: RunOptions,
        *,
        streams: bool = False,
        emit: Callable[[Event], None] | None = None,
    ) -> Run:
        """Return the record of a new run, with each option resolved: the caller's, else the agent's."""
        agent = self._paused_agent(prompt.run.agent_name) if isinstance(prompt, Resumption) else self
        output_type = options.get("output_type")
        output = agent._output if output_type is None else agent._typed(output_type)
        limits = options.get("limits") or agent.limits
        tool_choice = options.get("tool_choice")
        given = {name: value for name, value in options.items() if name not in RUN_KEYWORDS}
        parameters = check_parameters(agent.model, given, RUN_KEYWORDS, over=agent._parameters)
        if limits.cost is not None:
            _check_prices(limits, agent.model.model_id)
        choice = agent._tool_choice if tool_choice is None else resolve_tool_choice(tool_choice, agent.tools.specs)
        history, start = _begun(prompt, options.get("history"))
        run = Run(
            agent=agent,
            history=history,
            start=start,
            limits=limits,
            budget=limits.shared(options.get("budget")),
            tool_choice=choice,
            output=output,
            deps=options.get("deps"),
            approve=options.get("approve") or agent.approve,
            approval_timeout=agent.approval_timeout,
            stream=streams,
            emit=emit,
        )
        if isinstance(prompt, Resumption):
            run.resume(prompt)
        agent._equip(run, parameters)
        return run

    def _paused_agent(self, name: str) -> Agent:
        """Return the agent of that name among this one and those it may hand over to; this one when there is none."""
        known: list[Agent] = [self]
        for agent in known:
            if agent.name == name:
                return agent
            targets = (getattr(tool.__wrapped__, "agent", None) for tool in agent.tools)
            known.extend(target for target in targets if isinstance(target, Agent) and target not in known)
        return self


_KEYWORDS = frozenset(Agent.__init__.__kwdefaults__ or ())


class _HandOver:
    """The body of a hand-off's tool."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def __call__(self) -> Handoff:
        return Handoff(self.agent)


def _check_type(name: str, value: object, kind: Any, wanted: str) -> None:
    """Raise for the most common mistakes when the agent is created, not in the middle of a run."""
    if not isinstance(value, kind):
        raise TypeError(f"Agent({name}=...) takes {wanted}, not {value!r:.80}.")


def _check_prices(limits: Limits, model_id: str) -> None:
    for each in model_id.split("|"):
        if price_of(limits.prices, each) is None:
            raise ConfigurationError(
                f"There is no price for {each!r}, so its cost cannot be limited: Limits(cost=..., prices=...)."
            )


def _begun(prompt: Prompt | Resumption, history: History | Prompt | None) -> tuple[History, int]:
    """Return the history of a run with its prompt, and where in it the run begins."""
    if isinstance(prompt, Resumption):
        paused = prompt.run
        if history is None:
            record = History.restored(paused.messages)
        else:
            record = history if isinstance(history, History) else History.restored(as_messages(history))
            record.reopen(paused.messages)
        return record, len(paused.messages) - len(paused.new_messages)
    messages = as_messages(prompt)
    record = history if isinstance(history, History) else History(as_messages(history) if history else ())
    record.answer_open_calls()
    start = len(record)
    record.extend(messages)
    return record, start


def _asked(prompt: str, context: RunContext[Any]) -> str | Resumption:
    """Return the prompt of a nested run: the model's text, or the paused run of this call with its decisions."""
    call = context.tool_call
    return context.resumed.get(call.id, prompt) if call else prompt


def _answer_of(result: RunResult) -> Any:
    if result.is_paused:
        return PausedRun(result)
    return result.reply if result.output is None else result.output


_NO_TIMEOUT = 86_400.0
"""A nested agent has limits and clocks of its own."""


@contextmanager
def _as_tool(agent: Agent) -> Generator[None]:
    """Turn a nested run's own limits into a result that the outer model can act on."""
    try:
        yield
    except (LimitExceeded, OutputError) as error:
        so_far = getattr(error.run, "reply", "") or "nothing"
        raise ToolError(f"{agent.name} stopped: {error.message} Its answer so far: {so_far}") from error
