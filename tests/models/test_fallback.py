"""The next model goes on where the first one failed."""

from __future__ import annotations

import asyncio

import pytest

from lmagent import Agent, function
from lmagent.errors import ConfigurationError, QuotaExceeded, RateLimited, ServerFailed
from lmagent.models.fallback import FallbackModel
from lmagent.testing import ScriptedModel, calls


@function
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def pair(*, tool_mode="auto"):
    first = ScriptedModel([calls(("add", {"a": 1, "b": 2})), ServerFailed("down")])
    second = ScriptedModel(["three"], tool_mode=tool_mode)
    return first, second


@pytest.mark.parametrize("tool_mode", ["auto", "prompt"])
@pytest.mark.parametrize("how", ["run", "async_run", "stream_run", "async_stream_run"])
def test_a_conversation_with_tools_goes_on_with_the_next_model(how, tool_mode):
    first, second = pair(tool_mode=tool_mode)
    agent = Agent(FallbackModel([first, second]), [add])
    if how == "run":
        result = agent.run("1 + 2?")
    elif how == "async_run":
        result = asyncio.run(agent.async_run("1 + 2?"))
    elif how == "stream_run":
        result = list(agent.stream_run("1 + 2?"))[-1].result
    else:

        async def collect():
            return [event async for event in agent.async_stream_run("1 + 2?")]

        result = asyncio.run(collect())[-1].result
    assert result.reply == "three"
    assert result.requests == 3
    first.check()
    second.check()


def test_only_the_errors_named_make_it_change():
    model = FallbackModel([ScriptedModel([QuotaExceeded("none left")]), ScriptedModel(["hi"])], on=(RateLimited,))
    with pytest.raises(QuotaExceeded):
        model.chat_completion("hi")


def test_the_last_error_is_raised():
    model = FallbackModel([ScriptedModel([ServerFailed("one")]), ScriptedModel([ServerFailed("two")])])
    with pytest.raises(ServerFailed, match="two"):
        model.chat_completion("hi")


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="takes models"):
        FallbackModel(["openai/gpt-4"])  # type: ignore[list-item]


def test_no_models_is_an_error():
    with pytest.raises(ConfigurationError):
        FallbackModel([])


def test_the_verbs_of_a_model_work():
    model = FallbackModel([ScriptedModel([ServerFailed("down")]), ScriptedModel(["hi"])])
    assert model.chat_completion("x").reply == "hi"
