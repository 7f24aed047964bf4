"""lmagent: tool-using assistants whose tools work on every model. Start with `@function`, a model and `Agent`."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmagent.context import Inject, RunContext
    from lmagent.errors import LMAgentError, ToolError
    from lmagent.function import Tool, function
    from lmagent.registry import ToolRegistry

__version__ = "0.1.0"

_HOME = {
    "Inject": "context",
    "LMAgentError": "errors",
    "RunContext": "context",
    "Tool": "function",
    "ToolError": "errors",
    "ToolRegistry": "registry",
    "function": "function",
}

__all__ = [
    "Inject",
    "LMAgentError",
    "RunContext",
    "Tool",
    "ToolError",
    "ToolRegistry",
    "function",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lmagent' has no attribute {name!r}")
    value = getattr(import_module(f"lmagent.{home}"), name)
    globals()[name] = value
    return value


class _FrontDoor(ModuleType):
    """This module, where a submodule never takes the place of the public name that is spelled like it.

    Importing `lmagent.function` would otherwise make `lmagent.function` that module, for everyone and for good.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
