"""Injection, inheritance, laziness: what a tool does as a Python object."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import datetime
import functools
import inspect
import pickle
import socket
import threading
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
)

import pytest
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypeAliasType

from lmagent.errors import FunctionDefinitionError, InvalidArguments, ToolError
from lmagent.toolkit.context import Inject, RunContext
from lmagent.toolkit.tool import function
from tests.toolkit.callables import (
    Loud,
    Movie,
    problems,
    properties,
    transfer,
)


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
