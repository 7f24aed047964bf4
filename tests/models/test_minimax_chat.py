from __future__ import annotations

import json
from typing import Any

import pytest

from lmagent.asking.retry import RetryPolicy
from lmagent.errors import ConfigurationError, ParameterError, RateLimited
from lmagent.models.minimax_baichuan import MinimaxChat, MinimaxProChat
from lmagent.models.parameters import MinimaxChatParameters, MinimaxProChatParameters
from lmagent.providers.base import Request
from lmagent.testing.fake import FakeAnswer, FakeTransport
from lmagent.toolkit.schema import ToolSpec
from tests.models.four_verbs import in_four_verbs

KEYS: dict[str, Any] = {"api_key": "fake-minimax-key", "group_id": "17"}
OK = {"status_code": 0, "status_msg": ""}
SSE = {"content-type": "text/event-stream"}


def old_server(request: Request) -> FakeAnswer:
    assert request.params == {"GroupId": "17"}
    assert request.headers["authorization"] == "Bearer fake-minimax-key"
    said = {"sender_type": "BOT", "sender_name": "b", "text": "hi"}
    choice = {"text": "hi", "delta": "hi", "messages": [said], "finish_reason": "stop"}
    answer = {"reply": "hi", "choices": [choice], "usage": {"total_tokens": 3}, "base_resp": OK}
    if json.loads(request.content).get("stream"):
        return FakeAnswer(body=f"data: {json.dumps(answer)}\n\n".encode(), headers=SSE)
    return FakeAnswer(body=json.dumps(answer).encode())


@pytest.mark.parametrize("kind", [MinimaxChat, MinimaxProChat])
def test_the_old_apis_in_all_verbs(kind):
    model = kind("abab5.5-chat", **KEYS, transport=FakeTransport(old_server))
    replies = in_four_verbs(model, "你好", temperature=0)
    assert [reply.reply for reply in replies] == ["hi"] * 4
    assert {reply.model_id for reply in replies} == {model.model_id}


def test_model_ids_are_lmclients():
    assert MinimaxChat("abab5.5-chat", **KEYS).model_id == "minimax/abab5.5-chat"
    assert MinimaxProChat(**KEYS).model_id == "minimax_pro/abab5.5-chat"
    assert MinimaxChat(api_key="k-000000").model_id.startswith("minimax/MiniMax-")


def test_the_api_follows_from_the_name_and_can_be_overruled():
    def address(model: str | None, **options: Any) -> str:
        codec = MinimaxChat(model, **{**KEYS, **options}).codec
        return getattr(codec, "url", "prompted")

    assert address("abab5.5-chat") == "prompted"  # the old codec, wrapped
    assert address("abab6.5s-chat") == "https://api.minimax.chat/v1/text/chatcompletion_v2"
    assert address("MiniMax-Text-01") == "https://api.minimax.chat/v1/text/chatcompletion_v2"
    assert address("MiniMax-M2.7") == "https://api.minimax.io/v1/chat/completions"
    assert address("abab6.5s-chat", api="current") == "https://api.minimax.io/v1/chat/completions"
    assert address("abab6.5s-chat", api="classic") == "prompted"
    assert address("MiniMax-M2.7", base_url="http://localhost:1") == "http://localhost:1/v1/chat/completions"
    assert address("abab7-chat", base_url="http://localhost:1/v1") == "http://localhost:1/v1/text/chatcompletion_v2"
    with pytest.raises(ConfigurationError, match="api is"):
        address("x", api="v3")


def test_keys_and_groups_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MINIMAX_GROUP_ID", raising=False)
    with pytest.raises(ConfigurationError, match="MINIMAX_API_KEY"):
        MinimaxChat()
    monkeypatch.setenv("MINIMAX_API_KEY", "fake-minimax-key")
    MinimaxChat("MiniMax-M2.7")  # needs no group
    for kind in (MinimaxChat, MinimaxProChat):
        with pytest.raises(ConfigurationError, match="MINIMAX_GROUP_ID"):
            kind("abab5.5-chat")
    monkeypatch.setenv("MINIMAX_GROUP_ID", "17")
    monkeypatch.setenv("MINIMAX_API_HOST", "http://localhost:1")
    transport = FakeTransport(old_server)
    MinimaxProChat(transport=transport).chat_completion("a")
    assert transport.requests[0].url == "http://localhost:1/v1/text/chatcompletion_pro"


def test_tools_of_the_old_api_go_through_the_prompt():
    transport = FakeTransport(old_server)
    model = MinimaxChat("abab5.5-chat", **KEYS, transport=transport)
    model.chat_completion("a", tools=(ToolSpec(name="add_two", description="Add."),))
    sent = json.loads(transport.requests[0].content)
    assert "add_two" in sent["prompt"]
    assert "functions" not in sent


def test_a_rate_limit_hidden_in_a_200_is_retried():
    bodies = [{"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}]

    def server(request: Request) -> FakeAnswer:
        return FakeAnswer(body=json.dumps(bodies.pop()).encode()) if bodies else old_server(request)

    options: Any = {**KEYS, "transport": FakeTransport(server)}
    quick = RetryPolicy(max_retries=1, initial=0.001)
    assert MinimaxProChat(**options, max_retries=quick).chat_completion("a").attempts == 2
    bodies.append({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}})
    with pytest.raises(RateLimited):
        MinimaxProChat(**options, max_retries=0).chat_completion("a")


def test_parameters_are_checked():
    with pytest.raises(ParameterError, match="beam_width"):
        MinimaxChatParameters(beam_width=5)
    with pytest.raises(ParameterError, match="bot_setting"):
        MinimaxProChatParameters(bot_setting=[])
    model = MinimaxProChat(**KEYS, transport=FakeTransport(old_server), parameters={"mask_sensitive_info": False})
    model.chat_completion("a", bot_setting=[{"bot_name": "Ann", "content": "a cook"}])
    sent = json.loads(model.exchange.transport.requests[0].content)
    assert sent["bot_setting"] == [{"bot_name": "Ann", "content": "a cook"}]
    assert sent["mask_sensitive_info"] is False
