"""`AzureChat`: settings of LMClient, of the official SDK, and given ones; over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from lmagent.errors import ConfigurationError, ContentFiltered
from lmagent.models.openai import AzureChat
from lmagent.models.parameters import AzureChatParameters
from tests.loopback import LoopbackServer, json_answer

NAMES = (
    "AZURE_OPENAI_API_KEY",
    "AZURE_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_API_BASE",
    "AZURE_CHAT_API_ENGINE",
    "AZURE_CHAT_MODEL_NAME",
    "AZURE_OPENAI_DEPLOYMENT",
    "OPENAI_API_VERSION",
    "AZURE_API_VERSION",
    "AZURE_OPENAI_AD_TOKEN",
)
REPLY = {"id": "r", "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}]}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def asked(**options: Any) -> Any:
    with LoopbackServer(json_answer(REPLY)) as server, AzureChat(endpoint=server.url, **options) as model:
        assert model.chat_completion("hi").reply == "hello"
        return server.requests[0]


def test_the_dated_api_with_a_key() -> None:
    sources = [{"type": "azure_search"}]
    parameters = AzureChatParameters(temperature=0, data_sources=sources)
    request = asked(model="my deploy", api_version="2024-10-21", api_key="k-123456", parameters=parameters)
    assert (request.json["temperature"], request.json["data_sources"]) == (0, sources)
    assert request.target == "/openai/deployments/my%20deploy/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == "k-123456"
    assert "authorization" not in request.headers


def test_the_v1_api_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    request = asked(model="d", api_version="", ad_token=lambda: "eyJ-token")
    assert request.target == "/openai/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer eyJ-token"
    assert request.json["model"] == "d"


def test_names_of_lmclient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "k-123456")
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")
    monkeypatch.setenv("AZURE_CHAT_MODEL_NAME", "other")
    monkeypatch.setenv("AZURE_CHAT_API_ENGINE", "mine")
    assert asked().target == "/openai/deployments/mine/chat/completions?api-version=2024-10-21"


def test_a_token_of_the_environment_wins_over_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "eyJ-token")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k-123456")
    assert asked(model="d").headers["authorization"] == "Bearer eyJ-token"
    assert asked(model="d", api_key="k-given").headers["api-key"] == "k-given"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="AZURE_CHAT_API_ENGINE"):
        AzureChat(endpoint="https://r.openai.azure.com", api_key="k-123456")
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_ENDPOINT"):
        AzureChat("d", api_key="k-123456")
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_API_KEY"):
        AzureChat("d", endpoint="https://r.openai.azure.com")
    with pytest.raises(ConfigurationError, match="a date such as"):
        AzureChat("d", endpoint="https://r.openai.azure.com", api_key="k-123456", api_version="None")


def test_a_filtered_prompt() -> None:
    body = {"error": {"message": "filtered", "param": "prompt", "code": "content_filter", "status": 400}}
    with (
        LoopbackServer(json_answer(body, status=400)) as server,
        AzureChat("d", endpoint=server.url, api_key="k-123456") as model,
        pytest.raises(ContentFiltered, match="filtered"),
    ):
        model.chat_completion("hi")
    assert len(server.requests) == 1
