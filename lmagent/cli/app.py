"""The commands, put together."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from lmagent import __version__
from lmagent.cli.batch import batch
from lmagent.cli.chatting import chat
from lmagent.cli.exits import EXIT_CODES, leave
from lmagent.cli.info import doctor, models
from lmagent.cli.probe import probe
from lmagent.cli.running import run
from lmagent.cli.tools import tools_app
from lmagent.cli.trace import trace_app
from lmagent.errors import LMAgentError

__all__ = ["app", "run_app"]

_CODES = "\n\n".join(f"{code}: {meaning}" for _, code, meaning in EXIT_CODES)


class _Commands(TyperGroup):
    """Ends with our own words and codes, before typer finds some for Ctrl-C."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # click's context is typer's
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
    epilog=f"Exit codes:\n\n0: done\n\n2: wrong command line\n\n{_CODES}",
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
    """Run the command line; every error becomes one line and an exit code."""
    stdout: object = sys.stdout
    if isinstance(stdout, TextIOWrapper):  # an answer may hold what the terminal's encoding lacks
        cast("TextIOWrapper[Any]", stdout).reconfigure(errors="backslashreplace")
    try:
        app()
    except BrokenPipeError:
        # Whoever read our output has gone; writing on at exit would only complain.
        sys.stderr.close()
        raise SystemExit(1) from None
