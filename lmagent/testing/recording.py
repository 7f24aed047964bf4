"""Record real answers once and replay them in tests: `Recorder` writes a cassette, `Replayer` answers from it.

    model = OpenAIChat(transport=Recorder("weather.jsonl"))     # once, with a key
    model = OpenAIChat(api_key="x", transport=Replayer("weather.jsonl"))     # in the tests, without a key

A cassette has one line of JSON per exchange. It can be read, edited and committed. It contains no credentials: only a
few harmless headers are written, parameters and fields with secret names are left out or masked, and all secrets of the
process are masked wherever they occur. Prompts and answers are recorded as they are.

Over 400 lines because recorder and replayer share the file format: what one writes, the other compares and reads.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from pathlib import Path
from threading import Lock
from typing import Any, Self, cast
from urllib.parse import parse_qsl, urlsplit

from lmagent import errors
from lmagent.core.redaction import redact, redact_value
from lmagent.errors import ConfigurationError, ConnectionFailed, LMAgentError
from lmagent.http.base import (
    AsyncIncoming,
    AsyncStoredBody,
    Drains,
    Incoming,
    StoredBody,
    Timeouts,
    Transport,
    out_of_time,
)
from lmagent.providers.base import Request

__all__ = ["Recorder", "Replayer", "UnexpectedRequest"]

_SECRET_PARAMS = frozenset(
    (
        "access_token", "api_key", "apikey", "key", "token", "secret", "client_secret", "client_id",
        "signature", "sign", "password", "groupid", "agentkey", "accesskeyid", "timestamp", "nonce",
        "signaturenonce",
    )
)  # fmt: skip
"""Neither recorded nor compared: credentials, account names, and values that differ in each request."""

_SECRET_FIELDS = frozenset(
    (
        "access_token", "refresh_token", "id_token", "session_key", "session_secret", "client_secret",
        "api_key", "apikey", "secret_key", "secretkey", "accesskeysecret", "password", "authorization",
    )
)  # fmt: skip

_REQUEST_HEADERS = frozenset(
    (
        "content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta", "x-tc-action",
    )
)  # fmt: skip
_ANSWER_HEADERS = frozenset(
    (
        "content-type", "retry-after", "retry-after-ms", "x-should-retry", "x-request-id", "request-id",
        "apim-request-id",
    )
)  # fmt: skip


class UnexpectedRequest(AssertionError):
    """A request without an answer in the cassette, or answers in the cassette that were not requested."""


class Recorder:
    """A transport that passes requests on and records the answers.

    The first request overwrites the file. An exchange is written once its answer was read or closed.

    Args:
        path: The cassette.
        transport: Sends the requests; default: HTTP.
    """

    def __init__(self, path: str | os.PathLike[str], transport: Transport | None = None) -> None:
        if transport is None:
            from lmagent.http.transport import HttpTransport

            transport = HttpTransport()
        self._transport = transport
        self._path = Path(path)
        self._lock = Lock()
        self._begun = False

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> Incoming:
        """Send `request` and record its answer as it is read."""
        try:
            return _RecordingBody(self, request, self._transport.open(request, timeouts, deadline))
        except LMAgentError as error:
            self.write(request, error=error)
            raise

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncIncoming:
        """`open`, asynchronous."""
        try:
            return _AsyncRecordingBody(self, request, await self._transport.async_open(request, timeouts, deadline))
        except LMAgentError as error:
            self.write(request, error=error)
            raise

    def write(
        self,
        request: Request,
        *,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        pieces: Iterable[bytes] = (),
        ended: bool = False,
        error: LMAgentError | None = None,
    ) -> None:
        """Write one exchange."""
        line: dict[str, Any] = {"request": _shown_request(request)}
        if status:
            line["answer"] = {
                "status": status,
                "headers": {n: redact(v) for n, v in (headers or {}).items() if n in _ANSWER_HEADERS},
                "pieces": [_shown(piece) for piece in _cleaned(list(pieces))],
                "ended": ended,
            }
        if error is not None:
            line["error"] = {"kind": type(error).__name__, "message": redact(error.message)}
        with self._lock:
            with self._path.open("a" if self._begun else "w", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._begun = True

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._transport.aclose()


class _BodyRecorder:
    """Collects what is read of one answer, and writes it once."""

    def __init__(self, recorder: Recorder, request: Request, incoming: Incoming | AsyncIncoming) -> None:
        self.status = incoming.status
        self.headers = incoming.headers
        self._recorder = recorder
        self._request = request
        self._source = incoming
        self._pieces: list[bytes] = []
        self._ended = False
        self._enough = False
        self._error: LMAgentError | None = None
        self._written = False

    def end_soon(self, seconds: float) -> None:
        """The reader needs no more; bytes that come soon are still read, so that the recording is complete."""
        if isinstance(self._source, Drains):
            self._source.end_soon(seconds)
        else:
            self._enough = self._ended = True

    def _write(self) -> None:
        if not self._written:
            self._written = True
            self._recorder.write(
                self._request,
                status=self.status,
                headers=self.headers,
                pieces=self._pieces,
                ended=self._ended,
                error=self._error,
            )


class _RecordingBody(_BodyRecorder):
    def read(self, limit: int) -> bytes:
        try:
            body = cast("Incoming", self._source).read(limit)
        except LMAgentError as error:
            self._error = error
            raise
        self._pieces, self._ended = [body], True
        return body

    def chunks(self) -> Iterator[bytes]:
        try:
            with closing(cast("Any", cast("Incoming", self._source).chunks())) as chunks:
                for chunk in chunks:
                    self._pieces.append(chunk)
                    yield chunk
                    if self._enough:
                        return
        except LMAgentError as error:
            self._error = error
            raise
        self._ended = True

    def close(self) -> None:
        cast("Incoming", self._source).close()
        self._write()


class _AsyncRecordingBody(_BodyRecorder):
    async def read(self, limit: int) -> bytes:
        try:
            body = await cast("AsyncIncoming", self._source).read(limit)
        except LMAgentError as error:
            self._error = error
            raise
        self._pieces, self._ended = [body], True
        return body

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(cast("Any", cast("AsyncIncoming", self._source).chunks())) as chunks:
                async for chunk in chunks:
                    self._pieces.append(chunk)
                    yield chunk
                    if self._enough:
                        return
        except LMAgentError as error:
            self._error = error
            raise
        self._ended = True

    async def aclose(self) -> None:
        await cast("AsyncIncoming", self._source).aclose()
        self._write()


class Replayer:
    """A transport that answers from a cassette, without a network.

    Each recorded exchange answers one request; equal requests are answered in recorded order. Requests are equal
    if method, URL, parameters and body are equal (JSON by value), credentials aside; headers are not compared. As a
    context manager, or by `check()`, it also fails if recorded exchanges are left over.

    Args:
        path: The file that `Recorder` wrote.

    Raises:
        ConfigurationError: There is no such file, or it is not a cassette.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = Lock()
        self._left: list[dict[str, Any]] = []
        try:
            for line in self._path.read_text("utf-8").splitlines():
                if line.strip():
                    exchange = json.loads(line)
                    _key_of(exchange["request"])
                    self._left.append(exchange)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"Cannot read the cassette {str(path)!r}: {error}. Record it again with Recorder({str(path)!r})."
            ) from error
        self._count = len(self._left)

    @property
    def left(self) -> int:
        """Number of recorded exchanges that were not requested yet."""
        return len(self._left)

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> Incoming:
        """Answer `request` from the cassette. Raises `UnexpectedRequest`."""
        return _stored(self._take(request), deadline)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncIncoming:
        """`open`, asynchronous."""
        return AsyncStoredBody(_stored(self._take(request), deadline))

    def check(self) -> None:
        """Raise `UnexpectedRequest` if recorded exchanges are left over."""
        if self._left:
            first = self._left[0]["request"]
            raise UnexpectedRequest(
                f"{len(self._left)} of {self._count} exchanges of {self._path.name} were not requested; "
                f"the first: {first['method']} {first['url']}. Record the cassette again if the program has changed."
            )

    def _take(self, request: Request) -> dict[str, Any]:
        shown = _shown_request(request)
        wanted = _key_of(shown)
        with self._lock:
            for place, exchange in enumerate(self._left):
                if _key_of(exchange["request"]) == wanted:
                    del self._left[place]
                    break
            else:
                raise UnexpectedRequest(self._no_answer(shown))
        if "answer" not in exchange:
            raise _error_of(exchange["error"])
        return exchange

    def _no_answer(self, shown: dict[str, Any]) -> str:
        text = f"{self._path.name} has no answer for {shown['method']} {shown['url']}"
        near = [each["request"] for each in self._left if each["request"]["url"] == shown["url"]]
        if near:
            return f"{text}: {_difference(near[0], shown)}"
        return f"{text}; {len(self._left)} of {self._count} exchanges are left, all with other URLs"

    def close(self) -> None:
        """Do nothing; there is no connection."""

    async def aclose(self) -> None:
        """Do nothing; there is no connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.check()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.check()


def _stored(exchange: Mapping[str, Any], deadline: float) -> StoredBody:
    answer = exchange["answer"]

    def chunks() -> Iterator[bytes]:
        for piece in answer["pieces"]:
            if time.monotonic() > deadline:
                raise out_of_time()
            yield _bytes_of(piece)
        if "error" in exchange:
            raise _error_of(exchange["error"])
        if not answer["ended"]:
            raise ConnectionFailed("The recorded answer ends here, because its reader closed it.")

    return StoredBody(answer["status"], answer["headers"], chunks())


def _error_of(recorded: Mapping[str, str]) -> LMAgentError:
    kind = getattr(errors, recorded["kind"], ConnectionFailed)
    return cast("LMAgentError", kind(recorded["message"]))


def _shown_request(request: Request) -> dict[str, Any]:
    parts = urlsplit(request.url)
    params = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **request.params}
    return {
        "method": request.method,
        "url": redact(parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()),
        "params": {name: redact(value) for name, value in params.items() if name.lower() not in _SECRET_PARAMS},
        "headers": {
            name.lower(): redact(value) for name, value in request.headers.items() if name.lower() in _REQUEST_HEADERS
        },
        "body": _shown(_cleaned([request.content])[0]) if request.content else None,
    }


def _key_of(shown: Mapping[str, Any]) -> str:
    return json.dumps([shown[name] for name in ("method", "url", "params", "body")], sort_keys=True)


def _cleaned(pieces: list[bytes]) -> list[bytes]:
    """Return the chunks of a body without secrets. A changed body is cut at line ends: a secret may span two chunks."""
    whole = b"".join(pieces)
    try:
        text = whole.decode("utf-8")
    except UnicodeDecodeError:
        return pieces if redact(whole.decode("latin-1")) == whole.decode("latin-1") else [b"(binary, left out)"]
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        clean = redact(text)
        return pieces if clean == text else [line.encode() for line in clean.splitlines(keepends=True)]
    masked = redact_value(_masked(body))
    return pieces if masked == body else [json.dumps(masked, ensure_ascii=False).encode()]


def _masked(value: Any) -> Any:
    """Mask fields with secret names. `token` is one of them, except in log probabilities."""
    if isinstance(value, list):
        return [_masked(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    secret = _SECRET_FIELDS if "logprob" in fields or "bytes" in fields else _SECRET_FIELDS | {"token"}
    masked: dict[str, Any] = {
        name: "…" if isinstance(item, str) and item and name.lower() in secret else _masked(item)
        for name, item in fields.items()
    }
    return masked


def _shown(piece: bytes) -> Any:
    """Return a chunk in a form that fits into JSON: JSON as it is, text, or base64."""
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(piece).decode()}
    try:
        value: Any = json.loads(text)
        if text.lstrip()[:1] in ("{", "["):
            return {"json": value}
    except (ValueError, RecursionError):
        pass
    return {"text": text}


def _bytes_of(shown: Mapping[str, Any]) -> bytes:
    if "json" in shown:
        return json.dumps(shown["json"], ensure_ascii=False).encode()
    if "text" in shown:
        return shown["text"].encode()
    return base64.b64decode(shown["base64"])


def _difference(recorded: Any, given: Any, where: str = "") -> str:
    """Describe the first difference between two requests."""
    if isinstance(recorded, dict) and isinstance(given, dict):
        ours, theirs = cast("dict[str, Any]", recorded), cast("dict[str, Any]", given)
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if name != "headers" and ours.get(name) != theirs.get(name):
                return _difference(ours.get(name), theirs.get(name), f"{where}.{name}" if where else name)
    if isinstance(recorded, list) and isinstance(given, list):
        old, new = cast("list[Any]", recorded), cast("list[Any]", given)
        for place, (one, other) in enumerate(zip(old, new, strict=False)):
            if one != other:
                return _difference(one, other, f"{where}[{place}]")
        return f"{where} has {len(new)} items, in the recording {len(old)}"
    return f"{where} is {_brief(given)}, in the recording {_brief(recorded)}"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:120]}…"
