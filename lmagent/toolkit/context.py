"""What a tool may ask the framework for: the run context and injected values. Never shown to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from lmagent.core.messages import Message, ToolCall, Usage

from lmagent.core.fast_dataclass import fast_dataclass

__all__ = ["Inject", "RunContext"]

Deps = TypeVar("Deps")


@fast_dataclass(kw_only=True)
class RunContext(Generic[Deps]):
    """What a running tool may know of its run.

    A parameter annotated `RunContext` or `RunContext[MyDeps]` is filled by the agent and hidden from the model.
    """

    deps: Deps = None  # type: ignore[assignment]  # None is right for RunContext[None], the default
    """Whatever the caller gave as `deps=` to the run."""
    messages: tuple[Message, ...] = ()
    """The history up to and including the assistant message that made this call."""
    round: int = 1
    """Which round of the run this is, from 1."""
    tool_call: ToolCall | None = None
    """The call being run."""
    usage: Usage | None = None
    """Tokens used by the run so far."""
    budget: Any = None
    """The budget that a nested agent shares with its parent."""
    agent_name: str = ""
    emit: Callable[[Any], None] | None = None
    """Hands an event of a nested run to the outer stream; None when nobody listens."""
    approve: Any = None
    """The run's approver, for nested agents that have none of their own."""
    resumed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Call id -> the paused run behind it that goes on."""
    around: Callable[[ToolCall], Any] | None = None
    """What the body of each call runs in, for those who watch the run; None when nobody does."""
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    """A place where the tools of one run keep things, from its first round to its last."""


@fast_dataclass(frozen=True)
class Inject:
    """Mark a parameter as injected: `db: Annotated[Database, Inject(get_database)]`.

    Args:
        factory: Called with no argument, or with the `RunContext` when it takes one, at each call of the tool.
    """

    factory: Callable[..., Any]
