"""In a bare checkout `lmagent.tools` is the folder beside the package: have it found before the tests import it."""

from __future__ import annotations

from lmagent.toolkit.sources import ready_made_names

assert ready_made_names()
