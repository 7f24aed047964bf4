"""The kit that is shipped for users' own tests: scripted model, fake transport, guard."""

from __future__ import annotations

import asyncio
import http.client
import socket
from typing import Any

import pytest

import lmagent.testing
from lmagent import Agent, OpenAIChat, function
from lmagent.core.messages import Usage
from lmagent.errors import RateLimited, ResponseTooLarge
from lmagent.http.base import Timeouts
from lmagent.providers.base import Request
from lmagent.testing import (
    FakeAnswer,
    FakeTransport,
    RealRequest,
    ScriptedModel,
    ScriptError,
    block_requests,
    calls,
    text,
)
from tests.four_ways import MODEL_VERBS
from tests.openai_server import openai_server

every_model_verb = pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)


@function
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@every_model_verb
def test_asking_more_often_than_the_script_fails(verb: Any):
    with pytest.raises(ScriptError, match="The script has 0 lines, and this is request 1"):
        verb(ScriptedModel([]), "?")
    assert issubclass(ScriptError, AssertionError)


def test_script_lines_left_over_fail_the_check():
    model = ScriptedModel(["a", "b"])
    model.chat_completion("?")
    with pytest.raises(ScriptError, match="1 of 2 lines of the script were not used"):
        model.check()
    with pytest.raises(ScriptError), ScriptedModel(["a"]):
        pass
    with pytest.raises(ZeroDivisionError), ScriptedModel(["a"]):
        raise ZeroDivisionError


@every_model_verb
def test_a_script_line_may_be_a_message_and_an_unknown_type_is_refused(verb: Any):
    called = calls(("add", {"a": 1, "b": 2})).message
    reply = verb(ScriptedModel([called]), "?")
    assert (reply.finish_reason, reply.message.tool_calls[0].arguments) == ("tool_calls", '{"a":1,"b":2}')
    with pytest.raises(TypeError, match="Line 1 of the script is a dict; it may be a text"):
        verb(ScriptedModel([{"role": "assistant"}]), "?")  # type: ignore[list-item]


def test_async_with_checks_for_lines_left_over():
    async def main() -> None:
        async with ScriptedModel(["a"]):
            pass

    with pytest.raises(ScriptError):
        asyncio.run(main())


@every_model_verb
def test_a_script_may_have_lines_of_every_kind(verb: Any):
    model = ScriptedModel(
        [
            "text",
            text("cut", finish_reason="length", usage=Usage(input_tokens=1, output_tokens=2, total_tokens=3)),
            calls(("add", {"a": 1, "b": 2}), ("add", "{broken")),
            lambda messages: f"{len(messages)} messages",
            lambda messages: calls(("add", {})),
            RateLimited("slow down", retry_after=100),
            lambda messages: RateLimited("again", retry_after=100),
        ]
    )
    assert verb(model, "?").reply == "text"
    cut = verb(model, "?")
    assert (cut.reply, cut.finish_reason, cut.usage.total_tokens) == ("cut", "length", 3)
    assert [call.arguments for call in verb(model, "?").tool_calls] == ['{"a":1,"b":2}', "{broken"]
    assert verb(model, ["a", "b"]).reply == "2 messages"
    assert verb(model, "?").tool_calls[0].name == "add"
    for message in ("slow down", "again"):
        with pytest.raises(RateLimited, match=message):
            verb(model, "?")
    model.check()


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_text_is_streamed_in_pieces_of_the_given_length(piece: int):
    model = ScriptedModel([calls(("add", {"a": 12345, "b": 2}), content="Let me see"), "Done"], piece=piece)
    result = list(Agent(model, [add]).stream_run("?"))[-1].result  # type: ignore[union-attr]
    assert result.messages[2].content == "12347"


def test_the_messages_of_each_request_are_recorded():
    model = ScriptedModel([calls(("add", {"a": 1, "b": 2})), "3"])
    result = Agent(model, [add], tool_choice="add").run("?")
    assert model.asked == [result.messages[:1], result.messages[:3]]
    assert [str(choice) for choice in model.choices] == ["NamedTool(name='add')", "auto"]


def test_the_fake_transport_counts_open_responses():
    transport = FakeTransport(lambda request: FakeAnswer(body=[b"a", b"b"]))
    request = Request(url="http://x/")
    incoming = transport.open(request, Timeouts(), 0)
    assert transport.open_answers == 1
    assert list(incoming.chunks()) == [b"a", b"b"]
    incoming.close()
    incoming.close()
    assert transport.open_answers == 0
    with pytest.raises(ResponseTooLarge):
        transport.open(request, Timeouts(), 0).read(1)
    assert transport.requests == [request, request]


def test_a_model_works_with_the_fake_transport():
    body = b'{"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}'
    model = OpenAIChat("m", api_key="k-123456", transport=FakeTransport(lambda request: FakeAnswer(body=body)))
    assert model.chat_completion("?").reply == "hi"
    assert asyncio.run(model.async_chat_completion("?")).reply == "hi"


def _connect_ex() -> None:
    with socket.socket() as made:
        made.connect_ex(("192.0.2.1", 80))


def test_block_requests_blocks_connections_to_other_machines():
    with block_requests():
        for blocked in (
            lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.1),
            lambda: socket.getaddrinfo("example.com", 80),
            lambda: http.client.HTTPConnection("example.com", timeout=0.1).connect(),
            _connect_ex,
        ):
            with pytest.raises(RealRequest, match="was blocked"):
                blocked()
        with openai_server("hi") as server:
            assert OpenAIChat("m", base_url=server.url + "/v1").chat_completion("?").reply == "hi"
        with pytest.raises(RealRequest):
            OpenAIChat("m", api_key="k-123456", base_url="http://192.0.2.1/v1", max_retries=0).chat_completion("?")


def test_block_requests_can_block_loopback_as_well():
    with openai_server("hi") as server, block_requests(allow_loopback=False), pytest.raises(RealRequest):
        OpenAIChat("m", base_url=server.url + "/v1").chat_completion("?")


def test_block_requests_blocks_async_requests():
    async def main() -> None:
        async with OpenAIChat("m", api_key="k-123456", base_url="http://192.0.2.1/v1", max_retries=0) as model:
            await model.async_chat_completion("?")

    with block_requests(), pytest.raises(RealRequest):
        asyncio.run(main())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lmagent.testing.nothing
