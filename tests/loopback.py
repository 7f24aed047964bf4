"""A scripted HTTP/1.1 server on loopback, for tests that do I/O.

    from tests.loopback import LoopbackServer, json_answer, sse_answer, answer, raw, CLOSE, RESET, STALL

    with LoopbackServer(json_answer({"ok": True})) as server:            # the same answer to every request
    with LoopbackServer([json_answer({}, status=500), json_answer({})]) as server:   # in turn; the last one repeats
    with LoopbackServer(lambda request: json_answer({"path": request.path})) as server:
        httpx.post(server.url + "/v1/chat", json={})
        assert server.requests[0].json == {}

`server.url` is `http://127.0.0.1:<port>`; `server.requests` the requests in order of arrival (`method`, `target`,
`path`, `headers` with lower-case names, `body`, `json`, `time` on the monotonic clock, `connection` counted from 0);
`server.connections` how many were accepted; `server.open_connections` how many are open; `server.wait_closed(1.0)`
waits until the client has closed all of them and returns whether it did.

An answer is a sequence (or an endless generator) of steps: `bytes` are written as they are, a `float` waits so many
seconds, `CLOSE` closes, `RESET` sends a TCP reset, `STALL` sends nothing more until the client disconnects. `raw(...)`
takes the steps, with the status line: `raw(b"HTTP/1.1 200 OK\\r\\n", 0.05, RESET)`. `answer(...)`, `json_answer(...)`
and `sse_answer(...)` write the headers and the length. The connection stays open after an answer unless a step ended
it.

The server is one thread with one event loop; leaving the `with` block closes everything and joins the thread.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from http.client import responses
from typing import Any, TypeAlias


class End(Enum):
    """How a script ends a connection."""

    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"


CLOSE, RESET, STALL = End.CLOSE, End.RESET, End.STALL
Step: TypeAlias = "bytes | float | End"


@dataclass(frozen=True)
class Answer:
    """The steps of one answer."""

    steps: Iterable[Step]


@dataclass(frozen=True)
class Received:
    """One request as the server saw it."""

    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes
    connection: int
    """Number of its connection, counted from 0."""
    time: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @cached_property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


def head(status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """Return status line and headers with the blank line."""
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Odd')}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return `data` as one piece of a chunked body; `chunk(b"")` ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def raw(*steps: Step) -> Answer:
    """Return an answer of exactly these steps."""
    return Answer(steps)


def answer(body: bytes | str = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a whole answer with its `Content-Length`."""
    content = body.encode() if isinstance(body, str) else body
    given = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
    return raw(head(status, given) + content)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a whole answer whose body is `value` as JSON."""
    return answer(json.dumps(value, ensure_ascii=False), status, headers)


def sse_answer(
    *events: Any, status: int = 200, headers: Mapping[str, str] | None = None, gap: float = 0.0, end: bool = True
) -> Answer:
    """Return a chunked event stream.

    Args:
        events: `bytes` are sent as they are (frame them yourself); anything else becomes `data: <json>`; a str `[DONE]`
            becomes `data: [DONE]`.
        gap: Seconds to wait before each event; 0.0 sends all events in one write.
        end: Whether the body is complete; if not, the connection is closed in the middle of it.
    """
    pieces: list[Step] = []
    for event in events:
        if not isinstance(event, bytes):
            text = event if event == "[DONE]" else json.dumps(event, ensure_ascii=False)
            event = f"data: {text}\n\n".encode()
        pieces += [gap, chunk(event)] if gap else [chunk(event)]
    pieces.append(chunk(b"") if end else CLOSE)
    start = head(status, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})})
    if gap:
        return raw(start, *pieces)
    body = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    return raw(start + body) if end else raw(start + body, CLOSE)


Script: TypeAlias = "Answer | Sequence[Answer] | Callable[[Received], Answer]"


class LoopbackServer:
    """Serve a script on loopback; see the docstring of the module.

    Args:
        script: One answer, a list of them (the last repeats), or a function from the request to an answer. The function
            is called on the server's thread.
        ssl_context: Serve https.
    """

    def __init__(self, script: Script, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.open_connections = 0
        self._script = script
        self._ssl = ssl_context
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="loopback", daemon=True)

    def __enter__(self) -> LoopbackServer:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http{'s' if self._ssl else ''}://127.0.0.1:{self.port}"
        self._thread.start()
        self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        assert not self._thread.is_alive(), "the loopback server did not stop"

    def wait_closed(self, timeout: float = 1.0) -> bool:
        """Wait until no connection is open. Return False if some still are after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.open_connections == 0, timeout)

    def wait_requests(self, count: int, timeout: float = 1.0) -> bool:
        """Wait until `count` requests have arrived."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.requests) >= count, timeout)

    def close_idle(self) -> None:
        """Close every open connection on the server side, as a keep-alive timeout does, and wait until it is done."""
        asyncio.run_coroutine_threadsafe(self._drop_all(), self._loop).result(5)

    async def _drop_all(self) -> None:
        await self._cancel_all()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._socket, ssl=self._ssl, limit=1 << 26)
        self._ready.set()
        await self._stop.wait()
        self._loop.remove_reader(self._socket)
        await self._begun()
        server.close()
        await self._cancel_all()
        await asyncio.sleep(0)  # asyncio closes aborted sockets in the next iteration of the loop
        await asyncio.sleep(0)

    async def _begun(self) -> None:
        """Let accepted connections start: asyncio leaks a connection whose server or task ends before that."""
        for _ in range(10):
            if asyncio.all_tasks() == {asyncio.current_task(), *self._tasks}:
                break
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = self.connections
        self._count(1)
        try:
            while await self._one(reader, writer, number):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            ends = self._stop.is_set() or writer.transport.get_write_buffer_size()
            writer.transport.abort() if ends else writer.close()
            self._tasks.discard(task)
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._changed:
            self.open_connections += change
            self.connections += change > 0
            self._changed.notify_all()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        top = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = top[0].split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in top[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("transfer-encoding") == "chunked":
            pieces: list[bytes] = []
            while size := int(await reader.readline(), 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
            await reader.readline()
            body = b"".join(pieces)
        request = Received(method, target, headers, body, number)
        with self._changed:
            self.requests.append(request)
            index = len(self.requests) - 1
            self._changed.notify_all()
        script = self._script
        if callable(script):
            script = script(request)
        elif not isinstance(script, Answer):
            script = script[min(index, len(script) - 1)]
        for step in script.steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, float | int):
                await asyncio.sleep(step)
                if reader.at_eof() or writer.transport.is_closing():
                    return False
            elif step is STALL:
                await reader.read(1)
                return False
            elif step is RESET:
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            else:
                return False
        return True
