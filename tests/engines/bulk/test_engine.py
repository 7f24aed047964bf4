"""`CompletionEngine`: order, error modes, stopping, cleanup, agents, budgets and the circuit breaker."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

import pytest

from lmagent import Agent, CompletionEngine, function
from lmagent.core.budget import Budget, Price
from lmagent.engines.bulk.journal import read_journal
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    JournalError,
    LimitExceeded,
    MessageError,
    ParameterError,
    ServerFailed,
)
from lmagent.models.model import ChatModel
from lmagent.providers.base import Request
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.testing import FakeAnswer, ScriptedModel, calls


def answer_to(request: Request) -> FakeAnswer:
    """Return a reply that repeats the prompt, with token counts."""
    content = json.loads(request.content)["messages"][-1]["content"]
    return reply(f"re {content}")


def reply(text: str, tokens: int = 3) -> FakeAnswer:
    body = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": tokens, "total_tokens": 2 + tokens},
    }
    return FakeAnswer(body=json.dumps(body).encode())


def refusal(status: int) -> FakeAnswer:
    return FakeAnswer(body=json.dumps({"error": {"message": "no"}}).encode(), status=status)


class SlowTransport:
    """A transport that answers after a short delay, so that requests overlap; counts open requests."""

    def __init__(self, answer: Callable[[Request], FakeAnswer] = answer_to, seconds: float = 0.0) -> None:
        self._answer = answer
        self._seconds = seconds
        self.asked: list[str] = []
        self.open = 0
        self.most = 0

    async def async_open(self, request: Request, timeouts: Any, deadline: float) -> Any:
        self.asked.append(json.loads(request.content)["messages"][-1]["content"])
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await asyncio.sleep(self._seconds)
            return Incoming(self._answer(request))
        finally:
            self.open -= 1

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


class Incoming:
    def __init__(self, answer: FakeAnswer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._body = answer.body

    async def read(self, limit: int) -> Any:
        return self._body

    async def chunks(self) -> Any:
        yield self._body

    async def aclose(self) -> None: ...


def model(transport: Any = None, **options: Any) -> ChatModel:
    codec = OpenAICodec("m", base_url="http://localhost")
    return ChatModel(codec, transport=transport or SlowTransport(), **{"max_retries": 0, **options})


def collected(engine: CompletionEngine, prompts: Any) -> list[Any]:
    async def main() -> list[Any]:
        return [item async for item in engine.async_run(prompts)]

    return asyncio.run(main())


def test_replies_come_in_input_order_from_run_and_async_run():
    prompts = [f"p{i}" for i in range(50)]
    expected = [f"re p{i}" for i in range(50)]
    engine = CompletionEngine(model(), async_capacity=7)
    assert [item.reply for item in engine.run(prompts)] == expected
    assert [item.reply for item in collected(engine, prompts)] == expected
    assert [item.reply for item in engine.run(prompts=prompts)] == expected
    assert engine.summary.done == 50
    assert engine.summary.requests == 50
    assert engine.summary.usage.total_tokens == 250


def test_items_may_be_prompts_or_dicts_from_any_iterable():
    async def source() -> Any:
        yield "a"
        yield {"id": "b1", "prompt": [{"role": "system", "content": "s"}, "b"]}
        yield {"role": "user", "content": "c"}
        yield {"messages": [{"role": "user", "content": "d"}], "parameters": {"temperature": 0}}

    transport = SlowTransport()
    items = collected(CompletionEngine(model(transport)), source())
    assert [(item.index, item.id, item.reply) for item in items] == [
        (0, "0", "re a"),
        (1, "b1", "re b"),
        (2, "2", "re c"),
        (3, "3", "re d"),
    ]
    assert items[0].usage is not None
    assert items[0].usage.total_tokens == 5
    assert items[0].to_dict()["reply"] == "re a"


@pytest.mark.parametrize("wrong", ["one text", {"prompt": "x"}, 7])
def test_prompts_that_are_not_an_iterable_are_rejected(wrong: Any):
    with pytest.raises(ConfigurationError):
        CompletionEngine(model()).run(wrong)


def test_concurrency_never_exceeds_the_capacity():
    transport = SlowTransport(seconds=0.005)
    collected(CompletionEngine(model(transport), async_capacity=4), [str(i) for i in range(40)])
    assert transport.most == 4


def test_in_order_false_yields_fast_items_first():
    class Uneven(SlowTransport):
        async def async_open(self, request: Request, timeouts: Any, deadline: float) -> Any:
            if b'"slow"' in request.content:
                await asyncio.sleep(0.1)
            return await super().async_open(request, timeouts, deadline)

    items = collected(CompletionEngine(model(Uneven()), in_order=False), ["slow", "a", "b"])
    assert [item.reply for item in items] == ["re a", "re b", "re slow"]
    assert [item.index for item in items] == [1, 2, 0]


def flaky(bad: str, status: int = 400) -> SlowTransport:
    def answer(request: Request) -> FakeAnswer:
        said = json.loads(request.content)["messages"][-1]["content"]
        return refusal(status) if said == bad else answer_to(request)

    return SlowTransport(answer)


def test_error_modes_raise_return_and_skip():
    prompts = [str(i) for i in range(10)]
    items = collected(CompletionEngine(model(flaky("3")), error_mode="return"), prompts)
    assert [item.reply for item in items if item.error is None] == [f"re {i}" for i in range(10) if i != 3]
    assert isinstance(items[3].error, BadRequest)
    assert items[3].reply == ""
    engine = CompletionEngine(model(flaky("3")), error_mode="skip")
    assert len(collected(engine, prompts)) == 9
    assert engine.summary.failed == {"BadRequest": 1}
    engine = CompletionEngine(model(flaky("3")), error_mode="raise")
    seen: list[Any] = []
    with pytest.raises(BadRequest):
        seen.extend(item.index for item in engine.run(prompts))
    assert seen == [0, 1, 2]
    assert "BadRequest" in engine.summary.stopped


@pytest.mark.parametrize("in_order", [True, False])
def test_a_fatal_error_stops_the_run_in_every_mode(in_order: bool):
    transport = SlowTransport(lambda request: refusal(401), seconds=0.002)
    engine = CompletionEngine(model(transport), async_capacity=3, error_mode="return", in_order=in_order)
    with pytest.raises(AuthenticationFailed):
        collected(engine, (str(i) for i in range(1000)))
    assert len(transport.asked) <= 6


def test_invalid_items_fail_without_stopping_the_run():
    prompts: list[Any] = [
        "a",
        {"role": "unknown"},
        {"oops": 1},
        {"prompt": "b", "parameters": {"temperature": 9}},
        5,
        "c",
    ]
    items = collected(CompletionEngine(model(), error_mode="return"), prompts)
    kinds = [type(item.error) for item in items]
    assert kinds == [type(None), MessageError, MessageError, ParameterError, MessageError, type(None)]


def test_error_of_the_source_is_raised_after_items_in_progress():
    def source() -> Any:
        yield "a"
        yield "b"
        raise OSError("disk gone")

    seen: list[Any] = []
    with pytest.raises(OSError, match="disk gone"):
        seen.extend(item.reply for item in CompletionEngine(model()).run(source()))
    assert seen == ["re a", "re b"]


def test_blocking_source_does_not_delay_items_in_progress():
    more = threading.Event()

    def source() -> Any:
        yield "a"
        assert more.wait(10)
        yield "b"

    with closing(CompletionEngine(model()).run(source())) as items:
        assert next(items).reply == "re a"
        more.set()
        assert [item.reply for item in items] == ["re b"]


def test_closing_does_not_wait_long_for_a_blocking_source():
    more, closed = threading.Event(), threading.Event()

    def source() -> Any:
        try:
            yield "a"
            assert more.wait(10)
        finally:
            closed.set()

    threads = threading.active_count()
    items = CompletionEngine(model()).run(source())
    next(items)
    began = time.monotonic()
    items.close()
    assert time.monotonic() - began < 3
    more.set()
    assert closed.wait(5)
    while threading.active_count() > threads and time.monotonic() - began < 5:
        time.sleep(0.01)
    assert threading.active_count() == threads


def test_run_works_inside_a_running_loop():
    async def main() -> list[str]:
        return [item.reply for item in CompletionEngine(model()).run(["a", "b"])]

    assert asyncio.run(main()) == ["re a", "re b"]


def test_leaving_a_sync_run_early_leaves_no_thread():
    before = threading.active_count()
    transport = SlowTransport(seconds=0.01)
    closed = []

    def source() -> Any:
        try:
            index = 0
            while True:
                yield str(index)
                index += 1
        finally:
            closed.append(True)

    with closing(CompletionEngine(model(transport), async_capacity=8).run(source())) as items:
        assert next(items).reply == "re 0"
    assert threading.active_count() == before
    assert transport.open == 0
    assert closed == [True]


def test_leaving_or_cancelling_an_async_run_leaves_no_task(tmp_path: Any):
    transport = SlowTransport(seconds=0.01)
    path = tmp_path / "run.db"

    async def main() -> None:
        engine = CompletionEngine(model(transport), async_capacity=8, journal=path)
        threads = threading.active_count()
        async with aclosing(engine.async_run(str(i) for i in range(10_000))) as items:
            async for item in items:
                if item.index == 5:
                    break
        assert len(asyncio.all_tasks()) == 1
        assert threading.active_count() == threads

        async def all_of_it() -> None:
            async for _ in engine.async_run(str(i) for i in range(10_000)):
                pass

        for delay in (0.0, 0.001, 0.02, 0.05):
            task = asyncio.create_task(all_of_it())
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(asyncio.all_tasks()) == 1
            assert threading.active_count() == threads
            assert transport.open == 0

    asyncio.run(main())
    assert not (tmp_path / "run.db.lock").exists()


def test_stop_ends_early_and_keeps_items_in_progress():
    engine = CompletionEngine(model(SlowTransport(seconds=0.005)), async_capacity=4)
    seen = []
    for item in engine.run(str(i) for i in range(100_000)):
        seen.append(item.index)
        if item.index == 10:
            engine.stop()
    assert seen == list(range(len(seen)))
    assert 11 <= len(seen) < 200
    assert engine.summary.stopped == "asked to stop"
    assert engine.summary.requests == len(seen)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_waits_for_items_in_progress_and_stores_them(tmp_path: Any, times: int):
    transport = SlowTransport(seconds=0.5 if times == 1 else 5.0)
    engine = CompletionEngine(model(transport), async_capacity=3, journal=tmp_path / "run.db")

    def press() -> None:
        while transport.open < 3:
            time.sleep(0.001)
        for _ in range(times):
            time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threads = threading.active_count()
    presser = threading.Thread(target=press)
    presser.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(engine.run(str(index) for index in range(1000)))
    presser.join()
    assert time.monotonic() - began < 3
    assert transport.asked == ["0", "1", "2"]
    assert [row.id for row in read_journal(tmp_path / "run.db")] == (transport.asked if times == 1 else [])
    assert engine.summary.done == (3 if times == 1 else 0)
    assert (transport.open, threading.active_count()) == (0, threads)


def test_agent_items_are_whole_runs_with_tools():
    @function
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    def say(messages: Any) -> Any:
        last = messages[-1]
        return calls(("double", {"number": int(last.content)})) if last.role == "user" else f"= {last.content}"

    scripted = ScriptedModel([say] * 8)
    items = list(CompletionEngine(Agent(scripted, [double]), async_capacity=1).run(["1", "2", "3", "4"]))
    assert [item.reply for item in items] == ["= 2", "= 4", "= 6", "= 8"]
    assert [item.attempts for item in items] == [2, 2, 2, 2]
    assert [call.name for call in items[0].result.tool_calls] == ["double"]


def test_structured_output_is_restored_from_the_journal(tmp_path: Any):
    agent = Agent(
        ScriptedModel([calls(("final_answer", {"value": [1, 2]}))]), output_type=list[int], output_mode="tool"
    )
    for known in (False, True):
        (item,) = CompletionEngine(agent, journal=tmp_path / "j.db").run(["x"])
        assert item.output == [1, 2]
        assert item.from_journal is known


def test_budget_stops_the_run_and_matches_the_server():
    transport = SlowTransport()
    budget = Budget(requests=10)
    engine = CompletionEngine(model(transport), async_capacity=1, error_mode="return", budget=budget)
    with pytest.raises(LimitExceeded):
        collected(engine, [str(i) for i in range(100)])
    assert len(transport.asked) == 10
    assert engine.summary.requests == 10
    assert engine.summary.done == 10


def test_cost_is_computed_from_the_given_prices():
    engine = CompletionEngine(model(), prices={"openai/*": Price(input=1e6, output=2e6)})
    collected(engine, ["a", "b"])
    assert engine.summary.cost == 2 * (2 * 1 + 3 * 2)
    assert "cost 16.0000" in str(engine.summary)


def test_breaker_opens_after_failures_and_tries_one_item_at_a_time():
    from lmagent.asking.limits import RateLimiter
    from lmagent.engines.bulk.gate import Gate

    async def main() -> None:
        now = [0.0]
        gate = Gate(RateLimiter(clock=lambda: now[0]), 50, clock=lambda: now[0])
        for _ in range(20):
            assert await gate.enter(0)
            gate.leave(ServerFailed("down"))
        assert not gate.is_open
        waiting = asyncio.create_task(gate.enter(0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        now[0] = 5.1
        gate._wake()
        assert await waiting
        second = asyncio.create_task(gate.enter(0))
        await asyncio.sleep(0.01)
        assert not second.done(), "one probe at a time"
        gate.leave(ServerFailed("still down"))
        now[0] = 5.1 + 9.0
        gate._wake()
        await asyncio.sleep(0.01)
        assert not second.done(), "the second rest is longer"
        now[0] = 5.1 + 10.1
        gate._wake()
        assert await second
        gate.leave(None)
        assert gate.is_open

    asyncio.run(main())


def test_items_in_flight_when_the_breaker_opens_do_not_extend_its_wait():
    from lmagent.asking.limits import RateLimiter
    from lmagent.engines.bulk.gate import Gate

    async def main() -> None:
        now = [0.0]
        gate = Gate(RateLimiter(clock=lambda: now[0], burst=50), 50, clock=lambda: now[0])
        for _ in range(50):
            assert await gate.enter(0)
        for number in range(49):
            gate.leave(ServerFailed("down"))
            assert gate.is_open == (number < 19)
        now[0] = 5.1
        probe = asyncio.create_task(gate.enter(0))
        await asyncio.sleep(0.01)
        assert not probe.done(), "one still runs from before"
        gate.leave(ServerFailed("down"))
        assert await probe
        gate.leave(None)
        assert gate.is_open

    asyncio.run(main())


def test_concurrency_is_halved_after_429_and_grows_back():
    from lmagent.asking.limits import RateLimiter
    from lmagent.engines.bulk.gate import Gate
    from lmagent.errors import RateLimited

    async def main() -> None:
        now = [0.0]
        gate = Gate(RateLimiter(clock=lambda: now[0]), 40, clock=lambda: now[0])
        gate.active = 40
        gate.failed(RateLimited("slow down", retry_after=1.0), 60)
        gate.failed(RateLimited("slow down", retry_after=1.0), 60)
        assert gate.allowed == 20
        for _ in range(400):
            gate.active += 1
            gate.leave(None)
        assert gate.allowed == 40

    asyncio.run(main())


def test_memory_does_not_grow_with_the_input():
    import gc

    class Marked(str):
        alive = 0

        def __new__(cls, text: str) -> Marked:
            cls.alive += 1
            return super().__new__(cls, text)

        def __del__(self) -> None:
            Marked.alive -= 1

    most = 0
    count = 0
    transport = SlowTransport()
    transport.asked = type("Nothing", (list,), {"append": lambda self, item: None})()
    engine = CompletionEngine(model(transport), async_capacity=32)
    began = time.monotonic()
    for _ in engine.run(Marked(str(i)) for i in range(20_000)):
        count += 1
        most = max(most, Marked.alive)
    gc.collect()
    assert count == 20_000
    assert most < 600
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "wrong",
    [
        {"async_capacity": 0},
        {"async_capacity": 2.5},
        {"async_capacity": "5"},
        {"grace": -1},
        {"ahead": 2},
        {"max_tokens_per_minute": float("nan")},
        {"error_mode": "explode"},
        {"max_requests_per_minute": 0},
        {"progress_bar": "loud"},
        {"retry_failed": "some"},
        {"temperature": 9},
    ],
)
def test_wrong_options_are_rejected_at_construction(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        CompletionEngine(model(), **wrong)


def test_only_models_and_agents_are_accepted():
    with pytest.raises(ConfigurationError, match="not str"):
        CompletionEngine("openai/gpt")  # type: ignore[arg-type]


def test_limits_belong_to_the_engine_and_not_to_the_model():
    shared = model()
    engine = CompletionEngine(shared, max_requests_per_minute=6000)
    list(engine.run(["a"]))
    assert shared.exchange.limiter is None


def test_a_locked_journal_is_refused(tmp_path: Any):
    async def main() -> None:
        engine = CompletionEngine(model(), journal=tmp_path / "j.db")
        async with aclosing(engine.async_run(["a", "b"])) as first:
            await anext(first)
            with pytest.raises(JournalError, match="another run"):
                await anext(engine.async_run(["a"]))

    asyncio.run(main())
