"""JSON Schema as Anthropic's strict mode and Gemini's fields take it.

The passes copy. A keyword that the dialect refuses goes into the description, as `{minimum: 1}`, so that the model
still reads it. What cannot be told that way is a reason: the caller falls back or refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from lmagent.core.json_text import JSONError, dumps_text
from lmagent.toolkit.schema import OutputSchema, openapi_subset

__all__ = ["anthropic_strict", "gemini_openapi", "gemini_subset", "schema_as_text"]

Schema = dict[str, Any]

_REF = "#/$defs/"
_SILENT = frozenset({"$schema", "$comment", "discriminator", "examples", "deprecated", "readOnly", "writeOnly"})
"""Dropped without a word: they constrain nothing."""

_ANTHROPIC_KEPT = frozenset(
    {
        "type",
        "enum",
        "const",
        "anyOf",
        "allOf",
        "$ref",
        "$defs",
        "title",
        "description",
        "properties",
        "required",
        "additionalProperties",
        "items",
    }
)
_ANTHROPIC_VALUES: dict[str, tuple[Any, ...]] = {
    "format": ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
    "minItems": (0, 1),
}
"""Keywords that the dialect takes with these values only."""

_GEMINI_KEPT = frozenset(
    {
        "$id",
        "$defs",
        "$ref",
        "$anchor",
        "type",
        "format",
        "title",
        "description",
        "enum",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "anyOf",
        "oneOf",
        "properties",
        "additionalProperties",
        "required",
        "propertyOrdering",
    }
)


class _Inexpressible(Exception):
    """What the dialect cannot describe; its text is the end of the sentence."""


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
    node = _folded(cast("Mapping[str, Any]", schema))
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


def _folded(node: Mapping[str, Any]) -> Schema:
    """Return the node with the parts of `allOf` folded in; the node's own words win."""
    folded = Schema()
    for part in node.get("allOf", ()):
        for key, value in _folded(part).items():
            if key == "properties":
                folded[key] = {**folded.get(key, {}), **value}
            elif key == "required":
                folded[key] = list(dict.fromkeys([*folded.get(key, ()), *value]))
            else:
                folded[key] = value
    return {**folded, **{key: value for key, value in node.items() if key != "allOf"}}


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
