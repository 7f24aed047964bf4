"""The models of three providers: which API a name means, keys, ids, and a whole call through each."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    ContextTooLong,
    ParameterError,
    RateLimited,
)
from lmagent.models.bailian import BailianChat
from lmagent.models.hunyuan import HunyuanChat
from lmagent.models.model import ChatModel
from lmagent.models.parameters import (
    BailianChatParameters,
    HunyuanChatParameters,
    ZhiPuCharacterChatParameters,
    ZhiPuChatParameters,
)
from lmagent.models.zhipu import ZhiPuCharacterChat, ZhiPuChat
from lmagent.providers.base import Request
from lmagent.providers.hunyuan import TC3Auth
from lmagent.testing import FakeAnswer, FakeTransport
from tests.loopback import LoopbackServer, json_answer
from tests.providers import rules_bailian, rules_hunyuan, rules_zhipu
from tests.providers.wire_cn import GET_WEATHER, Case, load

PAIR = {"secret_id": "AKIDfakefakefakefake", "secret_key": "fakesecretkeyfakesecretkey"}
ZHIPU_KEY = "fakeid0123456789.fakesecret0123456789"


def served(*cases: Case) -> FakeTransport:
    """A transport that answers with these cases in turn; the last one repeats."""
    waiting = list(cases)

    def answer(request: Request) -> FakeAnswer:
        case = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        kind = "application/json" if case.body.lstrip().startswith(b"{") else "text/event-stream"
        return FakeAnswer(body=case.body, status=case.status, headers={"content-type": kind})

    return FakeTransport(answer)


APIS: dict[str, tuple[Any, str, str, str, Any]] = {
    # name: how it is built, provider, plain case, stream case, rules
    "tc3": (lambda **k: HunyuanChat(**PAIR, **k), "hunyuan", "20-tc3-plain", "23-tc3-stream", rules_hunyuan),
    "hyllm": (
        lambda **k: HunyuanChat("v1", app_id=1300000000, **PAIR, **k),
        "hunyuan",
        "01-hyllm-plain",
        "02-hyllm-stream",
        rules_hunyuan,
    ),
    "hunyuan": (
        lambda **k: HunyuanChat(api_key="sk-fake-hunyuan", **k),
        "hunyuan",
        "40-openai-plain",
        "43-openai-stream",
        None,
    ),
    "v3": (
        lambda **k: ZhiPuChat("chatglm_turbo", api_key=ZHIPU_KEY, **k),
        "zhipu",
        "10-v3-chatglm_turbo-invoke",
        "11-v3-chatglm_turbo-sse",
        rules_zhipu,
    ),
    "v4": (lambda **k: ZhiPuChat(api_key=ZHIPU_KEY, **k), "zhipu", "30-v4-plain", "33-v4-stream", rules_zhipu),
    "characterglm": (
        lambda **k: ZhiPuCharacterChat("characterglm", api_key=ZHIPU_KEY, **k),
        "zhipu",
        "12-v3-characterglm-invoke",
        "13-v3-characterglm-sse",
        rules_zhipu,
    ),
    "charglm": (
        lambda **k: ZhiPuCharacterChat(api_key=ZHIPU_KEY, **k),
        "zhipu",
        "36-v4-jwt-and-character-meta",
        "33-v4-stream",
        rules_zhipu,
    ),
    "native": (
        lambda **k: BailianChat(api_key="sk-fake-dashscope", **k),
        "bailian",
        "01-native-plain",
        "04-native-stream-incremental",
        rules_bailian,
    ),
    "compatible": (
        lambda **k: BailianChat(api="compatible", api_key="sk-fake-dashscope", **k),
        "bailian",
        "20-compatible-plain",
        "23-compatible-stream",
        None,
    ),
    "app": (
        lambda **k: BailianChat("fake-app-id", api="app", api_key="fake-bailian-token", **k),
        "bailian",
        "40-app-plain",
        "41-app-stream-cumulative",
        rules_bailian,
    ),
}


@pytest.mark.parametrize("api_name", APIS)
def test_all_four_verbs_through_each_api(api_name: str):
    build, platform, plain, stream, rules = APIS[api_name]
    transport = served(load(platform, plain))
    model: ChatModel = build(transport=transport)
    assert model.chat_completion("你好", temperature=0).reply == "The Qiantang River."
    assert asyncio.run(model.async_chat_completion("你好", temperature=0)).reply == "The Qiantang River."
    streaming = served(load(platform, stream))
    model = build(transport=streaming)
    items = list(model.stream_chat_completion("你好", temperature=0))
    assert "".join(item.stream.delta for item in items) == "The Qiantang River."
    assert items[-1].is_finish
    assert items[-1].reply == "The Qiantang River."
    assert items[-1].usage.total_tokens == 30

    async def collect() -> list[Any]:
        return [item async for item in model.async_stream_chat_completion("你好", temperature=0)]

    assert asyncio.run(collect())[-1].message == items[-1].message
    for request in (*transport.requests, *streaming.requests):
        assert request.headers["authorization"]
        assert "?" not in request.url
        if rules is not None:
            rules.check(json.loads(request.content))


@pytest.mark.parametrize("api_name", APIS)
def test_no_secret_is_shown(api_name: str):
    model = APIS[api_name][0]()
    shown = repr(model) + repr(vars(model)) + repr(vars(model.exchange.auth))
    for secret in ("fakesecretkey", "fakesecret0123456789", "fake-dashscope", "fake-bailian", "fake-hunyuan"):
        assert secret not in shown


MODEL_IDS = {
    "hunyuan/v1": lambda: HunyuanChat("v1", app_id="1", **PAIR),
    "hunyuan/hunyuan-turbos-latest": lambda: HunyuanChat(api_key="k"),
    "zhipu/chatglm_turbo": lambda: ZhiPuChat("chatglm_turbo", api_key=ZHIPU_KEY),
    "zhipu/glm-4.6": lambda: ZhiPuChat(api_key=ZHIPU_KEY),
    "zhipu-character/characterglm": lambda: ZhiPuCharacterChat("characterglm", api_key=ZHIPU_KEY),
    "zhipu-character/charglm-4": lambda: ZhiPuCharacterChat(api_key=ZHIPU_KEY),
    "bailian/qwen-plus": lambda: BailianChat(api_key="k"),
    "bailian/fake-app-id": lambda: BailianChat("fake-app-id", api="app", api_key="k"),
}


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_model_ids(model_id: str):
    assert MODEL_IDS[model_id]().model_id == model_id


def url_of(model: ChatModel) -> str:
    return model.exchange.codec.build_request(model.call("hi")).url


def test_the_api_follows_the_name_and_a_keyword_wins():
    assert url_of(ZhiPuChat("chatglm_turbo", api_key=ZHIPU_KEY)).endswith("/v3/model-api/chatglm_turbo/invoke")
    assert url_of(ZhiPuChat("glm-4", api_key=ZHIPU_KEY)).endswith("/v4/chat/completions")
    assert url_of(ZhiPuChat("chatglm_turbo", api="v4", api_key=ZHIPU_KEY)).endswith("/v4/chat/completions")
    assert url_of(ZhiPuChat("glm-4", api="v3", api_key=ZHIPU_KEY)).endswith("/glm-4/invoke")
    assert url_of(HunyuanChat("hy3-preview", api_key="k", api="tokenhub")).startswith("https://tokenhub.")
    assert url_of(HunyuanChat("hy3-preview", api_key="k")).startswith("https://tokenhub.")
    assert url_of(HunyuanChat("v1", api="compatible", api_key="k")).startswith("https://api.hunyuan.")
    assert url_of(HunyuanChat(base_url="http://localhost:1", **PAIR)) == "http://localhost:1/"
    for wrong in (lambda: ZhiPuChat(api="v5", api_key=ZHIPU_KEY), lambda: BailianChat(api="v5", api_key="k")):  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="api is"):
            wrong()
    with pytest.raises(ConfigurationError, match="api is"):
        HunyuanChat(api="v5", api_key="k")  # type: ignore[arg-type]


def test_a_bare_host_gets_the_vendors_path_and_a_path_stays():
    here, key = "http://localhost:1", {"api_key": ZHIPU_KEY}
    for model, path in (
        (ZhiPuChat("glm-4.6", base_url=here, **key), "/api/paas/v4/chat/completions"),
        (ZhiPuChat("chatglm_turbo", base_url=here, **key), "/api/paas/v3/model-api/chatglm_turbo/invoke"),
        (ZhiPuCharacterChat("charglm-4", base_url=here, **key), "/api/paas/v4/chat/completions"),
        (ZhiPuCharacterChat("characterglm", base_url=here, **key), "/api/paas/v3/model-api/characterglm/invoke"),
        (ZhiPuChat(base_url=f"{here}/proxy", **key), "/proxy/chat/completions"),
        (HunyuanChat(base_url=here, api_key="k"), "/v1/chat/completions"),
        (HunyuanChat(base_url=here, api="tokenhub", api_key="k"), "/v1/chat/completions"),
        (HunyuanChat("v1", base_url=here, app_id=1, **PAIR), "/hyllm/v1/chat/completions"),
        (BailianChat(base_url=here, api_key="k"), "/api/v1/services/aigc/text-generation/generation"),
        (BailianChat(base_url=here, api_key="k", api="compatible"), "/compatible-mode/v1/chat/completions"),
        (BailianChat("my-app", base_url=here, api_key="k", api="app"), "/v2/app/completions"),
    ):
        assert url_of(model) == here + path


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="HUNYUAN_API_KEY"):
        HunyuanChat()
    with pytest.raises(ConfigurationError, match="ZHIPU_API_KEY or ZHIPUAI_API_KEY or ZAI_API_KEY"):
        ZhiPuChat()
    with pytest.raises(ConfigurationError, match="DASHSCOPE_API_KEY"):
        BailianChat()
    with pytest.raises(ConfigurationError, match="BAILIAN_APP_ID"):
        BailianChat(api="app")
    with pytest.raises(ConfigurationError, match="HUNYUAN_APP_ID"):
        HunyuanChat("v1")
    with pytest.raises(ConfigurationError, match="is a number"):
        HunyuanChat("v1", app_id="x", **PAIR)
    monkeypatch.setenv("TENCENTCLOUD_SECRET_ID", PAIR["secret_id"])
    with pytest.raises(ConfigurationError, match="HUNYUAN_SECRET_KEY or TENCENTCLOUD_SECRET_KEY"):
        HunyuanChat()
    monkeypatch.setenv("HUNYUAN_SECRET_KEY", PAIR["secret_key"])
    assert url_of(HunyuanChat()) == "https://hunyuan.tencentcloudapi.com/"
    monkeypatch.setenv("HUNYUAN_API_KEY", "k")
    assert url_of(HunyuanChat()).startswith("https://api.hunyuan.")
    assert url_of(HunyuanChat(**PAIR)) == "https://hunyuan.tencentcloudapi.com/"
    monkeypatch.setenv("HUNYUAN_APP_ID", "1300000000")
    assert url_of(HunyuanChat("v1")).startswith("https://hunyuan.cloud.tencent.com/hyllm")
    monkeypatch.setenv("ZAI_API_KEY", ZHIPU_KEY)
    monkeypatch.setenv("ZAI_BASE_URL", "https://api.z.ai/api/paas/v4")
    assert url_of(ZhiPuChat()) == "https://api.z.ai/api/paas/v4/chat/completions"
    assert url_of(ZhiPuChat("chatglm_turbo")).startswith("https://open.bigmodel.cn/api/paas/v3")
    assert url_of(ZhiPuCharacterChat()).startswith("https://api.z.ai")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "k")
    monkeypatch.setenv("BAILIAN_APP_ID", "an-app")
    assert BailianChat(api="app", api_key="token").model_id == "bailian/an-app"


def test_regions_of_bailian(monkeypatch: pytest.MonkeyPatch):
    def url(**options: Any) -> str:
        return url_of(BailianChat(api_key="k", **options))

    path = "/api/v1/services/aigc/text-generation/generation"
    assert url() == "https://dashscope.aliyuncs.com" + path
    assert url(region="ap-southeast-1") == "https://dashscope-intl.aliyuncs.com" + path
    assert url(region="eu-central-1", workspace="ws") == "https://ws.eu-central-1.maas.aliyuncs.com" + path
    assert url(base_url="http://localhost:1/api/v1") == "http://localhost:1" + path
    compatible = "/compatible-mode/v1/chat/completions"
    assert url(api="compatible", region="us-east-1") == "https://dashscope-us.aliyuncs.com" + compatible
    with pytest.raises(ConfigurationError, match="DASHSCOPE_WORKSPACE_ID"):
        url(region="eu-central-1")
    monkeypatch.setenv("DASHSCOPE_API_REGION", "ap-southeast-1")
    assert url().startswith("https://dashscope-intl.")
    monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", "http://localhost:2/api/v1")
    assert url() == "http://localhost:2" + path
    assert url(api="compatible").startswith("https://dashscope-intl.")


def test_the_key_as_it_is_or_signed():
    plain, signed = served(load("zhipu", "30-v4-plain")), served(load("zhipu", "30-v4-plain"))
    ZhiPuChat(api_key=ZHIPU_KEY, transport=plain).chat_completion("hi")
    ZhiPuChat(api_key=ZHIPU_KEY, transport=signed, signed=True).chat_completion("hi")
    assert plain.requests[0].headers["authorization"] == f"Bearer {ZHIPU_KEY}"
    assert signed.requests[0].headers["authorization"].startswith("Bearer eyJ")
    with pytest.raises(ConfigurationError, match=r"<id>\.<secret>"):
        ZhiPuChat("chatglm_turbo", api_key="no-dot")
    assert ZhiPuChat(api_key="no-dot")


def test_an_expired_token_is_made_anew():
    expired = Case("x", {}, 401, b'{"error":{"code":"1003","message":"token expired"}}', {}, ())
    transport = served(expired, load("zhipu", "10-v3-chatglm_turbo-invoke"))
    reply = ZhiPuChat("chatglm_turbo", api_key=ZHIPU_KEY, transport=transport, max_retries=0).chat_completion("hi")
    assert (reply.reply, reply.attempts) == ("The Qiantang River.", 2)


def test_the_token_of_an_app_is_bought_with_an_access_key(monkeypatch: pytest.MonkeyPatch):
    plain = load("bailian", "40-app-plain")
    token = Case("x", {}, 200, b'{"Success":true,"Data":{"Token":"tok-123456","ExpiredTime":99999999999}}', {}, ())
    transport = served(token, plain)
    monkeypatch.setenv("BAILIAN_ACCESS_KEY_ID", "LTAIfakefakefake")
    with pytest.raises(ConfigurationError, match="BAILIAN_ACCESS_KEY_SECRET"):
        BailianChat("an-app", api="app")
    monkeypatch.setenv("BAILIAN_ACCESS_KEY_SECRET", "fakeaccesskeysecret")
    monkeypatch.setenv("BAILIAN_AGENT_KEY", "fake-agent-key")
    model = BailianChat("an-app", transport=transport)  # no other key is there
    for _ in range(2):
        assert model.chat_completion("hi").reply == "The Qiantang River."
    assert [request.url.split("/")[2] for request in transport.requests] == [
        "bailian.cn-beijing.aliyuncs.com",
        "bailian.aliyuncs.com",
        "bailian.aliyuncs.com",
    ]
    assert transport.requests[2].headers["authorization"] == "Bearer tok-123456"
    assert "tok-123456" not in repr(vars(model.exchange.auth))
    assert BailianChat("an-app", api_key="sk-1").model_id == "bailian/an-app"
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-1")
    assert url_of(BailianChat()).startswith("https://dashscope.")


def test_the_signature_fits_what_goes_over_the_wire():
    """Over real HTTP: host and content type as the server sees them are the ones that were signed."""
    case = load("hunyuan", "20-tc3-plain")
    with LoopbackServer(json_answer(case.json)) as server, HunyuanChat(base_url=server.url, **PAIR) as model:
        assert model.chat_completion("你好").reply == "The Qiantang River."
        seen = server.requests[0]
    again = Request(
        url=f"http://{seen.headers['host']}{seen.path}",
        content=seen.body,
        headers={"content-type": seen.headers["content-type"]},
    )
    flow = TC3Auth(Secret(PAIR["secret_id"]), Secret(PAIR["secret_key"])).flow(
        again, float(seen.headers["x-tc-timestamp"])
    )
    with pytest.raises(StopIteration) as stop:
        next(flow)
    assert stop.value.value.headers["authorization"] == seen.headers["authorization"]


def test_errors_in_place_of_an_answer_and_of_a_stream():
    for verb in ("chat_completion", "stream_chat_completion"):
        transport = served(load("hunyuan", "70-tc3-error-signature"))
        model = HunyuanChat(**PAIR, transport=transport)
        with pytest.raises(AuthenticationFailed) as caught:
            list(getattr(model, verb)("hi"))
        assert (caught.value.code, len(transport.requests)) == ("AuthFailure.SignatureFailure", 1)
        model = HunyuanChat(**PAIR, transport=served(load("hunyuan", "71-tc3-error-limit")), max_retries=0)
        with pytest.raises(RateLimited):
            list(getattr(model, verb)("hi"))
        model = ZhiPuChat("chatglm_turbo", api_key=ZHIPU_KEY, transport=served(load("zhipu", "72-v3-error")))
        with pytest.raises(BadRequest) as refused:
            list(getattr(model, verb)("hi"))
        assert refused.value.code == "1214"
    model = BailianChat(api_key="k", transport=served(load("bailian", "71-native-stream-error")))
    with pytest.raises(ContextTooLong):
        list(model.stream_chat_completion("hi"))


def test_parameters():
    model = BailianChat(api_key="k", parameters=BailianChatParameters(temperature=0, enable_search=True))
    assert model.parameters == {"temperature": 0, "enable_search": True}
    body = json.loads(model.exchange.codec.build_request(model.call("hi", parameters={"temperature": 1})).content)
    assert body["parameters"] == {"result_format": "message", "temperature": 1, "enable_search": True}
    assert HunyuanChat(**PAIR, parameters=HunyuanChatParameters(citation=True)).parameters == {"citation": True}
    assert ZhiPuChat(api_key=ZHIPU_KEY, parameters=ZhiPuChatParameters(do_sample=False)).parameters
    card = ZhiPuCharacterChatParameters(meta={"bot_name": "Bob"})
    model = ZhiPuCharacterChat(api_key=ZHIPU_KEY, meta={"user_name": "Ann"}, parameters=card)
    sent = json.loads(model.exchange.codec.build_request(model.call("hi")).content)["meta"]
    assert (sent["bot_name"], sent["user_name"], sent["bot_info"]) == ("Bob", "Ann", "耐心的助手")
    with pytest.raises(ParameterError, match="meta"):
        ZhiPuCharacterChatParameters(meta={"bot": "Bob"})  # type: ignore[dict-item]
    for build in (HunyuanChatParameters, ZhiPuChatParameters, ZhiPuCharacterChatParameters, BailianChatParameters):
        with pytest.raises(ParameterError, match=r"temperature.*at least 0"):
            build(temperature=-1)
    with pytest.raises(ParameterError, match="repetition_penalty"):
        BailianChat(api_key="k").chat_completion("hi", repetition_penalty=0)


def test_models_without_function_calls_get_them_through_the_prompt():
    for model in (
        ZhiPuChat("chatglm_turbo", api_key=ZHIPU_KEY),
        ZhiPuCharacterChat(api_key=ZHIPU_KEY),
        ZhiPuCharacterChat("characterglm", api_key=ZHIPU_KEY),
        HunyuanChat("v1", app_id=1, **PAIR),
        HunyuanChat("hunyuan-lite", **PAIR),
        BailianChat("app", api="app", api_key="k"),
    ):
        content = model.exchange.codec.build_request(model.call("weather?", (GET_WEATHER,))).content.decode()
        assert "get_weather" in content, model
    for model in (HunyuanChat(**PAIR), ZhiPuChat(api_key=ZHIPU_KEY), BailianChat(api_key="k")):
        body = json.loads(model.exchange.codec.build_request(model.call("weather?", (GET_WEATHER,))).content)
        assert "get_weather" in str(body.get("Tools") or body.get("tools") or body["parameters"]["tools"])
    with pytest.raises(ConfigurationError, match="no native function calls"):
        HunyuanChat("hunyuan-lite", **PAIR, tool_mode="native")
    assert HunyuanChat("hunyuan-lite", **PAIR, tool_mode="native", native_tools=True)
