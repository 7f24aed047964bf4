"""Hooks at each point, sync and async; what they return takes effect."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lmagent import Agent, function
from lmagent.errors import ServerFailed
from lmagent.observe.hooks import Hooks
from lmagent.testing import ScriptedModel, calls


@function
def double(n: int) -> int:
    """Double."""
    return 2 * n


def everything(seen, *, is_async):
    def hook(point):
        def sync_hook(value):
            seen.append(point)

        async def async_hook(value):
            seen.append(point)

        return async_hook if is_async else sync_hook

    return Hooks(**{point: [hook(point)] for point in ("before_model", "after_model", "before_tool", "after_tool")})


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("how", ["run", "async_run", "stream_run", "async_stream_run"])
def test_every_point_is_called_in_every_verb(how, is_async):
    seen = []
    agent = Agent(
        ScriptedModel([calls(("double", {"n": 2})), "4"]), [double], hooks=everything(seen, is_async=is_async)
    )
    if how == "run":
        agent.run("go")
    elif how == "async_run":
        asyncio.run(agent.async_run("go"))
    elif how == "stream_run":
        list(agent.stream_run("go"))
    else:

        async def collect():
            return [event async for event in agent.async_stream_run("go")]

        asyncio.run(collect())
    assert seen == ["before_model", "after_model", "before_tool", "after_tool", "before_model", "after_model"]


def test_what_a_hook_returns_takes_the_values_place():
    hooks = Hooks(
        before_tool=[lambda call: replace(call, arguments='{"n": 10}')],
        after_tool=[lambda outcome: replace(outcome, content=outcome.content + "!")],
    )
    agent = Agent(ScriptedModel([calls(("double", {"n": 2})), "ok"]), [double], hooks=hooks)
    assert agent.run("go").messages[2].content == "20!"


@pytest.mark.parametrize("streamed", [False, True])
def test_errors_are_shown_to_the_hook_and_raised(streamed):
    seen = []
    agent = Agent(ScriptedModel([ServerFailed("down")]), hooks=Hooks(on_error=[seen.append]))
    with pytest.raises(ServerFailed):
        list(agent.stream_run("go")) if streamed else agent.run("go")
    assert isinstance(seen[0], ServerFailed)


def test_hooks_add_up():
    assert (Hooks(after_tool=[len]) + Hooks(after_tool=[str])).after_tool == (len, str)


def test_a_point_takes_a_list():
    with pytest.raises(TypeError, match="before_model"):
        Hooks(before_model=print)  # type: ignore[arg-type]


@pytest.mark.parametrize("point", ["before_model", "after_model", "before_tool", "after_tool"])
def test_what_a_hook_returns_is_of_the_kind_it_got(point: str):
    @function
    def look() -> str:
        """Look."""
        return "seen"

    hooks = Hooks(**{point: [lambda value: "something else"]})
    for run in (lambda agent: agent.run("go"), lambda agent: asyncio.run(agent.async_run("go"))):
        with pytest.raises(TypeError, match=f"hook of {point} returns a"):
            run(Agent(ScriptedModel([calls(("look", {})), "ok"]), [look], hooks=hooks))


def test_what_a_hook_of_errors_returns_is_ignored():
    hooks = Hooks(on_error=[lambda error: "handled"])
    with pytest.raises(ServerFailed):
        Agent(ScriptedModel([ServerFailed("down")]), hooks=hooks).run("go")
