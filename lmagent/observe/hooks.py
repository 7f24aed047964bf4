"""Hooks: plain callables at a few named points of a run, the same in both colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.observe.spans import Observer

__all__ = ["Hooks"]

Hook = Callable[[Any], Any]


@fast_dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callables called at each point, in order. Each may be sync or async, in runs of either colour.

    A hook with an attribute `async_form` is called by that in asynchronous runs. What a hook returns takes the
    value's place; `None` leaves it as it is. A hook that raises ends the run.
    """

    before_model: Sequence[Hook] = ()
    """Gets the `ChatCall` that is about to be sent."""
    after_model: Sequence[Hook] = ()
    """Gets the `Reply`."""
    before_tool: Sequence[Hook] = ()
    """Gets the `ToolCall`; arguments that a hook changes are validated like the model's own."""
    after_tool: Sequence[Hook] = ()
    """Gets the `ToolOutcome`."""
    on_error: Sequence[Hook] = ()
    """Gets the error of a failed request, before it is raised; its return value is ignored."""
    observers: Sequence[Observer] = ()
    """Told of the spans of every run (the run, each ask, each tool call) and of the runs nested in it; see
    `lmagent.observe.trace_file` and `lmagent.observe.otel`. They watch and change nothing."""

    def __post_init__(self) -> None:
        for item in fields(self):
            given = getattr(self, item.name)
            if not isinstance(given, Sequence):
                raise TypeError(f"Hooks({item.name}=...) takes a list, not {given!r:.80}.")

    def __add__(self, other: Hooks) -> Hooks:
        points = [item.name for item in fields(self)]
        return Hooks(**{point: (*getattr(self, point), *getattr(other, point)) for point in points})
