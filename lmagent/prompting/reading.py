"""Reads the text of a whole reply, without a model: for tests, evaluations, and servers of one's own.

The same scanner reads every reply in prompt mode (`Prompted`) and native replies with leaked markup (`Leaks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmagent.prompting.pieces import CallFailed, CallFound, Piece, TextPiece, ThinkingPiece
from lmagent.prompting.scanner import Scanner

__all__ = ["ReadReply", "read_reply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReply:
    """What stands in a reply; calls and failures in order of appearance."""

    text: str
    """For the user: no markup, no thinking."""
    thinking: str
    calls: tuple[CallFound, ...]
    """Calls that may run: known tool, arguments (JSON text) that fit its schema, `repairs`."""
    failures: tuple[CallFailed, ...]
    """What was meant as a call and does not run, with `reason` and a `message` for the model."""


def read_reply(
    reply: str | Iterable[str],
    tools: Mapping[str, Mapping[str, Any]],
    *,
    finish_reason: str = "stop",
    stop: Sequence[str] = (),
    native: bool = False,
    repair: bool = True,
) -> ReadReply:
    """Return text, thinking, calls and failures of a reply.

    Args:
        reply: The text, or its chunks: however it is cut, the answer is the same.
        tools: Parameters schema (JSON Schema) by tool name.
        finish_reason: `length` when the reply was cut there.
        stop: The stop sequences that were sent.
        native: As in a reply of a provider with calls of its own, where only leaked markup counts.
        repair: False reads strict JSON only.
    """
    scanner = Scanner(tools, native=native, repair=repair, stop=stop)
    chunks = [reply] if isinstance(reply, str) else reply
    pieces: list[Piece] = [piece for chunk in chunks for piece in scanner.feed(chunk)]
    pieces.extend(scanner.finish(finish_reason))
    return ReadReply(
        text="".join(piece.text for piece in pieces if isinstance(piece, TextPiece)),
        thinking="".join(piece.text for piece in pieces if isinstance(piece, ThinkingPiece)),
        calls=tuple(piece for piece in pieces if isinstance(piece, CallFound)),
        failures=tuple(piece for piece in pieces if isinstance(piece, CallFailed)),
    )
