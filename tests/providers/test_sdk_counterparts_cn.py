"""The official SDKs of Chinese providers as counterparts: one conversation, theirs and ours, equal on the wire.

Both talk to the dialect's server on loopback; the SDK thereby checks the server, because it reads plain and streamed
answers. Additional members of an SDK are documented in each comparison. The extra `test` brings dashscope, zai-sdk and
Tencent's. qianfan and zhipuai pin releases of tenacity and PyJWT that conflict with the others', but work with theirs:
pip install --no-deps qianfan zhipuai
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.messages import AssistantMessage, Message, Reply, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.core.redaction import Secret
from lmagent.providers.base import Request
from lmagent.providers.hunyuan import TC3Auth
from lmagent.toolkit.schema import ToolSpec
from tests.dialect_servers import DIALECTS, DialectServer, calls_then
from tests.loopback import Received

# SDKs leave sockets to the garbage collector, and some use what Python has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY, SECRET = "fakeid.fakesecret", "fakesecret"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "城市"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Look up the weather.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
SPEC = ToolSpec(name="get_weather", description="Look up the weather.", parameters=SCHEMA)
ARGUMENTS = '{"city":"杭州"}'
CALL = ToolCall(id="call_1", name="get_weather", arguments=ARGUMENTS)
RESULT = '{"t": 20}'

ASK: tuple[Message, ...] = (SystemMessage("Be brief."), UserMessage("天气?"))
TOLD: tuple[Message, ...] = (*ASK, AssistantMessage("", (CALL,)), ToolMessage(RESULT, "call_1", "get_weather"))
OPENAI_ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "天气?"}]
_OPENAI_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}
OPENAI_TOLD = [
    *OPENAI_ASK,
    {"role": "assistant", "content": "", "tool_calls": [_OPENAI_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
]
PARAMETERS = {"temperature": 0.5, "top_p": 0.8}


def server_of(name: str) -> DialectServer:
    """Return a server that ignores additional members of an SDK."""
    return DialectServer(
        replace(DIALECTS[name], rules=lambda body: None), calls_then(("get_weather", {"city": "杭州"}))
    )


def ours(server: DialectServer, messages: tuple[Message, ...], *, stream: bool, **parameters: Any) -> Reply:
    with server.dialect.model(server.url) as model:
        if not stream:
            return model.chat_completion(messages, tools=(SPEC,), **parameters)
        *_, last = model.stream_chat_completion(messages, tools=(SPEC,), **parameters)
        assert isinstance(last, Reply)
        return last


def pair(server: DialectServer) -> tuple[Received, Received]:
    """Return the last two chat requests, theirs and ours."""
    theirs, mine = [request for request in server.requests if "oauth" not in request.path][-2:]
    assert theirs.path == mine.path
    return theirs, mine


def plain(value: Any, drop: Mapping[str, Any]) -> Any:
    """Return JSON without the members to drop, and with JSON texts decoded if that is equivalent."""
    if isinstance(value, list):
        return [plain(item, drop) for item in value]
    if isinstance(value, str) and value[:1] == "{":
        return json.loads(value)
    if not isinstance(value, dict):
        return value
    return {
        name: plain(item, drop)
        for name, item in value.items()
        if not (name in drop and (drop[name] is ... or drop[name] == item))
    }


def assert_equal_bodies(server: DialectServer, drop: Mapping[str, Any]) -> None:
    theirs, mine = pair(server)
    assert plain(mine.json, drop) == plain(theirs.json, drop)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(params=["asked", "with_result"])
def with_result(request: pytest.FixtureRequest) -> bool:
    return request.param == "with_result"


def test_dashscope(stream: bool, with_result: bool):
    sdk = pytest.importorskip("dashscope", reason="needs the extra test: dashscope")
    with server_of("bailian") as server:
        sdk.base_http_api_url = f"{server.url}/api/v1"
        options = {"stream": True, "incremental_output": True} if stream else {}
        answer = sdk.Generation.call(
            model="qwen-plus",
            api_key="fake-key",
            messages=[*OPENAI_TOLD[:-1], {**OPENAI_TOLD[-1], "name": "get_weather"}] if with_result else OPENAI_ASK,
            tools=[TOOL],
            result_format="message",
            seed=7,
            max_tokens=50,
            **PARAMETERS,
            **options,
        )
        last = list(answer)[-1] if stream else answer
        reply = ours(server, TOLD if with_result else ASK, stream=stream, seed=7, max_tokens=50, **PARAMETERS)
        assert_equal_bodies(server, {})
        theirs, mine = pair(server)
        assert mine.headers["authorization"] == theirs.headers["authorization"] == "Bearer fake-key"
        assert mine.headers.get("x-dashscope-sse") == theirs.headers.get("x-dashscope-sse")
        assert last.status_code == 200
        assert reply.raw_finish_reason == last.output.choices[0].finish_reason


SOURCES = {"zai": "the extra test: zai-sdk", "zhipuai": "pip install --no-deps zhipuai (it pins another PyJWT)"}


@pytest.mark.parametrize("package", SOURCES)
def test_zhipu(package: str, stream: bool, with_result: bool):
    sdk = pytest.importorskip(package, reason=f"needs {SOURCES[package]}")
    client_type = sdk.ZhipuAiClient if package == "zai" else sdk.ZhipuAI
    with server_of("zhipu") as server:
        client = client_type(api_key=KEY, base_url=f"{server.url}/api/paas/v4")
        given = {"temperature": 0, "max_tokens": 50}
        answer = client.chat.completions.create(
            model="glm-4.6",
            messages=OPENAI_TOLD if with_result else OPENAI_ASK,
            tools=[TOOL],
            stream=stream,
            stop=["END"],
            **given,
        )
        chunks = list(answer) if stream else [answer]
        reply = ours(server, TOLD if with_result else ASK, stream=stream, stop=["END"], **given)
        # The SDK spells out what is not set, "not streamed" too.
        assert_equal_bodies(server, {"response_format": None, "thinking": None, "stream": False})
        theirs, mine = pair(server)
        assert mine.headers["authorization"] == theirs.headers["authorization"] == f"Bearer {KEY}"
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert reply.raw_finish_reason == reasons[-1]
        client.close()


@pytest.fixture
def qianfan_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    sdk = pytest.importorskip("qianfan", reason="needs pip install --no-deps qianfan (it pins another tenacity)")

    def at(url: str) -> Any:
        config = sdk.get_config()
        monkeypatch.setattr(config, "BASE_URL", url)
        monkeypatch.setattr(config, "CONSOLE_API_BASE_URL", url)
        monkeypatch.setattr(config, "BEARER_TOKEN", "fake-key")
        return sdk

    return at


QIANFAN = {"extra_parameters": ...}
"""The SDK says who it is, in the body."""


def test_qianfan_classic(qianfan_at: Callable[[str], Any], stream: bool, with_result: bool):
    call = {"name": "get_weather", "arguments": ARGUMENTS}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "天气?"}]
    if with_result:
        messages += [
            {"role": "assistant", "content": "", "function_call": call},
            {"role": "function", "name": "get_weather", "content": RESULT},
        ]
    with server_of("wenxin") as server:
        sdk = qianfan_at(server.url)
        client = sdk.ChatCompletion(ak="fake-key", sk="fake-secret", version="1")
        answer = client.do(
            endpoint="completions",
            messages=messages,
            functions=[FUNCTION],
            stream=stream,
            max_output_tokens=50,
            penalty_score=1.5,
            **PARAMETERS,
        )
        chunks = list(answer) if stream else [answer]
        # Wenxin knows no system text beside functions: we put it before the question, so it is left out here.
        asked = (TOLD if with_result else ASK)[1:]
        reply = ours(server, asked, stream=stream, max_tokens=50, penalty_score=1.5, **PARAMETERS)
        assert_equal_bodies(server, {**QIANFAN, "stream": False})
        assert server.tokens == 2  # each bought one, in the same way
        tokens = [request for request in server.requests if "oauth" in request.path]
        assert sorted(tokens[0].target.partition("?")[2].split("&")) == sorted(
            tokens[1].target.partition("?")[2].split("&")
        )
        assert chunks[-1].body["finish_reason"] == reply.raw_finish_reason


def test_qianfan_v2(qianfan_at: Callable[[str], Any], stream: bool, with_result: bool):
    with server_of("wenxin-v2") as server:
        sdk = qianfan_at(server.url)
        options = {"stream_options": {"include_usage": True}} if stream else {}
        answer = sdk.ChatCompletion(version="2").do(
            model="ernie-4.5",
            messages=OPENAI_TOLD if with_result else OPENAI_ASK,
            tools=[TOOL],
            stream=stream,
            **PARAMETERS,
            **options,
        )
        chunks = list(answer) if stream else [answer]
        ours(server, TOLD if with_result else ASK, stream=stream, **PARAMETERS)
        assert_equal_bodies(server, {**QIANFAN, "stream": False})
        theirs, mine = pair(server)
        assert mine.headers["authorization"] == theirs.headers["authorization"] == "Bearer fake-key"
        assert chunks[-1].body["id"] == "chatcmpl-1"


def test_tencent(stream: bool, with_result: bool):
    pytest.importorskip("tencentcloud.hunyuan", reason="needs the extra test: tencentcloud-sdk-python-hunyuan")
    from tencentcloud.common import credential
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.hunyuan.v20230901 import hunyuan_client, models

    function = {"Name": "get_weather", "Arguments": ARGUMENTS}
    messages: list[dict[str, Any]] = [{"Role": "system", "Content": "Be brief."}, {"Role": "user", "Content": "天气?"}]
    if with_result:
        messages += [
            {
                "Role": "assistant",
                "Content": "",
                "ToolCalls": [{"Id": "call_1", "Type": "function", "Function": function}],
            },
            {"Role": "tool", "ToolCallId": "call_1", "Content": RESULT},
        ]
    tool = {"Name": FUNCTION["name"], "Description": FUNCTION["description"], "Parameters": json.dumps(SCHEMA)}
    body = {
        "Model": "hunyuan-turbos-latest",
        "Messages": messages,
        "Stream": stream,
        "Tools": [{"Type": "function", "Function": tool}],
        "Temperature": 0.5,
        "TopP": 0.8,
    }
    with server_of("hunyuan-tc3") as server:
        profile = ClientProfile(httpProfile=HttpProfile(endpoint=server.url.removeprefix("http://"), protocol="http"))
        client = hunyuan_client.HunyuanClient(credential.Credential("AKIDfake", SECRET), "", profile)
        question = models.ChatCompletionsRequest()
        question.from_json_string(json.dumps(body))
        answer = client.ChatCompletions(question)
        last = json.loads(list(answer)[-1]["data"]) if stream else json.loads(answer.to_json_string())
        reply = ours(server, TOLD if with_result else ASK, stream=stream, **PARAMETERS)
        assert_equal_bodies(server, {"Stream": False})
        assert reply.raw_finish_reason == last["Choices"][0]["FinishReason"]
        theirs, mine = pair(server)
        for header in ("x-tc-action", "x-tc-version"):
            assert mine.headers[header] == theirs.headers[header]
        assert signed_by_us(server, theirs) == theirs.headers["authorization"]


def signed_by_us(server: DialectServer, sent: Received) -> str:
    """Sign the SDK's request with the time of its signature."""
    headers = {"content-type": sent.headers["content-type"], "x-tc-action": "ChatCompletions"}
    request = Request(url=server.url + "/", content=sent.body, headers=headers)
    flow: Iterator[Any] = TC3Auth(Secret("AKIDfake"), Secret(SECRET)).flow(
        request, float(sent.headers["x-tc-timestamp"])
    )
    try:
        next(flow)
    except StopIteration as done:
        return done.value.headers["authorization"]
    raise AssertionError("TC3 needs no token")
