"""`typing.TypedDict` classes rebuilt as `typing_extensions.TypedDict`: pydantic asks for these before Python 3.12."""

from __future__ import annotations

import sys
import typing
from typing import Any

import typing_extensions

from lmagent.describing.hints import mapped

__all__ = ["modernised"]


def modernised(hint: Any, seen: dict[Any, Any] | None = None) -> Any:
    """Return `hint` with every TypedDict of `typing` in it replaced."""
    seen = {} if seen is None else seen
    if typing_extensions.is_typeddict(hint):
        return _rebuilt(hint, seen)
    return mapped(hint, lambda inner: modernised(inner, seen))


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
