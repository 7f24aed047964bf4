"""The arguments of one call: from the JSON text a model wrote to the values a Python function receives.

The common case is one pass of pydantic-core over the text. Second chances, repairs and error lines cost time only
where that failed. Knows nothing of tools, registries or providers.

Over 400 lines because the quick path, the careful one, their error lines and given schemas share limits and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pydantic_core import ValidationError

from lmagent.core.json_text import JSONError, dumps, dumps_text, loads, may_overflow
from lmagent.errors import InvalidArguments
from lmagent.toolkit.context import failure_text
from lmagent.toolkit.schema import inner_schemas, mapped_schema, problems
from lmagent.toolkit.signature import OMITTED, Argument, Signature

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from lmagent.toolkit.repair import SecondChances

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "ArgumentReader",
    "Binder",
    "BoundArguments",
    "SchemaReader",
    "invalid_arguments",
    "read_object",
    "read_or_repair",
    "shown_name",
    "shown_value",
]

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
_SURELY_SHORT = MAX_BYTES // 4
"""Characters; so many are within the limit in any script."""
_MAX_ROUNDS = 8
_MAX_SHOWN = 80
_MAX_PROBLEMS = 50

_Path: TypeAlias = tuple[str | int, ...]

_CONTAINER_EXPECTED = frozenset(
    (
        "dict_type",
        "list_type",
        "tuple_type",
        "set_type",
        "frozen_set_type",
        "mapping_type",
        "iterable_type",
        "model_type",
        "model_attributes_type",
        "dataclass_type",
        "dataclass_exact_type",
        "arguments_type",
        "named_tuple_type",
    )
)
_AUTHORS_WORDS = ("value_error", "assertion_error")
_TELLING = frozenset(("type", "enum", "const", "anyOf", "oneOf"))
_INSIDE = {"object": ("additionalProperties",), "array": ("items", "prefixItems")}
"""What must say of a container what it holds."""
_MEMBER_EXPECTED = ("literal_error", "enum")
_NUMBER_EXPECTED = ("int_type", "float_type")
_UNCHECKED = frozenset(("pattern", "patternProperties", "uniqueItems", "multipleOf", "minProperties", "maxProperties"))


@dataclass(slots=True)  # not frozen: that triples the cost of making one, and every call makes one
class BoundArguments:
    """Validated arguments, ready to run; made by `Tool.validate`."""

    values: dict[str, Any]
    """Python name -> value. Injected parameters are not among them."""
    repairs: tuple[str, ...] = ()
    """What was repaired in the text; `lmagent.toolkit.repair.REPAIRS` says what each name means."""
    instance: Any = OMITTED
    """Of a pydantic model used as a tool: the model itself."""


def invalid_arguments(name: str, problems: list[str]) -> InvalidArguments:
    """Return the error that goes back to the model, with the first problems if there are very many."""
    if len(problems) > _MAX_PROBLEMS:
        problems = [*problems[:_MAX_PROBLEMS], f"and {len(problems) - _MAX_PROBLEMS} more problems"]
    return InvalidArguments("\n".join([f"{name}: invalid arguments", *problems]), problems=problems)


def read_object(text: str, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read an argument object within the limits; blank text is an empty one. Gives the names of repairs, too.

    Raises:
        JSONError: Not JSON within the limits, or not an object.
    """
    data: Any = {}
    if text.strip("\ufeff \t\r\n"):
        try:
            data = loads(text, max_bytes=max_bytes, max_depth=MAX_DEPTH)
        except JSONError as error:
            raise JSONError(f"Input should be valid JSON: {error}") from error
        if duplicate := _duplicate_key(text):
            raise JSONError(f"Input should have each key once: got {duplicate}")
    if isinstance(data, dict):
        return cast("dict[str, Any]", data), ()
    if isinstance(data, str):
        from lmagent.toolkit.repair import json_container  # most programs never need the repairs

        inner = json_container(data)
        if isinstance(inner, dict):
            return cast("dict[str, Any]", inner), ("encoded as a string",)
    raise JSONError(f"Input should be an object (got {shown_value(data)})")


def _duplicate_key(text: str) -> str:
    from lmagent.toolkit.loose_json import duplicate_key  # flat arguments without colons in texts do not need it

    return duplicate_key(text)


Attempt: TypeAlias = Callable[[str], tuple[list[str], BoundArguments | None]]


def read_or_repair(
    attempt: Attempt, name: str, text: str, schema: Mapping[str, Any] | None, max_bytes: int
) -> BoundArguments:
    """Return what `attempt` makes of the text, or of the repaired text if that fails.

    Args:
        attempt: Gives problems or values.
        name: The tool's name, for the error.
        text: As the model wrote it.
        schema: For the repairs; None: nothing is repaired.
        max_bytes: Longer text is not repaired.

    Raises:
        InvalidArguments: With every problem, one a line.
    """
    problems, bound = attempt(text)
    if bound is None and schema is not None and len(text) <= max_bytes:
        from lmagent.toolkit.repair import repair_arguments  # as in `read_object`

        repaired, names = repair_arguments(text, schema)
        if repaired is not None:
            problems, bound = attempt(repaired)
            if bound is not None:
                bound.repairs = tuple(dict.fromkeys((*names, *bound.repairs)))
    if bound is None:
        raise invalid_arguments(name, problems)
    return bound


class ArgumentReader:
    """Reads the arguments of one callable."""

    def __init__(
        self, signature: Signature, schema: Mapping[str, Any], keys: Mapping[str, str], adapter: TypeAdapter[Any]
    ) -> None:
        self._schema = schema
        self._validate: Callable[..., Any] = cast("Any", adapter).validator.validate_json
        self._is_model = signature.model is not None
        known = set(cast("Mapping[str, Any]", schema["properties"]))
        self._known = known | _other_names(signature.model) if schema.get("additionalProperties") is False else None
        self._hidden = signature.reserved | frozenset(keys.values()) if signature.extra else frozenset[str]()
        self._is_direct = not self._is_model and not self._hidden
        self._is_bounded = _is_bounded(schema)

    def read(self, name: str, text: str, repair: bool = False, max_bytes: int | None = None) -> BoundArguments:
        """Return the validated values.

        Args:
            name: The tool's name, for the error.
            text: As the model wrote it.
            repair: Whether text that fails strict reading and second chances is repaired (`lmagent.toolkit.repair`).
            max_bytes: Longer text is refused; 1 MiB if not given.

        Raises:
            InvalidArguments: With every problem, one a line.
        """
        limit = max_bytes or MAX_BYTES
        if (
            self._is_direct
            and len(text) <= (_SURELY_SHORT if limit == MAX_BYTES else limit // 4)
            and (self._is_bounded or _is_tame(text))
        ):
            try:
                values = self._validate(text, strict=True)
            except Exception:  # a validator of the user may raise anything; careful reading says what
                values = None
            # A key has a colon: as many colons as values mean that no key stands there twice.
            if values is not None and (text.count(":") <= len(values) or not _duplicate_key(text)):
                return BoundArguments(values)
        schema = self._schema if repair else None
        return read_or_repair(lambda text: self._attempt(name, text, limit), name, text, schema, limit)

    def _attempt(self, name: str, text: str, max_bytes: int) -> tuple[list[str], BoundArguments | None]:
        """Read and validate with second chances; give problems or values."""
        try:
            data, repairs = read_object(text, max_bytes)
        except JSONError as error:
            return [f"arguments: {error}"], None
        from lmagent.toolkit.repair import SecondChances  # as in `read_object`

        chances = SecondChances(data, self._schema)
        unknown = self._unknown(data)
        for _ in range(_MAX_ROUNDS):
            try:
                values, errors = self._checked(data)
            except JSONError as error:  # 1e999 is infinity once it is read
                return [f"arguments: {error}"], None
            except Exception as error:  # of a validator: no ValueError, but the values are to blame as far as we know
                raise invalid_arguments(name, [f"arguments: {failure_text(error, expose=True)[1]}"]) from error
            if errors and (_has_second_chance(errors, data, chances) or self._has_literal(errors, data, chances)):
                continue
            if errors or unknown:
                return [*_problem_lines(errors, data), *unknown], None
            repairs = (*repairs, *chances.names)
            return [], BoundArguments({}, repairs, values) if self._is_model else BoundArguments(values, repairs)
        return ["arguments: too many values need repair"], None

    def _has_literal(self, errors: list[Any], data: dict[str, Any], chances: SecondChances) -> bool:
        """Read "2" as 2 where only 2 is allowed; return whether anything changed."""
        keys = {item["loc"][0] for item in errors if item["type"] in _MEMBER_EXPECTED and item["loc"]}
        changed = [chances.fit(key) for key in keys if key in data]
        return any(changed)

    def _checked(self, data: dict[str, Any]) -> tuple[Any, list[Any]]:
        """Validate strictly, then with pydantic's conversions, save that no boolean becomes a number."""
        written = dumps(data)
        try:
            return self._validate(written, strict=True), []
        except ValidationError as error:
            booleans = [item for item in error.errors(include_url=False) if _is_boolean_for_number(item, data)]
        try:
            return self._validate(written), booleans
        except ValidationError as error:
            return None, [*booleans, *error.errors(include_url=False)]

    def _unknown(self, data: Mapping[str, Any]) -> list[str]:
        """Return lines for names that pydantic lets pass: injected ones, and extras of a model."""
        refused = [key for key in data if key in self._hidden]
        if self._is_model and self._known is not None:
            refused += [key for key in data if key not in self._known]
        return [f"{shown_name(key)}: Extra inputs are not permitted (got {shown_value(data[key])})" for key in refused]


def _is_bounded(schema: Any) -> bool:
    """Return whether types leave no room for deep nesting or a NaN: nothing is free, and no class reads for itself."""
    if schema is False:
        return True
    if not isinstance(schema, dict) or "$ref" in schema or _TELLING.isdisjoint(cast("dict[str, Any]", schema)):
        return False
    node = cast("dict[str, Any]", schema)
    needed = _INSIDE.get(str(node.get("type")), ())
    return all(map(_is_bounded, inner_schemas(node))) and (not needed or any(word in node for word in needed))


def _is_tame(text: str) -> bool:
    """Return whether a text surely keeps the limits: its brackets bound the depth from above."""
    return (
        text.count("[") + text.count("{") <= MAX_DEPTH
        and "NaN" not in text
        and "Infinity" not in text
        and not may_overflow(text)
    )


def _is_boolean_for_number(error: Mapping[str, Any], data: Any) -> bool:
    if not isinstance(error["input"], bool) or error["type"] not in _NUMBER_EXPECTED:
        return False
    # Where the name of a union's form stands within the location, another form may well want the boolean.
    place = _place(data, error["loc"], error["type"])
    return error["loc"][: len(place)] == place


def _other_names(model: type | None) -> set[str]:
    """Return the spellings a model takes beside the property names: field names and alias choices."""
    fields: Mapping[str, Any] = getattr(model, "__pydantic_fields__", {})
    names = set(fields)
    for info in fields.values():
        alias: Any = getattr(info, "validation_alias", None)
        names |= {choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str)}
        paths: list[Any] = [alias, *getattr(alias, "choices", ())]
        names |= {str(path.path[0]) for path in paths if getattr(path, "path", None)}
    return names


def _has_second_chance(errors: list[Any], data: dict[str, Any], chances: SecondChances) -> bool:
    """Repair every place that failed where a second chance applies; return whether anything changed."""
    kinds: dict[_Path, set[str]] = {}
    for item in errors:
        kinds.setdefault(_place(data, item["loc"], item["type"]), set()).add(item["type"])
    repaired = [
        chances.apply(path, wants_container=not found.isdisjoint(_CONTAINER_EXPECTED) and not _wants_text(found))
        for path, found in kinds.items()
    ]
    return any(repaired)


def _wants_text(kinds: set[str]) -> bool:
    return any(kind.startswith("string_") for kind in kinds)


def _place(data: Any, location: tuple[int | str, ...], kind: str) -> _Path:
    """Return where in the data an error is: pydantic's location without the tags of unions."""
    path: list[str | int] = []
    here = data
    for step, part in enumerate(location):
        is_last = step == len(location) - 1
        if (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(cast("list[Any]", here))
        ):
            here = cast("Any", here)[part]
            path.append(part)
        elif is_last and kind.startswith("missing"):
            path.append(part)
    return tuple(path)


def _at(data: Any, path: _Path) -> Any:
    for part in path:
        if isinstance(data, dict):
            data = cast("dict[Any, Any]", data).get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(cast("list[Any]", data)):
            data = cast("list[Any]", data)[part]
        else:
            return None
    return data


def _problem_lines(errors: list[Any], data: Any) -> list[str]:
    """Return one line a place: path, what was expected, what came."""
    places: dict[_Path, list[str]] = {}
    for item in errors:
        path = _place(data, item["loc"], item["type"])
        author = item.get("ctx", {}).get("error") if item["type"] in _AUTHORS_WORDS else None
        message = item["msg"] if author is None else str(author)
        messages = places.setdefault(path, [])
        if message not in messages:
            messages.append(message)
    lines: list[str] = []
    for path, messages in places.items():
        shown = ".".join(map(shown_name, path)) or "arguments"
        parent = _at(data, path[:-1])
        is_there = not path or isinstance(parent, list) or (isinstance(parent, dict) and path[-1] in parent)
        got = f" (got {shown_value(_at(data, path))})" if is_there else ""
        lines.append(f"{shown}: {' or '.join(messages)}{got}")
    return lines


def shown_value(value: Any) -> str:
    """Return a value as short JSON, for an error line."""
    return _shortened(dumps_text(value))


def shown_name(name: str | int) -> str:
    """Return a name that a model wrote, for an error line."""
    return _shortened(str(name))


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


class SchemaReader:
    """Reads arguments for a tool whose schema is given as it is; values stay plain JSON.

    Keywords that cost much or mean other things elsewhere (`pattern` is in another dialect of regular expressions) are
    not checked: the owner of the tool checks them anyway.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema: Mapping[str, Any] = _without_unchecked(schema)

    def read(self, name: str, text: str, repair: bool = False, max_bytes: int | None = None) -> BoundArguments:
        """Return the checked values; see `ArgumentReader.read`."""
        limit = max_bytes or MAX_BYTES
        schema = self._schema if repair else None
        return read_or_repair(lambda text: self._attempt(text, limit), name, text, schema, limit)

    def _attempt(self, text: str, max_bytes: int) -> tuple[list[str], BoundArguments | None]:
        try:
            data, repairs = read_object(text, max_bytes)
        except JSONError as error:
            return [f"arguments: {error}"], None
        wrong = problems(data, self._schema)
        if wrong and (names := self._second_chances(data)):
            repairs = (*repairs, *names)
            wrong = problems(data, self._schema)
        return (wrong, None) if wrong else ([], BoundArguments(data, repairs))

    def _second_chances(self, data: dict[str, Any]) -> tuple[str, ...]:
        """Repair top-level values that do not fit; return the names of the repairs."""
        from lmagent.toolkit.repair import SecondChances  # most programs never need the repairs

        chances = SecondChances(data, self._schema)
        properties: Mapping[str, Any] = self._schema.get("properties", {})
        for key in [key for key in data if key in properties]:
            if problems(data[key], properties[key], self._schema):
                chances.apply((key,), wants_container=True)
        return chances.names


def _without_unchecked(schema: Any) -> Any:
    copied = mapped_schema(schema, _without_unchecked)
    if isinstance(copied, dict):
        node = cast("dict[str, Any]", copied)
        for word in _UNCHECKED & node.keys():
            del node[word]
            if word == "patternProperties":
                node.pop("additionalProperties", None)
    return cast("Any", copied)


class Binder:
    """Turns validated values into the positional and keyword arguments of the call."""

    def __init__(self, signature: Signature) -> None:
        arguments = signature.arguments
        self._variadic = next((a.name for a in arguments if a.kind is Parameter.VAR_POSITIONAL), None)
        self._positional_only = [a for a in arguments if a.kind is Parameter.POSITIONAL_ONLY]
        leading = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        self._leading = [a for a in arguments if a.kind in leading]
        self._shared = [a for a in arguments if a.visible and isinstance(a.default, list | dict | set | bytearray)]
        self.is_plain = not (self._variadic or self._positional_only or self._shared)
        """The values are the keyword arguments as they are."""

    def bind(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return `args, kwargs`. `values` holds the injected ones, too."""
        keywords = dict(values)
        for argument in self._shared:
            if argument.name not in keywords:
                keywords[argument.name] = argument.fresh_default()
        rest: list[Any] = keywords.pop(self._variadic, None) or [] if self._variadic else []
        positional = self._leading if rest else self._positional_only
        given = len(positional)
        while not rest and given and positional[given - 1].name not in keywords:
            given -= 1
        return [*(_taken(keywords, a) for a in positional[:given]), *rest], keywords


def _taken(keywords: dict[str, Any], argument: Argument) -> Any:
    return keywords.pop(argument.name) if argument.name in keywords else argument.fresh_default()
