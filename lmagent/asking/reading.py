"""Reads answers with a codec: whole bodies and streams; bytes in, events and a `Reply` out. No I/O, no clock.

Whatever a server sends, this module raises only errors of `lmagent.errors` (and `StreamFailure`, for `exchange.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from lmagent.core.events import Delta, Done, Event, ReasoningDelta, RefusalDelta, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, Frame, FramingError, JSONError, SSEDecoder, loads
from lmagent.core.messages import AssistantMessage, Reply
from lmagent.errors import InvalidResponse, LMAgentError, ResponseTooLarge, StreamInterrupted
from lmagent.providers.base import Codec

__all__ = [
    "StreamFailure", "StreamReader", "as_invalid", "decoded", "described", "guarded", "is_whole_body", "read_whole",
    "replayed", "request_id_of",
]  # fmt: skip

_BOM = b"\xef\xbb\xbf"
_QUOTED = 200


@contextmanager
def guarded() -> Generator[None]:
    """Turn an exception that a codec raises over the data it reads into `InvalidResponse`."""
    try:
        yield
    except LMAgentError:
        raise
    except Exception as error:  # a bug in a codec must not let a KeyError out of a public call
        raise as_invalid(error) from error


def as_invalid(error: Exception) -> LMAgentError:
    """Return the `LMAgentError` for an exception that a codec or decoder raised over data from outside."""
    if isinstance(error, LMAgentError):
        return error
    if isinstance(error, FramingError):
        return ResponseTooLarge(f"The stream cannot be read: {error}.")
    kind = "is not JSON" if isinstance(error, JSONError) else f"has an unknown shape ({type(error).__name__})"
    return InvalidResponse(f"The answer {kind}: {str(error)[:_QUOTED]}.")


def decoded(content: bytes) -> JSON | None:
    """Return a body as JSON; None if it is not JSON."""
    try:
        return loads(content)
    except JSONError:
        return None


def described(content: bytes) -> str:
    """Describe a body for an error message: by name if it is empty or an HTML page, else by its start, escaped."""
    start = content[:1024].removeprefix(_BOM).lstrip().lower()
    if not start:
        return "an empty body"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    text = content[: _QUOTED * 4].decode("utf-8", "replace")[:_QUOTED]
    return repr("".join(char if char.isprintable() else " " for char in text))


_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


def is_whole_body(start: bytes) -> bool | None:
    """Whether a body is no event stream (but JSON, a page, a text); None while it is too short to tell."""
    text = start.removeprefix(_BOM).lstrip()
    if text.startswith(_FIELDS):
        return False
    return None if any(mark.startswith(text) for mark in (_BOM, *_FIELDS)) else True


def read_whole(codec: Codec, content: bytes, body: JSON | None, prefix: str) -> Reply:
    """Read a whole answer in which `codec.parse_error` found no error; `body` is `content` decoded."""
    if body is None:
        if is_whole_body(content) is not False:
            raise InvalidResponse(f"The answer is {described(content)} instead of JSON.")
        reader = StreamReader(codec, prefix)  # a stream that was not requested
        try:
            reader.feed(content)
            reader.close()
        except StreamFailure as failure:
            raise failure.error from failure.__cause__
        return reader.reply()
    with guarded():
        return codec.parse_reply(body, prefix=prefix)


def replayed(reply: Reply, prefix: str) -> list[Event]:
    """Return the events of a reply that came whole although a stream was requested."""
    builder, message = ReplyBuilder(prefix), reply.message
    deltas: list[Delta] = [
        ReasoningDelta(message.reasoning),
        TextDelta("" if message.refusal == message.content else message.content),
        *([RefusalDelta(message.refusal)] if message.refusal else []),
        *(
            ToolCallDelta(index, call.id, call.name, call.arguments, call)
            for index, call in enumerate(message.tool_calls)
        ),
        Done(finish_reason=reply.finish_reason),
    ]
    return [event for delta in deltas for event in builder.add(delta)]


class StreamReader:
    """One streamed answer."""

    __slots__ = ("_builder", "_codec", "_decoder", "_state")

    def __init__(self, codec: Codec, prefix: str) -> None:
        self._codec = codec
        self._decoder = codec.framing()
        self._builder = ReplyBuilder(prefix)
        with guarded():
            self._state: Any = codec.new_state()

    @property
    def whole(self) -> bool:
        """Whether the end of the reply was seen."""
        return self._builder.done is not None

    @property
    def may_be_whole_body(self) -> bool:
        """Whether the server may have sent a whole body instead; with SSE the first bytes tell them apart."""
        return isinstance(self._decoder, SSEDecoder)

    @property
    def partial(self) -> AssistantMessage:
        """The message so far."""
        return self._builder.message()

    def feed(self, chunk: bytes) -> tuple[list[Event], int]:
        """Return the events that `chunk` completes, and the number of frames, pings not counted.

        Raises:
            StreamFailure: A frame is an error or unreadable; it has the events of the frames before.
        """
        frames = self._frames(self._decoder.feed, chunk)
        return self._translate(frames), sum(frame.event != "ping" for frame in frames)

    def close(self) -> list[Event]:
        """Called at the end of the body; return the final events."""
        events = self._translate(self._frames(self._decoder.close))
        with guarded():
            for delta in () if self.whole else self._codec.finish(self._state):
                events.extend(self._builder.add(delta))
        return events

    def _frames(self, step: Callable[..., list[Frame]], *chunk: bytes) -> list[Frame]:
        try:
            return step(*chunk)
        except FramingError as error:
            raise as_invalid(error) from error

    def _translate(self, frames: list[Frame]) -> list[Event]:
        events: list[Event] = []
        parse, state, add = self._codec.parse_event, self._state, self._builder.add
        try:
            for frame in frames:
                for delta in parse(state, frame.data, frame.event):
                    events.extend(add(delta))
        except Exception as error:
            raise StreamFailure(events, as_invalid(error)) from error
        return events

    def reply(self) -> Reply:
        """Return the whole reply."""
        if not self.whole:
            raise StreamInterrupted(
                "The stream ended without a finish reason, so the reply is incomplete. Try again.", partial=self.partial
            )
        with guarded():
            return self._builder.reply(self._codec.model_id)


class StreamFailure(Exception):  # caught by the flow; no caller sees it
    """A stream failed: the events before the failure, and the error."""

    def __init__(self, events: list[Event], error: LMAgentError) -> None:
        super().__init__()
        self.events = events
        self.error = error


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the id of the request, which the provider's support asks for."""
    for name in _REQUEST_IDS:
        if value := headers.get(name):
            return value[:200]
    return None


_REQUEST_IDS = (
    "x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "x-tc-requestid", "x-bc-request-id",
    "x-log-id", "trace-id", "minimax-request-id", "x-goog-request-id", "x-amzn-requestid", "cf-ray",
)  # fmt: skip
