"""Which calls need a decision, who makes it, and what happens without a decision."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from lmagent import Agent, ChatEngine, History, RunContext, RunResult, function
from lmagent.agent.result import Allow, Deny, Edit, Pause, decision_from_dict, decision_to_dict
from lmagent.agent.sessions import JSONLSessions
from lmagent.core.events import ToolDecided
from lmagent.core.history import history_problems
from lmagent.errors import ConfigurationError, MessageError
from lmagent.testing import ScriptedModel, calls
from tests.four_ways import AGENT_VERBS, AgentVerb

every_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)


@function(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def _paying(*more: Any, **options: Any) -> Agent:
    return Agent(ScriptedModel([calls(("pay", {"amount": 1})), *(more or ("done",))]), [pay], **options)


def _contents(result: RunResult) -> list[str]:
    return [str(message.content) for message in result.messages if message.role == "tool"]


# Which calls


@pytest.mark.parametrize(
    ("effects", "asked"),
    [((), False), (("reads",), False), (("writes",), True), (("reads", "network"), True), (("spends",), True)],
)
def test_what_a_tool_does_beyond_reading_is_asked_about(effects: Any, asked: bool):
    @function(effects=effects)
    def act() -> str:
        """Act."""
        return "acted"

    model = ScriptedModel([calls(("act", {})), "done"])
    assert Agent(model, [act]).run("Go.").is_paused is asked


def test_a_rule_goes_before_the_effects():
    @function(effects="writes", requires_approval=False)
    def act() -> str:
        """Act."""
        return "acted"

    script = [calls(("act", {})), "done"]
    assert Agent(ScriptedModel(script), [act]).run("Go.").reply == "done"
    assert Agent(ScriptedModel(script), [act], approval={"act": "always"}).run("Go.").is_paused
    changed = function(act, requires_approval=None)
    assert Agent(ScriptedModel(script), [changed], approval={"*": "never"}).run("Go.").reply == "done"


@every_verb
def test_a_rule_that_is_a_function_may_decide(verb: AgentVerb):
    def small_sums(call: Any) -> Any:
        amount = json.loads(call.arguments)["amount"]
        return Allow() if amount < 10 else Deny("too much") if amount > 100 else True

    script = [calls(*(("pay", {"amount": amount}) for amount in (1, 50, 500))), "done"]
    asked: list[str] = []
    agent = Agent(
        ScriptedModel(script),
        [pay],
        approval={"pay": small_sums},
        approve=lambda call, context: asked.append(call.arguments) or True,
    )
    assert _contents(verb(agent, "Go.")) == ["paid 1", "paid 50", "too much"]
    assert asked == ['{"amount":50}']


def test_a_rule_that_is_none_is_refused_at_once():
    for approval in ({"pay": "sometimes"}, {"pya": "always"}):
        with pytest.raises(ConfigurationError, match=r"sometimes|pya"):
            Agent(ScriptedModel([]), [pay], approval=approval)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="sometimes"):
        function(requires_approval="sometimes")  # type: ignore[call-overload]


@every_verb
def test_a_call_that_cannot_run_needs_no_decision(verb: AgentVerb):
    script = [calls(("pay", {"amount": "much"}), ("pya", {}), ("pay", '{"amount": 3,}')), "done"]
    asked: list[str] = []
    agent = Agent(ScriptedModel(script), [pay], approve=lambda call, context: asked.append(call.arguments) or True)
    contents = _contents(verb(agent, "Go."))
    assert asked == ['{"amount": 3,}']
    assert ("amount" in contents[0], "pya" in contents[1], contents[2]) == (True, True, "paid 3")


# Who decides


def _decisions(agent: Agent, prompt: Any = "Go.") -> list[tuple[str, Any, str, str]]:
    events = agent.stream_run(prompt)
    return [(e.call.name, e.decision, e.rule, e.by) for e in events if isinstance(e, ToolDecided)]


def test_a_decision_is_an_event_with_the_call_the_rule_and_who_decided():
    assert _decisions(_paying(approve=lambda call, context: True)) == [("pay", Allow(), "always", "approver")]
    assert _decisions(_paying()) == [("pay", Pause(), "always", "nobody")]

    def never_on_sundays(call: Any) -> Deny:
        return Deny("It is Sunday.")

    agent = _paying(approval={"pay": never_on_sundays})
    assert _decisions(agent) == [("pay", Deny("It is Sunday."), "never_on_sundays", "rule")]
    agent = _paying()
    assert _decisions(agent, agent.run("Go.").decide(True)) == [("pay", Allow(), "always", "caller")]


def test_a_decision_is_an_event_of_a_run_that_is_not_streamed_too():
    told: list[Any] = []
    _paying(approve=lambda call, context: True).run("Go.", on_event=told.append)
    assert [type(event).__name__ for event in told] == [
        "RoundStart", "ToolDecided", "RoundEnd", "RoundStart", "RoundEnd",
    ]  # fmt: skip


@every_verb
def test_a_denial_is_sent_in_one_line(verb: AgentVerb):
    result = verb(_paying(approve=lambda call, context: Deny("No:\n  not\ttoday.\n")), "Go.")
    assert _contents(result) == ["No: not today."]


ODD: list[Any] = [Edit([1]), Edit({"amount": object()}), Deny(None), Allow, 1, "yes", None]  # type: ignore[arg-type]


@every_verb
@pytest.mark.parametrize("place", range(len(ODD)))
def test_what_is_no_clear_yes_is_a_no(verb: AgentVerb, place: int):
    result = verb(_paying(approve=lambda call, context: ODD[place]), "Go.")
    assert _contents(result) == ["The user did not allow this call."]


def test_a_rule_that_returns_no_sound_decision_denies():
    agent = _paying(approval={"pay": lambda call: Edit({"amount": object()})})
    assert _contents(agent.run("Go.")) == ["The user did not allow this call."]


async def _slow(call: Any, context: Any) -> bool:
    await asyncio.sleep(30)
    return True


@every_verb
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_approver_that_takes_too_long_has_not_allowed_it(verb: AgentVerb, kind: str):
    asked, over = threading.Event(), threading.Event()

    def blocked(call: Any, context: Any) -> bool:
        asked.set()
        over.wait(30)
        return True

    started = time.monotonic()
    agent = _paying(approve=blocked if kind == "sync" else _slow, approval_timeout=0.05)
    result = verb(agent, "Go.")
    over.set()
    assert _contents(result) == ["Not allowed: there was no decision in time."]
    assert time.monotonic() - started < 5
    assert asked.is_set() is (kind == "sync")


@every_verb
def test_an_approver_in_time_decides(verb: AgentVerb):
    async def approve(call: Any, context: Any) -> bool:
        return True

    for given in (approve, lambda call, context: True):
        assert _contents(verb(_paying(approve=given, approval_timeout=5), "Go.")) == ["paid 1"]


@every_verb
def test_a_run_may_have_an_approver_of_its_own(verb: AgentVerb):
    agent = _paying(approve=lambda call, context: False)
    assert _contents(verb(agent, "Go.", approve=lambda call, context: True)) == ["paid 1"]


# Waiting


def test_decisions_that_were_made_before_the_pause_are_kept():
    agent = Agent(ScriptedModel([calls(("pay", {"amount": 1}), ("pay", {"amount": 2})), "done"]), [pay])
    paused = agent.run("Go.")
    first, second = (call.id for call in paused.pending)
    paused = agent.run(paused.decide({first: Edit({"amount": 9})}))
    assert [call.id for call in paused.pending] == [second]
    paused = RunResult.from_dict(json.loads(json.dumps(paused.to_dict())))
    assert _contents(agent.run(paused.decide({second: Deny("no")}))) == ["paid 9", "no"]


def test_once_holds_across_a_pause():
    agent = _paying(calls(("pay", {"amount": 2})), "done", approval={"pay": "once"})
    assert _contents(agent.run(agent.run("Go.").decide(True))) == ["paid 1", "paid 2"]


def test_a_decision_on_a_call_that_does_not_wait_is_refused():
    with pytest.raises(ValueError, match="No call 'other' waits"):
        _paying().run("Go.").decide({"other": True})


def test_what_is_no_stored_run_is_refused():
    for wrong in ({}, {"messages": 1}, [], {"messages": [], "usage": {"tokens": 1}}):
        with pytest.raises(MessageError, match="stored run"):
            RunResult.from_dict(wrong)  # type: ignore[arg-type]
    for decision in (Allow(), Deny("no"), Edit({"a": 1}), Edit("{}"), Pause()):
        assert decision_from_dict(json.loads(json.dumps(decision_to_dict(decision)))) == decision
    with pytest.raises(MessageError, match="no decision"):
        decision_from_dict({"decision": "maybe"})


def test_a_given_history_goes_on_with_the_run_and_not_beyond_it():
    agent, history = _paying("done", "hello", "again"), History()
    paused = agent.run("Go.", history=history)
    agent.run(paused.decide(True), history=history)
    assert [message.role for message in history.messages] == ["user", "assistant", "tool", "assistant"]
    assert history_problems(history.messages) == []
    with pytest.raises(ValueError, match="new messages since"):
        agent.run(paused.decide(True), history=history)


def test_a_stored_conversation_goes_on_after_a_pause_in_another_process(tmp_path: Any):
    def engine(*script: Any) -> ChatEngine:
        return ChatEngine(ScriptedModel(script), [pay], session="a", store=JSONLSessions(tmp_path), print_message=False)

    stored = json.dumps(engine(calls(("pay", {"amount": 1}))).chat("Go.").to_dict())
    bot = engine("done")
    assert bot.chat(RunResult.from_dict(json.loads(stored)).decide(True)).reply == "done"
    assert engine().history == bot.history
    assert [message.content for message in bot.history] == ["Go.", "", "paid 1", "done"]


def test_the_engine_prints_what_comes_after_a_pause(capsys: pytest.CaptureFixture[str]):
    bot = ChatEngine(_paying())
    bot.chat(bot.chat("Go.").decide(True))
    assert capsys.readouterr().out == (
        'user: Go.\nFunction call: pay\nArguments: {\n    "amount": 1\n}\nfunction: "paid 1"\nassistant: done\n'
    )


# Nested agents


def _nested(inner_script: list[Any], outer_script: list[Any], **options: Any) -> Agent:
    @function
    def look() -> str:
        """Look."""
        return "seen"

    inner = Agent(ScriptedModel(inner_script), [pay], name="banker")
    return Agent(ScriptedModel(outer_script), [inner.as_function(), look], **options)


INNER = [calls(("pay", {"amount": 5})), "I paid."]
OUTER = [calls(("look", {}), ("banker", {"prompt": "Pay 5."}), ("look", {})), "All done."]


@every_verb
def test_a_nested_agent_asks_the_approver_of_the_run_around_it(verb: AgentVerb):
    agent = _nested(INNER, OUTER, approve=lambda call, context: call.name == "pay")
    assert _contents(verb(agent, "Go.")) == ["seen", "I paid.", "seen"]


@every_verb
@pytest.mark.parametrize("through_json", [False, True])
def test_a_nested_agent_that_waits_makes_the_outer_run_wait(verb: AgentVerb, through_json: bool):
    agent = _nested(INNER, OUTER)
    paused = verb(agent, "Go.")
    assert [call.name for call in paused.pending] == ["pay"]
    assert paused.finish_reason == "paused"
    if through_json:
        paused = RunResult.from_dict(json.loads(json.dumps(paused.to_dict())))
    assert verb(agent, paused.decide({})).pending == paused.pending
    agent = _nested(INNER[1:], OUTER[1:])  # as in another process: what was asked before is not asked again
    done = verb(agent, paused.decide(True))
    straight = _nested(INNER, OUTER, approve=lambda call, context: True).run("Go.")
    assert done.messages == straight.messages
    assert done.tool_calls == straight.tool_calls
    assert (done.rounds, done.requests) == (straight.rounds, straight.requests)


def test_an_agent_within_an_agent_within_an_agent_waits_too():
    def tower(*scripts: Any) -> Agent:
        low, middle, high = scripts
        banker = Agent(ScriptedModel(low), [pay], name="banker")
        clerk = Agent(ScriptedModel(middle), [banker.as_function()], name="clerk")
        return Agent(ScriptedModel(high), [clerk.as_function()], name="chief")

    asked = [calls(("banker", {"prompt": "?"})), "clerk done"], [calls(("clerk", {"prompt": "?"})), "done"]
    paused = tower(INNER, *asked).run("Go.")
    paused = RunResult.from_dict(json.loads(json.dumps(paused.to_dict())))
    [call] = paused.pending
    assert call.id.count("/") == 2
    done = tower(["I paid."], ["clerk done"], ["done"]).run(paused.decide({call.id: Deny("no")}))
    assert (_contents(done), done.reply) == (["clerk done"], "done")


@every_verb
def test_after_a_hand_off_the_other_agent_goes_on(verb: AgentVerb):
    expert = Agent(ScriptedModel([*INNER]), [pay], name="expert")
    first = Agent(ScriptedModel([calls(("hand_over_to_expert", {}))]), [expert.as_handoff()])
    paused = verb(first, "Go.")
    assert (paused.agent_name, paused.is_paused) == ("expert", True)
    paused = RunResult.from_dict(json.loads(json.dumps(paused.to_dict())))
    assert verb(first, paused.decide(True)).reply == "I paid."


# The run context


@every_verb
def test_tools_of_one_run_share_a_state(verb: AgentVerb):
    @function
    def count(context: RunContext[Any]) -> int:
        """Count."""
        context.state["n"] = context.state.get("n", 0) + 1
        return context.state["n"]

    agent = Agent(ScriptedModel([calls(("count", {})), calls(("count", {})), "done"] * 2), [count])
    assert _contents(verb(agent, "Go.")) == ["1", "2"]
    assert _contents(verb(agent, "Go.")) == ["1", "2"]
