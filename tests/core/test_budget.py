"""A budget is shared by runs, nested agents and re-asks, and holds."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from lmagent import Agent, History, Limits, LMAgentError, function
from lmagent.core.budget import Budget, Price, load_prices
from lmagent.core.history import history_problems
from lmagent.core.messages import Usage
from lmagent.errors import ConfigurationError, LimitExceeded, ServerFailed
from lmagent.testing import ScriptedModel, calls, text
from tests.four_ways import AGENT_VERBS, AgentVerb


@function
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def endless(tokens: int = 10):
    used = Usage(input_tokens=tokens - 1, output_tokens=1, total_tokens=tokens)
    return [calls(("add", {"a": index, "b": 1}), usage=used) for index in range(50)]


def test_requests_are_limited_and_the_partial_run_is_kept():
    budget = Budget(requests=3)
    with pytest.raises(LimitExceeded) as caught:
        Agent(ScriptedModel(endless()), [add]).run("go", budget=budget)
    assert (caught.value.limit, caught.value.value) == ("requests", 3)
    assert budget.spent.requests == 3
    assert len(caught.value.run.tool_calls) == 2
    assert caught.value.run.messages[-1].content.startswith("Not run")
    assert history_problems(caught.value.run.messages) == []


def test_tokens_cost_and_tool_calls_are_counted():
    budget = Budget(prices={"scripted/*": Price(input=1e6, output=2e6)})
    script = [calls(("add", {"a": 1, "b": 2}), usage=Usage(input_tokens=3, output_tokens=2, total_tokens=5)), "3"]
    Agent(ScriptedModel(script), [add]).run("go", budget=budget)
    spent = budget.spent
    assert (spent.requests, spent.tokens, spent.cost, spent.tool_calls) == (2, 5, 7.0, 1)


def test_a_cost_limit_without_a_price_raises_limit_exceeded():
    with pytest.raises(LimitExceeded, match="no price for 'scripted/script'"):
        Agent(ScriptedModel(["hi"])).run("go", budget=Budget(cost=1.0))


@pytest.mark.parametrize(
    ("limit", "spent"), [({"tokens": 25}, 3), ({"cost": 2.5}, 3), ({"tool_calls": 2}, 3), ({"seconds": 2.5}, 2)]
)
def test_every_limit_ends_the_run(limit, spent):
    now = iter(range(1000))
    prices = {"scripted/script": Price(input=1e6 / 9, output=0)}
    clock = (lambda: next(now) / 2) if "seconds" in limit else (lambda: 0.0)
    budget = Budget(**limit, prices=prices, clock=clock)
    with pytest.raises(LimitExceeded) as caught:
        Agent(ScriptedModel(endless()), [add]).run("go", budget=budget)
    assert caught.value.limit == next(iter(limit))
    assert budget.spent.requests == spent
    assert caught.value.run is not None


def test_a_nested_agent_in_an_endless_loop_stops_at_the_shared_limit():
    budget = Budget(requests=6)
    inner = Agent(ScriptedModel(endless()), [add], name="helper")
    outer = Agent(ScriptedModel([calls(("helper", {"prompt": "do it"}))] * 10), [inner.as_function()])
    with pytest.raises(LimitExceeded) as caught:
        outer.run("go", budget=budget)
    assert budget.spent.requests == 6
    assert caught.value.limit == "requests"
    assert "helper stopped" in caught.value.run.messages[-1].content


def test_at_limit_answer_asks_once_more_without_tools():
    used = Usage(input_tokens=9, output_tokens=1, total_tokens=10)
    model = ScriptedModel([calls(("add", {"a": 1, "b": 1}), usage=used), text("as far as I know, 2")])
    budget = Budget(tokens=5, at_limit="answer")
    result = Agent(model, [add]).run("go", budget=budget)
    assert result.reply == "as far as I know, 2"
    assert model.choices == ["auto", "none"]


def test_at_limit_function_decides_whether_the_run_continues():
    def more(budget: Budget) -> bool:
        budget.limits["requests"] = 2
        return budget.spent.requests < 2

    script = [calls(("add", {"a": 1, "b": 1})), "2"]
    assert Agent(ScriptedModel(script), [add]).run("go", budget=Budget(requests=1, at_limit=more)).reply == "2"
    with pytest.raises(LimitExceeded):
        Agent(ScriptedModel(endless()), [add]).run("go", budget=Budget(requests=1, at_limit=more))


def test_failed_requests_are_counted():
    budget = Budget()
    with pytest.raises(LMAgentError) as caught:
        Agent(ScriptedModel([ServerFailed("down")])).run("go", budget=budget)
    assert budget.spent.requests == 1
    assert caught.value.run.requests == 1


def test_prices_are_loaded_from_plain_json():
    assert load_prices({"a/b": {"input": 1, "output": 2, "cached": 0.5}})["a/b"].of(
        Usage(input_tokens=2_000_000, output_tokens=1_000_000, cached_tokens=1_000_000, total_tokens=3_000_000)
    ) == pytest.approx(1 + 0.5 + 2)


def test_prices_are_loaded_from_a_file(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text('{"a/b": {"input": 1, "output": 2}}')
    assert load_prices(path) == {"a/b": Price(input=1, output=2)}
    for wrong in ("[1]", "{", '{"a/b": {"input": "cheap", "output": 1}}', '{"a/b": {"in": 1}}'):
        path.write_text(wrong)
        with pytest.raises(ConfigurationError, match=r"Cannot read prices in .*json"):
            load_prices(path)
    with pytest.raises(ConfigurationError, match=r"Cannot read prices in .*json"):
        load_prices(tmp_path / "missing.json")


@pytest.mark.parametrize("wrong", [{"requests": -1}, {"cost": "1"}, {"tokens": True}, {"at_limit": "ask"}])
def test_an_invalid_limit_is_a_value_error(wrong):
    with pytest.raises(ValueError, match=f"Budget.{next(iter(wrong))}="):
        Budget(**wrong)


def test_a_run_with_a_cost_limit_and_no_price_fails_before_any_request():
    model = ScriptedModel(["free"])
    with pytest.raises(ConfigurationError, match="no price for 'scripted/script'"):
        Agent(model).run("go", limits=Limits(cost=1.0))
    prices = {"scripted/*": Price(input=1.0, output=1.0)}
    assert Agent(model).run("go", limits=Limits(cost=1.0, prices=prices)).reply == "free"


@pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
@pytest.mark.parametrize("mode", ["native", "prompt"])
@pytest.mark.parametrize(
    "limits", [{"requests": 2}, {"tokens": 20}, {"cost": 0.00002, "prices": {"*": Price(input=1, output=1)}}], ids=str
)
def test_calls_of_the_last_request_are_not_run_and_end_the_run(verb: AgentVerb, mode: str, limits: dict[str, Any]):
    ran: list[int] = []

    def spend(number: int) -> str:
        """Spend."""
        ran.append(number)
        return "ok"

    usage = Usage(input_tokens=10, output_tokens=1, total_tokens=11)
    script = [calls(("spend", {"number": n}), usage=usage) for n in range(9)]
    model = ScriptedModel(script, tool_mode=mode)  # type: ignore[arg-type]
    budget = Budget(**limits, at_limit="answer")
    history = History()
    with suppress(LimitExceeded):  # native; in prompt mode the text of the last reply is the answer
        verb(Agent(model, [spend]), "x", budget=budget, history=history)
    assert (budget.spent.requests, ran) == (3, [0, 1])
    assert history_problems(history.messages) == []
    assert mode == "prompt" or "Not run: the budget is used up" in history.messages[-1].content


@pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
def test_text_beside_the_calls_of_the_last_request_is_the_answer(verb: AgentVerb):
    model = ScriptedModel([calls(("spend", {})), calls(("spend", {}), content="Nearly done.")])
    result = verb(
        Agent(model, [function(lambda: "ok", name="spend")]), "x", budget=Budget(requests=1, at_limit="answer")
    )
    assert result.reply == "Nearly done."
