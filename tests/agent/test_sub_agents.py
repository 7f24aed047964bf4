"""Agents as tools, and hand-offs."""

from __future__ import annotations

import asyncio

import pytest

from lmagent import Agent, RunContext, function
from lmagent.agent.run import Limits
from lmagent.core.budget import Price
from lmagent.core.events import NestedEvent, RunEnd, TextDelta, ToolEnd
from lmagent.core.history import history_problems
from lmagent.core.messages import Usage
from lmagent.errors import LimitExceeded
from lmagent.testing import ScriptedModel, calls


@function
def secret(context: RunContext[str]) -> str:
    """Tell the secret."""
    return f"the secret is {context.deps}"


@function
def look(page: int) -> str:
    """Look at a page."""
    return f"page {page}: see the next one"


def family(**inner_options):
    inner = Agent(
        ScriptedModel([calls(("secret", {})), "it is 42"]),
        [secret],
        name="oracle",
        system_prompt="You know.",
        **inner_options,
    )
    outer = Agent(ScriptedModel([calls(("oracle", {"prompt": "what?"})), "42!"]), [inner.as_function()])
    return outer, inner


def test_an_agent_is_a_tool_and_shares_deps():
    outer, inner = family()
    result = outer.run("go", deps=42)
    assert result.reply == "42!"
    assert result.messages[2].content == "it is 42"
    assert inner.model.asked[1][-1].content == "the secret is 42"


def test_an_agent_is_a_tool_in_asynchronous_runs():
    outer, _ = family()
    assert asyncio.run(outer.async_run("go", deps=42)).messages[2].content == "it is 42"


def events_of(outer, how):
    if how == "sync":
        return list(outer.stream_run("go", deps=1))

    async def collect():
        return [event async for event in outer.async_stream_run("go", deps=1)]

    return asyncio.run(collect())


@pytest.mark.parametrize("how", ["sync", "async"])
def test_events_of_nested_runs_are_in_the_stream(how):
    outer, _ = family()
    events = events_of(outer, how)
    nested = [event for event in events if isinstance(event, NestedEvent)]
    assert {event.agent for event in nested} == {"oracle"}
    tool_end = next(index for index, event in enumerate(events) if isinstance(event, ToolEnd))
    assert all(events.index(event) < tool_end for event in nested)
    assert isinstance(events[-1], RunEnd)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "42!"


def test_limits_of_the_nested_agent_are_reported_to_the_outer_model():
    outer, _ = family(limits=Limits(rounds=1))
    result = outer.run("go", deps=42)
    assert result.messages[2].is_error
    assert "oracle stopped" in result.messages[2].content
    assert result.reply == "42!"


@pytest.mark.parametrize("how", ["tokens", "cost"])
def test_a_nested_agent_that_loops_for_ever_stops_at_the_limits_of_the_run_around_it(how):
    used = Usage(input_tokens=10, total_tokens=10)
    prices = {"scripted/*": Price(input=100_000, output=0)}
    inner = Agent(ScriptedModel([calls(("look", {"page": n}), usage=used) for n in range(19)]), [look], name="reader")
    outer_model = ScriptedModel([calls(("reader", {"prompt": "?"}), usage=used)] * 5)
    limits = Limits(tokens=50) if how == "tokens" else Limits(cost=5, prices=prices)
    with pytest.raises(LimitExceeded) as caught:
        Agent(outer_model, [inner.as_function()]).run("go", limits=limits)
    assert caught.value.limit == how
    assert (len(inner.model.asked), len(outer_model.asked)) == (4, 1)
    assert caught.value.run.messages[2].is_error
    assert "reader stopped" in caught.value.run.messages[2].content


def test_a_hand_off_goes_on_with_the_other_agent_and_the_history():
    expert = Agent(ScriptedModel(["I take over."]), name="expert", system_prompt="You are the expert.")
    front = Agent(ScriptedModel([calls(("hand_over_to_expert", {}))]), [expert.as_handoff()], system_prompt="Front.")
    result = front.run("help")
    assert result.reply == "I take over."
    asked = expert.model.asked[0]
    assert asked[0].content == "You are the expert."
    assert asked[1].content == "help"
    assert history_problems(result.messages) == []


def test_a_hand_off_in_a_stream():
    expert = Agent(ScriptedModel(["hello"]), name="expert")
    front = Agent(ScriptedModel([calls(("hand_over_to_expert", {}))]), [expert.as_handoff()])
    *_, last = front.stream_run("help")
    assert last.result.reply == "hello"
