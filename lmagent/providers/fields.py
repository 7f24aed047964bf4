"""Reading decoded JSON field by field: what may be missing is empty, what has the wrong type is an error.

For codecs, inside `Codec.reading`, which turns the `TypeError` into `InvalidResponse`. Knows no dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from lmagent.core.json_text import JSON, JSONError, dumps_text, loads
from lmagent.core.messages import Usage
from lmagent.errors import InvalidResponse, ParameterError
from lmagent.providers.base import Codec, ParameterRule

__all__ = [
    "arguments_text",
    "call_arguments",
    "elsewhere",
    "first_text",
    "mapping",
    "object_of",
    "objects",
    "one_call_a_reply",
    "only",
    "same",
    "switched",
    "text",
    "usage_of",
    "within",
]


def mapping(value: object) -> dict[str, Any]:
    """Return `value` when it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """Return the items of an array of objects; null and nothing are an empty one."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in cast("list[object]", value)):
        raise TypeError(f"an array of objects was expected, not {str(cast('object', value))[:80]!r}")
    return cast("list[dict[str, Any]]", value)


def text(value: object) -> str:
    """Return a text; null and nothing are the empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {str(value)[:80]!r}")
    return value


def first_text(*values: object) -> str | None:
    """Return the first of these that is a text and not empty; for ids, which must not make an error worse."""
    return next((value for value in values if isinstance(value, str) and value), None)


def arguments_text(value: object) -> str:
    """Return the arguments of a call as the text that goes on: an object becomes compact JSON, null the empty text."""
    return value if isinstance(value, str) else "" if value is None else dumps_text(value)


def call_arguments(value: object) -> str:
    """Return the arguments of a whole call as `ToolCall` keeps them: as `arguments_text`, but blanks are `{}`."""
    arguments = arguments_text(value)
    return arguments if arguments.strip() else "{}"


def object_of(codec: Codec, data: bytes) -> dict[str, Any]:
    """Return the JSON object that one frame of a stream holds.

    Raises:
        InvalidResponse: It is something else.
    """
    try:
        value: JSON = loads(data)
    except JSONError as error:
        value, cause = None, error
    else:
        cause = None
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    shown = data[:200].decode("utf-8", "replace")
    raise InvalidResponse(
        f"A frame of the stream is no JSON object: {shown!r}", provider=codec.provider, model=codec.model
    ) from cause


def usage_of(usage: object, given: str, made: str, total: str) -> Usage | None:
    """Return token counts read from an object by these names; None when there are none.

    What is missing is 0, a missing total the sum.
    """
    counts = mapping(usage)
    if not counts:
        return None
    inputs, outputs = int(counts.get(given) or 0), int(counts.get(made) or 0)
    return Usage(input_tokens=inputs, output_tokens=outputs, total_tokens=int(counts.get(total) or inputs + outputs))


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
