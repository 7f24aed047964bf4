"""What a tool is built from, lazily and once: options, spec, and the plan of a call.

`Tool` in `tool.py` is the public side.

Theory of operation. Decorating stores the callable and nothing else. The first use of a property or of a call builds
what it needs, once, under a lock, from whichever thread comes first:

1. `spec`: signature and docstring are read (`signature`, `docstring`) and become a JSON Schema (`schema_builder`).
2. `plan`: the reader of the arguments (`arguments`), the values that are injected, and whether a call must be awaited.
   It collects all that a call needs in one object, because a call is too short for property look-ups.

A `Definition` is shared by all bound tools of one method. `SchemaTool` has a JSON Schema that was given as it is, such
as one of an MCP server. `DerivedTool` is a tool with other options and shares schema and plan of the original.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import ConfigurationError, InvalidArguments
from lmagent.toolkit.context import Inject, RunContext
from lmagent.toolkit.schema import CheckedSchema, ToolSpec

if TYPE_CHECKING:
    from lmagent.toolkit.arguments import Binder, BoundArguments
    from lmagent.toolkit.schema_builder import Description
    from lmagent.toolkit.signature import Argument, Signature

__all__ = ["Definition", "DerivedTool", "Effect", "Kind", "Plan", "SchemaTool", "ToolOptions"]

Effect: TypeAlias = Literal["reads", "writes", "network", "spends", "irreversible"]
Kind: TypeAlias = Literal["plain", "static", "class"]
Supply: TypeAlias = Callable[[RunContext[Any] | None], Any]


@fast_dataclass(frozen=True, kw_only=True)
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
    max_argument_bytes: int | None = None
    """Largest argument text; None: 1 MiB."""
    expose_errors: bool = True
    """Whether the model gets the message of an exception, or only its class."""
    strict: bool | None = None
    """True demands the provider's strict schema mode, False forbids it, None leaves it to the codec."""
    tags: frozenset[str] = frozenset()
    in_thread: bool = True
    """False: a synchronous body runs in place in asynchronous runs, because it never blocks."""
    effects: frozenset[Effect] = frozenset()
    requires_approval: bool | Literal["always", "once", "never"] | Callable[..., Any] | None = None
    """True or `always`: each call; `once`: the first call of a run; a function of the call: when it returns true."""
    async_form: Callable[..., Any] | None = None
    """The same tool for asynchronous runs: an async function of the same parameters."""


@fast_dataclass(kw_only=True)
class Plan:
    """All that a call needs, in one place: a call is too short for property look-ups."""

    name: str
    options: ToolOptions
    read: Callable[[str, str, bool, int | None], BoundArguments]
    """Takes the tool's name, the text, whether to repair it, and the largest size in bytes."""
    is_async: bool = False
    """Whether a call must be awaited."""
    binder: Binder | None = None
    """None: the values are the keyword arguments."""
    supplies: tuple[tuple[str, Supply], ...] = ()
    """Injected parameters and what gives their values."""
    managed: frozenset[str] = frozenset()
    """Those whose factory is a generator: it is entered before and left after the call."""
    is_model: bool = False
    is_plain: bool = True
    """The body is called with the values and nothing else."""


class Definition:
    """A callable with its options; built at first use by whichever thread comes first."""

    def __init__(self, target: Any, options: ToolOptions, scope: Mapping[str, Any] | None = None) -> None:
        self.target: Any = target
        self.options = options
        self.owner: type | None = None
        """The class in whose body it stands."""
        self.kind: Kind = "plain"
        self.takes_self = False
        """Whether binding fills the first parameter."""
        self._scope = scope
        self._lock = threading.RLock()
        self._spec: ToolSpec | None = None
        self._signature: Signature | None = None
        self._description: Description | None = None
        self.plan: Plan | None = None
        """None until `make_plan`."""
        self._class_form: Definition | None = None

    @property
    def spec(self) -> ToolSpec:
        spec = self._spec
        if spec is None:
            with self._lock:
                spec = self._spec or self._build()
        return spec

    @property
    def signature(self) -> Signature:
        _ = self.spec
        return cast("Signature", self._signature)

    def is_same(self, other: Definition) -> bool:
        """Return whether both stand for one callable with the same options."""
        if self is other:
            return True
        mine, theirs = self.target, other.target
        one_target = mine is theirs or (isinstance(mine, MethodType) and mine == theirs)
        return one_target and type(self) is type(other) is Definition and self.options == other.options

    def for_class(self, owner: type) -> Definition:
        """Return the same tool as a class method, for `@classmethod` that stands over `@function`; always the same."""
        if self.kind != "plain" or self.takes_self:
            return self
        with self._lock:
            form = self._class_form
            if form is None:
                form = self._class_form = self._made_for_class(owner)
        return form

    def _made_for_class(self, owner: type) -> Definition:
        form = copy(self)  # not `self` changed: the tool may be used elsewhere as the function that it is
        form.kind, form.takes_self = "class", True
        home = str(getattr(self.target, "__qualname__", "")).rpartition(".")[0]
        form.owner = next((base for base in owner.__mro__ if base.__qualname__ == home), owner)
        form._spec = form._signature = form._description = form.plan = form._class_form = None
        return form

    def make_plan(self) -> Plan:
        """Build what a call needs, once."""
        with self._lock:
            plan = self.plan
            if plan is None:
                plan = self.plan = self._make_plan()
        return plan

    def _accepts(self, arguments: str) -> bool:
        plan = self.make_plan()
        try:
            plan.read(plan.name, arguments, False, self.options.max_argument_bytes)
        except InvalidArguments:
            return False
        return True

    def _build(self) -> ToolSpec:
        from lmagent.toolkit.schema_builder import clean_name, describe
        from lmagent.toolkit.signature import read_signature

        name = self.options.name
        signature = read_signature(
            self.target, scope=self._scope, owner=self.owner, unbound=self.takes_self, name=name or ""
        )
        if name is None and signature.name == "<lambda>":
            # Two lambdas must not share a name, and the same one gets the same name in every process.
            code = self.target.__code__
            signature.name = f"lambda {signature.module}:{code.co_firstlineno}:{list(code.co_positions())}"
        description = describe(signature, description=self.options.description)
        self._signature, self._description = signature, description
        self._scope = None  # frees the values of the frame
        spec = ToolSpec(
            name=clean_name(signature.name),
            description=description.description,
            parameters=CheckedSchema(description.parameters, self._accepts),
            strict=self.options.strict,
        )
        self._spec = spec  # assigned last; publishes the other fields (lock-free read)
        return spec

    def _make_plan(self) -> Plan:
        from lmagent.toolkit.arguments import ArgumentReader, Binder
        from lmagent.toolkit.schema_builder import make_adapter

        signature, description = self.signature, cast("Description", self._description)
        adapter = description.adapter or make_adapter(signature)
        binder = Binder(signature)
        supplies = tuple((a.name, _supply(a)) for a in signature.arguments if a.inject)
        is_model = signature.model is not None
        return Plan(
            name=self.spec.name,
            options=self.options,
            read=ArgumentReader(signature, description.parameters, description.keys, adapter).read,
            is_async=_is_async(self.target, signature),
            binder=None if binder.is_plain else binder,
            supplies=supplies,
            managed=frozenset(a.name for a in signature.arguments if _context_maker(a)),
            is_model=is_model,
            is_plain=binder.is_plain and not supplies and not is_model,
        )


class SchemaTool(Definition):
    """Of a tool whose schema is given as it is."""

    def __init__(self, target: Any, options: ToolOptions, parameters: Mapping[str, Any]) -> None:
        super().__init__(target, options)
        if not callable(target):
            raise ConfigurationError(f"Tool.from_schema needs a callable, not {target!r}.")
        if parameters.get("type", "object") != "object":
            raise ConfigurationError(f"The schema of a tool's arguments has type 'object', not {parameters['type']!r}.")
        self._parameters: dict[str, Any] = {"type": "object", "properties": {}, **deepcopy(dict(parameters))}

    def _build(self) -> ToolSpec:
        from lmagent.toolkit.schema_builder import clean_name
        from lmagent.toolkit.signature import Signature

        name, description = self.options.name or "", self.options.description or ""
        self._signature = Signature(name=name)
        self._spec = ToolSpec(
            name=clean_name(name),
            description=description,
            parameters=CheckedSchema(self._parameters, self._accepts),
            strict=self.options.strict,
        )
        return self._spec

    def _make_plan(self) -> Plan:
        from lmagent.toolkit.arguments import SchemaReader

        return Plan(
            name=self.spec.name,
            options=self.options,
            read=SchemaReader(self._parameters).read,
            is_async=_is_async(self.target, self.signature),
        )


class DerivedTool(Definition):
    """A tool with other options: schema and plan are those of the original."""

    def __init__(self, original: Definition, options: ToolOptions) -> None:
        super().__init__(original.target, options)
        self.kind = original.kind
        self.takes_self = original.takes_self
        self._original = original

    def _made_for_class(self, owner: type) -> Definition:
        form = cast("DerivedTool", super()._made_for_class(owner))
        form._original = self._original.for_class(owner)
        return form

    def _build(self) -> ToolSpec:
        from lmagent.toolkit.schema_builder import clean_name

        before, name, description = self._original.spec, self.options.name, self.options.description
        signature = self._original.signature
        self._signature = replace(signature, name=name or signature.name)
        self._spec = ToolSpec(
            name=clean_name(name) if name else before.name,
            description=before.description if description is None else description,
            parameters=before.parameters,
            strict=self.options.strict,
        )
        return self._spec

    def _make_plan(self) -> Plan:
        return replace(self._original.make_plan(), name=self.spec.name, options=self.options)


def _is_async(target: Any, signature: Signature) -> bool:
    """Return whether the body or a factory of an injected parameter must be awaited."""
    from lmagent.toolkit.signature import is_async_callable

    factories = [a.inject.factory for a in signature.arguments if isinstance(a.inject, Inject)]
    return any(map(is_async_callable, (target, *factories)))


def _supply(argument: Argument) -> Supply:
    """Return what gives the value of an injected parameter at each call."""
    from lmagent.toolkit.signature import EMPTY, wants_context

    inject = argument.inject
    if inject is None or isinstance(inject, type):
        absent = argument.default
        return lambda context: context if context is not None else RunContext() if absent is EMPTY else absent
    factory = inject.factory
    maker = _context_maker(argument)
    made: Callable[..., Any] = maker(factory) if maker else factory
    if wants_context(factory):
        return lambda context: made(context if context is not None else RunContext())
    return lambda context: made()


def _context_maker(argument: Argument) -> Callable[[Any], Any] | None:
    """Return `contextmanager`, or its async form, for a factory that is a generator function; None for any other."""
    if not isinstance(argument.inject, Inject):
        return None
    factory = argument.inject.factory
    call = getattr(type(factory), "__call__", None)  # noqa: B004  # of an instance, its method is the generator
    if inspect.isasyncgenfunction(factory) or inspect.isasyncgenfunction(call):
        return asynccontextmanager
    return contextmanager if inspect.isgeneratorfunction(factory) or inspect.isgeneratorfunction(call) else None
