"""Testing kit: a scripted model, recorded answers, a fake transport, and a block against real requests.

from lmagent.testing import ScriptedModel, block_requests
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmagent.testing.fake import FakeAnswer, FakeTransport, RealRequest, block_requests
    from lmagent.testing.recording import Recorder, Replayer, UnexpectedRequest
    from lmagent.testing.scripted import ScriptedModel, ScriptError, calls, text

_NAMES_OF = {
    "fake": "FakeAnswer FakeTransport RealRequest block_requests",
    "recording": "Recorder Replayer UnexpectedRequest",
    "scripted": "ScriptError ScriptedModel calls text",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = [
    "FakeAnswer", "FakeTransport", "RealRequest", "Recorder", "Replayer", "ScriptError", "ScriptedModel",
    "UnexpectedRequest", "block_requests", "calls", "text",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lmagent.testing' has no attribute {name!r}")
    return getattr(import_module(f"lmagent.testing.{_HOME[name]}"), name)
