"""The library's loggers: `lmagent.*`, silent unless the program listens, and cleaned of secrets.

Loaded by the first line that is logged: `logging` is a tenth of the import of an agent.
"""

from __future__ import annotations

import logging

from lmagent.redaction import redact

__all__ = ["SecretFilter", "library_logger"]


class SecretFilter(logging.Filter):
    """Cleans every record of the loggers it is put on: the message, its arguments and the exception text."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = redact(record.getMessage())
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def library_logger(name: str) -> logging.Logger:
    """Return the logger `lmagent.<name>`: silent unless the program listens, and cleaned of secrets."""
    root = logging.getLogger("lmagent")
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    logger = root.getChild(name)
    if not any(isinstance(each, SecretFilter) for each in logger.filters):
        logger.addFilter(SecretFilter())
    return logger
