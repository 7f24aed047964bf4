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

_HOME = {
    "FakeAnswer": "fake",
    "FakeTransport": "fake",
    "RealRequest": "fake",
    "Recorder": "recording",
    "Replayer": "recording",
    "ScriptError": "scripted",
    "ScriptedModel": "scripted",
    "UnexpectedRequest": "recording",
    "block_requests": "fake",
    "calls": "scripted",
    "text": "scripted",
}

__all__ = [
    "FakeAnswer",
    "FakeTransport",
    "RealRequest",
    "Recorder",
    "Replayer",
    "ScriptError",
    "ScriptedModel",
    "UnexpectedRequest",
    "block_requests",
    "calls",
    "text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lmagent.testing' has no attribute {name!r}")
    return getattr(import_module(f"lmagent.testing.{_HOME[name]}"), name)
