"""Structured answers: every kind of type, asked for natively, by a tool and by the prompt; retries and giving up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, Field, RootModel

from lmagent import Agent, Limits, function
from lmagent.agent.output import OutputMode, TypedOutput
from lmagent.core.history import history_problems
from lmagent.core.json_text import dumps_text
from lmagent.core.messages import AssistantMessage, Reply, SystemMessage, ToolMessage, UserMessage
from lmagent.errors import ConfigurationError, FunctionDefinitionError, OutputError
from lmagent.providers.base import Features
from lmagent.testing import ScriptedModel, calls, text
from tests.four_ways import AGENT_VERBS, AgentVerb

every_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
every_mode = pytest.mark.parametrize("mode", ["native", "tool", "prompt"])


class Person(BaseModel):
    """Someone."""

    name: str
    age: int = Field(ge=0)


@dataclass
class Place:
    """Somewhere."""

    city: str
    number: int = 1


class Row(TypedDict):
    """A line of a table."""

    key: str
    value: float


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Numbers(RootModel[list[int]]):
    """A root model describes no object."""


@function
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _line(mode: str, value: Any) -> Any:
    """How a model answers in a mode."""
    return calls(("final_answer", value)) if mode == "tool" else dumps_text(value)


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "model": (Person, {"name": "小红", "age": 3}, Person(name="小红", age=3)),
    "dataclass": (Place, {"city": "Rome"}, Place("Rome")),
    "typed dict": (Row, {"key": "a", "value": 1.5}, {"key": "a", "value": 1.5}),
    "list": (list[int], {"value": [1, 2]}, [1, 2]),
    "literal": (Literal["yes", "no"], {"value": "no"}, "no"),
    "union": (int | str, {"value": "x"}, "x"),
    "models": (list[Person], {"value": [{"name": "A", "age": 1}]}, [Person(name="A", age=1)]),
    "number": (float, {"value": 2.5}, 2.5),
    "root model": (Numbers, {"value": [1, 2]}, Numbers([1, 2])),
    "enum": (Color, {"value": "red"}, Color.RED),
    "optional": (int | None, {"value": None}, None),
}


@every_verb
@every_mode
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_of_a_type(verb: AgentVerb, mode: OutputMode, kind: str):
    wanted, value, expected = KINDS[kind]
    model = ScriptedModel([_line(mode, value)])
    result = verb(Agent(model, output_type=wanted, output_mode=mode), "?")
    assert result.output == expected
    assert type(result.output) is type(expected)
    assert history_problems(result.messages) == []


@every_mode
def test_tools_first_then_the_answer(mode: OutputMode):
    model = ScriptedModel([calls(("add", {"a": 1, "b": 2})), _line(mode, {"name": "A", "age": 3})])
    result = Agent(model, [add], output_type=Person, output_mode=mode).run("?")
    assert result.output == Person(name="A", age=3)
    assert [call.name for call in result.tool_calls] == ["add"]


@every_verb
@every_mode
def test_an_answer_that_does_not_fit_is_asked_for_again(verb: AgentVerb, mode: OutputMode):
    model = ScriptedModel([_line(mode, {"name": "A", "age": -1}), _line(mode, {"name": "A", "age": 1})])
    result = verb(Agent(model, output_type=Person, output_mode=mode), "?")
    assert result.output == Person(name="A", age=1)
    assert result.rounds == 2
    complaint = model.asked[1][-1]
    assert isinstance(complaint, UserMessage)
    assert complaint.text.startswith("The answer does not fit:\nage:")
    assert history_problems(result.messages) == []


@every_verb
@every_mode
def test_giving_up_is_an_error_with_the_problems_and_the_run(verb: AgentVerb, mode: OutputMode):
    model = ScriptedModel([_line(mode, {"name": "A"})] * 3)
    with pytest.raises(OutputError, match="did not fit after 2 retries: age") as caught:
        verb(Agent(model, output_type=Person, output_mode=mode), "?")
    assert caught.value.problems
    assert caught.value.run.rounds == 3
    assert history_problems(caught.value.run.messages) == []
    model.check()


@every_mode
def test_no_re_asks(mode: OutputMode):
    with pytest.raises(OutputError):
        Agent(ScriptedModel([_line(mode, {})]), output_type=Person, output_mode=mode).run(
            "?", limits=Limits(output_retries=0)
        )


def test_how_it_is_asked_for():
    native = ScriptedModel(["x"] * 3)
    native.codec.features = Features(json_schema="schema")
    assert Agent(native, output_type=Person)._output.mode == "native"  # type: ignore[union-attr]  # pyright: ignore
    tool = TypedOutput(Person, Features(json_schema="object", tool_choice=frozenset({"auto", "required"})))
    assert tool.mode == "tool"
    assert tool.tool is not None
    assert tool.instruction == ""
    assert TypedOutput(Person, Features(json_schema="object", tools=False)).mode == "prompt"
    prompt = TypedOutput(Person, Features(), mode="prompt")
    assert prompt.tool is None
    assert '"age"' in prompt.instruction


def test_the_tool_is_forced_and_the_prompt_is_part_of_the_system_text():
    model = ScriptedModel([_line("tool", {"name": "A", "age": 1})])
    Agent(model, output_type=Person, output_mode="tool").run("?")
    assert model.choices == ["required"]
    model = ScriptedModel([_line("prompt", {"name": "A", "age": 1})])
    Agent(model, system_prompt="Be brief.", output_type=Person, output_mode="prompt").run("?")
    [system, _] = model.asked[0]
    assert isinstance(system, SystemMessage)
    assert system.content.startswith("Be brief.\n\nGive your final answer as one JSON object and nothing else.")


def test_the_answer_beside_other_calls_runs_none_of_them():
    ran: list[int] = []
    note = function(lambda n: ran.append(n), name="note")
    model = ScriptedModel([calls(("note", {"n": 1}), ("final_answer", {"name": "A", "age": 1}))])
    result = Agent(model, [note], output_type=Person, output_mode="tool").run("?")
    assert result.output == Person(name="A", age=1)
    assert ran == []
    contents = [message.content for message in result.messages if isinstance(message, ToolMessage)]
    assert contents == ["Not run: the answer was given in the same reply.", "Answer received."]


@pytest.mark.parametrize(
    "written",
    [
        '```json\n{"name": "A", "age": 1}\n```',
        'Here you are:\n```\n{"name": "A", "age": 1}\n```\nDone.',
        '  {"name": "A", "age": 1}  ',
        "{'name': 'A', 'age': 1,}",
        'Sure! The answer is {"name": "A", "age": 1}. Anything else?',
        '{"name": "A", "age": 1}\n\nI hope this helps!',
    ],
)
def test_an_answer_in_a_fence_in_prose_or_nearly_json(written: str):
    agent = Agent(ScriptedModel([written]), output_type=Person, output_mode="prompt")
    assert agent.run("?").output == Person(name="A", age=1)


BARE: list[tuple[Any, str, Any]] = [
    (int, "42", 42),
    (bool, "true", True),
    (list[int], "```json\n[1, 2]\n```", [1, 2]),
    (int | None, "null", None),
    (Literal["yes", "no"], "yes", "yes"),
    (Literal["yes", "no"], '"no"', "no"),
    (Color, "red", Color.RED),
    (dict[str, int], '{"a": 1}', {"a": 1}),
    (Person | Place, '{"city": "Rome"}', Place("Rome")),
    (Numbers, "[1, 2, 3]", Numbers([1, 2, 3])),
]


@pytest.mark.parametrize("mode", ["native", "prompt"])
@pytest.mark.parametrize(("wanted", "written", "expected"), BARE, ids=lambda item: str(item)[:40])
def test_an_answer_without_the_object_around_it(mode: OutputMode, wanted: Any, written: str, expected: Any):
    result = Agent(ScriptedModel([written]), output_type=wanted, output_mode=mode).run("?")
    assert (result.output, result.rounds) == (expected, 1)


def test_words_around_a_word_are_no_answer():
    agent = Agent(ScriptedModel(["I say yes", "yes"]), output_type=Literal["yes", "no"], output_mode="prompt")
    result = agent.run("?")
    assert (result.output, result.rounds) == ("yes", 2)


def test_a_refusal_is_no_answer():
    refused = Reply(message=AssistantMessage("I must not.", refusal="I must not."), finish_reason="refusal")
    output = TypedOutput(Person, Features(), mode="native")
    value, problems = output.read(refused)
    assert value is None
    assert problems == ("The model gave no answer (refusal): I must not.",)
    filtered = text('{"name": "A", "age": 1}', finish_reason="content_filter")
    assert output.read(filtered)[0] is None


def test_text_where_the_tool_should_have_been_called():
    model = ScriptedModel(["It is A.", calls(("final_answer", {"name": "A", "age": 1}))])
    result = Agent(model, output_type=Person, output_mode="tool").run("?")
    assert result.output == Person(name="A", age=1)
    assert "Call final_answer to answer." in model.asked[1][-1].content  # type: ignore[operator]


def test_the_answer_as_text_where_the_tool_should_have_been_called():
    model = ScriptedModel(['Here it is: {"name": "A", "age": 1}'])
    assert Agent(model, output_type=Person, output_mode="tool").run("?").output == Person(name="A", age=1)


def test_a_run_may_ask_for_a_type_of_its_own_and_str_means_text():
    agent = Agent(ScriptedModel(['{"value": 5}', "plain"]), output_mode="prompt")
    assert agent.run("?", output_type=int).output == 5
    assert agent.run("?", output_type=str).output == "plain"


def test_a_type_that_cannot_be_described_is_refused_at_once():
    class Odd:
        pass

    with pytest.raises(FunctionDefinitionError):
        Agent(ScriptedModel([]), output_type=list[Odd])  # type: ignore[valid-type]


def test_prompted_models_give_structured_answers_too():
    for mode in ("native", "tool", "prompt"):
        for shape in ("json", "hermes", "object"):
            model = ScriptedModel(
                [calls(("add", {"a": 1, "b": 2})), _line(mode, {"name": "A", "age": 3})],
                tool_mode="prompt",
                prompt_format=shape,
            )
            result = Agent(model, [add], output_type=Person, output_mode=mode).run("?")  # type: ignore[arg-type]
            assert result.output == Person(name="A", age=3), (mode, shape)


@every_verb
@every_mode
@pytest.mark.parametrize(
    ("kind", "cut"),
    [(int, "12"), (float, "3.1"), (int | None, "12"), (Person, '{"name": "Ann", "age": 1'), (list[int], "[1, 2")],
)
def test_an_answer_cut_by_the_length_limit_is_never_accepted(verb: AgentVerb, mode: OutputMode, kind: Any, cut: str):
    model = ScriptedModel([text(cut, finish_reason="length")])
    with pytest.raises(OutputError, match="cut by the length limit") as caught:
        verb(Agent(model, output_type=kind, output_mode=mode), "x")
    assert len(model.asked) == 1
    assert caught.value.run is not None


@every_verb
def test_a_call_that_is_the_answer_and_was_cut_is_never_accepted(verb: AgentVerb):
    cut = replace(calls(("final_answer", {"name": "Ann", "age": 1})), finish_reason="length")
    with pytest.raises(OutputError, match="cut by the length limit"):
        verb(Agent(ScriptedModel([cut]), output_type=Person, output_mode="tool"), "x")


def test_a_tool_with_the_name_of_the_answer_tool_is_refused():
    def final_answer(text: str) -> str:
        """Publish."""
        return text

    with pytest.raises(ConfigurationError, match="'final_answer' has the name"):
        Agent(ScriptedModel([]), [function(final_answer)], output_type=Person, output_mode="tool")
    agent = Agent(ScriptedModel([]), [function(final_answer)], output_mode="tool")
    with pytest.raises(ConfigurationError, match="'final_answer' has the name"):
        agent.run("x", output_type=Person)
    later = Agent(ScriptedModel([]), output_type=Person, output_mode="tool")
    later.tools.add(function(final_answer))
    with pytest.raises(ConfigurationError, match="'final_answer' has the name"):
        later.run("x")
    Agent(ScriptedModel(['{"name": "A", "age": 1}']), [final_answer], output_type=Person, output_mode="native").run("x")
