"""Secrets: values that are never shown, and the one `redact` that takes them out of any text.

Knows nothing of providers. Every `Secret` made in this process is remembered (its text only, never its
owner), so that an error, a log line or a trace can be cleaned wherever it is made.
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
"""Shorter values are not remembered: replacing them would eat ordinary words."""

_known: dict[str, str] = {}
"""Every spelling of every secret of the process -> its mask."""

_QUERY = re.compile(
    r"(?i)([?&](?:access_token|api[_-]?key|key|token|secret|client_secret|client_id|signature|sign|password)=)[^\s&\"'#]+"
)
_NAMED = re.compile(
    r"(?i)((?<![A-Za-z0-9])(?:access_token|api[_-]?key|client_secret|secret_?key|password|authorization|x-api-key)"
    r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?)((?:bearer\s{1,3})?[^\s&\"',;#}]{4,})"
)
"""Only names that say a secret follows: in prose and in tools' errors, "token: x" and "key: x" mean something else."""
_BEARER = re.compile(r"(?i)\b(bearer\s+)([A-Za-z0-9._~+/=-]{8,})")


def mask(value: str) -> str:
    """Return how a key is shown to people: `sk-…last4`, or `…` when it is too short to show any of it."""
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
    """Return plain JSON with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_value(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list):
        return [redact_value(item) for item in cast("list[Any]", value)]
    return value


def _remember(value: str) -> None:
    global _known
    from urllib.parse import quote  # 2 ms of an import; a model is made later, or never

    shown = mask(value)
    quoted = {quote(value, safe=safe, errors="replace") for safe in ("", "/")}
    spellings = {value, *quoted, value.replace("/", "\\/"), *_in_base64(value)}
    if not spellings <= _known.keys():
        # The longest first, or a key that begins like another would leave its rest behind; a new dict each time,
        # because other threads may be reading the old one.
        both = {**_known, **dict.fromkeys(spellings, shown)}
        _known = dict(sorted(both.items(), key=lambda item: -len(item[0])))


def _in_base64(value: str) -> Iterator[str]:
    """Yield how `value` reads in base64, also with something in front of it, as in `user:password`."""
    data = value.encode("utf-8", "surrogatepass")
    yield base64.b64encode(data).decode().rstrip("=")
    for before in range(3):
        # Only characters whose six bits are all the value's.
        inner = slice((before * 8 + 5) // 6, (before + len(data)) * 8 // 6)
        encoded = base64.b64encode(bytes(before) + data)[inner].decode()
        yield from (encoded, encoded.replace("+", "-").replace("/", "_"))


class Secret:
    """A text that never shows itself: `repr`, `str`, `format` and pickles give only its mask.

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
    """Logging filter that redacts every record: the message, its arguments and the exception text."""

    def filter(self, record: logging.LogRecord) -> bool:
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
    """Return the logger `lmagent.<name>`: silent unless the program listens, and cleaned of secrets."""
    import logging  # a tenth of the import of an agent; needed by the first line that is logged

    root = logging.getLogger("lmagent")
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    logger = root.getChild(name)
    if not any(isinstance(each, SecretFilter) for each in logger.filters):
        logger.addFilter(SecretFilter())
    return logger
