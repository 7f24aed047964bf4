"""What the scanner tests share: feeding in chunks, folding pieces into one outcome, judging it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from lmagent.prompting.scanner import CallFailed, CallFound, Piece, Scanner, TextPiece, ThinkingPiece

DATA = Path(__file__).parent / "data"
TOOLS: dict[str, dict[str, Any]] = json.loads((DATA / "tools.json").read_text("utf-8"))


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").split("\n") if line]


def fold(text: str) -> str:
    return " ".join(text.split())


def outcome(pieces: Iterable[Piece]) -> dict[str, Any]:
    found: dict[str, Any] = {"calls": [], "text": "", "errors": [], "thinking": ""}
    for piece in pieces:
        match piece:
            case CallFound():
                found["calls"].append({"name": piece.name, "arguments": json.loads(piece.arguments)})
            case CallFailed():
                assert piece.message
                found["errors"].append(piece.reason)
            case TextPiece():
                found["text"] += piece.text
            case ThinkingPiece():
                found["thinking"] += piece.text
            case _:
                pass
    return found


def read(
    text: str,
    tools: Mapping[str, Mapping[str, Any]] = TOOLS,
    finish_reason: str = "stop",
    chunks: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    scanner = Scanner(tools, **options)
    pieces: list[Piece] = []
    for chunk in [text] if chunks is None else chunks:
        pieces.extend(scanner.feed(chunk))
    pieces.extend(scanner.finish(finish_reason))
    return outcome(pieces)


def random_cuts(text: str, seed: int, cuts: int = 6) -> list[str]:
    random = Random(seed)
    places = sorted(random.randrange(len(text) + 1) for _ in range(cuts))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def same_calls(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def accepted(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    text = wanted.get("text")
    error = wanted.get("error")
    return (
        same_calls(found["calls"], wanted["calls"])
        and (text is None or fold(text) == fold(found["text"]))
        and (error in found["errors"] if error else not found["errors"])
        and ("thinking" not in wanted or fold(wanted["thinking"]) == fold(found["thinking"]))
    )
