"""Schemas made fit for a grammar: lengths bounded, words that only cost left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["LOCAL", "TINY", "Bounds", "bounded"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The longest values a grammar lets a model write."""

    string: int | None
    """Characters; None: as long as the token limit allows."""
    items: int


TINY = Bounds(string=80, items=12)
"""For models that do not find an end by themselves."""
LOCAL = Bounds(string=None, items=64)
"""For any model in this process."""

_ONLY_COST = frozenset({"description", "default", "title", "examples", "format", "pattern", "$schema"})
_VALUES = frozenset({"enum", "const", "required"})


def bounded(schema: Any, bounds: Bounds = TINY) -> Any:
    """Return `schema` for a grammar."""
    if isinstance(schema, list):
        return [bounded(item, bounds) for item in cast("list[Any]", schema)]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in cast("Mapping[str, Any]", schema).items():
        if key == "properties":
            made[key] = {name: bounded(inner, bounds) for name, inner in value.items()}
        elif key not in _ONLY_COST:
            made[key] = value if key in _VALUES else bounded(value, bounds)
    if made.get("type") == "string" and not {"enum", "const"} & made.keys() and bounds.string:
        made["maxLength"] = min(made.get("maxLength", bounds.string), bounds.string)
    if made.get("type") == "array":
        made["maxItems"] = min(made.get("maxItems", bounds.items), bounds.items)
    return made
