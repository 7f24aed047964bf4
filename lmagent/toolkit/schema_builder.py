"""From a `Signature` to the neutral JSON Schema: plain hints by table, everything else by pydantic.

Also makes the pydantic adapter that validates a call, when it is first needed.

Over 400 lines because the table and pydantic must give the same schema for the same hint (a test compares them).
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from lmagent.errors import FunctionDefinitionError
from lmagent.toolkit.docstring import Docstring, parse_docstring
from lmagent.toolkit.schema import tidy
from lmagent.toolkit.signature import (
    EMPTY,
    OMITTED,
    Argument,
    Signature,
    annotated_text,
    mapped,
    marks_of,
    without_qualifiers,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Description", "clean_name", "describe", "make_adapter"]

_KINDS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_FORMATS: dict[Any, str] = {
    datetime.datetime: "date-time",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "duration",
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_SELF: Any = getattr(typing, "Self")  # noqa: B009  # no type outside a class, says the type checker


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a model is told of a callable."""

    description: str
    parameters: dict[str, Any]
    keys: dict[str, str]
    """Property name -> argument name, where an alias makes them differ."""
    adapter: TypeAdapter[Any] | None
    """Already made, if the schema needed it."""


def clean_name(original: str) -> str:
    """Return a name every provider takes: `[a-zA-Z0-9_-]{1,64}`, with a hash where cleaning loses information."""
    if _NAME.match(original):
        return original
    digest = hashlib.sha1(original.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]
    kept = re.sub(r"[^a-zA-Z0-9_-]+", "_", original).strip("_")[:55]
    return f"{kept or 'tool'}_{digest}"


def describe(signature: Signature, *, description: str | None = None) -> Description:
    """Return description and parameters schema of a callable.

    Raises:
        FunctionDefinitionError: A required parameter has a type that JSON cannot describe.
    """
    documentation = parse_docstring(signature.documentation)
    shown = documentation.description if description is None else description
    if signature.model is not None:
        return _describe_model(signature, shown if description is not None else documentation.summary)
    tried = {a.name: _plain(a.hint) for a in signature.arguments if a.visible}
    plain = {name: schema for name, schema in tried.items() if schema is not None}
    extra = _plain(signature.extra.hint) if signature.extra else False
    rich = [a for a in signature.arguments if a.visible and a.name not in plain]
    schema: dict[str, Any] = {}
    adapter: TypeAdapter[Any] | None = None
    if rich or extra is None:
        # Only what needs pydantic goes through its schema generator, which costs far more than the table.
        adapter, schema = _pydantic_schema(signature, rich)
        adapter = None if plain else adapter
        extra = schema.get("additionalProperties") if extra is None else extra
    rest = iter(schema.get("properties", {}).values())
    arguments = [a for a in signature.arguments if a.visible]
    keys = {a.name: _key(a) for a in arguments}
    if len(set(keys.values())) < len(keys):
        raise FunctionDefinitionError(f"{signature.name}: two parameters have one alias ({', '.join(keys.values())})")
    properties = {
        keys[a.name]: _finished(plain[a.name] if a.name in plain else next(rest), a, documentation) for a in arguments
    }
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required := [keys[a.name] for a in arguments if a.required]:
        parameters["required"] = required
    parameters["additionalProperties"] = True if extra == {} else extra
    if "$defs" in schema:
        parameters["$defs"] = schema["$defs"]
    return Description(
        description=shown,
        parameters=tidy(parameters) if rich or schema else parameters,
        keys={key: name for name, key in keys.items() if key != name},
        adapter=adapter,
    )


def _finished(schema: dict[str, Any], argument: Argument, documentation: Docstring) -> dict[str, Any]:
    """Add text and default to a property's schema."""
    text = _field_text(argument.hint) or argument.text or documentation.parameters.get(argument.name, "")
    schema = dict(schema)
    if text:
        schema["description"] = text
    value = _as_json(argument.default)
    if value is not OMITTED:
        schema["default"] = value
    return schema


def _as_json(value: Any) -> Any:
    """Return a default as JSON, or OMITTED when JSON cannot carry it."""
    if value is EMPTY or value is OMITTED:
        return OMITTED
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else OMITTED
    if type(value) in (list, dict) and not value:
        return copy(value)
    from pydantic import SecretBytes, SecretStr
    from pydantic_core import to_jsonable_python

    if isinstance(value, SecretStr | SecretBytes):
        return OMITTED
    try:
        return json.loads(json.dumps(to_jsonable_python(value), allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        return OMITTED


def _key(argument: Argument) -> str:
    """Return the property's name: the alias of its `Field`, else the parameter's name."""
    return next((alias for mark in reversed(marks_of(argument.hint)) if (alias := _alias(mark))), argument.name)


def _alias(field_info: Any) -> str:
    for attribute in ("validation_alias", "alias"):
        alias = getattr(field_info, attribute, None)
        choices = getattr(alias, "choices", None)
        alias = choices[0] if choices else alias
        if isinstance(alias, str):
            return alias
    return ""


def _field_text(hint: Any) -> str:
    texts = [getattr(mark, "description", None) for mark in marks_of(hint)]
    return next((text for text in reversed(texts) if isinstance(text, str)), "")


# Plain hints


def _plain(hint: Any) -> dict[str, Any] | None:
    """Return the schema of a hint made of scalars, Any, Literal, unions, lists and dicts; None for any other."""
    if hint is EMPTY or hint is Any or hint is object:
        return {}
    if isinstance(hint, type):
        if hint in _KINDS:
            return {"type": _KINDS[hint]}
        if hint in _FORMATS:
            return {"type": "string", "format": _FORMATS[hint]}
        if hint is list:
            return {"type": "array", "items": {}}
        if hint is dict:
            return {"type": "object", "additionalProperties": True}
    if hint is None:
        return {"type": "null"}
    origin = typing.get_origin(hint)
    maker = _PLAIN_GENERICS.get(origin)
    return maker(hint) if maker else None


def _plain_literal(hint: Any) -> dict[str, Any] | None:
    values = typing.get_args(hint)
    kinds = {_KINDS.get(cast("Any", type(value))) for value in values}
    if None in kinds:
        return None
    schema: dict[str, Any] = {"const": values[0]} if len(values) == 1 else {"enum": list(values)}
    return {**schema, "type": kinds.pop()} if len(kinds) == 1 else schema


def _plain_union(hint: Any) -> dict[str, Any] | None:
    choices = typing.get_args(hint)
    schemas = [_plain(choice) for choice in choices if choice is not type(None)]
    if None in schemas or any("anyOf" in schema for schema in schemas if schema):
        return None
    if type(None) in choices:
        schemas.append({"type": "null"})
    if any(schema in schemas[:place] for place, schema in enumerate(schemas)):
        return None
    return {"anyOf": schemas} if len(schemas) > 1 else schemas[0]


def _plain_list(hint: Any) -> dict[str, Any] | None:
    arguments = typing.get_args(hint)
    items = _plain(arguments[0]) if arguments else {}
    return None if items is None else {"type": "array", "items": items}


def _plain_set(hint: Any) -> dict[str, Any] | None:
    schema = _plain_list(hint)
    return None if schema is None else {**schema, "uniqueItems": True}


def _plain_dict(hint: Any) -> dict[str, Any] | None:
    key, value = typing.get_args(hint) or (str, Any)
    values = _plain(value)
    if key is not str or values is None:
        return None
    return {"type": "object", "additionalProperties": values or True}


def _plain_annotated(hint: Any) -> dict[str, Any] | None:
    return _plain(hint.__origin__) if all(isinstance(mark, str) for mark in hint.__metadata__) else None


_PLAIN_GENERICS: dict[Any, Callable[[Any], dict[str, Any] | None]] = {
    Literal: _plain_literal,
    typing.Union: _plain_union,
    types.UnionType: _plain_union,
    list: _plain_list,
    Sequence: _plain_list,
    Iterable: _plain_list,
    set: _plain_set,
    frozenset: _plain_set,
    dict: _plain_dict,
    Mapping: _plain_dict,
    Annotated: _plain_annotated,
}


# Everything else


def make_adapter(signature: Signature, arguments: list[Argument] | None = None) -> TypeAdapter[Any]:
    """Return the adapter that validates an argument object into Python values by argument name.

    Args:
        signature: Of the callable.
        arguments: Only these of its arguments, and the free keywords. Hidden ones are left out.
    """
    from typing import NotRequired

    hints: dict[str, Any] = {}
    for argument in signature.arguments if arguments is None else arguments:
        if argument.visible:
            hint = _checkable(argument.hint)
            hints[argument.name] = hint if argument.required else NotRequired[hint]
    return _adapter(signature.module, hints, _checkable(signature.extra.hint) if signature.extra else OMITTED)


def _describe_model(signature: Signature, description: str) -> Description:
    from pydantic import TypeAdapter

    adapter = cast("TypeAdapter[Any]", TypeAdapter(cast("type[Any]", signature.model)))
    schema = _schema_of(adapter)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = {**schema["$defs"][name], "$defs": schema["$defs"]}
    schema.pop("description", None)
    closed: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    schema = {**closed, **schema}
    return Description(description=description, parameters=tidy(schema), keys={}, adapter=adapter)


def _pydantic_schema(signature: Signature, arguments: list[Argument]) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Build adapter and schema of some arguments; hide optional ones JSON cannot describe, refuse required ones."""
    suspects = [*arguments, signature.extra] if signature.extra else arguments
    if not any(_is_indescribable(a.hint) for a in suspects):
        try:
            return _described_by(make_adapter(signature, arguments))
        except Exception:  # noqa: S110  # whoever it is will be found below; types bring hooks that raise anything
            pass
    for argument in suspects:
        cause = _problem(signature, argument)
        if cause is not None and argument.required:
            raise FunctionDefinitionError(
                f"{signature.name}: parameter {argument.name!r}: {argument.hint!r} cannot be described as JSON"
                f"{_why(cause)}"
            ) from cause
        argument.hidden = cause is not None
    signature.reserved |= {a.name for a in arguments if a.hidden}
    if signature.extra and signature.extra.hidden:
        signature.extra = None
    try:
        return _described_by(make_adapter(signature, arguments))
    except Exception as error:
        raise FunctionDefinitionError(
            f"{signature.name}: cannot be described as JSON ({_first_line(error)})"
        ) from error


def _described_by(adapter: TypeAdapter[Any]) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    return adapter, _schema_of(adapter)


def _problem(signature: Signature, argument: Argument) -> Exception | None:
    """Return why an argument cannot be described, if so."""
    if argument.hint is EMPTY:
        return None
    if _is_indescribable(argument.hint):
        return TypeError("no JSON type")
    try:
        _schema_of(_adapter(signature.module, {argument.name: _checkable(argument.hint)}))
    except Exception as error:  # as above
        return error
    return None


def _why(cause: Exception) -> str:
    """Return what the author of a type says, such as which package to install; pydantic's own words say no more."""
    from pydantic.errors import PydanticErrorMixin

    return "" if isinstance(cause, PydanticErrorMixin | TypeError) else f" ({_first_line(cause)})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _is_indescribable(hint: Any) -> bool:
    """Return whether a hint holds what pydantic describes all the same: `complex` as text, classes as anything."""
    is_class = hint is type or typing.get_origin(hint) is type
    return is_class or hint is complex or hint is _SELF or any(map(_is_indescribable, typing.get_args(hint)))


def _adapter(module: str, hints: dict[str, Any], extra: Any = OMITTED) -> TypeAdapter[Any]:
    """Return the adapter of one dynamic TypedDict, which any parameter name fits; `extra` is for free keywords."""
    from pydantic import PydanticUserError

    try:
        return _typed_dict_adapter(module, hints, extra)
    except PydanticUserError as error:
        if error.code != "typed-dict-version":
            raise
        # Before Python 3.12 pydantic takes typing_extensions' TypedDict only; users write typing's.
        from lmagent.toolkit.signature import modernised

        return _typed_dict_adapter(module, {name: modernised(h) for name, h in hints.items()}, modernised(extra))


def _typed_dict_adapter(module: str, hints: dict[str, Any], extra: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic_core import SchemaError
    from typing_extensions import TypedDict

    # allow_inf_nan: JSON has neither, and 1e999 must not become infinity.
    config = ConfigDict(allow_inf_nan=False)
    keywords: dict[str, Any] = {}
    if extra is OMITTED:
        config["extra"] = "forbid"
    else:
        keywords["extra_items"] = extra
    make: Any = TypedDict
    arguments = make("Arguments", hints, **keywords)
    arguments.__pydantic_config__ = config
    arguments.__module__ = module
    arguments.__is_root__ = True
    try:
        return TypeAdapter(arguments)
    except SchemaError:  # pydantic's own regular expressions know no look-around
        config["regex_engine"] = "python-re"
        return TypeAdapter(arguments)


def _checkable(hint: Any) -> Any:
    """Return a hint that pydantic checks fully before the body runs: no `Iterable`, and enums with values from JSON."""
    if hint is EMPTY:
        return Any
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_from_json(hint)
    if (typing.get_origin(hint) or hint) is Iterable:
        items = typing.get_args(hint)
        return Sequence[_checkable(items[0])] if items else Sequence
    return mapped(hint, _checkable)


def _enum_from_json(kind: type[enum.Enum]) -> Any:
    """Return the enum; one with values that JSON cannot carry, such as tuples, is found by their JSON form."""
    values: dict[enum.Enum, Any] = {member: member.value for member in kind}
    members = {json.dumps(_as_json(v)): m for m, v in values.items() if isinstance(v, tuple | list | dict | frozenset)}
    if not members:
        return kind
    from pydantic import BeforeValidator

    return Annotated[kind, BeforeValidator(lambda value: members.get(_json_of(value), value))]


def _json_of(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return ""


def _schema_of(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    return adapter.json_schema(schema_generator=_generator())


@cache
def _generator() -> Any:
    """Return the JSON-schema generator class: pydantic's, with texts of nested classes and without warnings."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def emit_warning(self, kind: Any, detail: str) -> None:
            if kind == "skipped-choice":
                raise TypeError(detail)

        def sort(self, value: Any, parent_key: str | None = None) -> Any:
            return value  # the order of making is as stable, and free

        def enum_schema(self, schema: Any) -> dict[str, Any]:
            made = super().enum_schema(schema)
            return _flags(made, schema["cls"]) if issubclass(schema["cls"], enum.Flag) else made

        def model_schema(self, schema: Any) -> dict[str, Any]:
            return _described(super().model_schema(schema), schema["cls"])

        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            return _described(super().dataclass_schema(schema), schema["cls"])

        def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
            return _described(super().typed_dict_schema(schema), schema.get("cls"))

    return Generator


def _flags(schema: dict[str, Any], cls: type[enum.Flag]) -> dict[str, Any]:
    """Return the schema of a combination of flags: any sum of their values."""
    kept = {key: value for key, value in schema.items() if key not in ("enum", "const", "type")}
    values: dict[str, int] = {name: member.value for name, member in cls.__members__.items()}
    highest = 0
    for value in values.values():
        highest |= value
    listed = "Sum of: " + ", ".join(f"{value} ({name})" for name, value in values.items())
    text = "\n\n".join(part for part in (schema.get("description"), listed) if part)
    return {**kept, "type": "integer", "minimum": 0, "maximum": highest, "description": text}


def _described(schema: dict[str, Any], cls: Any) -> dict[str, Any]:
    """Give the fields of a class the texts of its `Annotated` hints and of its docstring."""
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    if cls is None or not properties or "__is_root__" in vars(cls):
        return schema
    text = cls.__dict__.get("__doc__") or ""
    documentation = parse_docstring(text) if text and not text.startswith(f"{cls.__name__}(") else Docstring()
    if documentation.has_sections and "description" in schema:
        schema["description"] = documentation.summary
        if not documentation.summary:
            del schema["description"]
    fields: dict[str, Any] = getattr(cls, "__pydantic_fields__", {})
    names = {_alias(info) or name: name for name, info in fields.items()}
    marks = {name: info.metadata for name, info in fields.items()} or _marks_of_fields(cls)
    for key, schema_ in properties.items():
        name = names.get(key, key)
        found = annotated_text(marks.get(name, ())) or documentation.parameters.get(name)
        if found and "description" not in schema_:
            schema_["description"] = found
    return schema


def _marks_of_fields(cls: Any) -> dict[str, tuple[Any, ...]]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception:  # text hints of a local class; pydantic has resolved them in its own way
        return {}
    return {name: marks_of(without_qualifiers(hint, True)[0]) for name, hint in hints.items()}
