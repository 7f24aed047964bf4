"""Tools with settings, built from `--tool name:setting=value,...`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Terminal, lmagent


def test_settings_follow_a_colon(tmp_path: Path):
    (tmp_path / "note.txt").write_text("hello")
    tool = f"files:root={tmp_path}"
    assert lmagent("tools", "call", "read_file", "path=note.txt", "--tool", tool).stdout == "hello\n"
    assert "write_file" not in lmagent("tools", "list", "--tool", tool).stdout
    assert "write_file" in lmagent("tools", "list", "--tool", tool + ",write=true").stdout


def test_numeric_settings_are_passed_as_numbers(tmp_path: Path):
    (tmp_path / "note.txt").write_text("hello, you there")
    done = lmagent("tools", "call", "read_file", "path=note.txt", "--tool", f"files:root={tmp_path},max_bytes=10")
    assert done.returncode == 7
    assert "10" in done.stderr


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("files:root=no-such-folder", "'no-such-folder' is not a folder"),
        ("files:root=.,write", "as name=value, not 'write'"),
        ("web:host=example.com", "web_fetch(hosts="),
        ("shell:programs=python3,root=.", "run_program(programs="),
        ("calculator:digits=3", "takes no settings"),
        ("nothing:a=1", "no ready-made tool 'nothing'"),
    ],
)
def test_wrong_setting_is_reported_in_one_line(tool: str, said: str):
    done = lmagent("tools", "list", "--tool", tool)
    assert done.returncode == 3
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_program_is_not_run_without_a_terminal(tmp_path: Path):
    (tmp_path / "note.txt").write_text("hello")
    tool = f"shell:programs=wc+sort,root={tmp_path}"
    assert lmagent("tools", "list", "--tool", tool).stdout.startswith("run_program")
    done = lmagent("tools", "call", "run_program", "program=wc", 'arguments=["note.txt"]', "--tool", tool)
    assert (done.returncode, done.stdout) == (7, "")  # no terminal to ask


def test_program_runs_after_consent_at_the_terminal(tmp_path: Path):
    (tmp_path / "note.txt").write_text("hello")
    call = ("tools", "call", "run_program", "program=wc", 'arguments=["note.txt"]')
    with Terminal(*call, "--tool", f"shell:programs=wc,root={tmp_path}", env={"NO_COLOR": "1"}) as terminal:
        assert "wc note.txt" in terminal.wait_for("Allow? [y/N]")
        terminal.type("y\n")
        terminal.wait_for("5 note.txt")
        assert terminal.finish() == 0
