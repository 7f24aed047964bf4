"""The typer application: all commands, the help text and the handling of errors."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from lmagent import __version__
from lmagent.cli.batch import batch
from lmagent.cli.info import doctor, models, probe
from lmagent.cli.options import EXIT_CODES, FAILED, OK, USAGE, leave
from lmagent.cli.run import chat, run
from lmagent.cli.tools import tools_app
from lmagent.cli.trace import trace_app
from lmagent.errors import LMAgentError

__all__ = ["app", "run_app"]

_MEANINGS = {code: meaning for _, code, meaning in EXIT_CODES} | {OK: "done", USAGE: "wrong command line"}


class _Commands(TyperGroup):
    """Turn errors and Ctrl-C into lmagent's messages and exit codes, before typer handles Ctrl-C."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # typer's context instead of click's
        try:
            return super().invoke(ctx)
        except (LMAgentError, KeyboardInterrupt) as error:
            leave(error)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tool-using assistants whose tools work on every model.",
    epilog="\n".join(["Exit codes:", *(f"{code}: {_MEANINGS[code]}" for code in sorted(_MEANINGS))]),
)
app.command()(run)
app.command()(chat)
app.command()(batch)
app.add_typer(tools_app, name="tools")
app.add_typer(trace_app, name="trace")
app.command()(models)
app.command()(probe)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"lmagent {__version__}\n")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tool-using assistants whose tools work on every model."""


def run_app() -> None:
    """Run the command line. Every error becomes one line and an exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller closed it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open until the process ends
    stdout: object = sys.stdout
    if isinstance(stdout, TextIOWrapper):  # an answer may have characters that the terminal's encoding lacks
        cast("TextIOWrapper[Any]", stdout).reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        # A closed pipe is normal (`| head`); a full disk is an error.
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"lmagent: {error}\n")
        # Discard buffered output; otherwise the interpreter reports an error at exit.
        devnull = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(devnull, stream.fileno())
        raise SystemExit(FAILED) from None
