"""A run that waits for a decision is a value; it goes on later, also elsewhere, as if it had never waited."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from lmagent import Agent, RunResult, function
from lmagent.agent.result import Allow, Deny, Edit
from lmagent.core.events import RunEnd
from lmagent.core.history import history_problems
from lmagent.testing import ScriptedModel, calls


@function(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@function
def look() -> str:
    """Look."""
    return "seen"


SCRIPT = [calls(("look", {}), ("pay", {"amount": 5})), "done"]


def paused(**options) -> tuple[Agent, RunResult]:
    agent = Agent(ScriptedModel(SCRIPT), [pay, look], **options)
    result = agent.run("go")
    assert result.is_paused
    assert result.finish_reason == "paused"
    assert [call.name for call in result.pending] == ["pay"]
    return agent, result


def straight():
    return Agent(ScriptedModel(SCRIPT), [pay, look], approve=lambda call, context: True).run("go")


def test_a_paused_run_resumes_with_the_history_of_one_that_never_paused():
    agent, result = paused()
    done = agent.run(result.decide({result.pending[0].id: Allow()}))
    assert done.messages == straight().messages
    assert done.tool_calls == straight().tool_calls
    assert (done.rounds, done.requests) == (2, 2)


def test_through_json_streamed_and_asynchronous():
    for how in ("async", "stream", "async_stream"):
        agent, result = paused()
        stored = RunResult.from_dict(json.loads(json.dumps(result.to_dict())))
        decisions = {stored.pending[0].id: True}
        if how == "async":
            done = asyncio.run(agent.async_run(stored.decide(decisions)))
        elif how == "stream":
            *_, last = agent.stream_run(stored.decide(decisions))
            done = last.result
        else:

            async def collect(agent=agent, stored=stored, decisions=decisions):
                return [event async for event in agent.async_stream_run(stored.decide(decisions))]

            last = asyncio.run(collect())[-1]
            assert isinstance(last, RunEnd)
            done = last.result
        assert done.messages == straight().messages, how


def test_a_stream_pauses_too():
    agent = Agent(ScriptedModel(SCRIPT), [pay, look])
    *_, last = agent.stream_run("go")
    assert last.result.is_paused
    done = agent.run(last.result.decide(Deny("too much")))
    assert [m.content for m in done.messages[2:4]] == ["seen", "too much"]


def test_edited_arguments_are_validated_again():
    agent, result = paused()
    id = result.pending[0].id
    assert agent.run(result.decide({id: Edit({"amount": 7})})).messages[3].content == "paid 7"
    agent, result = paused()
    assert "amount" in agent.run(result.decide({id: Edit('{"amount": "much"}')})).messages[3].content


def test_without_a_decision_it_waits_on():
    agent, result = paused()
    again = agent.run(result.decide({}))
    assert again.is_paused
    assert again.messages == result.messages


def test_a_run_that_does_not_wait_cannot_be_resumed():
    with pytest.raises(ValueError, match="waits for no decision"):
        straight().decide({})


def test_rules_by_name_and_once():
    asked = []

    def approve(call, context):
        asked.append(call.arguments)
        return True

    script = [calls(("look", {})), calls(("pay", {"amount": 1})), calls(("pay", {"amount": 2})), "done"]
    agent = Agent(ScriptedModel(script), [pay, look], approve=approve, approval={"pay": "once", "*": "never"})
    agent.run("go")
    assert asked == ['{"amount":1}']
    asked.clear()
    agent = Agent(ScriptedModel(script), [pay, look], approve=approve, approval={"look": "always", "pay": False})
    agent.run("go")
    assert asked == ["{}"]


def test_giving_up_a_paused_run_leaves_a_valid_history():
    from lmagent import History

    history = History()
    agent = Agent(ScriptedModel([*SCRIPT[:1], "fresh"]), [pay, look])
    agent.run("go", history=history)
    agent.run("something else", history=history)
    assert history_problems(history.messages) == []


def test_another_process_resumes():
    _, result = paused()
    program = """
import json, sys
from tests.agent.test_resume import *
stored = RunResult.from_dict(json.load(sys.stdin))
agent = Agent(ScriptedModel(["done"]), [pay, look])
json.dump(agent.run(stored.decide(True)).to_dict(), sys.stdout)
"""
    out = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(result.to_dict()), capture_output=True, text=True, check=True
    )
    assert RunResult.from_dict(json.loads(out.stdout)).messages == straight().messages
