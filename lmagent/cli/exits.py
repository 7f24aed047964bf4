"""Exit codes, one table, and how an error is told to a person."""

from __future__ import annotations

import sys
from typing import NoReturn

from lmagent.engines.printer import printable
from lmagent.errors import (
    ConfigurationError,
    JournalError,
    LimitExceeded,
    LMAgentError,
    OutputError,
    ProviderError,
    ToolError,
)

__all__ = ["EXIT_CODES", "FAILED", "INTERRUPTED", "OK", "USAGE", "fail", "leave"]

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

EXIT_CODES: tuple[tuple[type[BaseException], int, str], ...] = (
    (ConfigurationError, 3, "the set-up cannot work: no key, unknown model, bad tool, parameter or file"),
    (ProviderError, 4, "the provider failed or refused"),
    (LimitExceeded, 5, "a limit was reached"),
    (OutputError, 6, "the answer did not fit its type"),
    (ToolError, 7, "a tool failed (`tools call`)"),
    (JournalError, 8, "a journal cannot be used"),
    (LMAgentError, FAILED, "anything else"),
    (KeyboardInterrupt, INTERRUPTED, "interrupted"),
)
"""Exception -> exit code and what it means; 0 is success, 2 a wrong command line."""


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Say what is wrong on standard error and leave."""
    sys.stderr.write(f"lmagent: {printable(message)}\n")
    raise SystemExit(code)


def leave(error: BaseException) -> NoReturn:
    """Tell a person about `error` in one line and leave with its code."""
    code = next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), FAILED)
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("\nlmagent: interrupted\n")
    else:
        sys.stderr.write(f"lmagent: {type(error).__name__}: {printable(str(error))}\n")
    raise SystemExit(code) from None
