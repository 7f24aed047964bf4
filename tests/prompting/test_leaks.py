"""Native replies whose text holds call markup that a server leaked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lmagent import Agent, ChatModel
from lmagent.core.messages import Reply
from lmagent.models.openai import OpenAIChat
from lmagent.prompting.leaked_calls import LEAKED, LeakedCallReader, has_no_leaks
from lmagent.providers.base import NamedTool
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.testing.fake import FakeAnswer, FakeTransport
from lmagent.toolkit.schema import ToolSpec
from tests.loopback import LoopbackServer, json_answer, sse_answer
from tests.prompting.rendering import RENDER

SPEC = ToolSpec(
    name="get_weather",
    description="Weather.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
CALL = ("get_weather", {"city": "Paris", "days": 2})
HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
NATIVE = {"id": "n1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}


def whole(text: str, calls: Any = None, reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": reason}]}).encode()


def events(text: str, size: int, calls: Any = None, reason: str = "stop", after: str = "") -> Iterator[bytes]:
    def chunk(delta: Any, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    for start in range(0, len(text), size):
        yield chunk({"content": text[start : start + size]})
    for index, call in enumerate(calls or ()):
        yield chunk({"tool_calls": [{"index": index, **call}]})
    if after:
        yield chunk({"content": after})
    yield chunk({}, reason)
    yield b"data: [DONE]\n\n"


def model(answer: FakeAnswer, **options: Any) -> ChatModel:
    codec = OpenAICodec("m", base_url="http://localhost:1/v1")
    return ChatModel(codec, transport=FakeTransport(lambda _: answer), max_retries=0, **options)


def asked(text: str, *, calls: Any = None, reason: str = "stop", tool_choice: Any = "auto", **options: Any) -> Reply:
    return model(FakeAnswer(body=whole(text, calls, reason)), **options).chat_completion(
        "hi", tools=(SPEC,), tool_choice=tool_choice
    )


def streamed(text: str, size: int = 1, **made: Any) -> tuple[str, Reply]:
    answer = FakeAnswer(body=list(events(text, size, **made)), headers={"content-type": "text/event-stream"})
    *chunks, reply = model(answer).stream_chat_completion("hi", tools=(SPEC,))
    assert isinstance(reply, Reply)
    return "".join(chunk.stream.delta for chunk in chunks), reply


def found(reply: Reply) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in reply.tool_calls]


ASKED_FOR = frozenset(
    {
        "json_fence",
        "json_fence_array",
        "react",
        "structured_chat",
        "smolagents",
        "tool_code",
        "functionary_v32",
        "command_r",
    }
)
"""Forms that are prose or code unless somebody asked for them: a native reply shows them as an example."""


@pytest.mark.parametrize("name", sorted(set(RENDER) - ASKED_FOR))
def test_leaked_call_of_each_family_is_read(name: str):
    text = RENDER[name]([CALL])
    reply = asked(text)
    assert found(reply) == [CALL], text
    assert reply.finish_reason == "tool_calls"
    assert all(LEAKED in call.repairs for call in reply.tool_calls)
    assert "get_weather" not in reply.reply
    for size in (1, 5, 10_000):
        shown, last = streamed(text, size)
        assert found(last) == [CALL]
        assert shown == last.reply == reply.reply


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_text_around_a_leaked_call_is_shown_and_markup_is_not(size: int):
    shown, reply = streamed(f"Let me look.\n\n{HERMES}\n", size)
    assert shown == reply.reply == "Let me look.\n\n"
    assert found(reply) == [CALL]
    assert asked(f"Let me look.\n\n{HERMES}\n").message == reply.message


PLAIN = (
    "Just text.",
    "",
    "1 < 2, a[0], <b>bold</b> and [link](http://x)\n",
    "Write it so:\n```\n" + HERMES + "\n```\nDone.",
    "Inline `<tool_call>{}</tool_call>` is only named.",
    "> " + HERMES.replace("\n", " "),
    '<tool_call>{"name": "other_tool", "arguments": {}}</tool_call>',
    '{"name": "Ann", "age": 3}',
    "  \n indented {json: 1}\n\n",
    "<tool_response>quoted</tool_response> and more",
    "```python\nprint('" + HERMES.replace("\n", " ") + "')\n```",
    "Observation: the sky is blue <3\nTail.",
    "x" * 5000 + "<" + "y" * 5000,
)


@pytest.mark.parametrize("text", PLAIN)
def test_text_without_leaked_calls_is_unchanged(text: str):
    assert asked(text).message.content == text
    assert not asked(text).tool_calls
    for size in (1, 3, 50):
        shown, reply = streamed(text, size)
        assert shown == reply.reply == text
        assert not reply.tool_calls


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("after", ["", " More."])
def test_reply_with_native_calls_keeps_its_text(size: int, after: str):
    text = f"I call:\n{HERMES}\n"
    reply = asked(text + after, calls=[NATIVE], reason="tool_calls")
    assert found(reply) == [("get_weather", {"city": "Rome"})]
    assert reply.reply == text + after
    shown, last = streamed(text, size, calls=[NATIVE], reason="tool_calls", after=after)
    assert shown == last.reply == text + after
    assert found(last) == found(reply)


def test_leaked_thinking_is_separated():
    text = f"<think>\nI could write {HERMES} here.\n</think>\nIt rains."
    reply = asked(text)
    assert reply.reply == "\nIt rains." or reply.reply == "It rains."
    assert not reply.tool_calls
    for size in (1, 6):
        assert streamed(text, size)[1].message == reply.message


def test_a_cut_call_does_not_run():
    for text in (HERMES[:-20], HERMES[:50]):
        reply = asked(text, reason="length")
        assert [bool(call.problem) for call in reply.tool_calls] == [True]
        assert streamed(text, 3, reason="length")[1].message == reply.message


def test_repairs_are_noted():
    text = "<tool_call>\n{'name': 'get_weather', 'arguments': {'city': 'Paris', 'days': '2',}}\n</tool_call>"
    [call] = asked(text).tool_calls
    assert json.loads(call.arguments) == CALL[1]
    assert LEAKED in call.repairs
    assert len(call.repairs) > 1


def test_leaked_call_of_a_tool_that_is_not_offered_is_text():
    assert asked(HERMES, tool_choice="none").reply == HERMES
    other = ToolSpec(name="other", description="", parameters={"type": "object", "properties": {}})
    answer = FakeAnswer(body=whole(HERMES))
    reply = model(answer).chat_completion("hi", tools=(SPEC, other), tool_choice=NamedTool("other"))
    assert (reply.reply, reply.tool_calls) == (HERMES, ())
    assert model(answer).chat_completion("hi").reply == HERMES


def test_leaked_calls_option_switches_reading_off_and_on():
    assert asked(HERMES, leaked_calls=False).reply == HERMES
    assert found(asked(HERMES, tool_mode="native")) == [CALL]


@pytest.mark.parametrize(
    ("url", "is_trusted"),
    [
        ("https://api.openai.com/v1", True),
        ("https://acme.openai.azure.com/openai", True),
        ("https://europe-west4-aiplatform.googleapis.com/v1", True),
        ("http://localhost:11434/v1", False),
        ("https://api.deepseek.com", False),
        ("https://api.openai.com.evil.example/v1", False),
    ],
)
def test_platforms_that_never_leak_are_not_read(url: str, is_trusted: bool):
    codec = OpenAICodec("m", base_url=url)
    assert has_no_leaks(codec) is is_trusted
    reading = ChatModel(codec, transport=FakeTransport(lambda _: FakeAnswer())).exchange.codec
    assert isinstance(reading, LeakedCallReader) is not is_trusted
    forced = ChatModel(codec, transport=FakeTransport(lambda _: FakeAnswer()), leaked_calls=True).exchange.codec
    assert isinstance(forced, LeakedCallReader)


@pytest.mark.parametrize("stream", [False, True])
def test_agent_runs_a_leaked_call_over_http(stream: bool):
    """A server without its tool parser: the agent runs the call and never shows markup."""
    asked: list[str] = []

    def get_weather(city: str, days: int = 1) -> str:
        """Weather.

        Args:
            city: Where.
            days: How many.
        """
        asked.append(city)
        return "sunny"

    def answer(request: Any) -> Any:
        text = "Sunny." if any(m["role"] == "tool" for m in request.json["messages"]) else f"One moment.\n{HERMES}"
        if request.json.get("stream"):
            return sse_answer(*(piece for piece in events(text, 4)))
        return json_answer(json.loads(whole(text)))

    with LoopbackServer(answer) as server:
        agent = Agent(OpenAIChat("m", base_url=server.url, api_key="k"), tools=[get_weather])
        if stream:
            seen = list(agent.stream_run("Weather in Paris?"))
            text = "".join(event.text for event in seen if type(event).__name__ == "TextDelta")
            assert text == "One moment.\nSunny."
            result = seen[-1].result  # type: ignore[union-attr]
        else:
            result = agent.run("Weather in Paris?")
    assert result.reply == "Sunny."
    assert asked == ["Paris"]
    assert result.tool_calls[0].repairs == (LEAKED,)


def test_text_without_markers_is_passed_on_quickly():
    """The budget is 0.3 us a delta (see `bench_leaks.py`); a busy machine is allowed ten times that."""
    from lmagent.core.events import TextDelta
    from lmagent.prompting.leaked_calls import _read_deltas, _TextReader

    def scanner() -> Any:
        raise AssertionError("no marker, no scanner")

    best = 1.0
    for _ in range(5):
        reader = _TextReader(scanner)
        deltas = [(TextDelta("word "),) for _ in range(2000)]
        start = time.perf_counter()
        for delta in deltas:
            _read_deltas(reader, delta)
        best = min(best, (time.perf_counter() - start) / len(deltas))
    assert best < 3e-6


def test_call_that_the_conversation_already_holds_is_not_lifted():
    for earlier in (f"What does {HERMES} do?", json.dumps({"page": HERMES}), HERMES.replace("\n", "")):
        answer = FakeAnswer(body=whole(f"It says {HERMES}"))
        assert not model(answer).chat_completion(earlier, tools=(SPEC,)).tool_calls
        body = list(events(f"It says {HERMES}", 3))
        answer = FakeAnswer(body=body, headers={"content-type": "text/event-stream"})
        *_, reply = model(answer).stream_chat_completion(earlier, tools=(SPEC,))
        assert isinstance(reply, Reply)
        assert not reply.tool_calls
        assert reply.reply == f"It says {HERMES}"


def thought(reasoning: str, text: str = "", *, stream: bool, reason: str = "stop", **options: Any) -> Reply:
    """Return a reply whose reasoning came in a field of its own."""
    message = {"role": "assistant", "content": text, "reasoning_content": reasoning}
    body: Any = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": reason}]}).encode()
    headers: dict[str, str] = {}
    if stream:
        deltas = [{"reasoning_content": char} for char in reasoning] + [{"content": char} for char in text] + [{}]
        body = [
            b"data: " + json.dumps({"choices": [{"index": 0, "delta": one, "finish_reason": end}]}).encode() + b"\n\n"
            for one, end in zip(deltas, [None] * (len(deltas) - 1) + [reason], strict=True)
        ]
        headers = {"content-type": "text/event-stream"}
    made = model(FakeAnswer(body=body, headers=headers), **options)
    if not stream:
        return made.chat_completion("hi", tools=(SPEC,))
    *_, reply = made.stream_chat_completion("hi", tools=(SPEC,))
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["native", "prompt"])
def test_call_in_the_reasoning_of_a_reply_without_text_is_reported_and_never_runs(stream: bool, mode: str):
    reply = thought(f"I call it.\n{HERMES}\n", "\n", stream=stream, tool_mode=mode)
    [call] = reply.tool_calls
    assert call.name == "get_weather"
    assert call.problem is not None
    assert "thinking" in call.problem
    assert HERMES in reply.message.reasoning


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["native", "prompt"])
@pytest.mark.parametrize(
    ("reasoning", "text", "reason"),
    [
        (f"Perhaps {HERMES}", "It is sunny.", "stop"),
        (f"Perhaps {HERMES}", "", "length"),
        ("Perhaps <tool_call>", "", "stop"),
        ("No call.", "", "stop"),
        (f"It looks like `{HERMES[:11]}` so.", "", "stop"),
    ],
)
def test_reasoning_beside_text_or_without_a_whole_call_is_left_alone(
    reasoning: str, text: str, reason: str, stream: bool, mode: str
):
    reply = thought(reasoning, text, stream=stream, reason=reason, tool_mode=mode)
    assert reply.tool_calls == ()
    assert reply.message.content == text


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_harmony_without_tokens_leaks_as_a_call(size: int):
    text = 'assistantcommentary to=functions.get_weather json{"city": "Paris", "days": 2}'
    shown, reply = streamed(text, size)
    assert shown == ""
    assert found(reply) == [CALL]
    assert found(asked(text)) == [CALL]
