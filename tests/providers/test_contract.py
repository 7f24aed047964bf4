"""One contract for every codec: answers it must read, answers it must refuse, histories it must be able to send.

The public API makes the codecs, so those of providers without function calls are `Prompted`. The answers come from
`tests/dialects.py` and the recordings of `tests/wire/`; the histories are made of answers that a codec has read, and
are sent to all the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import lmagent.providers as package
from lmagent.core.events import ReplyBuilder
from lmagent.core.history import history_problems
from lmagent.core.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    Reply,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import AuthenticationFailed, MessageError, ProviderError, QuotaExceeded, RequestTimeout
from lmagent.prompting.prompted import Prompted
from lmagent.providers.base import ChatCall, Codec
from lmagent.toolkit.schema import ToolSpec
from tests.dialect_servers import ALL, Dialect, as_text, prompted
from tests.dialects import Said
from tests.providers.histories import HISTORIES

WIRE = Path(__file__).parent.parent / "wire"

GET_WEATHER = ToolSpec(
    name="get_weather",
    description="Look up the weather of a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
        "required": ["city"],
    },
)
GET_TIME = ToolSpec(
    name="get_time",
    description="Look up the time of a zone.",
    parameters={"type": "object", "properties": {"timezone": {"type": "string"}}, "required": ["timezone"]},
)
ADD = ToolSpec(
    name="add",
    description="Add two numbers.",
    parameters={
        "type": "object",
        "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
        "required": ["x", "y"],
    },
)
TOOLS = (GET_WEATHER, GET_TIME, ADD)
QUESTION = UserMessage("What is the weather in 上海?")

CITY = ("get_weather", {"city": "上海"})
SUM = ("add", {"x": 1, "y": 2.5})
ANSWERS: dict[str, Said] = {
    "text": Said('晴, 20°C.\n\nEnjoy "it" 🙂!'),
    "one call": Said(calls=(CITY,)),
    "two calls": Said(calls=(CITY, SUM)),
    "call with text": Said("Let me see.", (CITY,)),
    "empty": Said(),
}


@cache
def codec_of(name: str) -> Codec:
    return ALL[name].model().codec


def bound(name: str, *, stream: bool = False) -> Codec:
    """Return the codec that reads the answer to a question with tools."""
    return codec_of(name).for_call(ChatCall(messages=(QUESTION,), tools=TOOLS, stream=stream))


def fitting(name: str, said: Said) -> Said:
    """Return the provider's answer for this reply."""
    dialect = ALL[name]
    if dialect.tool_free:
        request = codec_of(name).build_request(ChatCall(messages=(QUESTION,), tools=TOOLS))
        asked = dialect.shape.read(Sent(request.url, request.content))
        assert prompted(asked).tools == tuple(tool.name for tool in TOOLS), "no tools in the prompt"
        return as_text(said, asked)
    return said if dialect.shape.parallel else Said(said.text, said.calls[:1])


class Sent:
    """One of our requests, as a server reads it."""

    def __init__(self, url: str, content: bytes) -> None:
        self.path = url.partition("?")[0]
        self.json = json.loads(content)


def read_whole(name: str, body: Any) -> Reply:
    assert codec_of(name).parse_error(200, {}, body) is None
    return bound(name).parse_reply(body)


def read_stream(name: str, content: bytes, size: int) -> Reply:
    """Read a stream that arrives in pieces of `size` bytes."""
    codec = bound(name, stream=True)
    framing, state, builder = codec.framing(), codec.new_state(), ReplyBuilder("1")
    frames = [f for at in range(0, len(content), size) for f in framing.feed(content[at : at + size])]
    for frame in (*frames, *framing.close()):
        for delta in codec.parse_event(state, frame.data, frame.event):
            list(builder.add(delta))
    for delta in codec.finish(state):
        list(builder.add(delta))
    assert builder.done is not None, "the stream has no end"
    return builder.reply(codec.model_id)


def whole_of(name: str, said: Said) -> Any:
    fit = fitting(name, said)
    return ALL[name].shape.whole(fit, [f"call_srv{number}" for number in range(len(fit.calls))])


def stream_of(name: str, said: Said) -> bytes:
    fit = fitting(name, said)
    return ALL[name].shape.streamed(fit, [f"call_srv{number}" for number in range(len(fit.calls))])


def check_reply(name: str, said: Said, reply: Reply) -> None:
    """Assert that the reply has what the server sent."""
    dialect = ALL[name]
    calls = said.calls if dialect.shape.parallel or dialect.tool_free else said.calls[:1]
    assert [(call.name, json.loads(call.arguments)) for call in reply.tool_calls] == [(n, dict(a)) for n, a in calls]
    assert all(not call.problem and not call.repairs for call in reply.tool_calls)
    ids = [call.id for call in reply.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    # Wenxin and the old `functions` form stream no text beside a call, and have no need to.
    assert reply.reply == said.text
    assert reply.finish_reason == ("tool_calls" if calls else "stop")
    assert reply.model_id == codec_of(name).model_id
    assert reply.model_id == f"{codec_of(name).provider}/{codec_of(name).model}"


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", ALL)
def test_every_codec_reads(name: str, answer: str):
    said = ANSWERS[answer]
    whole = read_whole(name, whole_of(name, said))
    check_reply(name, said, whole)
    content = stream_of(name, said)
    if answer == "empty" and not content:
        return
    for size in (len(content), 7, 1):
        streamed = read_stream(name, content, size)
        check_reply(name, said, streamed)
    assert streamed.message == whole.message


@pytest.mark.parametrize("answer", ["text", "call with text"])
@pytest.mark.parametrize("name", ALL)
def test_unknown_members_change_nothing(name: str, answer: str):
    said = ANSWERS[answer]
    check_reply(name, said, read_whole(name, with_strangers(whole_of(name, said))))
    lines = [_line_with_strangers(line) for line in stream_of(name, said).split(b"\n")]
    check_reply(name, said, read_stream(name, b"\n".join(lines), 1000))


_FOREIGN = {"input", "args", "arguments", "item", "output"}
"""Members whose objects are the model's own words, or whose further members the dialect documents as open."""


def with_strangers(value: Any) -> Any:
    """Return JSON with unknown members in every object."""
    if isinstance(value, list):
        return [with_strangers(item) for item in value]
    if not isinstance(value, dict):
        return value
    known = {key: item if key in _FOREIGN else with_strangers(item) for key, item in value.items()}
    return {**known, "x_stranger": {"deep": [1, None, "文"]}, "x_number": 1e9}


def _line_with_strangers(line: bytes) -> bytes:
    start = line.find(b"{")
    if start < 0 or not line.startswith((b"data:", b"{")):
        return line
    try:
        value = json.loads(line[start:])
    except ValueError:
        return line
    return line[:start] + json.dumps(with_strangers(value), ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ALL)
def test_errors_have_their_own_classes(name: str):
    codec = codec_of(name)
    status, body = ALL[name].shape.limited()
    error = codec.parse_error(status, {}, body)
    assert error is not None
    assert error.retryable, type(error)
    assert (error.provider, error.model, error.status) == (codec.provider, codec.model, status)
    for status, expected in (
        (401, AuthenticationFailed),
        (402, QuotaExceeded),
        (500, ProviderError),
        (502, ProviderError),
        (408, RequestTimeout),
    ):
        error = codec.parse_error(status, {}, None, "<html>An apache page</html>")
        assert isinstance(error, expected), (status, error)
        assert error.status == status
        assert error.retryable == (status not in (401, 402)), (status, error)
    for status in (400, 403, 404, 422):
        error = codec.parse_error(status, {}, None, "no")
        assert error is not None
        assert not error.retryable, (status, error)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("body", [{}, [], None, "hm", 1, {"choices": []}, {"error": {}}, {"choices": "x", "data": 3}])
def test_answers_of_an_unknown_shape(name: str, body: Any):
    if codec_of(name).parse_error(200, {}, body) is None:
        with pytest.raises(ProviderError):
            bound(name).parse_reply(body)


def conversation(name: str, *answers: AssistantMessage) -> tuple[Message, ...]:
    """Return a history with these answers and a result for each call."""
    messages: list[Message] = [SystemMessage("Be brief."), QUESTION]
    for answer in answers:
        messages.append(answer)
        messages += [ToolMessage('{"t": 20}', call.id, call.name) for call in answer.tool_calls]
        if not answer.tool_calls:
            messages.append(UserMessage(f"And now? ({name})"))
    return tuple(messages)


@cache
def read_by(name: str) -> tuple[Message, ...]:
    """Return a history of replies that this codec has read, whole and streamed; it ends with results of calls."""
    read: list[AssistantMessage] = []
    for number, said in enumerate(ANSWERS.values()):
        parse = bound(name).parse_reply(whole_of(name, said), prefix=str(2 * number))
        read.append(parse.message)
        if stream_of(name, said):
            read.append(_renamed(read_stream(name, stream_of(name, said), 50).message, number))
    return conversation(name, *read, read[2])


def _renamed(message: AssistantMessage, number: int) -> AssistantMessage:
    """Give calls that were read twice ids of their own, as in two answers."""
    calls = tuple(replace(call, id=f"{call.id}_s{number}") for call in message.tool_calls)
    return replace(message, tool_calls=calls)


RECORDED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "openai": (
        "openai-chat",
        ("01-chat", "02-tool-call", "04-parallel-calls", "06-stream-text", "07-stream-tool-calls"),
    ),
    "openai-functions": ("openai-chat", ("10-legacy-functions", "15-stream-legacy-function")),
    "openai-responses": (
        "openai-responses",
        ("01-chat", "02-tool-call", "04-parallel-calls", "06-stream-text", "07-stream-tool-calls"),
    ),
    "azure": ("azure", ("01-chat", "02-tool-call", "04-parallel-calls", "06-stream-text", "07-stream-tool-call")),
    "anthropic": (
        "anthropic",
        (
            "01-chat",
            "02-tool-call",
            "04-parallel-calls",
            "06-stream-text",
            "07-stream-tool-calls",
            "10-thinking-tool-call",
        ),
    ),
    "gemini": (
        "gemini",
        ("01-chat", "02-tool-call", "04-parallel-calls", "06-stream-text", "07-stream-tool-calls", "14-no-id-call"),
    ),
    "mistral": ("mistral", ("01-chat", "04-parallel-calls", "07-stream-tool-calls", "10-thinking-chunks")),
    "wenxin": (
        "wenxin",
        ("01-classic-plain", "02-classic-function", "04-classic-stream", "05-classic-stream-function"),
    ),
    "wenxin-v2": ("wenxin", ("31-v2-plain", "32-v2-tools", "34-v2-stream", "35-v2-stream-tools")),
    "minimax": ("minimax", ("01-chat-plain", "03-chat-stream")),
    "minimax_pro": ("minimax", ("10-pro-plain", "11-pro-function", "13-pro-stream", "14-pro-stream-function")),
    "minimax-v2": ("minimax", ("30-v2-plain", "31-v2-tools", "33-v2-stream", "34-v2-stream-tools")),
    "minimax-current": (
        "minimax",
        tuple(
            f"5{n}-openai-compatible-{name}"
            for n, name in ((0, "plain"), (1, "tools"), (3, "stream"), (4, "stream-tools"))
        ),
    ),
    "baichuan": ("baichuan", ("01-v1-chat-plain", "02-v1-chat-stream")),
    "baichuan-current": (
        "baichuan",
        tuple(
            f"2{n}-v1-chat-completions-{name}"
            for n, name in ((0, "plain"), (1, "tools"), (3, "stream"), (4, "stream-tools"))
        ),
    ),
    "zhipu": ("zhipu", ("30-v4-plain", "31-v4-tools", "33-v4-stream", "34-v4-stream-tools")),
    "zhipu-v3": ("zhipu", ("10-v3-chatglm_turbo-invoke", "11-v3-chatglm_turbo-sse")),
    "zhipu-character": ("zhipu", ("12-v3-characterglm-invoke", "13-v3-characterglm-sse")),
    "hunyuan": ("hunyuan", ("40-openai-plain", "41-openai-tools", "43-openai-stream", "44-openai-stream-tools")),
    "hunyuan-tc3": ("hunyuan", ("20-tc3-plain", "21-tc3-tools", "23-tc3-stream", "24-tc3-stream-tools")),
    "hunyuan-v1": ("hunyuan", ("01-hyllm-plain", "02-hyllm-stream")),
    "bailian": (
        "bailian",
        ("01-native-plain", "02-native-tools", "04-native-stream-incremental", "06-native-stream-tools-incremental"),
    ),
    "bailian-compatible": (
        "bailian",
        ("20-compatible-plain", "21-compatible-tools", "23-compatible-stream", "24-compatible-stream-tools"),
    ),
    "bailian-app": ("bailian", ("40-app-plain", "41-app-stream-cumulative")),
}
"""Dialect -> its provider and the recorded answers of it."""


@cache
def recorded_by(name: str) -> tuple[Message, ...]:
    """Return the history of all recorded answers of a provider, as its codec reads them."""
    platform, cases = RECORDED[name]
    read: list[AssistantMessage] = []
    for number, case in enumerate(cases):
        file = json.loads((WIRE / platform / f"{case}.json").read_text(encoding="utf-8"))["response"]["file"]
        content = (WIRE / platform / file).read_bytes()
        if file.endswith(".json"):
            reply = bound(name).parse_reply(json.loads(content))
        else:
            reply = read_stream(name, content, 200)
        assert reply.reply or reply.tool_calls, case
        read.append(_renamed(reply.message, number))
    return conversation(name, *read)


def check_body(dialect: Dialect, codec: Codec, call: ChatCall) -> None:
    """Assert that the dialect's rules accept the body."""
    dialect.rules(json.loads(codec.build_request(call).content))


SOURCES: dict[str, Callable[[], tuple[Message, ...]]] = {
    **{f"{name} read": lambda name=name: read_by(name) for name in ALL},
    **{f"{name} recorded": lambda name=name: recorded_by(name) for name in RECORDED},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ALL)
def test_histories_of_all_codecs_can_be_sent(name: str, stream: bool):
    """All pairs: histories that each codec has read are sent to this one, with tools and without."""
    dialect, codec = ALL[name], codec_of(name)
    for source, made in SOURCES.items():
        history = made()
        # The servers here number the calls of each reply from anew, as some do: only that is wrong.
        assert all("is repeated" in problem for problem in history_problems(history)), source
        for messages in _beginnings(history):
            for tools in (TOOLS, ()):
                try:
                    check_body(dialect, codec, ChatCall(messages=messages, tools=tools, stream=stream))
                except AssertionError as error:
                    raise AssertionError(
                        f"{source} to {name}, {len(messages)} messages, {len(tools)} tools: {error}"
                    ) from error


def _beginnings(history: tuple[Message, ...]) -> Iterable[tuple[Message, ...]]:
    """Return the histories that a run sends: the first few and the last."""
    ends = [
        index
        for index, message in enumerate(history)
        if isinstance(message, AssistantMessage) and index and not isinstance(history[index - 1], AssistantMessage)
    ]
    return [*(history[:end] for end in (*ends[:4], ends[-1])), history]


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("name", ALL)
def test_histories_of_users_and_cancelled_runs_can_be_sent(name: str, history: str):
    for stream in (False, True):
        check_body(ALL[name], codec_of(name), ChatCall(messages=HISTORIES[history], tools=TOOLS, stream=stream))


@pytest.mark.parametrize("name", ALL)
def test_pictures_are_sent_or_refused(name: str):
    picture = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n0123")
    call = ChatCall(messages=(UserMessage((TextPart("Look."), picture)),))
    if not codec_of(name).features.images:
        with pytest.raises(MessageError, match="image"):
            codec_of(name).build_request(call)
        return
    check_body(ALL[name], codec_of(name), call)
    assert picture.data in codec_of(name).build_request(call).content.decode()  # type: ignore[operator]


@pytest.mark.parametrize("name", ALL)
def test_a_history_of_the_same_provider_loses_nothing(name: str):
    """A conversation that continues with the same model keeps all text, calls and results."""
    request = codec_of(name).build_request(ChatCall(messages=read_by(name), tools=TOOLS))
    shown = " ".join(turn.text for turn in ALL[name].shape.read(Sent(request.url, request.content)).turns)
    for text in ("Be brief.", "晴, 20°C.", "Let me see.", "And now?"):
        assert text in shown, text
    body = request.content.decode()
    assert body.count("get_weather") > 5
    assert "上海" in body


def test_every_codec_is_in_the_list():
    """Every codec has a dialect here, so that every codec is checked."""
    codecs = [codec_of(name) for name in ALL]
    kinds = [type(codec.inner if isinstance(codec, Prompted) else codec) for codec in codecs]
    seen = {base.__name__ for kind in kinds for base in kind.__mro__}
    files = Path(package.__path__[0]).glob("*.py")
    written = {name for file in files for name in re.findall(r"^class (\w+Codec)\(", file.read_text("utf-8"), re.M)}
    assert written - {"_OldCodec"} <= seen
