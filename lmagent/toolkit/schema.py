"""JSON Schema of tools: the spec that codecs see, clean-up, inlining of references, and checking values.

Knows no provider (`schema_dialects` does) and no function. Passes over a schema copy it and never change what they were
given. The checker covers what tool schemas use. It knows no `format` and ignores what it does not know, because the
tool's own validation, or the owner of a tool that comes over a wire, decides in the end.

Over 400 lines because the spec, the walk over a schema and the checker share the knowledge of where schemas stand.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from lmagent.core.fast_dataclass import fast_dataclass

__all__ = [
    "ALL_KINDS",
    "POSITIONS",
    "CheckedSchema",
    "OutputSchema",
    "ToolSpec",
    "branches_of",
    "canonical",
    "closest",
    "copied_schema",
    "inline_refs",
    "inner_schemas",
    "is_of_kind",
    "item_schema",
    "kind_of",
    "kinds_of",
    "mapped_schema",
    "problems",
    "property_schema",
    "resolved",
    "tidy",
]

Schema = dict[str, Any]
Node = Mapping[str, Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MAPS = ("properties", "$defs", "patternProperties", "dependentSchemas")
"""Keys whose values are names -> schemas."""
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = _words(
    "items additionalProperties not contains propertyNames if then else unevaluatedItems unevaluatedProperties"
)
POSITIONS = frozenset((*_MAPS, *_LISTS, *_SINGLES))
"""All keys that hold schemas."""
_REF = "#/$defs/"
ALL_KINDS = frozenset({"string", "integer", "number", "boolean", "null", "object", "array"})
"""The JSON types."""
_MAX_REFS = 40
_MAX_DEPTH = 100
_MAX_SHOWN = 80


class CheckedSchema(dict[str, Any]):
    """The parameters schema of a tool together with the validator of the tool, which decides what is accepted."""

    def __init__(self, schema: Mapping[str, Any], accepts: Callable[[str], bool]) -> None:
        super().__init__(schema)
        self.accepts = accepts
        """Whether the tool takes these arguments, given as JSON text."""


@fast_dataclass(frozen=True, kw_only=True)
class OutputSchema:
    """What a structured answer must look like."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolSpec:
    """Name, description and parameters schema of one tool: all a codec ever sees of it.

    Compared by identity: the registry hands out one spec per tool, so that encoded bytes can be kept beside it.
    """

    name: str
    """`[a-zA-Z0-9_-]{1,64}`."""
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON Schema 2020-12, root `type: object` with `properties`. Treat as read-only; a dialect pass copies."""
    strict: bool | None = None
    """True: the user demands strict mode. None: as the provider's codec thinks best."""
    encoded: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False)
    """Cache of the codecs: dialect name -> encoded form."""


def mapped_schema(schema: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of one schema node with `change` applied to each schema directly in it; data is copied."""
    if not isinstance(schema, Mapping):
        return schema
    copied: Schema = {}
    for key, value in cast("Mapping[str, Any]", schema).items():
        if key in _MAPS and isinstance(value, Mapping):
            copied[key] = {name: change(inner) for name, inner in cast("Mapping[str, Any]", value).items()}
        elif key in _LISTS and isinstance(value, list):
            copied[key] = [change(inner) for inner in cast("list[Any]", value)]
        elif key in _SINGLES:
            copied[key] = change(value)
        else:
            copied[key] = copied_schema(value)
    return copied


def copied_schema(value: Any) -> Any:
    """Return a deep copy of a schema or of data in it; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: copied_schema(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [copied_schema(inner) for inner in cast("list[Any]", value)]
    return value


def inner_schemas(schema: Any) -> Iterator[Any]:
    """Yield every schema directly inside one node."""
    if not isinstance(schema, Mapping):
        return
    for key, value in cast("Mapping[str, Any]", schema).items():
        if key in _MAPS and isinstance(value, Mapping):
            yield from cast("Mapping[str, Any]", value).values()
        elif key in _LISTS and isinstance(value, list):
            yield from cast("list[Any]", value)
        elif key in _SINGLES:
            yield value


# Hygiene


def tidy(parameters: Mapping[str, Any]) -> Schema:
    """Return the schema without titles, without defaults that JSON cannot carry and without unused `$defs`."""
    schema: Schema = _without_titles(parameters)
    definitions: Schema = schema.get("$defs", {})
    used = set[str]()
    todo = [{key: value for key, value in schema.items() if key != "$defs"}]
    while todo:
        node = todo.pop()
        if isinstance(node.get("$ref"), str):
            name = node["$ref"].removeprefix(_REF)
            if name in definitions and name not in used:
                used.add(name)
                todo.append(definitions[name])
        todo.extend(cast("Schema", inner) for inner in inner_schemas(node) if isinstance(inner, dict))
    if "$defs" in schema:
        schema["$defs"] = {name: definition for name, definition in definitions.items() if name in used}
        if not schema["$defs"]:
            del schema["$defs"]
    return schema


def _without_titles(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    copied: Schema = mapped_schema(schema, _without_titles)
    copied.pop("title", None)
    if "default" in copied and not _is_finite(copied["default"]):
        del copied["default"]
    return copied


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, cast("Schema", value).values()))
    return all(map(_is_finite, cast("list[Any]", value))) if isinstance(value, list) else True


# Inlining


def inline_refs(parameters: Mapping[str, Any]) -> Schema:
    """Return the schema with every `$ref` replaced by what it names; text beside the reference wins.

    A recursion stops with an empty `{"type": "object"}` (or whatever the type of the definition is).
    """
    definitions: Mapping[str, Any] = parameters.get("$defs", {})

    def inlined(schema: Any, above: tuple[str, ...]) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        node = cast("Mapping[str, Any]", schema)
        if isinstance(node.get("$ref"), str):
            reference: str = node["$ref"]
            name = reference.removeprefix(_REF)
            beside = {key: value for key, value in node.items() if key != "$ref"}
            if reference == "#":
                target: Any = {"type": "object"}
            elif name in above or name not in definitions:
                target = {"type": definitions.get(name, {}).get("type", "object")}
            else:
                target = inlined(definitions[name], (*above, name))
            return {**cast("Schema", target), **mapped_schema(beside, lambda inner: inlined(inner, above))}
        return mapped_schema(node, lambda inner: inlined(inner, above))

    return inlined({key: value for key, value in parameters.items() if key != "$defs"}, ())


# Checking values


def problems(value: Any, schema: Any, root: Node | None = None, path: str = "", depth: int = 0) -> list[str]:
    """Return what is wrong with `value`, a line each: path, what was expected, what came."""
    root = cast("Node", schema) if root is None and isinstance(schema, Mapping) else (root or {})
    if schema is False:
        return [f"{path or 'arguments'}: not allowed"]
    schema = resolved(schema, root)
    if not schema or depth > _MAX_DEPTH:  # a schema may refer to itself
        return []
    depth += 1
    at = path or "arguments"
    types = kinds_of(schema, root)
    whole = isinstance(value, float) and value.is_integer() and "integer" in types
    if not is_of_kind(value, types) and not whole:
        return [f"{at}: expected {' or '.join(sorted(types))}, got {_came(value)}"]
    found: list[str] = []
    enum = schema.get("enum")
    if isinstance(enum, list) and not any(_equal(value, item) for item in cast("list[Any]", enum)):
        near = (
            closest(value, [item for item in cast("list[Any]", enum) if isinstance(item, str)])
            if isinstance(value, str)
            else ""
        )
        found.append(f"{at}: expected one of {_short(cast('Any', enum), 200)}, got {_short(value)}{near}")
    if "const" in schema and not _equal(value, schema["const"]):
        found.append(f"{at}: expected {_short(schema['const'])}, got {_short(value)}")
    found.extend(_branch_problems(value, schema, root, at, depth))
    if isinstance(value, dict):
        found.extend(_object_problems(cast("dict[str, Any]", value), schema, root, path, depth))
    elif isinstance(value, list):
        found.extend(_array_problems(cast("list[Any]", value), schema, root, path, depth))
    elif isinstance(value, str):
        found.extend(_bounds(len(value), schema, "minLength", "maxLength", at, "characters"))
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not _matches(pattern, value):
            found.append(f"{at}: expected text that matches {pattern!r}, got {_short(value)}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found.extend(_number_problems(value, schema, at))
    return found


def _branch_problems(value: Any, schema: Node, root: Node, at: str, depth: int) -> list[str]:
    found: list[str] = []
    for branch in schema.get("allOf") or ():
        found.extend(problems(value, branch, root, at, depth))
    branches = branches_of(schema)
    if branches:
        each = [problems(value, branch, root, at, depth) for branch in branches]
        if all(each):
            found.extend(min(each, key=len))
    return found


def _object_problems(value: dict[str, Any], schema: Node, root: Node, path: str, depth: int) -> list[str]:
    found: list[str] = []
    properties = cast("Node", schema.get("properties") or {})
    for key in cast("list[str]", schema.get("required") or []):
        if key not in value:
            found.append(f"{_join(path, key)}: required, but missing")
    patterns = cast("Node", schema.get("patternProperties") or {})
    for key, item in value.items():
        if key in properties:
            found.extend(problems(item, properties[key], root, _join(path, key), depth))
        elif not any(_matches(pattern, key) for pattern in patterns):
            extra = schema.get("additionalProperties", True)
            if extra is False:
                found.append(f"{_join(path, key)}: no such argument{closest(key, list(properties))}")
            else:
                found.extend(problems(item, extra, root, _join(path, key), depth) if isinstance(extra, Mapping) else [])
    return found + _bounds(len(value), schema, "minProperties", "maxProperties", path or "arguments", "keys")


def _array_problems(value: list[Any], schema: Node, root: Node, path: str, depth: int) -> list[str]:
    found = _bounds(len(value), schema, "minItems", "maxItems", path or "arguments", "items")
    if schema.get("uniqueItems") is True and len({json.dumps(item, sort_keys=True) for item in value}) != len(value):
        found.append(f"{path or 'arguments'}: expected items that differ")
    for index, item in enumerate(value):
        found.extend(problems(item, item_schema(schema, index), root, _join(path, str(index)), depth))
    return found


def _number_problems(value: float, schema: Node, at: str) -> list[str]:
    found = _bounds(value, schema, "minimum", "maximum", at, "")
    for word, wrong in (("exclusiveMinimum", value.__le__), ("exclusiveMaximum", value.__ge__)):
        limit = schema.get(word)
        if isinstance(limit, (int, float)) and not isinstance(limit, bool) and wrong(limit) is True:
            found.append(f"{at}: expected {'more' if word.endswith('Minimum') else 'less'} than {limit}, got {value}")
    step = schema.get("multipleOf")
    if isinstance(step, (int, float)) and step and abs(value / step - round(value / step)) > 1e-9:
        found.append(f"{at}: expected a multiple of {step}, got {value}")
    return found


def _bounds(size: float, schema: Node, low: str, high: str, at: str, unit: str) -> list[str]:
    least, most = schema.get(low), schema.get(high)
    if isinstance(least, (int, float)) and size < least:
        return [f"{at}: expected at least {least} {unit}".rstrip() + f", got {size}"]
    if isinstance(most, (int, float)) and size > most:
        return [f"{at}: expected at most {most} {unit}".rstrip() + f", got {size}"]
    return []


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True  # a dialect of regular expressions that Python does not know


def _equal(one: Any, other: Any) -> bool:
    """JSON equality: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return cast("bool", one == other)


def _join(path: str, key: str) -> str:
    key = key if len(key) <= _MAX_SHOWN else f"{key[: _MAX_SHOWN - 1]}…"
    return f"{path}.{key}" if path else key


def _came(value: Any) -> str:
    return "null" if value is None else f"{kind_of(value)} {_short(value)}"


def _short(value: Any, limit: int = 60) -> str:
    text = canonical(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def resolved(schema: Any, root: Node) -> Node:
    """Follow local `$ref`s; siblings of a reference are kept."""
    for _ in range(_MAX_REFS):
        if not isinstance(schema, Mapping):
            return {}
        found = cast("Node", schema)
        reference = found.get("$ref")
        if not isinstance(reference, str):
            return found
        target: Any = root
        for part in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
            part = part.replace("~1", "/").replace("~0", "~")
            target = cast("Node", target).get(part) if isinstance(target, Mapping) else None
        if not isinstance(target, Mapping):
            return {}
        schema = {**cast("Node", target), **{key: item for key, item in found.items() if key != "$ref"}}
    return {}


def branches_of(schema: Node) -> list[Any] | None:
    """Return the forms of a union, or None."""
    for word in ("anyOf", "oneOf"):
        found = schema.get(word)
        if isinstance(found, list):
            return cast("list[Any]", found)
    return None


def kinds_of(schema: Node, root: Node) -> frozenset[str]:
    """Return the JSON types that `schema` allows, as far as its keywords say; an unknown type allows all."""
    named = schema.get("type")
    if isinstance(named, str | list):
        allowed = frozenset({named} if isinstance(named, str) else cast("list[str]", named))
        if not allowed <= ALL_KINDS:
            return ALL_KINDS
    elif isinstance(schema.get("enum"), list):
        allowed = frozenset(kind_of(item) for item in schema["enum"])
    elif "const" in schema:
        allowed = frozenset({kind_of(schema["const"])})
    else:
        branches = branches_of(schema)
        if not branches:
            return ALL_KINDS
        allowed = frozenset[str]().union(*(kinds_of(resolved(branch, root), root) for branch in branches[:20]))
    return allowed | {"null"} if schema.get("nullable") is True else allowed


def is_of_kind(value: Any, types: frozenset[str]) -> bool:
    """Return whether a value has one of the JSON types; an integer is a number, too."""
    found = kind_of(value)
    return found in types or (found == "integer" and "number" in types)


def property_schema(schema: Node, key: str) -> Any:
    """Return the schema of a property; an empty one if nothing is said of it."""
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and key in properties:
        return cast("Node", properties)[key]
    extra = schema.get("additionalProperties")
    return cast("Any", extra) if isinstance(extra, Mapping) else {}


def item_schema(schema: Node, index: int) -> Any:
    """Return the schema of a list item; an empty one if nothing is said of it."""
    prefix = schema.get("prefixItems")
    if isinstance(prefix, list):
        listed = cast("list[Any]", prefix)
        if index < len(listed):
            return listed[index]
    items = schema.get("items")
    return cast("Any", items) if isinstance(items, Mapping) else {}


def kind_of(value: Any) -> str:
    """Return the JSON type of `value`."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case dict():
            return "object"
        case _:
            return "array"


def canonical(value: Any) -> str:
    """Return the JSON text of `value` as lmagent writes it: readable, compact enough, no ASCII escapes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def closest(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` when one of `known` is near `name`, else nothing."""
    import difflib  # for errors only

    near = difflib.get_close_matches(name[:64], known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
