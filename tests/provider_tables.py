"""The tables of docs/providers/*.md, made from the code. Refresh them with `python -m tests.provider_tables`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmagent.cli.info import COLUMNS, DOORS, row_of
from lmagent.models.loading import provider_table
from lmagent.providers.vendors import PROFILES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "providers").glob("*.md"))
INDEX = ROOT / "docs" / "providers" / "index.md"

_OF_VENDORS = ("Model id", "tool_choice", "Images", "JSON", "Reasoning")
"""Columns in which vendors differ; all have native function calls, several at once and streamed."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def features() -> str:
    """Return the table of what each platform can do."""
    return _table(COLUMNS, ([f"`{row[0]}`", *row[1:]] for row in map(row_of, DOORS)))


def vendors() -> str:
    """Return what differs between the vendors of the compatible page, and where they are."""
    rows: list[list[str]] = []
    for door in DOORS:
        profile = PROFILES.get(door.model_id.partition("/")[0])
        if profile:
            cells = dict(zip(COLUMNS, row_of(door), strict=True))
            first, *others = (cells[name] for name in _OF_VENDORS)
            rows.append([f"`{first}`", f"`{profile.base_url}`" if profile.base_url else "yours", *others])
    return _table((_OF_VENDORS[0], "Address", *_OF_VENDORS[1:]), rows)


def environment() -> str:
    """Return the table of every variable that is read, by the prefix of the model id."""
    rows: list[tuple[str, str]] = [("(any)", "`LMAGENT_MODEL`")]
    for entry in provider_table().values():
        if entry.variables:
            rows.append((f"`{entry.prefix}`", ", ".join(f"`{name}`" for name in entry.variables)))
    return _table(("Provider", "Variables"), rows)


TABLES = {"features": features, "environment": environment, "vendors": vendors}


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
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
