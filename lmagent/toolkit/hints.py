"""Type hints taken apart and put together again. Knows nothing of functions or JSON; loads nothing heavy."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ForwardRef, Literal, cast

import typing_extensions

__all__ = ["EMPTY", "annotated_text", "mapped", "marks_of", "modernised", "or_none", "unaliased", "without_qualifiers"]

EMPTY: Any = inspect.Parameter.empty
"""No hint, or no default."""
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly")
_ANNOTATED: Any = type(Annotated[int, ""])


def mapped(hint: Any, change: Callable[[Any], Any]) -> Any:
    """Return a hint with `change` applied to the types directly in it: `list[T]` becomes `list[change(T)]`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not arguments or origin is Literal:
        return hint
    if isinstance(hint, _ANNOTATED):
        return Annotated[(change(cast("Any", hint).__origin__), *marks_of(hint))]  # type: ignore[return-value]  # built at run time
    changed = tuple(change(argument) for argument in arguments)
    if changed == arguments:
        return hint
    if origin is types.UnionType:
        origin = typing.Union
    takes_one = str(origin).rpartition(".")[2] in _QUALIFIERS
    return cast("Any", origin)[changed[0] if takes_one else changed]


def unaliased(hint: Any) -> Any:
    """Return a hint with the values of `type` aliases in their places; a recursive alias stays what it is."""
    kinds = _alias_types()
    if isinstance(hint, kinds):
        return hint if _leads_back(hint.__value__, (hint,), kinds) else unaliased(hint.__value__)
    return mapped(hint, unaliased) if _holds(hint, kinds) else hint


def _holds(hint: Any, kinds: tuple[Any, ...]) -> bool:
    return any(isinstance(inner, kinds) or _holds(inner, kinds) for inner in getattr(hint, "__args__", ()))


def _leads_back(hint: Any, above: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    """Return whether a hint holds one of the aliases above it, or a text that may name one."""
    if isinstance(hint, str | ForwardRef) or any(hint is alias for alias in above):
        return True
    if isinstance(hint, kinds):
        return _leads_back(hint.__value__, (*above, hint), kinds)
    inside = () if typing.get_origin(hint) is Literal else typing.get_args(hint)
    return any(_leads_back(inner, above, kinds) for inner in inside)


def _alias_types() -> tuple[Any, ...]:
    modules = (typing, sys.modules.get("typing_extensions"))
    return tuple(kind for module in modules if (kind := getattr(module, "TypeAliasType", None)))


def or_none(hint: Any) -> Any:
    """Return the hint that a default of None means: `x: int = None` takes null."""
    if hint is EMPTY or hint is Any or hint is object:
        return hint
    if isinstance(hint, _ANNOTATED):  # its marks stay outermost, where they are looked for
        return Annotated[(or_none(hint.__origin__), *hint.__metadata__)]  # type: ignore[return-value]  # built at run time
    try:
        return typing.Optional[hint]  # noqa: UP045  # `hint | None` fails for text hints and for classes with an own `|`
    except TypeError:  # no hint at all; describing it says so
        return hint


def without_qualifiers(hint: Any, required: bool) -> tuple[Any, bool]:
    """Take `Required`, `NotRequired` and `ReadOnly` off the hint of a TypedDict key."""
    while (word := str(typing.get_origin(hint)).rpartition(".")[2]) in _QUALIFIERS:
        required = {"Required": True, "NotRequired": False}.get(word, required)
        (hint,) = typing.get_args(hint)
    return hint, required


def marks_of(hint: Any) -> tuple[Any, ...]:
    """Return what stands beside the type in `Annotated`. (Asking any other hint for an attribute costs 1 us.)"""
    return hint.__metadata__ if isinstance(hint, _ANNOTATED) else ()


def annotated_text(marks: Iterable[Any]) -> str:
    """Return the text of `Annotated[T, "text"]` or `Annotated[T, Doc("text")]`, else nothing."""
    for mark in marks:
        if isinstance(mark, str):
            return mark
        extensions = sys.modules.get("typing_extensions")
        if extensions and isinstance(mark, extensions.Doc):
            return str(mark.documentation)
    return ""


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
