"""`@function`: every worked example of the schema rules, every kind of callable, precise errors, second chances."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import ipaddress
import json
import pathlib
import pickle
import re
import socket
import subprocess
import sys
import threading
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypeVar,
    Union,
)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, AnyUrl, BaseModel, ConfigDict, Field, SecretStr, field_validator
from typing_extensions import Doc, TypeAliasType, TypedDict, Unpack

from lmagent.errors import ConfigurationError, FunctionDefinitionError, InvalidArguments, ToolError
from lmagent.toolkit import schema_builder as schemas
from lmagent.toolkit.context import Inject, RunContext
from lmagent.toolkit.tool import Tool, function

if TYPE_CHECKING:
    from nowhere import Missing  # pyright: ignore


def problems(tool: Tool[..., Any], text: str) -> list[str]:
    with pytest.raises(InvalidArguments) as caught:
        tool.call(text)
    assert str(caught.value).splitlines()[0] == f"{tool.name}: invalid arguments"
    assert str(caught.value).splitlines()[1:] == "\n".join(caught.value.problems).splitlines()
    return list(caught.value.problems)


def properties(tool: Tool[..., Any]) -> dict[str, Any]:
    return tool.parameters["properties"]


# Worked examples


@function
def transfer(account: str, amount: float, memo: Optional[str] = None):  # noqa: UP045
    """Move money to an account.

    The transfer is booked on the next working day.

    Args:
        account: IBAN of the receiver.
        amount: How much, in euro.
        memo (str, optional): Shown on the statement.
    """
    return account, amount, memo


def test_example_a_docstring_and_optional():
    assert transfer.json_schema == {
        "name": "transfer",
        "description": "Move money to an account.\n\nThe transfer is booked on the next working day.",
        "parameters": {
            "type": "object",
            "properties": {
                "account": {"type": "string", "description": "IBAN of the receiver."},
                "amount": {"type": "number", "description": "How much, in euro."},
                "memo": {
                    "anyOf": [{"type": "string"}, {"type": "null"}],
                    "description": "Shown on the statement.",
                    "default": None,
                },
            },
            "required": ["account", "amount"],
            "additionalProperties": False,
        },
    }
    assert transfer.call('{"account": "DE1", "amount": "3"}') == ("DE1", 3.0, None)
    with pytest.raises(InvalidArguments) as caught:
        transfer.call('{"account": "DE1", "amount": "much", "meno": 1}')
    assert str(caught.value) == (
        "transfer: invalid arguments\n"
        'amount: Input should be a valid number, unable to parse string as a number (got "much")\n'
        "meno: Extra inputs are not permitted (got 1)"
    )


class Priority(enum.Enum):
    LOW = "low"
    HIGH = "high"


@function
def file_ticket(title: str, type: Literal["bug", "wish"] = "bug", priority: Priority = Priority.LOW):
    return title, type, priority


def test_example_b_names_like_keywords():
    assert list(properties(file_ticket)) == ["title", "type", "priority"]
    assert file_ticket.parameters["required"] == ["title"]
    assert properties(file_ticket)["priority"] == {"$ref": "#/$defs/Priority", "default": "low"}
    assert file_ticket.parameters["$defs"]["Priority"] == {"enum": ["low", "high"], "type": "string"}
    assert file_ticket.call('{"title": "x", "type": null}') == ("x", "bug", Priority.LOW)
    assert file_ticket.call('{"title": "x", "priority": "high"}') == ("x", "bug", Priority.HIGH)


class Stop(BaseModel):
    """A place on the route."""

    city: str = Field(description="City name")
    nights: int = Field(1, ge=0)


@function
def plan_trip(start: Stop, via: list[Stop] = [], *, budget: Annotated[float, Field(gt=0, description="Most to spend")]):
    """Plan a trip.

    Parameters
    ----------
    start : Stop
        Where it begins.
    budget : float
        Not this text.
    """
    return start, via, budget


def test_example_d_nested_models():
    assert properties(plan_trip)["start"] == {"$ref": "#/$defs/Stop", "description": "Where it begins."}
    assert properties(plan_trip)["budget"]["description"] == "Most to spend"
    assert plan_trip.parameters["required"] == ["start", "budget"]
    start, via, budget = plan_trip.call(
        '{"start": {"city": "Rome"}, "via": [{"city": "Bari", "nights": 2}], "budget": 1}'
    )
    assert (start, via, budget) == (Stop(city="Rome"), [Stop(city="Bari", nights=2)], 1.0)
    assert problems(plan_trip, '{"start": {"city": "Rome", "nights": -1}, "budget": 0}') == [
        "start.nights: Input should be greater than or equal to 0 (got -1)",
        "budget: Input should be greater than 0 (got 0)",
    ]
    assert plan_trip.call('{"start": "{\\"city\\": \\"Rome\\"}", "budget": 1}')[0] == Stop(city="Rome")


@function
def 订票(出发地: str, 日期: datetime.date):
    """预订火车票。

    参数：
        出发地：从哪个城市出发。
        日期：乘车日期。
    """
    return 出发地, 日期


def test_example_e_chinese():
    assert 订票.name == "tool_c8397d6c"
    assert 订票.original_name == "订票"
    assert 订票.description == "预订火车票。"
    assert properties(订票) == {
        "出发地": {"type": "string", "description": "从哪个城市出发。"},
        "日期": {"type": "string", "format": "date", "description": "乘车日期。"},
    }
    assert 订票.call('{"出发地": "北京", "日期": "2030-01-02"}') == ("北京", datetime.date(2030, 1, 2))


@function
def log_event(ctx: RunContext, level: Annotated[str, "Severity word"], /, *words: str, **labels: int):
    return ctx, level, words, labels


def test_example_f_every_kind_of_parameter():
    assert log_event.parameters == {
        "type": "object",
        "properties": {
            "level": {"type": "string", "description": "Severity word"},
            "words": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["level"],
        "additionalProperties": {"type": "integer"},
    }
    context = RunContext(deps=7)
    called = log_event.call('{"level": "warn", "words": ["disk", "full"], "node": "7"}', context=context)
    assert called == (context, "warn", ("disk", "full"), {"node": 7})
    assert problems(log_event, '{"level": "warn", "ctx": 1}') == ["ctx: Extra inputs are not permitted (got 1)"]
    assert problems(log_event, '{"level": "warn", "node": "many"}')[0].startswith("node: ")


class Paging(TypedDict, total=False):
    page: Required[int]
    size: Annotated[int, Field(le=100), "How many"]


class OldPaging(typing.TypedDict, total=False):
    page: typing.Required[int]
    size: Annotated[int, Field(le=100)]


def test_example_g_unpack():
    def list_users(team: str, **paging: Unpack[Paging]):
        return team, paging

    def list_old(team: str, **paging: typing.Unpack[OldPaging]):
        return team, paging

    for body in (list_users, list_old):
        tool = function(body)
        assert set(properties(tool)) == {"team", "page", "size"}
        assert properties(tool)["size"]["maximum"] == 100
        assert tool.parameters["required"] == ["team", "page"]
        assert tool.parameters["additionalProperties"] is False
        assert tool.call('{"team": "a", "page": 2}') == ("a", {"page": 2})
        assert len(problems(tool, '{"team": "a", "size": 101}')) == 2
    assert properties(function(list_users))["size"]["description"] == "How many"


def test_example_h_awkward_names():
    @function
    def resize(_img: str, model_config: int, json: bool = False):
        return _img, model_config, json

    assert list(properties(resize)) == ["_img", "model_config", "json"]
    assert resize.call('{"_img": "a", "model_config": 1, "json": true}') == ("a", 1, True)


AWKWARD = [
    "schema", "json", "copy", "model_config", "model_fields", "validate", "title",
    "type", "properties", "default", "required", "items", "enum", "const",
    "format", "additionalProperties", "_x", "__y", "self_", "cls_", "名字",
    "name", "description", "parameters", "values", "kwargs",
]  # fmt: skip


def test_any_identifier_is_a_parameter_name():
    namespace: dict[str, Any] = {"datetime": datetime}
    exec(f"def f({', '.join(f'{name}: datetime.date' for name in AWKWARD)}):\n    return locals()", namespace)
    tool = function(namespace["f"])
    assert list(properties(tool)) == AWKWARD
    assert tool.parameters["required"] == AWKWARD
    called = tool.call(json.dumps(dict.fromkeys(AWKWARD, "2030-01-02")))
    assert called == dict.fromkeys(AWKWARD, datetime.date(2030, 1, 2))


@dataclass
class Part:
    name: str
    parts: list[Part] = field(default_factory=list)


def test_example_i_recursion():
    @function
    def build(part: Part):
        return part

    assert build.parameters["$defs"]["Part"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    assert build.call('{"part": {"name": "a", "parts": [{"name": "b"}]}}') == Part("a", [Part("b")])


class Mailer:
    """Sends mail."""

    def __call__(self, to: str, cc: list[str] = []):
        cc.append(to)
        return cc


class SilentMailer:
    def __call__(self, to: str):
        """Send to nobody."""


def test_example_j_an_instance():
    tool = function(Mailer())
    assert tool.name == "Mailer"
    assert tool.description == "Sends mail."
    assert list(properties(tool)) == ["to", "cc"]
    assert tool.call('{"to": "a"}') == ["a"]
    assert tool.call('{"to": "b"}') == ["b"]
    assert function(SilentMailer()).description == "Send to nobody."


SENTINEL = object()


def test_example_k_defaults_that_are_not_json():
    @function
    def wait(seconds: float = inf, until: datetime.datetime = datetime.datetime(2030, 1, 1), retry: object = SENTINEL):
        return seconds, until, retry

    assert "required" not in wait.parameters
    assert properties(wait)["until"]["default"] == "2030-01-01T00:00:00"
    assert "default" not in properties(wait)["seconds"]
    assert "default" not in properties(wait)["retry"]
    assert wait.call("") == (inf, datetime.datetime(2030, 1, 1), SENTINEL)


def test_example_l_partial():
    tool = function(functools.partial(transfer.__wrapped__, "DE9"))
    assert tool.name == "transfer"
    assert tool.description.startswith("Move money")
    assert list(properties(tool)) == ["amount", "memo"]
    assert properties(tool)["amount"]["description"] == "How much, in euro."
    assert tool.call('{"amount": 1}') == ("DE9", 1.0, None)
    hidden = function(functools.partial(functools.partial(transfer.__wrapped__, memo="m"), "DE9"))
    assert list(properties(hidden)) == ["amount"]
    assert hidden.call('{"amount": 1}') == ("DE9", 1.0, "m")
    assert problems(hidden, '{"amount": 1, "memo": "x"}') == ['memo: Extra inputs are not permitted (got "x")']


def test_example_n_refused():
    @function
    def connect(sock: socket.socket): ...

    for _ in range(2):
        with pytest.raises(FunctionDefinitionError) as caught:
            connect.check()
        assert str(caught.value) == "connect: parameter 'sock': <class 'socket.socket'> cannot be described as JSON"


# Signatures


def test_decorating_imports_neither_pydantic_nor_asyncio():
    code = (
        "import sys\nfrom lmagent.toolkit.tool import function\n@function(timeout=3)\ndef f(a: int): ...\n"
        "heavy = {'pydantic', 'pydantic_core', 'asyncio', 'httpx', 'docstring_parser', 'typing_extensions'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plain_schema_needs_no_pydantic():
    code = (
        "import sys\nfrom lmagent.toolkit.tool import function\n@function\ndef f(a: int, b: str | None = None): ...\n"
        "f.json_schema\nprint(sorted({'pydantic', 'pydantic_core'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_optional_without_default_is_required_and_nullable():
    @function
    def f(a: int | None, b: int = None):  # noqa: RUF013
        return a, b

    assert f.parameters["required"] == ["a"]
    assert properties(f)["a"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert f.call('{"a": null, "b": null}') == (None, None)
    assert f.call('{"a": 1}') == (1, None)
    assert problems(f, '{"b": 1}') == ["a: Field required"]


def test_no_annotation_takes_any_value():
    @function
    def f(a, b=3):
        return a, b

    assert properties(f) == {"a": {}, "b": {"default": 3}}
    assert f.call('{"a": [1, {"x": "2"}]}') == ([1, {"x": "2"}], 3)


def test_no_parameters():
    @function
    def now():
        return "now"

    assert now.parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    for text in ("", "  \n", "{}"):
        assert now.call(text) == "now"
    assert problems(now, '{"a": 1}') == ["a: Extra inputs are not permitted (got 1)"]


def test_positional_only_defaults_before_star_args():
    @function
    def f(a: int = 1, b: list[int] = [], /, c: int = 3, *rest: int, d: int = 4):
        return a, b, c, rest, d

    assert f.call("{}") == (1, [], 3, (), 4)
    assert f.call('{"b": [5], "d": 6}') == (1, [5], 3, (), 6)
    assert f.call('{"rest": ["7", 8]}') == (1, [], 3, (7, 8), 4)
    assert f.call('{"c": 9}') == (1, [], 9, (), 4)


def test_untyped_star_star_takes_anything():
    @function
    def f(a: int, **more):
        return a, more

    assert f.parameters["additionalProperties"] is True
    assert f.call('{"a": 1, "x": [2]}') == (1, {"x": [2]})


def test_star_star_of_models_keeps_instances():
    @function
    def f(**stops: Stop):
        return stops

    assert f.parameters["additionalProperties"] == {"$ref": "#/$defs/Stop"}
    assert f.call('{"a": {"city": "Rome"}}') == {"a": Stop(city="Rome")}
    assert problems(f, '{"a": {}}') == ["a.city: Field required"]


def test_free_keywords_cannot_name_what_is_already_filled():
    class Log:
        def write(self, line: str, **labels: int) -> Any:
            return line, labels

    tool = function(Log().write)
    assert tool.call('{"line": "x", "a": 1}') == ("x", {"a": 1})
    assert problems(tool, '{"line": "x", "self": 1}') == ["self: Extra inputs are not permitted (got 1)"]
    filled = function(functools.partial(Log().write, "x"))
    assert filled.call('{"a": 1}') == ("x", {"a": 1})
    assert problems(filled, '{"line": 1}') == ["line: Extra inputs are not permitted (got 1)"]


def test_alias_is_the_property_and_python_gets_its_name():
    @function
    def f(
        from_: Annotated[str, Field(alias="from")],
        to: Annotated[str, Field(validation_alias=AliasChoices("to", "dest"))],
    ):
        """Move.

        Args:
            from_: Where it is.
        """
        return from_, to

    assert properties(f)["from"] == {"type": "string", "description": "Where it is."}
    assert f.parameters["required"] == ["from", "to"]
    assert f.call('{"from": "a", "dest": "b"}') == ("a", "b")
    assert problems(f, '{"from_": "a", "to": "b"}') == [
        "from: Field required",
        'from_: Extra inputs are not permitted (got "a")',
    ]


def test_alias_beside_free_keywords_cannot_be_smuggled():
    @function
    def f(from_: Annotated[str, Field(alias="from")], **more: str):
        return from_, more

    assert f.call('{"from": "a", "x": "b"}') == ("a", {"x": "b"})
    assert problems(f, '{"from": "a", "from_": "b"}') == ['from_: Extra inputs are not permitted (got "b")']


def test_field_objects_as_defaults():
    @function
    def f(
        a: int = Field(5, ge=0, description="How many"),
        b: list[int] = Field(default_factory=lambda: [1]),
        c: str = Field(description="needed"),
        d: Annotated[int, Field(default=7)] = Field(8),
    ):
        return a, b, c, d

    assert f.parameters["required"] == ["c"]
    assert properties(f)["a"] == {"type": "integer", "minimum": 0, "default": 5, "description": "How many"}
    one, other = f.call('{"c": "x"}'), f.call('{"c": "x"}')
    assert one == (5, [1], "x", 8)
    assert one[1] is not other[1]
    assert problems(f, '{"a": -1, "c": "x"}') == ["a: Input should be greater than or equal to 0 (got -1)"]


class Greeter:
    greeting = "Hello"

    @function
    def greet(self, who: str, mode: Mode = "plain") -> str:
        """Greet somebody."""
        return f"{self.greeting} {who} {mode}"

    @function
    @classmethod
    def kind(cls, n: int):
        """Tell the kind."""
        return cls, n

    @function
    @staticmethod
    def add(a: int, b: int):
        return a + b

    def plain(self, tags: list[str]) -> list[str]:
        """Plain method."""
        return tags

    def list(self): ...

    Mode = Literal["plain", "loud"]


class Loud(Greeter):
    greeting = "HELLO"

    def plain(self, tags):
        return tags


def test_methods_are_bound_like_methods():
    greeter, loud = Greeter(), Loud()
    assert list(properties(greeter.greet)) == ["who", "mode"]
    assert properties(greeter.greet)["mode"] == {"enum": ["plain", "loud"], "type": "string", "default": "plain"}
    assert greeter.greet.call('{"who": "you"}') == "Hello you plain"
    assert loud.greet.call('{"who": "you"}') == "HELLO you plain"
    assert greeter.greet("me") == Greeter.greet(greeter, "me") == "Hello me plain"
    assert Loud.kind.call('{"n": 1}') == loud.kind.call('{"n": 1}') == (Loud, 1)
    assert Greeter.add.call('{"a": 1, "b": 2}') == greeter.add(1, 2) == 3
    assert greeter.greet.spec is greeter.greet.spec is loud.greet.spec
    with pytest.raises(ConfigurationError, match="without its instance"):
        Greeter.greet.check()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="@classmethod no longer binds what it wraps")
def test_classmethod_over_function_binds_the_class():
    @function
    def shared(cls: Any, n: int) -> tuple[str, int]:
        return getattr(cls, "__name__", "none"), n

    class Base:
        Size = Literal[1, 2]

        @classmethod
        @function(name="make")
        def build(cls, size: Size, *, loud: bool = False) -> tuple[str, int, bool]:
            """Build one."""
            return cls.__name__, size, loud

        @classmethod
        @function
        async def later(cls, n: int) -> tuple[str, int]:
            return cls.__name__, n

        @staticmethod
        @function
        def plus(a: int) -> int:
            return a + 1

        kept = classmethod(shared)
        renamed = classmethod(shared.changed(name="again"))

    class Child(Base): ...

    tool: Any = Child.build
    assert (tool.name, tool.description, list(properties(tool))) == ("make", "Build one.", ["size", "loud"])
    assert tool.call('{"size": 1}') == Child().build.call('{"size": 1}') == ("Child", 1, False)
    assert Base.build.call('{"size": 2, "loud": true}') == ("Base", 2, True)
    assert Child.build(2) == ("Child", 2, False)
    assert Base.build.spec is Base().build.spec is tool.spec
    assert Base.build.is_same(Base().build)
    assert not Base.build.is_same(tool)
    Base.build.check()
    assert Base.later.is_async
    assert Child.later.call('{"n": 1}') == ("Child", 1)
    assert Base.plus.call('{"a": 1}') == Base().plus(1) == 2
    assert Child.kept.call('{"n": 1}') == Child.renamed.call('{"n": 1}') == ("Child", 1)
    assert Child.renamed.name == "again"
    assert shared.call('{"cls": 1, "n": 2}') == ("none", 2)


def test_a_method_without_its_instance_is_refused_before_it_runs():
    for tool in (Greeter.greet, Greeter.greet.changed(name="hello")):
        for refused in (lambda: tool.check(), lambda: tool.call('{"who": "you"}'), lambda: tool.validate("{}")):
            with pytest.raises(ConfigurationError, match=r"Greeter\.greet is a method without its instance"):
                refused()
        with pytest.raises(ConfigurationError, match="without its instance"):
            asyncio.run(tool.async_call('{"who": "you"}'))


def test_singledispatch_functions_get_their_first_argument_by_position():
    @functools.singledispatch
    def show(value: int | str, loud: bool = False) -> str:
        """Show a value."""
        return f"something {value} {loud}"

    @show.register
    def _(value: int, loud: bool = False) -> str:
        return f"number {value} {loud}"

    tool = function(show)
    assert (tool.name, tool.description, list(properties(tool))) == ("show", "Show a value.", ["value", "loud"])
    assert tool.call('{"value": 3, "loud": true}') == "number 3 True"
    assert tool.call('{"value": "x"}') == "something x False"
    assert problems(tool, "{}") == ["value: Field required"]


def test_plain_bound_methods():
    tool = function(Greeter().plain)
    assert (tool.name, tool.description, list(properties(tool))) == ("plain", "Plain method.", ["tags"])
    assert tool.call('{"tags": ["a"]}') == ["a"]
    assert function(Loud().plain).description == "Plain method."


def test_a_tool_kept_in_a_class_is_no_method():
    class Holder:
        tool = transfer

    assert Holder().tool is transfer


def test_lambdas():
    double = function(lambda n: n * 2, name="double")
    assert double.name == "double"
    assert double.call('{"n": 4}') == 8
    one, other = function(lambda a: a), function(lambda a: a)
    assert one.name != other.name
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", one.name)


def test_wrappers_are_described_by_what_they_wrap_and_called_themselves():
    calls = []

    def logged(body: Any) -> Any:
        @functools.wraps(body)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            calls.append(kwargs)
            return body(*args, **kwargs)

        return wrapper

    @function
    @logged
    def f(a: int) -> int:
        """Doc."""
        return a

    @function
    @functools.lru_cache
    def cached(a: int) -> int:
        """Cached."""
        calls.append(a)
        return a

    assert (f.name, f.description, properties(f)) == ("f", "Doc.", {"a": {"type": "integer"}})
    assert f.call('{"a": 1}') == 1
    assert calls == [{"a": 1}]
    assert (cached.name, cached.description, properties(cached)) == ("cached", "Cached.", {"a": {"type": "integer"}})
    assert [cached.call('{"a": 2}'), cached.call('{"a": 2}')] == [2, 2]
    assert calls == [{"a": 1}, 2]


@dataclass
class Order:
    """An order.

    Attributes:
        item: What.
    """

    item: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


class OrderModel(BaseModel):
    """An order.

    Attributes:
        item: What.
    """

    item: str
    count: int = Field(1, ge=1, alias="n")

    @field_validator("item")
    @classmethod
    def known(cls, value: str) -> str:
        if value == "spam":
            raise ValueError("no spam, please")
        return value


def test_dataclasses_and_models_as_tools():
    order = function(Order, name="order")
    assert order.description == "An order."
    assert order.parameters["required"] == ["item"]
    assert properties(order)["item"] == {"type": "string", "description": "What."}
    assert order.call('{"item": "tea", "tags": ["x"]}') == Order("tea", tags=["x"])
    assert order.call('{"item": "tea"}') == Order("tea")
    model = function(OrderModel)
    assert (model.name, model.description) == ("OrderModel", "An order.")
    assert model.call('{"item": "tea", "n": "2"}') == OrderModel(item="tea", n=2)
    assert properties(model)["item"]["description"] == "What."
    assert model.parameters["additionalProperties"] is False
    assert problems(model, '{"item": "spam", "n": 0, "x": 1}') == [
        'item: no spam, please (got "spam")',
        "n: Input should be greater than or equal to 1 (got 0)",
        "x: Extra inputs are not permitted (got 1)",
    ]


class Node(BaseModel):
    value: int
    next: Node | None = None


def test_a_recursive_model_as_tool_has_an_object_at_its_root():
    tool = function(Node)
    assert tool.parameters["type"] == "object"
    assert properties(tool)["next"]["anyOf"][0] == {"$ref": "#/$defs/Node"}
    assert tool.call('{"value": 1, "next": {"value": 2}}') == Node(value=1, next=Node(value=2))


# Hints


def test_names_defined_further_down_the_module_work():
    namespace: dict[str, Any] = {"__name__": "late"}
    source = (
        "from __future__ import annotations\nfrom lmagent.toolkit.tool import function\n"
        "@function\ndef f(a: Later) -> Never: return a\nLater = list[int]\n"
    )
    exec(source, namespace)
    assert namespace["f"].call('{"a": ["1"]}') == [1]


def test_local_names_are_found():
    class Local(BaseModel):
        a: int

    Alias = dict[str, Local]

    @function
    def f(x: Local, y: Alias):
        return x, y

    def outer() -> Any:
        Inner = Literal["a"]

        def g(z: Inner):
            _ = Inner
            return z

        return g

    assert f.call('{"x": {"a": 1}, "y": {"k": {"a": 2}}}') == (Local(a=1), {"k": Local(a=2)})
    assert properties(function(outer())) == {"z": {"const": "a", "type": "string"}}


def test_the_return_hint_is_never_needed():
    @function
    def f(a: int) -> Missing:
        return a

    assert f.call('{"a": 1}') == 1


def test_a_hint_that_cannot_be_resolved_names_function_parameter_and_hint():
    @function
    def f(a: int, b: Missing): ...

    with pytest.raises(FunctionDefinitionError, match="f: parameter 'b': hint 'Missing' cannot be resolved"):
        f.check()


@pytest.mark.parametrize("hint", [socket.socket, Callable[[], int], complex, list[complex], type("Plain", (), {})])
def test_types_json_cannot_describe_are_refused_when_required_and_hidden_with_a_default(hint: Any):
    def f(a: int, b: Any): ...

    def g(a: int, b: Any = SENTINEL):
        return a, b

    f.__annotations__["b"] = g.__annotations__["b"] = hint
    with pytest.raises(FunctionDefinitionError, match="f: parameter 'b': "):
        function(f).check()
    tool = function(g)
    assert list(properties(tool)) == ["a"]
    assert tool.call('{"a": 1}') == (1, SENTINEL)
    assert problems(tool, '{"a": 1, "b": 2}') == ["b: Extra inputs are not permitted (got 2)"]


def test_hidden_parameters_stay_hidden_beside_free_keywords():
    @function
    def f(a: int, hook: Callable[[], int] = int, **more: int):
        return a, hook, more

    assert f.call('{"a": 1, "x": 2}') == (1, int, {"x": 2})
    assert problems(f, '{"a": 1, "hook": 2}') == ["hook: Extra inputs are not permitted (got 2)"]


# Types

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


class Movie(typing.TypedDict):
    name: str
    year: typing.NotRequired[int]


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


# Names and copies


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


# Calls


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


def test_duplicate_keys_have_one_reading():
    assert transfer.call('{"account": "a", "amount": 1, "account": "b"}') == ("b", 1.0, None)


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


# Injection


@dataclass
class Database:
    name: str


def get_database() -> Database:
    return Database("main")


async def get_database_later(context: RunContext[Any]) -> Database:
    await asyncio.sleep(0)
    return Database(context.deps)


def test_injected_values_are_never_shown():
    @function
    def f(
        a: int,
        db: Annotated[Database, Inject(get_database)],
        ctx: RunContext[str] | None = None,
        *,
        other: Annotated[Any, Inject(lambda context: context.deps)],
    ):
        return a, db, ctx, other

    assert list(properties(f)) == ["a"]
    context = RunContext(deps="d")
    assert f.call('{"a": 1}', context=context) == (1, Database("main"), context, "d")
    assert f.call('{"a": 1}') == (1, Database("main"), None, None)
    assert problems(f, '{"a": 1, "db": {"name": "evil"}}') == [
        'db: Extra inputs are not permitted (got {"name":"evil"})'
    ]


def test_async_factories_are_awaited_in_both_colours():
    @function
    def f(db: Annotated[Database, Inject(get_database_later)]):
        return db

    assert f.is_async
    context = RunContext(deps="x")
    assert f.call("", context=context) == Database("x")
    assert asyncio.run(f.async_call("", context=context)) == Database("x")


def test_a_run_context_imported_for_type_checkers_only_is_injected():
    namespace: dict[str, Any] = {"__name__": "checked"}
    source = "from __future__ import annotations\ndef f(a: int, ctx: RunContext[str]): return a, ctx.deps\n"
    exec(source, namespace)
    tool = function(namespace["f"])
    assert list(properties(tool)) == ["a"]
    assert tool.call('{"a": 1}', context=RunContext(deps="d")) == (1, "d")


def test_two_parameters_of_one_alias_are_refused():
    @function
    def f(a: Annotated[int, Field(alias="x")], b: Annotated[int, Field(alias="x")]): ...

    with pytest.raises(FunctionDefinitionError, match="one alias"):
        f.check()


def test_a_default_of_none_lets_null_in():
    @function
    def f(
        a: int = None,  # noqa: RUF013  # pyright: ignore[reportArgumentType]
        b: Annotated[int, Field(ge=3, description="bee", alias="B")] = None,  # noqa: RUF013  # pyright: ignore
        c: Any = None,
    ):
        return a, b, c

    null = {"type": "null"}
    assert properties(f) == {
        "a": {"anyOf": [{"type": "integer"}, null], "default": None},
        "B": {"anyOf": [{"type": "integer", "minimum": 3}, null], "default": None, "description": "bee"},
        "c": {"default": None},
    }
    assert f.call('{"a": null, "B": null}') == f.call("{}") == (None, None, None)


@pytest.mark.parametrize(
    ("hint", "sent", "line"),
    [
        (int, "true", "x: Input should be a valid integer (got true)"),
        (float, "false", "x: Input should be a valid number (got false)"),
        (int | None, "true", "x: Input should be a valid integer (got true)"),
        (int | str, "true", "x: Input should be a valid integer (got true)"),
        (list[int], "[1, true]", "x.1: Input should be a valid integer (got true)"),
        (Movie, '{"name": "m", "year": true}', "x.year: Input should be a valid integer (got true)"),
    ],
)
def test_a_boolean_is_no_number(hint: Any, sent: str, line: str):
    def f(x: Any): ...

    f.__annotations__["x"] = hint
    assert problems(function(f), f'{{"x": {sent}}}') == [line]


def test_a_boolean_goes_where_one_is_wanted():
    class Loud(BaseModel):
        level: int
        on: bool

    class Quiet(BaseModel):
        level: int
        on: int

    @function
    def f(a: bool | int, b: float | bool, c: Literal[1, True], d: Loud | Quiet) -> Any:
        return [a, b, c, d]

    called = f.call('{"a": true, "b": false, "c": true, "d": {"level": "5", "on": true}}')
    assert called == [True, False, True, Loud(level=5, on=True)]
    assert [type(value) for value in called] == [bool, bool, bool, Loud]


class Hooked:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise RuntimeError("install the plugin")


@pytest.mark.parametrize(
    ("hint", "why"),
    [(Hooked, r" \(install the plugin\)"), (typing.Self, ""), (list[complex], ""), ({"type": 5}, ""), ([int], "")],
)
def test_whatever_a_hint_does_it_is_refused_or_hidden(hint: Any, why: str):
    def f(x: Any): ...
    def g(x: Any = None): ...

    f.__annotations__["x"] = g.__annotations__["x"] = hint
    with pytest.raises(FunctionDefinitionError, match=rf"f: parameter 'x': .* cannot be described as JSON{why}$"):
        function(f).check()
    assert properties(function(g)) == {}


def test_free_keywords_that_json_cannot_describe_are_hidden():
    class Shape(typing.TypedDict):
        size: int

    @function
    def f(a: int, **rest: socket.socket):
        return a

    @function
    def g(**rest: complex): ...

    @function
    def h(**rest: Shape) -> Any:
        return rest

    assert f.parameters["additionalProperties"] is g.parameters["additionalProperties"] is False
    assert f.call('{"a": 1}') == 1
    assert problems(f, '{"a": 1, "b": 2}') == ["b: Extra inputs are not permitted (got 2)"]
    assert h.call('{"x": {"size": "1"}}') == {"x": {"size": 1}}


def test_a_class_is_described_by_its_own_words():
    class Silent(BaseModel):
        a: int

    class Maker:
        def __init__(self, size: int):
            """Make one.

            Args:
                size: How large.
            """

    class Asker(BaseModel):
        def __call__(self, question: str): ...

    assert function(Silent).description == function(Asker()).description == ""
    assert function(Maker).description == "Make one."
    assert properties(function(Maker))["size"]["description"] == "How large."


def test_an_alias_is_what_it_stands_for():
    Celsius = TypeAliasType("Celsius", float)
    Row = TypeAliasType("Row", list[Celsius])
    Context = TypeAliasType("Context", RunContext[int])

    @function
    def f(a: Celsius, b: dict[str, Row | None], c: Context, d: Annotated[Row, "text"] = []) -> Any:
        return a, b, c.deps, d

    row = {"type": "array", "items": {"type": "number"}}
    assert properties(f) == {
        "a": {"type": "number"},
        "b": {"type": "object", "additionalProperties": {"anyOf": [row, {"type": "null"}]}},
        "d": {**row, "description": "text", "default": []},
    }
    assert "$defs" not in f.parameters
    assert f.call('{"a": 1, "b": {"x": [1]}}', context=RunContext(deps=5)) == (1.0, {"x": [1.0]}, 5, [])


def test_an_init_var_is_a_parameter():
    @dataclass
    class Order:
        item: str
        count: dataclasses.InitVar[int]

        def __post_init__(self, count: int):
            self.total = count

    assert properties(function(Order))["count"] == {"type": "integer"}
    assert function(Order).call('{"item": "x", "count": "3"}').total == 3


def test_items_of_an_iterable_are_checked_before_the_body_runs():
    @function
    def f(a: typing.Iterable[int], b: Annotated[typing.Iterable[int], "text"] | None = None):
        return a, b

    assert problems(f, '{"a": ["x"], "b": [1, "y"]}') == [
        'a.0: Input should be a valid integer, unable to parse string as an integer (got "x")',
        'b.1: Input should be a valid integer, unable to parse string as an integer (got "y")',
    ]
    assert f.call('{"a": [1, "2"]}') == ([1, 2], None)


def test_a_pattern_may_look_around_but_must_be_one():
    @function
    def f(a: Annotated[str, Field(pattern="^(?=x)xy$")]):
        return a

    assert f.call('{"a": "xy"}') == "xy"
    assert problems(f, '{"a": "yx"}') == ["a: String should match pattern '^(?=x)xy$' (got \"yx\")"]

    @function
    def g(a: Annotated[str, Field(pattern="(")]): ...

    with pytest.raises(FunctionDefinitionError, match="g: parameter 'a'"):
        g.check()


def test_a_tool_named_like_a_type_does_not_hide_it():
    class Tools:
        @function
        def list(self) -> Any: ...

        @function
        def count(self, items: list[int]) -> int:
            return len(items)

    assert Tools().count.call('{"items": [1, 2]}') == 2


def test_an_overriding_tool_inherits_its_documentation():
    class Base:
        def go(self, to: str):
            """Go somewhere.

            Args:
                to: Where.
            """

    class Fast(Base):
        @function
        def go(self, to: str): ...

    class Faster(Fast):
        @function
        def go(self, to: str): ...

    for tool in (Fast().go, Faster().go):
        assert tool.description == "Go somewhere."
        assert properties(tool)["to"]["description"] == "Where."


def test_a_local_typed_dict_may_name_itself():
    class Branch(typing.TypedDict):
        size: int
        parts: NotRequired[list[Branch]]

    @function
    def f(x: Branch) -> Any:
        return x

    assert f.call('{"x": {"size": 1, "parts": [{"size": "2"}]}}') == {"size": 1, "parts": [{"size": 2}]}


def test_a_closure_over_a_later_local_and_a_class_alias():
    class Tools:
        Unit = Literal["c", "f"]

        @function
        def convert(self, unit: Unit, other: dict[str, Unit]) -> Any:
            return unit, other

    assert Tools().convert.call('{"unit": "c", "other": {"x": "f"}}') == ("c", {"x": "f"})


# Colours

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_coroutines_in_both_colours_also_inside_a_running_loop():
    @function
    async def f(a: int) -> tuple[int, str]:
        await asyncio.sleep(0)
        return a + 1, variable.get()

    class Callable_:
        async def __call__(self, a: int) -> int:
            return a

    async def main() -> Any:
        return await f.async_call('{"a": 1}'), f.call('{"a": 2}')

    variable.set("set")
    before = threading.active_count()
    assert f.is_async
    assert f.call('{"a": 0}') == (1, "set")
    assert asyncio.run(main()) == ((2, "set"), (3, "set"))
    assert asyncio.run(f(4)) == (5, "set")
    assert function(Callable_()).is_async
    assert function(Callable_()).call('{"a": 3}') == 3
    assert threading.active_count() == before


def test_a_wrapper_around_a_coroutine_function_is_awaited():
    async def body(a: int) -> int:
        return a

    @functools.wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return body(*args, **kwargs)

    tool = function(wrapper)
    assert tool.call('{"a": 3}') == 3
    assert asyncio.run(tool.async_call('{"a": 3}')) == 3


def test_generators_are_handed_on():
    @function
    def f(n: int) -> Iterator[int]:
        yield from range(n)

    assert list(f.call('{"n": 3}')) == [0, 1, 2]


def test_errors_of_the_body_come_through():
    @function
    async def f():
        raise ToolError("no")

    with pytest.raises(ToolError, match="no"):
        f.call("")
    with pytest.raises(ToolError, match="no"):
        asyncio.run(f.async_call(""))


def test_whatever_a_validator_raises_is_a_problem_of_the_arguments():
    class Account(BaseModel):
        """An account."""

        number: str

        @field_validator("number")
        @classmethod
        def known(cls, value: str) -> str:
            if value == "stop":
                raise KeyboardInterrupt
            raise LookupError(f"no account {value}")

    @function
    def pay(to: Account) -> None: ...

    for tool, text in ((pay, '{"to": {"number": "%s"}}'), (function(Account), '{"number": "%s"}')):
        with pytest.raises(InvalidArguments) as caught:
            tool.call(text % "7")
        assert caught.value.problems == ("arguments: LookupError: no account 7",)
        assert str(caught.value) == f"{tool.name}: invalid arguments\narguments: LookupError: no account 7"
        assert isinstance(caught.value.__cause__, LookupError)
        with pytest.raises(KeyboardInterrupt):
            tool.call(text % "stop")


# Laziness


def test_building_happens_once_from_many_threads():
    built = []

    class Slow(BaseModel):
        a: int

        @classmethod
        def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
            built.append(1)
            return handler(core)

    @function
    def f(x: Slow, y: datetime.date):
        return x

    barrier = threading.Barrier(8)
    seen: list[Any] = []

    def work() -> None:
        barrier.wait()
        seen.append((id(f.spec), f.call('{"x": {"a": 1}, "y": "2030-01-01"}')))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len({identity for identity, _ in seen}) == 1
    assert len(built) == 1


def test_a_tool_stays_a_function_for_python():
    assert transfer.__name__ == "transfer"
    assert transfer.__doc__ is not None
    assert transfer("a", 1.0) == ("a", 1.0, None)
    assert "transfer" in repr(transfer)
    assert list(inspect.signature(transfer).parameters) == ["account", "amount", "memo"]
    assert copy.deepcopy(transfer) is copy.copy(transfer) is transfer
    assert pickle.loads(pickle.dumps(transfer)) is transfer


# Given schemas


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
