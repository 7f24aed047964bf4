"""`import lmagent` loads no slow modules and takes almost no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLOW = (
    "httpx2",
    "httpcore2",
    "httpx",
    "h11",
    "pydantic",
    "pydantic_core",
    "asyncio",
    "ssl",
    "rich",
    "tenacity",
    "docstring_parser",
    "typer",
)


def _loaded(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_import_lmagent_loads_no_slow_modules():
    assert _loaded("import lmagent") & set(SLOW) == set()


@pytest.mark.parametrize(
    ("statement", "may"),
    [
        ("from lmagent import function\n@function\ndef f(a: int) -> int: return a\nf(1)", ()),
        ("from lmagent import UserMessage, ToolError, Limits", ("asyncio", "pydantic_core", "typing_extensions")),
        ("import lmagent.errors, lmagent.core.redaction, lmagent.core.messages, lmagent.core.events", ()),
        ("import lmagent.testing", ()),
        ("from lmagent import OpenAIChat\nOpenAIChat('m', api_key='k')", ("pydantic_core", "asyncio")),
    ],
)
def test_public_name_loads_only_the_slow_modules_it_needs(statement: str, may: tuple[str, ...]):
    assert _loaded(statement) & set(SLOW) <= set(may)


def test_import_lmagent_takes_at_most_60_ms():
    code = (
        "import time\nstart = time.process_time()\nimport lmagent\n"
        "print(round((time.process_time() - start) * 1000, 2))"
    )
    times: list[float] = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        times.append(json.loads(done.stdout))
    assert min(times) <= 60
