"""Make `lmagent.tools` importable: in a checkout it is the folder `tools` beside the package."""

from __future__ import annotations

from lmagent.toolkit.sources import ready_made_names

assert ready_made_names()
