"""The agent: the loop of a run, its four drivers, approval, structured answers, sessions, trimming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmagent.agent.agent import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmagent.agent import agent  # the parts of a run load without it

    return getattr(agent, name)
