"""The wheel and the sdist can be installed and work, with the ready-made tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("lmagent", "tools", "pyproject.toml", "README.md", "LICENSE")

_TRY = """
import lmagent, sys
from lmagent import Agent, ToolRegistry, __version__
from lmagent.testing import ScriptedModel, calls
assert lmagent.__file__.startswith(sys.argv[1]), lmagent.__file__
from lmagent.tools.calculator import calculator
import lmagent.tools
assert lmagent.tools.__file__.startswith(sys.argv[1])
registry = ToolRegistry()
registry.load("calculator")
assert registry.get("calculator") is calculator
model = ScriptedModel([calls(("calculator", {"expression": "17 * 23"})), "391"])
print(__version__, Agent(model, registry).run("?").messages[2].content)
"""


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _backend_is_there() -> bool:
    if find_spec("build") is None:
        return False
    from importlib.metadata import version

    return int(version("setuptools").split(".")[0]) >= 77


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the sdist of a copy of the source tree."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    tree.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, tree / part)
    if not _backend_is_there():
        pytest.skip("needs the packages build and setuptools>=77 (extra `test`); nothing is downloaded by a test")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", cwd=tree)
    return folder / "dist"


def _installed(what: Path, target: Path) -> None:
    _run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "--quiet",
        "--disable-pip-version-check", "--root-user-action=ignore", "--target", target, what, cwd=target.parent,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_installed_archive_runs_a_tool(built: Path, tmp_path: Path, kind: str):
    [archive] = built.glob(f"*.{kind}")
    target = tmp_path / "site"
    _installed(archive, target)
    code = tmp_path / "try.py"
    code.write_text(_TRY, "utf-8")
    shown = _run(sys.executable, "-P", code, str(target), cwd=tmp_path, PYTHONPATH=str(target))
    assert shown.split() == ["0.1.0", "391"]
    listed = _run(sys.executable, "-P", "-m", "lmagent", "tools", "list", cwd=tmp_path, PYTHONPATH=str(target))
    assert "calculator" in listed


def test_archives_have_the_expected_files(built: Path):
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"lmagent/__init__.py", "lmagent/py.typed", "lmagent/tools/calculator.py", "lmagent/cli/app.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "tools/", "docs", "examples"))]
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "Requires-Python: >=3.11" in text
    assert "License-Expression: Apache-2.0" in text
    for extra in ("local", "test", "docs"):
        assert f"Provides-Extra: {extra}" in text
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "lmagent/py.typed", "tools/calculator.py", "LICENSE"} <= inside
