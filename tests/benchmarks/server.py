"""The model server of the benchmarks: a process of its own, so that its work is not counted.

`python -m tests.benchmarks.server` prints its port. What it answers is told by the model's name:

    hello           a text
    tool            a call of `get_weather`, and a text once the last message is a result; streamed if asked for
    final-...       as `tool`, but the text is the argument of a call of `final_answer`
    slow            as `tool`, each answer after 0.2 seconds
    burst-N         a stream of N events, in one write
    paced-N         a stream of N events, a write and a millisecond each
    arguments-N     a streamed call of `save` whose argument of N bytes comes in pieces of 4, then a text
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

USAGE = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
SLOW = 0.2
PACE = 0.001
_MODEL = re.compile(rb'"model":\s*"([^"]+)"')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream":\s*true')
_LAST_ROLE = re.compile(rb'.*"role":\s*"(\w+)"', re.DOTALL)


def _whole(message: dict[str, Any], reason: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    body = json.dumps(
        {"id": "r1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _call(name: str, arguments: dict[str, str]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}


WEATHER = _call("get_weather", {"city": "Shanghai"})
TEXT = _whole({"content": "Sunny, 21 degrees."}, "stop")
CALL = _whole(WEATHER, "tool_calls")
FINAL = _whole(_call("final_answer", {"answer": "Sunny, 21 degrees."}), "tool_calls")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return _piece(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


@lru_cache
def _text_stream(events: int) -> list[bytes]:
    middle = [_event({"content": f"word{n} "}) for n in range(events)]
    start, end = _event({"role": "assistant", "content": ""}), _event({}, "stop")
    return [STREAM_HEAD + start, *middle, end + _piece(b"data: [DONE]\n\n") + _piece(b"")]


@lru_cache
def _call_stream(size: int) -> bytes:
    text = json.dumps({"text": "x" * size})
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "save", "arguments": ""}}
    pieces = [_event({"role": "assistant", "content": None, "tool_calls": [call]})]
    pieces += [
        _event({"tool_calls": [{"index": 0, "function": {"arguments": text[at : at + 4]}}]})
        for at in range(0, len(text), 4)
    ]
    pieces += [_event({}, "tool_calls"), _piece(b"data: [DONE]\n\n"), _piece(b"")]
    return STREAM_HEAD + b"".join(pieces)


def _stream(delta: dict[str, Any], reason: str) -> bytes:
    events = [_event({"role": "assistant", **delta}), _event({}, reason), _piece(b"data: [DONE]\n\n"), _piece(b"")]
    return STREAM_HEAD + b"".join(events)


STREAMED_TEXT = _stream({"content": "Sunny, 21 degrees."}, "stop")
STREAMED_CALL = _stream({"content": None, "tool_calls": [{"index": 0, **WEATHER["tool_calls"][0]}]}, "tool_calls")


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        wanted = int(length[1]) if length else 0
        if not found or len(rest) < wanted:
            return
        self.buffer = rest[wanted:]
        self._answer(rest[:wanted])

    def _answer(self, body: bytes) -> None:
        # Ours writes the model behind the messages, the floor in front.
        model = _MODEL.search(body, max(len(body) - 200, 0)) or _MODEL.search(body)
        name, _, number = (model[1] if model else b"hello").decode().partition("-")
        last = _LAST_ROLE.match(body)
        answered = last is not None and last[1] == b"tool"
        loop = asyncio.get_running_loop()
        if name == "burst":
            self.transport.write(b"".join(_text_stream(int(number))))
        elif name == "paced":
            self._pace(_text_stream(int(number)), 0)
        elif name == "arguments":
            self.transport.write(b"".join(_text_stream(1)) if answered else _call_stream(int(number)))
        elif name == "slow":
            loop.call_later(SLOW, self.transport.write, TEXT if answered else CALL)
        elif name == "final":
            self.transport.write(FINAL if answered else CALL)
        else:
            whole, streamed = (CALL, STREAMED_CALL) if name == "tool" and not answered else (TEXT, STREAMED_TEXT)
            self.transport.write(streamed if _STREAM.search(body) else whole)

    def _pace(self, pieces: list[bytes], at: int) -> None:
        self.transport.write(pieces[at])
        if at + 1 < len(pieces) and not self.transport.is_closing():
            asyncio.get_running_loop().call_later(PACE, self._pace, pieces, at + 1)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent holds our input open: when it ends, however it ends, so does the server.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def serving() -> Iterator[str]:
    """Run the server; gives its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(5)


if __name__ == "__main__":
    asyncio.run(_serve())
