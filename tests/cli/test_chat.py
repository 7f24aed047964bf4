"""`lmagent chat` at a terminal (a real pseudo-terminal) and with a pipe."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.cli.shell import CANARY, Terminal, lmagent, over
from tests.cli.test_run import WEATHER
from tests.loopback import CLOSE, STALL, chunk, head, json_answer, raw
from tests.openai_server import openai_server

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")


def test_pipe_gives_one_prompt_per_line(tmp_path: Path):
    path = tmp_path / "weather.py"
    path.write_text(WEATHER, "utf-8")
    with openai_server("你好！", [("get_weather", {"city": "北京"})], "今天北京天气晴朗，气温20度。") as server:
        done = lmagent(
            "chat", "-t", str(path), given="你好\n\n今天北京天气怎么样？\n/help\n".replace("/help\n", ""),
            env=over(server.url),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            "user: 你好\nassistant: 你好！\nuser: 今天北京天气怎么样？\nFunction call: get_weather\nArguments: {\n"
            '    "city": "北京"\n}\nfunction: "北京天气晴朗, 气温20度"\nassistant: 今天北京天气晴朗，气温20度。\n'
        )
        assert len(server.requests[1].json["messages"]) == 3


def test_error_in_a_pipe_exits_with_its_code():
    with openai_server("one", json_answer({"error": {"message": "no"}}, status=401)) as server:
        done = lmagent("chat", given="1\n2\n3\n", env=over(server.url))
        assert done.returncode == 4
        assert done.stdout == "user: 1\nassistant: one\nuser: 2\n"
        assert done.stderr.startswith("lmagent: AuthenticationFailed")
        assert len(server.requests) == 2


def test_wrong_options_exit_with_an_error():
    assert lmagent("chat", "--approve", "maybe").returncode == 2
    assert lmagent("chat", "-m", "unknown/x").returncode == 3
    assert lmagent("chat", "-m", "openai/x").returncode == 3


def test_empty_standard_input_sends_no_request():
    with openai_server("x") as server:
        done = lmagent("chat", env=over(server.url))
        assert (done.returncode, done.stdout, server.requests) == (0, "", [])


@needs_terminal
def test_conversation_at_a_terminal(tmp_path: Path):
    path = tmp_path / "weather.py"
    path.write_text(WEATHER, "utf-8")
    with (
        openai_server("你好，人类！", [("get_weather", {"city": "北京"})], "晴。", "又见面了。") as server,
        Terminal("chat", "-t", str(path), env={**over(server.url), "NO_COLOR": "1"}) as terminal,
    ):
        terminal.wait_for("openai/m; /help lists the commands, Ctrl-D leaves.")
        terminal.wait_for("user: ")
        terminal.type("你好\n")
        assert "你好，人类！" in terminal.wait_for("user: ")
        terminal.type("北京天气？\n")
        seen = terminal.wait_for("user: ")
        assert "Function call: get_weather" in seen
        assert "晴。" in seen
        terminal.type("/tools\n")
        assert "get_weather  Get weather of the city." in terminal.wait_for("user: ")
        terminal.type("/history\n")
        assert "assistant: 你好，人类！" in terminal.wait_for("assistant: 晴。")
        terminal.wait_for("user: ")
        terminal.type("/reset\n")
        terminal.wait_for("(forgotten)")
        terminal.wait_for("user: ")
        terminal.type("/nonsense\n")
        terminal.wait_for("Ctrl-C stops an answer")
        terminal.wait_for("user: ")
        terminal.type("在吗？\n")
        terminal.wait_for("又见面了。")
        terminal.wait_for("user: ")
        terminal.type("/quit\n")
        assert terminal.finish() == 0
        assert CANARY not in terminal.shown
        assert [len(request.json["messages"]) for request in server.requests] == [1, 3, 5, 1]


@needs_terminal
def test_ctrl_c_stops_an_answer_and_the_conversation_continues():
    begun = b'data: {"choices":[{"index":0,"delta":{"content":"Well"},"finish_reason":null}]}\n\n'
    start = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
    stalled = raw(start + chunk(begun), STALL)
    with (
        openai_server(raw(STALL), stalled, "Here I am.") as server,
        Terminal("chat", env={**over(server.url), "NO_COLOR": "1"}) as terminal,
    ):
        terminal.wait_for("user: ")
        terminal.type("1\n")
        assert server.wait_requests(1, 10)
        terminal.interrupt()
        terminal.wait_for("(stopped)")
        terminal.wait_for("user: ")
        terminal.type("2\n")
        terminal.wait_for("Well")
        terminal.interrupt()
        terminal.wait_for("(stopped)")
        terminal.wait_for("user: ")
        assert server.wait_closed()
        terminal.type("3\n")
        terminal.wait_for("assistant: Here I am.")
        terminal.wait_for("user: ")
        time.sleep(0.1)  # Python shows the prompt shortly before it waits for keys and signals
        terminal.interrupt()
        terminal.wait_for("(Ctrl-D or /quit leaves)")
        terminal.wait_for("user: ")
        terminal.type("\x04")
        assert terminal.finish() == 0
        # A prompt that was stopped before the reply is not part of the conversation.
        assert [message["content"] for message in server.requests[2].json["messages"]] == ["3"]


@needs_terminal
def test_error_at_a_terminal_does_not_end_the_conversation():
    refused = json_answer({"error": {"message": f"wrong key {CANARY}"}}, status=401)
    with openai_server(refused, "Now.") as server, Terminal("chat", env=over(server.url)) as terminal:
        terminal.wait_for("user: ")
        terminal.type("1\n")
        seen = terminal.wait_for("user: ")
        assert "lmagent: AuthenticationFailed" in seen
        assert CANARY not in seen
        terminal.type("2\n")
        terminal.wait_for("Now.")
        terminal.wait_for("user: ")
        terminal.type("\x04")
        assert terminal.finish() == 0


@needs_terminal
def test_answer_after_a_broken_stream_starts_on_a_new_line():
    begun = b'data: {"choices":[{"index":0,"delta":{"content":"Well"},"finish_reason":null}]}\n\n'
    broken = raw(head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}) + chunk(begun), CLOSE)
    with openai_server(broken, "Now.") as server, Terminal("chat", env=over(server.url)) as terminal:
        terminal.wait_for("user: ")
        terminal.type("1\n")
        terminal.wait_for("assistant: Well\nlmagent: StreamInterrupted: ")
        terminal.wait_for("user: ")
        terminal.type("2\n")
        terminal.wait_for("assistant: Now.\n")
        terminal.wait_for("user: ")
        terminal.type("\x04")
        assert terminal.finish() == 0


@needs_terminal
def test_chinese_input_works_in_an_ascii_locale():
    with openai_server("好。") as server, Terminal("chat", env={**over(server.url), "LC_ALL": "C"}) as terminal:
        terminal.wait_for("user: ")
        terminal.type("你好\n")
        terminal.wait_for("好。")
        assert server.requests[0].json["messages"][0]["content"] == "你好"
        terminal.type("\x04")
        assert terminal.finish() == 0


@needs_terminal
def test_approval_is_asked_at_a_terminal(tmp_path: Path):
    path = tmp_path / "danger.py"
    path.write_text(
        "from lmagent import function\n@function(requires_approval=True)\n"
        "def delete(n: int) -> str:\n    '''Delete.'''\n    return f'deleted {n}'\n",
        "utf-8",
    )
    lines = [("delete", {"n": 1})], "Done.", [("delete", {"n": 2})], "Not done."
    with openai_server(*lines) as server, Terminal("chat", "-t", str(path), env=over(server.url)) as terminal:
        for answer, said in (("y", "deleted 1"), ("n", "The user did not allow this call.")):
            terminal.wait_for("user: ")
            terminal.type("Delete!\n")
            terminal.wait_for("Allow? [y/N] ")
            terminal.type(f"{answer}\n")
            terminal.wait_for("one.")
            assert server.requests[-1].json["messages"][-1]["content"] == said
        terminal.wait_for("user: ")
        terminal.type("\x04")
        assert terminal.finish() == 0


@needs_terminal
def test_run_at_a_terminal_streams_and_rejects_a_missing_question():
    with openai_server("Hello there.") as server, Terminal("run", "?", env=over(server.url)) as terminal:
        terminal.wait_for("Hello there.\n")
        assert terminal.finish() == 0
        assert server.requests[0].json["stream"] is True
    with Terminal("run") as terminal:
        terminal.wait_for("There is no question")
        assert terminal.finish() == 2
