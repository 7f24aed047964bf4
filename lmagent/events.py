"""Public path of the events of a run: `from lmagent.events import TextDelta, ToolEnd`. They are made in `core/events`.

A module of its own, because type checkers and editors do not see the table of old import paths.
"""

from __future__ import annotations

from lmagent.core import events as _events
from lmagent.core.events import *  # noqa: F403  # the list of names stands once, there

__all__: list[str] = []
__all__ += _events.__all__
