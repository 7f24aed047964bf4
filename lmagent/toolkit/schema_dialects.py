"""JSON Schema in the dialects of the providers: OpenAI strict, OpenAPI 3.0, Wenxin, Anthropic strict, Gemini.

All passes copy. A keyword that a dialect refuses goes into the description, so that the model still reads it. A schema
that a dialect cannot express gives a reason: the caller falls back to the neutral schema or refuses.

Over 400 lines because the dialects share their passes: folding of `allOf`, unions, and what is told in descriptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from lmagent.core.json_text import JSONError, dumps_text
from lmagent.toolkit.schema import POSITIONS, OutputSchema, copied_schema, inline_refs, mapped_schema

__all__ = [
    "anthropic_strict",
    "gemini_openapi",
    "gemini_subset",
    "never_blank",
    "openai_strict",
    "openapi_subset",
    "schema_as_text",
    "wenxin_subset",
]

Schema = dict[str, Any]

_REF = "#/$defs/"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SILENT = frozenset({"$schema", "$comment", "discriminator", "examples", "deprecated", "readOnly", "writeOnly"})
"""Dropped without a word: they constrain nothing."""

_ANTHROPIC_KEPT = _words(
    "type enum const anyOf allOf $ref $defs title description properties required additionalProperties items"
)
_ANTHROPIC_VALUES: dict[str, tuple[Any, ...]] = {
    "format": ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
    "minItems": (0, 1),
}
"""Keywords that the dialect takes with these values only."""

_GEMINI_KEPT = _words(
    "$id $defs $ref $anchor type format title description enum items prefixItems minItems maxItems minimum "
    "maximum anyOf oneOf properties additionalProperties required propertyOrdering"
)


# Descriptions


def never_blank(name: str, description: str) -> str:
    """Return the description, or the words of the name for a dialect that refuses blanks."""
    return description.strip() or re.sub(r"[_-]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).strip() or name


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
        kinds = _strict_kinds(node)
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
        return copied_schema(parameters), f"{place}strict mode cannot describe {reason}"
    if done:
        schema["$defs"] = done
    return schema, None


def _strict_kinds(node: Mapping[str, Any]) -> set[str]:
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
    kept = {key: copied_schema(value) for key, value in node.items() if key not in refused}
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
    node: dict[str, Any] = {key: value if key in POSITIONS else copied_schema(value) for key, value in merged.items()}
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
    node: Any = mapped_schema(schema, _without_unions)
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


# Anthropic strict and Gemini


def anthropic_strict(schema: Mapping[str, Any]) -> tuple[Schema, str | None]:
    """Return the schema as strict tools and `output_config.format` take it and None, or a copy and why it cannot be.

    Every object is closed; optional properties stay optional. Free-form objects, `Any`, fixed tuples and recursion
    cannot be expressed.
    """
    definitions = _mapping(schema.get("$defs"))
    try:
        _refuse_recursion(schema, definitions, ())
        return _anthropic(schema), None
    except _Inexpressible as reason:
        return dict(schema), f"strict mode cannot describe {reason}"


def _anthropic(given: object) -> Schema:
    if not isinstance(given, Mapping) or not given:
        raise _Inexpressible("Any")
    node = dict(cast("Mapping[str, Any]", given))
    if "oneOf" in node:
        node["anyOf"] = [*node.get("anyOf", ()), *node.pop("oneOf")]
    kinds = _kinds(node)
    if not kinds and not node.keys() & {"enum", "const", "anyOf", "allOf", "$ref"}:
        raise _Inexpressible("Any")
    if "prefixItems" in node:
        raise _Inexpressible("tuples of fixed length")
    if "object" in kinds:
        if node.get("additionalProperties") or node.get("patternProperties"):
            raise _Inexpressible("objects with free keys")
        if "properties" not in node and node.get("additionalProperties") is not False:
            raise _Inexpressible("objects with free keys")
        node["additionalProperties"] = False
    kept, told = Schema(), Schema()
    for key, value in node.items():
        if key in ("properties", "$defs"):
            kept[key] = {name: _anthropic(inner) for name, inner in _mapping(value).items()}
        elif key in ("anyOf", "allOf"):
            kept[key] = [_anthropic(inner) for inner in value]
        elif key == "items":
            kept[key] = _anthropic(value)
        elif key in _ANTHROPIC_KEPT or value in _ANTHROPIC_VALUES.get(key, ()):
            kept[key] = value
        else:
            told[key] = value
    return _tell(kept, told)


def _refuse_recursion(node: object, definitions: Mapping[str, Any], above: tuple[str, ...]) -> None:
    if isinstance(node, list):
        for inner in cast("list[object]", node):
            _refuse_recursion(inner, definitions, above)
    if not isinstance(node, Mapping):
        return
    for key, inner in cast("Mapping[str, Any]", node).items():
        if key == "$ref":
            name = str(inner).removeprefix(_REF)
            if inner == "#" or name in above:
                raise _Inexpressible("a type that contains itself")
            if name in definitions:
                _refuse_recursion(definitions[name], definitions, (*above, name))
        elif key not in ("$defs", "enum", "const", "default", "examples"):
            _refuse_recursion(inner, definitions, above)


def gemini_subset(schema: object) -> Schema:
    """Return the schema with the keywords that `parametersJsonSchema` and `responseJsonSchema` take.

    `const` becomes an `enum` of one, `allOf` is folded in, a `$ref` with company moves into an `anyOf`.
    """
    if not isinstance(schema, Mapping):
        return {}
    node = _merged_all_of(cast("Mapping[str, Any]", schema))
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "$ref" in node and any(not key.startswith("$") for key in node):
        node["anyOf"] = [{"$ref": node.pop("$ref")}]
    kept, told = Schema(), Schema()
    for key, value in node.items():
        if key in ("properties", "$defs"):
            kept[key] = {name: gemini_subset(inner) for name, inner in _mapping(value).items()}
        elif key in ("anyOf", "oneOf", "prefixItems"):
            kept[key] = [gemini_subset(inner) for inner in value]
        elif key in ("items", "additionalProperties"):
            kept[key] = value if isinstance(value, bool) else gemini_subset(value)
        elif key in _GEMINI_KEPT:
            kept[key] = value
        else:
            told[key] = value
    return _tell(kept, told)


def gemini_openapi(schema: Mapping[str, Any], *, ordered: bool = False) -> Schema:
    """Return the schema as `parameters` and `responseSchema` take it: all inline, types in capitals, enums of texts.

    Args:
        schema: JSON Schema.
        ordered: Whether `propertyOrdering` is added, so that an answer has its members in this order.
    """
    return _capital(openapi_subset(schema), ordered)


def _capital(node: Schema, ordered: bool) -> Schema:
    kept = Schema()
    for key, value in node.items():
        if key == "properties":
            kept[key] = {name: _capital(inner, ordered) for name, inner in value.items()}
            if ordered:
                kept["propertyOrdering"] = list(value)
        elif key == "anyOf":
            kept[key] = [_capital(inner, ordered) for inner in value]
        elif key == "items":
            kept[key] = _capital(value, ordered)
        elif key == "enum":
            kept[key] = [_shown(member) for member in value]
        else:
            kept[key] = value.upper() if key == "type" else value
    return kept | ({"type": "STRING"} if "enum" in kept else {})


def schema_as_text(schema: OutputSchema) -> str:
    """Return words for the system prompt that ask for such an answer, where the dialect has no field for it."""
    return (
        "Answer with one JSON value that fits this JSON Schema, and with nothing else: no explanation, no code fence.\n"
        + dumps_text(dict(schema.schema))
    )


def _kinds(node: Mapping[str, Any]) -> set[str]:
    kind = node.get("type")
    if isinstance(kind, list):
        return set(cast("list[str]", kind))
    return {kind} if isinstance(kind, str) else {"object"} if "properties" in node else set()


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _tell(kept: Schema, told: Schema) -> Schema:
    words = [
        f"{key}: {_shown(value)}"
        for key, value in told.items()
        if key not in _SILENT and not (key == "default" and value is None)
    ]
    if words:
        kept["description"] = "\n\n".join(text for text in (kept.get("description"), f"{{{', '.join(words)}}}") if text)
    return kept


def _shown(value: object) -> str:
    try:
        return value if isinstance(value, str) else dumps_text(value)
    except JSONError:
        return str(value)
