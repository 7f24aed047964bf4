"""The agent loop, once: a generator of steps that decides everything and does nothing.

A driver (drivers.py) performs each step and sends its outcome back: `AskModel` -> the `Reply`, `Approve` -> a decision
a call and who made it, `RunTools` -> a `ToolOutcome` a call. Events among the steps are for the reader of a stream.
What belongs to time comes in through a clock. The history is valid whenever the generator ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import field, fields, replace
from typing import Any, Protocol, TypeAlias

from lmagent.agent.result import Allow, Decision, Deny, Edit, Pause, Resumption, Ruling, RunResult, Waiting
from lmagent.core.budget import Budget, Price, check_limit, price_of
from lmagent.core.events import Event, RoundEnd, RoundStart, ToolDecided
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.history import History, own_id
from lmagent.core.json_text import dumps, dumps_text
from lmagent.core.messages import AssistantMessage, Message, Reply, ToolCall, ToolMessage, Usage, UserMessage
from lmagent.core.prompts import message_to_dict
from lmagent.errors import LimitExceeded, OutputError
from lmagent.providers.base import ToolChoice
from lmagent.toolkit.context import ToolOutcome
from lmagent.toolkit.schema import OutputSchema, ToolSpec

__all__ = [
    "Approve",
    "AskModel",
    "Limits",
    "Output",
    "PausedRun",
    "RunState",
    "RunStep",
    "RunTools",
    "agent_flow",
]


_NO_USAGE = Usage()


@fast_dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a run ends at the latest; checked before anything is paid. None: no limit.

    Raises:
        ValueError: A limit is no number from 0 on.
    """

    rounds: int | None = 20
    """Asks of the model, re-asks included."""
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
    """Re-asks in a row for calls that could not be read or were cut."""
    output_retries: int = 2
    """Re-asks for a structured answer that does not fit its type."""
    prices: Mapping[str, Price] | None = field(default=None, compare=False)
    """Model id (shell patterns allowed) -> `Price`, for `cost`."""

    def __post_init__(self) -> None:
        for name in _LIMITS:
            value = getattr(self, name)
            check_limit(f"Limits({name}={value!r})", value)

    def shared(self, budget: Budget | None) -> Budget | None:
        """Return the budget of a run and of the agents nested in it: what these limits say of spending, in `budget`."""
        if self.tokens is None and self.cost is None and self.seconds is None:
            return budget
        return Budget(tokens=self.tokens, cost=self.cost, seconds=self.seconds, prices=self.prices, parent=budget)


_LIMITS = tuple(each.name for each in fields(Limits) if each.name != "prices")


class PausedRun(str):
    """What a tool returns when the agent behind it waits for a decision; its call stays open."""

    __slots__ = ("run",)
    run: RunResult

    def __new__(cls, run: RunResult) -> PausedRun:
        made = super().__new__(cls, "Waits for a decision.")
        made.run = run
        return made


class Output(Protocol):
    """How a structured answer is asked for and read."""

    schema: OutputSchema | None
    """Asked for natively, when the model can."""
    tool: ToolSpec | None
    """A tool whose call is the answer, for models that can be forced to call."""

    @property
    def instruction(self) -> str:
        """Put into the system text, for models that can only be asked."""
        ...

    def read(self, reply: Reply) -> tuple[Any, tuple[str, ...]]:
        """Return the value and what is wrong with the answer, one line each."""
        ...

    def is_output(self, call: ToolCall) -> bool:
        """Whether this call is the answer itself (a forced tool)."""
        ...


@fast_dataclass()
class AskModel:
    """Ask; send back the `Reply`."""

    messages: tuple[Message, ...]
    tool_choice: ToolChoice
    output_schema: OutputSchema | None
    round: int


@fast_dataclass()
class Approve:
    """Ask somebody about these calls; send back a `Decision` each, and who made it."""

    calls: tuple[ToolCall, ...]


@fast_dataclass()
class RunTools:
    """Run these calls; send back a `ToolOutcome` each, in order."""

    calls: tuple[ToolCall, ...]
    round: int


RunStep: TypeAlias = AskModel | Approve | RunTools | Event


@fast_dataclass(kw_only=True)
class RunState:
    """All that one run has: kept apart from the agent, which many runs share."""

    history: History
    clock: Callable[[], float]
    limits: Limits = Limits()
    start: int = 0
    """Length of the history before the run."""
    agent_name: str = ""
    tool_choice: ToolChoice = "auto"
    output: Output | None = None
    budget: Budget | None = None
    last_word: bool = False
    """The budget grants one more ask, without tools."""
    policy: Callable[[ToolCall, Collection[str]], Ruling | None] = lambda call, allowed: None
    """What stands between a call and its run, given the names of the tools that were allowed in this run."""
    canonical: Callable[[str], str] = lambda arguments: arguments
    """Brings arguments into one form, so that the same call is seen as the same."""
    resumed: Resumption | None = None
    """The paused run that goes on."""
    usage: Usage = _NO_USAGE
    cost: float = 0.0
    rounds: int = 0
    requests: int = 0
    started: float = 0.0
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    ids: set[str] | None = None
    """Of all calls of the history, once somebody asked."""
    allowed: set[str] = field(default_factory=set[str])
    last: Reply | None = None
    repeated: tuple[str, tuple[str, ...]] = ("", ())
    failed_rounds: int = 0
    unread_rounds: int = 0
    retries: int = 0
    value: Any = None
    waiting: Waiting | None = None

    def go_on(self, resumed: Resumption) -> None:
        """Make this the state of a paused run that goes on: what was spent and allowed counts."""
        paused = resumed.run
        self.resumed = resumed
        self.usage, self.rounds, self.requests = paused.usage, paused.rounds, paused.requests
        self.calls = list(paused.tool_calls)
        self.allowed = set(resumed.allowed)
        price = price_of(self.limits.prices, paused.model_id)
        self.cost = price.of(paused.usage) if price else 0.0

    def own_id(self, id: str) -> str:
        """Return the id of a call of the newest reply: the server's, or another where an earlier call has it."""
        if self.ids is None:
            self.ids = self.history.call_ids()
        return own_id(id, self.ids)

    def result(self) -> RunResult:
        """Return the run as it stands."""
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
            agent_name=self.agent_name,
            last=last,
            waiting=self.waiting,
        )

    def exceeded(self, limit: str, value: float, hint: str) -> LimitExceeded:
        """Return the error for a limit, with the run in it; its history is valid."""
        self.history.answer_open_calls()
        return LimitExceeded(
            f"The run reached its limit of {value:g} {limit.replace('_', ' ')}. {hint}",
            limit=limit,
            value=value,
            run=self.result(),
        )


def agent_flow(state: RunState) -> Generator[RunStep, Any, RunResult]:
    """Run one prompt to its end.

    Raises:
        LimitExceeded: A limit was reached; `.run` is the partial result.
        OutputError: The structured answer never fitted.
    """
    state.started = state.clock()
    try:
        if state.resumed:
            length = len(state.history)
            yield from _tool_round(state, state.resumed.calls, state.resumed)
            yield RoundEnd(state.rounds, None, state.history.since(length))
        while not state.waiting:
            _check_before_asking(state)
            state.rounds += 1
            yield RoundStart(state.rounds)
            length = len(state.history)
            schema = state.output.schema if state.output else None
            asked = AskModel(state.history.messages, _choice(state), schema, state.rounds)
            reply = yield asked
            if _is_lost(reply):
                _count(state, reply)
                reply = yield asked
            reply = _with_own_ids(state, reply)
            _take(state, reply)
            calls = _calls_to_run(state, reply)
            if calls:
                yield from _tool_round(state, calls)
            yield RoundEnd(state.rounds, reply, state.history.since(length))
            if not calls and _read_output(state, reply):
                break
        return state.result()
    finally:
        if not state.waiting:
            state.history.answer_open_calls()


def _choice(state: RunState) -> ToolChoice:
    """A forced choice holds for the first ask: held longer it would never let the model answer."""
    if state.last_word:
        return "none"
    if state.output and state.output.tool and state.tool_choice == "auto":
        return "required"  # the answer is a call, too
    return state.tool_choice if state.rounds == 1 or state.tool_choice == "none" else "auto"


def _with_own_ids(state: RunState, reply: Reply) -> Reply:
    """A server that numbers the calls of each reply from anew repeats ids; in a history each is there once."""
    calls = reply.message.tool_calls
    if not calls:
        return reply
    own = tuple(call if call.id == (id := state.own_id(call.id)) else replace(call, id=id) for call in calls)
    assert state.ids is not None
    state.ids.update(call.id for call in own)
    return reply if own == calls else replace(reply, message=replace(reply.message, tool_calls=own))


def _is_lost(reply: Reply) -> bool:
    """Whether the provider failed with nothing said, as Gemini does with a call it cannot read: worth asking again."""
    return reply.finish_reason == "error" and not (reply.message.content or reply.message.tool_calls)


def _take(state: RunState, reply: Reply) -> None:
    state.last = reply
    state.history.append(reply.message)
    _count(state, reply)


def _count(state: RunState, reply: Reply) -> None:
    state.requests += reply.attempts
    state.usage += reply.usage
    if state.limits.cost is not None and reply.usage:
        price = price_of(state.limits.prices, reply.model_id)
        if price is None:
            raise state.exceeded("cost", state.limits.cost, f"There is no price for {reply.model_id!r}.")
        state.cost += price.of(reply.usage)


def _calls_to_run(state: RunState, reply: Reply) -> tuple[ToolCall, ...]:
    """Return the calls that tools answer; a call that is the structured answer itself is answered here."""
    calls = reply.message.tool_calls
    output = state.output
    if output is None or not any(output.is_output(call) for call in calls):
        return calls
    for call in calls:
        text = "Answer received." if output.is_output(call) else "Not run: the answer was given in the same reply."
        state.history.append(ToolMessage(text, tool_call_id=call.id, name=call.name))
    return ()


def _check_before_asking(state: RunState) -> None:
    limits = state.limits
    if limits.rounds is not None and state.rounds >= limits.rounds:
        raise state.exceeded("rounds", limits.rounds, "Raise Limits(rounds=...) if the work needs more.")
    if limits.message_bytes is not None:
        size = sum(len(dumps(message_to_dict(message))) for message in state.history.messages)
        if size > limits.message_bytes:
            raise state.exceeded("message_bytes", limits.message_bytes, f"The history has {size}.")
    _check_spent(state)


def _check_spent(state: RunState) -> None:
    limits = state.limits
    if limits.tokens is not None and state.usage.total_tokens >= limits.tokens:
        raise state.exceeded("tokens", limits.tokens, f"{state.usage.total_tokens} are used.")
    if limits.cost is not None and state.cost >= limits.cost:
        raise state.exceeded("cost", limits.cost, f"{state.cost:g} is spent.")
    if limits.seconds is not None and state.clock() - state.started >= limits.seconds:
        raise state.exceeded("seconds", limits.seconds, "Raise Limits(seconds=...) if the work needs longer.")
    if state.budget and not state.last_word:
        state.last_word = state.budget.check() == "last"


def _tool_round(
    state: RunState, calls: tuple[ToolCall, ...], resumed: Resumption | None = None
) -> Generator[RunStep, Any, None]:
    """Answer every call of one reply, in order; leaves `state.waiting` when a decision is waited for."""
    answers: dict[str, ToolMessage] = {}
    decided: dict[str, Decision] = {}
    if resumed:
        answers = {message.tool_call_id: message for message in resumed.answered}
        decided = resumed.decided
    else:
        _check_calls(state, calls)
        _check_spent(state)
        state.calls.extend(calls)
    for index, call in enumerate(calls):
        refusal = _refusal(state, call, index)
        if refusal:
            answers[call.id] = _answer(call, refusal)
    runnable = yield from _approved(state, [call for call in calls if call.id not in answers], answers, decided)
    if state.waiting:
        return
    if state.budget:
        state.budget.take_tool_calls(len(runnable) - (len(resumed.nested) if resumed else 0))
    if runnable:
        outcomes: Sequence[ToolOutcome] = yield RunTools(tuple(runnable), state.rounds)
        paused = {each.call_id: each.value.run for each in outcomes if isinstance(each.value, PausedRun)}
        for outcome in outcomes:
            if outcome.call_id not in paused:
                answers[outcome.call_id] = ToolMessage(
                    outcome.content, tool_call_id=outcome.call_id, name=outcome.name, is_error=outcome.is_error
                )
        _record_repairs(state, outcomes)
        if paused:
            state.waiting = Waiting(
                answered=tuple(answers.values()), nested=paused, allowed=tuple(sorted(state.allowed))
            )
            return
    messages = [answers[call.id] for call in calls]
    state.history.extend(messages)
    _check_errors(state, calls, messages)


def _approved(
    state: RunState, calls: list[ToolCall], answers: dict[str, ToolMessage], decided: dict[str, Decision]
) -> Generator[RunStep, Any, list[ToolCall]]:
    """Return the calls that may run, their arguments perhaps changed; what is denied gets its answer."""
    rulings = {call.id: ruling for call in calls if (ruling := state.policy(call, state.allowed)) is not None}
    asked = tuple(c for c in calls if c.id in rulings and c.id not in decided and rulings[c.id].decision is None)
    made = {id: (decision, "caller") for id, decision in decided.items()}
    made |= {id: (ruling.decision, "rule") for id, ruling in rulings.items() if ruling.decision and id not in made}
    if asked:
        outcome: Sequence[tuple[Decision, str]] = yield Approve(asked)
        made |= dict(zip((call.id for call in asked), outcome, strict=True))
        _check_spent(state)  # a limit that was reached while somebody thought: nothing runs
    for call in calls:
        if call.id in rulings:
            decision, by = made[call.id]
            yield ToolDecided(call, decision, rulings[call.id].rule, by)
    decisions = {id: decision for id, (decision, _) in made.items()}
    waiting = tuple(call for call in calls if isinstance(decisions.get(call.id), Pause))
    if waiting:
        state.waiting = Waiting(
            calls=waiting,
            decided={id: each for id, each in decisions.items() if not isinstance(each, Pause)},
            answered=tuple(answers.values()),
            allowed=tuple(sorted(state.allowed)),
        )
        return []
    runnable = _decided(calls, decisions, answers)
    state.allowed.update(call.name for call in runnable if call.id in rulings)
    return runnable


def _check_calls(state: RunState, calls: tuple[ToolCall, ...]) -> None:
    """Look at what a reply asks for, before anything of it runs."""
    limits = state.limits
    if limits.tool_calls is not None and len(state.calls) + len(calls) > limits.tool_calls:
        raise state.exceeded("tool_calls", limits.tool_calls, f"The model asks for {len(calls)} more; none was run.")
    for call in calls:
        key = f"{call.name}\0{state.canonical(call.arguments)}"
        state.repeated = (key, (*(state.repeated[1] if key == state.repeated[0] else ()), call.id))
        if limits.identical_calls is not None and len(state.repeated[1]) > limits.identical_calls:
            hint = f"The model repeats {call.name!r} with the same arguments; the last one was not run."
            raise state.exceeded("identical_calls", limits.identical_calls, hint)


def _check_errors(state: RunState, calls: tuple[ToolCall, ...], messages: Sequence[ToolMessage]) -> None:
    """Look at how a round went: a model that only fails does not get better by paying."""
    limits = state.limits
    state.failed_rounds = state.failed_rounds + 1 if all(message.is_error for message in messages) else 0
    state.unread_rounds = state.unread_rounds + 1 if all(call.problem for call in calls) else 0
    if state.unread_rounds > limits.call_retries:
        raise state.exceeded("call_retries", limits.call_retries, f"The last one: {messages[-1].content:.300}")
    if limits.tool_errors is not None and state.failed_rounds >= limits.tool_errors:
        raise state.exceeded("tool_errors", limits.tool_errors, f"The last one: {messages[-1].content:.200}")


def _record_repairs(state: RunState, outcomes: Sequence[ToolOutcome]) -> None:
    """Note on the calls of the newest message what had to be mended to read them."""
    repairs = {outcome.call_id: outcome.repairs for outcome in outcomes if outcome.repairs}
    message = state.history.last
    if repairs and isinstance(message, AssistantMessage):
        noted = tuple(replace(c, repairs=c.repairs + repairs.get(c.id, ())) for c in message.tool_calls)
        state.history.replace_last(replace(message, tool_calls=noted))
        state.calls[-len(noted) :] = noted


def _answer(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(text, tool_call_id=call.id, name=call.name, is_error=True)


def _refusal(state: RunState, call: ToolCall, index: int) -> str:
    """Return why a call is answered without being run, or nothing."""
    if call.problem:
        return call.problem
    most = state.limits.calls_per_round
    if most is not None and index >= most:
        return f"Not run: at most {most} calls in one reply."
    earlier = state.repeated[1][:-1]
    if not earlier or call.id != state.repeated[1][-1] or len(earlier) + 1 != state.limits.identical_calls:
        return ""
    # The last call that the limit lets pass: what is known is told instead of paid for again.
    known = next((m.content for m in reversed(state.history.messages) if _answers(m, earlier)), "")
    return (
        f"Not run: the same call came {len(earlier) + 1} times in a row."
        + (f" Its result was: {known}" if known else "")
        + " Answer the user, or call with other arguments."
    )


def _answers(message: Message, ids: tuple[str, ...]) -> bool:
    return isinstance(message, ToolMessage) and message.tool_call_id in ids


def _decided(
    calls: list[ToolCall], decisions: Mapping[str, Decision], answers: dict[str, ToolMessage]
) -> list[ToolCall]:
    """Apply decisions; what is neither allowed nor edited is denied."""
    kept: list[ToolCall] = []
    for call in calls:
        match decisions.get(call.id, Allow()):
            case Allow():
                kept.append(call)
            case Edit(arguments):
                text = arguments if isinstance(arguments, str) else dumps_text(dict(arguments))
                kept.append(replace(call, arguments=text))
            case Deny(reason):
                answers[call.id] = _answer(call, " ".join(reason.split()))
            case _:
                answers[call.id] = _answer(call, Deny().reason)
    return kept


def _read_output(state: RunState, reply: Reply) -> bool:
    """Read the structured answer; False: the model was told what is wrong and is asked again."""
    if state.output is None:
        state.value = reply.reply
        return True
    state.value, problems = state.output.read(reply)
    if not problems:
        return True
    state.retries += 1
    if state.retries > state.limits.output_retries:
        raise OutputError(
            f"The answer did not fit after {state.limits.output_retries} re-asks: {'; '.join(problems)}",
            problems=problems,
            run=state.result(),
        )
    complaint = "The answer does not fit:\n" + "\n".join(problems) + "\nSend only the corrected answer."
    state.history.append(UserMessage(complaint))
    return False
