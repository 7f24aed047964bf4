"""The command line program `lmagent`. It only uses the public API.

Results go to standard output, everything else to standard error. Exit codes: `lmagent.cli.options.EXIT_CODES`.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit the process with its exit code."""
    try:
        from lmagent.cli.app import run_app  # import typer and rich only when the program runs

        run_app()
    except KeyboardInterrupt:  # before a command has started
        sys.stderr.write("\nlmagent: interrupted\n")
        raise SystemExit(130) from None
