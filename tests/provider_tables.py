"""The tables of docs/providers/index.md, made from the code. Refresh them with `python -m tests.provider_tables`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmagent.cli.capabilities import COLUMNS, DOORS, row_of
from lmagent.loading import provider_table
from lmagent.providers.compatible import PROFILES

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "docs" / "providers" / "index.md"

_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


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
        if entry.prefix in PROFILES:
            profile = PROFILES[entry.prefix]
            names = [*profile.key_env, *profile.base_url_env]
        else:
            names = _variables(str(entry.home).partition(":")[0])
        names = list(dict.fromkeys([*(name for group in entry.keys for name in group), *names]))
        if names:
            rows.append((f"`{entry.prefix}`", ", ".join(f"`{name}`" for name in names)))
    return _table(("Provider", "Variables"), rows)


def _variables(module: str) -> list[str]:
    """Return the names of variables that a front door writes down, in order."""
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    public = next(node.value for node in tree.body if isinstance(node, ast.Assign) and _is_all(node))
    ours = {node.value for node in ast.walk(public) if isinstance(node, ast.Constant)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if _VARIABLE.fullmatch(text) and text not in ours]


def _is_all(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)


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
