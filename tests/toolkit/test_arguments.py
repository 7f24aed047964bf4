"""From the JSON text of a model to values: reading, second chances, problems, given schemas."""

from __future__ import annotations

import asyncio
import json
import re
from typing import (
    Annotated,
    Any,
    Literal,
)

import pytest
from pydantic import BaseModel, Field

from lmagent.errors import ConfigurationError, InvalidArguments
from lmagent.toolkit.tool import Tool, function
from tests.toolkit.callables import (
    Movie,
    Order,
    OrderModel,
    problems,
    transfer,
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[1]", "arguments: Input should be an object (got [1])"),
        ("3", "arguments: Input should be an object (got 3)"),
        ('"x"', 'arguments: Input should be an object (got "x")'),
        ("null", "arguments: Input should be an object (got null)"),
    ],
)
def test_not_an_object(text: str, line: str):
    assert problems(transfer, text) == [line]


@pytest.mark.parametrize(
    "text", ['{"account": "a", "amount": 1', "{'account': 'a'}", "account", '{"account": "a",}', "\ud800"]
)
def test_broken_json_is_one_problem(text: str):
    (line,) = problems(transfer, text)
    assert line.startswith("arguments: ")


def test_raw_control_characters_in_strings_are_accepted():
    assert transfer.call('{"account": "a\nb\tc", "amount": 1}')[0] == "a\nb\tc"


def test_double_encoded_arguments_are_read():
    assert transfer.call(json.dumps('{"account": "a", "amount": 1}')) == ("a", 1.0, None)
    assert transfer.validate(json.dumps('{"account": "a", "amount": 1}')).repairs == ("encoded as a string",)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_and_infinity_are_refused(number: str):
    @function
    def f(a: float, b: Any = None):
        return a, b

    assert len(problems(f, f'{{"a": {number}}}')) == 1
    assert len(problems(f, f'{{"a": 1, "b": {{"x": {number}}}}}')) == 1
    assert f.call(f'{{"a": 1, "b": "{number}"}}') == (1.0, number)


def test_limits_of_size_and_depth():
    @function
    def f(a: Any):
        return a

    assert f.call('{"a": ' + "[" * 63 + "]" * 63 + "}") is not None
    for depth in (64, 300, 100_000):
        (line,) = problems(f, '{"a": ' + "[" * depth + "]" * depth + "}")
        assert len(line) < 300
    wide = json.dumps({"a": [[] for _ in range(1000)]})
    assert len(f.call(wide)) == 1000
    assert f.call(json.dumps({"a": "[" * 1000})) == "[" * 1000
    assert "more than" in problems(f, json.dumps({"a": "x" * 1_100_000}))[0]
    assert len(f.call(json.dumps({"a": "值" * 340_000}, ensure_ascii=False))) == 340_000
    assert "more than" in problems(f, json.dumps({"a": "值" * 360_000}, ensure_ascii=False))[0]


def test_an_error_is_short_however_much_is_wrong():
    @function
    def f(a: int): ...

    given = Tool.from_schema("g", "", {"properties": {"a": {"type": "integer"}}, "additionalProperties": False}, f)
    for tool in (f, given):
        many = problems(tool, json.dumps({"a": "x"} | {f"k{i}": i for i in range(1000)}))
        assert many[0].startswith("a: ")
        assert many[-1] == "and 951 more problems"
        assert len(many) == 51
        assert max(map(len, problems(tool, json.dumps({"a": 1, "k" * 100_000: 1})))) < 200


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', '{"a": "\ud800"}', '{"a": {"\\udc00": 1}}'])
def test_lone_surrogates_never_crash_and_never_reach_the_body(text: str):
    @function
    def f(a: Any):
        return a

    json.dumps(f.call(text), ensure_ascii=False).encode()


def test_a_pair_of_escaped_surrogates_is_one_character():
    @function
    def f(a: str):
        return a

    assert f.call('{"a": "\\ud83d\\ude00"}') == "😀"


class Address(BaseModel):
    street: str
    zip: str = "0"
    lines: list[int] = []


def test_null_for_a_default_also_inside():
    @function
    def f(a: int = 5, b: Address | None = None, c: list[Address] = [], d: Movie = {"name": "x"}, e: int | None = 3):
        return a, b, c, d, e

    bound = f.validate('{"a": null, "b": {"street": "s", "zip": null}, "c": [{"street": "t", "lines": null}]}')
    assert bound.values["b"] == Address(street="s")
    assert bound.repairs == ("null_as_default",)
    assert f.run(bound) == (5, Address(street="s"), [Address(street="t")], {"name": "x"}, 3)
    assert f.call('{"d": {"name": "m", "year": null}, "e": null}')[3:] == ({"name": "m"}, None)
    assert problems(f, '{"b": {"street": null}}') == ["b.street: Input should be a valid string (got null)"]


def test_null_is_not_dropped_where_nothing_has_a_default():
    @function
    def f(counts: dict[str, int], order: Order, stops: list[OrderModel] = []) -> Any:
        return counts, order, stops

    assert problems(f, '{"counts": {"a": null}, "order": {"item": "x", "extra": null}}') == [
        "counts.a: Input should be a valid integer (got null)",
        "order.extra: Unexpected keyword argument (got null)",
    ]
    assert f.call('{"counts": {}, "order": {"item": "x", "count": null}, "stops": [{"item": "y", "count": null}]}') == (
        {},
        Order("x"),
        [OrderModel(item="y")],
    )


def test_null_where_it_is_required_stays_an_error():
    assert problems(transfer, '{"account": null, "amount": null}') == [
        "account: Input should be a valid string (got null)",
        "amount: Input should be a valid number (got null)",
    ]


def test_json_text_where_text_is_not_allowed():
    @function
    def f(a: list[int], b: dict[str, int] | None = None, c: str = "", d: Any = None, e: str | list[int] = ""):
        return a, b, c, d, e

    assert f.call('{"a": "[1, 2]", "b": "{\\"x\\": \\"3\\"}", "c": "[1]", "d": "[1]", "e": "[1]"}') == (
        [1, 2],
        {"x": 3},
        "[1]",
        "[1]",
        "[1]",
    )
    assert problems(f, '{"a": "[1, \\"x\\"]"}') == [
        'a.1: Input should be a valid integer, unable to parse string as an integer (got "x")'
    ]
    assert problems(f, '{"a": "[1"}') == ['a: Input should be a valid array (got "[1")']


def test_text_that_is_too_long_is_not_taken_for_json():
    @function
    def f(a: Annotated[str, Field(max_length=3)] | None = None): ...

    assert problems(f, '{"a": "[1, 2]"}') == ['a: String should have at most 3 characters (got "[1, 2]")']


def test_every_problem_is_reported_with_its_path_and_no_internal_names():
    @function
    def f(lines: list[Order], kind: int | list[int], mode: Literal["a", "b"]): ...

    found = problems(f, '{"lines": [{"item": 3, "count": "x"}, {}], "kind": "k", "moode": 1}')
    assert [line.partition(":")[0] for line in found] == [
        "lines.0.item",
        "lines.0.count",
        "lines.1.item",
        "kind",
        "mode",
        "moode",
    ]
    assert "pydantic" not in "".join(found)
    assert "Arguments" not in "".join(found)


def test_a_validators_message_is_passed_on_word_for_word():
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("Value error, must be even: see the manual.")
        return value

    from pydantic import AfterValidator

    @function
    def f(a: Annotated[int, AfterValidator(even)]): ...

    assert problems(f, '{"a": 3}') == ["a: Value error, must be even: see the manual. (got 3)"]


def test_long_values_are_cut_in_the_error():
    (line,) = problems(transfer, json.dumps({"account": "a", "amount": "y" * 5000}))
    assert len(line) < 250


def test_a_key_twice_is_refused_unless_both_values_are_the_same():
    with pytest.raises(InvalidArguments, match="the key 'account' twice with different values"):
        transfer.call('{"account": "a", "amount": 1, "account": "b"}')
    assert transfer.call('{"account": "a", "amount": 1, "account": "a"}') == ("a", 1.0, None)


def test_arguments_as_an_object():
    assert transfer.call({"account": "a", "amount": 1}) == ("a", 1.0, None)


def test_mutable_defaults_are_not_shared():
    @function
    def f(a: list[list[int]] = [[]], b: dict[str, list[int]] = {"x": []}):
        a[0].append(1)
        b["x"].append(2)
        return a, b

    assert f.call("{}") == f.call("{}") == ([[1]], {"x": [2]})


def test_validating_and_running_are_apart():
    bound = transfer.validate('{"account": "a", "amount": "2"}')
    assert bound.values == {"account": "a", "amount": 2.0}
    assert transfer.run(bound) == ("a", 2.0, None)
    assert asyncio.run(transfer.async_run(bound)) == ("a", 2.0, None)


def test_repair_applies_only_after_strict_reading_failed():
    good = '{"account": "a", "amount": 1, "memo": null}'
    assert transfer.validate(good, repair=True).repairs == ()
    assert transfer.validate("{'account': 'a', 'amount': 1}", repair=True).repairs == ("single quotes",)
    with pytest.raises(InvalidArguments) as caught:
        transfer.validate("{'account': 'a'}", repair=True)
    assert caught.value.problems == ("amount: Field required",)
    with pytest.raises(InvalidArguments):
        transfer.validate("{", repair=True)
    with pytest.raises(InvalidArguments):
        transfer.validate("{'account': 'a', 'amount': 1}")


def test_the_body_does_not_run_when_an_argument_is_wrong():
    ran = []

    @function
    def f(a: int, b: int):
        ran.append(1)

    problems(f, '{"a": 1, "b": "x"}')
    assert ran == []


SEARCH = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 1},
        "limit": {"type": "integer", "minimum": 1, "default": 10},
        "kind": {"enum": ["a", "b"]},
        "filters": {"type": "array", "items": {"$ref": "#/$defs/Filter"}},
        "mode": {"anyOf": [{"type": "null"}, {"const": "x"}]},
    },
    "required": ["query"],
    "additionalProperties": False,
    "$defs": {"Filter": {"type": "object", "properties": {"f": {"type": "number"}}, "required": ["f"]}},
}


def test_a_given_schema_is_passed_on_and_checked():
    tool = Tool.from_schema("web.search", "Search.", SEARCH, lambda **values: values, tags="web")
    assert tool.parameters == SEARCH
    assert re.fullmatch(r"web_search_[0-9a-f]{8}", tool.name)
    assert tool.description == "Search."
    assert tool.call('{"query": "q", "filters": [{"f": 1}], "mode": null}') == {
        "query": "q",
        "filters": [{"f": 1}],
        "mode": None,
    }
    assert tool.call('{"query": "q", "limit": null, "filters": "[{\\"f\\": 1}]"}') == {
        "query": "q",
        "filters": [{"f": 1}],
    }
    assert problems(tool, '{"limit": 0, "kind": "c", "filters": [{}, {"f": "x"}], "mode": 3, "nope": 1}') == [
        "query: required, but missing",
        "limit: expected at least 1, got 0",
        'kind: expected one of ["a", "b"], got "c"',
        "filters.0.f: required, but missing",
        'filters.1.f: expected number, got string "x"',
        "mode: expected null or string, got integer 3",
        "nope: no such argument",
    ]
    assert Tool.from_schema("now", "", {}, lambda: 1).call("") == 1
    assert Tool.from_schema("now", "", {"type": "object"}, lambda: 1).parameters == {"type": "object", "properties": {}}


def test_a_given_schema_is_of_an_object_and_has_something_to_call():
    with pytest.raises(ConfigurationError, match="needs a callable, not None"):
        Tool.from_schema("x", "", {}, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="type 'object', not 'array'"):
        Tool.from_schema("x", "", {"type": "array"}, print)


def test_a_given_schema_may_be_recursive_or_broken():
    loop = {"properties": {"a": {"$ref": "#/properties/a"}}}
    branches = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}}
    assert Tool.from_schema("t", "", branches, lambda a: a).call('{"a": 1}') == 1
    assert Tool.from_schema("t", "", loop, lambda a: a).call('{"a": 1}') == 1
    broken = {"properties": {"a": {"$ref": "#/$defs/Missing"}}}
    assert Tool.from_schema("t", "", broken, lambda a: a).call('{"a": 1}') == 1


def test_a_given_schema_is_checked_without_regular_expressions_and_with_unknown_types():
    schema = {
        "properties": {"a": {"type": "string", "pattern": r"^(\w+)+$"}, "b": {"type": "money"}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": False,
    }
    tool = Tool.from_schema("t", "", schema, lambda **values: values)
    arguments = {"a": "w" * 40 + "!", "b": "3 EUR", "x-1": 1}
    assert tool.call(arguments) == arguments
    assert tool.parameters["properties"] == schema["properties"]
