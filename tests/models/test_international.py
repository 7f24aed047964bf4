"""Anthropic, Gemini and the Responses API from the public API to a loopback server, in all four verbs."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from lmagent.asking.retry import RetryPolicy
from lmagent.errors import ConfigurationError, Overloaded, ParameterError, StreamInterrupted
from lmagent.models.anthropic import AnthropicChat
from lmagent.models.gemini import GeminiChat
from lmagent.models.loading import load_from_model_id
from lmagent.models.model import ChatModel
from lmagent.models.openai import AzureChat, OpenAIChat, OpenAICompatibleChat, OpenAIResponsesChat
from lmagent.providers.anthropic import AnthropicCodec
from lmagent.providers.gemini import GeminiCodec
from lmagent.providers.openai.chat import AzureCodec, OpenAICodec
from lmagent.providers.openai.responses import ResponsesCodec
from tests.loopback import LoopbackServer, Received, answer
from tests.providers.wire_intl import load

VARIABLES = (
    "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "GOOGLE_API_KEY", "GEMINI_API_KEY",
    "GOOGLE_GEMINI_BASE_URL", "GOOGLE_GENAI_API_VERSION", "GOOGLE_CLOUD_LOCATION", "OPENAI_API_KEY",
    "OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


PLATFORMS: dict[str, tuple[Callable[..., ChatModel], dict[str, str]]] = {
    "anthropic": (AnthropicChat, {"x-api-key": "key-12345678"}),
    "gemini": (GeminiChat, {"x-goog-api-key": "key-12345678"}),
    "openai-responses": (OpenAIResponsesChat, {"authorization": "Bearer key-12345678"}),
}


def serve(platform: str) -> Callable[[Received], Any]:
    """Answer as the recordings do: whole or streamed, as the request asks."""

    def reply(request: Received) -> Any:
        streams = "stream" in request.path or request.json.get("stream")
        case = load(platform, "06-stream-text" if streams else "01-chat")
        kind = "text/event-stream" if streams else "application/json"
        return answer(case.content, headers={"content-type": kind})

    return reply


async def async_stream(model: ChatModel) -> list[Any]:
    return [item async for item in model.async_stream_chat_completion("hi")]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_four_verbs_over_http(platform: str):
    build, headers = PLATFORMS[platform]
    with LoopbackServer(serve(platform)) as server, build(api_key="key-12345678", base_url=server.url) as model:
        whole = model.chat_completion("hi")

        async def both() -> tuple[Any, list[Any]]:
            async with model:
                return await model.async_chat_completion("hi"), await async_stream(model)

        async_whole, async_items = asyncio.run(both())
        items = list(model.stream_chat_completion("hi"))
        assert whole.reply == async_whole.reply == "Hello! How can I help?"
        assert items[-1].reply == async_items[-1].reply == "Hello 世界!"  # type: ignore[union-attr]
        assert "".join(item.stream.delta for item in items[:-1]) == "Hello 世界!"
        assert len(server.requests) == 4
        for request in server.requests:
            assert headers.items() <= dict(request.headers).items()
            assert "key-12345678" not in request.target
    assert "key-12345678" not in repr(model)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_busy_provider_is_asked_again_and_then_reported(platform: str):
    names = {"anthropic": "24-error-529", "gemini": "23-error-503", "openai-responses": "11-failed"}
    case = load(platform, names[platform])
    build, _ = PLATFORMS[platform]
    failing = answer(case.content, case.status, {"retry-after-ms": "1"})
    whole = answer(load(platform, "01-chat").content)
    with LoopbackServer([failing, whole]) as server, build(api_key="k", base_url=server.url) as model:
        reply = model.chat_completion("hi")
        assert (reply.reply, reply.attempts) == ("Hello! How can I help?", 2)


def test_an_error_event_in_mid_stream_keeps_what_came():
    body = load("anthropic", "26-stream-error-event").content
    with (
        LoopbackServer(answer(body, headers={"content-type": "text/event-stream"})) as server,
        AnthropicChat(api_key="k", base_url=server.url, max_retries=RetryPolicy(max_retries=0)) as model,
    ):
        with pytest.raises(StreamInterrupted) as caught:
            list(model.stream_chat_completion("hi"))
        assert caught.value.partial.content == "Par"
        assert isinstance(caught.value.__cause__, Overloaded)


@pytest.mark.parametrize(
    ("platform", "variables"),
    [
        ("anthropic", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"]),
        ("gemini", ["GOOGLE_API_KEY", "GEMINI_API_KEY"]),
        ("openai-responses", ["OPENAI_API_KEY"]),
    ],
)
def test_keys_come_from_the_environment(platform: str, variables: list[str], monkeypatch: pytest.MonkeyPatch):
    build, _ = PLATFORMS[platform]
    with pytest.raises(ConfigurationError) as caught:
        build()
    for variable in variables:
        assert variable in str(caught.value)
        with monkeypatch.context() as patch:
            patch.setenv(variable, "key-12345678")
            assert build().model_id.startswith(f"{platform}/")
            assert load_from_model_id(f"{platform}/some-model").model_id == f"{platform}/some-model"


def test_google_api_key_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINI_API_KEY", "gemini-12345678")
    monkeypatch.setenv("GOOGLE_API_KEY", "google-12345678")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "beta")
    with LoopbackServer(serve("gemini")) as server, GeminiChat(base_url=server.url) as model:
        model.chat_completion("hi")
        assert server.requests[0].headers["x-goog-api-key"] == "google-12345678"
        assert server.requests[0].path == "/v1beta/models/gemini-3.5-flash:generateContent"


def test_an_auth_token_is_a_bearer_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-12345678")
    with LoopbackServer(serve("anthropic")) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        with AnthropicChat() as model:
            model.chat_completion("hi")
        headers = server.requests[0].headers
        assert headers["authorization"] == "Bearer token-12345678"
        assert "x-api-key" not in headers


def test_vertex():
    with pytest.raises(ConfigurationError, match="access_token"):
        GeminiChat(project="p")
    with LoopbackServer(serve("gemini")) as server:
        with GeminiChat("g", project="p", location="us", access_token="tok-12345678", base_url=server.url) as model:
            model.chat_completion("hi")
        assert server.requests[0].headers["authorization"] == "Bearer tok-12345678"
        path = "/v1beta1/projects/p/locations/us/publishers/google/models/g:generateContent"
        assert server.requests[0].path == path
    codec = GeminiChat("g", project="p", access_token="tok-12345678").codec
    assert isinstance(codec, GeminiCodec)
    assert codec.base_url.startswith("https://aiplatform.googleapis.com/")


@pytest.mark.parametrize(
    ("platform", "given"),
    [
        ("anthropic", {"temperature": 1.5}),
        ("anthropic", {"prompt_cache": {"tools": "2h"}}),
        ("anthropic", {"include_thoughts": True}),
        ("gemini", {"top_logprobs": 50}),
        ("openai-responses", {"verbosity": "loud"}),
    ],
)
def test_parameters_are_checked_at_once(platform: str, given: dict[str, Any]):
    build, _ = PLATFORMS[platform]
    with pytest.raises(ParameterError, match=next(iter(given))):
        build(api_key="k", parameters=given)


@pytest.mark.parametrize(
    ("platform", "given", "sent"),
    [
        ("anthropic", {"stop": "END", "user": "u"}, {"stop_sequences": ["END"], "metadata": {"user_id": "u"}}),
        ("gemini", {"top_k": 4}, {"generationConfig": {"topK": 4}}),
        ("openai-responses", {"verbosity": "low"}, {"text": {"verbosity": "low"}, "store": False}),
    ],
)
def test_parameters_reach_the_wire(platform: str, given: dict[str, Any], sent: dict[str, Any]):
    build, _ = PLATFORMS[platform]
    with LoopbackServer(serve(platform)) as server, build(api_key="k", base_url=server.url) as model:
        model.chat_completion("hi", **given)
        body = json.loads(server.requests[0].body)
        assert {name: body[name] for name in sent} == sent


def test_every_option_of_a_codec_is_an_argument_of_its_model():
    plumbing = {"self", "base_url", "provider", "profile", "store", "headers", "params", "any_url"}
    for door, codec in (
        (OpenAIChat, OpenAICodec),
        (OpenAICompatibleChat, OpenAICodec),
        (AzureChat, AzureCodec),
        (AnthropicChat, AnthropicCodec),
        (GeminiChat, GeminiCodec),
        (OpenAIResponsesChat, ResponsesCodec),
    ):
        switches = set(inspect.signature(codec.__init__).parameters) - plumbing
        assert switches <= set(inspect.signature(door.__init__).parameters), door.__name__


def test_what_a_model_refuses_can_be_overridden_by_model_rules():
    with pytest.raises(ParameterError, match=r"pass model_rules=\(\)"):
        OpenAIResponsesChat("o3", api_key="k").chat_completion("hi", temperature=0)
    with (
        LoopbackServer(serve("openai-responses")) as server,
        OpenAIResponsesChat("o3", api_key="k", base_url=server.url, model_rules=()) as model,
    ):
        model.chat_completion("hi", temperature=0)
        assert server.requests[0].json["temperature"] == 0


def test_usage_in_streams_is_asked_for_or_not():
    for wanted in (True, False):
        model = OpenAIChat("m", api_key="k", base_url="http://127.0.0.1:9", stream_usage=wanted)
        body = json.loads(model.codec.build_request(model.call("hi", stream=True)).content)
        assert ("stream_options" in body) is wanted


def test_codec_settings_pass_through():
    gemini = GeminiChat("m", api_key="k", budgets=True, schema_with_tools=False, signatures=False).codec
    assert isinstance(gemini, GeminiCodec)
    assert (gemini.budgets, gemini.schema_with_tools, gemini.signatures) == (True, False, False)
    codec = AnthropicChat("m", api_key="k", version="2026-10-21", max_tokens=7, betas=["b"], sampling=True).codec
    assert isinstance(codec, AnthropicCodec)
    assert (codec.version, codec.max_tokens, codec.betas, codec.sends_sampling) == ("2026-10-21", 7, ("b",), True)
