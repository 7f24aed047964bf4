"""The JSON a model wrote, for every other floor: `read_json` for any value, `repair_arguments` for a call's arguments.

Strict JSON first, then a closed list of lossless repairs (`loose_json`), double encoding, and what the tool's schema
allows without loss (`coerce`). What cannot be read for certain is refused: place, expectation, and what came.
"""

from __future__ import annotations

from lmagent.toolkit.coercion import repair_arguments
from lmagent.toolkit.loose_json import MAX_DEPTH, JSONReadError, Reading, read_json

__all__ = ["MAX_DEPTH", "JSONReadError", "Reading", "read_json", "repair_arguments"]
