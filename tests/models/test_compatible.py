"""`OpenAICompatibleChat`: vendors by name, any address, keys from the environment, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from lmagent.core.messages import Reply
from lmagent.errors import ConfigurationError, ParameterError
from lmagent.models.openai import OpenAICompatibleChat
from lmagent.models.parameters import AzureChatParameters, OpenAIChatParameters, OpenAICompatibleChatParameters
from lmagent.providers.openai.chat import AZURE
from lmagent.providers.openai.profile import OPENAI
from lmagent.providers.openai.vendor_profiles import GENERIC, PROFILES
from tests.loopback import LoopbackServer, answer, json_answer

NAMES = {name for profile in PROFILES.values() for name in (*profile.key_env, *profile.base_url_env)}
REPLY = {"id": "r", "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}]}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def url_of(model: OpenAICompatibleChat) -> str:
    codec: Any = model.codec
    return codec.url


@pytest.mark.parametrize("vendor", sorted(PROFILES))
def test_every_provider_is_built_from_its_environment(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = PROFILES[vendor]
    address = None if profile.base_url else "http://localhost:9/v1"
    if profile.needs_key:
        with pytest.raises(ConfigurationError, match=profile.key_env[0]):
            OpenAICompatibleChat("m", vendor=vendor)
    monkeypatch.setenv(profile.key_env[0], "key-from-the-environment")
    model = OpenAICompatibleChat("m", vendor=vendor, base_url=address)
    assert model.model_id == f"{vendor}/m"
    assert url_of(model) == (address or profile.base_url) + "/chat/completions"
    if profile.default_model:
        assert OpenAICompatibleChat(vendor=vendor).model_id == f"{vendor}/{profile.default_model}"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="No vendor 'acme'"):
        OpenAICompatibleChat("m", vendor="acme")
    with pytest.raises(ConfigurationError, match="OPENAI_COMPATIBLE_BASE_URL"):
        OpenAICompatibleChat("m")
    with pytest.raises(ConfigurationError, match=r"no default model: pass model='\.\.\.'"):
        OpenAICompatibleChat(vendor="vllm")


def test_addresses_of_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:11434")
    assert url_of(OpenAICompatibleChat("m", vendor="ollama")) == "http://127.0.0.1:11434/v1/chat/completions"
    model = OpenAICompatibleChat("m", vendor="vllm", base_url="http://gpu:8000/")
    assert url_of(model) == "http://gpu:8000/v1/chat/completions"
    model = OpenAICompatibleChat("m", vendor="vllm", base_url="http://gpu:8000/api")
    assert url_of(model) == "http://gpu:8000/api/chat/completions"


def test_parameters_are_the_vendors() -> None:
    model = OpenAICompatibleChat("m", vendor="qwen", api_key="k-123456", parameters={"enable_thinking": False})
    assert json.loads(model.codec.build_request(model.call("hi")).content)["enable_thinking"] is False
    with pytest.raises(ParameterError, match="no parameter of OpenAICompatibleChatParameters"):
        OpenAICompatibleChat("m", vendor="qwen", api_key="k-123456", parameters={"colour": "red"})
    with pytest.raises(ParameterError, match="qwen has no parameter 'grammar'"):
        model.chat_completion("hi", grammar="root ::= 'a'")


def test_every_parameter_of_a_profile_has_a_field() -> None:
    fields = set(OpenAICompatibleChatParameters.model_fields)
    for profile in PROFILES.values():
        assert set(profile.parameters) <= fields, profile.provider
    for profile, kind in ((OPENAI, OpenAIChatParameters), (AZURE, AzureChatParameters)):
        assert set(profile.parameters) <= set(kind.model_fields), profile.provider


def test_all_four_verbs_over_http() -> None:
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "hel"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]},
    ]
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

    def reply(request: Any) -> Any:
        if request.json.get("stream"):
            return answer(events, headers={"content-type": "text/event-stream"})
        return json_answer(REPLY)

    async def both(model: OpenAICompatibleChat) -> list[Reply]:
        first = await model.async_chat_completion("hi")
        items = [item async for item in model.async_stream_chat_completion("hi")]
        await model.aclose()
        return [first, items[-1]]  # type: ignore[list-item]

    acme = replace(GENERIC, provider="acme", key_env=("ACME_API_KEY",))
    with (
        LoopbackServer(reply) as server,
        OpenAICompatibleChat(
            "m", vendor=acme, base_url=server.url + "/v1", api_key="k-123456", headers={"x-title": "t"}
        ) as model,
    ):
        replies = [model.chat_completion("hi"), list(model.stream_chat_completion("hi"))[-1], *asyncio.run(both(model))]
        requests = server.requests
    assert [item.reply for item in replies if isinstance(item, Reply)] == ["hello"] * 4
    assert {item.model_id for item in replies if isinstance(item, Reply)} == {"acme/m"}
    assert {request.headers["authorization"] for request in requests} == {"Bearer k-123456"}
    assert {request.headers["x-title"] for request in requests} == {"t"}
    assert requests[0].json == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
