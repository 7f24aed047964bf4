"""`ToolRegistry`: tools by name, for the model to choose from and for the loop to run.

Refuses two tools of one name. Knows nothing of models or providers. `execution` runs the calls, `sources` finds tools
in files and modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from lmagent.errors import ConfigurationError
from lmagent.toolkit.context import ToolOutcome
from lmagent.toolkit.execution import (
    Call,
    PreparedCall,
    async_run_all,
    async_run_prepared,
    prepare,
    run_all,
    run_prepared,
)
from lmagent.toolkit.schema import ToolSpec
from lmagent.toolkit.tool import Tool, function

if TYPE_CHECKING:
    from lmagent.toolkit.context import RunContext

__all__ = ["CallOptions", "CallsOptions", "ToolRegistry"]

_AnyTool = Tool[..., Any]
_READY = (PreparedCall, ToolOutcome)
_MAX_NAME = 100
"""More of a name that a model made up is not repeated."""


class CallOptions(TypedDict, total=False):
    """Keywords of one tool call."""

    context: RunContext[Any] | None
    """For tools that take a `RunContext`; each gets a copy with its own call in it."""
    default_timeout: float | None
    """Seconds for tools without a timeout of their own; 60 if not given.

    In a sync run a single sync tool is called in place, without a thread and so without the standard 60 seconds. A
    timeout of its own, or another value here, gives it a thread."""


class CallsOptions(CallOptions, total=False):
    """Keywords of several tool calls."""

    max_concurrent: int
    """Calls that run at once; 8 if not given."""


class ToolRegistry:
    """A set of tools with unique names, in the order they were added.

    Args:
        tools: Anything `add` takes.
    """

    def __init__(self, tools: Iterable[Any] | Any = ()) -> None:
        self._tools: dict[str, _AnyTool] = {}
        self._specs: tuple[ToolSpec, ...] | None = ()
        if isinstance(tools, ToolRegistry) or not isinstance(tools, Iterable) or isinstance(tools, type | str):
            self.add(tools)
        else:
            self.add(*cast("Iterable[Any]", tools))

    # Contents

    def add(self, *sources: Any) -> None:
        """Add tools; each is built at once, so that what cannot be described is said here.

        Args:
            *sources: Tools, functions, bound methods, classes, instances with `__call__`, instances whose class has
                `@function` methods, registries, and lists of these. A tool that is already here is no conflict.

        Raises:
            FunctionDefinitionError: A callable cannot be described as JSON.
            ConfigurationError: Two tools have one name, or a source is nothing callable. Nothing is added then.
        """
        tools = dict(self._tools)
        for source in sources:
            for tool in _tools_of(source):
                tool.check()
                _put(tools, tool)
        self._replace(tools)

    def load(self, *sources: Any) -> None:
        """Add tools from elsewhere; see `lmagent.toolkit.sources.load_tools`.

        Args:
            *sources: Ready-made names (`"calculator"`), dotted module names, paths to a `.py` file or a folder,
                modules, or anything `add` takes.
        """
        from lmagent.toolkit.sources import load_tools  # importlib and paths are not needed by most programs

        self.add(*(load_tools(source) for source in sources))

    def remove(self, name: str) -> None:
        """Take a tool out. Raises `ConfigurationError` if there is none of that name."""
        self.get(name)
        self._replace({key: tool for key, tool in self._tools.items() if key != name})

    def get(self, name: str) -> _AnyTool:
        """Return the tool of exactly that name. Raises `ConfigurationError` that lists the names if there is none."""
        try:
            return self._tools[name]
        except KeyError:
            raise ConfigurationError(f"{self._unknown(name)}.") from None

    def __getitem__(self, name: str) -> _AnyTool:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, Tool):
            tool = cast("_AnyTool", name)
            known = self._tools.get(tool.name)
            return known is not None and known.is_same(tool)
        return name in self._tools

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[_AnyTool]:
        return iter(tuple(self._tools.values()))

    def __repr__(self) -> str:
        return f"ToolRegistry({', '.join(self._tools)})"

    @property
    def names(self) -> tuple[str, ...]:
        """In the order the tools were added."""
        return tuple(self._tools)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What codecs get; the same tuple until the registry changes."""
        specs = self._specs
        if specs is None:
            specs = self._specs = tuple(tool.spec for tool in self._tools.values())
        return specs

    def _replace(self, tools: dict[str, _AnyTool]) -> None:
        # A new dict each time: a running iteration keeps the old one.
        self._tools = tools
        self._specs = None

    # Other registries from this one

    def filter(self, predicate: Callable[[_AnyTool], bool] | None = None, *, tags: Iterable[str] = ()) -> ToolRegistry:
        """Return a registry of the tools that fit.

        Args:
            predicate: Gets a tool.
            tags: At least one of them; one text is one tag.
        """
        wanted = {tags} if isinstance(tags, str) else set(tags)
        return _registry_of(
            tool
            for tool in self
            if (not wanted or not wanted.isdisjoint(tool.tags)) and (predicate is None or predicate(tool))
        )

    def prefixed(self, prefix: str) -> ToolRegistry:
        """Return a registry of the same tools with `prefix` before each name."""
        return self.rename({name: f"{prefix}{name}" for name in self._tools})

    def rename(self, names: Mapping[str, str]) -> ToolRegistry:
        """Return a registry of the same tools, some under new names; order is kept."""
        for name in names:
            self.get(name)
        return _registry_of(tool.changed(name=names[tool.name]) if tool.name in names else tool for tool in self)

    def __or__(self, other: Any) -> ToolRegistry:
        merged = _registry_of(self)
        merged.add(other)
        return merged

    # Running

    def prepare(self, call: Call, *, repair: bool = False) -> PreparedCall | ToolOutcome:
        """Find the tool and validate the arguments; nothing runs yet.

        Returns:
            What `run_one` and `run` take, or the outcome that tells the model what is wrong.
        """
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolOutcome(call.id, call.name, self._unknown(call.name), True, kind="unknown_tool")
        return prepare(call, tool, repair)

    def run_one(
        self,
        call: Call | PreparedCall,
        *,
        repair: bool = False,
        **options: Unpack[CallOptions],
    ) -> ToolOutcome:
        """Run one call and return its outcome; see `run`."""
        item = call if isinstance(call, PreparedCall) else self.prepare(call, repair=repair)
        if isinstance(item, ToolOutcome):
            return item
        return run_prepared(item, **options)

    async def async_run_one(
        self,
        call: Call | PreparedCall,
        *,
        repair: bool = False,
        **options: Unpack[CallOptions],
    ) -> ToolOutcome:
        """Run one call in the running event loop; see `run`."""
        item = call if isinstance(call, PreparedCall) else self.prepare(call, repair=repair)
        if isinstance(item, ToolOutcome):
            return item
        return await async_run_prepared(item, **options)

    def run(
        self,
        calls: Sequence[Call | PreparedCall | ToolOutcome],
        *,
        repair: bool = False,
        **options: Unpack[CallsOptions],
    ) -> list[ToolOutcome]:
        """Run calls at the same time and return their outcomes in call order.

        A model's mistake, a tool that raises and a tool that takes too long are outcomes; KeyboardInterrupt, SystemExit
        and cancellation pass through.

        Args:
            calls: As the model made them, as `prepare` made them, or outcomes to hand on.
            repair: Whether arguments that are nearly JSON, or nearly fit, are repaired without loss.
            **options: `context`, `default_timeout` and `max_concurrent`; see `CallsOptions`.
        """
        items = [self._prepared(call, repair) for call in calls]
        _check_concurrency(options)
        return run_all(items, **options)

    async def async_run(
        self,
        calls: Sequence[Call | PreparedCall | ToolOutcome],
        *,
        repair: bool = False,
        **options: Unpack[CallsOptions],
    ) -> list[ToolOutcome]:
        """Run calls in the running event loop: coroutines in place, synchronous tools in threads; see `run`."""
        items = [self._prepared(call, repair) for call in calls]
        _check_concurrency(options)
        return await async_run_all(items, **options)

    def _prepared(self, call: Call | PreparedCall | ToolOutcome, repair: bool) -> PreparedCall | ToolOutcome:
        return call if isinstance(call, _READY) else self.prepare(call, repair=repair)

    def _unknown(self, name: str) -> str:
        shown = repr(name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…")
        if not self._tools:
            return f"There is no tool {shown}; no tools are available"
        from difflib import get_close_matches  # for the error alone

        close = get_close_matches(name[:_MAX_NAME], self._tools, n=3)
        guess = f" Did you mean {' or '.join(close)}?" if close else ""
        return f"There is no tool {shown}.{guess} All tools: {', '.join(self._tools)}"


def _registry_of(tools: Iterable[_AnyTool]) -> ToolRegistry:
    return ToolRegistry(tools)


def _put(tools: dict[str, _AnyTool], tool: _AnyTool) -> None:
    known = tools.get(tool.name)
    if known is not None and not known.is_same(tool):
        raise ConfigurationError(
            f"Two tools are named {tool.name!r}: {_origin(known)} and {_origin(tool)}. "
            "Give one another name: function(..., name=...), or prefixed() or rename() of its registry."
        )
    tools[tool.name] = tool


def _origin(tool: _AnyTool) -> str:
    return f"{tool.__module__}.{tool.__qualname__}"


def _tools_of(source: Any) -> Iterator[_AnyTool]:
    """Yield the tools of anything that has some."""
    if isinstance(source, Tool):
        yield cast("_AnyTool", source)
    elif isinstance(source, ToolRegistry):
        yield from source
    elif isinstance(source, list | tuple | set | frozenset | Iterator):
        for inner in cast("Iterable[Any]", source):
            yield from _tools_of(inner)
    elif isinstance(source, type):
        yield function(source)
    elif methods := _tool_methods(source):
        yield from methods
    elif callable(source):
        yield function(source)
    else:
        raise ConfigurationError(f"{source!r} is no tool: give a function, a method, a callable or a registry.")


def _tool_methods(instance: Any) -> list[_AnyTool]:
    """Return the bound tools of an object whose class has `@function` methods."""
    found: dict[str, None] = {}
    for base in reversed(type(instance).__mro__):
        for name, value in vars(base).items():
            inner = cast("Any", value).__func__ if isinstance(value, classmethod | staticmethod) else value
            if isinstance(inner, Tool):
                found[name] = None
            else:
                found.pop(name, None)
    return [function(getattr(instance, name)) for name in found]


def _check_concurrency(options: CallsOptions) -> None:
    most = options.get("max_concurrent", 1)
    if most < 1:
        raise ConfigurationError(f"max_concurrent={most} must be at least 1.")
