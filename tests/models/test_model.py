"""A model over a fake transport: the call it makes, tool modes, tool choice, options, closing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lmagent import ChatModel, OpenAIChat, ToolRegistry, UserMessage, function
from lmagent.asking.retry import RetryPolicy
from lmagent.core.messages import Reply
from lmagent.errors import ConfigurationError, ServerFailed, StreamInterrupted
from lmagent.http.base import Timeouts
from lmagent.models.model import resolve_tool_choice, tool_specs
from lmagent.prompting.prompted import Prompted
from lmagent.providers.base import Features, NamedTool
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.testing import FakeAnswer, FakeTransport, ScriptedModel
from tests.four_ways import MODEL_VERBS, no_tasks_left, nothing_left
from tests.loopback import STALL, head, raw, sse_answer
from tests.openai_server import openai_server

every_model_verb = pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)


@function
def look(place: str) -> str:
    """Look at a place."""
    return place


def _chat(url: str, **options: Any) -> OpenAIChat:
    return OpenAIChat("m", base_url=url + "/v1", **{"max_retries": 0, **options})


@every_model_verb
def test_the_whole_way_over_http(verb: Any):
    with nothing_left(), openai_server("你好！") as server:
        with _chat(server.url, api_key="k-123456", parameters={"temperature": 0}) as model:
            reply = verb(model, [{"role": "system", "content": "Short."}, "你好"], max_tokens=5)
        assert server.wait_closed()
    assert isinstance(reply, Reply)
    assert reply.reply == "你好！"
    assert (reply.finish_reason, reply.model_id, reply.response_id, reply.attempts) == ("stop", "openai/m", "r1", 1)
    assert reply.usage is not None
    assert reply.usage.total_tokens == 15
    [request] = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.json["messages"] == [{"role": "system", "content": "Short."}, {"role": "user", "content": "你好"}]
    assert request.json["temperature"] == 0


@every_model_verb
def test_tool_calls_over_http(verb: Any):
    with openai_server([("look", {"place": "北京"}), ("look", '{"place":')]) as server, _chat(server.url) as model:
        reply = verb(model, "?", tools=[look], tool_choice="look")
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [
        ("look", '{"place": "北京"}'),
        ("look", '{"place":'),
    ]
    assert reply.finish_reason == "tool_calls"
    assert server.requests[0].json["tool_choice"] == {"type": "function", "function": {"name": "look"}}


@every_model_verb
def test_a_server_without_a_key_gets_no_authorization(verb: Any):
    with openai_server("x") as server, _chat(server.url) as model:
        verb(model, "?")
        assert "authorization" not in server.requests[0].headers


def test_tool_modes():
    assert isinstance(ScriptedModel([], tool_mode="prompt").codec, Prompted)
    assert not isinstance(ScriptedModel([], tool_mode="native").codec, Prompted)
    assert not isinstance(ScriptedModel([]).codec, Prompted)
    codec = OpenAICodec("m", base_url="http://127.0.0.1:9/v1")
    codec.features = Features(tools=False)
    assert isinstance(ChatModel(codec).codec, Prompted)
    with pytest.raises(ConfigurationError, match="has no native function calls"):
        ChatModel(codec, tool_mode="native")
    with pytest.raises(ConfigurationError, match="tool_mode is 'auto', 'native' or 'prompt', not 'text'"):
        ScriptedModel([], tool_mode="text")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="No prompt format 'morse'"):
        ScriptedModel([], tool_mode="prompt", prompt_format="morse")


def test_prompt_mode_sends_no_tools_and_keeps_the_model_id():
    with (
        openai_server('```json\n{"name": "look", "arguments": {"place": "Rome"}}\n```') as server,
        _chat(server.url, tool_mode="prompt") as model,
    ):
        reply = model.chat_completion("?", tools=[look])
    body = server.requests[0].json
    assert "tools" not in body
    assert '"name":"look"' in body["messages"][0]["content"]
    assert (reply.model_id, reply.finish_reason) == ("openai/m", "tool_calls")
    assert json.loads(reply.tool_calls[0].arguments) == {"place": "Rome"}


def test_tool_choice_and_specs():
    specs = tool_specs([look])
    assert tool_specs(specs) is specs
    assert tool_specs(ToolRegistry([look])) == specs
    assert tool_specs(()) == ()
    assert resolve_tool_choice("auto", ()) == "auto"
    assert resolve_tool_choice("look", specs) == NamedTool("look")
    assert resolve_tool_choice(NamedTool("look"), specs) == NamedTool("look")
    for wrong in ("required", "look", "any", NamedTool("nothing")):
        with pytest.raises(ConfigurationError, match="tool_choice="):
            resolve_tool_choice(wrong, ())


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="ScriptedModel has no argument 'retries'"):
        ScriptedModel([], retries=3)  # type: ignore[call-arg]


def test_options_reach_the_exchange():
    model = OpenAIChat("m", base_url="http://127.0.0.1:9/v1", timeout=3, max_retries=7)
    assert model.exchange.timeouts.total == 3
    assert model.exchange.retry.max_retries == 7
    own = OpenAIChat(
        "m", base_url="http://127.0.0.1:9/v1", timeout=Timeouts(connect=1), max_retries=RetryPolicy(max_retries=0)
    )
    assert (own.exchange.timeouts.connect, own.exchange.retry.max_retries) == (1, 0)
    assert repr(model) == "OpenAIChat('openai/m')"
    assert model.model_id == "openai/m"


@pytest.mark.parametrize("wrong", [-1, 0, float("inf"), float("nan")])
def test_a_time_out_that_is_none_is_refused(wrong: Any):
    with pytest.raises(ConfigurationError, match="A time-out is a number of seconds above 0"):
        OpenAIChat("m", base_url="http://127.0.0.1:9/v1", timeout=wrong)


@every_model_verb
def test_retries_are_counted(verb: Any):
    answers = iter([FakeAnswer(status=500, body=b"{}"), FakeAnswer(status=500, body=b"{}")])

    def answer(request: Any) -> FakeAnswer:
        ready = next(answers, None)
        if ready is not None:
            return ready
        if json.loads(request.content).get("stream"):
            return FakeAnswer(
                body=[
                    b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n',
                    b"data: [DONE]\n\n",
                ],
                headers={"content-type": "text/event-stream"},
            )
        return FakeAnswer(body=b'{"choices":[{"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}')

    transport = FakeTransport(answer)
    policy = RetryPolicy(max_retries=2, initial=0.001, maximum=0.001)
    model = OpenAIChat("m", api_key="k-123456", transport=transport, max_retries=policy)
    reply = verb(model, "?")
    assert (reply.reply, reply.attempts) == ("x", 3)
    assert len(transport.requests) == 3
    assert transport.open_answers == 0


@every_model_verb
def test_a_failure_says_how_often_it_was_tried(verb: Any):
    transport = FakeTransport(lambda request: FakeAnswer(status=500, body=b'{"error": {"message": "boom"}}'))
    policy = RetryPolicy(max_retries=1, initial=0.001, maximum=0.001)
    model = OpenAIChat("m", api_key="k-123456", transport=transport, max_retries=policy)
    with pytest.raises(ServerFailed, match="boom") as caught:
        verb(model, "?")
    assert caught.value.attempts == 2


_HALF = {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": None}]}


def test_a_stream_that_breaks_off_keeps_what_came():
    with openai_server(sse_answer(_HALF, end=False)) as server, _chat(server.url) as model:
        items: list[Any] = []
        with pytest.raises(StreamInterrupted) as caught:
            items.extend(model.stream_chat_completion("?"))
        assert caught.value.partial.content == "Half"
        assert server.wait_closed()


def test_a_stream_that_is_left_early_frees_its_connection():
    event = b"data: " + json.dumps(_HALF).encode() + b"\n\n"
    start = head(200, {"content-type": "text/event-stream"})
    with nothing_left(), openai_server(raw(start + event, STALL)) as server:
        with _chat(server.url) as model:
            stream: Any = model.stream_chat_completion("?")
            assert next(stream).stream.delta == "Half"
            stream.close()
            assert server.wait_closed()

        async def main() -> None:
            async with _chat(server.url) as model:
                stream: Any = model.async_stream_chat_completion("?")
                assert (await anext(stream)).stream.delta == "Half"
                await stream.aclose()
                await no_tasks_left()

        asyncio.run(main())
        assert server.wait_closed()


def test_a_cancelled_ask_frees_its_connection():
    with nothing_left(), openai_server(raw(STALL)) as server:

        async def main(stream: bool) -> None:
            async with _chat(server.url) as model:

                async def drain() -> None:
                    async for _ in model.async_stream_chat_completion("?"):
                        pass

                task = asyncio.ensure_future(drain() if stream else model.async_chat_completion("?"))
                while not server.requests:
                    await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await no_tasks_left()
                server.requests.clear()

        asyncio.run(main(False))
        asyncio.run(main(True))
        assert server.wait_closed()


def test_a_model_can_be_used_again_after_it_was_closed():
    with openai_server("x") as server:
        model = _chat(server.url)
        for _ in range(2):
            assert model.chat_completion("?").reply == "x"
            model.close()
        for _ in range(2):

            async def main() -> str:
                reply = await model.async_chat_completion("?")
                await model.aclose()
                return reply.reply

            assert asyncio.run(main()) == "x"
        assert server.wait_closed()


def test_arguments_are_checked_before_the_stream_is_read():
    model = ScriptedModel([])
    with pytest.raises(ConfigurationError):
        model.stream_chat_completion("?", tool_choice="nothing")
    assert model.asked == []


def test_the_prompt_is_not_changed():
    prompt: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "x"}]}, UserMessage("y")]
    before = json.dumps(prompt[0])
    ScriptedModel(["ok"]).chat_completion(prompt)
    assert json.dumps(prompt[0]) == before
    assert len(prompt) == 2
