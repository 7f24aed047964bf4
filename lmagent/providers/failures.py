"""What failures of any dialect have in common: words of a body that may be shown, and what the headers ask for.

Pure: the codecs' `parse_error` uses it, each with a table of its own. Nothing here raises because of what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lmagent.core.json_text import JSON
from lmagent.errors import ProviderError

__all__ = ["class_of", "quoted", "retry_after", "seconds"]

_MAX_QUOTE = 200


def class_of(code: str, table: Mapping[str, type[ProviderError]]) -> type[ProviderError] | None:
    """Return the class of a dotted code: what the table has for `A.B.C`, else for `A.B`, else for `A`."""
    while code and code not in table:
        code = code.rpartition(".")[0]
    return table.get(code)


def quoted(words: object, otherwise: str = "") -> str:
    """Return what may be shown of a text from outside: short, no control characters, an HTML page only named."""
    text = words.strip() if isinstance(words, str) else ""
    if not text:
        return otherwise
    if text.startswith("<"):
        return "an HTML or XML page, not an answer of the API"
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:_MAX_QUOTE])
    return shown + "…" * (len(text) > _MAX_QUOTE)


def seconds(value: JSON) -> float | None:
    """Return a wait as seconds: a number, its text, or a text with the unit s (`"27s"`); None for all else."""
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("s"))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait that the headers give in numbers.

    A date needs a clock, so it is left to the transport, as is `x-should-retry`, which is about any answer.
    """
    thousandths = seconds(headers.get("retry-after-ms"))
    return thousandths / 1000 if thousandths is not None else seconds(headers.get("retry-after"))
