"""A small check of JSON values against a JSON Schema that somebody else wrote (tools that come over a wire).

Covers what tool schemas use: type, enum, const, required, properties, additionalProperties, items, prefixItems, local
`$ref`, anyOf/oneOf/allOf, lengths and ranges. Other keywords are not checked: the tool's owner checks them anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from lmagent.core.json_text import JSONError
from lmagent.toolkit.arguments import BoundArguments, read_object, read_or_repair, shown_name, shown_value

__all__ = ["SchemaReader", "problems_of"]

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: not isinstance(value, bool) and (isinstance(value, int) or _is_whole(value)),
    "number": lambda value: not isinstance(value, bool) and isinstance(value, int | float),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}
_BOUNDS: dict[str, tuple[type, Callable[[Any, Any], bool], str]] = {
    "minimum": (float, lambda value, bound: value >= bound, "at least"),
    "maximum": (float, lambda value, bound: value <= bound, "at most"),
    "exclusiveMinimum": (float, lambda value, bound: value > bound, "greater than"),
    "exclusiveMaximum": (float, lambda value, bound: value < bound, "less than"),
    "minLength": (str, lambda value, bound: len(value) >= bound, "of length at least"),
    "maxLength": (str, lambda value, bound: len(value) <= bound, "of length at most"),
    "minItems": (list, lambda value, bound: len(value) >= bound, "of length at least"),
    "maxItems": (list, lambda value, bound: len(value) <= bound, "of length at most"),
}
_MAX_DEPTH = 100


class SchemaReader:
    """Reads arguments for a tool whose schema is given as it is; values stay plain JSON."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    def read(self, name: str, text: str, repair: bool = False) -> BoundArguments:
        """Return the checked values; see `ArgumentReader.read`."""
        return read_or_repair(self._attempt, name, text, self._schema if repair else None)

    def _attempt(self, text: str) -> tuple[list[str], BoundArguments | None]:
        try:
            data, repairs = read_object(text)
        except JSONError as error:
            return [f"arguments: {error}"], None
        problems = problems_of(data, self._schema)
        if problems and (names := self._second_chances(data)):
            repairs = (*repairs, *names)
            problems = problems_of(data, self._schema)
        return (problems, None) if problems else ([], BoundArguments(data, repairs))

    def _second_chances(self, data: dict[str, Any]) -> tuple[str, ...]:
        """Repair top-level values that do not fit; return the names of the repairs."""
        from lmagent.toolkit.repair import SecondChances  # most programs never need the repairs

        chances = SecondChances(data, self._schema)
        properties: Mapping[str, Any] = self._schema.get("properties", {})
        for key in [key for key in data if key in properties]:
            if problems_of(data[key], properties[key], self._schema):
                chances.apply((key,), wants_container=True)
        return chances.names


def problems_of(
    value: Any, schema: Any, root: Mapping[str, Any] | None = None, path: str = "", depth: int = 0
) -> list[str]:
    """Return what is wrong with a value, one line each; an empty list means it fits."""
    if schema is True or schema == {} or depth > _MAX_DEPTH:
        return []
    if not isinstance(schema, Mapping):
        return [_line(path, "is not permitted", value)]
    node = cast("Mapping[str, Any]", schema)
    root = node if root is None else root
    found: list[str] = []
    if isinstance(node.get("$ref"), str):
        found += problems_of(value, _referenced(node["$ref"], root), root, path, depth + 1)
    for part in node.get("allOf", ()):
        found += problems_of(value, part, root, path, depth + 1)
    for word in ("anyOf", "oneOf"):
        if word in node and all(problems_of(value, choice, root, path, depth + 1) for choice in node[word]):
            found.append(_line(path, "Input should fit one of the permitted forms", value))
    if "enum" in node and not any(_same(value, choice) for choice in node["enum"]):
        found.append(_line(path, f"Input should be one of {', '.join(map(shown_value, node['enum']))}", value))
    if "const" in node and not _same(value, node["const"]):
        found.append(_line(path, f"Input should be {shown_value(node['const'])}", value))
    kinds = node.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if kinds and not any(_TYPES.get(kind, _anything)(value) for kind in kinds):
        return [*found, _line(path, f"Input should be of type {' or '.join(kinds)}", value)]
    for word, (kind, fits, words) in _BOUNDS.items():
        applies = isinstance(value, kind) or (kind is float and _TYPES["number"](value))
        if word in node and applies and not fits(value, node[word]):
            found.append(_line(path, f"Input should be {words} {node[word]}", value))
    if isinstance(value, dict):
        found += _object_problems(cast("dict[str, Any]", value), node, root, path, depth)
    elif isinstance(value, list):
        first: list[Any] = node.get("prefixItems", [])
        for place, item in enumerate(cast("list[Any]", value)):
            inner = first[place] if place < len(first) else node.get("items", True)
            found += problems_of(item, inner, root, _joined(path, place), depth + 1)
    return found


def _object_problems(
    value: dict[str, Any], node: Mapping[str, Any], root: Mapping[str, Any], path: str, depth: int
) -> list[str]:
    properties: Mapping[str, Any] = node.get("properties", {})
    others = node.get("additionalProperties", True)
    found = [f"{_joined(path, name)}: Field required" for name in node.get("required", ()) if name not in value]
    for name, item in value.items():
        inner_path = _joined(path, name)
        if name in properties:
            found += problems_of(item, properties[name], root, inner_path, depth + 1)
        elif others is False:
            if not node.get("patternProperties"):
                found.append(_line(inner_path, "Extra inputs are not permitted", item))
        else:
            found += problems_of(item, others, root, inner_path, depth + 1)
    return found


def _anything(value: Any) -> bool:
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _same(value: Any, choice: Any) -> bool:
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def _referenced(reference: str, root: Mapping[str, Any]) -> Any:
    """Return what a local reference names; a foreign or broken one permits everything."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:] if reference.startswith("#") else ("",):
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            return True
        found = cast("Mapping[str, Any]", found)[part]
    return found


def _joined(path: str, name: str | int) -> str:
    return f"{path}.{shown_name(name)}" if path else shown_name(name)


def _line(path: str, message: str, value: Any) -> str:
    return f"{path or 'arguments'}: {message} (got {shown_value(value)})"
