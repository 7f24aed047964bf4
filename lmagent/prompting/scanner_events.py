"""The pieces that the scanner emits, and the deltas of the reply that a codec makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from lmagent.core.events import Delta, ReasoningDelta, TextDelta, ToolCallDelta
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.messages import ToolCall

__all__ = [
    "UNREADABLE",
    "CallDelta",
    "CallFailed",
    "CallFound",
    "CallStarted",
    "FailureReason",
    "Piece",
    "TextPiece",
    "ThinkingPiece",
    "WhitespaceHolder",
    "call_in_thinking",
    "delta_of",
]

FailureReason = Literal["truncated", "malformed", "unknown_tool", "invalid_arguments"]


@fast_dataclass()
class TextPiece:
    """Visible text."""

    text: str


@fast_dataclass()
class ThinkingPiece:
    """Reasoning, in order."""

    text: str


@fast_dataclass()
class CallStarted:
    """A call begins and its name is known. For display only: a call in a draft never becomes a `CallFound`."""

    index: int
    name: str


@fast_dataclass()
class CallDelta:
    """More of the argument text. For display only, never executed."""

    index: int
    arguments: str


@fast_dataclass()
class CallFound:
    """A complete call that fits its tool's schema."""

    index: int
    name: str
    arguments: str
    """JSON text, as the model wrote it when nothing had to change."""
    repairs: tuple[str, ...]


@fast_dataclass()
class CallFailed:
    """Call markup that does not run, and the reason."""

    index: int
    name: str | None
    raw: str
    reason: FailureReason
    message: str
    """Place, expectation and what came instead; written for the model."""
    arguments: str = ""
    """JSON text of arguments that could be read but do not fit the schema, so that the history shows them."""


Piece = TextPiece | ThinkingPiece | CallStarted | CallDelta | CallFound | CallFailed

UNREADABLE = "unreadable_call"
"""Name of a call whose own name could not be read."""


class WhitespaceHolder:
    """Holds white space back until text follows: around calls it belongs to the markup, not to the answer."""

    __slots__ = ("_has_calls", "_held")

    def __init__(self) -> None:
        self._held: list[str] = []
        self._has_calls = False

    def feed(self, delta: Delta) -> tuple[Delta, ...]:
        """Return the deltas that can be passed on."""
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
        """Return the white space at the end of an answer without calls."""
        text = "" if self._has_calls else "".join(self._held)
        self._held = []
        return (TextDelta(text),) if text else ()


def call_in_thinking(pieces: Iterable[Piece]) -> CallFailed | None:
    """Return the failure of a call that stood in the reasoning of a reply without text; None when there is no call.

    Args:
        pieces: What the scanner read in the reasoning.
    """
    for piece in pieces:
        if isinstance(piece, CallFound):
            message = "the call stands inside the thinking, where none runs; write it after the thinking has ended"
            return CallFailed(0, piece.name, "", "malformed", message, piece.arguments)
    return None


def delta_of(piece: Piece) -> Delta:
    """Return the delta for a piece. A failure is a call too; its `problem` is the answer that the model gets."""
    return _DELTAS[type(piece)](piece)


def _failed_call(piece: CallFailed) -> Delta:
    problem, arguments = piece.message or piece.reason, piece.arguments or piece.raw
    return ToolCallDelta(
        piece.index, whole=ToolCall(id="", name=piece.name or UNREADABLE, arguments=arguments, problem=problem)
    )


_DELTAS: dict[type[Any], Callable[[Any], Delta]] = {
    TextPiece: lambda piece: TextDelta(piece.text),
    ThinkingPiece: lambda piece: ReasoningDelta(piece.text),
    CallStarted: lambda piece: ToolCallDelta(piece.index, name=piece.name, tentative=True),
    CallDelta: lambda piece: ToolCallDelta(piece.index, arguments=piece.arguments, tentative=True),
    CallFound: lambda piece: ToolCallDelta(
        piece.index, whole=ToolCall(id="", name=piece.name, arguments=piece.arguments, repairs=piece.repairs)
    ),
    CallFailed: _failed_call,
}
