"""`lmagent batch`: input and output files, failures, interruption and `--resume`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import lmagent, over, started
from tests.loopback import STALL, Answer, LoopbackServer, Received, json_answer, raw


def said(request: Received) -> str:
    return request.json["messages"][-1]["content"]


def reply(request: Received) -> Answer:
    message = {"role": "assistant", "content": f"re {said(request)}"}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return json_answer({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def written(path: Path, *items: Any) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return str(path)


def test_json_lines_are_answered_in_order_with_a_summary(tmp_path: Path):
    source = written(
        tmp_path / "in.jsonl", "你好", {"id": "x", "prompt": "b"}, {"messages": [{"role": "user", "content": "c"}]}
    )
    out = tmp_path / "out.jsonl"
    (tmp_path / "prices.json").write_text('{"openai/*": {"input": 100000, "output": 50000}}')
    with LoopbackServer(reply) as server:
        done = lmagent(
            "batch",
            source,
            str(out),
            "-p",
            "temperature=0",
            "--prices",
            str(tmp_path / "prices.json"),
            env=over(server.url),
        )
        assert all(request.json["temperature"] == 0 for request in server.requests)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [(line["id"], line["reply"]) for line in lines_of(out)] == [("0", "re 你好"), ("x", "re b"), ("2", "re c")]
    assert lines_of(out)[0]["usage"]["total_tokens"] == 30
    assert "3 done" in done.stderr
    assert "90 tokens" in done.stderr
    assert "cost 6.0000" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
        "out.jsonl.journal",
        "prices.json",
    ]


def test_prompts_are_read_from_csv_and_standard_input(tmp_path: Path):
    (tmp_path / "in.csv").write_text('id,prompt,system,note\n7,"two\nlines",be brief,x\n,b,,\n', "utf-8")
    out = tmp_path / "out.jsonl"
    with LoopbackServer(reply) as server:
        done = lmagent("batch", str(tmp_path / "in.csv"), str(out), "--concurrency", "1", env=over(server.url))
        assert done.returncode == 0, done.stderr
        assert [message["role"] for message in server.requests[0].json["messages"]] == ["system", "user"]
        assert [(line["id"], line["reply"]) for line in lines_of(out)] == [("7", "re two\nlines"), ("1", "re b")]
        done = lmagent("batch", "-", str(tmp_path / "o2.jsonl"), "-q", given='"a"\n\n"b"\n', env=over(server.url))
    assert done.returncode == 0
    assert [line["reply"] for line in lines_of(tmp_path / "o2.jsonl")] == ["re a", "re b"]


def test_failed_prompts_are_lines_with_exit_code_1_and_resume_asks_them_again(tmp_path: Path):
    source = tmp_path / "in.jsonl"
    source.write_text('"a"\nnot json\n"b"\n"c"\n', "utf-8")
    out = tmp_path / "out.jsonl"

    def flaky(request: Received) -> Answer:
        return json_answer({"error": {"message": "no"}}, 400) if said(request) == "b" else reply(request)

    with LoopbackServer(flaky) as server:
        done = lmagent("batch", str(source), str(out), env=over(server.url))
        assert done.returncode == 1
        assert "1 failed with BadRequest" in done.stderr
        assert "1 failed with MessageError" in done.stderr
        lines = lines_of(out)
        assert [line.get("reply") for line in lines] == ["re a", None, None, "re c"]
        assert lines[2]["error"]["type"] == "BadRequest"
        assert "Line 2" in lines[1]["error"]["message"]
        done = lmagent("batch", str(source), str(out), env=over(server.url))
        assert done.returncode == 2
        assert "--resume" in done.stderr
        assert len(server.requests) == 3
    with LoopbackServer(reply) as server:
        done = lmagent("batch", str(source), str(out), "--resume", env=over(server.url))
        assert done.returncode == 1
        assert len(server.requests) == 0
        done = lmagent("batch", str(source), str(out), "--retry-failed", env=over(server.url))
        assert [said(request) for request in server.requests] == ["b"]
    assert [line.get("reply") for line in lines_of(out)] == ["re a", None, "re b", "re c"]


def test_wrong_key_stops_after_the_first_prompt_and_can_be_resumed(tmp_path: Path):
    source = written(tmp_path / "in.jsonl", *(str(i) for i in range(200)))
    out = tmp_path / "out.jsonl"
    with LoopbackServer(lambda request: json_answer({"error": {"message": "bad key"}}, 401)) as server:
        done = lmagent("batch", source, str(out), "--concurrency", "2", env=over(server.url))
        assert done.returncode == 4, done.stderr
        assert "AuthenticationFailed" in done.stderr
        assert "--resume" in done.stderr
        assert len(server.requests) <= 4
    with LoopbackServer(reply) as server:
        done = lmagent("batch", source, str(out), "--resume", "--concurrency", "20", env=over(server.url))
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 200
    assert [line["reply"] for line in lines_of(out)] == [f"re {i}" for i in range(200)]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_first_ctrl_c_finishes_prompts_in_progress_and_resume_continues(tmp_path: Path):
    source = written(tmp_path / "in.jsonl", *(str(i) for i in range(300)))
    out = tmp_path / "out.jsonl"

    def slow(request: Received) -> Answer:
        return raw(0.02, *reply(request).steps)

    with LoopbackServer(slow) as server:
        with started("batch", source, str(out), "--concurrency", "4", env=over(server.url)) as process:
            assert _wait(server, 20)
            os.kill(process.pid, signal.SIGINT)
            _, complaint = process.communicate(timeout=20)
        text = complaint.decode()
        assert process.returncode == 130, text
        assert "finishing prompts in progress" in text
        first = len(server.requests)
        assert first < 300
        assert len(lines_of(out)) == first
        done = lmagent("batch", source, str(out), "--resume", "--concurrency", "50", env=over(server.url))
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 300
    assert [line["index"] for line in lines_of(out)] == list(range(300))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_second_ctrl_c_stops_at_once(tmp_path: Path):
    source = written(tmp_path / "in.jsonl", "a", "b", "c")
    with (
        LoopbackServer(raw(STALL)) as server,
        started("batch", source, str(tmp_path / "out"), "-q", env=over(server.url)) as process,
    ):
        assert process.stderr is not None
        assert _wait(server, 3)
        os.kill(process.pid, signal.SIGINT)
        process.stderr.readline()
        assert b"finishing prompts in progress" in process.stderr.readline()
        before = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
        assert (process.returncode, complaint.decode()) == (130, "\nlmagent: interrupted\n")
        assert time.monotonic() - before < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.journal"]


def _wait(server: LoopbackServer, count: int) -> bool:
    until = time.monotonic() + 20
    while len(server.requests) < count and time.monotonic() < until:
        time.sleep(0.01)
    return len(server.requests) >= count


def test_tools_and_system_prompt_are_used_for_every_prompt(tmp_path: Path):
    source = written(tmp_path / "in.jsonl", "2+3")
    out = tmp_path / "out.jsonl"

    def tooled(request: Received) -> Answer:
        messages = request.json["messages"]
        assert messages[0] == {"role": "system", "content": "Use tools."}
        if messages[-1]["role"] == "tool":
            return json_answer(
                {"choices": [{"message": {"content": f"= {messages[-1]['content']}"}, "finish_reason": "stop"}]}
            )
        call = {"id": "c", "type": "function", "function": {"name": "calculate", "arguments": '{"expression": "2+3"}'}}
        name = request.json["tools"][0]["function"]["name"]
        call["function"]["name"] = name  # type: ignore[index]
        return json_answer(
            {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
        )

    with LoopbackServer(tooled) as server:
        done = lmagent("batch", source, str(out), "--tool", "calculator", "-s", "Use tools.", env=over(server.url))
    assert done.returncode == 0, done.stderr
    (line,) = lines_of(out)
    assert "5" in line["reply"]
    assert line["tool_calls"][0]["arguments"] == '{"expression": "2+3"}'


ODD_FILES: list[tuple[str, bytes, list[str]]] = [
    ("bom.jsonl", b'\xef\xbb\xbf"a"\r\n\r\n  \n"b"', ["re a", "re b"]),
    (
        "broken.jsonl",
        b'"a"\nnot json\n{"promt": 1}\n"caf\xe9"\n{"prompt": "c"',
        [
            "re a",
            "Line 2 is not JSON: expected ident at column 2",
            "Item 2 must have 'prompt' (or 'messages') and may have 'id' and 'parameters'; it has ['promt'].",
            "Line 4 is not UTF-8.",
            "Line 5 is not JSON: EOF while parsing an object at column 14",
        ],
    ),
    ("empty.jsonl", b"", []),
    ("header.csv", b"prompt\n", []),
    (
        "a.CSV",
        b'\xef\xbb\xbfid,prompt\r\n1,"two\r\nlines, ""q"""\r\n\r\n2\r\n3,one, two\r\n4,\r\n',
        [
            're two\r\nlines, "q"',
            "Line 5 has no prompt.",
            "Line 6 has more fields than the header; put a prompt with commas in quotes.",
            "Line 7 has no prompt.",
        ],
    ),
    ("long.csv", b"prompt\n" + b"x" * 200_000, ["re " + "x" * 200_000]),
]


@pytest.mark.parametrize(("name", "content", "expected"), ODD_FILES, ids=[name for name, _, _ in ODD_FILES])
def test_unusual_files_are_read_or_reported(tmp_path: Path, name: str, content: bytes, expected: list[str]):
    (tmp_path / name).write_bytes(content)
    with LoopbackServer(reply) as server:
        done = lmagent("batch", str(tmp_path / name), str(tmp_path / "out"), env=over(server.url))
    lines = lines_of(tmp_path / "out")
    assert [line["reply"] if "reply" in line else line["error"]["message"] for line in lines] == expected
    assert done.returncode == any("error" in line for line in lines), done.stderr
    assert done.stderr.startswith(f"{len(expected)}/{len(expected)}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"prompt\ncaf\xe9\n", "The CSV file is not UTF-8; save it as UTF-8 first."),
        (b'prompt\na\n"never closed\nb\n', "The CSV file cannot be read after line 2: unexpected end of data."),
        (b"question\na\n", "The CSV file needs a column 'prompt'; its columns are ['question']."),
    ],
)
def test_unreadable_csv_is_rejected_before_any_request(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "in.csv").write_bytes(content)
    with LoopbackServer(reply) as server:
        done = lmagent("batch", str(tmp_path / "in.csv"), str(tmp_path / "out"), env=over(server.url))
        assert server.requests == []
    assert (done.returncode, done.stderr) == (3, f"lmagent: ConfigurationError: {said}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_wrong_command_line_exits_with_2(tmp_path: Path):
    source = written(tmp_path / "in.jsonl", "a")
    env = over("http://127.0.0.1:9")
    assert lmagent("batch", "missing.jsonl", str(tmp_path / "o"), env=env).returncode == 2
    assert lmagent("batch", source, source, "--resume", env=env).returncode == 2
    assert lmagent("batch", source, str(tmp_path / "no" / "o"), env=env).returncode == 2
    for out in ("-", ".", "/dev/stdout"):
        done = lmagent("batch", source, out, "--resume", env=env)
        assert (done.returncode, "OUT must be a file" in done.stderr) == (2, True)
    (tmp_path / "prices.json").write_text("[]")
    done = lmagent("batch", source, str(tmp_path / "o"), "--prices", str(tmp_path / "prices.json"), env=env)
    assert done.returncode == 3
