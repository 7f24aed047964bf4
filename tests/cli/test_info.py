"""`lmagent models`, `doctor`, `tools` and the help. The value of a key is never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.shell import CANARY, lmagent

KEYS = {"OPENAI_API_KEY": CANARY, "MINIMAX_API_KEY": CANARY, "ZHIPU_API_KEY": f"id.{CANARY}"}


def test_doctor_shows_which_keys_are_set_and_never_their_values():
    done = lmagent("doctor", env=KEYS)
    assert done.returncode == 0
    assert "  OPENAI_API_KEY: set\n" in done.stdout
    assert "  ANTHROPIC_API_KEY: not set\n" in done.stdout
    assert "  default: openai\n" in done.stdout
    report = json.loads(lmagent("doctor", "--json", env=KEYS).stdout)
    assert report["keys"]["MINIMAX_API_KEY"] == "set"
    assert set(report) == {"versions", "extras", "keys", "settings", "model"}


def test_doctor_shows_secret_keys_and_other_settings_that_are_set():
    done = lmagent("doctor", env={**KEYS, "WENXIN_SECRET_KEY": CANARY, "OPENAI_BASE_URL": f"https://{CANARY}.example"})
    assert done.stdout.count("settings\n  OPENAI_BASE_URL: set\n  WENXIN_SECRET_KEY: set\n") == 1
    assert CANARY not in done.stdout
    assert "settings" not in lmagent("doctor", env=KEYS).stdout


def test_models_lists_providers_and_features():
    done = lmagent("models", env=KEYS)
    assert done.returncode == 0
    lines = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()}
    assert (lines["openai"], lines["minimax"], lines["minimax_pro"], lines["anthropic"]) == ("ready", "ready", "-", "-")
    rows = json.loads(lmagent("models", "--json", env=KEYS).stdout)
    assert {row["prefix"]: row["configured"] for row in rows}["openai"] is True


def test_tools_can_be_listed_shown_and_called():
    listed = lmagent("tools", "list")
    assert listed.returncode == 0
    assert "calculator" in listed.stdout
    assert "needs settings: --tool files:" in listed.stderr
    shown = json.loads(lmagent("tools", "show", "calculator").stdout)
    assert shown["parameters"]["required"] == ["expression"]
    schemas = json.loads(lmagent("tools", "list", "--json").stdout)
    assert "calculator" in {schema["name"] for schema in schemas}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (('{"expression": "17 * 23"}',), ""),
        (("expression=17 * 23",), ""),
        (("-",), '{"expression": "17 * 23"}'),
    ],
)
def test_tool_call_accepts_json_pairs_and_standard_input(arguments: tuple[str, ...], given: str):
    done = lmagent("tools", "call", "calculator", *arguments, given=given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "391\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("call", "calculator", "expression=1/0"), 7, "ToolError"),
        (("call", "calculator", "{}"), 7, "expression"),
        (("call", "calculator", '{"expression": '), 7, "valid JSON"),
        (("call", "calculater", "{}"), 3, "Did you mean calculator"),
        (("call", "calculator", "nonsense"), 2, "name=value"),
        (("show", "nothing"), 3, "There is no tool 'nothing'"),
        (("list", "--tool", "nothing"), 3, "No tools found"),
    ],
)
def test_tool_errors_have_a_message_and_an_exit_code(arguments: tuple[str, ...], code: int, said: str):
    done = lmagent("tools", *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert said in done.stderr


def test_tool_output_goes_to_standard_error_and_its_result_to_standard_output(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from lmagent import function\n@function\n"
        "def repeat(text: str | None, times: int, more: bool = False) -> str:\n"
        "    '''Repeat.'''\n    return f'{text!r} {times} {more} \\x1b]0;owned'\n",
        "utf-8",
    )
    done = lmagent("tools", "call", "repeat", "text=17", "times=3", "more=true", "--tool", str(path))
    assert (done.returncode, done.stdout) == (0, "'17' 3 True \\x1b]0;owned\n")
    done = lmagent("tools", "call", "repeat", "-", "--tool", str(path), given='{"text": "你", "times": 2}')
    assert done.stdout == "'你' 2 False \\x1b]0;owned\n"
    done = lmagent("tools", "call", "repeat", "text=a", "times=1e400", "--tool", str(path))
    assert done.returncode == 7
    assert "times: Input should be a valid integer" in done.stderr
    assert lmagent("tools", "call", "calculator", "expression=17").stdout == "17\n"


def test_tools_with_settings_are_built_from_the_option(tmp_path: Path):
    (tmp_path / "a.txt").write_text("内容", "utf-8")
    listed = lmagent("tools", "list", "--tool", f"files:root={tmp_path}")
    assert listed.returncode == 0, listed.stderr
    assert "read_file" in listed.stdout
    assert "write_file" not in listed.stdout
    done = lmagent("tools", "call", "read_file", "path=a.txt", "--tool", f"files:root={tmp_path}")
    assert (done.returncode, "内容" in done.stdout) == (0, True)
    done = lmagent("tools", "call", "read_file", "path=../secret", "--tool", f"files:root={tmp_path}")
    assert done.returncode == 7
    done = lmagent("tools", "list", "--tool", "files:nonsense=1")
    assert done.returncode == 3
    assert "In Python: file_tools(" in done.stderr


def test_tools_are_loaded_from_a_file_and_a_folder(tmp_path: Path):
    code = (
        "from lmagent import function\n@function\ndef {0}(x: int) -> int:\n    '''Do {0}.'''\n    print('noise')\n"
        "    return x\n"
    )
    (tmp_path / "one.py").write_text(code.format("first"), "utf-8")
    (tmp_path / "two.py").write_text(code.format("second"), "utf-8")
    listed = lmagent("tools", "list", "--tool", str(tmp_path))
    assert listed.stdout.split() == ["first", "Do", "first.", "second", "Do", "second."]
    assert lmagent("tools", "call", "first", "x=5", "--tool", "one.py", cwd=tmp_path).stdout.endswith("5\n")
    (tmp_path / "three.py").write_text("1/0", "utf-8")
    done = lmagent("tools", "list", "--tool", str(tmp_path / "three.py"))
    assert done.returncode == 3
    assert "ZeroDivisionError" in done.stderr


def test_help_names_the_commands_and_the_exit_codes():
    done = lmagent("--help")
    assert done.returncode == 0
    for word in ("run", "chat", "tools", "models", "doctor", "Exit codes", "130: interrupted"):
        assert word in done.stdout
    assert lmagent("--version").stdout == "lmagent 0.1.0\n"
    assert "--approve" in lmagent("run", "--help").stdout
