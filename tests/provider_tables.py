"""The tables of docs/providers/index.md, made from the code. Refresh them with `python -m tests.provider_tables`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmagent.cli.capabilities import COLUMNS, DOORS, row_of
from lmagent.loading import provider_table

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "docs" / "providers" / "index.md"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def features() -> str:
    """Return the table of what each platform can do."""
    return _table(COLUMNS, ([f"`{row[0]}`", *row[1:]] for row in map(row_of, DOORS)))


def environment() -> str:
    """Return the table of every variable that is read, by the prefix of the model id."""
    rows: list[tuple[str, str]] = [("(any)", "`LMAGENT_MODEL`")]
    for entry in provider_table().values():
        if entry.variables:
            rows.append((f"`{entry.prefix}`", ", ".join(f"`{name}`" for name in entry.variables)))
    return _table(("Provider", "Variables"), rows)


TABLES = {"features": features, "environment": environment}


def rendered(page: str) -> str:
    """Return the page with its tables as the code has them."""
    for name, table in TABLES.items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)",
            lambda found, table=table: found[1] + table() + found[2],
            page,
            flags=re.DOTALL,
        )
    return page


if __name__ == "__main__":
    INDEX.write_text(rendered(INDEX.read_text(encoding="utf-8")), encoding="utf-8")
