"""Few file descriptors: calls wait for each other, and being out of them is an ordinary error that can be repeated."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lmagent.errors import RequestTimeout
from lmagent.http.pool import Slots
from tests.loopback import LoopbackServer, json_answer

resource = pytest.importorskip("resource", reason="POSIX")
ROOT = Path(__file__).resolve().parents[2]
REPLY = {"choices": [{"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}]}

CROWD = """
import asyncio, json, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
limit, url, runs, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
from lmagent import Agent, OpenAIChat
agents = [Agent(OpenAIChat("m", api_key="k", base_url=url + path, timeout=60)) for path in ("/v1", "/v2")]
def one(number):
    assert agents[number % 2].run("Hi.").reply == "Hello."
async def main():
    await asyncio.gather(*(agents[number % 2].async_run("Hi.") for number in range(runs)))
begun = time.perf_counter()
if threads:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(runs)))
else:
    asyncio.run(main())
print(json.dumps(time.perf_counter() - begun))
"""

EXHAUSTED = """
import asyncio, os, resource, sys
url = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from lmagent import OpenAIChat
from lmagent.errors import ConnectionFailed
from lmagent.asking.retry import RetryPolicy
model = OpenAIChat("m", api_key="k", base_url=url + "/v1", max_retries=RetryPolicy(max_retries=1, initial=0.01))
async def in_loop():
    assert (await model.async_chat_completion("Hi.")).reply == "Hello."
    await model.aclose()
    await asyncio.sleep(0.05)
    held = fill()
    await refused(model.async_chat_completion("Hi."))
    while held: os.close(held.pop())
    assert (await model.async_chat_completion("Hi.")).reply == "Hello."
def fill():
    held = []
    try:
        while True: held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return held
async def refused(call):
    try: await call
    except ConnectionFailed as error: check(error)
    else: raise AssertionError
def check(error):
    assert "ulimit" in str(error) and error.retryable and error.attempts == 2, error
assert model.chat_completion("Hi.").reply == "Hello."
model.close()
held = fill()
try: model.chat_completion("Hi.")
except ConnectionFailed as error: check(error)
else: raise AssertionError
while held: os.close(held.pop())
assert model.chat_completion("Hi.").reply == "Hello."
asyncio.run(in_loop())
"""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("threads", [0, 60], ids=["async", "threads"])
def test_more_runs_than_file_descriptors_all_finish(threads):
    with LoopbackServer(json_answer(REPLY)) as server:
        few = json.loads(run(CROWD, 48, server.url, 300, threads))
        assert server.connections <= 48
        many = json.loads(run(CROWD, 1024, server.url, 300, threads))
        assert few < 3 * many + 1


def test_out_of_file_descriptors_is_a_failure_that_can_be_repeated():
    with LoopbackServer(json_answer(REPLY)) as server:
        run(EXHAUSTED, server.url)


def test_slots_are_given_in_order_of_arrival_to_threads_and_tasks():
    slots = Slots(1)
    order: list[str] = []

    def thread(name: str) -> None:
        slots.take(time.monotonic() + 5)
        order.append(name)
        slots.give_back()

    async def task(name: str) -> None:
        await slots.async_take(time.monotonic() + 5)
        order.append(name)
        slots.give_back()

    async def main() -> None:
        slots.take(time.monotonic() + 5)
        others: list[threading.Thread] = []
        tasks: list[asyncio.Task[None]] = []
        for number in range(3):
            others.append(threading.Thread(target=thread, args=(f"thread {number}",)))
            others[-1].start()
            await asyncio.sleep(0.05)
            tasks.append(asyncio.create_task(task(f"task {number}")))
            await asyncio.sleep(0.02)
        slots.give_back()
        await asyncio.gather(*tasks)
        for each in others:
            each.join(5)

    asyncio.run(main())
    assert order == [f"{kind} {number}" for number in range(3) for kind in ("thread", "task")]
    assert slots.taken == 0


def test_one_who_gives_up_waiting_takes_no_slot():
    slots = Slots(1)
    slots.take(time.monotonic() + 1)

    async def main() -> None:
        with pytest.raises(RequestTimeout):
            await slots.async_take(time.monotonic() + 0.02)
        task = asyncio.create_task(slots.async_take(time.monotonic() + 5))
        await asyncio.sleep(0.01)
        task.cancel()
        slots.give_back()  # granted and cancelled in the same turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await task

    with pytest.raises(RequestTimeout):
        slots.take(time.monotonic() + 0.02)
    asyncio.run(main())
    assert slots.taken == 0
    assert slots.try_take()


def test_a_withheld_slot_returns_after_a_quiet_second(monkeypatch):
    slots = Slots(3)
    for _ in range(3):
        slots.take(time.monotonic() + 1)
    assert slots.withhold()
    assert slots.withhold()
    assert not slots.withhold()
    assert slots.taken == 1
    slots.give_back()
    assert slots.try_take()
    assert not slots.try_take()
    monkeypatch.setattr("lmagent.http.pool.monotonic", lambda: time.monotonic() + 2)
    slots.give_back()
    assert [slots.try_take() for _ in range(3)] == [True, True, False]
