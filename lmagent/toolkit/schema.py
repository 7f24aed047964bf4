"""The tool as codecs see it, and the passes over its JSON Schema: hygiene, inlining, three dialects.

All passes are pure: they copy and never change what they were given. Nothing here knows a provider or a function.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from lmagent.core.fast_dataclass import fast_dataclass

__all__ = [
    "OutputSchema",
    "ToolSpec",
    "inline_refs",
    "inner_schemas",
    "never_blank",
    "openai_strict",
    "openapi_subset",
    "tidy",
    "wenxin_subset",
]

Schema = dict[str, Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MAPS = ("properties", "$defs", "patternProperties", "dependentSchemas")
"""Keys whose values are names -> schemas."""
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = _words(
    "items additionalProperties not contains propertyNames if then else unevaluatedItems unevaluatedProperties"
)
_POSITIONS = frozenset((*_MAPS, *_LISTS, *_SINGLES))
_REF = "#/$defs/"


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


def _mapped(schema: Any, change: Callable[[Any], Any]) -> Any:
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
            copied[key] = _copied(value)
    return copied


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_copied(inner) for inner in cast("list[Any]", value)]
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
    copied: Schema = _mapped(schema, _without_titles)
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


def never_blank(name: str, description: str) -> str:
    """Return the description, or the words of the name for a dialect that refuses blanks."""
    return description.strip() or re.sub(r"[_-]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).strip() or name


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
            return {**cast("Schema", target), **_mapped(beside, lambda inner: inlined(inner, above))}
        return _mapped(node, lambda inner: inlined(inner, above))

    return inlined({key: value for key, value in parameters.items() if key != "$defs"}, ())


# OpenAI strict

_STRICT_KEPT = _words(
    "type description enum const properties required items anyOf $ref pattern format multipleOf minimum "
    "maximum exclusiveMinimum exclusiveMaximum minItems maxItems minLength maxLength additionalProperties"
)
_STRICT_TOLD = _words("uniqueItems minProperties maxProperties contains propertyNames not format pattern")
"""Constraints that strict mode refuses and the description can tell."""
_STRICT_FORMATS = _words("date-time time date duration email hostname ipv4 ipv6 uuid")
_STRICT_DEPTH = 10
_STRICT_PROPERTIES = 5000
_LOOK_AROUND = re.compile(r"\(\?(?:[=!]|<[=!])")


class _Inexpressible(Exception):
    """What strict mode cannot describe; its text is the end of the sentence."""


def openai_strict(parameters: Mapping[str, Any]) -> tuple[Schema, str | None]:
    """Return the schema in OpenAI's strict dialect and None, or the neutral schema and why that is not possible.

    The reason reads `parameter 'value': strict mode cannot describe Any`; put the tool's name before it.
    """
    definitions: Mapping[str, Any] = parameters.get("$defs", {})
    done: Schema = {}
    counted = 0

    def convert(schema: Any, depth: int) -> Schema:
        nonlocal counted
        if not isinstance(schema, Mapping) or not schema:
            raise _Inexpressible("Any")
        node = _merged_all_of(cast("Mapping[str, Any]", schema))
        if "$ref" in node:
            return reference(node, depth)
        node = _told(node)
        if "oneOf" in node:
            node["anyOf"] = [*node.get("anyOf", []), *node.pop("oneOf")]
        kinds = _kinds(node)
        if "anyOf" in node:
            node["anyOf"] = [convert(inner, depth) for inner in node["anyOf"]]
        elif not kinds:
            raise _Inexpressible("Any")
        if "object" in kinds:
            if depth > _STRICT_DEPTH:
                raise _Inexpressible(f"objects nested deeper than {_STRICT_DEPTH}")
            counted += len(node.get("properties", {}))
            if counted > _STRICT_PROPERTIES:
                raise _Inexpressible(f"more than {_STRICT_PROPERTIES} properties")
            close(node, depth)
        if "array" in kinds:
            if "prefixItems" in node:
                raise _Inexpressible("tuples of fixed length")
            if not node.get("items"):
                raise _Inexpressible("lists of Any")
            node["items"] = convert(node["items"], depth + 1)
        return {key: value for key, value in node.items() if key in _STRICT_KEPT}

    def reference(node: Mapping[str, Any], depth: int) -> Schema:
        name = str(node["$ref"]).removeprefix(_REF)
        if name not in definitions:
            raise _Inexpressible(f"the reference {node['$ref']!r}")
        if name not in done:
            done[name] = {}  # a recursion meets this entry and goes no further
            done[name] = convert(definitions[name], depth)
        bare = {"$ref": node["$ref"]}
        return {"anyOf": [bare], "description": node["description"]} if node.get("description") else bare

    def close(node: Schema, depth: int) -> None:
        if node.get("patternProperties") or node.get("additionalProperties") not in (None, False):
            raise _Inexpressible("objects with free keys")
        if "properties" not in node and node.get("additionalProperties") is not False:
            raise _Inexpressible("objects with free keys")
        required = node.get("required", ())
        closed: Schema = {}
        for name, inner in node.get("properties", {}).items():
            converted = convert(inner, depth + 1)
            closed[name] = converted if name in required else _nullable(converted)
        node.update(properties=closed, required=list(closed), additionalProperties=False)

    properties: Mapping[str, Any] = parameters.get("properties", {})
    place = ""
    try:
        for name, inner in properties.items():  # one at a time, so that the reason can name the parameter
            place = f"parameter {name!r}: "
            convert(inner, 2)
        place, counted = "", 0
        done.clear()
        schema = convert({key: value for key, value in parameters.items() if key != "$defs"}, 1)
    except _Inexpressible as reason:
        return _copied(parameters), f"{place}strict mode cannot describe {reason}"
    if done:
        schema["$defs"] = done
    return schema, None


def _kinds(node: Mapping[str, Any]) -> set[str]:
    """Return the JSON types a node allows, read from its values where `type` is left out."""
    kind = node.get("type")
    if kind is not None:
        return set(cast("list[str]", kind)) if isinstance(kind, list) else {kind}
    if "enum" in node or "const" in node:
        return {"value"}
    return {"object"} if "properties" in node else {"array"} if "items" in node or "prefixItems" in node else set()


def _merged_all_of(node: Mapping[str, Any]) -> Schema:
    """Return the node with the parts of `allOf` folded in; the node's own words win."""
    merged: Schema = {}
    for part in node.get("allOf", ()):
        for key, value in _merged_all_of(part).items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, []), *(name for name in value if name not in merged.get(key, []))]
            else:
                merged[key] = value
    return {**merged, **{key: value for key, value in node.items() if key != "allOf"}}


def _told(node: Schema) -> Schema:
    """Move constraints that the strict dialect refuses into the description."""
    refused = {key: node[key] for key in _STRICT_TOLD & node.keys()}
    if refused.get("format") in _STRICT_FORMATS:
        del refused["format"]
    if "pattern" in refused and not _LOOK_AROUND.search(refused["pattern"]):
        del refused["pattern"]
    kept = {key: _copied(value) for key, value in node.items() if key not in refused}
    if refused:
        words = ", ".join(f"{key}: {_json(refused[key])}" for key in sorted(refused))
        kept["description"] = f"{node.get('description', '')} ({words})".strip()
    return kept


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _nullable(schema: Schema) -> Schema:
    """Let a closed object's formerly optional property be null; the description stays outside."""
    if _allows_null(schema):
        return schema
    outside = {"description": schema["description"]} if "description" in schema else {}
    inside = {key: value for key, value in schema.items() if key != "description"}
    choices = inside["anyOf"] if set(inside) == {"anyOf"} else [inside]
    return {"anyOf": [*choices, {"type": "null"}], **outside}


def _allows_null(schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return any(_allows_null(choice) for choice in schema["anyOf"])
    kind = schema.get("type")
    if kind is None:
        return None in schema.get("enum", ()) or ("const" in schema and schema["const"] is None)
    return kind == "null" or (isinstance(kind, list) and "null" in kind)


# OpenAPI 3.0 subset and Wenxin

_OPENAPI_KEPT = _words(
    "type description enum properties required items anyOf nullable default format pattern minimum maximum "
    "minLength maxLength minItems maxItems minProperties maxProperties"
)


def openapi_subset(parameters: Mapping[str, Any]) -> Schema:
    """Return the schema in the OpenAPI-3.0 subset: everything inline, `nullable` for null, one-value enums."""
    return {"type": "object", "properties": {}, **_openapi(inline_refs(parameters))}


def _openapi(schema: Any) -> Schema:
    if not isinstance(schema, Mapping):
        return {}
    merged = _merged_all_of(cast("Mapping[str, Any]", schema))
    node: dict[str, Any] = {key: value if key in _POSITIONS else _copied(value) for key, value in merged.items()}
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if isinstance(node.get("type"), list):
        outside = {key: node.pop(key) for key in ("description", "default") if key in node}
        node = {"anyOf": [{**node, "type": kind} for kind in node["type"]], **outside}
    choices: list[Any] = [*node.pop("anyOf", []), *node.pop("oneOf", [])]
    if choices:
        node = _openapi_union(node, choices)
    if node.get("type") == "null":
        node = {**{key: value for key, value in node.items() if key not in ("type", "enum")}, "nullable": True}
    if "enum" in node and None in node["enum"]:
        node.update(enum=[value for value in node["enum"] if value is not None], nullable=True)
        if not node["enum"]:
            del node["enum"]
    _closed_bounds(node)
    if "prefixItems" in node:
        items = _distinct([_openapi(item) for item in node.pop("prefixItems")])
        node["items"] = items[0] if len(items) == 1 else {"anyOf": items}
    elif "items" in node:
        node["items"] = _openapi(node["items"])
    if "properties" in node:
        node["properties"] = {name: _openapi(inner) for name, inner in node["properties"].items()}
    return {key: value for key, value in node.items() if key in _OPENAPI_KEPT}


def _openapi_union(node: Schema, choices: list[Any]) -> Schema:
    """Fold a union: null becomes `nullable`, one remaining choice is no union; outer words win."""
    converted = _distinct([_openapi(choice) for choice in choices])
    real = [choice for choice in converted if choice != {"nullable": True}]
    nullable = {"nullable": True} if len(real) < len(converted) else {}
    if len(real) == 1:
        return {**real[0], **nullable, **node}
    if any(choice == {} for choice in real):
        return {**nullable, **node}
    return {**node, **({"anyOf": real} if real else {}), **nullable}


def _distinct(schemas: list[Schema]) -> list[Schema]:
    return [schema for place, schema in enumerate(schemas) if schema not in schemas[:place]]


def _closed_bounds(node: Schema) -> None:
    """Write exclusive bounds as inclusive ones; for anything but integers the description says what is lost."""
    for key, inclusive, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        if key not in node:
            continue
        bound = node.pop(key)
        if node.get("type") == "integer" and isinstance(bound, int):
            node[inclusive] = bound + step
        else:
            node[inclusive] = bound
            word = "greater" if step > 0 else "less"
            node["description"] = f"{node.get('description', '')} ({word} than {bound})".strip()


def wenxin_subset(parameters: Mapping[str, Any]) -> Schema:
    """Return the schema in Wenxin's subset: the OpenAPI one without unions and null."""
    return _without_unions(openapi_subset(parameters))


def _without_unions(schema: Any) -> Any:
    node: Any = _mapped(schema, _without_unions)
    if not isinstance(node, dict):
        return node
    copied = cast("Schema", node)
    nullable = copied.pop("nullable", False)
    if nullable and copied.get("default", 0) is None:
        del copied["default"]
    choices: list[Schema] = copied.pop("anyOf", [])
    if choices:
        others = " or ".join(_json({k: v for k, v in choice.items() if k != "description"}) for choice in choices[1:])
        description = copied.get("description") or choices[0].get("description", "")
        copied = {**choices[0], **copied, "description": f"{description} (or {others})".strip()}
    return copied
