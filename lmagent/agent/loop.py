"""The agent loop: one generator of steps that makes every decision and does no I/O.

A run is a sequence of rounds. A round is one request to the model and, if the reply has tool calls, their results. The
loop yields what must be done next as a step. A driver (`drivers.py`) does it and sends the outcome back:

    AskModel   send the messages       -> the `Reply`
    Approve    decide on calls         -> a decision for each call, and who made it
    RunTools   run calls               -> a `ToolOutcome` for each call, in order

Events between the steps (`RoundStart`, `ToolDecided`, `RoundEnd`) are for readers of a stream and need no outcome. The
loop runs until a reply has no tool calls, a decision must be waited for, or a limit is reached. One generator serves
four drivers (sync, async, plain, streamed), so they cannot differ in what they decide. Time comes in through
`Run.clock`; tests drive the loop with `send`, without a model and without waiting.

In one round: limits are checked first, before anything is paid for. The reply's call ids are made unique within the
history, because some servers number the calls of each reply from zero. Calls that cannot run (unreadable, too many, the
same call again and again) are answered with an error at once. The others go past the approval policy. What is allowed
runs; what is denied is answered. Results are appended in the order of the calls, whichever finished first.

A run pauses when a call needs a decision and no approver can make it, or when the agent behind a tool paused. Its calls
then stay open in the history, and `Run.waiting` says what is known of them. A resumed run begins with those calls.

However the generator ends, by return, exception or `close()`, each call in the history has a result, unless the run is
paused: `finally` answers the open ones. A history that was passed in stays valid after a cancelled or failed run.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from lmagent.agent.result import Allow, Decision, Deny, Edit, Pause, Resumption, RunResult, Waiting
from lmagent.agent.run import PausedRun, Run
from lmagent.core.budget import price_of
from lmagent.core.events import Event, RoundEnd, RoundStart, ToolDecided
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.json_text import dumps, dumps_text
from lmagent.core.messages import AssistantMessage, Message, Reply, ToolCall, ToolMessage, UserMessage, message_to_dict
from lmagent.errors import OutputError
from lmagent.providers.base import ToolChoice
from lmagent.toolkit.context import ToolOutcome
from lmagent.toolkit.schema import OutputSchema

__all__ = ["Approve", "AskModel", "RunStep", "RunTools", "agent_flow"]


@fast_dataclass()
class AskModel:
    """Ask the model; send back the `Reply`."""

    messages: tuple[Message, ...]
    tool_choice: ToolChoice
    output_schema: OutputSchema | None
    round: int


@fast_dataclass()
class Approve:
    """Get a decision on these calls; send back a `Decision` for each, and who made it."""

    calls: tuple[ToolCall, ...]


@fast_dataclass()
class RunTools:
    """Run these calls; send back a `ToolOutcome` for each, in order."""

    calls: tuple[ToolCall, ...]
    round: int


RunStep: TypeAlias = AskModel | Approve | RunTools | Event


def agent_flow(run: Run) -> Generator[RunStep, Any, RunResult]:
    """Yield the steps of one run and return its result.

    Raises:
        LimitExceeded: A limit was reached; `.run` is the partial result.
        OutputError: No structured answer fitted its type.
    """
    run.started = run.clock()
    try:
        if run.resumed:
            length = len(run.history)
            yield from _tool_round(run, run.resumed.calls, run.resumed)
            yield RoundEnd(run.rounds, None, run.history.since(length))
        while not run.waiting:
            _check_before_asking(run)
            run.rounds += 1
            yield RoundStart(run.rounds)
            length = len(run.history)
            schema = run.output.schema if run.output else None
            was_last = run.is_last_request
            step = AskModel(run.history.messages, _choice(run), schema, run.rounds)
            reply = yield step
            if reply.finish_reason == "error" and not (reply.message.content or reply.message.tool_calls):
                # The provider failed without any content, as Gemini does after a malformed call. One retry helps.
                _count(run, reply)
                reply = yield step
            reply = _with_own_ids(run, reply)
            run.last = reply
            run.history.append(reply.message)
            _count(run, reply)
            calls = _calls_to_run(run, reply)
            if calls and was_last:
                run.history.extend([_answer(call, _BUDGET_USED_UP) for call in calls])
                yield RoundEnd(run.rounds, reply, run.history.since(length))
                _end_over_budget(run, reply)
                break
            if calls:
                yield from _tool_round(run, calls)
            yield RoundEnd(run.rounds, reply, run.history.since(length))
            if not calls and _read_output(run, reply):
                break
        return run.result()
    finally:
        if not run.waiting:
            run.history.answer_open_calls()


_BUDGET_USED_UP = "Not run: the budget is used up, and this was the last request."


def _end_over_budget(run: Run, reply: Reply) -> None:
    """End a run whose last request brought calls again: with the text beside them, else with `LimitExceeded`.

    The request said `tool_choice="none"`; some servers and every prompted model can ignore that.
    """
    if reply.reply.strip() and run.output is None:
        run.value = reply.reply
        return
    assert run.budget is not None
    run.budget.check()
    raise run.exceeded("requests", run.budget.spent.requests, "The model called tools instead of answering.")


def _choice(run: Run) -> ToolChoice:
    """Return the tool choice of the next request.

    A forced choice holds for the first request only, as the model could never answer otherwise.
    """
    if run.is_last_request:
        return "none"
    if run.output and run.output.tool and run.tool_choice == "auto":
        return "required"  # the structured answer is itself a call
    return run.tool_choice if run.rounds == 1 or run.tool_choice == "none" else "auto"


def _with_own_ids(run: Run, reply: Reply) -> Reply:
    """Return the reply with call ids that are unique in the history: some servers repeat theirs in every reply."""
    calls = reply.message.tool_calls
    if not calls:
        return reply
    own = tuple(call if call.id == (id := run.own_id(call.id)) else replace(call, id=id) for call in calls)
    assert run.ids is not None
    run.ids.update(call.id for call in own)
    return reply if own == calls else replace(reply, message=replace(reply.message, tool_calls=own))


def _count(run: Run, reply: Reply) -> None:
    run.requests += reply.attempts
    run.usage += reply.usage
    if run.limits.cost is not None and reply.usage:
        price = price_of(run.limits.prices, reply.model_id)
        if price is None:
            raise run.exceeded("cost", run.limits.cost, f"There is no price for {reply.model_id!r}.")
        run.cost += price.of(reply.usage)


def _calls_to_run(run: Run, reply: Reply) -> tuple[ToolCall, ...]:
    """Return the calls that tools answer. A call that is itself the structured answer gets its result here."""
    calls = reply.message.tool_calls
    output = run.output
    if output is None or not any(output.is_output(call) for call in calls):
        return calls
    for call in calls:
        text = "Answer received." if output.is_output(call) else "Not run: the answer was given in the same reply."
        run.history.append(ToolMessage(text, tool_call_id=call.id, name=call.name))
    return ()


def _check_before_asking(run: Run) -> None:
    limits = run.limits
    if limits.rounds is not None and run.rounds >= limits.rounds:
        raise run.exceeded("rounds", limits.rounds, "Raise Limits(rounds=...) if the work needs more.")
    if limits.message_bytes is not None:
        size = sum(len(dumps(message_to_dict(message))) for message in run.history.messages)
        if size > limits.message_bytes:
            raise run.exceeded("message_bytes", limits.message_bytes, f"The history has {size}.")
    _check_spent(run)


def _check_spent(run: Run) -> None:
    limits = run.limits
    if limits.tokens is not None and run.usage.total_tokens >= limits.tokens:
        raise run.exceeded("tokens", limits.tokens, f"{run.usage.total_tokens} are used.")
    if limits.cost is not None and run.cost >= limits.cost:
        raise run.exceeded("cost", limits.cost, f"{run.cost:g} is spent.")
    if limits.seconds is not None and run.clock() - run.started >= limits.seconds:
        raise run.exceeded("seconds", limits.seconds, "Raise Limits(seconds=...) if the work needs longer.")
    if run.budget and not run.is_last_request:
        run.is_last_request = run.budget.check() == "last"


def _tool_round(
    run: Run, calls: tuple[ToolCall, ...], resumed: Resumption | None = None
) -> Generator[RunStep, Any, None]:
    """Answer every call of one reply, in order. Sets `run.waiting` if the run must pause."""
    answers: dict[str, ToolMessage] = {}
    decided: dict[str, Decision] = {}
    if resumed:
        answers = {message.tool_call_id: message for message in resumed.answered}
        decided = resumed.decided
    else:
        _check_calls(run, calls)
        _check_spent(run)
        run.calls.extend(calls)
    for index, call in enumerate(calls):
        refusal = _refusal(run, call, index)
        if refusal:
            answers[call.id] = _answer(call, refusal)
    runnable = yield from _approved(run, [call for call in calls if call.id not in answers], answers, decided)
    if run.waiting:
        return
    if run.budget:
        run.budget.take_tool_calls(len(runnable) - (len(resumed.nested) if resumed else 0))
    if runnable:
        outcomes: Sequence[ToolOutcome] = yield RunTools(tuple(runnable), run.rounds)
        paused = {each.call_id: each.value.run for each in outcomes if isinstance(each.value, PausedRun)}
        for outcome in outcomes:
            if outcome.call_id not in paused:
                answers[outcome.call_id] = ToolMessage(
                    outcome.content, tool_call_id=outcome.call_id, name=outcome.name, is_error=outcome.is_error
                )
        _record_repairs(run, outcomes)
        if paused:
            run.waiting = Waiting(answered=tuple(answers.values()), nested=paused, allowed=tuple(sorted(run.allowed)))
            return
    messages = [answers[call.id] for call in calls]
    run.history.extend(messages)
    _check_errors(run, calls, messages)


def _approved(
    run: Run, calls: list[ToolCall], answers: dict[str, ToolMessage], decided: dict[str, Decision]
) -> Generator[RunStep, Any, list[ToolCall]]:
    """Return the calls that may run, with edited arguments. Denied calls get their results in `answers`."""
    rulings = {call.id: ruling for call in calls if (ruling := run.policy(call, run.allowed)) is not None}
    asked = tuple(c for c in calls if c.id in rulings and c.id not in decided and rulings[c.id].decision is None)
    made = {id: (decision, "caller") for id, decision in decided.items()}
    made |= {id: (ruling.decision, "rule") for id, ruling in rulings.items() if ruling.decision and id not in made}
    if asked:
        outcome: Sequence[tuple[Decision, str]] = yield Approve(asked)
        made |= dict(zip((call.id for call in asked), outcome, strict=True))
        _check_spent(run)  # the decision took time: run nothing if a limit was reached meanwhile
    for call in calls:
        if call.id in rulings:
            decision, by = made[call.id]
            yield ToolDecided(call, decision, rulings[call.id].rule, by)
    decisions = {id: decision for id, (decision, _) in made.items()}
    waiting = tuple(call for call in calls if isinstance(decisions.get(call.id), Pause))
    if waiting:
        run.waiting = Waiting(
            calls=waiting,
            decided={id: each for id, each in decisions.items() if not isinstance(each, Pause)},
            answered=tuple(answers.values()),
            allowed=tuple(sorted(run.allowed)),
        )
        return []
    runnable = _decided(calls, decisions, answers)
    run.allowed.update(call.name for call in runnable if call.id in rulings)
    return runnable


def _check_calls(run: Run, calls: tuple[ToolCall, ...]) -> None:
    """Check the limits on calls before any of them runs."""
    limits = run.limits
    if limits.tool_calls is not None and len(run.calls) + len(calls) > limits.tool_calls:
        raise run.exceeded("tool_calls", limits.tool_calls, f"The model asks for {len(calls)} more; none was run.")
    for call in calls:
        key = f"{call.name}\0{_canonical(call.arguments)}"
        run.repeated = (key, (*(run.repeated[1] if key == run.repeated[0] else ()), call.id))
        if limits.identical_calls is not None and len(run.repeated[1]) > limits.identical_calls:
            hint = f"The model repeats {call.name!r} with the same arguments; the last one was not run."
            raise run.exceeded("identical_calls", limits.identical_calls, hint)


def _check_errors(run: Run, calls: tuple[ToolCall, ...], messages: Sequence[ToolMessage]) -> None:
    """Check the limits on failures after a round: a model that only makes mistakes is not worth more requests."""
    limits = run.limits
    run.failed_rounds = run.failed_rounds + 1 if all(message.is_error for message in messages) else 0
    run.unread_rounds = run.unread_rounds + 1 if all(call.problem for call in calls) else 0
    if run.unread_rounds > limits.call_retries:
        raise run.exceeded("call_retries", limits.call_retries, f"The last one: {messages[-1].content:.300}")
    if limits.tool_errors is not None and run.failed_rounds >= limits.tool_errors:
        raise run.exceeded("tool_errors", limits.tool_errors, f"The last one: {messages[-1].content:.200}")


def _record_repairs(run: Run, outcomes: Sequence[ToolOutcome]) -> None:
    """Record on the calls of the newest message which repairs made their arguments readable."""
    repairs = {outcome.call_id: outcome.repairs for outcome in outcomes if outcome.repairs}
    message = run.history.last
    if repairs and isinstance(message, AssistantMessage):
        noted = tuple(replace(c, repairs=c.repairs + repairs.get(c.id, ())) for c in message.tool_calls)
        run.history.replace_last(replace(message, tool_calls=noted))
        run.calls[-len(noted) :] = noted


def _answer(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(text, tool_call_id=call.id, name=call.name, is_error=True)


def _refusal(run: Run, call: ToolCall, index: int) -> str:
    """Return the error that answers a call instead of running it, or an empty text."""
    if call.problem:
        return call.problem
    most = run.limits.calls_per_round
    if most is not None and index >= most:
        return f"Not run: at most {most} calls in one reply."
    earlier = run.repeated[1][:-1]
    if not earlier or call.id != run.repeated[1][-1] or len(earlier) + 1 != run.limits.identical_calls:
        return ""
    # One more repetition would end the run. Send the known result instead of running the call again.
    results = (message for message in reversed(run.history.messages) if isinstance(message, ToolMessage))
    known = next((result.content for result in results if result.tool_call_id in earlier), "")
    return (
        f"Not run: the same call came {len(earlier) + 1} times in a row."
        + (f" Its result was: {known}" if known else "")
        + " Answer the user, or call with other arguments."
    )


def _decided(
    calls: list[ToolCall], decisions: Mapping[str, Decision], answers: dict[str, ToolMessage]
) -> list[ToolCall]:
    """Apply the decisions. A call that is neither allowed nor edited is denied."""
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


def _read_output(run: Run, reply: Reply) -> bool:
    """Read the answer. False: it does not fit its type, and the next request tells the model why."""
    if run.output is None:
        run.value = reply.reply
        return True
    if reply.finish_reason == "length":
        # Asking again with the same limit would be cut again, and what fits by chance (12 of 1234) is wrong.
        raise OutputError(
            "The answer was cut by the length limit (finish reason 'length'), so it is not used. Raise max_tokens.",
            problems=("It was cut by the length limit.",),
            run=run.result(),
        )
    run.value, problems = run.output.read(reply)
    if not problems:
        return True
    run.output_retries += 1
    if run.output_retries > run.limits.output_retries:
        raise OutputError(
            f"The answer did not fit after {run.limits.output_retries} retries: {'; '.join(problems)}",
            problems=problems,
            run=run.result(),
        )
    complaint = "The answer does not fit:\n" + "\n".join(problems) + "\nSend only the corrected answer."
    run.history.append(UserMessage(complaint))
    return False


def _canonical(arguments: str) -> str:
    """Return arguments in one form (sorted keys, no blanks), to see equal calls; unchanged if they are not JSON."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments
