from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from lmagent.errors import AuthenticationFailed, ConfigurationError, ParameterError
from lmagent.models.parameters import WenxinChatParameters
from lmagent.models.wenxin import WenxinChat
from lmagent.providers.base import Request
from lmagent.testing.fake import FakeAnswer, FakeTransport
from lmagent.toolkit.schema import ToolSpec
from tests.loopback import LoopbackServer, json_answer
from tests.models.four_verbs import in_four_verbs

PAIR = {"api_key": "fake-api-key", "secret_key": "fake-secret-key"}
TEXT = {"result": "hi", "is_end": True, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
SSE = {"content-type": "text/event-stream"}


class Server:
    """The classic API: gives tokens t-000001, t-000002, ...; `good` says which of them it takes."""

    def __init__(self) -> None:
        self.tokens = 0
        self.good: set[str] = {f"t-{number:06}" for number in range(1, 10)}

    def __call__(self, request: Request) -> FakeAnswer:
        if request.url.endswith("/oauth/2.0/token"):
            self.tokens += 1
            return FakeAnswer(body=json.dumps({"access_token": f"t-{self.tokens:06}", "expires_in": 2592000}).encode())
        if request.params["access_token"] not in self.good:
            return FakeAnswer(body=b'{"error_code":111,"error_msg":"Access token expired"}')
        if json.loads(request.content).get("stream"):
            return FakeAnswer(body=f"data: {json.dumps(TEXT)}\n\n".encode(), headers=SSE)
        return FakeAnswer(body=json.dumps(TEXT).encode())


def classic(server: Any = None, **options: Any) -> WenxinChat:
    return WenxinChat("ERNIE-Bot", **{**PAIR, "transport": FakeTransport(server or Server()), **options})


def urls(model: WenxinChat) -> list[str]:
    return [request.url.rpartition("/")[2] for request in model.exchange.transport.requests]  # type: ignore[attr-defined]


def test_one_token_serves_all_verbs():
    model = classic()
    replies = in_four_verbs(model, "你好", temperature=0)
    assert [(reply.reply, reply.model_id) for reply in replies] == [("hi", "wenxin/ERNIE-Bot")] * 4
    assert urls(model) == ["token", *["completions"] * 4]


def test_building_a_model_asks_for_nothing():
    assert urls(classic()) == []


def test_a_token_that_expires_in_between_is_renewed_once():
    server = Server()
    model = classic(server)
    assert model.chat_completion("a").attempts == 1
    server.good = {"t-000002"}
    assert model.chat_completion("b").reply == "hi"
    assert urls(model) == ["token", "completions", "completions", "token", "completions"]
    server.good = {"t-000003"}
    *_, last = model.stream_chat_completion("c")
    assert (last.reply, last.attempts) == ("hi", 2)


def test_many_calls_share_one_renewal():
    server = Server()

    def latest_only(request: Request) -> Any:
        answer = server(request)
        server.good = {f"t-{server.tokens:06}"} if request.url.endswith("token") else server.good
        return json_answer(json.loads(answer.body))

    def received(request: Any) -> Any:
        params = dict(parse_qsl(urlsplit(request.target).query))
        return latest_only(Request(url=request.path, content=request.body, params=params))

    with LoopbackServer(received) as loopback, WenxinChat("ERNIE-Bot", **PAIR, base_url=loopback.url) as model:

        async def ask() -> None:
            try:
                for tokens in (1, 2):
                    await asyncio.gather(*(model.async_chat_completion("a") for _ in range(10)))
                    assert server.tokens == tokens
                    server.good = set()
            finally:
                await model.aclose()

        asyncio.run(ask())
        with ThreadPoolExecutor(10) as pool:
            assert {reply.reply for reply in pool.map(model.chat_completion, ["a"] * 10)} == {"hi"}
    assert server.tokens == 3


def test_a_token_that_stays_bad_is_an_error_after_one_renewal():
    server = Server()
    server.good = set()
    model = classic(server)
    with pytest.raises(AuthenticationFailed) as caught:
        model.chat_completion("a")
    assert caught.value.code == "111"
    assert urls(model) == ["token", "completions", "token", "completions"]


@pytest.mark.parametrize("body", [b'{"error":"invalid_client","error_description":"unknown client id"}', b"{}"])
def test_a_refusal_of_the_token_endpoint_has_its_status(body: bytes):
    model = classic(lambda request: FakeAnswer(status=401, body=body))
    with pytest.raises(AuthenticationFailed) as caught:
        model.chat_completion("a")
    assert caught.value.status == 401
    assert urls(model) == ["token"]


def test_secrets_are_nowhere_to_be_seen():
    model = classic(
        lambda request: FakeAnswer(body=b'{"error":"invalid_client","error_description":"fake-secret-key"}')
    )
    with pytest.raises(AuthenticationFailed) as caught:
        model.chat_completion("a")
    assert "fake-secret-key" not in str(caught.value) + repr(model) + repr(vars(model))


def test_the_api_follows_from_the_name_and_can_be_overruled():
    def spoken(model: str | None, **options: Any) -> str:
        options = {"api_key": "k-000000", "secret_key": "s-000000", **options}
        return type(WenxinChat(model, **options).codec).__name__

    for name in ("ERNIE-Bot", "ERNIE-Bot-4", "ernie-bot-turbo", "ERNIE-3.5-8K", "ERNIE-Functions-8K"):
        assert spoken(name, tool_mode="auto", native_tools=True) == "WenxinCodec"
    for name in ("ernie-4.5-turbo-128k", "ernie-x1-turbo", "ERNIE-5.5-Flash-Preview", "deepseek-v3"):
        assert spoken(name) == "WenxinV2Codec"
    assert spoken("ernie-4.5-turbo-128k", api="classic", native_tools=True) == "WenxinCodec"
    assert spoken("ERNIE-Bot", api="v2") == "WenxinV2Codec"
    with pytest.raises(ConfigurationError, match="api is"):
        spoken("x", api="v3")
    with pytest.raises(ConfigurationError, match="api='classic'"):
        spoken("ernie-4.5", endpoint="abc")


def test_models_without_functions_work_through_the_prompt():
    model = WenxinChat("ERNIE-Speed-8K", **PAIR)
    assert type(model.codec).__name__ == "Prompted"
    assert model.model_id == "wenxin/ERNIE-Speed-8K"
    assert WenxinChat("ERNIE-Speed-8K", **PAIR, native_tools=True).codec.features.tools


def test_the_default_model_fits_the_credentials(monkeypatch: pytest.MonkeyPatch):
    assert WenxinChat(**PAIR).model_id == "wenxin/ERNIE-Bot"
    assert WenxinChat(api_key="bce-v3/ALTAK-1").model_id == "wenxin/ernie-4.5-turbo-128k"
    monkeypatch.setenv("WENXIN_API_KEY", "fake-api-key")
    assert WenxinChat().model_id == "wenxin/ernie-4.5-turbo-128k"
    monkeypatch.setenv("WENXIN_SECRET_KEY", "fake-secret-key")
    assert WenxinChat().model_id == "wenxin/ERNIE-Bot"
    monkeypatch.setenv("QIANFAN_API_KEY", "bce-v3/ALTAK-1")
    assert WenxinChat().model_id == "wenxin/ernie-4.5-turbo-128k"


@pytest.mark.parametrize(
    ("environment", "auth"),
    [
        ({"WENXIN_API_KEY": "k-1", "WENXIN_SECRET_KEY": "s-1"}, "KeyPairAuth"),
        ({"QIANFAN_AK": "k-1", "QIANFAN_SK": "s-1"}, "KeyPairAuth"),
        ({"EB_AK": "k-1", "EB_SK": "s-1"}, "KeyPairAuth"),
        ({"EB_ACCESS_TOKEN": "t-1"}, "AccessTokenAuth"),
        ({"QIANFAN_ACCESS_TOKEN": "t-1"}, "AccessTokenAuth"),
        ({"QIANFAN_ACCESS_KEY": "k-1", "QIANFAN_SECRET_KEY": "s-1"}, "BceSignatureAuth"),
    ],
)
def test_keys_of_the_classic_api_come_from_the_environment(environment, auth, monkeypatch: pytest.MonkeyPatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert type(WenxinChat("ERNIE-Bot").exchange.auth).__name__ == auth


@pytest.mark.parametrize(
    ("environment", "auth"),
    [
        ({"QIANFAN_API_KEY": "k-1"}, "BearerAuth"),
        ({"QIANFAN_BEARER_TOKEN": "k-1"}, "BearerAuth"),
        ({"WENXIN_API_KEY": "k-1"}, "BearerAuth"),
        ({"QIANFAN_ACCESS_KEY": "k-1", "QIANFAN_SECRET_KEY": "s-1"}, "IamBearerAuth"),
    ],
)
def test_keys_of_v2_come_from_the_environment(environment, auth, monkeypatch: pytest.MonkeyPatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert type(WenxinChat("ernie-4.5-turbo-128k").exchange.auth).__name__ == auth


def test_given_credentials_beat_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QIANFAN_ACCESS_TOKEN", "t-1")
    assert type(WenxinChat("ERNIE-Bot", **PAIR).exchange.auth).__name__ == "KeyPairAuth"
    assert type(WenxinChat("ERNIE-Bot", access_token="t-2").exchange.auth).__name__ == "AccessTokenAuth"


@pytest.mark.parametrize(("model", "named"), [("ERNIE-Bot", "WENXIN_SECRET_KEY"), ("ernie-4.5", "QIANFAN_API_KEY")])
def test_missing_keys_are_named(model, named):
    with pytest.raises(ConfigurationError, match=named):
        WenxinChat(model)
    with pytest.raises(ConfigurationError, match="iam_secret_key"):
        WenxinChat(model, iam_access_key="k-1")


def test_base_urls_are_understood_with_and_without_a_path(monkeypatch: pytest.MonkeyPatch):
    key = {"api_key": "bce-v3/ALTAK-1"}
    for url in ("http://localhost:1", "http://localhost:1/", "http://localhost:1/v2"):
        assert WenxinChat("ernie-4.5", base_url=url, **key).codec.base_url == "http://localhost:1/v2"
        assert classic(base_url=url).codec.base_url == "http://localhost:1"
    monkeypatch.setenv("WENXIN_BASE_URL", "http://localhost:2")
    assert WenxinChat("ernie-4.5", **key).codec.base_url == "http://localhost:2/v2"
    model = classic()
    model.chat_completion("a")
    assert model.exchange.transport.requests[0].url == "http://localhost:2/oauth/2.0/token"


def test_parameters_are_checked_and_translated():
    with pytest.raises(ParameterError, match=r"temperature.*at least 0"):
        classic().chat_completion("a", temperature=-1)
    with pytest.raises(ParameterError, match="penalty_score"):
        WenxinChatParameters(penalty_score=0.5)
    model = classic(parameters=WenxinChatParameters(temperature=0, penalty_score=1.5))
    model.chat_completion("a", max_tokens=5)
    sent = json.loads(model.exchange.transport.requests[-1].content)
    assert {name: sent[name] for name in sent if name != "messages"} == {
        "temperature": 0.01,
        "penalty_score": 1.5,
        "max_output_tokens": 5,
    }


def test_a_native_call_in_all_verbs():
    call = {"name": "now", "arguments": "{}", "thoughts": "what time is it?"}
    answer = {"result": "", "function_call": call, "is_end": True}

    def server(request: Request) -> FakeAnswer:
        if request.url.endswith("token"):
            return FakeAnswer(body=b'{"access_token": "t-000001", "expires_in": 100}')
        if json.loads(request.content).get("stream"):
            return FakeAnswer(body=f"data: {json.dumps(answer)}\n\n".encode(), headers=SSE)
        return FakeAnswer(body=json.dumps(answer).encode())

    replies = in_four_verbs(classic(server), "time?", tools=(ToolSpec(name="now"),))
    for reply in replies:
        assert (reply.finish_reason, reply.tool_calls[0].name, reply.tool_calls[0].id) == (
            "tool_calls",
            "now",
            "call_000000000000000100000000",
        )
        assert reply.message.details == {"wenxin": {"thoughts": "what time is it?"}}
        assert reply.message == replies[0].message
