"""Hygiene and dialect passes over JSON Schema: pure, and each as the rules say."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from lmagent.toolkit.schema import inline_refs, tidy
from lmagent.toolkit.schema_dialects import never_blank, openai_strict, openapi_subset, wenxin_subset
from lmagent.toolkit.tool import function

PASSES = {
    "tidy": tidy,
    "inline": inline_refs,
    "strict": lambda schema: openai_strict(schema)[0],
    "openapi": openapi_subset,
    "wenxin": wenxin_subset,
}


class Priority(Enum):
    LOW = "low"
    HIGH = "high"


@dataclass
class Part:
    name: str
    parts: list[Part] = field(default_factory=list)


class Stop(BaseModel):
    """A place on the route."""

    city: str = Field(description="City name")
    nights: int = Field(1, ge=0)


def build(part: Part): ...


def plan_trip(start: Annotated[Stop, "Where it begins."], via: list[Stop] = [], note: str | None = None): ...


def file_ticket(title: str, type: Literal["bug", "wish"] = "bug", priority: Priority = Priority.LOW): ...


def mixed(
    a: int | str | None,
    b: tuple[int, str],
    c: Annotated[int, Field(gt=3)],
    d: Literal["x", None],
    e: dict[str, int],
    f: Annotated[float, Field(lt=1.5)] = 0.5,
): ...


SAMPLES = [build, plan_trip, file_ticket, mixed]


def keywords_of(schema: Any) -> set[str]:
    """Every keyword in use; names of properties and definitions are no keywords."""
    if isinstance(schema, list):
        return set().union(*map(keywords_of, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            found |= keywords_of(list(value.values()))
        elif key not in ("default", "enum", "const", "examples", "required"):
            found |= keywords_of(value)
    return found


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_pass_copies_and_changes_nothing(name: str, sample: Any):
    schema = function(sample).parameters
    before = copy.deepcopy(schema)
    result = PASSES[name](schema)
    assert schema == before
    scribble(result)
    assert schema == before
    json.dumps(result, allow_nan=False)


def scribble(value: Any) -> None:
    if isinstance(value, dict):
        for inner in list(value.values()):
            scribble(inner)
        value["scribble"] = 1
    elif isinstance(value, list):
        for inner in value:
            scribble(inner)
        value.append("scribble")


def test_titles_go_and_names_that_look_like_keywords_stay():
    schema = {
        "title": "T",
        "type": "object",
        "properties": {
            "title": {"title": "Title", "type": "string", "default": {"title": "kept"}},
            "properties": {"anyOf": [{"title": "Inner", "type": "object", "properties": {"title": {"title": "x"}}}]},
            "default": {"enum": [{"title": "kept"}], "examples": [{"title": "kept"}], "title": "gone"},
        },
        "required": ["title"],
        "$defs": {"title": {"title": "unused"}},
    }
    assert tidy(schema) == {
        "type": "object",
        "properties": {
            "title": {"type": "string", "default": {"title": "kept"}},
            "properties": {"anyOf": [{"type": "object", "properties": {"title": {}}}]},
            "default": {"enum": [{"title": "kept"}], "examples": [{"title": "kept"}]},
        },
        "required": ["title"],
    }


def test_tidy_keeps_used_definitions_only():
    schema = {
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"items": {"$ref": "#/$defs/B"}}, "B": {"type": "string"}, "C": {"$ref": "#/$defs/D"}, "D": {}},
    }
    assert set(tidy(schema)["$defs"]) == {"A", "B"}


def test_tidy_drops_defaults_that_json_cannot_carry():
    schema = {
        "properties": {"a": {"default": float("nan")}, "b": {"default": [1, float("inf")]}, "c": {"default": 1.5}}
    }
    assert tidy(schema) == {"properties": {"a": {}, "b": {}, "c": {"default": 1.5}}}


def test_inlining_keeps_the_outer_text():
    schema = inline_refs(function(plan_trip).parameters)
    assert schema["properties"]["start"]["description"] == "Where it begins."
    assert schema["properties"]["start"]["properties"]["city"] == {"type": "string", "description": "City name"}
    assert schema["properties"]["via"]["items"]["description"] == "A place on the route."
    assert "$ref" not in keywords_of(schema)
    assert "$defs" not in schema


def test_inlining_stops_at_a_recursion():
    assert openapi_subset(function(build).parameters)["properties"]["part"] == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parts": {"type": "array", "items": {"type": "object"}}},
        "required": ["name"],
    }


# OpenAI strict


def test_example_c_strict_makes_everything_required_and_nullable():
    schema, problem = openai_strict(function(file_ticket).parameters)
    assert problem is None
    assert schema["required"] == ["title", "type", "priority"]
    assert schema["properties"] == {
        "title": {"type": "string"},
        "type": {"anyOf": [{"enum": ["bug", "wish"], "type": "string"}, {"type": "null"}]},
        "priority": {"anyOf": [{"$ref": "#/$defs/Priority"}, {"type": "null"}]},
    }
    assert schema["additionalProperties"] is False
    assert "default" not in keywords_of(schema)


def test_strict_closes_nested_objects_and_wraps_described_references():
    schema, problem = openai_strict(function(plan_trip).parameters)
    assert problem is None
    assert schema["properties"]["start"] == {"anyOf": [{"$ref": "#/$defs/Stop"}], "description": "Where it begins."}
    assert schema["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    stop = schema["$defs"]["Stop"]
    assert stop["additionalProperties"] is False
    assert stop["required"] == ["city", "nights"]
    assert stop["properties"]["nights"] == {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}


def test_strict_keeps_a_recursion():
    schema, problem = openai_strict(function(build).parameters)
    assert problem is None
    assert schema["properties"]["part"] == {"$ref": "#/$defs/Part"}
    assert schema["$defs"]["Part"]["properties"]["parts"] == {
        "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Part"}}, {"type": "null"}]
    }


def test_strict_tells_dropped_constraints_in_the_description():
    def f(
        names: set[str],
        url: Annotated[str, Field(json_schema_extra={"format": "uri"}, description="Where")],
        code: Annotated[str, Field(json_schema_extra={"pattern": "(?=a)b"})],
        day: Annotated[str, Field(pattern="^a")],
    ): ...

    schema, problem = openai_strict(function(f).parameters)
    assert problem is None
    assert schema["properties"] == {
        "names": {"type": "array", "items": {"type": "string"}, "description": "(uniqueItems: true)"},
        "url": {"type": "string", "description": "Where (format: uri)"},
        "code": {"type": "string", "description": "(pattern: (?=a)b)"},
        "day": {"type": "string", "pattern": "^a"},
    }


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


def test_discriminated_unions_become_any_of():
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    def f(pet: Annotated[Cat | Dog, Field(discriminator="kind")]): ...

    tool = function(f)
    assert "oneOf" in tool.parameters["properties"]["pet"]
    assert "discriminator" in tool.parameters["properties"]["pet"]
    schema, problem = openai_strict(tool.parameters)
    assert problem is None
    assert schema["properties"]["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}


@pytest.mark.parametrize(
    ("hint", "what"),
    [
        (Any, "Any"),
        (dict, "objects with free keys"),
        (dict[str, int], "objects with free keys"),
        (list, "lists of Any"),
        (tuple[int, str], "tuples of fixed length"),
        (Open, "objects with free keys"),
        (list[Any], "lists of Any"),
        (list[dict[str, str]], "objects with free keys"),
    ],
)
def test_example_m_what_strict_cannot_describe_is_named(hint: Any, what: str):
    def put(key: str, value: Any): ...

    put.__annotations__["value"] = hint
    tool = function(put)
    schema, problem = openai_strict(tool.parameters)
    assert problem == f"parameter 'value': strict mode cannot describe {what}"
    assert schema == tool.parameters


def test_strict_refuses_free_keywords_and_too_much_depth():
    def f(a: int, **more: int): ...

    assert openai_strict(function(f).parameters)[1] == "strict mode cannot describe objects with free keys"
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(11):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    _, problem = openai_strict(deep)
    assert problem is not None
    assert "nested deeper than 10" in problem


def test_strict_of_no_parameters():
    assert openai_strict({"type": "object", "properties": {}}) == (
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        None,
    )


# OpenAPI and Wenxin


def test_openapi_subset_knows_no_modern_keyword():
    schema = openapi_subset(function(mixed).parameters)
    assert schema["properties"] == {
        "a": {"anyOf": [{"type": "integer"}, {"type": "string"}], "nullable": True},
        "b": {
            "type": "array",
            "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "minItems": 2,
            "maxItems": 2,
        },
        "c": {"type": "integer", "minimum": 4},
        "d": {"enum": ["x"], "nullable": True},
        "e": {"type": "object"},
        "f": {"type": "number", "maximum": 1.5, "default": 0.5, "description": "(less than 1.5)"},
    }
    for sample in SAMPLES:
        unknown = keywords_of(openapi_subset(function(sample).parameters)) & {
            "$ref", "$defs", "const", "oneOf", "allOf", "prefixItems", "additionalProperties", "exclusiveMinimum",
        }  # fmt: skip
        assert not unknown


def test_openapi_const_and_optional():
    def f(a: Literal["x"], b: Annotated[Stop | None, "text"] = None): ...

    schema = openapi_subset(function(f).parameters)
    assert schema["properties"]["a"] == {"type": "string", "enum": ["x"]}
    assert schema["properties"]["b"]["nullable"] is True
    assert schema["properties"]["b"]["type"] == "object"
    assert schema["properties"]["b"]["description"] == "text"


def test_type_lists_and_all_of_are_folded():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "description": "t"},
            "b": {"allOf": [{"type": "object", "properties": {"x": {"type": "string"}}}, {"required": ["x"]}]},
        },
    }
    assert openapi_subset(schema)["properties"] == {
        "a": {"type": "string", "nullable": True, "description": "t"},
        "b": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
    }


def test_wenxin_has_neither_unions_nor_null():
    schema = wenxin_subset(function(mixed).parameters)
    assert schema["properties"]["a"] == {"type": "integer", "description": '(or {"type": "string"})'}
    assert schema["properties"]["d"] == {"enum": ["x"]}
    assert wenxin_subset(function(plan_trip).parameters)["properties"]["note"] == {"type": "string"}
    for sample in SAMPLES:
        assert not keywords_of(wenxin_subset(function(sample).parameters)) & {"anyOf", "nullable", "$ref"}


def test_wenxin_of_no_parameters_and_no_description():
    def now(): ...

    assert wenxin_subset(function(now).parameters) == {"type": "object", "properties": {}}
    assert never_blank("get_currentTime", "  ") == "get current Time"
    assert never_blank("now", "Tell the time.") == "Tell the time."
