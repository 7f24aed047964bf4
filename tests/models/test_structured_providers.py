"""Structured answers from every provider, over real HTTP: by JSON schema, by a forced tool, by the prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, Field

from lmagent import Agent, Limits, function
from lmagent.errors import LMAgentError
from tests.dialect_servers import ALL, DIALECTS, DialectServer
from tests.dialects import Asked, Said
from tests.four_ways import AGENT_VERBS


@dataclass
class Weather:
    """What the weather is."""

    city: str
    degrees: int


class Report(BaseModel):
    title: str
    parts: list[Weather] = Field(min_length=1)
    mood: Literal["good", "bad"] | None = None


class Place(TypedDict):
    name: str
    height: float


TYPES: dict[str, tuple[Any, Any, Any]] = {
    # name: type, what the model answers, the value
    "dataclass": (Weather, {"city": "北京", "degrees": 20}, Weather("北京", 20)),
    "pydantic": (
        Report,
        {"title": "今天", "parts": [{"city": "北京", "degrees": 20}], "mood": "good"},
        Report(title="今天", parts=[Weather("北京", 20)], mood="good"),
    ),
    "typed dict": (Place, {"name": "泰山", "height": 1532.7}, {"name": "泰山", "height": 1532.7}),
    "literal": (Literal["yes", "no"], {"value": "yes"}, "yes"),
    "union": (int | list[str], {"value": ["a", "b"]}, ["a", "b"]),
}


@function
def get_weather(city: str) -> str:
    """Get weather of the city."""
    return f"{city}天气晴朗, 气温20度"


class Model:
    """A model that answers in the way it was asked in, first wrong if need be, after a tool if there is one."""

    def __init__(self, answer: Any, *, wrong: int = 0) -> None:
        self.answer = answer
        self.wrong = wrong
        self.ways: list[str] = []

    def __call__(self, asked: Asked) -> Said:
        if "get_weather" in asked.tools and not any("晴朗" in result for result in asked.results):
            return Said(calls=(("get_weather", {"city": "北京"}),))
        body = str(asked.body)
        by_tool = "final_answer" in asked.tools
        members = list(self.answer)
        assert all(member in body for member in members), "nobody said what the answer must look like"
        self.ways.append("tool" if by_tool else "prompt" if "JSON Schema" in body else "native")
        answer = self.answer if not self.wrong else {members[0]: None}
        self.wrong = max(self.wrong - 1, 0)
        return Said(calls=(("final_answer", answer),)) if by_tool else Said(json.dumps(answer, ensure_ascii=False))


def expected_way(name: str) -> str:
    features = ALL[name].model().codec.features
    if features.json_schema == "schema":
        return "native"
    return "tool" if features.tools and "required" in features.tool_choice else "prompt"


def test_there_is_a_provider_of_each_kind():
    assert {
        name: expected_way(name) for name in ("openai", "anthropic", "gemini", "openai-responses")
    } == dict.fromkeys(("openai", "anthropic", "gemini", "openai-responses"), "native")
    assert {expected_way(name) for name in ALL} == {"native", "tool", "prompt"}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ALL)
def test_every_provider_gives_every_type(name: str, kind: str):
    output_type, answer, value = TYPES[kind]
    model = Model(answer)
    with DialectServer(ALL[name], model) as server:
        result = Agent(server.model(), output_type=output_type).run("今天怎么样？")
    assert result.output == value
    assert model.ways == [expected_way(name)]


@pytest.mark.parametrize("verb", AGENT_VERBS)
@pytest.mark.parametrize("name", DIALECTS)
def test_with_a_tool_and_a_wrong_answer_first(name: str, verb: Any):
    output_type, answer, value = TYPES["dataclass"]
    model = Model(answer, wrong=1)
    with DialectServer(DIALECTS[name], model) as server:
        result = verb(Agent(server.model(), tools=[get_weather], output_type=output_type), "北京怎么样？")
    assert result.output == value
    assert model.ways == [expected_way(name)] * 2
    assert result.tool_calls[0].name == "get_weather"


@pytest.mark.parametrize("name", ["openai", "deepseek", "wenxin", "minimax", "gemini"])
def test_re_asks_are_bounded(name: str):
    output_type, answer, _ = TYPES["dataclass"]
    model = Model(answer, wrong=99)
    with DialectServer(ALL[name], model) as server, pytest.raises(LMAgentError):
        Agent(server.model(), output_type=output_type, limits=Limits(rounds=4)).run("北京怎么样？")
    assert 2 <= len(model.ways) <= 4
