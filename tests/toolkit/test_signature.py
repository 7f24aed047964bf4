"""Every kind of callable and hint: what becomes a parameter."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
)

import pytest
from pydantic import AliasChoices, BaseModel, Field

from lmagent.errors import ConfigurationError, FunctionDefinitionError
from lmagent.toolkit.tool import function
from tests.toolkit.callables import (
    SENTINEL,
    Greeter,
    Loud,
    Order,
    OrderModel,
    Stop,
    problems,
    properties,
    transfer,
)

if TYPE_CHECKING:
    from nowhere import Missing  # pyright: ignore


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
