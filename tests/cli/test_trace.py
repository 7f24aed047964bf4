"""`--trace FILE` and `lmagent trace show FILE`: in a pipe and in a terminal, damaged files, control characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmagent import Agent, function
from lmagent.core.messages import Usage
from lmagent.observe.trace_file import TraceFile
from lmagent.testing import ScriptedModel, calls, text
from tests.cli.shell import CANARY, Terminal, lmagent, over
from tests.openai_server import openai_server

TOOL = '''
from lmagent import function

@function
def double(n: int) -> int:
    """Double."""
    return 2 * n
'''


@pytest.fixture
def tool(tmp_path: Path) -> str:
    path = tmp_path / "double.py"
    path.write_text(TOOL, "utf-8")
    return str(path)


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """Return a trace of an agent that calls another agent."""
    path = tmp_path / "nested.jsonl"
    seconds = iter(range(1000))
    trace = TraceFile(path, content=True, timer=lambda: float(next(seconds)))

    @function
    def double(n: int) -> int:
        """Double."""
        return 2 * n

    usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
    inner = Agent(ScriptedModel([text("hostile \x1b[2J\nrun 00 fake", usage=usage)]), name="helper")
    outer = Agent(
        ScriptedModel([calls(("helper", {"prompt": "?"}), usage=usage), calls(("double", {"n": "x"})), "done"]),
        [inner.as_function(), double],
        name="boss",
        hooks=trace.hooks,
    )
    outer.run("go " + "x" * 500)
    return path


@pytest.mark.parametrize("arguments", [["run", "QUESTION", "--no-stream"], ["run", "QUESTION", "--jsonl"], ["chat"]])
def test_trace_is_written_and_shown(tmp_path: Path, tool: str, arguments: list[str]):
    path = tmp_path / "run.jsonl"
    with openai_server([("double", {"n": 21})], "ANSWER") as server:
        done = lmagent(*arguments, "--tool", tool, "--trace", str(path), given="QUESTION\n", env=over(server.url))
    assert done.returncode == 0
    written = path.read_text("utf-8")
    assert "QUESTION" not in written
    assert "ANSWER" not in written
    assert CANARY not in written
    shown = lmagent("trace", "show", str(path))
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("run ")
    assert "agent  openai/m" in lines[0]
    assert lines[0].endswith("20 + 10 tokens  stop")
    assert [line.split()[0:2] for line in lines[1:]] == [["ask", "openai/m"], ["call", "double"], ["ask", "openai/m"]]
    assert lines[1].endswith("10 + 5 tokens  tool_calls  → double")
    assert lines[2].endswith("ok")


def test_content_is_written_only_on_request(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    with openai_server("ANSWER") as server:
        lmagent("run", "QUESTION", "--trace", str(path), "--trace-content", env=over(server.url))
    shown = lmagent("trace", "show", str(path)).stdout
    assert 'prompt: [{"role": "user", "content": "QUESTION"}]' in shown
    assert "reply: ANSWER" in shown


def test_nested_runs_are_shown_under_their_call(nested: Path):
    done = lmagent("trace", "show", str(nested))
    lines = done.stdout.splitlines()
    depth = [(len(line) - len(line.lstrip()), line.split()[0]) for line in lines]
    assert depth[0] == (0, "run")
    assert (2, "call") in depth
    assert (4, "run") in depth
    assert (6, "ask") in depth
    assert sum(line.startswith("run ") for line in lines) == 1
    assert "\x1b" not in done.stdout
    assert "reply: hostile \\x1b[2J\\nrun 00 fake" in done.stdout
    assert "(" in done.stdout
    assert "--full shows all" in done.stdout
    assert "x" * 500 not in done.stdout
    assert "invalid_arguments" in done.stdout
    assert "x" * 500 in lmagent("trace", "show", str(nested), "--full").stdout


def test_terminal_shows_a_tree(nested: Path):
    with Terminal("trace", "show", str(nested)) as terminal:
        seen = terminal.wait_for("ask scripted/script")
        assert "├──" in seen
        terminal.wait_for("hostile \\x1b[2J")
        assert terminal.finish() == 0


def test_unreadable_lines_are_counted(nested: Path):
    with nested.open("ab") as file:
        file.write(b'[1]\n{"event": 3}\n{"event":"run_sta')
    done = lmagent("trace", "show", str(nested))
    assert done.returncode == 0
    assert done.stderr == "(3 lines could not be read)\n"


def test_unfinished_run_is_shown_with_an_ellipsis(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    events = [
        {"event": "run_start", "run": "abc", "agent": "a", "model": "p/m"},
        {"event": "model_start", "run": "abc", "model": "p/m"},
        {
            "event": "tool_end",
            "run": "zzz",
            "call": "c",
            "tool": "\x1b]0;x",
            "outcome": "failed",
            "error": "ValueError",
        },
        {"event": "something_new", "run": "abc"},
        {"event": "decision", "run": "abc", "tool": "t", "decision": "deny"},
        {"event": "decision", "run": "abc", "tool": "t", "decision": "allow", "rule": "once", "by": "approver"},
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
    done = lmagent("trace", "show", str(path))
    assert done.stdout.splitlines() == [
        "run abc  a  p/m …",
        "  ask p/m …",
        "  something_new",
        "  decision on t: deny",
        "  decision on t: allow by approver (once)",
        "run zzz (its start is missing)",
        "  call \\x1b]0;x  failed  failed: ValueError",
    ]
    assert lmagent("trace", "show", str(path), "--run", "ab").stdout.splitlines()[0] == "run abc  a  p/m …"


def test_files_that_cannot_be_shown_are_reported(tmp_path: Path):
    missing = lmagent("trace", "show", str(tmp_path / "nothing.jsonl"))
    assert missing.returncode == 2
    assert "No such file" in missing.stderr
    (tmp_path / "empty.jsonl").touch()
    empty = lmagent("trace", "show", str(tmp_path / "empty.jsonl"))
    assert empty.returncode == 2
    assert "has no run" in empty.stderr
    nowhere = lmagent("run", "?", "-m", "openai/m", "--trace", str(tmp_path / "no" / "t.jsonl"), env=over("http://x"))
    assert nowhere.returncode != 0
    assert "cannot be written" in nowhere.stderr
