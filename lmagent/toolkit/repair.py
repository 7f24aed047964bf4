"""The one engine that repairs the arguments of a call, for native and for prompted calls. Never guesses.

Theory of operation. A repair is taken only if it cannot change what the model meant, and each one is noted on the call
by its name in `REPAIRS`. There are three stages; each runs only if the one before could not finish the job:

1. Reading (`loose_json`). Strict JSON first, then a closed list of spellings with exactly one meaning: quotes, commas,
   comments, brackets, Python literals. Text with two readings is refused with the place and what was expected.
2. Unwrapping (`unwrap`). An argument object that was encoded as a JSON string, once or twice, is decoded.
3. Fitting (`coerce`). A value becomes the type that the schema asks for, only where the schema does not allow the value
   as it came and the conversion is exact: `"2"` to 2, 2.0 to 2, never 2.5 to 2. If several forms of a union could take
   the value, all of them must agree on the result.

Native calls are validated by pydantic first. `SecondChances` mends the places that failed there: null where a default
exists, JSON text where a container is expected. The three stages run only if validation still fails.
Prompted calls pass through the stages in `prompting.calls`. In both cases the tool's own validation decides at the end:
formats, ranges and annotations are not checked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from lmagent.core.json_text import JSONError, loads
from lmagent.toolkit.loose_json import JSONReadError, duplicate_key, read_json, read_literal
from lmagent.toolkit.schema import (
    ALL_KINDS,
    branches_of,
    canonical,
    is_of_kind,
    item_schema,
    kind_of,
    kinds_of,
    problems,
    property_schema,
    resolved,
)

__all__ = [
    "ALIASES",
    "REPAIRS",
    "SecondChances",
    "coerce",
    "json_container",
    "raw_value",
    "read_arguments",
    "repair_arguments",
    "unwrap",
]

REPAIRS: Mapping[str, str] = {
    "Python literal": "True, False or None instead of true, false, null",
    "comment": "a // line, /* block */ or # line comment dropped",
    "doubled braces": "{{...}} of a template read as {...}",
    "empty arguments": "nothing at all, or null, read as an object without arguments",
    "encoded as a string": "the arguments were a JSON string that holds the JSON object",
    "escaped quotes": r"each quote had a backslash: {\"a\": 1}",
    "full-width structure": "full-width punctuation or digits (： ， ｛ ｝ １) read as ASCII",
    "illegal escape": r"an escape that JSON does not know (\d, \') kept as text",
    "inner code fence": "the JSON stood inside a Markdown code fence",
    "keys beside the call ignored": "unknown keys beside name and arguments dropped; none of them names a parameter",
    "leading word json": "the word json before the object dropped",
    "leading-dot number": ".5 read as 0.5",
    "leaked_markup": "the call stood as markup in the text of a native reply",
    "missing closing bracket": "brackets added at the end, where a closing delimiter proves that nothing was cut off",
    "missing closing tag": "the last tag after keys and values in tags was missing; all of these were closed",
    "name trimmed": "blanks, functions. or default_api. before the tool's name, dropped",
    "null_as_default": "null left out where the parameter has a default and takes no null",
    "number to integer": "a whole float (2.0) for an integer",
    "odd white space": "no-break, zero-width or full-width spaces between tokens",
    "other key names": "other keys than name and arguments, such as tool and parameters",
    "plain text as the only argument": "text instead of an object, for a tool whose only parameter is a text",
    "raw control character": "a line break or tab inside a string that was not escaped",
    "single quotes": "single quotes around keys or strings",
    "smart quotes": "typographic or full-width quotes around keys or strings",
    "string to array": "text that is a JSON or Python list, where no text is allowed",
    "string to boolean": "true or false in quotes, where no text is allowed",
    "string to integer": "a whole number in quotes, where no text is allowed",
    "string to null": "null or None in quotes, where no text is allowed",
    "string to number": "a number in quotes, where no text is allowed",
    "string to object": "text that is a JSON or Python object, where no text is allowed",
    "surplus closing bracket": "closing brackets after the end dropped",
    "trailing comma": "a comma before a closing bracket dropped",
    "unquoted key": "keys without quotes",
}
"""Name of a repair, as `ToolCall.repairs` and `ToolOutcome.repairs` have it -> what it does."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "json_text_as_value": ("encoded as a string", "string to object", "string to array"),
    "second_chance": ("null_as_default", "string to object", "string to array"),
    "the arguments were JSON inside a text": ("encoded as a string",),
}
"""Names in traces of version 0.1 -> the names that are used now for the same repairs."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.0+)?")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = ("null", "None")
_EXACT_FLOAT = 2**53
_NOTHING: Any = object()
_MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 64

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]


def repair_arguments(text: str, schema: Schema, *, repair: bool = True) -> tuple[str | None, tuple[str, ...]]:
    """Return the arguments as JSON text that fits `schema` as far as lossless repair can make it.

    Strict JSON comes first; text that needs no change is returned as it is.

    Args:
        text: What the model wrote as arguments.
        schema: The tool's parameters schema.
        repair: False accepts strict JSON only and coerces nothing.

    Returns:
        The text and the repairs, or None and the reasons when it cannot be read for certain.
    """
    repairs: list[str] = []
    try:
        value = read_arguments(text, repairs, repair=repair)
    except JSONReadError as error:
        return None, (str(error),)
    if not isinstance(value, dict):
        return None, (f"expected a JSON object of arguments, got {kind_of(value)}",)
    fields = cast("dict[str, Any]", value)
    fitted = coerce(fields, schema, repairs) if repair else fields
    if not repairs:
        return text, ()
    return canonical(fitted), tuple(dict.fromkeys(repairs))


def read_arguments(text: str, repairs: list[str], *, repair: bool = True, closed: bool = False) -> Any:
    """Return the value of argument text, also when it is empty or was encoded as a JSON string once or twice."""
    if not text.strip():
        repairs.append("empty arguments")
        return {}
    reading = read_json(text, repair=repair, closed=closed)
    repairs.extend(reading.repairs)
    return unwrap(reading.value, repairs) if repair else reading.value


def unwrap(value: Any, repairs: list[str]) -> Any:
    """Undo double encoding of an argument object, twice at most; null and empty text mean no arguments.

    Raises:
        JSONReadError: Text that looks like an object is none.
    """
    for _ in range(2):
        if not isinstance(value, str):
            break
        if not value.strip():
            value = None
            break
        if value.lstrip()[:1] not in ("{", "[", '"', "\\", "`", "｛"):
            break
        reading = read_json(value)
        repairs.extend(("encoded as a string", *reading.repairs))
        value = reading.value
    if value is None:
        repairs.append("empty arguments")
        return {}
    return value


def json_container(text: Any) -> Any:
    """Return the object or list that `text` spells in strict JSON, or None."""
    if not isinstance(text, str) or text.strip()[:1] not in ("{", "["):
        return None
    try:
        return None if duplicate_key(text) else loads(text, max_bytes=_MAX_BYTES, max_depth=_MAX_DEPTH)
    except JSONError:
        return None


class SecondChances:
    """Repairs at places where validation failed: null for a default, JSON text for the container it spells.

    Args:
        data: The argument object; changed in place.
        schema: The tool's parameters schema.
    """

    def __init__(self, data: dict[str, Any], schema: Schema) -> None:
        self._data = data
        self._schema = schema
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The repairs made so far."""
        return tuple(self._names)

    def apply(self, path: Path, *, wants_container: bool) -> bool:
        """Repair one place if a second chance applies; return whether it did.

        Args:
            path: Keys and indexes from the argument object to the value.
            wants_container: An object or a list is expected there, and no text.
        """
        parent = _parent_of(self._data, path)
        if parent is None:
            return False
        key: Any = path[-1]
        value = parent[key]
        if value is None and isinstance(parent, dict):
            if not _is_optional(path, self._schema, self._schema):
                return False
            del parent[key]
            self._names["null_as_default"] = None
            return True
        inner = json_container(value) if wants_container else None
        if inner is None:
            return False
        parent[key] = inner
        self._names[f"string to {kind_of(inner)}"] = None
        return True

    def fit(self, key: str) -> bool:
        """Convert one argument to the type its schema asks for, if that is exact; return whether it changed."""
        notes: list[str] = []
        fitted = coerce(self._data[key], property_schema(self._schema, key), notes, self._schema)
        if not notes or problems(fitted, property_schema(self._schema, key), self._schema):
            return False
        self._data[key] = fitted
        self._names.update(dict.fromkeys(notes))
        return True


def _parent_of(data: Any, path: Path) -> Any:
    """Return the container that holds the value at `path`, or None if there is none (any more)."""
    parent: Any = None
    for part in path:
        parent = data
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return parent


def _is_optional(path: Path, schema: Any, root: Schema) -> bool:
    """Return whether the schema has a property at `path` that may be left out, in at least one form of a union."""
    if not isinstance(schema, Mapping):
        return False
    node = resolved(cast("Schema", schema), root)
    if any(_is_optional(path, form, root) for word in ("anyOf", "oneOf", "allOf") for form in node.get(word, ())):
        return True
    key, rest = path[0], path[1:]
    if isinstance(key, int):
        return bool(rest) and _is_optional(rest, item_schema(node, key), root)
    properties: Schema = node.get("properties", {})
    if rest:
        return _is_optional(rest, properties.get(key, node.get("additionalProperties")), root)
    return key in properties and key not in node.get("required", ())


def coerce(value: Any, schema: Any, repairs: list[str], root: Schema | None = None) -> Any:
    """Return `value` with what can be fitted to `schema` without loss; the rest is left as it came."""
    root = (cast("Schema", schema) if isinstance(schema, Mapping) else {}) if root is None else root
    schema = resolved(schema, root)
    if not schema:
        return value
    branches = branches_of(schema)
    if branches is not None:
        return _coerce_branches(value, schema, branches, repairs, root)
    types = kinds_of(schema, root)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: coerce(item, property_schema(schema, key), repairs, root) for key, item in fields.items()}
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [coerce(item, item_schema(schema, index), repairs, root) for index, item in enumerate(items)]
    if is_of_kind(value, types):
        return value
    changed = _from_text(value, types) if isinstance(value, str) else _from_number(value, types)
    if changed is _NOTHING:
        return value
    repairs.append(f"{kind_of(value)} to {kind_of(changed)}")
    return coerce(changed, schema, repairs, root) if isinstance(changed, (dict, list)) else changed


def raw_value(text: str, schema: Any, root: Schema, repairs: list[str]) -> Any:
    """Return the value of raw text between tags: text where the schema allows text, else what `coerce` makes of it."""
    types = kinds_of(resolved(schema, root), root)
    if "string" in types:
        return None if "null" in types and types != ALL_KINDS and text.strip() == "null" else text
    return coerce(text.strip(), schema, repairs, root)


def _from_text(value: str, types: frozenset[str]) -> Any:
    text = value.strip()
    if "boolean" in types and text in _BOOLEANS:
        return _BOOLEANS[text]
    if "null" in types and text in _NULLS:
        return None
    if "integer" in types and _INTEGER.fullmatch(text) and len(text) < 400:
        return int(text.split(".")[0])
    if "number" in types and _NUMBER.fullmatch(text) and len(text) < 400:
        number = json.loads(text)
        return number if abs(number) != float("inf") else _NOTHING
    if text[:1] in ("{", "[", "｛", "［") and types & {"object", "array"}:
        for read in (lambda: read_json(text).value, lambda: read_literal(text)):
            parsed = _attempt(read)
            if parsed is not _NOTHING and is_of_kind(parsed, types):
                return parsed
    return _NOTHING


def _attempt(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except JSONReadError:
        return _NOTHING


def _from_number(value: Any, types: frozenset[str]) -> Any:
    if isinstance(value, float) and "integer" in types and value.is_integer() and abs(value) < _EXACT_FLOAT:
        return int(value)
    return _NOTHING


def _coerce_branches(value: Any, schema: Schema, branches: list[Any], repairs: list[str], root: Schema) -> Any:
    """Keep what fits some branch as it is; else take the coercion, if all branches that can coerce agree on one."""
    base = {key: item for key, item in schema.items() if key not in ("anyOf", "oneOf")}
    results: list[tuple[Any, list[str]]] = []
    for branch in branches:
        if not problems(value, branch, root):
            return coerce(value, base, repairs, root) if base.get("properties") else value
        notes: list[str] = []
        changed = coerce(value, branch, notes, root)
        if notes and not problems(changed, branch, root):
            results.append((changed, notes))
    if results and all(canonical(result) == canonical(results[0][0]) for result, _ in results):
        repairs.extend(results[0][1])
        return results[0][0]
    return value
