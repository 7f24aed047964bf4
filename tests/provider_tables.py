"""Write the tables of docs/providers/*.md from the code: `python -m tests.provider_tables`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmagent.cli.info import COLUMNS, capability_rows
from lmagent.providers.vendors import VENDORS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "providers").glob("*.md"))
INDEX = ROOT / "docs" / "providers" / "index.md"

_DIFFERING = ("tool_choice", "Images", "JSON", "Reasoning")
"""Columns in which OpenAI-compatible vendors differ; all have native function calls, several at once and streamed."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def features() -> str:
    """Return the table of what each API can do."""
    return _table(COLUMNS, ([f"`{row[0]}`", *row[1:]] for row in capability_rows()))


def vendors() -> str:
    """Return the addresses of the OpenAI-compatible vendors and the columns in which they differ."""
    rows: list[list[str]] = []
    for row in capability_rows():
        cells = dict(zip(COLUMNS, row, strict=True))
        entry = VENDORS[row[0].partition("/")[0]]
        if dict(entry.options).get("vendor") == entry.prefix:
            address = entry.api().address
            rows.append([f"`{row[0]}`", f"`{address}`" if address else "yours", *(cells[name] for name in _DIFFERING)])
    return _table((COLUMNS[0], "Address", *_DIFFERING), rows)


def defaults() -> str:
    """Return the table of default models, with the day on which they were checked."""
    rows = [
        (f"`{entry.prefix}`", f"`{entry.default_model}`", entry.checked)
        for entry in VENDORS.values()
        if entry.default_model
    ]
    return _table(("Provider", "Default model", "Checked"), rows)


def environment() -> str:
    """Return the table of all environment variables, by the prefix of the model id."""
    rows: list[tuple[str, str]] = [("(any)", "`LMAGENT_MODEL`")]
    for entry in VENDORS.values():
        if entry.variables:
            rows.append((f"`{entry.prefix}`", ", ".join(f"`{name}`" for name in entry.variables)))
    return _table(("Provider", "Variables"), rows)


TABLES = {"features": features, "defaults": defaults, "environment": environment, "vendors": vendors}


def rendered(page: str) -> str:
    """Return the page with its tables written from the code."""
    for name, table in TABLES.items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)",
            lambda found, table=table: found[1] + table() + found[2],
            page,
            flags=re.DOTALL,
        )
    return page


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
