"""Performance, counted instead of timed: modules, connections, encoder calls, bytes, validators that are built."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pydantic import TypeAdapter

import lmagent
from lmagent import Agent, OpenAIChat, UserMessage, function
from lmagent.core.history import History
from lmagent.core.json_text import dumps
from tests.openai_server import openai_server

ROOT = Path(__file__).resolve().parent.parent
CALL = [("get_weather", {"city": "Shanghai"})]


def _tool() -> Any:
    def get_weather(city: str) -> str:
        """Get the weather of a city."""
        return f"{city}: sunny"

    return function(get_weather)


def _tools(count: int) -> list[Any]:
    return [_tool(), *(function(lambda a: a, name=f"other_{n}", description="Do.") for n in range(count - 1))]


def _modules(code: str) -> set[str]:
    code += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_agent_imports_fewer_than_160_modules_and_no_slow_ones():
    loaded = _modules("from lmagent import Agent, OpenAIChat, function") - _modules("")
    heavy = {
        "httpx2",
        "httpcore2",
        "httpx",
        "h11",
        "pydantic",
        "pydantic_core",
        "asyncio",
        "ssl",
        "tenacity",
        "docstring_parser",
        "socket",
    }
    assert loaded & heavy == set()
    assert len(loaded) < 160


def test_sync_run_with_a_tool_imports_neither_httpx_nor_asyncio():
    with openai_server(CALL, "Sunny.") as server:
        code = (
            "from lmagent import Agent, OpenAIChat, function\n"
            "@function\ndef get_weather(city: str) -> str: return 'sunny'\n"
            f"agent = Agent(OpenAIChat('m', api_key='k', base_url={server.url + '/v1'!r}), tools=[get_weather])\n"
            "assert agent.run('?').reply == 'Sunny.'"
        )
        loaded = _modules(code)
    assert loaded & {"httpx2", "httpx", "asyncio", "tenacity", "docstring_parser"} == set()


def test_all_runs_share_one_connection():
    with openai_server("Hello.") as server:
        model = OpenAIChat("m", api_key="k", base_url=server.url + "/v1")
        for _ in range(5):
            Agent(model).run("Hi.")
            Agent(model, tools=_tools(3)).run("Hi.")
            list(Agent(model).stream_run("Hi."))
        assert server.connections == 1

        async def many() -> None:
            for _ in range(5):
                await Agent(model).async_run("Hi.")

        asyncio.run(many())
        assert server.connections == 2
        model.close()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list of texts that the JSON encoder writes."""
    written: list[bytes] = []

    def counting(value: Any) -> bytes:
        written.append(dumps(value))
        return written[-1]

    for module in ("lmagent.providers.fields", "lmagent.providers.openai.request"):
        monkeypatch.setattr(f"{module}.dumps", counting)
    return written


def test_round_encodes_only_new_messages(encoded: list[bytes]):
    with openai_server("Fine.") as server:
        agent = Agent(OpenAIChat("m", api_key="k", base_url=server.url + "/v1"), tools=_tools(50))
        history = History()
        costs: list[tuple[int, int]] = []
        for number in range(6):
            encoded.clear()
            agent.run(f"Question {number}.", history=history)
            costs.append((len(encoded), sum(map(len, encoded))))
        agent.model.close()
    assert costs[0][0] == 52  # 50 tools, the question, the rest of the body
    assert set(costs[1:]) == {
        (3, costs[1][1])
    }  # the last reply, the question, the rest of the body; always the same number of bytes
    assert costs[1][1] < 200


def test_message_is_encoded_once_for_all_agents(encoded: list[bytes]):
    old = [UserMessage(f"Old {number}.") for number in range(100)]
    with openai_server("Fine.") as server:
        for _ in range(2):
            encoded.clear()
            model = OpenAIChat("m", api_key="k", base_url=server.url + "/v1")
            Agent(model).run("New.", history=old)
            model.close()
        assert len(encoded) == 2
        assert len(server.requests[1].json["messages"]) == 101


def test_schemas_and_validators_are_built_once(monkeypatch: pytest.MonkeyPatch):
    built: list[Any] = []
    original = TypeAdapter.__init__

    def counting(self: Any, *args: Any, **named: Any) -> None:
        built.append(args)
        original(self, *args, **named)

    monkeypatch.setattr(TypeAdapter, "__init__", counting)
    tool = _tool()
    with openai_server(CALL, "Sunny.", CALL, "Sunny.", CALL, "Sunny.") as server:
        model = OpenAIChat("m", api_key="k", base_url=server.url + "/v1")
        for _ in range(3):
            assert Agent(model, tools=[tool]).run("?").reply == "Sunny."
        model.close()
    assert len(built) == 1
    assert len({json.dumps(request.json["tools"]) for request in server.requests}) == 1


def test_memory_and_objects_do_not_grow_with_runs():
    with openai_server(*[CALL, "Sunny."] * 1000) as server:
        agent = Agent(OpenAIChat("m", api_key="k", base_url=server.url + "/v1"), tools=[_tool()])

        async def some() -> None:
            for _ in range(10):
                await agent.async_run("?")

        def objects_after(rounds: int) -> int:
            for _ in range(rounds):
                for _ in range(10):
                    assert agent.run("?").reply == "Sunny."
                    *_, _last = agent.stream_run("?")
                asyncio.run(some())
            server.requests.clear()  # the server is in this process
            gc.collect()
            return len(gc.get_objects())

        before = objects_after(2)
        assert objects_after(8) - before < 240  # fewer than one per run
        agent.model.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_deleted_agent_closes_its_connections_at_once(kind: str):
    def one(url: str) -> Agent:
        return Agent(OpenAIChat("m", api_key="k", base_url=url + "/v1"), tools=[_tool()])

    async def main() -> None:
        assert (await one(server.url).async_run("?")).reply == "Hello."
        assert await asyncio.to_thread(server.wait_closed)

    with openai_server("Hello.") as server:
        gc.disable()  # connections must close without a collection
        try:
            if kind == "async":
                asyncio.run(main())
            else:
                assert one(server.url).run("?").reply == "Hello."
                assert server.wait_closed()
        finally:
            gc.enable()


ENTERED_AT_MOST = 32
"""Files that one tool run enters; the goal is 25. It may rise only with a stated reason."""


def test_one_tool_run_enters_no_more_files_than_the_limit():
    """Count the files whose functions are called in the second run of an agent; the first one loads modules."""
    home = str(Path(lmagent.__file__).parent)
    entered: dict[str, int] = {}

    def count(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(home):
            name = Path(file).relative_to(home).as_posix()
            entered[name] = entered.get(name, 0) + 1

    with openai_server(CALL, "Sunny.", CALL, "Sunny.") as server:
        model = OpenAIChat("m", api_key="k", base_url=server.url + "/v1")
        agent = Agent(model, tools=[_tool()])
        assert agent.run("?").reply == "Sunny."
        sys.setprofile(count)
        try:
            result = agent.run("?")
        finally:
            sys.setprofile(None)
        model.close()
    assert (result.reply, len(result.tool_calls)) == ("Sunny.", 1)
    shown = "\n".join(f"{calls:4} calls  {name}" for name, calls in sorted(entered.items()))
    assert len(entered) <= ENTERED_AT_MOST, f"{len(entered)} files:\n{shown}"
