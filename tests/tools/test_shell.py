"""Running programs: what runs, and every way to run something else, to run unasked, or to run on."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lmagent import ToolError
from lmagent.tools import shell
from lmagent.tools.shell import run_program

ASKED: list[Sequence[str]] = []


def yes(command: Sequence[str]) -> bool:
    ASKED.append(command)
    return True


@pytest.fixture(autouse=True)
def _fresh():
    ASKED.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "root"
    inside.mkdir()
    (inside / "a.txt").write_text("one two\nthree\n")
    return inside


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Make a program outside the root from the text of a shell script."""

    def make(text: str, name: str = "program") -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_a_program_runs_in_the_root_after_someone_said_yes(root: Path):
    tool = run_program(programs=["wc", "cat"], root=root, approve=yes)
    assert tool("cat", ["a.txt"]) == "exit status 0\none two\nthree\n"
    assert [tuple(command) for command in ASKED] == [(shutil.which("cat"), "a.txt")]
    assert "wc, cat" in str(tool.json_schema)


def test_a_fixed_beginning_is_the_users(root: Path):
    tool = run_program(programs={"count lines": ["wc", "-l"]}, root=root, approve=yes)
    assert tool("count lines", ["a.txt"]).split() == ["exit", "status", "0", "2", "a.txt"]


def test_status_and_both_outputs_come_back(root: Path, script: Callable[[str], str]):
    tool = run_program(programs=[script("echo out; echo err >&2; exit 3")], root=root, approve=yes)
    assert tool("program", []) == "exit status 3\nout\nerr\n"
    killed = run_program(programs=[script("kill -9 $$", "killed")], root=root, approve=yes)
    assert killed("killed", []) == "killed by signal 9\n"


SHELLISH = ["; id", "a.txt; id", "$(id)", "`id`", "a.txt | id", "*", "?", "$HOME", "a && id", "> b", "a b", "", "{1,2}"]


@pytest.mark.parametrize("text", SHELLISH)
def test_nothing_is_split_or_expanded(root: Path, script: Callable[[str], str], text: str):
    tool = run_program(programs=[script("printf '<%s>' \"$@\"")], root=root, approve=yes)
    assert tool("program", [text, "x"]) == f"exit status 0\n<{text}><x>"
    assert os.listdir(root) == ["a.txt"]


@pytest.mark.parametrize("answer", [False, None, 0, 1, "yes", "no", [True], str], ids=str)
def test_only_true_is_consent(root: Path, script: Callable[[str], str], answer: Any):
    tool = run_program(programs=[script("echo ran > ran")], root=root, approve=lambda command: answer)
    with pytest.raises(ToolError, match="not approved"):
        tool("program", [])
    assert os.listdir(root) == ["a.txt"]


def test_asking_that_fails_is_no_consent(root: Path, script: Callable[[str], str]):
    def broken(command: Sequence[str]) -> bool:
        raise RuntimeError("nobody there, key sk-secret")

    with pytest.raises(ToolError, match="not approved: asking failed") as caught:
        run_program(programs=[script("echo ran > ran")], root=root, approve=broken)("program", [])
    assert "secret" not in str(caught.value)
    assert os.listdir(root) == ["a.txt"]


def test_an_interrupted_question_is_passed_on(root: Path):
    def interrupted(command: Sequence[str]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(programs=["wc"], root=root, approve=interrupted)("wc", ["a.txt"])


async def _later(command: Sequence[str]) -> bool:
    return True


@pytest.mark.parametrize("approve", [None, True, "yes", _later])
def test_approve_must_be_a_plain_function(root: Path, approve: Any):
    with pytest.raises(TypeError, match="approve="):
        run_program(programs=["wc"], root=root, approve=approve)


def test_nothing_is_allowed_by_default(root: Path):
    with pytest.raises(ValueError, match="nothing is allowed"):
        run_program(programs=[], root=root, approve=yes)
    with pytest.raises(TypeError, match="not one text"):
        run_program(programs="wc", root=root, approve=yes)
    with pytest.raises(TypeError):
        run_program(programs=["wc"], root=None, approve=yes)  # type: ignore[arg-type]
    for bad in ("", root / "a.txt", root / "missing"):
        with pytest.raises(ValueError, match="not a folder"):
            run_program(programs=["wc"], root=bad, approve=yes)
    for command in ({"x": []}, {"x": "wc -l"}, {"x": [""]}):
        with pytest.raises(ValueError, match="is no command"):
            run_program(programs=command, root=root, approve=yes)
    with pytest.raises(ValueError, match="not found"):
        run_program(programs=["no-such-program"], root=root, approve=yes)


STARTERS = ["sh", "/bin/sh", "env", "xargs", "find", "nice", "timeout", sys.executable]


@pytest.mark.parametrize("name", STARTERS)
def test_interpreters_and_starters_are_refused(root: Path, name: str):
    with pytest.raises(ValueError, match="can run any other program"):
        run_program(programs=[name], root=root, approve=yes)


@pytest.mark.parametrize(
    "name", ["python3.13", "PERL", "node18", "pypy3.10", "bash-5.2", "m4", "Rscript", "perl5.36-linux", "setarch"]
)
def test_interpreters_are_known_by_every_version(root: Path, script: Callable[..., str], name: str):
    with pytest.raises(ValueError, match="can run any other program"):
        run_program(programs=[script("", name)], root=root, approve=yes)


def test_a_link_to_an_interpreter_is_refused(root: Path, tmp_path: Path):
    (tmp_path / "innocent").symlink_to("/bin/sh")
    with pytest.raises(ValueError, match="can run any other program"):
        run_program(programs=[str(tmp_path / "innocent")], root=root, approve=yes)


def test_a_link_to_a_multicall_binary_is_known_by_its_own_name(root: Path, tmp_path: Path, script: Callable[..., str]):
    box = script("echo box", "busybox")
    (tmp_path / "wc").symlink_to(box)
    (tmp_path / "sh").symlink_to(box)
    assert "box" in run_program(programs=[str(tmp_path / "wc")], root=root, approve=yes)("wc", [])
    for name in (box, str(tmp_path / "sh")):
        with pytest.raises(ValueError, match="can run any other program"):
            run_program(programs=[name], root=root, approve=yes)


def test_a_program_that_the_model_could_replace_is_refused(root: Path, tmp_path: Path):
    (root / "mine").write_text("#!/bin/sh\n")
    (root / "mine").chmod(0o755)
    (tmp_path / "link").symlink_to(root / "mine")
    for path in (root / "mine", tmp_path / "link"):
        with pytest.raises(ValueError, match="below the root"):
            run_program(programs=[str(path)], root=root, approve=yes)


@pytest.mark.parametrize("program", ["rm", "cat", "/usr/bin/wc", "../wc", "WC", "wc ", "wc -l", "", "wc\x00", "ｗｃ"])
def test_only_named_programs_run(root: Path, program: str):
    with pytest.raises(ToolError, match=r"is not allowed\. Allowed are: wc"):
        run_program(programs=["wc"], root=root, approve=yes)(program, [])
    assert ASKED == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-l"], "begins with a dash"),
        (["--files0-from=x"], "begins with a dash"),
        (["--"], "begins with a dash"),
        (["-"], "begins with a dash"),
        (["a.txt", "-x"], "begins with a dash"),
        (["/etc/passwd"], "leads outside"),
        (["../secret"], "leads outside"),
        (["a/../../b"], "leads outside"),
        (["~/x"], "leads outside"),
        (["if=/etc/passwd"], "leads outside"),
        (["x=../y"], "leads outside"),
        (["a\x00b"], "control characters"),
        (["a\nb"], "control characters"),
        (["\ud800"], "control characters"),
        (["\x1b[2J"], "control characters"),
        (["x"] * 65, "At most 64"),
        (["x" * 5000], "At most 64"),
    ],
)
def test_arguments_are_checked_before_anyone_is_asked(root: Path, arguments: list[str], told: str):
    with pytest.raises(ToolError, match=told):
        run_program(programs=["wc"], root=root, approve=yes)("wc", arguments)
    assert ASKED == []


def test_the_environment_is_clean(root: Path, script: Callable[[str], str], monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("LD_PRELOAD_X", "canary")
    program = script("env; pwd; cat; echo end")
    told = run_program(programs=[program], root=root, approve=yes, env={"MINE": "1"})("program", [])
    assert "canary" not in told
    assert "OPENAI" not in told
    names = {line.partition("=")[0] for line in told.splitlines() if "=" in line}
    assert names <= {"PATH", "LANG", "MINE", "PWD", "OLDPWD", "SHLVL", "_"}
    assert told.endswith(f"\n{root}\nend\n")


def test_the_terminal_is_not_read(root: Path):
    ours, theirs = os.pipe()
    os.write(theirs, b"typed by the user")
    os.close(theirs)
    saved = os.dup(0)
    try:
        os.dup2(ours, 0)
        assert run_program(programs=["cat"], root=root, approve=yes)("cat", []) == "exit status 0\n"
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(ours)


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_program_that_hangs_is_killed_with_its_children(root: Path, script: Callable[[str], str]):
    program = script("echo begun; sleep 60 & echo $! > child; trap '' TERM INT HUP; sleep 60")
    before = time.monotonic()
    with pytest.raises(ToolError, match=r"within 0\.3 seconds and was killed\. Output:\nbegun"):
        run_program(programs=[program], root=root, approve=yes, timeout=0.3)("program", [])
    assert time.monotonic() - before < 1.0
    assert _gone(int((root / "child").read_text()))


def test_a_child_left_behind_is_killed_and_does_not_keep_the_call(root: Path, script: Callable[[str], str]):
    program = script("sleep 60 & echo $! > child; echo done")
    before = time.monotonic()
    assert run_program(programs=[program], root=root, approve=yes, timeout=5)("program", []) == "exit status 0\ndone\n"
    assert time.monotonic() - before < 1.0
    assert _gone(int((root / "child").read_text()))


def test_output_is_bounded(root: Path, script: Callable[[str], str]):
    program = script("while :; do echo 0123456789012345678901234567890123456789; done")
    before = time.monotonic()
    told = run_program(programs=[program], root=root, approve=yes, timeout=10, max_output=1000)("program", [])
    assert told.startswith("killed after 1000 bytes of output\n0123")
    assert len(told) < 1100
    assert time.monotonic() - before < 2.0


def test_a_program_that_closes_its_output_is_waited_for(root: Path, script: Callable[[str], str]):
    program = script("echo early; exec >&- 2>&-; sleep 0.1; echo late > late; exit 4")
    assert run_program(programs=[program], root=root, approve=yes)("program", []) == "exit status 4\nearly\n"
    assert (root / "late").exists()


def test_output_is_read_whole(root: Path, script: Callable[[str], str]):
    program = script("head -c 300000 /dev/zero | tr '\\0' x; echo; echo é")
    told = run_program(programs=[program], root=root, approve=yes, max_output=400_000)("program", [])
    assert told == "exit status 0\n" + "x" * 300_000 + "\né\n"


def test_an_interrupt_kills_the_program(root: Path, script: Callable[[str], str], monkeypatch):
    def interrupted(pid: int) -> bool:
        for _ in range(200):
            if (root / "child").exists() and (root / "child").read_text().strip():
                raise KeyboardInterrupt
            time.sleep(0.01)
        return False

    monkeypatch.setattr(shell, "_has_exited", interrupted)
    program = script("echo $$ > child; sleep 60")
    with pytest.raises(KeyboardInterrupt):
        run_program(programs=[program], root=root, approve=yes)("program", [])
    assert _gone(int((root / "child").read_text()))


def test_a_program_that_cannot_start_is_told(root: Path, script: Callable[[str], str]):
    path = script("")
    tool = run_program(programs=[path], root=root, approve=yes)
    Path(path).unlink()
    with pytest.raises(ToolError, match="could not be started: FileNotFoundError"):
        tool("program", [])


def test_a_host_that_ignores_its_children_still_gets_the_output(root: Path):
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run_program(programs=["cat"], root=root, approve=yes)("cat", ["a.txt"]).endswith("one two\nthree\n")
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_nothing_is_left_open(root: Path):
    tool = run_program(programs=["cat"], root=root, approve=yes)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        tool("cat", ["a.txt"])
    assert len(os.listdir("/proc/self/fd")) == before
