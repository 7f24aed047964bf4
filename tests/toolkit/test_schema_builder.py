"""Every type has its schema and its value; names fit providers."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import json
import pathlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypeVar,
    Union,
    Unpack,
)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, ConfigDict, SecretStr
from typing_extensions import Doc, TypeAliasType, TypedDict

from lmagent.errors import ConfigurationError, FunctionDefinitionError, InvalidArguments
from lmagent.toolkit import schema_builder as schemas
from lmagent.toolkit.tool import function
from tests.toolkit.callables import (
    Movie,
    Order,
    OrderModel,
    file_ticket,
    log_event,
    plan_trip,
    properties,
    transfer,
)

T = TypeVar("T")


Bounded = TypeVar("Bounded", bound=int)


UserId = NewType("UserId", int)


Recursive = TypeAliasType("Recursive", "dict[str, Recursive] | int")


class Color(enum.IntEnum):
    RED = 1
    BLUE = 2


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Point(NamedTuple):
    x: int
    y: int = 0


class Box(BaseModel, Generic[T]):
    value: T


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Shelf(TypedDict):
    movies: list[Movie]
    note: NotRequired[str]


TYPES: list[tuple[Any, dict[str, Any], Any, Any]] = [
    (int, {"type": "integer"}, "5", 5),
    (int, {"type": "integer"}, 5.0, 5),
    (float, {"type": "number"}, 1, 1.0),
    (bool, {"type": "boolean"}, True, True),
    (Any, {}, {"a": ["1"]}, {"a": ["1"]}),
    (object, {}, "1", "1"),
    (list, {"type": "array", "items": {}}, [1, "2"], [1, "2"]),
    (dict, {"type": "object", "additionalProperties": True}, {"a": 1}, {"a": 1}),
    (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "1", "1"),
    (Union[str, int, None], {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}, 1, 1),  # noqa: UP007
    (Literal["a", 1, None, True], {"enum": ["a", 1, None, True]}, True, True),
    (Literal[1], {"const": 1, "type": "integer"}, 1, 1),
    (Color, {"enum": [1, 2], "type": "integer"}, 2, Color.BLUE),
    (Word, {"enum": ["yes", "no"], "type": "string"}, "no", Word.NO),
    (list[int], {"type": "array", "items": {"type": "integer"}}, ["1"], [1]),
    (Sequence[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),
    (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 1], {1}),
    (frozenset[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ["a", "a"], frozenset("a")),
    (
        tuple[int, str],
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        [1, "a"],
        (1, "a"),
    ),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [1, 2], (1, 2)),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "1"}, {"a": 1}),
    (Mapping[str, float], {"type": "object", "additionalProperties": {"type": "number"}}, {"a": 1}, {"a": 1.0}),
    (dict[int, str], {"type": "object", "additionalProperties": {"type": "string"}}, {"1": "a"}, {1: "a"}),
    (datetime.datetime, {"type": "string", "format": "date-time"}, "2030-01-02", datetime.datetime(2030, 1, 2)),
    (datetime.time, {"type": "string", "format": "time"}, "03:04", datetime.time(3, 4)),
    (datetime.timedelta, {"type": "string", "format": "duration"}, "PT1H", datetime.timedelta(hours=1)),
    (uuid.UUID, {"type": "string", "format": "uuid"}, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
    (pathlib.Path, {"type": "string", "format": "path"}, "a/b", pathlib.Path("a/b")),
    (ipaddress.IPv4Address, {"type": "string", "format": "ipv4"}, "127.0.0.1", ipaddress.IPv4Address("127.0.0.1")),
    (UserId, {"type": "integer"}, 3, 3),
    (Bounded, {"type": "integer"}, 3, 3),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "schema", "sent", "got"), TYPES)
def test_each_type_has_its_schema_and_its_value(hint: Any, schema: dict[str, Any], sent: Any, got: Any):
    def f(x: Any):
        return x

    f.__annotations__["x"] = hint
    tool = function(f)
    shown = properties(tool)["x"]
    if "$ref" in shown:
        (shown,) = tool.parameters["$defs"].values()
    assert shown == schema
    value = tool.call(json.dumps({"x": sent}))
    assert value == got
    assert type(value) is type(got)


def test_types_that_are_text():
    @function
    def f(a: decimal.Decimal, b: bytes, c: AnyUrl, d: re.Pattern[str], e: SecretStr):
        return a, b, c, d, e

    kinds = properties(f)
    assert {choice["type"] for choice in kinds["a"]["anyOf"]} == {"number", "string"}
    assert all(kinds[name]["type"] == "string" for name in "bcde")
    a, b, c, d, e = f.call('{"a": "1.10", "b": "x", "c": "http://h/p", "d": "a+", "e": "s"}')
    assert (a, b, str(c), d, e.get_secret_value()) == (
        decimal.Decimal("1.10"),
        b"x",
        "http://h/p",
        re.compile("a+"),
        "s",
    )


def test_structured_types_arrive_as_instances():
    @function
    def f(a: Order, b: Point, c: Box[int], d: Shelf, e: Recursive, g: Strict, h: list[Movie]):
        return a, b, c, d, e, g, h

    called = f.call(
        '{"a": {"item": "x"}, "b": [1], "c": {"value": "2"}, "d": {"movies": [{"name": "m"}]}, "e": {"x": {"y": 1}},'
        ' "g": {"a": 1}, "h": [{"name": "n", "year": "1990"}]}'
    )
    assert called == (
        Order("x"),
        Point(1, 0),
        Box[int](value=2),
        {"movies": [{"name": "m"}]},
        {"x": {"y": 1}},
        Strict(a=1),
        [{"name": "n", "year": 1990}],
    )
    assert [type(value) for value in called[:3]] == [Order, Point, Box[int]]
    assert f.parameters["$defs"]["Strict"]["additionalProperties"] is False
    assert f.parameters["$defs"]["Order"]["description"] == "An order."
    assert f.parameters["$defs"]["Order"]["properties"]["item"]["description"] == "What."
    assert f.parameters["$defs"]["Movie"]["required"] == ["name"]
    assert "prefixItems" in f.parameters["$defs"]["Point"]


def test_two_classes_of_one_name_get_two_definitions():
    One, Two = (dataclasses.make_dataclass("Same", [("x", kind)]) for kind in (int, str))

    def f(a: Any, b: Any): ...

    f.__annotations__.update(a=One, b=Two)
    tool = function(f)
    assert len(tool.parameters["$defs"]) == 2
    assert properties(tool)["a"]["$ref"] != properties(tool)["b"]["$ref"]


def test_nested_texts():
    @dataclass
    class Inner:
        a: Annotated[int, "first"]
        b: Annotated[int, Doc("second")] = 2

    class Config(TypedDict):
        """Settings of it.

        Attributes:
            c: third
        """

        c: int

    class Model(BaseModel):
        d: Annotated[int, "fifth"]
        e: Annotated[Inner, Doc("sixth")]

    @function
    def f(x: Inner, y: Config, w: Model, z: Annotated[int, Doc("fourth")] = 0): ...

    definitions = f.parameters["$defs"]
    assert definitions["Model"]["properties"]["d"] == {"type": "integer", "description": "fifth"}
    assert definitions["Model"]["properties"]["e"] == {"$ref": "#/$defs/Inner", "description": "sixth"}
    assert definitions["Inner"]["properties"]["a"] == {"type": "integer", "description": "first"}
    assert definitions["Inner"]["properties"]["b"] == {"type": "integer", "description": "second", "default": 2}
    assert definitions["Config"]["description"] == "Settings of it."
    assert definitions["Config"]["properties"]["c"]["description"] == "third"
    assert properties(f)["z"]["description"] == "fourth"


def test_no_titles_and_plain_json_everywhere():
    for tool in (transfer, file_ticket, plan_trip, log_event, function(Order), function(OrderModel)):
        text = json.dumps(tool.json_schema, allow_nan=False)
        assert '"title": "' not in text


LITERAL_VALUES = st.one_of(st.sampled_from(["a", "b"]), st.integers(0, 3), st.booleans(), st.none())


LITERALS = st.lists(LITERAL_VALUES, min_size=1, max_size=3, unique_by=lambda value: (type(value), value))


PLAIN = st.deferred(
    lambda: st.one_of(
        st.sampled_from(
            [str, int, float, bool, Any, list, dict, None, datetime.date, datetime.datetime, datetime.time]
        ),
        LITERALS.map(lambda values: Literal[tuple(values)]),
        PLAIN.map(lambda inner: list[inner]),
        PLAIN.map(lambda inner: dict[str, inner]),
        PLAIN.map(lambda inner: set[inner]),
        PLAIN.map(lambda inner: Optional[inner]),  # noqa: UP045
        st.tuples(PLAIN, PLAIN).map(lambda pair: Union[pair[0], pair[1]]),  # noqa: UP007
    )
)


@settings(deadline=None)  # the first of a kind imports
@given(PLAIN)
def test_the_quick_schema_of_plain_hints_equals_pydantics(hint: Any):

    quick = schemas._plain(hint)
    if quick is None:
        return
    signature = schemas.Signature(name="f", arguments=[schemas.Argument(name="x", hint=hint)])
    _, slow = schemas._pydantic_schema(signature, signature.arguments)
    assert quick == schemas.tidy(slow)["properties"]["x"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("get_weather", True), ("a-b", True), ("x" * 64, True), ("x" * 65, False), ("a.b", False), ("a b", False)],
)
def test_names_fit_every_provider_and_never_fold(name: str, kept: bool):
    tool = function(lambda: 1, name=name)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name)
    assert (tool.name == name) is kept
    assert tool.original_name == name
    assert tool.name != function(lambda: 1, name=name + "!").name


def test_what_one_reader_changes_the_next_does_not_see():
    transfer.json_schema["parameters"]["properties"].clear()
    transfer.parameters["properties"]["account"]["type"] = "x"
    assert properties(transfer)["account"]["type"] == "string"
    assert transfer.spec is transfer.spec


def test_options_and_changes():
    tool = transfer.changed(name="pay", description="Pay.", timeout=3, tags="money")
    assert (tool.name, tool.description, tool.options.timeout, tool.tags) == ("pay", "Pay.", 3, frozenset({"money"}))
    assert properties(tool) == properties(transfer)
    with pytest.raises(InvalidArguments, match="pay: invalid arguments"):
        tool.call("{}")
    assert transfer.name == "transfer"
    assert function(transfer, name="pay2").name == "pay2"
    assert function(transfer) is transfer

    @function(name="n", description="d", timeout=1.5, sequential=True, max_result_chars=10, expose_errors=False,
              strict=True, tags=("a", "b"), in_thread=False, effects={"reads"}, requires_approval=True)  # fmt: skip
    def f(): ...

    assert (f.name, f.description, f.spec.strict) == ("n", "d", True)
    assert f.options.effects == {"reads"}
    for wrong in ({"timeout": 0}, {"effects": ["flies"]}, {"max_result_chars": 0}, {"name": ""}):
        with pytest.raises(ConfigurationError):
            function(**wrong)
    with pytest.raises(ConfigurationError):
        function(3)  # pyright: ignore
    with pytest.raises(TypeError):
        function(nme="x")  # pyright: ignore


def test_unpacked_tuples_of_star_args_are_lists_or_tuples():
    @function
    def many(*args: *tuple[int, ...]) -> Any:
        """A."""
        return args

    @function
    def both(*args: Unpack[tuple[int, str]]) -> Any:  # noqa: UP044
        """A."""
        return args

    @function
    def after(first: str, *args: "*tuple[bool, ...]") -> Any:  # noqa: F722
        """A."""
        return first, args

    assert many.parameters["properties"] == {"args": {"type": "array", "items": {"type": "integer"}}}
    assert many.call({"args": [1, 2]}) == (1, 2)
    assert many.call({}) == ()
    assert both.parameters["required"] == ["args"]
    assert both.call({"args": [1, "x"]}) == (1, "x")
    with pytest.raises(InvalidArguments):
        both.call({"args": [1]})
    assert after.call({"first": "a", "args": [True]}) == ("a", (True,))


@pytest.mark.parametrize("hint", [type[int], type, type[Any] | None, list[type[str]]])
def test_a_class_with_a_default_is_hidden_and_a_required_one_is_refused(hint: Any):
    def hidden(kind=None, n: int = 1) -> str:  # type: ignore[no-untyped-def]
        return f"{kind} {n}"

    def needed(kind) -> str:  # type: ignore[no-untyped-def]
        return ""

    hidden.__annotations__["kind"] = needed.__annotations__["kind"] = hint
    assert list(function(hidden).parameters["properties"]) == ["n"]
    assert function(hidden).call({"n": 2}) == "None 2"
    with pytest.raises(FunctionDefinitionError, match=r"'kind'.*cannot be described as JSON"):
        function(needed).check()


def test_flags_are_described_as_a_sum_of_values():
    class Access(enum.IntFlag):
        READ = 1
        WRITE = 2

    @function
    def f(access: Access) -> str:
        """A."""
        return str(int(access))

    assert f.parameters["$defs"]["Access"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 3,
        "description": "Sum of: 1 (READ), 2 (WRITE)",
    }
