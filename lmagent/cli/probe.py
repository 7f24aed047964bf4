"""`lmagent probe`: asks a model what it can do with tools."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lmagent.cli.options import build_model
from lmagent.core.json_text import dumps_text
from lmagent.printer import printable

__all__ = ["probe"]


def probe(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model id, e.g. openai/gpt-5.4-mini. Default: LMAGENT_MODEL, the first key found, or local."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    dry_run: Annotated[bool, typer.Option("--plan", help="Only list the requests; ask nothing.")] = False,
) -> None:
    """Find out what a model can do with tools: a few small requests, then the mode to use."""
    from lmagent.probing import MAX_TOKENS, Check, plan  # loads prompt mode: only for this command
    from lmagent.probing import probe as ask

    with build_model(model) as made:
        questions = plan(made)
        sys.stderr.write(
            f"{made.model_id}: {len(questions)} small requests, at most {MAX_TOKENS} output tokens each "
            f"({len(questions) * MAX_TOKENS} in all) and about 400 input tokens each.\n"
        )
        if dry_run:
            for name, about in questions:
                sys.stdout.write(f"{name}: {about}\n")
            return

        def told(check: Check) -> None:
            sys.stderr.write(f"  {check.name}: {'yes' if check.ok else 'no'}\n")

        report = ask(made, on_check=told)
    text = dumps_text(report.to_dict(), indent=2) if as_json else printable(str(report))
    sys.stdout.write(text + "\n")
