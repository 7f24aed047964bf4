"""`OpenAIChat`: keys, addresses and headers, and the exchange over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmagent.core.messages import Reply
from lmagent.errors import ConfigurationError, ParameterError, QuotaExceeded, StreamInterrupted
from lmagent.models.openai import OpenAIChat
from lmagent.providers.base import ChatCall
from lmagent.providers.openai.chat import OPENAI, OpenAICodec
from lmagent.toolkit.schema import ToolSpec
from tests.loopback import LoopbackServer, answer, json_answer

NAMES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
ADD = ToolSpec(name="add", description="Add.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def codec_of(model: OpenAIChat) -> OpenAICodec:
    assert isinstance(model.codec, OpenAICodec)
    return model.codec


def test_a_key_is_needed_for_openai_itself() -> None:
    for url in (None, "https://api.openai.com/v1", "https://api.openai.com/v1/"):
        with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
            OpenAIChat(base_url=url)
    assert OpenAIChat(base_url="http://localhost:8000/v1").model_id.startswith("openai/")


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_addresses_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://localhost:9/v1/")
    assert codec_of(OpenAIChat("m")).url == "http://localhost:9/v1/chat/completions"
    assert codec_of(OpenAIChat("m", base_url="http://other/v1")).url == "http://other/v1/chat/completions"


def test_headers_of_organization_and_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    with LoopbackServer(json_answer({"choices": [{"message": {"content": "hi"}}]})) as server:
        with OpenAIChat(api_key="sk-123456", base_url=server.url + "/v1", project="proj-1") as model:
            assert model.chat_completion("hi").reply == "hi"
        headers = server.requests[0].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")
    assert headers["authorization"] == "Bearer sk-123456"


def test_a_call_plain_and_streamed_in_both_forms() -> None:
    legacy = {"name": "add", "arguments": '{"a":1}'}

    def reply(request: Any) -> Any:
        message: dict[str, Any] = {"content": None, "tool_calls": [CALL]} if "tools" in request.json else {}
        message = message or {"content": None, "function_call": legacy}
        body: dict[str, Any] = {"id": "r", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        if not request.json.get("stream"):
            return json_answer(body)
        body["choices"][0]["delta"] = body["choices"][0].pop("message")
        return answer(f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n", headers={"content-type": "text/event-stream"})

    with LoopbackServer(reply) as server:
        for old, expected in ((False, "c1"), (True, "call_000000000000000100000000")):
            with OpenAIChat("gpt-4", base_url=server.url + "/v1", legacy_functions=old) as model:
                plain = model.chat_completion("1?", tools=(ADD,))
                *_, streamed = model.stream_chat_completion("1?", tools=(ADD,))
            for item in (plain, streamed):
                assert isinstance(item, Reply)
                assert [(c.id, c.name, c.arguments) for c in item.tool_calls] == [(expected, "add", '{"a":1}')]
                assert item.finish_reason == "tool_calls"


def test_quota_is_not_tried_again_and_a_cut_stream_is_reported() -> None:
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with LoopbackServer(json_answer(body, status=429)) as server:
        with OpenAIChat("m", base_url=server.url + "/v1") as model, pytest.raises(QuotaExceeded) as caught:
            model.chat_completion("hi")
        assert len(server.requests) == 1
    assert caught.value.status == 429
    chunk = {"choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]}
    events = answer(f"data: {json.dumps(chunk)}\n\n", headers={"content-type": "text/event-stream"})
    with (
        LoopbackServer(events) as server,
        OpenAIChat("m", base_url=server.url + "/v1") as model,
        pytest.raises(StreamInterrupted) as interrupted,
    ):
        list(model.stream_chat_completion("hi"))
    assert interrupted.value.partial.content == "half"


def test_rules_of_reasoning_models_can_be_switched_off() -> None:
    with pytest.raises(ParameterError, match=r"pass model_rules=\(\)"):
        OpenAIChat("o3", api_key="sk-123456").chat_completion("hi", temperature=0)
    model = OpenAIChat("o3", api_key="sk-123456", model_rules=())
    call: ChatCall = model.call("hi", parameters={"temperature": 0})
    assert json.loads(model.codec.build_request(call).content)["temperature"] == 0
    assert codec_of(model).profile is OPENAI
