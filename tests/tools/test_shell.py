"""Running programs: results, and attempts to run other programs, to run without approval, or to outlive the call."""

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
    """Return a function that writes a shell script outside the root and returns its path."""

    def make(text: str, name: str = "program") -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_program_runs_in_the_root_after_approval(root: Path):
    tool = run_program(programs=["wc", "cat"], root=root, approve=yes)
    assert tool("cat", ["a.txt"]) == "exit status 0\none two\nthree\n"
    assert [tuple(command) for command in ASKED] == [(shutil.which("cat"), "a.txt")]
    assert "wc, cat" in str(tool.json_schema)


def test_label_stands_for_a_command_with_fixed_arguments(root: Path):
    tool = run_program(programs={"count lines": ["wc", "-l"]}, root=root, approve=yes)
    assert tool("count lines", ["a.txt"]).split() == ["exit", "status", "0", "2", "a.txt"]


def test_result_has_the_exit_status_and_both_outputs(root: Path, script: Callable[[str], str]):
    tool = run_program(programs=[script("echo out; echo err >&2; exit 3")], root=root, approve=yes)
    assert tool("program", []) == "exit status 3\nout\nerr\n"
    killed = run_program(programs=[script("kill -9 $$", "killed")], root=root, approve=yes)
    assert killed("killed", []) == "killed by signal 9\n"


SHELLISH = ["; id", "a.txt; id", "$(id)", "`id`", "a.txt | id", "*", "?", "$HOME", "a && id", "> b", "a b", "", "{1,2}"]


@pytest.mark.parametrize("text", SHELLISH)
def test_arguments_are_not_split_or_expanded(root: Path, script: Callable[[str], str], text: str):
    tool = run_program(programs=[script("printf '<%s>' \"$@\"")], root=root, approve=yes)
    assert tool("program", [text, "x"]) == f"exit status 0\n<{text}><x>"
    assert os.listdir(root) == ["a.txt"]


@pytest.mark.parametrize("answer", [False, None, 0, 1, "yes", "no", [True], str], ids=str)
def test_only_true_approves_a_command(root: Path, script: Callable[[str], str], answer: Any):
    tool = run_program(programs=[script("echo ran > ran")], root=root, approve=lambda command: answer)
    with pytest.raises(ToolError, match="not approved"):
        tool("program", [])
    assert os.listdir(root) == ["a.txt"]


def test_exception_in_approve_rejects_the_command(root: Path, script: Callable[[str], str]):
    def broken(command: Sequence[str]) -> bool:
        raise RuntimeError("nobody there, key sk-secret")

    with pytest.raises(ToolError, match="not approved: the approval function failed") as caught:
        run_program(programs=[script("echo ran > ran")], root=root, approve=broken)("program", [])
    assert "secret" not in str(caught.value)
    assert os.listdir(root) == ["a.txt"]


def test_ctrl_c_in_approve_is_raised(root: Path):
    def interrupted(command: Sequence[str]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(programs=["wc"], root=root, approve=interrupted)("wc", ["a.txt"])


async def _later(command: Sequence[str]) -> bool:
    return True


@pytest.mark.parametrize("approve", [None, True, "yes", _later])
def test_approve_must_be_a_sync_function(root: Path, approve: Any):
    with pytest.raises(TypeError, match="approve="):
        run_program(programs=["wc"], root=root, approve=approve)


def test_nothing_is_allowed_by_default(root: Path):
    with pytest.raises(ValueError, match="nothing is allowed"):
        run_program(programs=[], root=root, approve=yes)
    with pytest.raises(TypeError, match="not a string"):
        run_program(programs="wc", root=root, approve=yes)
    with pytest.raises(TypeError):
        run_program(programs=["wc"], root=None, approve=yes)  # type: ignore[arg-type]
    for bad in ("", root / "a.txt", root / "missing"):
        with pytest.raises(ValueError, match="not a folder"):
            run_program(programs=["wc"], root=bad, approve=yes)
    for command in ({"x": []}, {"x": "wc -l"}, {"x": [""]}):
        with pytest.raises(ValueError, match="is not a command"):
            run_program(programs=command, root=root, approve=yes)
    with pytest.raises(ValueError, match="not found"):
        run_program(programs=["no-such-program"], root=root, approve=yes)


STARTERS = ["sh", "/bin/sh", "env", "xargs", "find", "nice", "timeout", sys.executable]


@pytest.mark.parametrize("name", STARTERS)
def test_interpreters_and_program_starters_are_rejected(root: Path, name: str):
    with pytest.raises(ValueError, match="can run any other program"):
        run_program(programs=[name], root=root, approve=yes)


@pytest.mark.parametrize(
    "name", ["python3.13", "PERL", "node18", "pypy3.10", "bash-5.2", "m4", "Rscript", "perl5.36-linux", "setarch"]
)
def test_interpreters_with_a_version_in_their_name_are_rejected(root: Path, script: Callable[..., str], name: str):
    with pytest.raises(ValueError, match="can run any other program"):
        run_program(programs=[script("", name)], root=root, approve=yes)


def test_link_to_an_interpreter_is_rejected(root: Path, tmp_path: Path):
    (tmp_path / "innocent").symlink_to("/bin/sh")
    with pytest.raises(ValueError, match="can run any other program"):
        run_program(programs=[str(tmp_path / "innocent")], root=root, approve=yes)


def test_link_to_a_multicall_binary_is_checked_by_its_own_name(root: Path, tmp_path: Path, script: Callable[..., str]):
    box = script("echo box", "busybox")
    (tmp_path / "wc").symlink_to(box)
    (tmp_path / "sh").symlink_to(box)
    assert "box" in run_program(programs=[str(tmp_path / "wc")], root=root, approve=yes)("wc", [])
    for name in (box, str(tmp_path / "sh")):
        with pytest.raises(ValueError, match="can run any other program"):
            run_program(programs=[name], root=root, approve=yes)


def test_program_below_the_root_is_rejected(root: Path, tmp_path: Path):
    (root / "mine").write_text("#!/bin/sh\n")
    (root / "mine").chmod(0o755)
    (tmp_path / "link").symlink_to(root / "mine")
    for path in (root / "mine", tmp_path / "link"):
        with pytest.raises(ValueError, match="below the root"):
            run_program(programs=[str(path)], root=root, approve=yes)


@pytest.mark.parametrize("program", ["rm", "cat", "/usr/bin/wc", "../wc", "WC", "wc ", "wc -l", "", "wc\x00", "ｗｃ"])
def test_only_the_given_programs_run(root: Path, program: str):
    with pytest.raises(ToolError, match=r"is not allowed\. Allowed are: wc"):
        run_program(programs=["wc"], root=root, approve=yes)(program, [])
    assert ASKED == []


@pytest.mark.parametrize(
    ("arguments", "said"),
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
def test_arguments_are_checked_before_approval(root: Path, arguments: list[str], said: str):
    with pytest.raises(ToolError, match=said):
        run_program(programs=["wc"], root=root, approve=yes)("wc", arguments)
    assert ASKED == []


def test_environment_has_only_path_lang_and_given_variables(root: Path, script: Callable[[str], str], monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("LD_PRELOAD_X", "canary")
    program = script("env; pwd; cat; echo end")
    said = run_program(programs=[program], root=root, approve=yes, env={"MINE": "1"})("program", [])
    assert "canary" not in said
    assert "OPENAI" not in said
    names = {line.partition("=")[0] for line in said.splitlines() if "=" in line}
    assert names <= {"PATH", "LANG", "MINE", "PWD", "OLDPWD", "SHLVL", "_"}
    assert said.endswith(f"\n{root}\nend\n")


def test_standard_input_is_empty(root: Path):
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


def test_program_that_hangs_is_killed_with_its_children(root: Path, script: Callable[[str], str]):
    program = script("echo begun; sleep 60 & echo $! > child; trap '' TERM INT HUP; sleep 60")
    before = time.monotonic()
    with pytest.raises(ToolError, match=r"within 0\.3 seconds and was killed\. Output:\nbegun"):
        run_program(programs=[program], root=root, approve=yes, timeout=0.3)("program", [])
    assert time.monotonic() - before < 1.0
    assert _gone(int((root / "child").read_text()))


def test_background_child_is_killed_and_does_not_block_the_call(root: Path, script: Callable[[str], str]):
    program = script("sleep 60 & echo $! > child; echo done")
    before = time.monotonic()
    assert run_program(programs=[program], root=root, approve=yes, timeout=5)("program", []) == "exit status 0\ndone\n"
    assert time.monotonic() - before < 1.0
    assert _gone(int((root / "child").read_text()))


def test_program_is_killed_at_the_output_limit(root: Path, script: Callable[[str], str]):
    program = script("while :; do echo 0123456789012345678901234567890123456789; done")
    before = time.monotonic()
    said = run_program(programs=[program], root=root, approve=yes, timeout=10, max_output=1000)("program", [])
    assert said.startswith("killed after 1000 bytes of output\n0123")
    assert len(said) < 1100
    assert time.monotonic() - before < 2.0


def test_program_that_closes_its_output_runs_to_its_end(root: Path, script: Callable[[str], str]):
    program = script("echo early; exec >&- 2>&-; sleep 0.1; echo late > late; exit 4")
    assert run_program(programs=[program], root=root, approve=yes)("program", []) == "exit status 4\nearly\n"
    assert (root / "late").exists()


def test_output_is_read_to_its_end(root: Path, script: Callable[[str], str]):
    program = script("head -c 300000 /dev/zero | tr '\\0' x; echo; echo é")
    said = run_program(programs=[program], root=root, approve=yes, max_output=400_000)("program", [])
    assert said == "exit status 0\n" + "x" * 300_000 + "\né\n"


def test_ctrl_c_kills_the_program(root: Path, script: Callable[[str], str], monkeypatch):
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


def test_program_that_cannot_start_is_a_tool_error(root: Path, script: Callable[[str], str]):
    path = script("")
    tool = run_program(programs=[path], root=root, approve=yes)
    Path(path).unlink()
    with pytest.raises(ToolError, match="could not be started: FileNotFoundError"):
        tool("program", [])


def test_output_is_returned_when_the_host_ignores_sigchld(root: Path):
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run_program(programs=["cat"], root=root, approve=yes)("cat", ["a.txt"]).endswith("one two\nthree\n")
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_all_descriptors_and_processes_are_gone(root: Path):
    tool = run_program(programs=["cat"], root=root, approve=yes)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        tool("cat", ["a.txt"])
    assert len(os.listdir("/proc/self/fd")) == before
