"""What the scanner found, as the deltas of a codec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmagent.core.events import Delta, ReasoningDelta, TextDelta, ToolCallDelta
from lmagent.core.json_text import dumps_text
from lmagent.core.messages import ToolCall
from lmagent.prompting.pieces import CallDelta, CallFailed, CallFound, CallStarted, Piece, TextPiece, ThinkingPiece

__all__ = ["UNREADABLE", "Blanks", "delta_of"]

UNREADABLE = "unreadable_call"
"""Name of a call whose own could not be read."""


class Blanks:
    """Holds blanks back until text follows: those around calls belong to the markup, not to the answer."""

    __slots__ = ("_has_calls", "_held")

    def __init__(self) -> None:
        self._held: list[str] = []
        self._has_calls = False

    def take(self, delta: Delta) -> tuple[Delta, ...]:
        """Return what can be handed on."""
        if not isinstance(delta, TextDelta):
            self._has_calls = self._has_calls or (isinstance(delta, ToolCallDelta) and delta.whole is not None)
            return (delta,)
        shown = delta.text.rstrip()
        if not shown:
            self._held.append(delta.text)
            return ()
        text = "".join(self._held) + shown
        self._held = [delta.text[len(shown) :]]
        return (TextDelta(text),)

    def end(self) -> tuple[Delta, ...]:
        """Return the blanks at the end of an answer without calls."""
        text = "" if self._has_calls else self.flush()
        return (TextDelta(text),) if text else ()

    def flush(self) -> str:
        """Return the blanks that are held, and hold them no longer."""
        text = "".join(self._held)
        self._held = []
        return text


def delta_of(piece: Piece) -> Delta:
    """Return what a codec says of a piece. A failure is a call too: its `problem` is what the model is told."""
    return _DELTAS[type(piece)](piece)


def _failed(piece: CallFailed) -> Delta:
    arguments = _arguments_in(piece.raw) if piece.reason == "invalid_arguments" else piece.raw
    call = ToolCall(id="", name=piece.name or UNREADABLE, arguments=arguments, problem=piece.message or piece.reason)
    return ToolCallDelta(piece.index, whole=call)


def _arguments_in(raw: str) -> str:
    """Return the arguments of a call that could be read but does not fit, so that it goes back as it was meant."""
    from lmagent.prompting.envelope import open_envelope  # needed only for replies that went wrong
    from lmagent.toolkit.loose_json import JSONReadError, read_json

    try:
        envelopes = open_envelope(read_json(raw, closed=True).value)
    except JSONReadError:
        return raw
    arguments = envelopes[0].arguments if envelopes and len(envelopes) == 1 else None
    return dumps_text(arguments) if isinstance(arguments, dict) else raw


_DELTAS: dict[type[Any], Callable[[Any], Delta]] = {
    TextPiece: lambda piece: TextDelta(piece.text),
    ThinkingPiece: lambda piece: ReasoningDelta(piece.text),
    CallStarted: lambda piece: ToolCallDelta(piece.index, name=piece.name, tentative=True),
    CallDelta: lambda piece: ToolCallDelta(piece.index, arguments=piece.arguments, tentative=True),
    CallFound: lambda piece: ToolCallDelta(
        piece.index, whole=ToolCall(id="", name=piece.name, arguments=piece.arguments, repairs=piece.repairs)
    ),
    CallFailed: _failed,
}
