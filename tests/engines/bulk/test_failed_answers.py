"""Answers that a provider ended with an error are failed items; errors that concern the key stop the run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lmagent import Agent, AssistantMessage, CompletionEngine
from lmagent.core.messages import Reply
from lmagent.engines.bulk.journal import read_journal
from lmagent.errors import InvalidResponse, JournalError, LMAgentError, ProviderError
from lmagent.testing import FakeAnswer, ScriptedModel
from tests.engines.bulk.test_engine import SlowTransport, answer_to, collected, model


def body(value: Any, status: int = 200) -> FakeAnswer:
    return FakeAnswer(body=value if isinstance(value, bytes) else json.dumps(value).encode(), status=status)


def ended(reason: str, text: str | None = "par") -> FakeAnswer:
    return body({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]})


FAILED = {
    "finish reason error": ended("error"),
    "finish reason error without text": ended("error", None),
    "finish reason network_error": ended("network_error"),
    "error object in a 200": body({"error": {"message": "upstream failed", "type": "server_error"}}),
    "error object beside choices": body({"choices": [], "error": {"message": "upstream failed"}}),
    "no choices": body({"choices": []}),
    "empty object": body({}),
    "empty body": body(b""),
    "cut body": body(b'{"choices": [{"mess'),
}


@pytest.mark.parametrize("as_agent", [False, True], ids=["model", "agent"])
@pytest.mark.parametrize("answer", FAILED.values(), ids=FAILED.keys())
def test_failed_answer_is_a_failed_item_and_asked_again_on_resume(tmp_path: Path, answer: FakeAnswer, as_agent: bool):
    def run(transport: SlowTransport) -> tuple[Any, CompletionEngine]:
        target = Agent(model(transport)) if as_agent else model(transport)
        engine = CompletionEngine(target, error_mode="return", journal=tmp_path / "j.db")
        (item,) = collected(engine, ["a"])
        return item, engine

    item, engine = run(SlowTransport(lambda request: answer))
    assert isinstance(item.error, ProviderError)
    assert (item.reply, item.attempts > 0, "error" in item.to_dict()) == ("", True, True)
    assert (engine.summary.done, engine.summary.failures) == (0, 1)
    (row,) = read_journal(tmp_path / "j.db")
    assert row.result is None
    assert row.retryable
    item, engine = run(SlowTransport())
    assert (item.reply, item.error, engine.summary.retried) == ("re a", None, 1)


def test_reply_that_reaches_the_engine_with_finish_reason_error_has_failed():
    broken = Reply(message=AssistantMessage("Let me"), finish_reason="error", raw_finish_reason="MALFORMED")
    for target in (ScriptedModel([broken, "b"]), Agent(ScriptedModel([broken, "b"]))):
        first, second = CompletionEngine(target, async_capacity=1, error_mode="return").run(["a", "b"])
        assert isinstance(first.error, ProviderError)
        assert first.result is not None
        assert first.result.reply == "Let me"
        assert (first.reply, first.output) == ("", "")
        assert second.reply == "b"
    with pytest.raises(LMAgentError):
        list(CompletionEngine(ScriptedModel([broken])).run(["a"]))


@pytest.mark.parametrize("retry_failed", ["retryable", False])
def test_answer_stored_as_done_with_finish_reason_error_is_asked_again(tmp_path: Path, retry_failed: Any):
    path = tmp_path / "j.db"
    list(CompletionEngine(model(), journal=path).run(["a", "b"]))
    with sqlite3.connect(path) as db:
        db.execute("update items set body = json_set(body, '$.finish_reason', 'error') where id = '0'")
    db.close()
    transport = SlowTransport()
    items = list(CompletionEngine(model(transport), journal=path, retry_failed=retry_failed).run(["a", "b"]))
    assert transport.asked == ["a"]
    assert [item.reply for item in items] == ["re a", "re b"]


def test_cut_answers_are_done_and_counted_in_the_summary(tmp_path: Path):
    reasons = {"a": "length", "b": "content_filter", "c": "length", "d": "stop"}

    def answer(request: Any) -> FakeAnswer:
        return ended(reasons[json.loads(request.content)["messages"][-1]["content"]], "so far")

    for _ in range(2):  # asked, then from the journal
        engine = CompletionEngine(model(SlowTransport(answer)), error_mode="return", journal=tmp_path / "j.db")
        items = list(engine.run(list(reasons)))
        assert [item.error for item in items] == [None] * 4
        assert engine.summary.cut == {"length": 2, "content_filter": 1}
        assert "4 done, 1 of them ended by content_filter, 2 of them ended by length" in str(engine.summary)


@pytest.mark.parametrize("error_mode", ["raise", "return", "skip"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "server_error"), (401, "overloaded_error"), (401, None), (402, "server_error"), (402, "rate_limit_error")],
)
def test_wrong_key_stops_the_run_after_the_first_items_whatever_its_type(
    status: int, kind: str | None, error_mode: Any
):
    refused = body({"error": {"message": "Incorrect API key provided", "type": kind, "code": kind}}, status)
    transport = SlowTransport(lambda request: refused, seconds=0.001)
    engine = CompletionEngine(model(transport), async_capacity=2, error_mode=error_mode)
    with pytest.raises(ProviderError):
        collected(engine, (str(number) for number in range(200)))
    assert len(transport.asked) <= 4


def test_damaged_rows_of_a_journal_are_journal_errors(tmp_path: Path):
    for number, damaged in enumerate(("{", "[]", "{}", '{"message": {"role": "assistant"}}', "7")):
        path = tmp_path / f"{number}.db"
        list(CompletionEngine(model(), journal=path).run(["a"]))
        with sqlite3.connect(path) as db:
            db.execute("update items set body = ?", (damaged,))
        db.close()
        with pytest.raises(JournalError, match="damaged"):
            list(CompletionEngine(model(SlowTransport(answer_to)), journal=path).run(["a"]))


def test_unreadable_answers_do_not_open_the_breaker_or_repeat_within_a_run():
    transport = SlowTransport(lambda request: body({"choices": []}))
    engine = CompletionEngine(model(transport), error_mode="return")
    items = collected(engine, [str(number) for number in range(30)])
    assert all(isinstance(item.error, InvalidResponse) for item in items)
    assert len(transport.asked) == 30
