"""The registry: contents, conflicts, loading, and running in both colours."""

from __future__ import annotations

import asyncio
import contextvars
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from lmagent.core.messages import ToolCall
from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError, FunctionDefinitionError, InvalidArguments, ToolError
from lmagent.toolkit.context import RunContext, ToolOutcome, cut, render
from lmagent.toolkit.execution import PreparedCall
from lmagent.toolkit.registry import ToolRegistry
from lmagent.toolkit.tool import function


@function(tags=("math", "safe"))
def add(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


@function(tags="text")
def shout(text: str) -> str:
    """Shout."""
    return text.upper()


def call(name: str, identity: str = "c1", /, **arguments: Any) -> ToolCall:
    return ToolCall(id=identity, name=name, arguments=json.dumps(arguments))


Run = Callable[..., list[ToolOutcome]]


@pytest.fixture(params=["sync", "async", "sync inside a loop"])
def run(request: pytest.FixtureRequest) -> Run:
    def in_sync(registry: ToolRegistry, calls: list[Any], **options: Any) -> list[ToolOutcome]:
        return registry.run(calls, **options)

    def in_async(registry: ToolRegistry, calls: list[Any], **options: Any) -> list[ToolOutcome]:
        return asyncio.run(registry.async_run(calls, **options))

    def inside(registry: ToolRegistry, calls: list[Any], **options: Any) -> list[ToolOutcome]:
        async def main() -> list[ToolOutcome]:
            return registry.run(calls, **options)

        return asyncio.run(main())

    return {"sync": in_sync, "async": in_async, "sync inside a loop": inside}[request.param]


# Contents


def test_add_get_remove_and_the_rest():
    registry = ToolRegistry([add, shout])
    assert registry.names == ("add", "shout")
    assert len(registry) == 2
    assert "add" in registry
    assert add in registry
    assert "ad" not in registry
    assert list(registry) == [add, shout]
    assert registry.get("add") is registry["add"] is add
    registry.remove("add")
    assert registry.names == ("shout",)
    for missing in (registry.get, registry.remove):
        with pytest.raises(ConfigurationError, match=r"There is no tool 'shoot'\. Did you mean shout"):
            missing("shoot")
    assert ToolRegistry().names == ()
    assert ToolRegistry(add).names == ("add",)


def test_a_made_up_name_is_not_repeated_in_full():
    outcome = ToolRegistry([add]).run_one(ToolCall(id="c1", name="x" * 100_000))
    assert outcome.kind == "unknown_tool"
    assert len(outcome.content) < 200
    assert outcome.content.endswith("All tools: add")


def test_everything_callable_can_be_added():
    class Kit:
        def __init__(self, word: str) -> None:
            self.word = word

        @function
        def first(self) -> str:
            return self.word

        @function
        def second(self, n: int) -> str:
            return self.word * n

        def hidden(self) -> None: ...

    class Instance:
        def __call__(self, x: int) -> int:
            return x

    @dataclass
    class Order:
        item: str

    def plain(a: int) -> int:
        return a

    registry = ToolRegistry([plain, Kit("x"), Instance(), Order, [add, (shout,)], ToolRegistry([])])
    registry.add(Kit("z").hidden)
    assert registry.names == ("plain", "first", "second", "Instance", "Order", "add", "shout", "hidden")
    assert registry["second"].call('{"n": 2}') == "xx"
    assert registry["Order"].call('{"item": "tea"}') == Order("tea")
    with pytest.raises(ConfigurationError, match="3 is no tool"):
        registry.add(3)
    with pytest.raises(ConfigurationError, match="without its instance"):
        registry.add(Kit.first)


def test_class_and_static_methods_of_an_instance_are_found_whichever_decorator_is_outside():
    class Shop:
        @classmethod
        @function
        def name(cls, loud: bool = False) -> str:
            return cls.__name__

        @staticmethod
        @function
        def rate(of: int) -> int:
            return of * 2

    registry = ToolRegistry([Shop()])
    assert registry.names == ("name", "rate")
    assert [registry.run_one(c).content for c in (call("name"), call("rate", of=2))] == ["Shop", "4"]


def test_adding_builds_at_once_and_all_or_nothing():
    def bad(x: threading.Lock): ...

    registry = ToolRegistry()
    with pytest.raises(FunctionDefinitionError, match="bad: parameter 'x'"):
        registry.add(add, bad)
    assert registry.names == ()


def test_conflicts_are_refused_and_name_both():
    def other() -> None: ...

    registry = ToolRegistry([add])
    registry.add(add)
    with pytest.raises(ConfigurationError, match=r"Two tools are named 'add': .*test_registry\.add and .*other"):
        registry.add(function(other, name="add"))
    with pytest.raises(ConfigurationError, match="Two tools are named 'add'"):
        registry.add(__import__("functools").partial(add.__wrapped__, 1))
    with pytest.raises(ConfigurationError, match="Two tools are named"):
        _ = registry | ToolRegistry(function(other, name="add"))


def test_specs_are_one_snapshot_until_a_change():
    registry = ToolRegistry([add])
    specs = registry.specs
    assert registry.specs is specs
    assert specs[0] is add.spec
    registry.add(shout)
    assert registry.specs is not specs
    assert [spec.name for spec in registry.specs] == ["add", "shout"]
    assert len(specs) == 1


def test_the_same_callable_twice_is_one_tool():
    def add(a: int, b: int) -> int:
        return a + b

    class Counter:
        def count(self) -> int:
            return 1

    counter = Counter()
    tools = ToolRegistry([add, add, counter.count, counter.count])
    tools.add(add, counter.count)
    assert tools.names == ("add", "count")
    with pytest.raises(ConfigurationError, match="'count'"):
        tools.add(Counter().count)
    with pytest.raises(ConfigurationError, match="'add'"):
        tools.add(function(add, timeout=1))


def test_filter_prefix_rename_merge():
    registry = ToolRegistry([add, shout])
    assert registry.filter(tags="math").names == ("add",)
    assert registry.filter(tags=["text", "nope"]).names == ("shout",)
    assert registry.filter(lambda tool: tool.name.startswith("s")).names == ("shout",)
    prefixed = registry.prefixed("my_")
    assert prefixed.names == ("my_add", "my_shout")
    assert [spec.name for spec in prefixed.specs] == ["my_add", "my_shout"]
    assert prefixed["my_add"].parameters == add.parameters
    assert prefixed.run_one(call("my_add", a=1)).content == "1"
    assert prefixed.run_one(call("my_add")).content.startswith("my_add: invalid arguments")
    assert registry.rename({"add": "plus"}).names == ("plus", "shout")
    with pytest.raises(ConfigurationError):
        registry.rename({"nope": "x"})
    with pytest.raises(ConfigurationError, match="Two tools"):
        registry.rename({"add": "shout"})
    assert (registry | prefixed).names == ("add", "shout", "my_add", "my_shout")
    assert registry.names == ("add", "shout")


def test_iterating_while_changing_is_safe():
    registry = ToolRegistry([add, shout])
    for tool in registry:
        registry.remove(tool.name)
    assert registry.names == ()


# Running


def test_outcomes_come_in_call_order(run: Run):
    @function
    def wait(seconds: float, label: str) -> str:
        time.sleep(seconds)
        return label

    @function
    async def nap(seconds: float, label: str) -> str:
        await asyncio.sleep(seconds)
        return label

    registry = ToolRegistry([wait, nap])
    calls = [call("wait", "a", seconds=0.15, label="1"), call("wait", "b", seconds=0.0, label="2")]
    assert [(o.call_id, o.content) for o in run(registry, calls)] == [("a", "1"), ("b", "2")]
    calls += [call("nap", "c", seconds=0.15, label="3"), call("nap", "c", seconds=0.0, label="4")]
    started = time.perf_counter()
    outcomes = run(registry, calls)
    assert [(o.call_id, o.name, o.content) for o in outcomes] == [
        ("a", "wait", "1"),
        ("b", "wait", "2"),
        ("c", "nap", "3"),
        ("c", "nap", "4"),
    ]
    assert time.perf_counter() - started < 0.28
    assert all(0 <= o.duration < 1 and o.kind == "ok" for o in outcomes)


def test_a_models_mistakes_are_outcomes(run: Run):
    registry = ToolRegistry([add, shout])
    outcomes = run(
        registry,
        [
            call("ad", a=1),
            call("nothing_like_it"),
            call("add", b="x"),
            ToolCall(id="c", name="add", arguments='{"a": 1'),
            ToolCall(id="c", name="add", arguments='{"a": 1', problem="the call was cut off"),
            call("add", a=2, b=3),
        ],
    )
    assert [o.kind for o in outcomes] == ["unknown_tool"] * 2 + ["invalid_arguments"] * 3 + ["ok"]
    assert outcomes[0].content == "There is no tool 'ad'. Did you mean add? All tools: add, shout"
    assert outcomes[1].content == "There is no tool 'nothing_like_it'. All tools: add, shout"
    assert outcomes[2].content.splitlines() == [
        "add: invalid arguments",
        "a: Field required",
        'b: Input should be a valid integer, unable to parse string as an integer (got "x")',
    ]
    assert outcomes[4].content == "the call was cut off"
    assert (outcomes[5].content, outcomes[5].value, outcomes[5].is_error) == ("5", 5, False)
    assert all(o.is_error for o in outcomes[:5])


def test_what_a_tool_raises_is_told_in_short(run: Run):
    Secret("sk-verysecretkey123456")

    @function
    def fail(how: str) -> None:
        if how == "tool":
            raise ToolError("Try another city.\n" + "x" * 1000)
        if how == "empty":
            raise RuntimeError
        raise ValueError(f"bad key sk-verysecretkey123456 in {Path(__file__).parent}/x " + "y" * 1000)

    @function(expose_errors=False)
    async def silent() -> None:
        raise ValueError("private")

    registry = ToolRegistry([fail, silent])
    outcomes = run(registry, [call("fail", how=how) for how in ("tool", "empty", "value")] + [call("silent")])
    assert [o.kind for o in outcomes] == ["tool_error", "failed", "failed", "failed"]
    assert outcomes[0].content == "Try another city.\n" + "x" * 1000
    assert outcomes[1].content == "RuntimeError"
    text = outcomes[2].content
    assert text.startswith("ValueError: bad key ")
    assert "verysecret" not in text
    assert str(Path(__file__).parent) not in text
    assert "Traceback" not in text
    assert len(text) <= 500
    assert outcomes[3].content == "tool failed: ValueError"
    assert isinstance(outcomes[2].error, ValueError)


def test_timeouts_of_every_kind(run: Run):
    released = threading.Event()

    @function(timeout=0.05)
    def hang() -> None:
        released.wait(5)

    @function(timeout=0.05)
    async def ahang() -> None:
        await asyncio.sleep(5)

    @function
    def patient() -> None:
        released.wait(5)

    registry = ToolRegistry([hang, ahang, patient, add])
    try:
        (outcome,) = run(registry, [call("hang")])
        assert (outcome.kind, outcome.content) == ("timeout", "hang timed out after 0.05 seconds")
        (outcome,) = run(registry, [call("ahang")])
        assert outcome.kind == "timeout"
        (outcome,) = run(registry, [call("patient")], default_timeout=0.05)
        assert outcome.kind == "timeout"
        outcomes = run(registry, [call("hang"), call("add", a=1), call("ahang")])
        assert [o.kind for o in outcomes] == ["timeout", "ok", "timeout"]
        outcomes = run(registry, [call("hang"), call("hang"), call("add", a=1)], max_concurrent=1)
        assert [o.kind for o in outcomes] == ["timeout", "timeout", "ok"]
    finally:
        released.set()


def test_a_timeout_error_of_the_tool_is_its_own(run: Run):
    @function
    def f() -> None:
        raise TimeoutError("the server did")

    @function
    async def g() -> None:
        raise TimeoutError("the server did")

    for outcome in run(ToolRegistry([f, g]), [call("f"), call("g")]):
        assert (outcome.kind, outcome.content) == ("failed", "TimeoutError: the server did")


def test_concurrency_is_bounded(run: Run):
    state = {"now": 0, "most": 0}
    lock = threading.Lock()

    def enter(by: int) -> None:
        with lock:
            state["now"] += by
            state["most"] = max(state["most"], state["now"])

    @function
    def work() -> None:
        enter(1)
        time.sleep(0.01)
        enter(-1)

    @function
    async def awork() -> None:
        enter(1)
        await asyncio.sleep(0.01)
        enter(-1)

    registry = ToolRegistry([work, awork])
    run(registry, [call("work")] * 6, max_concurrent=2)
    assert state["most"] == 2
    run(registry, [call("work"), call("awork")] * 4, max_concurrent=3)
    assert state["most"] == 3
    with pytest.raises(ConfigurationError):
        run(registry, [call("work")], max_concurrent=0)


def test_sequential_tools_never_overlap_with_anything(run: Run):
    log: list[str] = []

    @function
    def side(name: str) -> None:
        log.append(f"+{name}")
        time.sleep(0.02)
        log.append(f"-{name}")

    alone = side.changed(name="alone", sequential=True)
    calls = [call("side", name="a"), call("side", name="b"), call("alone", name="c"), call("alone", name="d")]
    run(ToolRegistry([side, alone]), [*calls, call("side", name="e")])
    assert {log[0], log[1]} == {"+a", "+b"}
    assert log[4:] == ["+c", "-c", "+d", "-d", "+e", "-e"]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_context_variables_reach_every_tool(run: Run):
    @function
    def look() -> str:
        return variable.get()

    @function
    async def alook() -> str:
        return variable.get()

    variable.set("seen")
    registry = ToolRegistry([look, alook])
    assert [o.content for o in run(registry, [call("look")])] == ["seen"]
    assert [o.content for o in run(registry, [call("look"), call("look")])] == ["seen"] * 2
    assert [o.content for o in run(registry, [call("look"), call("alook")])] == ["seen"] * 2


def test_the_run_context_holds_the_tools_own_call(run: Run):
    @function
    def who(ctx: RunContext[str]) -> str:
        assert ctx.tool_call is not None
        ctx.state[ctx.tool_call.id] = 1
        return f"{ctx.deps} {ctx.tool_call.id}"

    context = RunContext(deps="d")
    outcomes = run(ToolRegistry(who), [call("who", "x"), call("who", "y")], context=context)
    assert [o.content for o in outcomes] == ["d x", "d y"]
    assert set(context.state) == {"x", "y"}
    assert context.tool_call is None
    assert [o.content for o in run(ToolRegistry(who), [call("who", "z")])] == ["None z"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_are_never_swallowed(kind: type[BaseException]):
    @function
    def stop() -> None:
        raise kind

    @function
    async def astop() -> None:
        raise kind

    registry = ToolRegistry([stop, astop, add])
    for calls in ([call("stop")], [call("stop"), call("add", a=1)], [call("astop")], [call("astop"), call("add", a=1)]):
        with pytest.raises(kind):
            registry.run(calls)


def test_cancelling_an_async_run_cancels_its_tools():
    log: list[str] = []

    @function
    async def nap() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            log.append("cleaned")

    released = threading.Event()

    @function
    def hang() -> None:
        released.wait(5)

    async def main(calls: list[ToolCall]) -> None:
        task = asyncio.create_task(ToolRegistry([nap, hang]).async_run(calls))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    try:
        asyncio.run(main([call("nap")]))
        asyncio.run(main([call("nap"), call("hang"), call("nap")]))
    finally:
        released.set()
    assert log == ["cleaned"] * 3


def test_where_a_body_runs():
    @function
    def where() -> str:
        return threading.current_thread().name

    here = threading.current_thread().name
    registry = ToolRegistry([where, where.changed(name="quick", in_thread=False), add])
    assert registry.run_one(call("where")).content == here
    assert registry.run([call("where")])[0].content == here
    assert registry.run_one(call("where"), default_timeout=5).content == "lmagent-tool"
    assert registry.run([call("where"), call("add", a=1)])[0].content == "lmagent-tool"

    async def main() -> None:
        assert (await registry.async_run_one(call("where"))).content == "lmagent-tool"
        assert (await registry.async_run_one(call("quick"))).content == here
        outcomes = await registry.async_run([call("quick"), call("where")])
        assert [o.content for o in outcomes] == [here, "lmagent-tool"]

    asyncio.run(main())


def test_no_thread_is_left(run: Run):
    before = threading.active_count()
    registry = ToolRegistry([add, function(_later, name="later")])
    run(registry, [call("add", a=1), call("later"), call("add", a=2)])
    deadline = time.perf_counter() + 1
    while threading.active_count() > before and time.perf_counter() < deadline:
        time.sleep(0.001)
    assert threading.active_count() <= before


async def _later() -> str:
    await asyncio.sleep(0)
    return "later"


def test_a_hanging_thread_does_not_keep_the_program_alive():
    code = (
        "import time, asyncio\nfrom lmagent import ToolRegistry, function\n"
        "from lmagent.core.messages import ToolCall\n@function(timeout=0.05)\ndef hang(): time.sleep(60)\n"
        "r = ToolRegistry(hang); c = ToolCall(id='1', name='hang')\n"
        "print(r.run_one(c).kind, asyncio.run(r.async_run_one(c)).kind)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == ["timeout", "timeout"]


def test_generators_are_collected(run: Run):
    @function
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    @function
    async def acount(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @function
    def indirect(n: int) -> Any:
        return acount(n)

    @function
    def broken() -> Iterator[int]:
        yield 1
        raise ToolError("half way")

    registry = ToolRegistry([count, acount, indirect, broken])
    for name in ("count", "acount", "indirect"):
        assert [o.content for o in run(registry, [call(name, n=3)])] == ["[0,1,2]"]
    assert [o.content for o in run(registry, [call("broken")])] == ["half way"]


def test_generators_without_an_end_are_stopped_and_closed(run: Run, monkeypatch: pytest.MonkeyPatch):
    closed = threading.Event()

    def forever(item: Any) -> Iterator[Any]:
        try:
            while True:
                time.sleep(0.001)
                yield item
        finally:
            closed.set()

    @function(timeout=0.05)
    def slow() -> Any:
        return forever(1)

    @function
    def plain() -> Any:
        return forever(1)

    @function
    def text() -> Any:
        return forever("x" * 100)

    @function(timeout=0.05)
    async def busy() -> AsyncIterator[int]:  # never waits, so that no cancellation reaches it
        try:
            while True:
                time.sleep(0.001)
                yield 1
        finally:
            closed.set()

    registry = ToolRegistry([slow, plain, text, busy])

    def outcome_of(name: str, **options: Any) -> ToolOutcome:
        closed.clear()
        (outcome,) = run(registry, [call(name)], **options)
        assert closed.wait(2), name
        return outcome

    assert [(o.kind, o.content) for o in [outcome_of("slow")]] == [("timeout", "slow timed out after 0.05 seconds")]
    assert outcome_of("plain", default_timeout=0.05).kind == "timeout"
    assert outcome_of("busy").kind == "timeout"
    monkeypatch.setattr("lmagent.toolkit.execution.MAX_ITEMS", 20)
    outcome = outcome_of("plain")
    assert (outcome.kind, outcome.value) == ("tool_error", None)
    assert outcome.content.startswith("the tool was stopped: it yielded more than 20 items")
    monkeypatch.setattr("lmagent.toolkit.execution.MAX_ITEM_CHARS", 1000)
    assert "1000 characters" in outcome_of("text").content


def test_a_generator_nobody_waits_for_is_closed():
    closed, begun = threading.Event(), threading.Event()

    @function
    def endless() -> Iterator[int]:
        try:
            while True:
                begun.set()
                time.sleep(0.001)
                yield 1
        finally:
            closed.set()

    async def main() -> None:
        task = asyncio.create_task(ToolRegistry([endless]).async_run([call("endless")]))
        await asyncio.to_thread(begun.wait, 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(closed.wait, 2)

    asyncio.run(main())


def test_a_late_result_is_a_timeout(run: Run):
    @function(timeout=0.05)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "late"
        return "never"

    @function(timeout=0.05)
    async def clumsy() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise ValueError("on the way out") from None
        return "never"

    @function(timeout=0.02)
    async def blocking() -> str:
        time.sleep(0.04)  # what it is about
        return "late"

    registry = ToolRegistry([stubborn, clumsy, blocking])
    for name in registry.names:
        (outcome,) = run(registry, [call(name)])
        assert (outcome.kind, outcome.value) == ("timeout", None)


def test_preparing_and_running_are_apart_and_outcomes_are_handed_on(run: Run):
    registry = ToolRegistry([add])
    prepared = registry.prepare(call("add", a="2"))
    assert isinstance(prepared, PreparedCall)
    assert prepared.arguments.values == {"a": 2}
    denied = ToolOutcome("c9", "add", "denied: not now", True, kind="denied")
    assert [o.content for o in run(registry, [denied, prepared, call("add", a=1)])] == ["denied: not now", "2", "1"]
    assert registry.run_one(prepared).content == "2"


def test_repairs_are_recorded(run: Run):
    bad = ToolCall(id="1", name="add", arguments="{'a': 1}")
    (outcome,) = run(ToolRegistry(add), [bad], repair=True)
    assert (outcome.content, outcome.repairs) == ("1", ("single quotes",))
    (outcome,) = run(ToolRegistry(add), [bad])
    assert outcome.kind == "invalid_arguments"


def test_nothing_to_run(run: Run):
    assert run(ToolRegistry(), []) == []
    (outcome,) = run(ToolRegistry(), [call("x")])
    assert outcome.content == "There is no tool 'x'; no tools are available"


def test_many_calls_at_once():
    registry = ToolRegistry(add)
    calls = [call("add", str(i), a=i) for i in range(64)]
    assert [o.value for o in registry.run(calls)] == list(range(64))
    assert [o.value for o in asyncio.run(registry.async_run(calls))] == list(range(64))


def test_an_invalid_arguments_error_of_a_body_is_passed_on(run: Run):
    @function
    def f() -> None:
        raise InvalidArguments("f: start must be before end")

    (outcome,) = run(ToolRegistry(f), [call("f")])
    assert (outcome.kind, outcome.content) == ("invalid_arguments", "f: start must be before end")


# Results


class Weather(BaseModel):
    city: str
    sun: float


@dataclass
class Spot:
    name: str


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("晴 {", "晴 {"),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        ({"城": ["北京", 1.5, None]}, '{"城":["北京",1.5,null]}'),
        ([Weather(city="Rom", sun=1)], '[{"city":"Rom","sun":1.0}]'),
        ({"a": Spot("x")}, '{"a":{"name":"x"}}'),
        (Path("a/b"), '"a/b"'),
        ({"t": "NaN Infinity"}, '{"t":"NaN Infinity"}'),
        ("half \ud83d", "half \ufffd"),
        ({"a": ["\udc00"]}, '{"a":["\ufffd"]}'),
        (Spot("\ud800"), '{"name":"\ufffd"}'),
    ],
)
def test_results_are_text_or_strict_json(value: Any, text: str):
    assert render(value) == text


class Money:
    def __str__(self) -> str:
        return "3 EUR"


class Described:
    def __repr__(self) -> str:
        return "Described(3)"


@pytest.mark.parametrize(
    ("value", "text", "note"),
    [
        (float("nan"), "NaN", "NaN or Infinity"),
        ({"a": float("-inf"), "b": 1.5}, '{"a":"-Infinity","b":1.5}', "NaN or Infinity"),
        (range(3), "range(0, 3)", "range"),
        ([PurePosixPath("a/b")], '["a/b"]', "pathlib.PurePosixPath"),
        (Money(), "3 EUR", f"{__name__}.Money"),
        ({"m": [Money(), Described()]}, '{"m":["3 EUR","Described(3)"]}', f"{__name__}.Money, {__name__}.Described"),
        ({Money(): 1, 2: Money()}, '{"3 EUR":1,"2":"3 EUR"}', f"{__name__}.Money"),
        (ValueError("half"), "half", "ValueError"),
        (b"\xff", "b'\\xff'", "bytes"),
        (Spot(Money()), '{"name":"3 EUR"}', f"{__name__}.Money"),  # type: ignore[arg-type]
    ],
)
def test_what_json_cannot_carry_reaches_the_model_as_text_with_a_note(value: Any, text: str, note: str):
    assert render(value) == f"{text}\n[Note: {note} written as text.]"


def test_numpy_values_reach_the_model():
    numpy = pytest.importorskip("numpy")
    note = "\n[Note: numpy.{} written as text.]"
    assert render(numpy.int64(3)) == "3" + note.format("int64")
    assert render({"mean": numpy.float32(0.5)}) == '{"mean":0.5}' + note.format("float32")
    assert render(numpy.array([[1, 2], [3, 4]])) == "[[1,2],[3,4]]" + note.format("ndarray")
    assert render([numpy.bool_(True), numpy.float64("nan")]).startswith('[true,"NaN"]')


@pytest.mark.parametrize("value", [object(), [print], {"a": object}, lambda: None])
def test_a_result_that_json_cannot_carry_is_an_error(value: Any, run: Run):
    @function
    def f() -> Any:
        return value

    (outcome,) = run(ToolRegistry(f), [call("f")])
    assert (outcome.kind, outcome.is_error) == ("unserialisable", True)
    assert outcome.content.startswith("the result of f cannot be written as JSON")


def test_a_circular_result_is_an_error(run: Run):
    loop: list[Any] = []
    loop.append(loop)

    @function
    def f() -> Any:
        return loop

    (outcome,) = run(ToolRegistry(f), [call("f")])
    assert outcome.kind == "unserialisable"


def test_long_results_are_cut_in_the_middle(run: Run):
    @function
    def big() -> str:
        return "a" * 5_000_000 + "z" * 5_000_000

    @function(max_result_chars=100)
    def small() -> list[int]:
        return list(range(1000))

    first, second = run(ToolRegistry([big, small]), [call("big"), call("small")])
    assert len(first.content) <= 65536
    assert "of 10000000 characters left out" in first.content
    assert (first.content[0], first.content[-1], first.is_error) == ("a", "z", False)
    assert len(second.content) <= 100
    assert second.content.startswith("[0,1,")
    assert second.content.endswith("999]")
    assert cut("x" * 50, 10) == "x" * 10


# Loading


def test_loading_files_and_folders(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom lmagent import function\n"
        "@function\ndef hello(who: Person) -> str:\n    return who.name\n"
        "@dataclass\nclass Person:\n    name: str\n@function\ndef _hidden(): ...\n",
        encoding="utf-8",
    )
    (tmp_path / "more.py").write_text(
        "from lmagent.toolkit.tool import function\n__all__ = ['two']\n"
        "@function\ndef one(): ...\n@function\ndef two(): ...\n",
        encoding="utf-8",
    )
    (tmp_path / "_skipped.py").write_text("raise RuntimeError", encoding="utf-8")
    (tmp_path / "plain.py").write_text("x = 1\n", encoding="utf-8")
    registry = ToolRegistry()
    registry.load(str(tmp_path / "mine.py"))
    assert registry.names == ("hello",)
    assert registry.run_one(call("hello", who={"name": "Ada"})).content == "Ada"
    registry.load(tmp_path)
    assert registry.names == ("hello", "two")
    registry.load(add, sys.modules[__name__])
    assert {"add", "shout"} <= set(registry.names)
    module = ModuleType("made")
    module.shout = shout  # pyright: ignore
    other = ToolRegistry()
    other.load(module, [add])
    assert other.names == ("shout", "add")


def test_a_ready_made_tool_is_loaded_by_name_and_by_path_as_the_same_object():
    by_name, by_path = ToolRegistry(), ToolRegistry()
    by_name.load("calculator")
    by_path.load(Path(sys.modules["lmagent.tools"].__path__[0]) / "calculator.py")
    assert by_name.names == ("calculator",)
    assert by_name["calculator"] is by_path["calculator"]
    assert by_name["calculator"].__module__ == "lmagent.tools.calculator"
    with pytest.raises(ConfigurationError, match=r"No tools in 'shell'.*Build one first: "):
        by_name.load("shell")


def test_what_cannot_be_loaded_is_a_clear_error(tmp_path: Path):
    (tmp_path / "broken.py").write_text("import does_not_exist_anywhere\n", encoding="utf-8")
    (tmp_path / "syntax.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "plain.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "data.txt").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    registry = ToolRegistry()
    for source, message in [
        (tmp_path / "nowhere.py", "no such file or folder"),
        (str(tmp_path / "nowhere.py"), "No tools found at"),
        ("no_such_tool", "no ready-made tool"),
        ("json.nothing_here", "cannot be loaded"),
        (tmp_path / "broken.py", "ModuleNotFoundError: No module named 'does_not_exist_anywhere'"),
        (tmp_path / "syntax.py", "SyntaxError"),
        (tmp_path / "plain.py", "has no @function"),
        (tmp_path / "data.txt", "no Python file"),
        (tmp_path / "empty", "No tools in the folder"),
        ("json.decoder", "No tools in 'json.decoder'"),
    ]:
        with pytest.raises(ConfigurationError, match=message.replace(".", r"\.")):
            registry.load(source)
    assert registry.names == ()
    assert not [name for name in sys.modules if name.startswith("lmagent_loaded_broken")]


def test_ready_made_tools_of_a_bare_checkout_and_their_path_give_the_same_objects(tmp_path: Path):
    """A copy of the package with a `tools/` folder beside it, as in a checkout without installation."""
    package = Path(sys.modules["lmagent"].__path__[0])
    (tmp_path / "lmagent").symlink_to(package)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "adder.py").write_text(
        "from lmagent.toolkit.tool import function\n@function\ndef adder(a: int, b: int): return a + b\n",
        encoding="utf-8",
    )
    code = (
        "import sys, pathlib\nroot = pathlib.Path(sys.argv[1])\nsys.path.insert(0, str(root))\n"
        "import lmagent.toolkit.sources as sources\nsources.__file__ = str(root / 'lmagent' / 'toolkit' / 'x.py')\n"
        "sources.Path.resolve = lambda self, strict=False: self.absolute()\n"
        "from lmagent.toolkit.registry import ToolRegistry\nr = ToolRegistry()\nr.load('adder')\n"
        "r.load(root / 'tools' / 'adder.py')\n"
        "import lmagent.tools.adder\nassert r['adder'] is lmagent.tools.adder.adder\n"
        "assert r['adder'].__module__ == 'lmagent.tools.adder'\n"
        "print(r.names, sources.ready_made_names())"
    )
    # -I -S: an installed lmagent.tools must not be found.
    done = subprocess.run(
        [sys.executable, "-c", _only(code), str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.strip() == "('adder',) ('adder',)", done.stderr


def _only(code: str) -> str:
    block = (
        "import sys\nclass Block:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'lmagent.tools':\n            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    return block + code
