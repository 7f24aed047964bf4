"""`@function`: a Python callable becomes a `Tool` with name, description, JSON Schema and validated call.

Decorating stores the callable and nothing else. Schema and validator are built at first use, once, from whichever
thread comes first. Knows nothing of providers, messages or the loop.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast, overload

from lmagent.context import RunContext
from lmagent.errors import ConfigurationError
from lmagent.schema import ToolSpec

if TYPE_CHECKING:
    from lmagent.arguments import Binder, BoundArguments, Reader, Repair
    from lmagent.describing import Description
    from lmagent.signatures import Signature

__all__ = ["Effect", "Tool", "ToolOptions", "function"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

Effect: TypeAlias = Literal["reads", "writes", "network", "spends", "irreversible"]
_EFFECTS = frozenset(("reads", "writes", "network", "spends", "irreversible"))
_OPTIMIZED = inspect.CO_OPTIMIZED


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """How a tool is shown and run; the keyword arguments of `@function`."""

    name: str | None = None
    """Default: the callable's own name. Characters that providers refuse are replaced."""
    description: str | None = None
    """Default: the docstring without its sections."""
    timeout: float | None = None
    """Seconds; None: the registry's default."""
    sequential: bool = False
    """Never run beside another call of the same batch."""
    max_result_chars: int | None = None
    """None: the registry's default."""
    expose_errors: bool = True
    """Whether the model hears the message of an exception, or only its class."""
    strict: bool | None = None
    """True demands the provider's strict schema mode, False forbids it, None leaves it to the codec."""
    tags: frozenset[str] = frozenset()
    in_thread: bool = True
    """False: a synchronous body runs in place in asynchronous runs, because it never blocks."""
    effects: frozenset[Effect] = frozenset()
    requires_approval: bool | Callable[..., Any] | None = None


_DEFAULTS = ToolOptions()


class _Definition:
    """What is built once and shared by a method's bound tools: description, spec, reader, binder."""

    def __init__(self, target: Any, options: ToolOptions, scope: Mapping[str, Any] | None) -> None:
        self.target = target
        self.options = options
        self.scope = scope
        self.owner: type | None = None
        self.kind: Literal["plain", "static", "class"] = "plain"
        self.takes_self = False
        """Whether binding fills the first parameter."""
        self._lock = threading.RLock()
        self._spec: ToolSpec | None = None
        self._signature: Signature | None = None
        self._description: Description | None = None
        self._reader: Reader | None = None
        self._binder: Binder | None = None
        self._injected: tuple[tuple[str, Callable[[RunContext[Any] | None], Any]], ...] | None = None
        self._is_async: bool | None = None

    @property
    def is_async(self) -> bool:
        if self._is_async is None:
            from lmagent.signatures import is_async_callable

            factories = [a.inject for a in self.signature.arguments]
            self._is_async = is_async_callable(self.target) or any(
                is_async_callable(inject.factory) for inject in factories if inject and not isinstance(inject, type)
            )
        return self._is_async

    @property
    def signature(self) -> Signature:
        if self._signature is None:
            self._build()
        return cast("Signature", self._signature)

    @property
    def spec(self) -> ToolSpec:
        if self._spec is None:
            self._build()
        return cast(ToolSpec, self._spec)

    @property
    def reader(self) -> Reader:
        if self._reader is None:
            self._build_reader()
        return cast("Reader", self._reader)

    @property
    def binder(self) -> Binder:
        if self._binder is None:
            self._build_reader()
        return cast("Binder", self._binder)

    @property
    def injected(self) -> tuple[tuple[str, Callable[[RunContext[Any] | None], Any]], ...]:
        """Parameter name and how to get its value, for each injected parameter."""
        if self._injected is None:
            self._injected = tuple(
                (argument.name, _supplier(argument)) for argument in self.signature.arguments if argument.inject
            )
        return self._injected

    def _build(self) -> None:
        with self._lock:
            if self._spec is not None:
                return
            from lmagent.describing import clean_name, describe
            from lmagent.signatures import read_signature

            name = self.options.name
            signature = read_signature(
                self.target, scope=self.scope, owner=self.owner, unbound=self.takes_self, name=name or ""
            )
            if name is None and signature.name == "<lambda>":
                # Two lambdas must not share a name, and the same one gets the same name in every process.
                code = self.target.__code__
                signature.name = f"lambda {signature.module}:{code.co_firstlineno}:{code.co_positions().__next__()}"
            description = describe(signature, description=self.options.description)
            self._signature, self._description = signature, description
            self.scope = None  # frees the frame's values
            self._spec = ToolSpec(
                name=clean_name(signature.name),
                description=description.description,
                parameters=description.parameters,
                strict=self.options.strict,
            )

    def _build_reader(self) -> None:
        with self._lock:
            if self._reader is not None:
                return
            from lmagent.arguments import ArgumentReader, Binder
            from lmagent.describing import make_adapter

            self._build()
            signature, description = cast("Signature", self._signature), cast("Description", self._description)
            adapter = description.adapter or make_adapter(signature)
            self._binder = Binder(signature)
            self._reader = ArgumentReader(signature, description.parameters, description.keys, adapter)


class _SchemaDefinition(_Definition):
    """Of a tool whose schema is given as it is."""

    def __init__(self, target: Any, options: ToolOptions, parameters: Mapping[str, Any]) -> None:
        super().__init__(target, options, None)
        self._parameters = {"type": "object", "properties": {}, **deepcopy(dict(parameters))}

    def _build(self) -> None:
        with self._lock:
            if self._spec is not None:
                return
            from lmagent.describing import clean_name
            from lmagent.signatures import Signature

            name = self.options.name or ""
            self._signature = Signature(name=name)
            self._spec = ToolSpec(
                name=clean_name(name),
                description=self.options.description or "",
                parameters=self._parameters,
                strict=self.options.strict,
            )

    def _build_reader(self) -> None:
        with self._lock:
            if self._reader is not None:
                return
            from lmagent.arguments import Binder
            from lmagent.checking import SchemaReader

            self._binder = Binder(self.signature)
            self._reader = SchemaReader(self._parameters)


class _Changed(_Definition):
    """A tool with other options: schema and validator are those of the original."""

    def __init__(self, original: _Definition, options: ToolOptions) -> None:
        super().__init__(original.target, options, None)
        self.kind = original.kind
        self.takes_self = original.takes_self
        self._original = original

    def _build(self) -> None:
        from lmagent.describing import clean_name

        with self._lock:
            if self._spec is not None:
                return
            spec = self._original.spec
            name, description = self.options.name, self.options.description
            self._signature = replace(self._original.signature, name=name or self._original.signature.name)
            self._spec = ToolSpec(
                name=clean_name(name) if name else spec.name,
                description=spec.description if description is None else description,
                parameters=spec.parameters,
                strict=self.options.strict,
            )

    def _build_reader(self) -> None:
        with self._lock:
            self._binder, self._reader = self._original.binder, self._original.reader


class Tool(Generic[P, R_co]):
    """A callable that a model can call. Made by `@function`; calling it is the plain Python call.

    A method's tool is bound like the method: `greeter.greet` is a tool that has its `self`.
    """

    __wrapped__: Callable[P, R_co]

    def __init__(
        self, target: Callable[P, R_co], *, options: ToolOptions = _DEFAULTS, scope: Mapping[str, Any] | None = None
    ) -> None:
        if not callable(target) and not isinstance(target, classmethod):
            raise ConfigurationError(f"@function needs a callable, not {target!r}.")
        definition = _Definition(target, options, scope)
        if isinstance(target, staticmethod | classmethod):
            definition.target = cast(Any, target).__func__
            definition.kind = "class" if isinstance(target, classmethod) else "static"
            definition.takes_self = definition.kind == "class"
        self._set(definition, ())

    def _set(self, definition: _Definition, bound: tuple[Any, ...]) -> None:
        self._definition = definition
        self._bound = bound
        target = definition.target
        self.__wrapped__ = target
        self.__doc__ = getattr(target, "__doc__", None)
        self.__name__: str = getattr(target, "__name__", None) or type(target).__name__
        self.__qualname__: str = getattr(target, "__qualname__", self.__name__)
        self.__module__: str = getattr(target, "__module__", None) or __name__

    @classmethod
    def from_schema(
        cls, name: str, description: str, parameters: Mapping[str, Any], callable: Callable[..., Any], **options: Any
    ) -> Tool[..., Any]:
        """Return a tool whose JSON Schema is given as it is, such as one of an MCP server.

        Args:
            name: Cleaned if providers refuse it.
            description: For the model.
            parameters: JSON Schema of the argument object; passed on unchanged.
            callable: Gets the arguments as keywords, plain JSON values.
            **options: As of `@function`.
        """
        tool = cast("Tool[..., Any]", cls.__new__(cls))
        chosen = _options(name=name, description=description, **options)
        tool._set(_SchemaDefinition(callable, chosen, parameters), ())
        return tool

    # What it is

    @property
    def name(self) -> str:
        """What the model calls it: `[a-zA-Z0-9_-]{1,64}`."""
        return self._definition.spec.name

    @property
    def original_name(self) -> str:
        """The name before it was made fit for providers."""
        return self._definition.signature.name

    @property
    def description(self) -> str:
        """What the model reads about it; empty without a docstring."""
        return self._definition.spec.description

    @property
    def spec(self) -> ToolSpec:
        """The tool as codecs see it; always the same object."""
        return self._definition.spec

    @property
    def parameters(self) -> dict[str, Any]:
        """A copy of the JSON Schema of the argument object."""
        return deepcopy(dict(self._definition.spec.parameters))

    @property
    def json_schema(self) -> dict[str, Any]:
        """A copy of `{"name", "description", "parameters"}`."""
        spec = self._definition.spec
        return {"name": spec.name, "description": spec.description, "parameters": self.parameters}

    @property
    def options(self) -> ToolOptions:
        """As given to `@function`."""
        return self._definition.options

    @property
    def tags(self) -> frozenset[str]:
        """For filtering registries."""
        return self._definition.options.tags

    @property
    def is_async(self) -> bool:
        """Whether a call must be awaited."""
        return self._definition.is_async

    @property
    def wants_context(self) -> bool:
        """Whether a parameter is filled from the run context."""
        return bool(self._definition.injected)

    def check(self) -> None:
        """Build schema and name now.

        Raises:
            FunctionDefinitionError: The callable cannot be described as JSON.
            ConfigurationError: It is a method without its instance.
        """
        definition = self._definition
        if definition.takes_self and not self._bound:
            raise ConfigurationError(
                f"{self.__qualname__} is a method without its instance: take the tool from an instance."
            )
        _ = definition.spec

    def changed(self, **options: Any) -> Tool[P, R_co]:
        """Return the same tool with other options, such as another `name`; schema and validator are shared."""
        if not options:
            return self
        return self._derived(_Changed(self._definition, _options(self._definition.options, **options)), self._bound)

    def is_same(self, other: Tool[..., Any]) -> bool:
        """Return whether both are one tool: the same definition on the same instance."""
        mine, theirs = self._bound, other._bound
        return self._definition is other._definition and len(mine) == len(theirs) and all(map(_is, mine, theirs))

    def _derived(self, definition: _Definition, bound: tuple[Any, ...]) -> Tool[Any, Any]:
        tool = cast("Tool[Any, Any]", type(self).__new__(type(self)))
        tool._set(definition, bound)
        return tool

    # Python's own protocols

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function as if it were not a tool; nothing is validated."""
        return self._definition.target(*self._bound, *args, **kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        definition = self._definition
        # A tool made elsewhere and merely kept in a class is no method of it.
        if definition.owner is None and self.__qualname__.rpartition(".")[0] == owner.__qualname__:
            definition.owner = owner
            definition.takes_self = definition.kind != "static" and isinstance(definition.target, FunctionType)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Tool[P, R_co]: ...
    @overload
    def __get__(self: Tool[Concatenate[S, Q], R], instance: S, owner: type | None = None, /) -> Tool[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Tool[Any, Any]:
        definition = self._definition
        if not definition.takes_self or self._bound:
            return self
        if definition.kind == "class":
            return self._derived(definition, (owner if owner is not None else type(instance),))
        return self if instance is None else self._derived(definition, (instance,))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tool[P, R_co]:
        return self

    def __repr__(self) -> str:
        return f"<Tool {self._definition.options.name or self.__qualname__}>"

    # Calling it as a model does

    def validate(self, arguments: str | Mapping[str, Any], *, repair: Repair | None = None) -> BoundArguments:
        """Return the validated arguments; `run` and `async_run` take them.

        Args:
            arguments: The JSON text of the model, or an object that is checked in the same way.
            repair: Asked for mended text when strict reading and validation have failed.

        Raises:
            InvalidArguments: With all problems, one a line.
        """
        if not isinstance(arguments, str):
            from lmagent.jsontext import dumps_text

            arguments = dumps_text(arguments)
        definition = self._definition
        return definition.reader.read(definition.spec.name, arguments, repair)

    def call(self, arguments: str | Mapping[str, Any], *, context: RunContext[Any] | None = None) -> Any:
        """Validate the arguments and run the tool. An async tool runs on an event loop of its own.

        Raises:
            InvalidArguments: Before the body runs.
        """
        return self.run(self.validate(arguments), context=context)

    async def async_call(self, arguments: str | Mapping[str, Any], *, context: RunContext[Any] | None = None) -> Any:
        """Validate the arguments and run the tool in the running event loop; a synchronous body runs in place."""
        return await self.async_run(self.validate(arguments), context=context)

    def run(self, arguments: BoundArguments, *, context: RunContext[Any] | None = None) -> Any:
        """Run the tool with validated arguments."""
        if self._definition.is_async:
            return _waited(lambda: self.async_run(arguments, context=context))
        result = self.start(arguments, context=context)
        return _waited(lambda: _awaited(result)) if inspect.isawaitable(result) else result

    async def async_run(self, arguments: BoundArguments, *, context: RunContext[Any] | None = None) -> Any:
        """Run the tool with validated arguments in the running event loop."""
        supplied = self._supplied(context)
        for name, value in supplied.items():
            if inspect.isawaitable(value):
                supplied[name] = await value
        result = self._invoke(arguments, supplied)
        return await _awaited(result) if inspect.isawaitable(result) else result

    def start(self, arguments: BoundArguments, *, context: RunContext[Any] | None = None) -> Any:
        """Call the body and return what it returns: of an async body the coroutine, not its result."""
        return self._invoke(arguments, self._supplied(context))

    def _supplied(self, context: RunContext[Any] | None) -> dict[str, Any]:
        injected = self._definition.injected
        return {name: supply(context) for name, supply in injected} if injected else {}

    def _invoke(self, arguments: BoundArguments, supplied: Mapping[str, Any]) -> Any:
        definition = self._definition
        if definition.signature.model is not None:
            return arguments.instance
        binder = definition.binder
        if binder.is_plain:
            return definition.target(*self._bound, **arguments.values, **supplied)
        positional, keywords = binder.bind({**arguments.values, **supplied})
        return definition.target(*self._bound, *positional, **keywords)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _waited(make: Callable[[], Any]) -> Any:
    from lmagent.portal import run_coroutine  # asyncio is not needed by a program of synchronous tools

    return run_coroutine(make)


def _is(one: Any, other: Any) -> bool:
    return one is other


def _supplier(argument: Any) -> Callable[[RunContext[Any] | None], Any]:
    """Return what makes the value of an injected parameter at each call."""
    from lmagent.signatures import EMPTY, wants_context

    inject = argument.inject
    if isinstance(inject, type):
        absent = argument.default
        return lambda context: context if context is not None else RunContext() if absent is EMPTY else absent
    factory = inject.factory
    if wants_context(factory):
        return lambda context: factory(context if context is not None else RunContext())
    return lambda context: factory()


def _options(base: ToolOptions = _DEFAULTS, **given: Any) -> ToolOptions:
    """Check the options of `@function` and return `base` changed by them."""
    if not given:
        return base
    for key in ("tags", "effects"):
        if key in given:
            value = given[key]
            given[key] = frozenset((value,) if isinstance(value, str) else value)
    unknown = given.get("effects", frozenset()) - _EFFECTS
    if unknown:
        raise ConfigurationError(f"Unknown effects {sorted(unknown)}: a tool declares some of {sorted(_EFFECTS)}.")
    timeout, size = given.get("timeout"), given.get("max_result_chars")
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"timeout={timeout!r}: a tool's timeout is a number of seconds above 0.")
    if size is not None and size < 1:
        raise ConfigurationError(f"max_result_chars={size!r} must be at least 1.")
    if given.get("name") == "":
        raise ConfigurationError("name='': a tool needs a name; leave it out for the function's own.")
    return replace(base, **given)


@overload
def function(target: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def function(
    target: Callable[P, R],
    /,
    *,
    name: str | None = ...,
    description: str | None = ...,
    timeout: float | None = ...,
    sequential: bool = ...,
    max_result_chars: int | None = ...,
    expose_errors: bool = ...,
    strict: bool | None = ...,
    tags: str | tuple[str, ...] | list[str] | set[str] | frozenset[str] = ...,
    in_thread: bool = ...,
    effects: Effect | tuple[Effect, ...] | list[Effect] | set[Effect] | frozenset[Effect] = ...,
    requires_approval: bool | Callable[..., Any] | None = ...,
) -> Tool[P, R]: ...
@overload
def function(
    *,
    name: str | None = ...,
    description: str | None = ...,
    timeout: float | None = ...,
    sequential: bool = ...,
    max_result_chars: int | None = ...,
    expose_errors: bool = ...,
    strict: bool | None = ...,
    tags: str | tuple[str, ...] | list[str] | set[str] | frozenset[str] = ...,
    in_thread: bool = ...,
    effects: Effect | tuple[Effect, ...] | list[Effect] | set[Effect] | frozenset[Effect] = ...,
    requires_approval: bool | Callable[..., Any] | None = ...,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def function(target: Any = None, /, **options: Any) -> Any:
    """Make a tool of a callable: `@function`, `@function(timeout=5)` or `function(obj.method, name="send")`.

    Takes functions, lambdas, methods, partials, instances with `__call__`, dataclasses and pydantic models. Signature,
    hints and docstring are read when the tool is first used or put into a registry.

    Args:
        target: The callable. A `Tool` is given back with the options changed.
        **options: The fields of `ToolOptions`: name, description, timeout, sequential, max_result_chars, expose_errors,
            strict, tags, in_thread, effects, requires_approval.

    Raises:
        ConfigurationError: An option has an impossible value.
    """
    scope = _scope(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]  # the only way to see local names in text hints
    if target is None:
        chosen = _options(**options)  # a wrong option is refused where it stands
        return lambda decorated: Tool(decorated, options=chosen, scope=scope)
    if isinstance(target, Tool):
        return cast("Tool[..., Any]", target).changed(**options)
    return Tool(target, options=_options(**options), scope=scope)


def _scope(frame: Any) -> Mapping[str, Any] | None:
    """Return the local names where `@function` stands; a module's own are found through the function."""
    local = frame.f_locals
    if local is frame.f_globals:
        return None
    # A class body's namespace is alive and fills further; a function's is copied, lest the frame live on.
    return dict(local) if frame.f_code.co_flags & _OPTIMIZED else MappingProxyType(local)
