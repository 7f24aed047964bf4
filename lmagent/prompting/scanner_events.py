"""What the scanner hands out, piece by piece."""

from __future__ import annotations

from typing import Literal

from lmagent.core.fast_dataclass import fast_dataclass

__all__ = [
    "CallDelta",
    "CallFailed",
    "CallFound",
    "CallStarted",
    "FailureReason",
    "Piece",
    "TextPiece",
    "ThinkingPiece",
]

FailureReason = Literal["truncated", "malformed", "unknown_tool", "invalid_arguments"]


@fast_dataclass()
class TextPiece:
    """Visible text, to be shown at once."""

    text: str


@fast_dataclass()
class ThinkingPiece:
    """Reasoning, in order."""

    text: str


@fast_dataclass()
class CallStarted:
    """A call begins and its name is known. Progress only: a call in a draft never becomes a `CallFound`."""

    index: int
    name: str


@fast_dataclass()
class CallDelta:
    """More of the argument text, for display only, never executed."""

    index: int
    arguments: str


@fast_dataclass()
class CallFound:
    """A complete call that fits its tool's schema."""

    index: int
    name: str
    arguments: str
    """JSON text: the model's own when nothing had to change."""
    repairs: tuple[str, ...]


@fast_dataclass()
class CallFailed:
    """Call markup that does not run, and why."""

    index: int
    name: str | None
    raw: str
    reason: FailureReason
    message: str
    """Place, expectation and what came: fit to be shown to the model."""


Piece = TextPiece | ThinkingPiece | CallStarted | CallDelta | CallFound | CallFailed
