"""The agent loop, once: a generator of steps that decides everything and does nothing.

A driver (agent.py) performs each step and sends its outcome back: `AskModel` -> the `Reply`, `Approve` -> one decision
a call, `RunTools` -> one `ToolOutcome` a call. Events among the steps are for the reader of a stream. What belongs to
time comes in through a clock. The history is valid whenever the generator ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from lmagent.errors import LimitExceeded, OutputError
from lmagent.events import Event, RoundEnd, RoundStart
from lmagent.history import History
from lmagent.jsontext import dumps_text
from lmagent.messages import AssistantMessage, FinishReason, Message, Reply, ToolCall, ToolMessage, Usage, UserMessage
from lmagent.outcomes import ToolOutcome
from lmagent.prompts import message_from_dict, message_to_dict
from lmagent.providers.base import OutputSchema, ToolChoice
from lmagent.schema import ToolSpec
from lmagent.values import record

if TYPE_CHECKING:
    from lmagent.budget import Budget

__all__ = [
    "Allow",
    "Approve",
    "AskModel",
    "Decision",
    "Deny",
    "Edit",
    "Limits",
    "Output",
    "Pause",
    "RunResult",
    "RunState",
    "RunTools",
    "Step",
    "agent_flow",
]


_NO_USAGE = Usage()


@record(frozen=True, kw_only=True)
class Limits:
    """Where a run ends at the latest; checked before anything is paid. None: no limit."""

    rounds: int = 20
    """Asks of the model, re-asks included."""
    tool_calls: int | None = 100
    """Calls run in all."""
    calls_per_round: int = 64
    """Calls in one reply; more are answered with an error."""
    tokens: int | None = None
    """Input and output tokens as the provider counts them."""
    seconds: float | None = None
    """Time since the run began."""
    identical_calls: int = 3
    """From the how-manieth identical call in a row on it is not run again; two more end the run."""
    tool_errors: int = 5
    """Rounds in a row in which every call failed."""
    call_retries: int = 2
    """Re-asks in a row for calls that could not be read or were cut."""
    output_retries: int = 2
    """Re-asks for a structured answer that does not fit its type."""


@record(frozen=True)
class Allow:
    """Run the call."""


@record(frozen=True)
class Deny:
    """Do not run it; the model is told why."""

    reason: str = "The user did not allow this call."


@record(frozen=True)
class Edit:
    """Run it with these arguments (JSON text or an object), checked like the model's own."""

    arguments: str | Mapping[str, Any]


@record(frozen=True)
class Pause:
    """Decide later: the run ends with `.pending` and can be resumed."""


Decision: TypeAlias = Allow | Deny | Edit | Pause


@record(kw_only=True)
class RunResult:
    """A run, finished or not: what was said, done and spent."""

    messages: tuple[Message, ...]
    """The whole history, with what the run added."""
    new_messages: tuple[Message, ...] = ()
    """What the run added, the prompt included."""
    reply: str = ""
    """The text of the last answer."""
    output: Any = None
    """The structured answer, when an `output_type` was asked for; else the text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Every call of the run, in order."""
    usage: Usage = _NO_USAGE
    finish_reason: FinishReason | Literal["", "paused"] = ""
    """Of the last reply; empty when there was none, `paused` when calls wait for a decision."""
    rounds: int = 0
    requests: int = 0
    """Requests made, retries included."""
    model_id: str = ""
    last: Reply | None = None
    """The last reply as the model gave it."""
    pending: tuple[ToolCall, ...] = ()
    """Calls that wait for a decision."""

    def __str__(self) -> str:
        return self.reply

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain JSON values; `from_dict` reads it back, in another process too.

        `output` is kept only when it is plain JSON; the raw reply is not kept.
        """
        calls = {
            name: message_to_dict(AssistantMessage(tool_calls=getattr(self, name))).get("tool_calls", [])
            for name in ("tool_calls", "pending")
        }
        plain = {name: getattr(self, name) for name in ("reply", "finish_reason", "rounds", "requests", "model_id")}
        return {
            **plain,
            **calls,
            "usage": asdict(self.usage),
            "added": len(self.new_messages),
            "messages": [message_to_dict(message) for message in self.messages],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunResult:
        """Read what `to_dict` wrote. Raises `MessageError` when it is something else."""
        messages = tuple(message_from_dict(item) for item in data["messages"])
        calls: dict[str, Any] = {}
        for name in ("tool_calls", "pending"):
            holder = message_from_dict({"role": "assistant", "tool_calls": data.get(name, [])})
            calls[name] = holder.tool_calls if isinstance(holder, AssistantMessage) else ()
        plain = {name: data[name] for name in ("reply", "finish_reason", "rounds", "requests", "model_id")}
        return cls(
            **plain,
            **calls,
            usage=Usage(**data["usage"]),
            messages=messages,
            new_messages=messages[len(messages) - data["added"] :],
        )

    @property
    def is_paused(self) -> bool:
        """Whether calls wait for a decision; `Agent.resume` goes on."""
        return bool(self.pending)


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


@record()
class AskModel:
    """Ask; send back the `Reply`."""

    messages: tuple[Message, ...]
    tool_choice: ToolChoice
    output_schema: OutputSchema | None
    round: int


@record()
class Approve:
    """Decide on these calls; send back a `Decision` each."""

    calls: tuple[ToolCall, ...]


@record()
class RunTools:
    """Run these calls; send back a `ToolOutcome` each, in order."""

    calls: tuple[ToolCall, ...]
    round: int


Step: TypeAlias = AskModel | Approve | RunTools | Event


@record(kw_only=True)
class RunState:
    """All that one run has: kept apart from the agent, which many runs share."""

    history: History
    clock: Callable[[], float]
    limits: Limits = Limits()
    start: int = 0
    """Length of the history before the run."""
    tool_choice: ToolChoice = "auto"
    output: Output | None = None
    budget: Budget | None = None
    last_word: bool = False
    """The budget grants one more ask, without tools."""
    needs_approval: Callable[[ToolCall, Collection[str]], bool] = lambda call, allowed: False
    """Whether to ask about a call, given the names of the tools that were allowed in this run."""
    canonical: Callable[[str], str] = lambda arguments: arguments
    """Brings arguments into one form, so that the same call is seen as the same."""
    resumed: tuple[ToolCall, ...] = ()
    """Calls at the end of the history whose decision was waited for."""
    usage: Usage = _NO_USAGE
    rounds: int = 0
    requests: int = 0
    started: float = 0.0
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    allowed: set[str] = field(default_factory=set[str])
    last: Reply | None = None
    repeated: tuple[str, int] = ("", 0)
    failed_rounds: int = 0
    unread_rounds: int = 0
    retries: int = 0

    value: Any = None
    pending: tuple[ToolCall, ...] = ()

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
            finish_reason="paused" if self.pending else last.finish_reason if last else "",
            rounds=self.rounds,
            requests=self.requests,
            model_id=last.model_id if last else "",
            last=last,
            pending=self.pending,
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


def agent_flow(state: RunState) -> Generator[Step, Any, RunResult]:
    """Run one prompt to its end.

    Raises:
        LimitExceeded: A limit was reached; `.run` is the partial result.
        OutputError: The structured answer never fitted.
    """
    state.started = state.clock()
    try:
        calls = state.resumed
        while True:
            if calls:
                yield from _tool_round(state, calls)
                if state.pending:
                    return state.result()
            _check_before_asking(state)
            state.rounds += 1
            yield RoundStart(state.rounds)
            length = len(state.history)
            schema = state.output.schema if state.output else None
            reply: Reply = yield AskModel(state.history.messages, _choice(state), schema, state.rounds)
            _take(state, reply)
            calls = _calls_to_run(state, reply)
            if calls:
                yield from _tool_round(state, calls)
            yield RoundEnd(state.rounds, reply, state.history.since(length))
            if state.pending or (not calls and _read_output(state, reply)):
                return state.result()
            calls = ()
    finally:
        if not state.pending:
            state.history.answer_open_calls()


def _choice(state: RunState) -> ToolChoice:
    """A forced choice holds for the first ask: held longer it would never let the model answer."""
    if state.last_word:
        return "none"
    if state.output and state.output.tool and state.tool_choice == "auto":
        return "required"  # the answer is a call, too
    return state.tool_choice if state.rounds == 1 or state.tool_choice == "none" else "auto"


def _take(state: RunState, reply: Reply) -> None:
    state.last = reply
    state.requests += reply.attempts
    state.usage += reply.usage
    state.history.append(reply.message)


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
    if state.rounds >= limits.rounds:
        raise state.exceeded("rounds", limits.rounds, "Raise Limits(rounds=...) if the work needs more.")
    _check_spent(state)


def _check_spent(state: RunState) -> None:
    limits = state.limits
    if limits.tokens is not None and state.usage.total_tokens >= limits.tokens:
        raise state.exceeded("tokens", limits.tokens, f"{state.usage.total_tokens} are used.")
    if limits.seconds is not None and state.clock() - state.started >= limits.seconds:
        raise state.exceeded("seconds", limits.seconds, "Raise Limits(seconds=...) if the work needs longer.")
    if state.budget and not state.last_word:
        state.last_word = state.budget.check() == "last"


def _tool_round(state: RunState, calls: tuple[ToolCall, ...]) -> Generator[Step, Any, None]:
    """Answer every call of one reply, in order; leaves `state.pending` when a decision is waited for."""
    limits = state.limits
    if limits.tool_calls is not None and len(state.calls) + len(calls) > limits.tool_calls:
        raise state.exceeded("tool_calls", limits.tool_calls, f"The model asks for {len(calls)} more; none was run.")
    _check_spent(state)
    answers: dict[str, ToolMessage] = {}
    for index, call in enumerate(calls):
        refusal = _refusal(state, call, index)
        if refusal:
            answers[call.id] = _answer(call, refusal)
    runnable = [call for call in calls if call.id not in answers]
    asked = tuple(call for call in runnable if state.needs_approval(call, state.allowed))
    if asked:
        decisions: Sequence[Decision] = yield Approve(asked)
        if any(isinstance(decision, Pause) for decision in decisions):
            state.pending = asked
            return
        runnable = _decided(runnable, dict(zip((c.id for c in asked), decisions, strict=True)), answers)
        ids = {call.id for call in asked}
        state.allowed.update(call.name for call in runnable if call.id in ids)
    if state.budget:
        state.budget.take_tool_calls(len(runnable))
    state.calls.extend(calls)
    if runnable:
        outcomes: Sequence[ToolOutcome] = yield RunTools(tuple(runnable), state.rounds)
        for outcome in outcomes:
            answers[outcome.call_id] = ToolMessage(
                outcome.content, tool_call_id=outcome.call_id, name=outcome.name, is_error=outcome.is_error
            )
        _record_repairs(state, calls, outcomes)
    messages = [answers[call.id] for call in calls]
    state.history.extend(messages)
    state.failed_rounds = state.failed_rounds + 1 if all(message.is_error for message in messages) else 0
    state.unread_rounds = state.unread_rounds + 1 if all(call.problem for call in calls) else 0
    if state.unread_rounds > limits.call_retries:
        raise state.exceeded("call_retries", limits.call_retries, f"The last one: {messages[-1].content:.300}")
    if state.failed_rounds >= limits.tool_errors:
        raise state.exceeded("tool_errors", limits.tool_errors, f"The last one: {messages[-1].content:.200}")
    if state.repeated[1] >= limits.identical_calls + 2:
        raise state.exceeded("identical_calls", limits.identical_calls, f"The model repeats {calls[-1].name!r}.")


def _record_repairs(state: RunState, calls: tuple[ToolCall, ...], outcomes: Sequence[ToolOutcome]) -> None:
    """Note on the calls of the newest message what had to be mended to read them."""
    repairs = {outcome.call_id: outcome.repairs for outcome in outcomes if outcome.repairs}
    message = state.history.last
    if not repairs or not isinstance(message, AssistantMessage):
        return
    noted = tuple(replace(c, repairs=c.repairs + repairs.get(c.id, ())) for c in message.tool_calls)
    state.history.replace_last(replace(message, tool_calls=noted))
    by_id = {call.id: call for call in noted}
    state.calls[-len(calls) :] = [by_id.get(call.id, call) for call in calls]


def _answer(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(text, tool_call_id=call.id, name=call.name, is_error=True)


def _refusal(state: RunState, call: ToolCall, index: int) -> str:
    """Return why a call is answered without being run, or nothing."""
    if call.problem:
        return call.problem
    if index >= state.limits.calls_per_round:
        return f"Not run: at most {state.limits.calls_per_round} calls in one reply."
    key = f"{call.name}\0{state.canonical(call.arguments)}"
    state.repeated = (key, state.repeated[1] + 1 if key == state.repeated[0] else 1)
    if state.repeated[1] < state.limits.identical_calls:
        return ""
    known = _known_result(state, call)
    return (
        f"Not run: the same call came {state.repeated[1]} times in a row."
        + (f" Its result was: {known}" if known else "")
        + " Answer the user, or call with other arguments."
    )


def _known_result(state: RunState, call: ToolCall) -> str:
    for message in reversed(state.history.since(state.start)):
        if isinstance(message, ToolMessage) and message.name == call.name and not message.is_error:
            return message.content
    return ""


def _decided(
    runnable: list[ToolCall], decisions: dict[str, Decision], answers: dict[str, ToolMessage]
) -> list[ToolCall]:
    """Apply decisions; what is neither allowed nor edited is denied."""
    kept: list[ToolCall] = []
    for call in runnable:
        match decisions.get(call.id, Allow()):
            case Allow():
                kept.append(call)
            case Edit(arguments):
                text = arguments if isinstance(arguments, str) else dumps_text(dict(arguments))
                kept.append(replace(call, arguments=text))
            case Deny(reason):
                answers[call.id] = _answer(call, reason)
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
