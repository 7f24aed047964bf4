"""Splits `<think>...</think>` off the front of an answer, however the text is cut. Knows no wire format."""

from __future__ import annotations

from typing import Literal

from lmagent.core.events import ReasoningDelta, TextDelta

__all__ = ["ThinkSplitter"]

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Feeds on pieces of content and gives reasoning and text.

    Only a block at the very front counts; a later `<think>` is text that the model wrote. White space around the
    block belongs to neither side. What was split off is kept in `raw`, character by character: it can travel back.
    """

    __slots__ = ("_held", "_place", "_raw", "_thought")

    def __init__(self) -> None:
        self._place: Literal["start", "thinking", "after", "text"] = "start"
        self._held = ""
        self._raw: list[str] = []
        self._thought = False

    @property
    def raw(self) -> str:
        """Everything in front of the text, tags and white space included; empty when there was no block."""
        return "".join(self._raw)

    def feed(self, piece: str) -> list[TextDelta | ReasoningDelta]:
        """Return what `piece` completes. A beginning of a tag is held back until it is one or is not."""
        if self._place == "text":
            return [TextDelta(piece)]
        found: list[TextDelta | ReasoningDelta] = []
        text, self._held = self._held + piece, ""
        if self._place == "start":
            stripped = text.lstrip()
            if not stripped.startswith(_OPEN):
                if _OPEN.startswith(stripped):
                    self._held = text
                    return found
                self._place = "text"
                return [TextDelta(text)]
            self._raw.append(text[: len(text) - len(stripped) + len(_OPEN)])
            self._place, text = "thinking", stripped[len(_OPEN) :]
        if self._place == "thinking":
            thought, close, text = text.partition(_CLOSE)
            if not close:
                keep = len(thought) - _sure(thought)
                self._held, thought = thought[len(thought) - keep :], thought[: len(thought) - keep]
                self._think(thought, found)
                return found
            self._think(thought.rstrip(), found)
            self._raw.append(thought[len(thought.rstrip()) :] + close)
            self._place = "after"
        stripped = text.lstrip()
        self._raw.append(text[: len(text) - len(stripped)])
        if stripped:
            self._place = "text"
            found.append(TextDelta(stripped))
        return found

    def _think(self, thought: str, found: list[TextDelta | ReasoningDelta]) -> None:
        self._raw.append(thought)
        shown = thought if self._thought else thought.lstrip()
        if shown:
            self._thought = True
            found.append(ReasoningDelta(shown))

    def close(self) -> list[TextDelta | ReasoningDelta]:
        """Return what was held back when the answer ended."""
        text, self._held = self._held, ""
        if not text:
            return []
        if self._place == "start":
            return [TextDelta(text)]
        found: list[TextDelta | ReasoningDelta] = []
        self._think(text, found)
        return found


def _sure(thought: str) -> int:
    """Return how much of `thought` cannot be white space before the end tag or the beginning of it."""
    for length in range(min(len(_CLOSE) - 1, len(thought)), 0, -1):
        if thought.endswith(_CLOSE[:length]):
            thought = thought[: len(thought) - length]
            break
    return len(thought.rstrip())
