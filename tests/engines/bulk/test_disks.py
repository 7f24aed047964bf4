"""Journals on full and read-only disks, and in files that cannot be used: typed errors, and nothing lost."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lmagent import CompletionEngine
from lmagent.engines.bulk.journal import FileLock, discard_journal, read_journal
from lmagent.errors import JournalError, ServerFailed
from tests.engines.bulk.small_disk import small_disk
from tests.engines.bulk.test_engine import SlowTransport, collected, flaky, model, refusal


def run(path: Path, prompts: Any, transport: Any = None, **options: Any) -> tuple[list[Any], Any]:
    transport = transport or SlowTransport()
    engine = CompletionEngine(model(transport), journal=path, **{"error_mode": "return", **options})
    return collected(engine, prompts), transport


def test_first_run_on_a_full_disk_leaves_no_journal(tmp_path: Path):
    transport = SlowTransport()
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        with pytest.raises(JournalError, match="free some space"):
            run(disk.path / "j.db", ["a"], transport)
        assert disk.names() == []
        disk.empty()
        assert run(disk.path / "j.db", ["a"], transport)[0][0].reply == "re a"
    assert transport.asked == ["a"]


@pytest.mark.parametrize("track_in_doubt", [True, False])
def test_disk_that_fills_up_stops_the_run_and_resuming_asks_only_the_rest(tmp_path: Path, track_in_doubt: bool):
    prompts = [f"{number} " + "x" * 2000 for number in range(400)]
    with small_disk(tmp_path / "disk") as disk:
        transport = SlowTransport(seconds=0.001)
        with pytest.raises(JournalError, match="free some space"):
            run(disk.path / "j.db", prompts, transport, async_capacity=4, track_in_doubt=track_in_doubt)
        stored = sum(1 for _ in read_journal(disk.path / "j.db"))
        assert 0 < stored < 400
        assert len(transport.asked) - stored <= 4
        assert "j.db.lock" not in disk.names()
        disk.grow(16_384)
        items, transport = run(disk.path / "j.db", prompts, track_in_doubt=track_in_doubt)
        assert disk.names() == ["j.db"]
    assert len(transport.asked) == 400 - stored
    assert [item.reply for item in items] == [f"re {prompt}" for prompt in prompts]


def test_resuming_on_a_full_disk_is_refused_and_the_journal_unchanged(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        path = disk.path / "j.db"
        run(path, ["a"])
        disk.fill()
        with pytest.raises(JournalError):
            run(path, ["a", "b" * 5000, "c" * 5000, "d" * 5000, "e" * 5000, "f" * 5000, "g" * 9000])
        disk.empty()
        assert "a" in [row.result["message"]["content"][3:] for row in read_journal(path) if row.result]


def test_read_only_disk_is_a_journal_error(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        run(disk.path / "j.db", ["a"])
        disk.make_read_only()
        for name in ("j.db", "new.db"):
            with pytest.raises(JournalError, match="Read-only file system"):
                run(disk.path / name, ["a"])
        assert disk.names() == ["j.db"]


LIMITED = """
import resource, sys
from lmagent import CompletionEngine
from lmagent.errors import JournalError
from lmagent.testing import ScriptedModel
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
engine = CompletionEngine(ScriptedModel(["x" * 3000] * 200), 2, journal=sys.argv[1], error_mode="return")
try:
    for item in engine.run(str(number) for number in range(200)):
        pass
except JournalError as error:
    print(engine.summary.done, type(error.__cause__).__name__)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("limit", [0, 3000, 40_000, 200_000])
def test_limit_on_the_size_of_files_is_a_journal_error(tmp_path: Path, limit: int):
    path = tmp_path / "j.db"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    count, cause = done.stdout.split()
    assert cause in ("OperationalError", "OSError")
    assert path.exists() == (limit >= 40_000)
    if path.exists():
        assert sum(1 for _ in read_journal(path)) >= int(count)


def locked(path: Path) -> Any:
    return closing(_Held(path))


class _Held:
    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def close(self) -> None:
        self._lock.release()


def test_two_names_of_one_journal_have_one_lock(tmp_path: Path):
    run(tmp_path / "j.db", ["a"])
    (tmp_path / "other.db").symlink_to("j.db")
    with locked(tmp_path / "j.db.lock"), pytest.raises(JournalError, match="in use by another run"):
        run(tmp_path / "other.db", ["a"])
    assert run(tmp_path / "other.db", ["a"])[1].asked == []


def test_journal_without_an_item_worth_keeping_accepts_other_settings(tmp_path: Path):
    path = tmp_path / "j.db"
    with pytest.raises(Exception, match="no"):
        run(path, ["a"], SlowTransport(lambda request: refusal(404)), temperature=1)
    assert run(path, ["a"])[0][0].reply == "re a"
    with pytest.raises(JournalError, match="other settings"):
        run(path, ["a"], temperature=1)


def test_discard_journal_removes_only_journals_without_an_item_worth_keeping(tmp_path: Path):
    def stored(name: str, transport: Any) -> Path:
        run(tmp_path / name, ["a", "b"], transport)
        return tmp_path / name

    assert discard_journal(tmp_path / "missing.db")
    failed = stored("failed.db", SlowTransport(lambda request: refusal(500)))
    assert discard_journal(failed)
    kept = [stored("done.db", SlowTransport()), stored("bad.db", SlowTransport(lambda request: refusal(400)))]
    kept.append(stored("some.db", flaky("a", 500)))
    for path in kept:
        assert not discard_journal(path)
    doubtful = stored("doubtful.db", SlowTransport(lambda request: refusal(500)))
    with closing(sqlite3.connect(doubtful)) as db:
        db.execute("insert into begun values ('k', 1.0)")
        db.commit()
    assert not discard_journal(doubtful)
    with locked(tmp_path / "done.db.lock"), pytest.raises(JournalError, match="in use"):
        discard_journal(kept[0])
    (tmp_path / "text.db").write_text("something else" * 100)
    with pytest.raises(JournalError, match="not a journal"):
        discard_journal(tmp_path / "text.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.db",
        "done.db",
        "doubtful.db",
        "some.db",
        "text.db",
    ]


def test_errors_of_the_file_say_what_to_do(tmp_path: Path):
    run(tmp_path / "j.db", ["a"])
    content = (tmp_path / "j.db").read_bytes()
    for name, damaged in (
        ("text", b"not a database at all" * 50),
        ("head", b"x" * 100 + content[100:]),
        ("pages", content[:4096] + b"\xff" * (len(content) - 4096)),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(JournalError, match="It is damaged, or is not a journal"):
            run(tmp_path / name, ["a"])
        assert (tmp_path / name).read_bytes() == damaged
    with pytest.raises(JournalError, match="exist and can be written"):
        run(tmp_path, ["a"])


def test_storm_of_failures_is_still_a_finished_run_with_a_journal(tmp_path: Path):
    items, _ = run(tmp_path / "j.db", ["a", "b"], SlowTransport(lambda request: refusal(500)))
    assert all(isinstance(item.error, ServerFailed) for item in items)
    assert sum(1 for _ in read_journal(tmp_path / "j.db")) == 2
