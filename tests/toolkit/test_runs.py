"""What holds of tools in whole runs: native and prompted, sync and async, plain and streamed."""

from __future__ import annotations

import asyncio
import enum
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from lmagent import Agent, Inject, RunContext, function
from lmagent.core.messages import AssistantMessage, Reply, ToolCall, ToolMessage
from lmagent.errors import ConfigurationError, InvalidArguments
from lmagent.testing import ScriptedModel, calls
from lmagent.toolkit.registry import ToolRegistry
from lmagent.toolkit.tool import Tool
from tests.four_ways import AGENT_VERBS, AGENT_VERBS_AND_LOOPS, AgentVerb, run, stream_run

MODES = ("native", "prompt")
AnyTool = Tool[..., Any]


def answers(verb: AgentVerb, tools: list[Any], *rounds: Any, mode: str = "native") -> list[ToolMessage]:
    """Run the calls of each round and return the tool messages."""
    model = ScriptedModel([*(calls(*each) for each in rounds), "end"], tool_mode=mode)  # type: ignore[arg-type]
    result = verb(Agent(model, tools=tools), "go")
    assert result.reply == "end"
    return [message for message in result.messages if isinstance(message, ToolMessage)]


# Cancellation


@function
async def cancelled_task() -> str:
    """A."""
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    await task
    return "not reached"


@function
async def raises() -> str:
    """A."""
    raise asyncio.CancelledError("mine")


@function
def raises_sync() -> str:
    """A."""
    raise asyncio.CancelledError("mine")


@function
async def cancelled_generator() -> AsyncIterator[str]:
    """A."""
    yield "one"
    raise asyncio.CancelledError


@function
def cancelled_sync_generator() -> Iterator[str]:
    """A."""
    yield "one"
    raise asyncio.CancelledError


@function(timeout=5)
def cancelled_coroutine_of_a_wrapper() -> Any:
    """A."""
    return cancelled_task()


@function
async def other() -> str:
    """A."""
    return "fine"


CANCELLED = [
    cancelled_task,
    raises,
    raises_sync,
    cancelled_generator,
    cancelled_sync_generator,
    cancelled_coroutine_of_a_wrapper,
]


@pytest.mark.parametrize("verb", AGENT_VERBS_AND_LOOPS)
@pytest.mark.parametrize("tool", CANCELLED, ids=lambda tool: tool.name)
@pytest.mark.parametrize("beside", [False, True])
def test_a_cancellation_of_the_tool_itself_is_a_failed_call(verb: AgentVerb, tool: AnyTool, beside: bool):
    both = [(tool.name, {}), ("other", {})] if beside else [(tool.name, {})]
    for mode in MODES:
        first, *rest = answers(verb, [tool, other], both, mode=mode)
        assert first.is_error
        assert "CancelledError" in first.content
        assert [message.content for message in rest] == (["fine"] if beside else [])


@pytest.mark.parametrize("beside", [False, True])
def test_a_cancelled_run_ends_as_cancelled(beside: bool):
    started = threading.Event()

    @function
    async def hang() -> str:
        """A."""
        started.set()
        await asyncio.sleep(30)
        return ""

    async def main() -> None:
        both = [("hang", {}), ("other", {})] if beside else [("hang", {})]
        task = asyncio.create_task(Agent(ScriptedModel([calls(*both)]), tools=[hang, other]).async_run("x"))
        while not started.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_run_in_the_cleanup_of_a_cancelled_task_still_takes_cancellations_of_tools_as_failures():
    async def main() -> list[str]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:  # this task keeps its request to cancel
            result = await Agent(ScriptedModel([calls(("raises", {})), "end"]), tools=[raises]).async_run("x")
            return [message.role for message in result.messages]
        return []

    async def outer() -> list[str]:
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(outer()) == ["user", "assistant", "tool", "assistant"]


# One event loop for a run


def semaphore() -> tuple[list[AnyTool], list[Any], list[str]]:
    gate = asyncio.Semaphore(1)

    @function
    async def guarded(number: int) -> str:
        """A."""
        async with gate:
            await asyncio.sleep(0.001)
            return "ok"

    return [guarded], [[("guarded", {"number": n}) for n in turn] for turn in ((1, 2, 3), (4, 5))], ["ok"] * 5


def background_task() -> tuple[list[AnyTool], list[Any], list[str]]:
    kept: list[asyncio.Task[str]] = []

    @function
    async def start() -> str:
        """A."""

        async def work() -> str:
            await asyncio.sleep(0.01)
            return "ready"

        kept.append(asyncio.create_task(work()))
        return "started"

    @function
    async def wait() -> str:
        """A."""
        return await asyncio.wait_for(kept[0], 5)

    return [start, wait], [[("start", {})], [("wait", {})]], ["started", "ready"]


def wrapped() -> tuple[list[AnyTool], list[Any], list[str]]:
    loops: list[object] = []

    async def body() -> str:
        loops.append(asyncio.get_running_loop())
        return str(len({id(loop) for loop in loops}))

    @function
    def plain() -> Any:
        """A."""
        return body()

    @function(timeout=5)
    def in_a_thread() -> Any:
        """A."""
        return body()

    @function
    async def coroutine() -> str:
        """A."""
        return await body()

    rounds = [[("plain", {})], [("in_a_thread", {}), ("coroutine", {})], [("in_a_thread", {}), ("plain", {})]]
    return [plain, in_a_thread, coroutine], rounds, ["1"] * 5


@pytest.mark.parametrize("verb", AGENT_VERBS_AND_LOOPS)
@pytest.mark.parametrize("make", [semaphore, background_task, wrapped])
def test_async_tools_of_a_run_share_one_loop(
    verb: AgentVerb, make: Callable[[], tuple[list[AnyTool], list[Any], list[str]]]
):
    for mode in MODES:
        tools, rounds, wanted = make()
        assert [message.content for message in answers(verb, tools, *rounds, mode=mode)] == wanted


@pytest.mark.parametrize("verb", [run, stream_run])
def test_a_nested_agent_shares_the_loop_which_is_closed_with_the_outer_run(verb: AgentVerb):
    loops: list[asyncio.AbstractEventLoop] = []
    cleaned: list[str] = []

    @function
    async def note() -> str:
        """A."""
        loops.append(asyncio.get_running_loop())

        async def leftover() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cleaned.append("yes")

        kept.append(asyncio.create_task(leftover()))
        await asyncio.sleep(0)
        return "noted"

    kept: list[asyncio.Task[None]] = []
    inner = Agent(ScriptedModel([calls(("note", {})), "inner end"]), tools=[note], name="inner")

    @function
    def ask_inner() -> str:
        """A."""
        return inner.run("x").reply

    found = answers(verb, [note, ask_inner], [("note", {})], [("ask_inner", {})], [("note", {})])
    assert [message.content for message in found] == ["noted", "inner end", "noted"]
    assert len(set(map(id, loops))) == 1
    assert loops[0].is_closed()
    assert cleaned == ["yes"] * 3


def test_a_stream_that_is_closed_early_closes_its_loop_and_leaves_the_caller_alone():
    loops: list[asyncio.AbstractEventLoop] = []

    @function
    async def note() -> str:
        """A."""
        loops.append(asyncio.get_running_loop())
        return "noted"

    def one(agent: Agent) -> Any:
        stream = agent.stream_run("x")
        while len(loops) < 1:
            next(stream)
        return stream

    stream = one(Agent(ScriptedModel([calls(("note", {})), "end"]), tools=[note]))
    assert ToolRegistry([note]).get("note").call({}) == "noted"  # between two events: a loop of its own
    assert loops[0] is not loops[1]
    assert not loops[0].is_closed()
    stream.close()
    assert loops[0].is_closed()


# Threads


@pytest.mark.parametrize("verb", AGENT_VERBS_AND_LOOPS)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("beside", ["", "other", "blocking"])
def test_in_thread_false_keeps_the_thread_of_the_run_however_many_calls(verb: AgentVerb, count: int, beside: str):
    connection = sqlite3.connect(":memory:")

    @function(in_thread=False)
    def query(number: int) -> str:
        """A."""
        return str(connection.execute("select ?", (number,)).fetchone()[0])

    @function
    def blocking() -> str:
        """A."""
        return "fine"

    more = [(beside, {})] if beside else []
    for mode in MODES:
        found = answers(
            verb,
            [query, other, blocking],
            [*more, *(("query", {"number": number}) for number in range(count))],
            [("query", {"number": 7})],
            mode=mode,
        )
        texts = [message.content for message in found]
        assert texts == [*(["fine"] if beside else []), *map(str, range(count)), "7"]
    connection.close()


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_in_thread_false_holds_with_a_timeout_and_one_at_a_time(verb: AgentVerb):
    threads: list[int] = []

    @function(in_thread=False, timeout=5, sequential=True)
    def where() -> str:
        """A."""
        threads.append(threading.get_ident())
        return "here"

    answers(verb, [where], [("where", {})], [("where", {}), ("where", {})])
    assert set(threads) == {threading.get_ident()}


# Results and arguments


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_results_that_json_cannot_carry_are_no_errors(verb: AgentVerb):
    @function
    def span() -> Any:
        """A."""
        return range(2)

    @function
    async def ratio() -> float:
        """A."""
        return float("nan")

    @function
    def points() -> Iterator[Any]:
        """A."""
        yield complex(1, 2)
        yield float("inf")

    for mode in MODES:
        found = answers(verb, [span, ratio, points], [("span", {}), ("ratio", {}), ("points", {})], mode=mode)
        assert [message.is_error for message in found] == [False] * 3
        assert found[0].content == "range(0, 2)\n[Note: range written as text.]"
        assert found[1].content.startswith("NaN\n")
        assert found[2].content.startswith('["1+2j","Infinity"]')


DUPLICATES = [
    '{"amount":1,"amount":1000}',
    '{"amount": 1, "note": {"to": "a", "to": "b"}}',
    '{"amount":1,"note":{"list":[{"x":1},{"x":1,"x":2}]}}',
    '"{\\"amount\\":1,\\"amount\\":2}"',
    '{"amount":1,"note":"{\\"to\\":1,\\"to\\":2}"}',
    '{"amount":1,"\\u0061mount":2}',
]


@pytest.mark.parametrize("verb", AGENT_VERBS)
@pytest.mark.parametrize("text", DUPLICATES)
def test_native_arguments_with_a_key_twice_are_refused(verb: AgentVerb, text: str):
    paid: list[Any] = []

    @function
    def pay(amount: int, note: dict[str, Any] | None = None) -> str:
        """A."""
        paid.append(amount)
        return "paid"

    given = ToolRegistry(Tool.from_schema("pay_by_schema", "A.", pay.parameters, lambda **v: paid.append(v) or "paid"))
    for tool in (pay, given.get("pay_by_schema")):
        for repair in (False, True):
            call = ToolCall(id="1", name=tool.name, arguments=text)
            script = [Reply(message=AssistantMessage("", tool_calls=(call,)), finish_reason="tool_calls"), "end"]
            result = verb(Agent(ScriptedModel(script), tools=[tool], repair=repair), "go")
            message = next(m for m in result.messages if isinstance(m, ToolMessage))
            assert message.is_error
            assert paid == []
            if text.startswith("{") and "\\" not in text:
                assert "twice with different values" in message.content


@pytest.mark.parametrize(
    "text", ['{"amount":1,"note":{"a":1,"b":{"a":1}}}', '{"amount":1,"note":{"url":"http://a:1"}}']
)
def test_keys_that_stand_once_in_each_object_are_accepted(text: str):
    @function
    def pay(amount: int, note: dict[str, Any] | None = None) -> str:
        """A."""
        return "paid"

    assert pay.call(text) == "paid"


# The tool's own validator decides, native and prompted


class Inner(BaseModel):
    x: int = 3
    words: list[str] = []


class Node(BaseModel):
    name: str
    children: list[Node] = []


class City(BaseModel):
    """A."""

    city: str = Field(validation_alias=AliasChoices("city", "town"))


class Pair(enum.Enum):
    LOW = (1, 2)
    HIGH = (3, 4)


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2
    RUN = 4


class Style(enum.Flag):
    BOLD = 1
    THIN = 2


def _by_name(value: Any) -> Any:
    return 7 if value == "seven" else value


@function
def default(n: int = 1, unit: str = "c", where: tuple[int, int] = (1, 2)) -> str:
    """A."""
    return f"{n} {unit} {where}"


@function
def nested(inner: Inner, more: dict[str, Inner] | None = None) -> str:
    """A."""
    return f"{inner.x} {inner.words} {more}"


@function
def before(day: Annotated[int, BeforeValidator(_by_name)]) -> str:
    """A."""
    return str(day)


@function
def unique(words: set[str], numbers: frozenset[int] = frozenset()) -> str:
    """A."""
    return f"{sorted(words)} {sorted(numbers)}"


@function
def chosen(n: Literal[1, 2], pair: Pair = Pair.LOW, pairs: list[Pair] = [], m: Literal[3] | None = None) -> str:
    """A."""
    return f"{n} {pair.name} {[each.name for each in pairs]} {m}"


@function
def flagged(access: Access, style: Style = Style.BOLD) -> str:
    """A."""
    return f"{access.value} {style.value}"


JUDGED = [
    (default, {"unit": None}, "1 c (1, 2)"),
    (default, {"n": None, "unit": "f", "where": None}, "1 f (1, 2)"),
    (default, {"where": "[3, 4]"}, "1 c (3, 4)"),
    (nested, {"inner": {"x": None, "words": None}}, "3 [] None"),
    (nested, {"inner": {}, "more": {"a": {"x": None}}}, "3 [] {'a': Inner(x=3, words=[])}"),
    (nested, {"inner": {"words": None}, "more": None}, "3 [] None"),
    (before, {"day": "seven"}, "7"),
    (before, {"day": "8"}, "8"),
    (before, {"day": 9}, "9"),
    (function(City, name="city"), {"town": "Rom"}, '{"city":"Rom"}'),
    (function(City, name="city"), {"city": "Rom"}, '{"city":"Rom"}'),
    (unique, {"words": ["a", "b", "a"]}, "['a', 'b'] []"),
    (unique, {"words": [], "numbers": [1, 1]}, "[] [1]"),
    (chosen, {"n": "2"}, "2 LOW [] None"),
    (chosen, {"n": "1", "m": "3"}, "1 LOW [] 3"),
    (chosen, {"n": 1, "pair": [3, 4]}, "1 HIGH [] None"),
    (chosen, {"n": 1, "pairs": [[3, 4], [1, 2]]}, "1 LOW ['HIGH', 'LOW'] None"),
    (flagged, {"access": 3}, "3 1"),
    (flagged, {"access": 7, "style": 3}, "7 3"),
    (flagged, {"access": 0}, "0 1"),
]


@pytest.mark.parametrize(("tool", "given", "wanted"), JUDGED)
def test_native_and_prompted_calls_accept_the_same_arguments(tool: AnyTool, given: dict[str, Any], wanted: str):
    for mode in MODES:
        (message,) = answers(run, [tool], [(tool.name, given)], mode=mode)
        assert (message.content, message.is_error) == (wanted, False)


@pytest.mark.parametrize("verb", AGENT_VERBS)
@pytest.mark.parametrize(("tool", "given", "wanted"), [JUDGED[0], JUDGED[6], JUDGED[11]])
def test_each_verb_accepts_the_same_arguments(verb: AgentVerb, tool: AnyTool, given: dict[str, Any], wanted: str):
    for mode in MODES:
        (message,) = answers(verb, [tool], [(tool.name, given)], mode=mode)
        assert (message.content, message.is_error) == (wanted, False)


@function
def tree(node: Node, where: Inner | None = None) -> str:
    """A."""
    return node.name


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        (tree, {"node": {"name": 1}}),
        (tree, {"node": 3}),
        (tree, {"node": {"name": "a", "children": [{"nam": 3}]}}),
        (tree, {"node": {"name": "a"}, "where": {"x": "much"}}),
        (chosen, {"n": 3}),
        (chosen, {"n": 1, "pair": [5, 6]}),
        (flagged, {"access": 1, "style": 8}),
        (default, {"n": True}),
        (unique, {"words": "a"}),
    ],
)
def test_both_modes_refuse_the_same_arguments_without_an_unresolved_reference(tool: AnyTool, given: dict[str, Any]):
    for mode in MODES:
        model = ScriptedModel([calls((tool.name, given)), "end"], tool_mode=mode)  # type: ignore[arg-type]
        result = run(Agent(model, tools=[tool]), "go")
        message = next(m for m in result.messages if isinstance(m, ToolMessage))
        assert message.is_error
        assert "$ref" not in message.content
        assert next(key for key in reversed(given)) in message.content


# Injected generators


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def plain(self) -> Iterator[str]:
        self.lines.append("open")
        try:
            yield "value"
            self.lines.append("good")
        finally:
            self.lines.append("closed")

    async def asynchronous(self) -> AsyncIterator[str]:
        self.lines.append("open")
        try:
            yield "value"
            self.lines.append("good")
        finally:
            await asyncio.sleep(0)
            self.lines.append("closed")

    def with_context(self, context: RunContext[Any]) -> Iterator[str]:
        assert context.tool_call is not None
        yield from self.plain()


def injected_sync(log: Log) -> AnyTool:
    def tool(resource: Annotated[str, Inject(log.plain)]) -> str:
        """A."""
        log.lines.append("body")
        return resource

    return function(tool)


def injected_in_a_thread(log: Log) -> AnyTool:
    return injected_sync(log).changed(timeout=5)


def injected_async(log: Log) -> AnyTool:
    async def tool(resource: Annotated[str, Inject(log.asynchronous)]) -> str:
        """A."""
        await asyncio.sleep(0)
        log.lines.append("body")
        return resource

    return function(tool)


def injected_context(log: Log) -> AnyTool:
    def tool(resource: Annotated[str, Inject(log.with_context)]) -> str:
        """A."""
        log.lines.append("body")
        return resource

    return function(tool)


def injected_into_a_generator(log: Log) -> AnyTool:
    def tool(resource: Annotated[str, Inject(log.plain)]) -> Iterator[str]:
        """A."""
        yield resource
        log.lines.append("body")

    return function(tool)


def injected_into_a_wrapper(log: Log) -> AnyTool:
    async def body(resource: str) -> str:
        await asyncio.sleep(0)
        log.lines.append("body")
        return resource

    def tool(resource: Annotated[str, Inject(log.plain)]) -> Any:
        """A."""
        return body(resource)

    return function(tool)


@pytest.mark.parametrize("verb", AGENT_VERBS)
@pytest.mark.parametrize(
    "make",
    [
        injected_sync,
        injected_in_a_thread,
        injected_async,
        injected_context,
        injected_into_a_generator,
        injected_into_a_wrapper,
    ],
)
def test_a_generator_that_is_injected_is_closed_after_the_call(verb: AgentVerb, make: Callable[[Log], AnyTool]):
    log = Log()
    (message,) = answers(verb, [make(log)], [("tool", {})])
    assert message.content in ("value", '["value"]')
    assert log.lines == ["open", "body", "good", "closed"]
    log.lines.clear()
    first, second = answers(verb, [make(log)], [("tool", {}), ("tool", {})])
    assert (first.is_error, second.is_error) == (False, False)
    assert sorted(log.lines) == sorted(["open", "body", "good", "closed"] * 2)


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_a_generator_that_is_injected_sees_the_error_of_the_body(verb: AgentVerb):
    log = Log()

    def tool(resource: Annotated[str, Inject(log.plain)]) -> str:
        """A."""
        raise ValueError("no")

    async def later(resource: Annotated[str, Inject(log.asynchronous)]) -> str:
        """A."""
        raise ValueError("no")

    for each in (function(tool), function(later)):
        (message,) = answers(verb, [each], [(each.name, {})])
        assert (message.is_error, message.content) == (True, "ValueError: no")
    assert log.lines == ["open", "closed"] * 2


# Limits and names


@pytest.mark.parametrize("repair", [False, True])
def test_the_largest_argument_text_is_an_option(repair: bool):
    @function(max_argument_bytes=3 * 1024 * 1024)
    def size(text: str, more: dict[str, Any] | None = None) -> int:
        """A."""
        return len(text)

    narrow, given = size.changed(max_argument_bytes=20), size.changed(max_argument_bytes=None)
    by_schema = Tool.from_schema("s", "A.", size.parameters, lambda text: len(text), max_argument_bytes=3_000_000)
    big = '{"text":"' + "x" * 2_000_000 + '"}'
    assert size.run(size.validate(big, repair=repair)) == 2_000_000
    assert by_schema.run(by_schema.validate(big, repair=repair)) == 2_000_000
    for tool, text in ((given, big), (narrow, '{"text":"0123456789abcdef"}'), (size, big * 2)):
        with pytest.raises(InvalidArguments):
            tool.validate(text, repair=repair)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_arguments_is_at_least_one(limit: int):
    with pytest.raises(ConfigurationError, match="max_argument_bytes"):
        function(max_argument_bytes=limit)


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_native_names_are_exact(verb: AgentVerb):
    ran: list[str] = []

    @function
    def pay() -> str:
        """A."""
        ran.append("pay")
        return "paid"

    for name in (" pay", "pay ", "functions.pay", "Pay", "pay()"):
        call = ToolCall(id="1", name=name, arguments="{}")
        script = [Reply(message=AssistantMessage("", tool_calls=(call,)), finish_reason="tool_calls"), "end"]
        result = verb(Agent(ScriptedModel(script), tools=[pay]), "go")
        message = next(m for m in result.messages if isinstance(m, ToolMessage))
        assert "There is no tool" in message.content
    assert ran == []
