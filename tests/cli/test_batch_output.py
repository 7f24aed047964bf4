"""`lmagent batch`: OUT keeps every line it had, and a first start that fails leaves no file."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lmagent.cli.app import run_app
from lmagent.engines.bulk.journal import FileLock, read_journal
from tests.cli.shell import environment, lmagent, over, started
from tests.cli.test_batch import lines_of, reply, said, written
from tests.engines.bulk.small_disk import small_disk
from tests.loopback import STALL, Answer, LoopbackServer, Received, json_answer, raw

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `lmagent batch` in this process; return its exit code and standard error."""

    def call(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "LMAGENT_MODEL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["lmagent", "batch", *arguments])
        with pytest.raises(SystemExit) as left:
            run_app()
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "Traceback" not in shown.err
        return int(left.value.code or 0), shown.err

    return call


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply) as server:
        yield server


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, except the journal, whose bytes may change when it is opened."""
    return {
        path.name: b"" if path.name.endswith(".journal") else path.read_bytes()
        for path in folder.iterdir()
        if path.is_file()
    }


# One entry for each way to start wrongly: name, arguments instead of or after the right ones, exit code, words.

WRONG: dict[str, tuple[list[str], int, str]] = {
    "typo in the name of the provider": (["-m", "opnai/m"], 3, "opnai"),
    "no such option": (["--modle", "openai/m"], 2, "--modle"),
    "no such parameter": (["-p", "temprature=0"], 3, "temprature"),
    "parameter out of range": (["-p", "temperature=9"], 3, "temperature"),
    "parameter without a value": (["-p", "temperature"], 3, "name=value"),
    "concurrency of 0": (["--concurrency", "0"], 2, "concurrency"),
    "rpm that is not a number": (["--rpm", "fast"], 2, "rpm"),
    "no such tool": (["--tool", "claculator"], 3, "claculator"),
    "no such prices": (["--prices", "missing.json"], 3, "missing.json"),
    "journal in no folder": (["--journal", "no/such/folder/j"], 2, "no/such/folder"),
    "journal is a folder": (["--journal", "."], 2, "must be a file"),
}
OTHER_SETTINGS: dict[str, tuple[list[str], int, str]] = {
    "typo in the name of the model": (["-m", "openai/mm"], 8, "'openai/m' in the journal, 'openai/mm' now"),
    "other parameter": (["-p", "temperature=1"], 8, "parameters"),
    "other system prompt": (["-s", "Be brief."], 8, "system prompt"),
    "other tools": (["-t", "calculator"], 8, "tools"),
    "typo in the name of the journal": (["--journal", "out.jornal"], 2, "name it with --journal"),
}
NO_PROMPTS: dict[str, tuple[str, bytes, int, str]] = {
    "binary": ("in.jsonl", bytes(range(256)) * 9, 3, "No line of"),
    "prose": ("in.jsonl", b"# Title\n\nSome text.\n", 3, "Line 1 is not JSON"),
    "answers instead of prompts": ("in.jsonl", b'{"id": "0", "index": 0, "reply": "re a"}\n', 3, "'prompt'"),
    "UTF-16": ("in.jsonl", '"a"\n"b"\n'.encode("utf-16"), 3, "UTF-8"),
    "CSV without prompts": ("in.csv", b"question\na\n", 3, "needs a column 'prompt'"),
    "CSV with empty prompts": ("in.csv", b"prompt,id\n,1\n,2\n", 3, "has no prompt"),
    "missing": ("missing.jsonl", b"", 2, "There is no file"),
    "folder": (".", b"", 2, "There is no file"),
}


def finished(folder: Path, command: Command, server: LoopbackServer) -> tuple[str, str]:
    """Run a batch of three prompts to its end; return the names of IN and OUT."""
    source, out = written(folder / "in.jsonl", "a", "b", "c"), str(folder / "out")
    assert command(source, out, "-q", env=over(server.url))[0] == 0
    server.requests.clear()
    return source, out


@pytest.mark.parametrize(("more", "code", "words"), (WRONG | OTHER_SETTINGS).values(), ids=(WRONG | OTHER_SETTINGS))
def test_resume_with_a_wrong_option_keeps_every_line(
    tmp_path: Path, command: Command, server: LoopbackServer, more: list[str], code: int, words: str
):
    source, out = finished(tmp_path, command, server)
    before = contents(tmp_path)
    done = command(source, out, "--resume", *more, env=over(server.url))
    assert done[0] == code, done[1]
    assert words in done[1]
    assert contents(tmp_path) == before
    assert not server.requests
    assert command(source, out, "--resume", env=over(server.url))[0] == 0
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("more", "code", "words"), WRONG.values(), ids=WRONG)
def test_first_start_with_a_wrong_option_leaves_no_file(
    tmp_path: Path, command: Command, server: LoopbackServer, more: list[str], code: int, words: str
):
    source, out = written(tmp_path / "in.jsonl", "a"), str(tmp_path / "out")
    before = contents(tmp_path)
    done = command(source, out, *more, env=over(server.url))
    assert done[0] == code, done[1]
    assert words in done[1]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(("name", "content", "code", "words"), NO_PROMPTS.values(), ids=NO_PROMPTS)
def test_input_without_a_prompt_is_rejected(
    tmp_path: Path,
    command: Command,
    server: LoopbackServer,
    name: str,
    content: bytes,
    code: int,
    words: str,
    resume: bool,
):
    out = str(tmp_path / "out")
    if resume:
        finished(tmp_path, command, server)
    if content:
        (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    done = command(str(tmp_path / name), out, *["--resume"] * resume, env=over(server.url))
    assert done[0] == code, done[1]
    assert words in done[1]
    assert contents(tmp_path) == before
    assert not server.requests


def test_empty_input_never_empties_the_output(tmp_path: Path, command: Command, server: LoopbackServer):
    _, out = finished(tmp_path, command, server)
    (tmp_path / "in.jsonl").write_text("\n\n")
    before = contents(tmp_path)
    done = command(str(tmp_path / "in.jsonl"), out, "--resume", env=over(server.url))
    assert done[0] == 2
    assert "has no prompts" in done[1]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_missing_key_keeps_every_line(tmp_path: Path, command: Command, server: LoopbackServer, resume: bool):
    source, out = written(tmp_path / "in.jsonl", "a", "b", "c"), str(tmp_path / "out")
    if resume:
        finished(tmp_path, command, server)
    before = contents(tmp_path)
    env = {name: value for name, value in over(server.url).items() if name == "LMAGENT_MODEL"}
    done = command(source, out, *["--resume"] * resume, env=env)
    assert done[0] == 3, done[1]
    assert "OPENAI_API_KEY" in done[1]
    assert contents(tmp_path) == before


def other_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table theirs (a)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("update lmagent_bulk set value = '99' where name = 'version'")
        db.commit()


def damaged_row(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("update items set body = '{' where id = '1'")
        db.commit()


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not a database" * 100), "It is damaged, or is not a journal"),
    "overwritten head": (lambda path: path.write_bytes(b"x" * 100 + path.read_bytes()[100:]), "It is damaged"),
    "overwritten pages": (lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 20_000), "It is damaged"),
    "damaged row": (damaged_row, "It is damaged"),
    "of another program": (other_program, "another program"),
    "newer": (newer, "format 99"),
    "locked": (lambda path: FileLock(Path(f"{path}.lock")), "in use by another run"),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED)
def test_journal_that_cannot_be_used_keeps_every_line(
    tmp_path: Path, command: Command, server: LoopbackServer, spoil: Callable[[Path], object], words: str
):
    source, out = finished(tmp_path, command, server)
    before = (tmp_path / "out").read_bytes()
    held: Any = spoil(tmp_path / "out.journal")
    try:
        code, shown = command(source, out, "--resume", env=over(server.url))
    finally:
        if isinstance(held, FileLock):
            held.release()
    assert code == 8
    assert words in shown
    assert "fix the problem, then continue with --resume" in shown
    assert (tmp_path / "out").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out", "out.journal"]
    assert not server.requests


def refusing(status: int) -> Callable[[Received], Answer]:
    return lambda request: json_answer({"error": {"message": "refused"}}, status)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_first_start_that_the_provider_refuses_leaves_no_file(tmp_path: Path, command: Command, status: int):
    source, out = written(tmp_path / "in.jsonl", *map(str, range(50))), str(tmp_path / "out")
    with LoopbackServer(refusing(status)) as refused:
        code, shown = command(source, out, "--concurrency", "1", env=over(refused.url))
        assert len(refused.requests) == 1
    assert code == 4
    assert "no file is left" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    with LoopbackServer(reply) as server:
        assert command(source, out, env={**over(server.url), "LMAGENT_MODEL": "openai/other"})[0] == 0
    assert len(lines_of(tmp_path / "out")) == 50


@pytest.mark.parametrize("status", [401, 402, 404])
def test_resume_that_the_provider_refuses_keeps_every_line(tmp_path: Path, command: Command, status: int):
    source, out = written(tmp_path / "in.jsonl", *map(str, range(60))), str(tmp_path / "out")

    def some(request: Received) -> Answer:
        return json_answer({"error": {"message": "no"}}, 400) if int(said(request)) % 20 == 5 else reply(request)

    with LoopbackServer(some) as server:
        assert command(source, out, "-q", env=over(server.url))[0] == 1
    first = lines_of(tmp_path / "out")
    with LoopbackServer(refusing(status)) as refused:
        code, shown = command(source, out, "-q", "--retry-failed", "--concurrency", "1", env=over(refused.url))
        assert len(refused.requests) == 1
    assert code == 4
    assert "continue with --resume" in shown
    lines = lines_of(tmp_path / "out")
    assert [line["index"] for line in lines] == list(range(60))
    assert [line.get("reply") for line in lines] == [line.get("reply") for line in first]
    with LoopbackServer(reply) as server:
        assert command(source, out, "-q", "--retry-failed", env=over(server.url))[0] == 0
        assert sorted(said(request) for request in server.requests) == ["25", "45", "5"]
    assert [line["reply"] for line in lines_of(tmp_path / "out")] == [f"re {number}" for number in range(60)]


def test_interrupted_resume_keeps_the_lines_it_did_not_reach(tmp_path: Path, command: Command):
    source, out = written(tmp_path / "in.jsonl", *map(str, range(400))), str(tmp_path / "out")
    with LoopbackServer(lambda request: json_answer({}, 400) if said(request) == "3" else reply(request)) as server:
        assert command(source, out, "-q", "--concurrency", "40", env=over(server.url))[0] == 1
    with (
        LoopbackServer(lambda request: raw(0.4, *reply(request).steps)) as server,
        started("batch", source, out, "--retry-failed", "--concurrency", "2", env=over(server.url)) as process,
    ):
        assert server.wait_requests(1, 20)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    lines = lines_of(tmp_path / "out")
    assert [line["index"] for line in lines] == list(range(400))
    assert [line["reply"] for line in lines] == [f"re {number}" for number in range(400)]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
@pytest.mark.parametrize("first", [True, False], ids=["first start", "resume"])
def test_killed_run_leaves_the_output_as_it_was_and_resume_gives_all_lines_once(
    tmp_path: Path, command: Command, first: bool
):
    source, out = written(tmp_path / "in.jsonl", *map(str, range(60))), tmp_path / "out"
    if not first:
        with LoopbackServer(lambda request: json_answer({}, 400)) as server:
            assert command(source, str(out), "-q", "-p", "max_tokens=9", "--timeout", "9", env=over(server.url))[0] == 1
    before = out.read_bytes() if out.exists() else None
    options = [source, str(out), "-q", "-p", "max_tokens=9", "--concurrency", "3", *["--retry-failed"] * (not first)]
    with (
        LoopbackServer(lambda request: raw(0.02, *reply(request).steps)) as server,
        started("batch", *options, env=over(server.url)) as process,
    ):
        assert server.wait_requests(20, 20)
        process.kill()
        process.wait(20)
    assert (out.read_bytes() if out.exists() else None) == before
    with LoopbackServer(reply) as server:
        code, shown = (
            command(*options[:-1], "--retry-failed", env=over(server.url))
            if not first
            else command(*options, "--resume", env=over(server.url))
        )
        assert code == 0, shown
        assert len(server.requests) <= 60 - 20 + 3
    lines = lines_of(out)
    assert [line["index"] for line in lines] == list(range(60))
    assert [line["reply"] for line in lines] == [f"re {number}" for number in range(60)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out", "out.journal"]


@pytest.mark.parametrize("more", [[], ["--resume"], ["--journal", "other"], ["--resume", "--journal", "other"]])
def test_second_start_while_the_first_runs_is_refused(tmp_path: Path, command: Command, more: list[str]):
    source, out = written(tmp_path / "in.jsonl", "a", "b"), str(tmp_path / "out")
    more = [str(tmp_path / "other") if argument == "other" else argument for argument in more]
    with LoopbackServer(raw(STALL)) as stalled, LoopbackServer(reply) as server:
        with started("batch", source, out, "-q", env=over(stalled.url)) as process:
            assert stalled.wait_requests(2, 20)
            before = sorted(path.name for path in tmp_path.iterdir())
            code, shown = command(source, out, "-q", *more, env=over(server.url))
            assert code == (2 if not more else 8)
            assert "in use by another run" in shown or "--resume" in shown
            assert sorted(path.name for path in tmp_path.iterdir()) == before
            assert process.poll() is None
            process.kill()
        assert not server.requests


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("out", "out"),
        ("out.part", None),
        ("out.lock", None),
        ("j.lock", "j"),
        ("j-wal", "j"),
        ("j", "j"),
        ("x", "out.part"),
    ],
)
def test_names_that_would_be_overwritten_are_refused(
    tmp_path: Path, command: Command, server: LoopbackServer, name: str, kept: str | None
):
    source = written(tmp_path / name, "a")
    before = contents(tmp_path)
    options = ["--journal", str(tmp_path / kept)] if kept else []
    for more in ([], ["--resume"]):
        code, shown = command(source, str(tmp_path / "out"), *options, *more, env=over(server.url))
        assert code == 2, shown
        assert contents(tmp_path) == before
    assert not server.requests


def test_changed_input_leaves_a_copy_of_the_former_output(tmp_path: Path, command: Command, server: LoopbackServer):
    source, out = finished(tmp_path, command, server)
    for number, prompts in enumerate((["a", "b"], ["a", "B", "c"], ["x"])):
        before = (tmp_path / "out").read_bytes()
        written(tmp_path / "in.jsonl", *prompts)
        code, shown = command(source, out, "--resume", env=over(server.url))
        assert code == 0, shown
        copy = tmp_path / f"out.old{number or ''}"
        assert (copy.read_bytes() == before) if number != 1 else not copy.exists() or copy.read_bytes() == before
        assert [line["reply"] for line in lines_of(tmp_path / "out")] == [f"re {prompt}" for prompt in prompts]
    assert "IN has changed" in shown


def test_output_that_batch_did_not_write_is_copied(tmp_path: Path, command: Command, server: LoopbackServer):
    source, out = finished(tmp_path, command, server)
    (tmp_path / "out").write_text('my notes\n{"index": "0"}\n[1]\n')
    code, shown = command(source, out, "--resume", env=over(server.url))
    assert code == 0
    assert "3 lines" in shown
    assert (tmp_path / "out.old").read_text().startswith("my notes\n")
    assert len(lines_of(tmp_path / "out")) == 3


def test_links_and_permissions_of_the_output_stay(tmp_path: Path, command: Command, server: LoopbackServer):
    source, out = finished(tmp_path, command, server)
    (tmp_path / "out").rename(tmp_path / "real")
    (tmp_path / "out").symlink_to("real")
    os.chmod(tmp_path / "real", 0o640)
    assert command(source, out, "--resume", env=over(server.url))[0] == 0
    assert (tmp_path / "out").is_symlink()
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert len(lines_of(tmp_path / "real")) == 3


def test_output_on_a_disk_that_fills_up_is_a_typed_error(tmp_path: Path, command: Command):
    source = written(tmp_path / "in.jsonl", *(f"{number} " + "x" * 3000 for number in range(200)))
    with small_disk(tmp_path / "disk", 256) as disk, LoopbackServer(reply) as server:
        options = [source, str(disk.path / "out"), "-q", "--journal", str(tmp_path / "j"), "--concurrency", "4"]
        code, shown = command(*options, env=over(server.url))
        assert code == 8, shown
        assert "JournalError: The output" in shown
        assert "No space left on device" in shown
        assert "continue with --resume" in shown
        assert disk.names() == []
        asked = len(server.requests)
        assert asked == sum(1 for _ in read_journal(tmp_path / "j")) < 200
        disk.grow(4096)
        assert command(*options, "--resume", env=over(server.url))[0] == 0
        assert len(server.requests) == 200
        before = (disk.path / "out").read_bytes()
        assert before.count(b"\n") == 200
        disk.fill(8192)
        code, shown = command(*options, "--resume", env=over(server.url))
        assert (code, "No space left" in shown) == (8, True)
        assert (disk.path / "out").read_bytes() == before
        assert disk.names() == ["out"]


def test_output_and_journal_on_a_full_disk(tmp_path: Path, command: Command):
    source = written(tmp_path / "in.jsonl", *(f"{number} " + "x" * 3000 for number in range(100)))
    with small_disk(tmp_path / "disk", 256) as disk, LoopbackServer(reply) as server:
        options = [source, str(disk.path / "out"), "-q"]
        disk.fill()
        code, shown = command(*options, env=over(server.url))
        assert (code, disk.names()) == (8, []), shown
        assert "start again" in shown
        disk.empty()
        code, shown = command(*options, env=over(server.url))
        assert code == 8, shown
        assert "continue with --resume" in shown
        asked = len(server.requests)
        stored = sum(1 for _ in read_journal(disk.path / "out.journal"))
        assert 0 < stored <= asked <= stored + 5
        disk.grow(4096)
        assert command(*options, "--resume", env=over(server.url))[0] == 0
        assert len(server.requests) == asked + 100 - stored
        assert [line["index"] for line in lines_of(disk.path / "out")] == list(range(100))
        assert disk.names() == ["out", "out.journal"]


@pytest.mark.parametrize("resume", [False, True])
def test_read_only_disk_is_a_typed_error(tmp_path: Path, command: Command, server: LoopbackServer, resume: bool):
    with small_disk(tmp_path / "disk") as disk:
        source, out = written(disk.path / "in.jsonl", "a", "b", "c"), str(disk.path / "out")
        if resume:
            finished(disk.path, command, server)
        before = contents(disk.path)
        disk.make_read_only()
        for more in ([], ["--journal", str(tmp_path / "j")]):
            if resume and more:
                shutil.copy(disk.path / "out.journal", tmp_path / "j")
            code, shown = command(source, out, *more, *["--resume"] * resume, env=over(server.url))
            assert code == 8, shown
            assert "Read-only file system" in shown
            assert contents(disk.path) == before
        assert not server.requests
        assert (tmp_path / "j").exists() == resume


LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
runpy.run_module("lmagent", run_name="__main__")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("limit", [0, 2000])
def test_limit_on_the_size_of_files_is_a_typed_error(tmp_path: Path, command: Command, limit: int):
    source, out = (
        written(tmp_path / "in.jsonl", *(f"{number} " + "x" * 3000 for number in range(100))),
        tmp_path / "out",
    )
    with LoopbackServer(reply) as server:
        limited = [sys.executable, "-c", LIMITED.format(limit), "batch", source, str(out), "-q"]
        done = subprocess.run(limited, capture_output=True, text=True, timeout=60, env=environment(over(server.url)))
        assert done.returncode == 8, done.stderr
        assert "JournalError" in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()
        assert (tmp_path / "out.journal").exists() is False
        code, shown = command(source, str(out), "-q", "--resume", env=over(server.url))
        assert code == 0, shown
    assert [line["index"] for line in lines_of(out)] == list(range(100))


@pytest.mark.parametrize("content", ["par", "", None], ids=["text", "empty", "null"])
def test_answer_that_ended_with_an_error_fails_and_is_asked_again(tmp_path: Path, content: str | None):
    source, out = written(tmp_path / "in.jsonl", "a", "b"), tmp_path / "out"

    def broken(request: Received) -> Answer:
        choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "error"}
        return json_answer({"choices": [choice]}) if said(request) == "a" else reply(request)

    with LoopbackServer(broken) as server:
        done = lmagent("batch", source, str(out), "-q", env=over(server.url))
    assert done.returncode == 1, done.stderr
    assert ["error" in line for line in lines_of(out)] == [True, False]
    with LoopbackServer(reply) as server:
        done = lmagent("batch", source, str(out), "-q", "--resume", env=over(server.url))
        assert [said(request) for request in server.requests] == ["a"]
    assert done.returncode == 0, done.stderr
    assert [line["reply"] for line in lines_of(out)] == ["re a", "re b"]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_summary_names_answers_that_were_cut(tmp_path: Path, command: Command, reason: str):
    source, out = written(tmp_path / "in.jsonl", "a", "b"), tmp_path / "out"
    choice = {"message": {"role": "assistant", "content": "so far"}, "finish_reason": reason}
    with LoopbackServer(json_answer({"choices": [choice]})) as server:
        code, shown = command(source, str(out), "-q", env=over(server.url))
    assert code == 0
    assert f"2 of them ended by {reason}" in shown
    assert [line["finish_reason"] for line in lines_of(out)] == [reason] * 2
