"""`@function`: a Python callable becomes a `Tool` with name, description, JSON Schema and validated call.

Decorating stores the callable and nothing else. Schema and validator are built at first use, once, by whichever
thread comes first. Knows nothing of providers, messages or the loop.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from copy import deepcopy
from dataclasses import replace
from operator import is_
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, overload

from lmagent.errors import ConfigurationError
from lmagent.toolkit.context import RunContext
from lmagent.toolkit.definitions import Definition, DerivedTool, Effect, Kind, Plan, SchemaTool, ToolOptions
from lmagent.toolkit.schema import ToolSpec

if TYPE_CHECKING:
    from lmagent.toolkit.arguments import BoundArguments

__all__ = ["Effect", "Tool", "ToolOptions", "function", "is_awaitable"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

_EFFECTS = frozenset(("reads", "writes", "network", "spends", "irreversible"))
_OPTIMIZED = inspect.CO_OPTIMIZED


_DEFAULTS = ToolOptions()
_DESCRIPTORS: dict[Any, Kind] = {staticmethod: "static", classmethod: "class"}


class Tool(Generic[P, R_co]):
    """A callable that a model can call. Made by `@function`; calling it is the plain Python call.

    A method's tool is bound like the method: `greeter.greet` is a tool that has its `self`.
    """

    __wrapped__: Callable[P, R_co]

    def __init__(
        self, target: Callable[P, R_co], *, options: ToolOptions = _DEFAULTS, scope: Mapping[str, Any] | None = None
    ) -> None:
        given = cast("Any", target)  # may be a classmethod object, which is not callable, in a class body
        kind = _DESCRIPTORS.get(cast("Any", type(given)), "plain")
        if kind == "plain" and not callable(given):
            raise ConfigurationError(f"@function needs a callable, not {given!r}.")
        definition = Definition(given if kind == "plain" else cast("Any", target).__func__, options, scope)
        definition.kind = kind
        definition.takes_self = kind == "class"
        self._set(definition, ())

    def _set(self, definition: Definition, bound: tuple[Any, ...]) -> None:
        self._definition = definition
        self._bound = bound
        self._plan: Plan | None = None
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
        tool._set(SchemaTool(callable, chosen, parameters), ())
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
        return self._definition.make_plan().is_async

    @property
    def plan(self) -> Plan:
        """What a call needs, for `execution`.

        Raises:
            FunctionDefinitionError: The callable cannot be described as JSON.
            ConfigurationError: It is a method without its instance.
        """
        plan = self._plan
        if plan is None:
            self._check_bound()
            plan = self._plan = self._definition.make_plan()
        return plan

    def check(self) -> None:
        """Build schema and name now.

        Raises:
            FunctionDefinitionError: The callable cannot be described as JSON.
            ConfigurationError: It is a method without its instance.
        """
        self._check_bound()
        _ = self._definition.spec

    def _check_bound(self) -> None:
        if self._definition.takes_self and not self._bound:
            raise ConfigurationError(
                f"{self.__qualname__} is a method without its instance: take the tool from an instance."
            )

    def changed(self, **options: Any) -> Tool[P, R_co]:
        """Return the same tool with other options, such as another `name`; schema and validator are shared."""
        if not options:
            return self
        return self._derived(DerivedTool(self._definition, _options(self._definition.options, **options)), self._bound)

    def is_same(self, other: Tool[..., Any]) -> bool:
        """Return whether both are one tool: the same callable with the same options on the same instance."""
        mine, theirs = self._bound, other._bound
        return self._definition.is_same(other._definition) and len(mine) == len(theirs) and all(map(is_, mine, theirs))

    def _derived(self, definition: Definition, bound: tuple[Any, ...]) -> Tool[Any, Any]:
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
        if instance is not None and instance is owner and not self._bound:  # how `@classmethod` over a tool asks
            definition = definition.for_class(instance)
        if not definition.takes_self or self._bound:
            return self
        if definition.kind == "class":
            return self._derived(definition, (owner if owner is not None else type(instance),))
        return self if instance is None else self._derived(definition, (instance,))

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled by name as a function is, and its own copy

    def __repr__(self) -> str:
        return f"<Tool {self._definition.options.name or self.__qualname__}>"

    # Calling it as a model does

    def validate(self, arguments: str | Mapping[str, Any], *, repair: bool = False) -> BoundArguments:
        """Return the validated arguments; `run` and `async_run` take them.

        Args:
            arguments: The JSON text of the model, or an object that is checked in the same way.
            repair: Whether text that is nearly JSON, or nearly fits, is repaired without loss.

        Raises:
            InvalidArguments: With all problems, one a line.
            ConfigurationError: It is a method without its instance.
        """
        plan = self._plan or self.plan
        if not isinstance(arguments, str):
            from lmagent.core.json_text import dumps_text

            arguments = dumps_text(arguments)
        return plan.read(plan.name, arguments, repair, plan.options.max_argument_bytes)

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
        if self.plan.is_async:
            return _waited(lambda: self.async_run(arguments, context=context))
        with ExitStack() as cleanup:
            result = self.start(arguments, context=context, cleanup=cleanup)
            return _waited(lambda: _awaited(result)) if is_awaitable(result) else result

    async def async_run(self, arguments: BoundArguments, *, context: RunContext[Any] | None = None) -> Any:
        """Run the tool with validated arguments in the running event loop."""
        async with AsyncExitStack() as cleanup:
            return await self.async_start(arguments, context=context, cleanup=cleanup)

    def start(
        self, arguments: BoundArguments, *, context: RunContext[Any] | None = None, cleanup: ExitStack | None = None
    ) -> Any:
        """Call the body and return what it returns: of an async body the coroutine, not its result.

        Args:
            arguments: As `validate` made them.
            context: For injected parameters.
            cleanup: Closes injected generators once the result is complete.
        """
        plan, body = self._plan or self.plan, self._definition.target
        if plan.is_plain:
            return body(*self._bound, **arguments.values)
        supplied = {name: supply(context) for name, supply in plan.supplies}
        for name in plan.managed:
            supplied[name] = (cleanup or ExitStack()).enter_context(supplied[name])
        return self._invoke(plan, body, arguments, supplied)

    async def async_start(
        self, arguments: BoundArguments, *, context: RunContext[Any] | None = None, cleanup: AsyncExitStack
    ) -> Any:
        """Call the body in the running event loop and return its result; see `start`."""
        plan = self.plan
        supplied = {name: supply(context) for name, supply in plan.supplies}
        for name, value in supplied.items():
            if name in plan.managed:
                is_async = isinstance(value, AbstractAsyncContextManager)
                entered = cleanup.enter_async_context(cast("Any", value)) if is_async else None
                supplied[name] = await entered if entered else cleanup.enter_context(value)
            elif is_awaitable(value):
                supplied[name] = await value
        result = self._invoke(plan, plan.options.async_form or self._definition.target, arguments, supplied)
        return await result if is_awaitable(result) else result

    def _invoke(
        self, plan: Plan, body: Callable[..., Any], arguments: BoundArguments, supplied: Mapping[str, Any]
    ) -> Any:
        if plan.is_model:
            return arguments.instance
        values = {**arguments.values, **supplied}
        positional, keywords = plan.binder.bind(values) if plan.binder else ((), values)
        return body(*self._bound, *positional, **keywords)


def is_awaitable(value: Any) -> bool:
    """Return whether a value can be awaited; cheaper than `inspect.isawaitable`, for every result goes through it."""
    return hasattr(cast("Any", type(value)), "__await__")


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _waited(make: Callable[[], Any]) -> Any:
    from lmagent.core.async_bridge import run_coroutine  # asyncio is not needed by a program of synchronous tools

    return run_coroutine(make)


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
    timeout = given.get("timeout")
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"timeout={timeout!r}: a tool's timeout is a number of seconds above 0.")
    for key in ("max_result_chars", "max_argument_bytes"):
        size = given.get(key)
        if size is not None and size < 1:
            raise ConfigurationError(f"{key}={size!r} must be at least 1.")
    rule = given.get("requires_approval")
    if not callable(rule) and rule not in (None, True, False, "always", "once", "never"):
        raise ConfigurationError(
            f"requires_approval={rule!r}: a rule is True, False, 'always', 'once', 'never' or a function."
        )
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
    max_argument_bytes: int | None = ...,
    expose_errors: bool = ...,
    strict: bool | None = ...,
    tags: str | tuple[str, ...] | list[str] | set[str] | frozenset[str] = ...,
    in_thread: bool = ...,
    effects: Effect | tuple[Effect, ...] | list[Effect] | set[Effect] | frozenset[Effect] = ...,
    requires_approval: bool | Literal["always", "once", "never"] | Callable[..., Any] | None = ...,
    async_form: Callable[..., Any] | None = ...,
) -> Tool[P, R]: ...
@overload
def function(
    *,
    name: str | None = ...,
    description: str | None = ...,
    timeout: float | None = ...,
    sequential: bool = ...,
    max_result_chars: int | None = ...,
    max_argument_bytes: int | None = ...,
    expose_errors: bool = ...,
    strict: bool | None = ...,
    tags: str | tuple[str, ...] | list[str] | set[str] | frozenset[str] = ...,
    in_thread: bool = ...,
    effects: Effect | tuple[Effect, ...] | list[Effect] | set[Effect] | frozenset[Effect] = ...,
    requires_approval: bool | Literal["always", "once", "never"] | Callable[..., Any] | None = ...,
    async_form: Callable[..., Any] | None = ...,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def function(target: Any = None, /, **options: Any) -> Any:
    """Make a tool of a callable: `@function`, `@function(timeout=5)` or `function(obj.method, name="send")`.

    Takes functions, lambdas, methods, partials, instances with `__call__`, dataclasses and pydantic models. Signature,
    hints and docstring are read when the tool is first used or put into a registry.

    Args:
        target: The callable. A `Tool` is given back with the options changed.
        **options: The fields of `ToolOptions`: name, description, timeout, sequential, max_result_chars,
            max_argument_bytes, expose_errors, strict, tags, in_thread, effects, requires_approval, async_form.

    Raises:
        ConfigurationError: An option has an impossible value.
    """
    scope = _scope(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]  # the only way to see local names in text hints
    if target is None:
        chosen = _options(**options)  # a wrong option is refused where it stands

        def decorate(decorated: Any) -> Any:
            return Tool(decorated, options=chosen, scope=scope)

        return decorate
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
