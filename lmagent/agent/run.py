"""One run: its options, its limits and the record that the loop and the drivers share.

Many runs share one agent; all that belongs to a single run is in its `Run`. `Agent` creates it when a run starts, with
every option resolved: the caller's, else the agent's. It is passed down once: to the loop (`loop.py`), which reads and
updates it to decide, and to the driver (`drivers.py`), which reads it to perform the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field, fields
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

from lmagent.agent.result import ApprovalRule, Approver, Decision, Resumption, Ruling, RunResult, Waiting, as_decision
from lmagent.core.budget import Budget, Price, check_limit, price_of
from lmagent.core.events import Event, ToolDecided
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.history import History, own_id
from lmagent.core.messages import Prompt, Reply, SystemMessage, ToolCall, Usage
from lmagent.errors import ConfigurationError, LimitExceeded, LMAgentError, UnknownParameter
from lmagent.observe.hooks import CURRENT_SPAN, Hooks, RunTracer
from lmagent.providers.base import ToolChoice
from lmagent.toolkit.context import ToolOutcome
from lmagent.toolkit.registry import ToolRegistry
from lmagent.toolkit.schema import ToolSpec

if TYPE_CHECKING:
    from lmagent.agent.agent import Agent
    from lmagent.agent.output import TypedOutput
    from lmagent.models.model import ChatModel
    from lmagent.models.parameters import ChatParameters

__all__ = [
    "RUN_KEYWORDS", "ChatOptions", "CommonParameters", "Handoff", "Limits", "PausedRun", "Policy", "Run",
    "RunOptions", "check_parameters",
]  # fmt: skip

_NO_USAGE = Usage()


@fast_dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run, checked before anything is paid for. None: no limit.

    Raises:
        ValueError: A limit is not a number of at least 0.
    """

    rounds: int | None = 20
    """Requests to the model, retries for a wrong answer included."""
    tool_calls: int | None = 100
    """Calls run in all."""
    calls_per_round: int | None = 64
    """Calls in one reply; more are answered with an error."""
    tokens: int | None = None
    """Input and output tokens as the provider counts them."""
    cost: float | None = None
    """In the currency of `prices`."""
    seconds: float | None = None
    """Time since the run began."""
    message_bytes: int | None = None
    """Size of the history that is sent, as JSON."""
    identical_calls: int | None = 3
    """The same call with the same arguments in a row; the last of them is answered with the known result, not run."""
    tool_errors: int | None = 5
    """Rounds in a row in which every call failed."""
    call_retries: int = 2
    """Retries in a row after calls that could not be read or were cut off."""
    output_retries: int = 2
    """Retries after a structured answer that does not fit its type."""
    prices: Mapping[str, Price] | None = field(default=None, compare=False)
    """Model id (shell patterns allowed) -> `Price`, for `cost`."""

    def __post_init__(self) -> None:
        for name in _LIMITS:
            value = getattr(self, name)
            check_limit(f"Limits({name}={value!r})", value)

    def shared(self, budget: Budget | None) -> Budget | None:
        """Return the budget that a run shares with its nested agents: the spending limits of this, within `budget`."""
        if self.tokens is None and self.cost is None and self.seconds is None:
            return budget
        return Budget(tokens=self.tokens, cost=self.cost, seconds=self.seconds, prices=self.prices, parent=budget)


_LIMITS = tuple(each.name for each in fields(Limits) if each.name != "prices")


class CommonParameters(TypedDict, total=False):
    """Model parameters as keywords of a run; `ChatParameters` describes and checks them."""

    parameters: ChatParameters | Mapping[str, Any] | None
    """Parameters as one object, for those that a type checker does not know."""
    temperature: float | None
    top_p: float | None
    top_k: int | None
    max_tokens: int | None
    stop: str | list[str] | None
    seed: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    user: str | None
    parallel_tool_calls: bool | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    extra_body: dict[str, Any] | None
    extra_headers: dict[str, str] | None


if TYPE_CHECKING:

    class _AnyParameter(CommonParameters, total=False, extra_items=Any):
        """Any further keyword is a parameter of one provider (PEP 728; `typing` knows it from Python 3.15 on)."""

else:
    _AnyParameter = CommonParameters


class ChatOptions(_AnyParameter, total=False):
    """Keywords of one run or one `chat`, over the agent's own. Any other keyword is a model parameter."""

    deps: Any
    """Passed to tools that take a `RunContext`."""
    limits: Limits | None
    """Limits of this run."""
    tool_choice: ToolChoice | str | None
    """`auto`, `required`, `none` or a tool's name; a forced choice holds for the first request only."""
    output_type: Any
    """Type of `RunResult.output`."""
    budget: Budget | None
    """What this run, its nested agents and other runs may spend together."""
    approve: Approver | None
    """Decides on calls of tools that need approval."""


class RunOptions(ChatOptions, total=False):
    """Keywords of one run: those of `ChatOptions`, and `history`. Used with `Unpack`."""

    history: History | Prompt | None
    """The conversation so far. A `History` grows during the run, so a cancelled or failed run loses nothing; messages
    in any other form are copied."""


RUN_KEYWORDS = RunOptions.__annotations__.keys() - CommonParameters.__annotations__.keys()
"""Keywords of a run that are not model parameters."""


def check_parameters(
    model: ChatModel, given: Mapping[str, Any], keywords: Iterable[str], *, over: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Return the checked parameters of a call that takes `keywords` beside them.

    Raises:
        UnknownParameter: A name is no parameter; the message names the closest of `keywords`, if one is close.
        ParameterError: A value is out of range.
    """
    if not given and over is not None:
        return over
    try:
        return model.check_parameters(given, over=over)
    except UnknownParameter as error:
        from difflib import get_close_matches  # only for the message

        for name in error.names:
            close = get_close_matches(name, keywords, n=1, cutoff=0.75)
            if close:
                raise UnknownParameter(
                    f"There is no keyword {name!r}. Did you mean {close[0]}=?", names=error.names
                ) from None
        raise


class PausedRun(str):
    """Returned by a tool when the agent behind it waits for a decision; its call stays open."""

    __slots__ = ("run",)
    run: RunResult

    def __new__(cls, run: RunResult) -> PausedRun:
        made = super().__new__(cls, "Waits for a decision.")
        made.run = run
        return made


class Handoff(str):
    """Returned by a tool to hand the conversation to another agent; its text is the tool's result."""

    __slots__ = ("agent",)
    agent: Agent

    def __new__(cls, agent: Agent) -> Handoff:
        made = super().__new__(cls, f"Handed over to {agent.name}.")
        made.agent = agent
        return made


class Policy:
    """Finds the rule of a call: that of its name, the tool's own, that of `*`, and else what its effects ask for.

    Calls of a tool that declares an effect other than `reads` need a decision unless a rule says otherwise. Calls of a
    tool that declares no effect need none. A rule sees the call and nothing else, and no text of a model decides.

    A call that cannot run as it is needs no decision: its error goes to the model.

    Args:
        tools: The tools of the agent; it may grow.
        rules: Name of a tool, or `*`, -> rule.
        repair: Whether arguments are repaired, as `ToolRegistry.prepare` takes it.

    Raises:
        ConfigurationError: A rule that is none, or a name that no tool has.
    """

    def __init__(self, tools: ToolRegistry, rules: Mapping[str, ApprovalRule], *, repair: bool = False) -> None:
        self._tools = tools
        self._repair = repair
        self.rules = dict(rules)
        for name, rule in self.rules.items():
            if not callable(rule) and rule not in (True, False, "always", "once", "never"):
                raise ConfigurationError(
                    f"approval={{{name!r}: {rule!r}}}: a rule is True, False, 'always', 'once', 'never' or a function."
                )
            if name != "*":
                tools.get(name)  # a misspelt name would leave its tool without a rule

    def __call__(self, call: ToolCall, allowed: Collection[str]) -> Ruling | None:
        """Return the ruling on a call; None: it may run.

        Args:
            call: As the model made it.
            allowed: Names of the tools that were allowed in this run.
        """
        if call.name not in self._tools:
            return None
        ruling = self._ruling(call, allowed)
        if ruling is not None and isinstance(self._tools.prepare(call, repair=self._repair), ToolOutcome):
            return None
        return ruling

    def _ruling(self, call: ToolCall, allowed: Collection[str]) -> Ruling | None:
        options = self._tools.get(call.name).options
        for rule in (self.rules.get(call.name), options.requires_approval, self.rules.get("*")):
            if rule is not None:
                return _applied(rule, call, allowed)
        effects = sorted(options.effects - {"reads"})
        return Ruling(f"effects: {', '.join(effects)}") if effects else None


def _applied(rule: ApprovalRule, call: ToolCall, allowed: Collection[str]) -> Ruling | None:
    if callable(rule):
        name = getattr(rule, "__name__", type(rule).__name__)
        try:
            answer = rule(call)
        except Exception:  # the user's rule: what cannot be decided needs a decision
            return Ruling(name)
        if isinstance(answer, Decision):
            return Ruling(name, as_decision(answer))
        return Ruling(name) if answer else None
    if rule == "once":
        return None if call.name in allowed else Ruling("once")
    return Ruling("always") if rule in (True, "always") else None


@fast_dataclass(kw_only=True)
class Run:
    """Everything of one run: who answers, its options, and its progress.

    As a context manager it traces the run, and keeps the result so far on an error that ends it.
    """

    agent: Agent
    """Answers the run. The fields up to `policy` are this agent's; a hand-off changes them all."""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    system: tuple[SystemMessage, ...] = ()
    specs: tuple[ToolSpec, ...] = ()
    hooks: Hooks = Hooks()
    policy: Callable[[ToolCall, Collection[str]], Ruling | None] = lambda call, allowed: None
    """Says whether a call needs a decision, given the names of the tools that were allowed in this run."""

    history: History
    start: int = 0
    """Length of the history before the run."""
    limits: Limits = Limits()
    budget: Budget | None = None
    tool_choice: ToolChoice = "auto"
    output: TypedOutput | None = None
    deps: Any = None
    approve: Approver | None = None
    approval_timeout: float | None = None
    stream: bool = False
    emit: Callable[[Any], None] | None = None
    """Receives events between requests and events of nested runs."""
    clock: Callable[[], float] = monotonic
    resumed: Resumption | None = None
    """The paused run that goes on."""

    started: float = 0.0
    rounds: int = 0
    requests: int = 0
    usage: Usage = _NO_USAGE
    cost: float = 0.0
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    ids: set[str] | None = None
    """Ids of all calls in the history; read when the first call comes."""
    allowed: set[str] = field(default_factory=set[str])
    """Names of the tools that were allowed in this run."""
    last: Reply | None = None
    is_last_request: bool = False
    """The budget grants one more request, without tools."""
    repeated: tuple[str, tuple[str, ...]] = ("", ())
    """The newest call in one form, and the ids of its repetitions in a row."""
    failed_rounds: int = 0
    unread_rounds: int = 0
    output_retries: int = 0
    value: Any = None
    """The structured answer."""
    waiting: Waiting | None = None
    """Set when the run pauses."""
    tool_state: dict[str, Any] = field(default_factory=dict[str, Any])
    """`RunContext.state`."""
    tracer: RunTracer | None = None
    """None: the run is not observed."""

    def resume(self, paused: Resumption) -> None:
        """Continue a paused run: what it used and allowed counts."""
        before = paused.run
        self.resumed = paused
        self.usage, self.rounds, self.requests = before.usage, before.rounds, before.requests
        self.calls = list(before.tool_calls)
        self.allowed = set(paused.allowed)
        price = price_of(self.limits.prices, before.model_id)
        self.cost = price.of(before.usage) if price else 0.0

    def own_id(self, id: str) -> str:
        """Return the id of a call of the newest reply: the server's, or a new one if an earlier call has it."""
        if self.ids is None:
            self.ids = self.history.call_ids()
        return own_id(id, self.ids)

    def result(self) -> RunResult:
        """Return the result so far."""
        last = self.last
        return RunResult(
            messages=self.history.messages,
            new_messages=self.history.since(self.start),
            reply=last.reply if last else "",
            output=self.value,
            tool_calls=tuple(self.calls),
            usage=self.usage,
            finish_reason="paused" if self.waiting else last.finish_reason if last else "",
            rounds=self.rounds,
            requests=self.requests,
            model_id=last.model_id if last else "",
            agent_name=self.agent.name,
            last=last,
            waiting=self.waiting,
        )

    def exceeded(self, limit: str, value: float, hint: str) -> LimitExceeded:
        """Return the error for a limit, with the result so far; its history is valid."""
        self.history.answer_open_calls()
        return LimitExceeded(
            f"The run reached its limit of {value:g} {limit.replace('_', ' ')}. {hint}",
            limit=limit,
            value=value,
            run=self.result(),
        )

    def notify(self, event: Event) -> None:
        """Report a decision of the loop to the observers."""
        if self.tracer and isinstance(event, ToolDecided):
            self.tracer.decided(event)

    def __enter__(self) -> Self:
        agent = self.agent
        if self.hooks.observers or CURRENT_SPAN.get() is not None:
            self.tracer = RunTracer.over(
                self.hooks.observers,
                agent=agent.name,
                model_id=agent.model.model_id,
                given=lambda: self.history.since(self.start),
                system=agent.system_prompt,
            )
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, LMAgentError) and getattr(error, "run", None) is None:
            self.requests += getattr(error, "attempts", 0)
            error.run = self.result()
        if self.tracer is not None:
            self.tracer.end(self.tracer.span, self.result(), error)
