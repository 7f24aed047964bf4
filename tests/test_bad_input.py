"""Mistakes of users, models, tools and servers lead to a typed error or to a result that the model can act on."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from lmagent import Agent, ChatEngine, History, OpenAIChat, ToolError, function, load_from_model_id
from lmagent.core.history import history_problems
from lmagent.core.messages import ToolMessage, message_from_dict, message_to_dict
from lmagent.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    FunctionDefinitionError,
    InvalidResponse,
    LMAgentError,
    NotFound,
    QuotaExceeded,
)
from lmagent.testing import ScriptedModel, calls
from tests.four_ways import AGENT_VERBS, MODEL_VERBS, AgentVerb, nothing_left
from tests.loopback import CLOSE, answer, json_answer, raw
from tests.openai_server import openai_server

every_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
every_model_verb = pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)
CANARY = "sk-canary-0123456789abcdefWXYZ"


def _chat(url: str, **options: Any) -> OpenAIChat:
    return OpenAIChat("m", api_key=CANARY, base_url=url + "/v1", **{"max_retries": 0, **options})


# Keys, ids and servers


def test_missing_key_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"No API key for 'openai': pass api_key=\.\.\. or set OPENAI_API_KEY"):
        OpenAIChat()
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        load_from_model_id("openai/gpt-4o")


@pytest.mark.parametrize("key", ["", "   "])
def test_blank_key_is_a_missing_key(key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigurationError, match="No API key"):
        OpenAIChat()
    with pytest.raises(ConfigurationError, match="No API key"):
        OpenAIChat(api_key=key)


@every_model_verb
def test_wrong_key_is_an_authentication_error(verb: Any):
    error = {"error": {"message": f"Incorrect API key provided: {CANARY}", "code": "invalid_api_key", "type": "x"}}
    refusal = json_answer(error, status=401, headers={"x-request-id": "req-7"})
    with nothing_left(), openai_server(refusal) as server:
        with _chat(server.url, max_retries=2) as model, pytest.raises(AuthenticationFailed) as caught:
            verb(model, "Hi")
        assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
        assert len(server.requests) == 1
        assert server.wait_closed()
    failed = caught.value
    assert (failed.status, failed.provider, failed.model, failed.request_id) == (401, "openai", "m", "req-7")
    assert not failed.retryable
    for shown in (str(failed), repr(failed), json.dumps(failed.to_dict()), str(failed.__cause__)):
        assert CANARY not in shown


@every_verb
def test_wrong_key_ends_a_run_with_the_prompt_in_its_history(verb: AgentVerb):
    with openai_server(json_answer({"error": {"message": "no"}}, status=401)) as server, _chat(server.url) as model:
        history = History()
        with pytest.raises(AuthenticationFailed) as caught:
            verb(Agent(model), "Hi", history=history)
        assert caught.value.run.messages == history.messages
        asyncio.run(model.aclose())


@pytest.mark.parametrize("model_id", ["nobody/gpt", "gpt-4o", "openAI/gpt", "/x", "../x", "openai\n/x", "no one/x"])
def test_unknown_provider_is_a_configuration_error(model_id: str):
    with pytest.raises(ConfigurationError, match="No provider") as caught:
        load_from_model_id(model_id)
    assert "openai" in str(caught.value) or len(str(caught.value)) >= 499


@every_model_verb
def test_unknown_model_of_a_server_is_not_found(verb: Any):
    error = {"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}
    with (
        openai_server(json_answer(error, status=404)) as server,
        _chat(server.url) as model,
        pytest.raises(NotFound, match="does not"),
    ):
        verb(model, "Hi")


@every_model_verb
def test_closed_port_is_a_connection_error(verb: Any):
    with openai_server("x") as server:
        url = server.url
    with _chat(url) as model, pytest.raises(ConnectionFailed):
        verb(model, "Hi")


BROKEN = {
    "html": answer("<html><body>502</body></html>", headers={"content-type": "text/html"}),
    "empty": answer(b""),
    "no json": answer("{"),
    "array": json_answer([]),
    "null": answer("null"),
    "no choices": json_answer({"id": "x"}),
    "choices of numbers": json_answer({"choices": [1, 2]}),
    "closed at once": raw(CLOSE),
}


@every_model_verb
@pytest.mark.parametrize("case", BROKEN)
def test_invalid_responses_have_typed_errors(verb: Any, case: str):
    with openai_server(BROKEN[case]) as server, _chat(server.url) as model:
        with pytest.raises(LMAgentError) as caught:
            verb(model, "Hi")
        assert isinstance(caught.value, InvalidResponse | ConnectionFailed | LMAgentError)
        assert "<html" not in str(caught.value)


@every_model_verb
def test_used_up_quota_is_not_retried(verb: Any):
    error = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with openai_server(json_answer(error, status=429)) as server, _chat(server.url, max_retries=3) as model:
        with pytest.raises(QuotaExceeded):
            verb(model, "Hi")
        assert len(server.requests) == 1


def test_key_is_not_in_the_repr_or_pickle_of_a_model():
    model = _chat("http://127.0.0.1:9")
    shown = repr(model) + repr(vars(model)) + repr(vars(model.exchange)) + str(model.parameters)
    assert CANARY not in shown


# Functions and tools


def test_function_without_a_schema_is_a_definition_error():
    def odd(value: threading.Lock) -> None:  # type: ignore[valid-type]
        """Nothing."""

    with pytest.raises(FunctionDefinitionError, match=r"odd.*value") as caught:
        ChatEngine(ScriptedModel([]), functions=[odd])
    assert isinstance(caught.value, TypeError)


@function
def divide(a: float, b: float) -> float:
    """Divide."""
    return a / b


@function
def refuse() -> None:
    """Refuse."""
    raise ToolError(f"Ask again later, key={CANARY}.")


@function(expose_errors=False)
def hide() -> None:
    """Fail in private."""
    raise RuntimeError("internal detail")


@function
def huge() -> str:
    """Return 10 MB."""
    return "x" * 10_000_000


@function
def unserialisable() -> object:
    """Return something that is no JSON."""
    return object()


@function
def surrogates() -> str:
    """Return a lone surrogate."""
    return "a\ud800b"


@function
def not_a_number() -> float:
    """Return NaN."""
    return float("nan")


@function
def recursion() -> int:
    """Recurse for ever."""
    return recursion()


TOOLS = [divide, refuse, hide, huge, unserialisable, surrogates, not_a_number, recursion]

MISTAKES: dict[str, tuple[tuple[str, Any], bool, tuple[str, ...]]] = {
    "raises": (("divide", {"a": 1, "b": 0}), True, ("ZeroDivisionError", "division by zero")),
    "tool error": (("refuse", {}), True, ("Ask again later",)),
    "hidden error": (("hide", {}), True, ("tool failed: RuntimeError",)),
    "10 MB": (("huge", {}), False, ("of 10000000 characters left out",)),
    "unserialisable": (("unserialisable", {}), True, ("cannot be written as JSON",)),
    "surrogates": (("surrogates", {}), False, ("a\ufffdb",)),
    "nan": (("not_a_number", {}), False, ("NaN", "written as text")),
    "recursion": (("recursion", {}), True, ("RecursionError",)),
    "unknown tool": (("devide", {}), True, ("There is no tool 'devide'. Did you mean divide",)),
    "no name": (("", {}), True, ("There is no tool ''",)),
    "broken JSON": (("divide", '{"a": 1, "b'), True, ("Input should be valid JSON",)),
    "no JSON": (("divide", "one by two"), True, ("Input should be valid JSON",)),
    "an array": (("divide", "[1, 2]"), True, ("object",)),
    "a number": (("divide", "5"), True, ("object",)),
    "missing": (("divide", {"a": 1}), True, ("b",)),
    "extra": (("divide", {"a": 1, "b": 2, "c": 3}), True, ("c",)),
    "wrong type": (("divide", {"a": "one", "b": 2}), True, ("a", "number")),
    "deep": (("divide", '{"a": ' + "[" * 300 + "]" * 300 + ', "b": 1}'), True, ()),
    "infinity": (("divide", '{"a": Infinity, "b": 1}'), True, ()),
    "lone surrogate": (("divide", '{"a": "\\ud800", "b": 1}'), True, ("a",)),
}


@every_verb
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_becomes_an_error_result_for_the_model(verb: AgentVerb, mistake: str):
    call, is_error, said = MISTAKES[mistake]
    history = History()
    model = ScriptedModel([calls(call), "I see."])
    with nothing_left():
        result = verb(Agent(model, TOOLS), "Go.", history=history)
    [message] = [each for each in result.messages if isinstance(each, ToolMessage)]
    assert message.is_error is is_error
    for part in said:
        assert part in message.content
    assert len(message.content) <= 64 * 1024
    assert CANARY not in message.content
    assert "Traceback" not in message.content
    assert "/lmagent/" not in message.content
    assert result.reply == "I see."
    assert model.asked[1] == result.messages[:-1]
    assert history_problems(history.messages) == []
    stored = [json.loads(json.dumps(message_to_dict(each))) for each in history.messages]
    assert tuple(message_from_dict(each) for each in stored) == history.messages


@every_verb
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_tool_that_exceeds_its_timeout_is_an_error_result(verb: AgentVerb, kind: str, count: int):
    release = threading.Event()

    def wait(number: int) -> str:
        """Wait."""
        release.wait(5)
        return "late"

    async def async_wait(number: int) -> str:
        """Wait."""
        await asyncio.sleep(5)
        return "late"

    slow = function(wait if kind == "sync" else async_wait, name="slow", timeout=0.05)
    model = ScriptedModel([calls(*(("slow", {"number": number}) for number in range(count))), "Then not."])
    started = time.monotonic()
    with nothing_left():
        result = verb(Agent(model, [slow]), "Go.")
        assert time.monotonic() - started < 2
        release.set()
    contents = [message.content for message in result.messages if isinstance(message, ToolMessage)]
    assert contents == ["slow timed out after 0.05 seconds"] * count
    assert result.reply == "Then not."


@every_verb
def test_repaired_json_runs_once_and_its_repair_is_recorded(verb: AgentVerb):
    ran: list[int] = []
    tool = function(lambda n: ran.append(n) or n, name="note")
    result = verb(Agent(ScriptedModel([calls(("note", "{'n': 5,}")), "ok"]), [tool]), "Go.")
    assert ran == [5]
    assert result.tool_calls[0].repairs
    assert result.tool_calls[0].arguments == "{'n': 5,}"
    result = verb(Agent(ScriptedModel([calls(("note", "{'n': 5,}")), "ok"]), [tool], repair=False), "Go.")
    assert ran == [5]
    assert result.messages[2].is_error  # type: ignore[union-attr]


@every_verb
def test_lone_surrogates_are_replaced_everywhere(verb: AgentVerb):
    with openai_server([("note", '{"text": "\\ud83d"}')], "bad \ud800 text") as server, _chat(server.url) as model:
        seen: list[str] = []
        tool = function(lambda text: seen.append(text) or text, name="note")
        result = verb(Agent(model, [tool], system_prompt="\udfff"), "\udc00 hi")
        for message in result.messages[1:]:
            json.dumps(message_to_dict(message), ensure_ascii=False).encode()
        assert result.reply.encode()
        assert seen in (["\ufffd"], [])
        for request in server.requests:
            request.body.decode("utf-8")
        asyncio.run(model.aclose())


@every_verb
def test_calls_of_a_truncated_reply_are_not_run(verb: AgentVerb):
    ran: list[int] = []
    tool = function(lambda n: ran.append(n) or n, name="note")
    cut = calls(("note", {"n": 1}), ("note", '{"n": 1'))
    from dataclasses import replace

    model = ScriptedModel([replace(cut, finish_reason="length"), "sorry"])
    result = verb(Agent(model, [tool]), "Go.")
    assert ran == [1]
    assert "ended early (length)" in result.messages[3].content  # type: ignore[operator]


def test_wrong_argument_types_are_named():
    model = ScriptedModel(["hi"])
    with pytest.raises(TypeError, match="load_from_model_id"):
        Agent("openai/gpt-4o")
    with pytest.raises(TypeError, match="Limits"):
        Agent(model, limits={"rounds": 1})
    with pytest.raises(TypeError, match="seconds"):
        OpenAIChat(api_key="any", timeout="5")
    with pytest.raises(TypeError, match="text"):
        OpenAIChat(api_key=5)
    with pytest.raises(TypeError, match="text"):
        load_from_model_id(5)
    for wrong in ("x", -1):
        with pytest.raises(ConfigurationError, match="max_retries"):
            OpenAIChat(api_key="any", max_retries=wrong)
    with pytest.raises(ConfigurationError, match="name of a model"):
        OpenAIChat("", api_key="any")
    with pytest.raises(TypeError, match=r"parameters=\{'temperature'"):
        OpenAIChat("m", api_key="any", temperature=0)
