from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from lmagent.errors import ConfigurationError, ParameterError
from lmagent.models.minimax_baichuan import BaichuanChat
from lmagent.providers.base import Request
from lmagent.testing.fake import FakeAnswer, FakeTransport
from tests.models.four_verbs import in_four_verbs

KEYS: dict[str, Any] = {"api_key": "fake-baichuan-key", "secret_key": "fake-baichuan-secret"}


def server(request: Request) -> FakeAnswer:
    signed = b"fake-baichuan-secret" + request.content + request.headers["x-bc-timestamp"].encode()
    assert request.headers["x-bc-signature"] == hashlib.md5(signed).hexdigest()
    message = {"role": "assistant", "content": "hi", "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "answer_tokens": 2, "total_tokens": 3}
    body = json.dumps({"code": 0, "msg": "success", "data": {"messages": [message]}, "usage": usage}).encode()
    return FakeAnswer(body=body + b"\n" if request.url.endswith("/stream/chat") else body)


def test_the_signed_api_in_all_verbs():
    model = BaichuanChat("Baichuan2-53B", **KEYS, transport=FakeTransport(server))
    replies = in_four_verbs(model, "你好", temperature=0)
    assert [(reply.reply, reply.model_id, reply.usage.output_tokens) for reply in replies] == [
        ("hi", "baichuan/Baichuan2-53B", 2)
    ] * 4


def test_the_api_follows_from_the_name_and_can_be_overruled():
    def address(model: str | None, **options: Any) -> str:
        return getattr(BaichuanChat(model, **{**KEYS, **options}).codec, "url", "prompted")

    today = "https://api.baichuan-ai.com/v1/chat/completions"
    assert address("Baichuan2-53B") == "prompted"  # the signed codec, wrapped
    assert address(None) == address("Baichuan4") == address("Baichuan2-Turbo") == today
    assert address("Baichuan2-53B", api="current") == today
    assert address("Baichuan2-Turbo", api="classic") == "prompted"
    assert address("Baichuan4", base_url="http://localhost:1") == "http://localhost:1/v1/chat/completions"
    with pytest.raises(ConfigurationError, match="api is"):
        address("x", api="v3")


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="BAICHUAN_API_KEY"):
        BaichuanChat()
    monkeypatch.setenv("BAICHUAN_API_KEY", "fake-baichuan-key")
    BaichuanChat()
    with pytest.raises(ConfigurationError, match="BAICHUAN_SECRET_KEY"):
        BaichuanChat("Baichuan2-53B")
    monkeypatch.setenv("BAICHUAN_SECRET_KEY", "fake-baichuan-secret")
    monkeypatch.setenv("BAICHUAN_BASE_URL", "http://localhost:1/v1")
    transport = FakeTransport(server)
    BaichuanChat("Baichuan2-53B", transport=transport).chat_completion("a", with_search_enhance=True)
    assert transport.requests[0].url == "http://localhost:1/v1/chat"
    assert json.loads(transport.requests[0].content)["parameters"] == {"with_search_enhance": True}


def test_parameters_are_checked():
    model = BaichuanChat("Baichuan2-53B", **KEYS, transport=FakeTransport(server))
    with pytest.raises(ParameterError, match=r"temperature.*at least 0"):
        model.chat_completion("a", temperature=-1)
    with pytest.raises(ParameterError, match="max_tokens"):
        model.chat_completion("a", max_tokens=5)
