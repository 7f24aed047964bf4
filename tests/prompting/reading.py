"""What the scanner tests share: reading whole and in chunks, and judging the outcome."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from lmagent.prompting.whole_reply import read_reply

DATA = Path(__file__).parent / "data"
TOOLS: dict[str, dict[str, Any]] = json.loads((DATA / "tools.json").read_text("utf-8"))


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").split("\n") if line]


def fold(text: str) -> str:
    return " ".join(text.split())


def read(
    text: str,
    tools: Mapping[str, Mapping[str, Any]] = TOOLS,
    finish_reason: str = "stop",
    chunks: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    made = read_reply(text if chunks is None else chunks, tools, finish_reason=finish_reason, **options)
    assert all(failure.message for failure in made.failures)
    return {
        "calls": [{"name": call.name, "arguments": json.loads(call.arguments)} for call in made.calls],
        "text": made.text,
        "errors": [failure.reason for failure in made.failures],
        "thinking": made.thinking,
    }


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


def work(action: Callable[[], object]) -> int:
    """Return how many Python and C functions `action` calls: work that does not depend on the machine's load."""
    count = 0

    def on_event(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count
