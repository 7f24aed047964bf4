"""The journal of bulk runs: reused answers, items asked again, refused files."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lmagent import CompletionEngine
from lmagent.core.redaction import Secret
from lmagent.engines.bulk.journal import SQLiteJournal, export_journal, read_journal
from lmagent.engines.bulk.work import Row
from lmagent.errors import BadRequest, JournalError, LMAgentError, RateLimited, ServerFailed
from lmagent.testing import FakeAnswer
from tests.engines.bulk.test_engine import SlowTransport, answer_to, collected, flaky, model, refusal


def run(path: Path, prompts: Any, transport: Any = None, **options: Any) -> tuple[list[Any], CompletionEngine, Any]:
    transport = transport or SlowTransport()
    model_options = options.pop("model_options", {})
    engine = CompletionEngine(model(transport, **model_options), journal=path, **{"error_mode": "return", **options})
    return collected(engine, prompts), engine, transport


def test_finished_items_are_not_asked_again(tmp_path: Path):
    path = tmp_path / "j.db"
    first, _, transport = run(path, ["a", "b"])
    assert transport.asked == ["a", "b"]
    second, engine, transport = run(path, ["a", "b", "c"])
    assert transport.asked == ["c"]
    assert [item.reply for item in second] == ["re a", "re b", "re c"]
    assert [item.from_journal for item in second] == [True, True, False]
    assert second[0].usage == first[0].usage
    assert engine.summary.from_journal == 2
    assert engine.summary.journal_usage.total_tokens == 10
    assert engine.summary.usage.total_tokens == 5


def test_identical_items_are_asked_separately_or_share_one_answer(tmp_path: Path):
    _, _, transport = run(tmp_path / "own.db", ["a", "a", "a"])
    assert transport.asked == ["a"] * 3
    _, _, transport = run(tmp_path / "own.db", ["a", "a", "a", "a"])
    assert transport.asked == ["a"]
    for journal in (tmp_path / "shared.db", None):
        items, _, transport = run(journal, ["a", "b", "a", "a"], share_identical=True)  # type: ignore[arg-type]
        assert sorted(transport.asked) == ["a", "b"]
        assert [item.reply for item in items] == ["re a", "re b", "re a", "re a"]
        assert [item.index for item in items] == [0, 1, 2, 3]


def test_other_parameters_make_another_item(tmp_path: Path):
    path = tmp_path / "j.db"
    run(path, [{"prompt": "a", "parameters": {"temperature": 0}}])
    _, _, transport = run(path, [{"prompt": "a", "parameters": {"temperature": 1}}])
    assert transport.asked == ["a"]


def test_changed_input_is_reported_as_unused(tmp_path: Path):
    path = tmp_path / "j.db"
    run(path, ["a", "b", "c"])
    _, engine, _ = run(path, ["a", "B", "c"])
    assert engine.summary.unused == 1
    assert "1 journaled answers unused" in str(engine.summary)


def test_unused_answers_are_counted_when_identical_items_share_an_answer(tmp_path: Path):
    path = tmp_path / "j.db"
    run(path, ["a", "b", "c"])
    _, engine, transport = run(path, ["a", "a", "d", "a", "d"], share_identical=True)
    assert transport.asked == ["d"]
    assert engine.summary.unused == 2


def test_failure_of_user_code_is_asked_again(tmp_path: Path):
    def broken(request: Any) -> FakeAnswer:
        raise NameError("a slip in a hook")

    path = tmp_path / "j.db"
    items, _, _ = run(path, ["a"], SlowTransport(broken))
    assert isinstance(items[0].error, NameError)
    items, _, transport = run(path, ["a"])
    assert (items[0].reply, transport.asked) == ("re a", ["a"])


def test_missing_or_unwritable_folder_is_a_journal_error(tmp_path: Path):
    with pytest.raises(JournalError, match="No such file"):
        run(tmp_path / "no" / "j.db", ["a"])
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="Not a directory"):
        run(tmp_path / "file" / "j.db", ["a"])


def test_journal_of_another_model_is_refused_or_accepted(tmp_path: Path):
    path = tmp_path / "j.db"
    run(path, ["a"])
    with pytest.raises(JournalError, match="parameters"):
        run(path, ["a"], temperature=1)
    _, _, transport = run(path, ["a"], temperature=1, on_change="accept")
    assert transport.asked == ["a"]


def test_failed_items_are_stored_and_only_retryable_ones_asked_again(tmp_path: Path):
    path = tmp_path / "j.db"
    items, _, _ = run(path, ["a", "b"], flaky("a", 400))
    assert isinstance(items[0].error, BadRequest)
    items, engine, transport = run(path, ["a", "b"])
    assert transport.asked == []
    assert isinstance(items[0].error, BadRequest)
    assert items[0].error.status == 400
    assert engine.summary.failed == {"BadRequest": 1}
    items, engine, transport = run(path, ["a", "b"], retry_failed=True)
    assert transport.asked == ["a"]
    assert engine.summary.retried == 1
    assert [item.reply for item in items] == ["re a", "re b"]

    path = tmp_path / "k.db"
    items, _, _ = run(path, ["a"], flaky("a", 500))
    assert isinstance(items[0].error, ServerFailed)
    _, _, transport = run(path, ["a"], retry_failed=False)
    assert transport.asked == []
    _, _, transport = run(path, ["a"])
    assert transport.asked == ["a"]


def test_a_fatal_failure_is_asked_again_once_the_cause_is_gone(tmp_path: Path):
    path = tmp_path / "j.db"
    with pytest.raises(LMAgentError):
        run(path, ["a", "b"], SlowTransport(lambda request: refusal(401)))
    items, _, _ = run(path, ["a", "b"])
    assert [item.reply for item in items] == ["re a", "re b"]


@pytest.mark.parametrize("ask", [True, False])
def test_items_in_flight_are_in_doubt(tmp_path: Path, ask: bool):
    path = tmp_path / "j.db"
    run(path, ["a"], track_in_doubt=True)

    class Killed(BaseException):
        pass

    async def die() -> None:
        """Leave a started item in the journal, as a killed process does."""
        engine = CompletionEngine(model(SlowTransport(seconds=5)), journal=path, track_in_doubt=True, grace=0)
        items = engine.async_run(["a", "b"])
        assert (await anext(items)).from_journal
        task = asyncio.create_task(anext(items))  # type: ignore[arg-type]
        while not _begun(path):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(die())
    items, engine, transport = run(path, ["a", "b"], track_in_doubt=True, ask_in_doubt=ask)
    assert engine.summary.in_doubt == 1
    assert transport.asked == (["b"] if ask else [])
    assert items[0].reply == "re a"
    if not ask:
        assert isinstance(items[1].error, JournalError)


def _begun(path: Path) -> int:
    db = sqlite3.connect(path)
    try:
        return db.execute("select count(*) from begun").fetchone()[0]
    finally:
        db.close()


def test_an_answer_is_on_disk_before_it_is_yielded(tmp_path: Path):
    path = tmp_path / "j.db"
    for count, _ in enumerate(CompletionEngine(model(), journal=path).run(str(i) for i in range(50))):
        assert sum(1 for _ in read_journal(path)) > count


def test_full_disk_stops_the_run_before_the_next_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "j.db"
    real = SQLiteJournal._open

    def small(self: SQLiteJournal, *arguments: Any) -> None:
        real(self, *arguments)
        assert self._db is not None
        self._db.execute("pragma max_page_count = 12")

    monkeypatch.setattr(SQLiteJournal, "_open", small)
    transport = SlowTransport(lambda request: answer_to(request), seconds=0.001)
    engine = CompletionEngine(model(transport), async_capacity=4, journal=path)
    with pytest.raises(JournalError, match="disk is full"):
        collected(engine, (f"{i} " + "x" * 500 for i in range(1000)))
    assert len(transport.asked) - sum(1 for _ in read_journal(path)) <= 4
    assert "JournalError" in engine.summary.stopped


@pytest.mark.parametrize("content", [b"not a database at all" * 50, None])
def test_files_of_other_programs_are_refused_and_unchanged(tmp_path: Path, content: bytes | None):
    path = tmp_path / "j.db"
    if content is None:
        db = sqlite3.connect(path)
        db.execute("create table theirs (a)")
        db.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(JournalError):
        run(path, ["a"])
    assert path.read_bytes() == before
    assert not (tmp_path / "j.db.lock").exists()


def test_newer_format_is_refused(tmp_path: Path):
    path = tmp_path / "j.db"
    run(path, ["a"])
    db = sqlite3.connect(path)
    db.execute("update lmagent_bulk set value = '99' where name = 'version'")
    db.commit()
    db.close()
    with pytest.raises(JournalError, match="format 99"):
        run(path, ["a"])


def test_export_as_json_lines(tmp_path: Path):
    path = tmp_path / "j.db"
    run(path, [{"id": "one", "prompt": "a"}, "b"], flaky("b"))
    out = io.StringIO()
    assert export_journal(path, out) == 2
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["id"], line["status"]) for line in lines] == [("one", "done"), ("1", "failed")]
    assert lines[0]["result"]["message"]["content"] == "re a"
    assert lines[1]["error"]["type"] == "BadRequest"


def test_journal_has_no_secrets(tmp_path: Path):
    secret = "sk-canary-0123456789abcdef"
    Secret(secret)

    def leak(request: Any) -> FakeAnswer:
        return FakeAnswer(body=json.dumps({"error": {"message": f"bad key {secret}"}}).encode(), status=400)

    headers = {"extra_headers": {"x-token": secret}}
    run(tmp_path / "j.db", ["a"], SlowTransport(leak), model_options={"parameters": headers})
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_errors_are_restored_from_their_dict():
    from lmagent.engines.bulk.results import error_from_dict, error_to_dict

    for error in (
        RateLimited("slow", status=429, retry_after=3.0, attempts=3),
        JournalError("x"),
        ServerFailed("y", provider="p", model="m"),
    ):
        again = error_from_dict(json.loads(json.dumps(error_to_dict(error))))
        assert type(again) is type(error)
        assert error_to_dict(again) == error_to_dict(error)
    assert str(error_from_dict(error_to_dict(KeyError("k")))) == "KeyError: 'k'"


def test_rows_are_found_by_key(tmp_path: Path):
    async def main() -> None:
        journal = SQLiteJournal(tmp_path / "j.db")
        journal.open({"model": "m"})
        with pytest.raises(JournalError, match="another run"):
            journal.open({"model": "m"})
        try:
            assert journal.ordinal("h") == 0
            assert journal.ordinal("h") == 1
            row = Row(key="h-1", index=7, id="x", error={"type": "ServerFailed", "message": "m"}, retryable=True)
            await journal.put(row)
            assert journal.find("h-1") == row
            assert journal.find("h-0") is None
        finally:
            journal.close()

    asyncio.run(main())
