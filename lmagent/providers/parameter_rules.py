"""Rules for the parameter tables of dialects: under which name a value is sent, where its range ends.

A rule is a wire name or a function from the value to members of the body; see `Codec.render_parameters`, which names
the provider where a rule refuses a value. Nothing here knows a dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from lmagent.errors import ParameterError
from lmagent.providers.base import ParameterRule

__all__ = ["elsewhere", "one_call_a_reply", "only", "same", "switched", "within"]

_Rule: TypeAlias = "Callable[[Any], dict[str, Any]]"


def same(*names: str) -> dict[str, ParameterRule]:
    """Return rules for parameters that are sent as they are, under their own names."""
    return {name: name for name in names}


def elsewhere(value: object) -> dict[str, Any]:
    """The rule for a parameter that `build_request` itself puts in its place."""
    return {}


def within(name: str, low: float, high: float, *, sent: tuple[float, float] | None = None, wire: str = "") -> _Rule:
    """Return a rule: a number from `low` to `high`, anything else is a `ParameterError`.

    Args:
        name: Of the parameter.
        low: Smallest value the user may ask for.
        high: Largest value the user may ask for.
        sent: What is sent for `low` and `high`, where the server refuses an end of the range: the nearest it takes.
        wire: Its name on the wire, where that is another.
    """
    ends = dict(zip((low, high), sent, strict=True)) if sent else {}

    def rule(value: Any) -> dict[str, Any]:
        if not low <= value <= high:
            raise ParameterError(f"{name} must be from {low:g} to {high:g}, got {value!r}.")
        return {wire or name: ends.get(value, value)}

    return rule


def only(name: str, value: Any) -> _Rule:
    """Return a rule for a parameter that has one legal value."""

    def rule(given: Any) -> dict[str, Any]:
        if given != value:
            raise ParameterError(f"{name} can only be {value!r} for this model, got {given!r}.")
        return {name: given}

    return rule


def switched(wire: str) -> _Rule:
    """Return a rule for `reasoning_effort` where a model only thinks or does not: all but `"none"` is true."""
    return lambda effort: {wire: effort != "none"}


def one_call_a_reply(parallel: bool) -> dict[str, Any]:
    """The rule for `parallel_tool_calls` where a reply holds one: True cannot be had, False goes without saying."""
    if parallel:
        raise ParameterError("parallel_tool_calls can only be False, got True: a reply holds one call.")
    return {}
