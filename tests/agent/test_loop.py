"""The loop by hand: each step it asks for, and what it makes of the outcome. No driver, no model, no clock."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from lmagent import Agent
from lmagent.agent.loop import Approve, AskModel, RunTools, agent_flow
from lmagent.agent.result import Allow, Deny, Edit, Pause, Ruling, RunResult
from lmagent.agent.run import Limits, Run
from lmagent.core.budget import Price
from lmagent.core.events import RoundEnd, RoundStart, ToolDecided
from lmagent.core.history import NOT_RUN, History, history_problems
from lmagent.core.messages import AssistantMessage, Reply, ToolCall, ToolMessage, Usage, UserMessage
from lmagent.errors import LimitExceeded
from lmagent.providers.base import NamedTool
from lmagent.testing import ScriptedModel
from lmagent.toolkit.context import ToolOutcome

QUESTION = UserMessage("?")
AGENT = Agent(ScriptedModel([]))


def _run(**fields: Any) -> Run:
    given: dict[str, Any] = {"agent": AGENT, "history": History([QUESTION]), "clock": lambda: 0.0}
    return Run(**given | fields)


def _call(name: str = "look", arguments: str = "{}", number: int = 1, problem: str = "") -> ToolCall:
    return ToolCall(id=f"c{number}", name=name, arguments=arguments, problem=problem)


def _reply(*calls: ToolCall, text: str = "", tokens: int = 0) -> Reply:
    return Reply(
        message=AssistantMessage(text, tool_calls=calls),
        finish_reason="tool_calls" if calls else "stop",
        usage=Usage(total_tokens=tokens),
    )


def _outcomes(step: RunTools, content: str = "seen", *, is_error: bool = False) -> list[ToolOutcome]:
    return [ToolOutcome(call.id, call.name, content, is_error) for call in step.calls]


Flow = Generator[Any, Any, RunResult]


def _until(flow: Flow, wanted: type[Any], outcome: Any = None) -> Any:
    """Go on to the next step of a kind; events on the way are passed over."""
    step = flow.send(outcome)
    while not isinstance(step, wanted):
        assert isinstance(step, RoundStart | RoundEnd | ToolDecided), step
        step = flow.send(None)
    return step


def _result(flow: Flow, outcome: Any) -> RunResult:
    with pytest.raises(StopIteration) as caught:
        _until(flow, tuple, outcome)
    return caught.value.value


def test_a_reply_lost_by_the_provider_is_asked_for_once_more():
    lost = Reply(message=AssistantMessage(""), finish_reason="error", usage=Usage(total_tokens=3))
    run = _run()
    flow = agent_flow(run)
    first = _until(flow, AskModel)
    again = _until(flow, AskModel, lost)
    assert again == first
    result = _result(flow, _reply(text="here", tokens=4))
    assert [message.content for message in result.messages] == ["?", "here"]
    assert (result.reply, result.requests, result.rounds, result.usage.total_tokens) == ("here", 2, 1, 7)


def test_a_reply_lost_twice_ends_the_run_and_says_so():
    lost = Reply(message=AssistantMessage(""), finish_reason="error")
    flow = agent_flow(_run())
    _until(flow, AskModel)
    _until(flow, AskModel, lost)
    assert _result(flow, lost).finish_reason == "error"


def test_words_of_a_failed_reply_are_kept():
    flow = agent_flow(_run())
    _until(flow, AskModel)
    failed = Reply(message=AssistantMessage("half"), finish_reason="error")
    assert _result(flow, failed).reply == "half"


def test_a_round_with_a_tool_and_the_answer():
    run = _run()
    flow = agent_flow(run)
    assert flow.send(None) == RoundStart(1)
    ask = flow.send(None)
    assert isinstance(ask, AskModel)
    assert (ask.messages, ask.tool_choice, ask.output_schema, ask.round) == ((QUESTION,), "auto", None, 1)
    tools = flow.send(_reply(_call()))
    assert isinstance(tools, RunTools)
    assert (tools.calls, tools.round) == ((_call(),), 1)
    ended = flow.send(_outcomes(tools))
    assert isinstance(ended, RoundEnd)
    assert ended.messages == (AssistantMessage(tool_calls=(_call(),)), ToolMessage("seen", "c1", "look"))
    again = _until(flow, AskModel)
    assert again.round == 2
    assert again.messages == run.history.messages
    result = _result(flow, _reply(text="done"))
    assert result.reply == result.output == "done"
    assert result.tool_calls == (_call(),)
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]


def test_a_forced_choice_holds_for_the_first_ask_only():
    for choice in ("required", NamedTool("look")):
        flow = agent_flow(_run(tool_choice=choice))
        assert _until(flow, AskModel).tool_choice == choice
        tools = _until(flow, RunTools, _reply(_call()))
        assert _until(flow, AskModel, _outcomes(tools)).tool_choice == "auto"
    flow = agent_flow(_run(tool_choice="none"))
    assert _until(flow, AskModel).tool_choice == "none"


@pytest.mark.parametrize("where", ["ask", "run", "round", "approve"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, RuntimeError])
def test_the_history_is_valid_wherever_the_flow_is_left(where: str, error: type[BaseException]):
    run = _run(policy=lambda call, allowed: Ruling("always") if where == "approve" else None)
    flow = agent_flow(run)
    _until(flow, AskModel)
    if where == "approve":
        _until(flow, Approve, _reply(_call(), _call(number=2)))
    elif where != "ask":
        tools = _until(flow, RunTools, _reply(_call(), _call(number=2)))
        if where == "round":
            _until(flow, RoundEnd, _outcomes(tools))
    if error is GeneratorExit:
        flow.close()
    else:
        with pytest.raises(error):
            flow.throw(error)
    assert history_problems(run.history.messages) == []
    results = [message.content for message in run.history.messages if isinstance(message, ToolMessage)]
    assert results == {"ask": [], "run": [NOT_RUN] * 2, "round": ["seen"] * 2, "approve": [NOT_RUN] * 2}[where]


def _exceeded(flow: Flow, outcome: Any, kind: type[Any] = AskModel) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        _until(flow, kind, outcome)
    error = caught.value
    assert isinstance(error.run, RunResult)
    assert history_problems(error.run.messages) == []
    return error


def test_limit_on_rounds():
    flow = agent_flow(_run(limits=Limits(rounds=1)))
    _until(flow, AskModel)
    tools = _until(flow, RunTools, _reply(_call()))
    error = _exceeded(flow, _outcomes(tools))
    assert (error.limit, error.value) == ("rounds", 1)
    assert str(error) == "The run reached its limit of 1 rounds. Raise Limits(rounds=...) if the work needs more."
    assert error.run.messages[-1] == ToolMessage("seen", "c1", "look")
    assert error.run.tool_calls == (_call(),)


def test_limit_on_tool_calls_runs_none_of_those_too_many():
    run = _run(limits=Limits(tool_calls=2))
    flow = agent_flow(run)
    _until(flow, AskModel)
    error = _exceeded(flow, _reply(*(_call(number=number, arguments=f"[{number}]") for number in range(3))), RunTools)
    assert error.limit == "tool_calls"
    assert [message.content for message in error.run.messages[2:]] == [NOT_RUN] * 3
    assert error.run.messages == run.history.messages


def test_limit_on_tokens_is_looked_at_before_tools_run_and_before_the_next_ask():
    flow = agent_flow(_run(limits=Limits(tokens=10)))
    _until(flow, AskModel)
    error = _exceeded(flow, _reply(_call(), tokens=10), RunTools)
    assert error.limit == "tokens"
    assert error.run.usage.total_tokens == 10
    flow = agent_flow(_run(limits=Limits(tokens=10)))
    _until(flow, AskModel)
    assert _result(flow, _reply(text="paid already, so it counts", tokens=50)).reply == "paid already, so it counts"


def test_limit_on_seconds():
    now = [100.0]
    run = _run(clock=lambda: now[0], limits=Limits(seconds=5))
    flow = agent_flow(run)
    _until(flow, AskModel)
    tools = _until(flow, RunTools, _reply(_call()))
    now[0] = 105.0
    assert _exceeded(flow, _outcomes(tools)).limit == "seconds"


def test_limit_on_calls_in_one_reply_answers_the_rest_with_an_error():
    flow = agent_flow(_run(limits=Limits(calls_per_round=2)))
    _until(flow, AskModel)
    asked = [_call(number=number, arguments=f"[{number}]") for number in range(4)]
    tools = _until(flow, RunTools, _reply(*asked))
    assert tools.calls == tuple(asked[:2])
    ended = _until(flow, RoundEnd, _outcomes(tools))
    assert [m.content for m in ended.messages[1:]] == ["seen", "seen"] + ["Not run: at most 2 calls in one reply."] * 2


def test_the_third_identical_call_is_answered_with_the_known_result_and_a_fourth_ends_the_run():
    run = _run()
    flow = agent_flow(run)
    _until(flow, AskModel)
    tools = _until(flow, RunTools, _reply(_call(arguments="[0]", number=0)))
    _until(flow, AskModel, _outcomes(tools, "another"))
    for number, arguments in enumerate(('{"a":1}', '{"a": 1}'), start=1):
        tools = _until(flow, RunTools, _reply(_call(arguments=arguments, number=number)))
        _until(flow, AskModel, _outcomes(tools))
    _until(flow, AskModel, _reply(_call(arguments='{ "a":1}', number=3)))
    refused = run.history.last
    assert isinstance(refused, ToolMessage)
    assert refused.is_error
    assert refused.content == (
        "Not run: the same call came 3 times in a row. Its result was: seen "
        "Answer the user, or call with other arguments."
    )
    error = _exceeded(flow, _reply(_call(arguments='{"a":1}', number=9)), RunTools)
    assert (error.limit, error.value) == ("identical_calls", 3)
    assert error.run.messages[-1].content == NOT_RUN
    assert len(error.run.tool_calls) == 4


@pytest.mark.parametrize("limit", [1, None])
def test_one_call_is_no_row(limit: int | None):
    flow = agent_flow(_run(limits=Limits(identical_calls=limit)))
    _until(flow, AskModel)
    _until(flow, RunTools, _reply(_call()))


def test_identical_calls_in_one_reply_count_too():
    flow = agent_flow(_run())
    _until(flow, AskModel)
    error = _exceeded(flow, _reply(*(_call(number=number) for number in range(4))), RunTools)
    assert error.limit == "identical_calls"
    assert error.run.tool_calls == ()


def test_limit_on_message_bytes_is_looked_at_before_the_next_ask():
    flow = agent_flow(_run(limits=Limits(message_bytes=300)))
    _until(flow, AskModel)
    tools = _until(flow, RunTools, _reply(_call()))
    _until(flow, AskModel, _outcomes(tools))
    tools = _until(flow, RunTools, _reply(_call(number=2)))
    error = _exceeded(flow, _outcomes(tools, "x" * 300))
    assert (error.limit, error.value) == ("message_bytes", 300)
    assert error.run.messages[-1].content == "x" * 300


def test_limit_on_cost_needs_a_price_and_counts_by_it():
    prices = {"a/*": Price(input=1_000_000, output=2_000_000)}
    flow = agent_flow(_run(limits=Limits(cost=3, prices=prices)))
    for usage, spent in ((Usage(input_tokens=1), 1), (Usage(output_tokens=1), 3)):
        _until(flow, AskModel)
        reply = replace(_reply(_call(arguments=f"[{spent}]")), usage=usage, model_id="a/model")
        if spent < 3:
            _outcomes(_until(flow, RunTools, reply))
            flow.send([ToolOutcome("c1", "look", "seen")])
        else:
            error = _exceeded(flow, reply, RunTools)
    assert (error.limit, error.value) == ("cost", 3)
    flow = agent_flow(_run(limits=Limits(cost=3, prices=prices)))
    _until(flow, AskModel)
    assert "no price for 'b/model'" in str(_exceeded(flow, replace(_reply(_call()), model_id="b/model"), RunTools))


@pytest.mark.parametrize("wrong", [{"rounds": -1}, {"tokens": "many"}, {"cost": float("nan")}, {"seconds": True}])
def test_a_limit_is_a_number_from_0_on(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=f"Limits.{next(iter(wrong))}="):
        Limits(**wrong)


def test_a_limit_that_is_reached_while_somebody_decides_is_a_no():
    now = [0.0]
    run = _run(
        clock=lambda: now[0],
        limits=Limits(seconds=5),
        policy=lambda call, allowed: Ruling("always"),
    )
    flow = agent_flow(run)
    _until(flow, AskModel)
    _until(flow, Approve, _reply(_call()))
    now[0] = 5.0
    error = _exceeded(flow, [(Allow(), "approver")], RunTools)
    assert error.limit == "seconds"
    assert error.run.messages[-1].content == NOT_RUN


def test_another_call_between_breaks_the_row():
    flow = agent_flow(_run())
    _until(flow, AskModel)
    for number in range(6):
        tools = _until(flow, RunTools, _reply(_call(arguments=f"[{number % 2}]", number=number)))
        _until(flow, AskModel, _outcomes(tools))


def test_rounds_of_errors_end_the_run():
    flow = agent_flow(_run(limits=Limits(tool_errors=2)))
    _until(flow, AskModel)
    tools = _until(flow, RunTools, _reply(_call(arguments="[1]")))
    _until(flow, AskModel, _outcomes(tools, "broken", is_error=True))
    tools = _until(flow, RunTools, _reply(_call(arguments="[2]", number=2)))
    error = _exceeded(flow, _outcomes(tools, "broken again", is_error=True))
    assert error.limit == "tool_errors"
    assert "broken again" in str(error)


def test_one_good_result_in_a_round_is_no_round_of_errors():
    flow = agent_flow(_run(limits=Limits(tool_errors=2)))
    _until(flow, AskModel)
    for number in range(4):
        asked = (
            _call(arguments=f"[{number}]", number=number),
            _call(arguments=f"[{-number}, 0]", number=number + 10),
        )
        tools = _until(flow, RunTools, _reply(*asked))
        bad, good = tools.calls
        _until(flow, AskModel, [ToolOutcome(bad.id, "look", "no", True), ToolOutcome(good.id, "look", "yes")])


def test_a_call_that_cannot_be_run_is_answered_with_its_problem():
    run = _run()
    flow = agent_flow(run)
    _until(flow, AskModel)
    _until(flow, AskModel, _reply(_call(problem="cut off")))
    assert run.history.last == ToolMessage("cut off", "c1", "look", is_error=True)


def _after_decisions(flow: Flow, *decisions: Any) -> Any:
    """Answer an `Approve` and pass over the events that tell of it."""
    return _until(flow, RunTools, [(decision, "approver") for decision in decisions])


def test_decisions():
    run = _run(policy=lambda call, allowed: Ruling("always") if call.name == "delete" else None)
    flow = agent_flow(run)
    _until(flow, AskModel)
    asked = [_call("delete", f"[{number}]", number) for number in range(4)] + [_call("look", "[9]", 9)]
    step = _until(flow, Approve, _reply(*asked))
    assert step.calls == tuple(asked[:4])
    tools = _after_decisions(flow, Allow(), Deny("no way"), Edit({"n": 5}), Deny())
    assert isinstance(tools, RunTools)
    assert [(call.id, call.arguments) for call in tools.calls] == [("c0", "[0]"), ("c2", '{"n":5}'), ("c9", "[9]")]
    ended = _until(flow, RoundEnd, _outcomes(tools))
    contents = [(message.content, message.is_error) for message in ended.messages[1:]]
    denied = "The user did not allow this call."
    assert contents == [("seen", False), ("no way", True), ("seen", False), (denied, True), ("seen", False)]
    assert run.allowed == {"delete"}


def test_something_that_is_no_decision_denies():
    flow = agent_flow(_run(policy=lambda call, allowed: Ruling("always")))
    _until(flow, AskModel)
    _until(flow, Approve, _reply(_call()))
    _until(flow, AskModel, [("yes", "approver")])


def test_a_pause_ends_the_run_with_open_calls():
    run = _run(policy=lambda call, allowed: Ruling("always") if call.name == "delete" else None)
    flow = agent_flow(run)
    _until(flow, AskModel)
    _until(flow, Approve, _reply(_call("delete"), _call(number=2)))
    result = _result(flow, [(Pause(), "nobody")])
    assert result.is_paused
    assert result.finish_reason == "paused"
    assert result.pending == (_call("delete"),)
    assert result.messages == run.history.messages
    assert [message.role for message in result.messages] == ["user", "assistant"]


def test_repairs_are_noted_on_the_call_and_the_arguments_stay():
    run = _run()
    flow = agent_flow(run)
    _until(flow, AskModel)
    _until(flow, RunTools, _reply(_call(arguments="{a: 1}")))
    outcome = ToolOutcome("c1", "look", "seen", repairs=("unquoted keys",))
    _until(flow, AskModel, [outcome])
    message = run.history.messages[1]
    assert isinstance(message, AssistantMessage)
    assert message.tool_calls[0].repairs == ("unquoted keys",)
    assert message.tool_calls[0].arguments == "{a: 1}"
    assert run.calls == list(message.tool_calls)
