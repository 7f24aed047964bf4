"""The short ways through a stream of Chat Completions, for chunks that are one more piece of one thing.

Nearly every chunk of a stream is such a piece, so this is what streaming costs. `cut_delta` takes a chunk that is like
the last one, `quick_delta` a small one; what neither takes is for `openai_reply` to read in full.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from lmagent.core.events import ReasoningDelta, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, JSONError, loads
from lmagent.providers.openai_reply import ChatState

__all__ = ["cut_delta", "quick_delta"]

_Piece: TypeAlias = "TextDelta | ReasoningDelta | ToolCallDelta"
_RARE = ("refusal", "function_call", "reasoning_details")
_PROBE = "lmagent"


class _Said(NamedTuple):
    """What a chunk says."""

    kind: type[_Piece]
    text: str
    index: Any = None
    """The server's, of the call."""


class _Pattern(NamedTuple):
    """What stands around the text of a chunk."""

    before: bytes
    after: bytes
    kind: type[_Piece]
    index: Any

    def fits(self, data: bytes) -> bool:
        return data.startswith(self.before) and data.endswith(self.after)


def cut_delta(state: ChatState, data: bytes) -> _Piece | None:
    """Return the delta of a chunk that differs from one before in its text alone; None when it must be decoded.

    It takes 0.9 us; decoding and looking take 3.2, half of an event. That only the text differs is seen from the bytes
    around it. That they are around the text, and nothing else, was proven when they were learned.
    """
    pattern: _Pattern | None = state.pattern
    if pattern is None:
        return None
    before, after, kind, index = pattern
    if not data.startswith(before) or not data.endswith(after):
        return None
    piece = data[len(before) : -len(after)]
    if not piece or b'"' in piece or b"\\" in piece:
        return None
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return None
    return _taken(state, kind, text, index) if kind is not ToolCallDelta or _continues(state, text, index) else None


def quick_delta(state: ChatState, data: bytes, chunk: JSON) -> _Piece | None:
    """Return the delta of a chunk that is one piece of one thing; None when it must be read in full.

    Args:
        state: Of this reply.
        data: The chunk.
        chunk: The same, decoded.
    """
    said = _said(state, chunk)
    if said is None:
        return None
    if state.lessons and not (state.pattern and state.pattern.fits(data)):
        state.lessons -= 1
        state.pattern = _pattern(state, data, said)
    state.raw = chunk
    return _taken(state, *said)


def _pattern(state: ChatState, data: bytes, said: _Said) -> _Pattern | None:
    """Learn what stands around a text; the proof is that another text in its place is what the chunk then says."""
    before, found, after = data.partition(b'"%b"' % said.text.encode())
    before, after = before + b'"', b'"' + after
    try:
        probed = _said(state, loads(_PROBE.encode().join((before, after))))
    except JSONError:
        return None
    proven = found and said.text != _PROBE and probed == (said.kind, _PROBE, said.index)
    return _Pattern(before, after, said.kind, said.index) if proven else None


def _said(state: ChatState, chunk: Any) -> _Said | None:
    try:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        if (
            not state.seen
            or choice.get("finish_reason") is not None
            or choice.get("index") != state.choice
            or chunk.get("usage")
            or "error" in chunk
            or (len(delta) > 1 and any(delta.get(name) for name in _RARE))
        ):
            return None
        text, items = delta.get("content"), delta.get("tool_calls")
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought:
            return None if text or items or type(thought) is not str else _Said(ReasoningDelta, thought)
        if items:
            (item,) = items
            function = item["function"]
            piece, index = function["arguments"], item["index"]
            if text or item.get("id") or function.get("name") or type(piece) is not str or not piece:
                return None
            return _Said(ToolCallDelta, piece, index) if _continues(state, piece, index) else None
        if type(text) is not str or not text or state.splitter is not None:
            return None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return _Said(TextDelta, text)


def _continues(state: ChatState, piece: str, index: Any) -> bool:
    """Whether arguments can only be more of them; a piece as long as all before may be those again."""
    call = state.calls.slots[index]
    return 0 < call.size != len(piece) and not call.settled


def _taken(state: ChatState, kind: type[_Piece], text: str, index: Any) -> _Piece:
    if kind is TextDelta:
        state.text_size += len(text)
        return TextDelta(text)
    if kind is ReasoningDelta:
        state.reasoning_size += len(text)
        return ReasoningDelta(text)
    call = state.calls.slots[index]
    call.pieces.append(text)
    call.size += len(text)
    return ToolCallDelta(call.index, "", "", text)
