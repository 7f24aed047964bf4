"""Secrets that are never shown, `redact`, which removes them from any text, and the library's loggers, which use it.

Knows nothing of providers. The text of every `Secret` made in this process is stored here (without its owner), so that
an error, a log record or a trace can be redacted wherever it is made.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import logging

__all__ = ["Secret", "SecretFilter", "library_logger", "mask", "redact", "redact_value"]

_MIN_LENGTH = 6
"""Shorter values are not stored: replacing them would damage ordinary words."""

_known: dict[str, str] = {}
"""Every spelling of every secret of the process -> its mask."""

_QUERY = re.compile(
    r"(?i)([?&](?:access_token|api[_-]?key|key|token|secret|client_secret|client_id|signature|sign|password)=)[^\s&\"'#]+"
)
_NAMED = re.compile(
    r"(?i)((?<![A-Za-z0-9])(?:access_token|api[_-]?key|client_secret|secret_?key|password|authorization|x-api-key)"
    r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?)((?:bearer\s{1,3})?[^\s&\"',;#}]{4,})"
)
"""Only names that always mean a secret: in prose and in tool errors, "token: x" and "key: x" mean something else."""
_BEARER = re.compile(r"(?i)\b(bearer\s+)([A-Za-z0-9._~+/=-]{8,})")


def mask(value: str) -> str:
    """Return a key in the form that people may see: `sk-…last4`, or `…` if it is too short to show a part."""
    if len(value) < 12:
        return "…"
    head = value[:3] if value[2:3] == "-" else ""
    return f"{head}…{value[-4:]}"


def redact(text: str) -> str:
    """Return `text` without the secrets of this process and without values of secret-named query parameters."""
    for spelling, shown in _known.items():
        if spelling in text:
            text = text.replace(spelling, shown)
    lowered = text.lower()
    if "=" in lowered:
        text = _QUERY.sub(lambda match: f"{match[1]}…", text)
    if "=" in lowered or ":" in lowered:
        text = _NAMED.sub(lambda match: f"{match[1]}…", text)
    if "bearer" in lowered:
        text = _BEARER.sub(lambda match: f"{match[1]}…", text)
    return text


def redact_value(value: Any) -> Any:
    """Return plain JSON with every string in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_value(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list):
        return [redact_value(item) for item in cast("list[Any]", value)]
    return value


def _remember(value: str) -> None:
    global _known
    from urllib.parse import quote  # takes 2 ms to import; only needed once a model is created

    shown = mask(value)
    quoted = {quote(value, safe=safe, errors="replace") for safe in ("", "/")}
    spellings = {value, *quoted, value.replace("/", "\\/"), *_in_base64(value)}
    if not spellings <= _known.keys():
        # Longest first: of two keys with the same beginning, the shorter one must not leave the rest of the longer one.
        # A new dict each time, because other threads may be iterating over the old one.
        both = {**_known, **dict.fromkeys(spellings, shown)}
        _known = dict(sorted(both.items(), key=lambda item: -len(item[0])))


def _in_base64(value: str) -> Iterator[str]:
    """Yield the base64 forms of `value`, also with text before it, as in `user:password`."""
    data = value.encode("utf-8", "surrogatepass")
    yield base64.b64encode(data).decode().rstrip("=")
    for before in range(3):
        # Only the characters whose six bits all belong to the value.
        inner = slice((before * 8 + 5) // 6, (before + len(data)) * 8 // 6)
        encoded = base64.b64encode(bytes(before) + data)[inner].decode()
        yield from (encoded, encoded.replace("+", "-").replace("/", "_"))


class Secret:
    """A text that is never shown: `repr`, `str`, `format` and pickles contain only its mask.

    `reveal()` is called in one place, where headers and signatures are made.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        if len(value) >= _MIN_LENGTH:
            _remember(value)

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({mask(self._value)!r})"

    def __str__(self) -> str:
        return mask(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self  # a copied model must still be able to sign

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return (Secret, (mask(self._value),))


class SecretFilter:
    """Logging filter that redacts every record: the message, its arguments, the traceback and the stack.

    It does not derive from `logging.Filter`, so that importing it does not import `logging`. Since Python 3.2 a filter
    is any object with a method `filter`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` in place and let it pass."""
        record.msg = redact(record.getMessage())
        record.args = None
        if record.exc_info and not record.exc_text:
            import logging

            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def library_logger(name: str) -> logging.Logger:
    """Return the logger `lmagent.<name>`: silent until the program configures logging; its records are redacted."""
    import logging  # a tenth of the import time of an agent; only needed for the first record

    root = logging.getLogger("lmagent")
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    logger = root.getChild(name)
    if not any(isinstance(each, SecretFilter) for each in logger.filters):
        logger.addFilter(SecretFilter())
    return logger
