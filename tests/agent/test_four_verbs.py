"""What one verb gives, the other three give too: native and prompted, one call and three, sync and async tools."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lmagent import Agent, ChatEngine, RunResult, function
from lmagent.core.events import RoundEnd, RoundStart, RunEnd, TextDelta, TextEnd, TextStart, ToolEnd, ToolStart
from lmagent.core.history import history_problems
from lmagent.core.messages import AssistantMessage, Message, Reply, ToolMessage, Usage
from lmagent.testing import ScriptedModel, calls, text
from tests.four_ways import (
    AGENT_VERBS_AND_LOOPS,
    ENGINE_VERBS,
    MODEL_VERBS,
    async_stream_run,
    nothing_left,
    stream_run,
)

MODES: dict[str, dict[str, Any]] = {
    "native": {},
    **{
        name: {"tool_mode": "prompt", "prompt_format": name}
        for name in ("json", "hermes", "react", "python", "xml", "object")
    },
}


@function
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@function
async def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    await asyncio.sleep(0)
    return a * b


@function
def describe(name: str) -> dict[str, str]:
    """Describe someone."""
    return {"名字": name}


def _one_call(mode: str) -> list[Any]:
    # A reply that is one JSON object, or one list, cannot hold text beside its calls.
    content = "" if mode in ("object", "python") else "Let me see."
    return [calls(("add", {"a": 1, "b": 2}), content=content), "It is 3."]


def _three_calls(mode: str) -> list[Any]:
    asked = (("add", {"a": 1, "b": 2}), ("multiply", {"a": 3, "b": 4}), ("describe", {"name": "小红"}))
    return [calls(*asked), calls(("add", {"a": 5, "b": 6})), "3, 12 和 小红。"]


def _a_mistake(mode: str) -> list[Any]:
    return [calls(("add", {"a": "x"}), ("nothing", {})), calls(("add", '{"a": 1, "b": 2,}')), "3"]


SCRIPTS = {"one": _one_call, "three": _three_calls, "mistake": _a_mistake}


def _without_prompts(messages: tuple[Message, ...]) -> list[Message]:
    """Bring the arguments into one spelling: a format may write them with other blanks."""
    shown: list[Message] = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            made = [replace(call, arguments=_spelled(call.arguments)) for call in message.tool_calls]
            message = replace(message, tool_calls=tuple(made))
        shown.append(message)
    return shown


def _spelled(arguments: str) -> str:
    return json.dumps(json.loads(arguments), sort_keys=True)


def _agent(mode: str, script: list[Any]) -> tuple[Agent, ScriptedModel]:
    model = ScriptedModel(script, **MODES[mode])
    return Agent(model, tools=[add, multiply, describe]), model


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("mode", MODES)
def test_all_verbs_give_the_same_history(mode: str, script: str):
    results: list[RunResult] = []
    asked: list[Any] = []
    for verb in AGENT_VERBS_AND_LOOPS:
        agent, model = _agent(mode, SCRIPTS[script](mode))
        with nothing_left():
            results.append(verb(agent, "Go."))
        model.check()
        asked.append(model.asked)
    first = results[0]
    assert history_problems(first.messages) == []
    for other in results[1:]:
        assert other.messages == first.messages
        assert other.tool_calls == first.tool_calls
        assert (other.reply, other.usage, other.finish_reason, other.rounds, other.requests, other.model_id) == (
            first.reply,
            first.usage,
            first.finish_reason,
            first.rounds,
            first.requests,
            first.model_id,
        )
    assert all(each == asked[0] for each in asked)


@pytest.mark.parametrize("script", ["one", "three"])
@pytest.mark.parametrize("mode", MODES)
def test_a_prompted_run_has_the_history_of_a_native_one(mode: str, script: str):
    native, _ = _agent("native", SCRIPTS[script](mode))
    other, _ = _agent(mode, SCRIPTS[script](mode))
    assert _without_prompts(other.run("Go.").messages) == _without_prompts(native.run("Go.").messages)


def test_the_history_in_full():
    agent, _ = _agent("native", _three_calls("native"))
    result = agent.run("Go.")
    assert [type(message).__name__ for message in result.messages] == [
        "UserMessage",
        "AssistantMessage",
        "ToolMessage",
        "ToolMessage",
        "ToolMessage",
        "AssistantMessage",
        "ToolMessage",
        "AssistantMessage",
    ]
    contents = [message.content for message in result.messages if isinstance(message, ToolMessage)]
    assert contents == ["3", "12", '{"名字":"小红"}', "11"]
    assert [call.name for call in result.tool_calls] == ["add", "multiply", "describe", "add"]
    assert len({call.id for call in result.tool_calls}) == 4
    assert result.reply == "3, 12 和 小红。"
    assert result.output == result.reply
    assert result.finish_reason == "stop"
    assert (result.rounds, result.requests) == (3, 3)
    assert result.new_messages == result.messages


def test_usage_is_added_up():
    used = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
    script = [calls(("add", {"a": 1, "b": 1}), usage=used), text("2", usage=used)]
    assert Agent(ScriptedModel(script), [add]).run("?").usage == Usage(
        input_tokens=20, output_tokens=10, total_tokens=30
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verb", [stream_run, async_stream_run])
def test_a_stream_shows_starts_deltas_and_ends_and_no_markup(mode: str, verb: Callable[..., Any]):
    agent, _ = _agent(mode, _one_call(mode))
    if verb is stream_run:
        events: list[Any] = list(agent.stream_run("Go."))
    else:

        async def main() -> list[Any]:
            return [event async for event in agent.async_stream_run("Go.")]

        events = asyncio.run(main())
    assert isinstance(events[0], RoundStart)
    assert isinstance(events[-1], RunEnd)
    starts = {event.id for event in events if isinstance(event, TextStart)}
    ends = {event.id: event.text for event in events if isinstance(event, TextEnd)}
    texts: dict[str, str] = {}
    for event in events:
        if isinstance(event, TextDelta):
            texts[event.id] = texts.get(event.id, "") + event.text
    assert starts == set(ends) == set(texts)
    assert texts == ends
    assert list(texts.values())[-1] == "It is 3."
    assert "".join(texts.values()).replace("Let me see.", "").strip() == "It is 3."
    ran = [event for event in events if isinstance(event, ToolStart | ToolEnd)]
    assert [type(event) for event in ran] == [ToolStart, ToolEnd]
    assert ran[0].call == ran[1].call == events[-1].result.tool_calls[0]
    assert ran[1].message.content == "3"
    rounds = [event for event in events if isinstance(event, RoundEnd)]
    added = [message for event in rounds for message in event.messages]
    assert tuple(added) == events[-1].result.messages[1:]


@pytest.mark.parametrize("verb", ENGINE_VERBS)
@pytest.mark.parametrize("mode", ["native", "json"])
def test_the_engines_verbs_give_equal_histories(mode: str, verb: Callable[..., RunResult]):
    def talk(chosen: Callable[..., RunResult]) -> ChatEngine:
        model = ScriptedModel([*_three_calls(mode), "Bye."], **MODES[mode])
        engine = ChatEngine(model, functions=[add, multiply, describe], print_message=False)
        chosen(engine, "Go.")
        assert chosen(engine, "Thanks.").reply == "Bye."
        model.check()
        return engine

    assert talk(verb).history == talk(ENGINE_VERBS[0]).history


@pytest.mark.parametrize("verb", MODEL_VERBS)
@pytest.mark.parametrize("mode", MODES)
def test_the_models_verbs_give_equal_replies(mode: str, verb: Callable[..., Reply]):
    def ask(chosen: Callable[..., Reply], line: Any) -> Reply:
        return chosen(ScriptedModel([line], **MODES[mode]), "Go.", tools=[add, multiply, describe])

    for line in ("Plain text.\n", _one_call(mode)[0], _three_calls(mode)[0]):
        reply, first = ask(verb, line), ask(MODEL_VERBS[0], line)
        assert reply.message == first.message
        assert reply.finish_reason == first.finish_reason == ("stop" if isinstance(line, str) else "tool_calls")
        assert reply.reply == (line if isinstance(line, str) else line.message.content)
        assert reply.usage == first.usage
        assert reply.is_finish
        assert reply.stream.control == "finish"


def test_chunks_of_a_stream():
    items = list(ScriptedModel(["Hello world"], piece=4).stream_chat_completion("Hi"))
    assert [item.stream.delta for item in items[:-1]] == ["Hell", "o wo", "rld"]
    assert [item.stream.control for item in items] == ["start", "continue", "continue", "finish"]
    assert [item.is_finish for item in items] == [False, False, False, True]
    assert items[-1].reply == "Hello world"  # type: ignore[union-attr]


def test_three_sync_tools_run_at_the_same_time_in_every_verb():
    for verb in AGENT_VERBS_AND_LOOPS:
        barrier = threading.Barrier(3, timeout=5)

        @function
        def meet(number: int) -> str:
            """Wait for the two others."""
            barrier.wait()
            return f"met {number}"

        script = [calls(("meet", {"number": 1}), ("meet", {"number": 2}), ("meet", {"number": 3})), "done"]
        result = verb(Agent(ScriptedModel(script), [meet]), "Go.")
        assert [m.content for m in result.messages if isinstance(m, ToolMessage)] == ["met 1", "met 2", "met 3"]


def test_many_runs_of_one_agent_at_once():
    def answer(messages: tuple[Message, ...]) -> Any:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return f"It is {last.content}."
        return calls(("add", {"a": int(last.text), "b": 1}))  # type: ignore[union-attr]

    agent = Agent(ScriptedModel([answer] * 80), [add])

    async def main() -> list[str]:
        results = await asyncio.gather(*(agent.async_run(str(number)) for number in range(40)))
        return [result.reply for result in results]

    assert asyncio.run(main()) == [f"It is {number + 1}." for number in range(40)]
