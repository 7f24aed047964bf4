"""A conversation with tool calls goes from provider to provider, over real HTTP; a fallback model goes on with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from lmagent import Agent, History, function
from lmagent.core.history import history_problems
from lmagent.core.messages import AssistantMessage, Message, message_from_dict, message_to_dict
from lmagent.errors import ProviderError
from lmagent.models.fallback import FallbackModel
from tests.dialect_servers import ALL, DIALECTS, DialectServer, answers, calls_then
from tests.dialects import Asked, Said
from tests.four_ways import AGENT_VERBS


@function
def get_weather(city: str) -> str:
    """Get weather of the city."""
    return f"{city}天气晴朗, 气温20度"


@function
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOLS = [get_weather, add]
CALLS = (("get_weather", {"city": "北京"}), ("add", {"a": 1, "b": 2}))


def _tour(stack: ExitStack, names: Sequence[str], verb: Any) -> tuple[Message, ...]:
    """Ask each provider one question in turn, each time with the history so far."""
    servers = {name: stack.enter_context(DialectServer(ALL[name], calls_then(*CALLS))) for name in dict.fromkeys(names)}
    models = {name: server.model() for name, server in servers.items()}
    history: tuple[Message, ...] = ()
    for number, name in enumerate(names):
        result = verb(Agent(models[name], tools=TOOLS, system_prompt="Be brief."), f"问题 {number}", history=history)
        assert [call.name for call in result.tool_calls] == ["get_weather", "add"], name
        assert "晴朗" in result.reply
        asked = str(servers[name].asked[-1].body)
        assert all(f"问题 {earlier}" in asked for earlier in range(number + 1)), name
        history = result.messages
    return history


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_from_wenxin_to_openai_to_a_prompted_model_to_anthropic_and_back(verb: Any):
    names = ("wenxin", "openai", "zhipu-v3", "anthropic", "wenxin")
    with ExitStack() as stack:
        history = _tour(stack, names, verb)
    assert history_problems(history) == []
    roles = [message.role for message in history]
    one_call_a_turn = ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    both_at_once = ["user", "assistant", "tool", "tool", "assistant"]
    assert roles == one_call_a_turn + both_at_once * 3 + one_call_a_turn
    ids = [call.id for message in history if isinstance(message, AssistantMessage) for call in message.tool_calls]
    assert len(ids) == 10


def test_wenxin_gets_its_own_thoughts_back():
    with DialectServer(DIALECTS["wenxin"], calls_then(*CALLS)) as server:
        first = Agent(server.model(), tools=TOOLS).run("北京?")
        with DialectServer(DIALECTS["anthropic"], answers("ok")) as other:
            between = Agent(other.model(), tools=TOOLS).run("And?", history=first.messages)
            assert "thoughts" not in str(other.asked[0].body)
        Agent(server.model(), tools=TOOLS).run("再问", history=between.messages)
        calls = [
            message["function_call"] for message in server.asked[-1].body["messages"] if "function_call" in message
        ]
        assert calls[0]["thoughts"] == "I need get_weather."


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_a_history_goes_through_all_providers_and_back(verb: Any):
    """Each of them reads what all before it have left, through prompts and native calls; the last one is the first."""
    with ExitStack() as stack:
        # TC3 takes 40 messages at most, and says so; a tour is longer than that.
        names = [name for name in ALL if name not in ("hunyuan-tc3", "hunyuan-v1")]
        history = _tour(stack, ["wenxin", *names[::-1], "wenxin"], verb)
    assert history_problems(history) == []


@pytest.mark.parametrize("other", ALL)
def test_a_stored_conversation_of_wenxin_goes_on_anywhere(other: str):
    with DialectServer(DIALECTS["wenxin"], calls_then(*CALLS)) as server:
        begun = Agent(server.model(), tools=TOOLS).run("北京?")
    stored = [message_from_dict(message_to_dict(message)) for message in begun.messages]
    with DialectServer(ALL[other], calls_then(*CALLS)) as server:
        result = Agent(server.model(), tools=TOOLS).run("再问", history=stored)
        assert len(result.tool_calls) == 2
    with DialectServer(DIALECTS["wenxin"], answers("好")) as server:
        assert Agent(server.model(), tools=TOOLS).run("谢谢", history=result.messages).reply == "好"


CHAIN = ("wenxin", "baichuan", "anthropic", "gemini", "minimax_pro", "openai")


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_a_fallback_model_goes_on_with_the_next_dialect_at_each_step(verb: Any):
    """The first model is there for the question only, the second for the result, the third for the end."""
    with ExitStack() as stack:
        servers = [stack.enter_context(DialectServer(DIALECTS[name], calls_then(*CALLS))) for name in CHAIN]
        model = FallbackModel([server.model(max_retries=0) for server in servers])
        agent = Agent(model, tools=TOOLS)
        history = History()
        for number, server in enumerate(servers):
            result = verb(agent, f"问题 {number}", history=history, temperature=0)
            assert "晴朗" in result.reply
            assert result.model_id == server.model().model_id
            server.faults[:] = ["broken"] * 99
        assert history_problems(history.messages) == []
        with pytest.raises(ProviderError) as caught:
            verb(agent, "Anyone?", history=history)
        assert caught.value.provider == "openai"
        for server in servers:
            server.faults.clear()
        server = servers[0]
        assert verb(agent, "Back?", history=history).model_id == "wenxin/ERNIE-Bot"


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_a_fallback_in_the_middle_of_a_run(verb: Any):
    with ExitStack() as stack:
        first, second, third = (
            stack.enter_context(DialectServer(DIALECTS[name], calls_then(*CALLS)))
            for name in ("wenxin", "minimax", "anthropic")
        )
        agent = Agent(FallbackModel([s.model(max_retries=0) for s in (first, second, third)]), tools=TOOLS)
        first.brain = lambda asked: (first.faults.append("limited"), calls_then(*CALLS)(asked))[1]
        second.faults[:] = ["broken"]
        result = verb(agent, "北京?")
    assert [call.name for call in result.tool_calls] == ["get_weather", "add"]
    assert (len(first.asked), len(second.asked), len(third.asked)) == (2, 0, 1)
    assert (result.rounds, result.requests) == (3, 5)
    assert "晴朗" in result.reply


@dataclass
class Weather:
    city: str
    degrees: int


def _structured(asked: Asked) -> Said:
    """Answer as a model would that was asked in any of the ways: by a tool or by text."""
    found = {"city": "北京", "degrees": 20}
    tool = [name for name in asked.tools if name == "final_answer"]
    return Said(calls=((tool[0], found),)) if tool else Said(json.dumps(found))


@pytest.mark.parametrize("second", ALL)
@pytest.mark.parametrize("first", ["openai", "wenxin", "minimax", "moonshot"])
def test_structured_answers_cross_over_too(first: str, second: str):
    with ExitStack() as stack:
        down = stack.enter_context(DialectServer(ALL[first], answers("x"), ["broken"] * 9))
        up = stack.enter_context(DialectServer(ALL[second], _structured))
        model = FallbackModel([down.model(max_retries=0), up.model()])
        result = Agent(model, output_type=Weather).run("北京?")
        assert result.output == Weather("北京", 20)
