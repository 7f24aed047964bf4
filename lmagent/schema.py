"""The tool as codecs see it. (The JSON-Schema passes over it join this file: hygiene and dialects, all pure.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ToolSpec"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToolSpec:
    """Name, description and parameters schema of one tool: all a codec ever sees of it.

    Compared by identity: the registry hands out one spec per tool, so that encoded bytes can be kept beside it.
    """

    name: str
    """`[a-zA-Z0-9_-]{1,64}`."""
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON Schema 2020-12, root `type: object` with `properties`. Treat as read-only; a dialect pass copies."""
    strict: bool | None = None
    """True: the user demands strict mode. None: as the provider's codec thinks best."""
    encoded: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False)
    """Cache of the codecs: dialect name -> encoded form."""
