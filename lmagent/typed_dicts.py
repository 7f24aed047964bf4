"""`typing.TypedDict` classes rebuilt as `typing_extensions.TypedDict`: pydantic asks for these before Python 3.12."""

from __future__ import annotations

import sys
import types
import typing
from typing import Annotated, Any

import typing_extensions

__all__ = ["modernised"]


def modernised(hint: Any, seen: dict[Any, Any] | None = None) -> Any:
    """Return `hint` with every TypedDict of `typing` in it replaced."""
    seen = {} if seen is None else seen
    if typing_extensions.is_typeddict(hint):
        return _rebuilt(hint, seen)
    arguments = typing.get_args(hint)
    if not arguments or typing.get_origin(hint) is typing.Literal:
        return hint
    if typing.get_origin(hint) is Annotated:
        return Annotated[(modernised(hint.__origin__, seen), *hint.__metadata__)]  # type: ignore[return-value]  # built at run time
    changed = tuple(modernised(argument, seen) for argument in arguments)
    if changed == arguments:
        return hint
    origin: Any = typing.get_origin(hint)
    if origin is types.UnionType:
        origin = typing.Union
    word = str(origin).rpartition(".")[2]
    if word in ("Required", "NotRequired", "ReadOnly"):
        return origin[changed[0]]
    return origin[changed]


def _rebuilt(old: Any, seen: dict[Any, Any]) -> Any:
    if old in seen:
        return seen[old]
    make: Any = typing_extensions.TypedDict
    new: Any = make(old.__name__, {})
    seen[old] = new
    module = vars(sys.modules.get(old.__module__))
    hints = typing.get_type_hints(old, module, {old.__name__: old}, include_extras=True)  # a local one may name itself
    new.__annotations__ = {name: modernised(hint, seen) for name, hint in hints.items()}
    new.__required_keys__ = old.__required_keys__
    new.__optional_keys__ = old.__optional_keys__
    new.__total__ = old.__total__
    new.__module__ = old.__module__
    new.__qualname__ = old.__qualname__
    new.__doc__ = old.__doc__
    if hasattr(old, "__pydantic_config__"):
        new.__pydantic_config__ = old.__pydantic_config__
    return new
