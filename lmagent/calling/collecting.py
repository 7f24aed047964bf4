"""What a generator tool yields, collected: until it is exhausted, out of time, or beyond all bounds.

Knows nothing of tools, calls or outcomes.
"""

from __future__ import annotations

from time import perf_counter
from types import AsyncGeneratorType, GeneratorType
from typing import Any, cast

from lmagent.errors import ToolError

__all__ = ["MAX_ITEMS", "MAX_ITEM_CHARS", "Collector", "Overdue"]

MAX_ITEMS = 100_000
"""How many items a generator may yield."""
MAX_ITEM_CHARS = 16 * 1024 * 1024
"""How much text or bytes they may have together."""


class Overdue(Exception):
    """A generator still had items when the time of its call was over."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Collector:
    """Takes the items of one generator. A thread cannot be killed, but between two items it can be told to stop.

    Args:
        seconds: How long the call may take; None: as long as it likes.
        started: When it began, as `perf_counter` tells it.
    """

    def __init__(self, seconds: float | None, started: float) -> None:
        self._seconds = seconds
        self._deadline = float("inf") if seconds is None else started + seconds
        self._items: list[Any] = []
        self._chars = 0
        self.is_dropped = False
        """Set from elsewhere when nobody waits for the result any more."""

    def collected(self, value: Any) -> Any:
        """Return the items of a generator as a list, and anything else as it is."""
        if not isinstance(value, GeneratorType):
            return value
        generator = cast("GeneratorType[Any, Any, Any]", value)
        try:
            for item in generator:
                self._take(item)
        finally:
            generator.close()
        return self._items

    async def async_collected(self, generator: AsyncGeneratorType[Any, Any]) -> list[Any]:
        """Return the items of an async generator."""
        try:
            async for item in generator:
                self._take(item)
        finally:
            await generator.aclose()
        return self._items

    def _take(self, item: Any) -> None:
        if self.is_dropped or perf_counter() > self._deadline:
            raise Overdue(self._seconds or 0.0)
        self._items.append(item)
        if isinstance(item, str | bytes):
            self._chars += len(item)
        if len(self._items) > MAX_ITEMS or self._chars > MAX_ITEM_CHARS:
            raise ToolError(
                f"the tool was stopped: it yielded more than {MAX_ITEMS} items or {MAX_ITEM_CHARS} characters"
            )
