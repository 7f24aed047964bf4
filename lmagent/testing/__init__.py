"""The testing kit: a scripted model, a fake transport, and a guard against real requests.

from lmagent.testing import ScriptedModel, block_requests
"""

from __future__ import annotations

from lmagent.testing.fake import FakeAnswer, FakeTransport
from lmagent.testing.guard import RealRequest, block_requests
from lmagent.testing.scripted import ScriptedModel, ScriptError, calls, text

__all__ = [
    "FakeAnswer",
    "FakeTransport",
    "RealRequest",
    "ScriptError",
    "ScriptedModel",
    "block_requests",
    "calls",
    "text",
]
