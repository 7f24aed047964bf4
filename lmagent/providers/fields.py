"""Reading decoded JSON field by field: what may be missing is empty, what has the wrong type is an error.

For codecs, inside `Codec.reading`, which turns the `TypeError` into `InvalidResponse`. Knows no dialect.
"""

from __future__ import annotations

from typing import Any, cast

from lmagent.core.json_text import JSON, JSONError, dumps_text, loads
from lmagent.core.messages import Usage
from lmagent.errors import InvalidResponse
from lmagent.providers.base import Codec

__all__ = ["arguments_text", "call_arguments", "first_text", "mapping", "object_of", "objects", "text", "usage_of"]


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
