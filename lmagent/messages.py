"""Public path of messages and their parts: `from lmagent.messages import ToolCall`. They are made in `core/messages`.

A module of its own, because type checkers and editors do not see the table of old import paths.
"""

from __future__ import annotations

from lmagent.core import messages as _messages
from lmagent.core.messages import *  # noqa: F403  # the list of names stands once, there

__all__: list[str] = []
__all__ += _messages.__all__
