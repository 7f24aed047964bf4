"""What a callable asks for: its parameters with resolved type hints, its documentation and its name.

Takes every kind of callable: functions, lambdas, bound, class and static methods, partials, wrappers, instances,
classes. Decides which parameters a model may fill; knows nothing of JSON Schema and loads nothing heavy.

Over 400 lines because resolving hints, taking them apart and reading parameters need each other.
"""

from __future__ import annotations

import builtins
import copy
import dataclasses
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ForwardRef, Literal, cast

import typing_extensions

from lmagent.errors import FunctionDefinitionError
from lmagent.toolkit.context import Inject, RunContext

__all__ = [
    "EMPTY",
    "OMITTED",
    "Argument",
    "Signature",
    "annotated_text",
    "is_async_callable",
    "mapped",
    "marks_of",
    "modernised",
    "or_none",
    "read_signature",
    "unaliased",
    "wants_context",
    "without_qualifiers",
]

# Type hints

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


OMITTED: Any = type("Omitted", (), {})()
"""The default of an argument that may be left out and that Python or pydantic fills by itself."""

_Kind = inspect.Parameter
_PLAIN_NAMES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "None": None}
_RUN_CONTEXT_TEXT = re.compile(r"(?:\w+\.)*RunContext(?:\[.*\])?(?:\s*\|\s*None)?\Z")
_MUTABLE = (list, dict, set, bytearray)


@dataclasses.dataclass(slots=True, kw_only=True)
class Argument:
    """One parameter as the framework sees it."""

    name: str
    kind: Any = _Kind.KEYWORD_ONLY
    hint: Any = EMPTY
    """Resolved, `Annotated` kept; of `*args: T` it is `list[T]`."""
    default: Any = EMPTY
    required: bool = True
    text: str = ""
    """From `Annotated[T, "text"]` or `Doc`, else from the docstring. A `Field(description=...)` is in the hint."""
    inject: Inject | type[RunContext[Any]] | None = None
    """Set: the framework fills it. A class means the run context."""
    hidden: bool = False
    """Neither filled nor shown: its type cannot be described and its default stands."""

    @property
    def visible(self) -> bool:
        return self.inject is None and not self.hidden

    def fresh_default(self) -> Any:
        """Return the default; containers are copied, so that calls don't share them."""
        default: Any = self.default
        return copy.deepcopy(cast("Any", default)) if isinstance(default, _MUTABLE) else default


@dataclasses.dataclass(slots=True, kw_only=True)
class Signature:
    """All that is known of a callable before its schema is made."""

    name: str
    """As Python has it; not yet cleaned for providers."""
    documentation: str = ""
    arguments: list[Argument] = dataclasses.field(default_factory=list[Argument])
    extra: Argument | None = None
    """What `**kwargs: T` takes."""
    reserved: frozenset[str] = frozenset()
    """Names that a model must not use in `**kwargs`."""
    module: str = ""
    model: type | None = None
    """A pydantic model used as a tool: it describes and checks itself."""


def is_async_callable(target: Any) -> bool:
    """Return whether calling `target` gives a coroutine or an async generator."""
    while True:
        if isinstance(target, functools.partial):
            target = cast("Any", target).func
        elif isinstance(target, staticmethod | classmethod):
            target = cast("Any", target).__func__
        else:
            break
    if inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target):
        return True
    if isinstance(target, type) or inspect.isroutine(target):
        return False
    call = inspect.getattr_static(cast("Any", type(target)), "__call__", None)
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def read_signature(
    target: Any,
    *,
    scope: Mapping[str, Any] | None = None,
    owner: type | None = None,
    unbound: bool = False,
    name: str = "",
) -> Signature:
    """Read what `target` asks for.

    Args:
        target: Any callable.
        scope: Namespace of the frame where it was decorated, for hints that are text.
        owner: The class in whose body it stands.
        unbound: Whether it is a method whose first parameter is filled by binding.
        name: The tool's name in errors, if given.

    Raises:
        FunctionDefinitionError: It has no signature, or a hint cannot be resolved.
    """
    inner, owner = _unwrapped(target, owner)
    shown = name or _name(target, inner)
    documentation = _documentation(target, inner, owner)
    module = str(getattr(inner, "__module__", None) or type(inner).__module__)
    if isinstance(inner, type) and _is_pydantic_model(inner):
        return Signature(name=shown, documentation=documentation, module=module, model=inner)
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError) as error:
        raise FunctionDefinitionError(f"{shown}: has no signature that can be read ({error})") from error
    bound: set[str] = _partial_keywords(target)
    first = {parameters[0].name} if unbound and parameters else set[str]()
    reader = _HintReader(shown, inner, owner, scope)
    signature = Signature(name=shown, documentation=documentation, module=module)
    if _dispatches(target) and parameters and parameters[0].kind is _Kind.POSITIONAL_OR_KEYWORD:
        parameters[0] = parameters[0].replace(kind=_Kind.POSITIONAL_ONLY)  # its type chooses the body
    for parameter in parameters:
        if parameter.name not in bound | first:
            _add(signature, parameter, reader)
    taken = {a.name for a in signature.arguments if a.kind is not _Kind.VAR_POSITIONAL}
    visible = {a.name for a in signature.arguments if a.visible}
    signature.reserved = frozenset((taken - visible) | bound | first)
    if signature.extra:
        signature.reserved |= _filled_names(inner) - {p.name for p in parameters}
    return signature


def _dispatches(target: Any) -> bool:
    """Return whether it is a `functools.singledispatch` function, which looks at its positional arguments only."""
    return all(hasattr(target, name) for name in ("__wrapped__", "dispatch", "registry"))


def _filled_names(inner: Any) -> set[str]:
    """Return all parameter names of the body, `self` and those a partial has filled among them."""
    body = inspect.getattr_static(inner, "__init__") if isinstance(inner, type) else inner
    try:
        return set(inspect.signature(body).parameters)
    except (TypeError, ValueError):
        return set()


def _unwrapped(target: Any, owner: type | None) -> tuple[Any, type | None]:
    """Return the function, class or instance that holds hints and documentation."""
    while True:
        if isinstance(target, functools.partial):
            target = cast("Any", target).func
        elif isinstance(target, staticmethod | classmethod):
            target = cast("Any", target).__func__
        elif isinstance(target, types.MethodType):
            own: Any = target.__self__
            owner = own if isinstance(own, type) else type(own)
            target = target.__func__
        elif not isinstance(target, type) and hasattr(target, "__wrapped__"):
            target = target.__wrapped__
        elif not isinstance(target, type) and not inspect.isroutine(target):
            owner = cast("Any", type(target))
            call = inspect.getattr_static(owner, "__call__", None)
            return (inspect.unwrap(call) if inspect.isfunction(call) else target), owner
        else:
            return target, owner


def _name(target: Any, inner: Any) -> str:
    while isinstance(target, functools.partial):
        target = cast("Any", target).func
    if not isinstance(target, type) and not inspect.isroutine(target) and not hasattr(target, "__wrapped__"):
        return type(target).__name__
    return str(getattr(inner, "__name__", None) or type(inner).__name__)


def _documentation(target: Any, inner: Any, owner: type | None) -> str:
    while isinstance(target, functools.partial):
        target = cast("Any", target).func
    if isinstance(inner, type):
        return _class_documentation(cast("type[Any]", inner))
    text = getattr(inner, "__doc__", None) or _inherited_documentation(inner, owner)
    if text or inspect.isroutine(target) or isinstance(target, type):
        return text
    return _class_documentation(cast("type[Any]", type(target)))


def _class_documentation(cls: type[Any]) -> str:
    """Return a class's own text, else that of its `__init__`; not one that a decorator made of the signature."""
    text, init = vars(cls).get("__doc__") or "", vars(cls).get("__init__")
    if text and not text.startswith(f"{cls.__name__}("):
        return text
    return (init and init.__doc__) or ""


def _inherited_documentation(inner: Any, owner: type | None) -> str:
    """Return what a base class says of a method; `inspect.getdoc` looks neither behind tools nor into local classes."""
    name = getattr(inner, "__name__", "")
    for base in owner.__mro__[1:-1] if owner is not None else ():
        if name in vars(base) and vars(base)[name].__doc__:
            return str(vars(base)[name].__doc__)
    return ""


def _is_pydantic_model(cls: type) -> bool:
    if "__pydantic_core_schema__" not in dir(cls):
        return False
    from pydantic import BaseModel
    from pydantic.dataclasses import is_pydantic_dataclass

    return issubclass(cls, BaseModel) or is_pydantic_dataclass(cast("Any", cls))


def _partial_keywords(target: Any) -> set[str]:
    keywords = set[str]()
    while isinstance(target, functools.partial):
        keywords.update(cast("Any", target).keywords)
        target = cast("Any", target).func
    return keywords


def _add(signature: Signature, parameter: inspect.Parameter, reader: _HintReader) -> None:
    hint, inject = reader.read(parameter)
    name, kind, default = parameter.name, parameter.kind, parameter.default
    if kind is _Kind.VAR_KEYWORD:
        _add_keywords(signature, name, hint, reader)
        return
    required = default is EMPTY
    if kind is _Kind.VAR_POSITIONAL:
        text = annotated_text(marks_of(hint))
        hint, required = _items_hint(hint)
        default = EMPTY if required else OMITTED
        signature.arguments.append(
            Argument(name=name, kind=kind, hint=hint, default=default, required=required, text=text)
        )
        return
    if dataclasses.is_dataclass(reader.function) and reader.has_factory(name):
        default = OMITTED
    field_info = _field_info_type()
    if field_info is not None and isinstance(default, field_info):
        hint = Annotated[Any if hint is EMPTY else hint, default]
        required = bool(default.is_required())
        default = EMPTY if required else OMITTED
    elif required and field_info is not None:
        marks: list[Any] = [mark for mark in marks_of(hint) if isinstance(mark, field_info)]
        if any(not mark.is_required() for mark in marks):
            required, default = False, OMITTED
    if default is None and inject is None:
        hint = or_none(hint)
    signature.arguments.append(
        Argument(
            name=name,
            kind=kind,
            hint=hint,
            default=default,
            required=required,
            text=annotated_text(marks_of(hint)),
            inject=inject,
        )
    )


def _items_hint(hint: Any) -> tuple[Any, bool]:
    """Return the type of what `*args: hint` takes, as a list or a tuple, and whether it must be given."""
    if hint is EMPTY:
        return list[Any], False
    if typing.get_origin(hint) in _unpacks():  # *args: Unpack[tuple[int, str]]
        (hint,) = typing.get_args(hint)
    elif not getattr(hint, "__unpacked__", False):
        return list[hint], False
    items = typing.get_args(hint)
    if len(items) == 2 and items[1] is ...:
        return list[items[0]], False
    return tuple[items], bool(items)


def _add_keywords(signature: Signature, name: str, hint: Any, reader: _HintReader) -> None:
    if typing.get_origin(hint) not in _unpacks():
        signature.extra = Argument(name=name, kind=_Kind.VAR_KEYWORD, hint=hint, required=False)
        return
    (keys,) = typing.get_args(hint)
    hints = reader.class_hints(typing.get_origin(keys) or keys)
    for key, key_hint in hints.items():
        bare, required = without_qualifiers(key_hint, key in keys.__required_keys__)
        default = EMPTY if required else OMITTED
        signature.arguments.append(
            Argument(name=key, hint=bare, default=default, required=required, text=annotated_text(marks_of(bare)))
        )


def _unpacks() -> tuple[Any, ...]:
    extensions = sys.modules.get("typing_extensions")
    return (typing.Unpack, extensions.Unpack) if extensions else (typing.Unpack,)


def _field_info_type() -> type | None:
    # Without pydantic imported nobody can have made a Field.
    module = sys.modules.get("pydantic.fields")
    return module.FieldInfo if module else None


class _HintReader:
    """Resolves the hints of one callable, one at a time, so that a hint nobody needs cannot fail."""

    def __init__(self, name: str, function: Any, owner: type | None, scope: Mapping[str, Any] | None) -> None:
        self._name = name
        self.function = function
        self._owner = owner
        self._scope = scope
        self._names: tuple[dict[str, Any], dict[str, Any]] | None = None

    def read(self, parameter: inspect.Parameter) -> tuple[Any, Inject | type[RunContext[Any]] | None]:
        """Return the hint of a parameter and who injects it."""
        hint = parameter.annotation
        if isinstance(hint, type):  # EMPTY is one, too
            return hint, _injection(hint)
        try:
            hint = self._resolved(parameter.name, hint)
        except Exception as error:  # a hint is the user's code and may raise anything
            if isinstance(hint, str) and _RUN_CONTEXT_TEXT.match(hint):
                return hint, RunContext  # imported for type checkers only
            raise FunctionDefinitionError(
                f"{self._name}: parameter {parameter.name!r}: hint {_hint_text(hint)!r} cannot be resolved ({error})"
            ) from error
        if isinstance(hint, dataclasses.InitVar):
            hint = cast("Any", hint).type
        if not isinstance(hint, type):
            hint = unaliased(hint)
        return hint, _injection(hint)

    def _resolved(self, name: str, hint: Any) -> Any:
        namespaces = self._namespaces(name)
        if isinstance(hint, str) and hint.isidentifier():
            for namespace in reversed(namespaces):
                if hint in namespace:
                    found = namespace[hint]
                    return type(None) if found is None else found
            if hint in _PLAIN_NAMES:
                return _PLAIN_NAMES[hint]
        holder = types.SimpleNamespace(__annotations__={name: hint})
        return typing.get_type_hints(holder, namespaces[0], namespaces[1], include_extras=True)[name]

    def _namespaces(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        if isinstance(self.function, type):  # a dataclass field may come from a base class in another module
            owners = [c for c in self.function.__mro__ if name in inspect.get_annotations(c)]
            owner = owners[0] if owners else self.function
            module = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
            init = inspect.getattr_static(owner, "__init__", None)
            outer = getattr(init, "__globals__", {})
            names = {**outer, **module}
            return names, {**_live(self._scope, names), **_live(vars(owner), names), owner.__name__: owner}
        if self._names is None:
            function = self.function
            names: dict[str, Any] = getattr(function, "__globals__", None) or {}
            local: dict[str, Any] = {}
            if self._owner is not None:
                for base in reversed(self._owner.__mro__[:-1]):
                    local.update(_live(vars(base), names))
                local[self._owner.__name__] = self._owner
            local.update(_live(self._scope, names))
            cells = (
                zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
                if hasattr(function, "__code__")
                else ()
            )
            for free, cell in cells:
                try:
                    local[free] = cell.cell_contents
                except ValueError:  # an empty cell: assigned later or never
                    continue
            for parametrised in (self._owner, function):
                local.update({p.__name__: p for p in getattr(parametrised, "__type_params__", ())})
            self._names = (names, local)
        return self._names

    def has_factory(self, name: str) -> bool:
        return any(
            f.name == name and f.default_factory is not dataclasses.MISSING for f in dataclasses.fields(self.function)
        )

    def class_hints(self, cls: Any) -> dict[str, Any]:
        """Return the hints of a TypedDict, qualifiers kept."""
        scope = self._namespaces("")[1]
        try:
            return typing.get_type_hints(cls, localns=scope, include_extras=True)
        except Exception as error:  # as above
            raise FunctionDefinitionError(
                f"{self._name}: {cls!r} has a hint that cannot be resolved ({error})"
            ) from error


def _live(namespace: Mapping[str, Any] | None, outer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of a class or frame that hints can use: a method called `list` must not hide the type."""
    return {
        name: value
        for name, value in (namespace or {}).items()
        if not (hasattr(cast("Any", type(value)), "__get__") and (name in outer or hasattr(builtins, name)))
    }


def _is_context(hint: Any) -> bool:
    kind = typing.get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, RunContext)


def _injection(hint: Any) -> Inject | type[RunContext[Any]] | None:
    if isinstance(hint, type):
        return RunContext if issubclass(hint, RunContext) else None
    if marks := marks_of(hint):
        return next((mark for mark in marks if isinstance(mark, Inject)), None) or _injection(hint.__origin__)
    if _is_context(hint):
        return RunContext
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        if others and all(_is_context(choice) for choice in others):
            return RunContext
    return None


def _hint_text(hint: Any) -> str:
    return hint if isinstance(hint, str) else repr(hint)


def wants_context(factory: Callable[..., Any]) -> bool:
    """Return whether an `Inject` factory takes the run context."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD, _Kind.VAR_POSITIONAL)
    return any(p.kind in positional and (p.default is EMPTY or p.kind is _Kind.VAR_POSITIONAL) for p in parameters)
