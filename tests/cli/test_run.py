"""`lmagent run` in a pipe: answers on standard output, all other text on standard error, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmagent.cli import main
from tests.cli.shell import CANARY, ROOT, environment, lmagent, over, started
from tests.loopback import STALL, json_answer, raw
from tests.openai_server import openai_server

WEATHER = '''
from lmagent import function

@function
def get_weather(city: str) -> str:
    """Get weather of the city."""
    return f"{city}天气晴朗, 气温20度"
'''

SHOWN = """\
Function call: get_weather
Arguments: {
    "city": "北京"
}
function: "北京天气晴朗, 气温20度"
"""


@pytest.fixture
def weather(tmp_path: Path) -> str:
    path = tmp_path / "weather.py"
    path.write_text(WEATHER, "utf-8")
    return str(path)


def _script() -> tuple[object, ...]:
    return ([("get_weather", {"city": "北京"})], "今天北京天气晴朗，气温20度。")


def test_answer_goes_to_stdout_and_tool_calls_to_stderr(weather: str):
    with openai_server(*_script()) as server:
        done = lmagent("run", "今天北京天气怎么样？", "--tool", weather, env=over(server.url))
        assert (done.returncode, done.stdout, done.stderr) == (0, "今天北京天气晴朗，气温20度。\n", SHOWN)
        first = server.requests[0]
        assert first.headers["authorization"] == f"Bearer {CANARY}"
        assert first.json["messages"] == [{"role": "user", "content": "今天北京天气怎么样？"}]


def test_stream_quiet_system_prompt_and_parameters(weather: str):
    with openai_server(*_script()) as server:
        done = lmagent(
            "run", "-", "-t", weather, "--stream", "-q", "-s", "Be brief.", "-p", "temperature=0", "-p", "seed=7",
            "-m", "openai/other", given="北京？\n", env=over(server.url),
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "今天北京天气晴朗，气温20度。\n", "")
        body = server.requests[0].json
        assert (body["model"], body["stream"], body["temperature"], body["seed"]) == ("other", True, 0, 7)
        assert [message["content"] for message in body["messages"]] == ["Be brief.", "北京？"]


def test_json_prints_the_whole_result(weather: str):
    with openai_server(*_script()) as server:
        done = lmagent("run", "北京？", "-t", weather, "--json", env=over(server.url))
    result = json.loads(done.stdout)
    assert result["reply"] == "今天北京天气晴朗，气温20度。"
    assert (result["finish_reason"], result["rounds"], result["requests"]) == ("stop", 2, 2)
    assert (result["model_id"], result["usage"]["total_tokens"]) == ("openai/m", 30)
    assert [message["role"] for message in result["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert result["tool_calls"][0]["name"] == "get_weather"
    assert "北京" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_output_of_a_tool_goes_to_standard_error(tmp_path: Path, form: str):
    path = tmp_path / "loud.py"
    path.write_text(WEATHER.replace("    return", "    print('looking')\n    return") + "print('loaded')\n", "utf-8")
    with openai_server(*_script()) as server:
        done = lmagent("run", "北京？", "-t", str(path), form, env=over(server.url))
    assert [json.loads(line) for line in done.stdout.splitlines()] if form == "--jsonl" else json.loads(done.stdout)
    assert done.stderr == "loaded\nlooking\n"
    done = lmagent("tools", "call", "get_weather", "city=北京", "-t", str(path))
    assert (done.stdout, done.stderr) == ("北京天气晴朗, 气温20度\n", "loaded\nlooking\n")


def test_jsonl_prints_one_event_per_line(weather: str):
    with openai_server(*_script()) as server:
        done = lmagent("run", "北京？", "-t", weather, "--jsonl", env=over(server.url))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "round_start"
    assert names[-1] == "run_end"
    assert {"tool_call_start", "tool_call_end", "tool_start", "tool_end", "text_delta", "round_end"} <= set(names)
    assert (
        "".join(event["text"] for event in events if event["event"] == "text_delta") == (events[-1]["result"]["reply"])
    )


def test_question_is_read_from_standard_input():
    with openai_server("hi") as server:
        done = lmagent("run", given="多行\n问题\n", env=over(server.url))
        assert done.stdout == "hi\n"
        assert server.requests[0].json["messages"][0]["content"] == "多行\n问题"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run",), 2, "The question is empty"),
        (("run", " "), 2, "The question is empty"),
        (("run", "?", "--json", "--jsonl"), 2, "either --json or --jsonl"),
        (("run", "?", "--approve", "maybe"), 2, "must be ask, always or never, not 'maybe'"),
        (("run", "?", "--nothing"), 2, "--nothing"),
        (("run", "?", "--max-rounds", "0"), 2, "max-rounds"),
        (("run", "?", "-m", "openai/x"), 3, "No API key for 'openai'"),
        (("run", "?", "-m", "unknown/x"), 3, "No provider 'unknown'"),
        (("run", "?", "-t", "nothing-there", "-m", "local"), 3, "No tools found at 'nothing-there'"),
        (("run", "?", "-p", "temperature=-1", "-m", "local"), 3, "temperature"),
        (("run", "?", "-p", "temperature", "-m", "local"), 3, "name=value"),
        (("run", "?", "-m", "local//no/such/file.gguf"), 3, "/no/such/file.gguf"),
        (("run", "?", "--tool-choice", "nothing", "-m", "local"), 3, "tool_choice='nothing'"),
        (("run", "?", "--tool-mode", "magic", "-m", "local"), 3, "tool_mode"),
        (("run", "?", "-t", "files", "-m", "local"), 3, "Build one first"),
        (("nothing",), 2, "nothing"),
    ],
)
def test_wrong_options_have_a_message_and_an_exit_code(arguments: tuple[str, ...], code: int, said: str):
    done = lmagent(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert said in done.stderr


def test_failures_of_a_run_have_their_exit_codes(weather: str):
    refused = json_answer({"error": {"message": f"Incorrect API key provided: {CANARY}"}}, status=401)
    with openai_server(refused) as server:
        done = lmagent("run", "?", env=over(server.url))
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith("lmagent: AuthenticationFailed: openai/m: ")
        assert done.stderr.count("\n") == 1
    with openai_server([("get_weather", {"city": "x"})]) as server:
        done = lmagent("run", "?", "-t", weather, "--max-rounds", "1", env=over(server.url))
        assert (done.returncode, done.stdout) == (5, "")
        assert "LimitExceeded: The run reached its limit of 1 rounds" in done.stderr


def test_control_characters_are_escaped():
    with openai_server("\x1b]0;owned\x07 \u202e ok") as server:
        done = lmagent("run", "?", env=over(server.url))
        assert done.stdout == "\\x1b]0;owned\\x07 \\u202e ok\n"


def test_calls_that_need_approval_are_denied_without_a_terminal(tmp_path: Path):
    path = tmp_path / "danger.py"
    path.write_text(
        "from lmagent import function\n@function(requires_approval=True)\n"
        "def delete(n: int) -> str:\n    '''Delete.'''\n    return f'deleted {n}'\n",
        "utf-8",
    )
    for arguments, said in ((("--approve", "ask"), "no terminal to ask"), (("--approve", "always"), "deleted 1")):
        with openai_server([("delete", {"n": 1})], "ok") as server:
            done = lmagent("run", "?", "-t", str(path), *arguments, env=over(server.url))
            assert done.returncode == 0
            assert said in server.requests[1].json["messages"][2]["content"]


def test_input_and_output_that_are_not_utf_8():
    with openai_server("北京 ok") as server:
        done = lmagent(
            "run", given=b"\xff\xfe caf\xe9", env={**over(server.url), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        )
        assert done.returncode == 0, done.stderr
        assert "ok" in done.stdout
        assert "\ufffd" in server.requests[0].json["messages"][0]["content"]


def test_closed_output_pipe_prints_no_traceback():
    with openai_server("word " * 50_000) as server, started("run", "?", "--jsonl", env=over(server.url)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(20) != 0
        assert "Traceback" not in said
        assert "BrokenPipe" not in said


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">/dev/full", 1, "lmagent: [Errno 28] No space left on device\n"),
        (">&-", 0, ""),
        ("<&-", 2, "lmagent: The question is empty.\n"),
        ("<&- 2>&-", 2, ""),
    ],
)
def test_full_or_closed_standard_streams(streams: str, code: int, said: str):
    with openai_server("hi") as server:
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m lmagent run {streams}', sys.executable],
            input=b"?",
            capture_output=True,
            cwd=ROOT,
            env=environment(over(server.url)),
            timeout=60,
        )
    assert (done.returncode, done.stderr.decode()) == (code, said)


def test_ctrl_c_before_the_command_starts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmagent.cli.app.run_app", interrupted)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err.strip() == "lmagent: interrupted"


@pytest.mark.parametrize("arguments", [(), ("--stream",), ("--jsonl",)])
def test_ctrl_c_exits_with_130(arguments: tuple[str, ...]):
    with openai_server(raw(STALL)) as server, started("run", "?", *arguments, env=over(server.url)) as process:
        assert server.wait_requests(1, 20)
        time.sleep(0.05)
        before = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=10)
        assert process.returncode == 130
        assert time.monotonic() - before < 3
        assert said.decode().strip() == "lmagent: interrupted"
        assert server.wait_closed()
