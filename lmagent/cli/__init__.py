"""The command `lmagent`: words for the shell, and nothing that the library cannot do.

Results go to standard output, everything else to standard error. Exit codes: see `lmagent.cli.options`.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; leaves the process with its exit code."""
    try:
        from lmagent.cli.app import run_app  # typer and rich are not needed to import the package

        run_app()
    except KeyboardInterrupt:  # before a command began
        sys.stderr.write("\nlmagent: interrupted\n")
        raise SystemExit(130) from None
