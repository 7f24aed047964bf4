"""A module imports only from lower layers or its own package. See docs/architecture.md."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import lmagent

ROOT = Path(__file__).resolve().parent.parent / "lmagent"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("toolkit",),
    ("providers",),
    ("prompting",),
    ("http",),
    ("asking",),
    ("models",),
    ("observe",),
    ("agent",),
    ("engines",),
    ("cli", "__main__"),
)
"""Packages, lowest layer first. A module imports from lower layers or its own package."""

OUTSIDE = ("__init__", "events", "messages", "testing", "tools")
"""Public paths, the testing kit and the ready-made tools: no module of the layers imports them."""

HEIGHT = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}


def _package(module: str) -> str:
    """`lmagent.asking.retry` -> `asking`. The errors stand at the top for users; they belong to `core`."""
    name = module.split(".")[1] if "." in module else "__init__"
    return "core" if name == "errors" else name


def _package_of(path: Path) -> str:
    return _package(f"lmagent.{path.relative_to(ROOT).parts[0].removesuffix('.py')}")


def _modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)


def _named(name: str) -> str:
    """Return what `from lmagent import name` imports: `errors` is a module, `Agent` a name of the public API."""
    is_package = (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()
    return f"lmagent.{name}" if is_package and name not in lmagent.__all__ else "lmagent"


@cache
def _parsed(path: Path) -> ast.Module:
    text = path.read_text("utf-8")
    try:
        return ast.parse(text)
    except SystemError:  # CPython 3.11 sometimes miscounts the recursion depth when a collection runs during parsing
        return ast.parse(text)


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Return all imports of lmagent in a file, and whether each is for type checkers only."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, typing_only)
            return
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "lmagent":
                names = [alias.name for alias in node.names if alias.name != "__version__"]
                found.extend((_named(name), typing_only) for name in names)
            elif (node.module or "").split(".")[0] == "lmagent":
                found.append((node.module or "", typing_only))
        elif isinstance(node, ast.Import):
            found.extend((alias.name, typing_only) for alias in node.names if alias.name.split(".")[0] == "lmagent")
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(_parsed(path), False)
    return found


def test_every_package_has_a_layer():
    packages = {_package_of(path) for path in _modules()}
    assert packages - set(OUTSIDE) <= set(HEIGHT)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_from_lower_layers(path: Path):
    package = _package_of(path)
    if package in OUTSIDE:
        return
    for module, typing_only in _imports(path):
        target = _package(module)
        if typing_only or target == package or (package in ("cli",) and target == "__init__"):
            continue
        assert target not in OUTSIDE, f"{package} imports {module}"
        assert HEIGHT[target] <= HEIGHT[package], (
            f"{package} (layer {HEIGHT[package]}) imports {module} (layer {HEIGHT[target]})"
        )


def test_packages_have_no_import_cycle():
    """Imports at the top of modules, package by package: no package can be reached from itself."""
    arrows: dict[str, set[str]] = {}
    for path in _modules():
        package = _package_of(path)
        if package in OUTSIDE:
            continue
        targets = {_package(module) for module, typing_only in _imports(path) if not typing_only}
        arrows.setdefault(package, set()).update(targets - {package, *OUTSIDE})
    remaining = dict(arrows)
    while remaining:
        free = [package for package, targets in remaining.items() if not targets & remaining.keys()]
        assert free, f"a cycle among {sorted(remaining)}"
        for package in free:
            del remaining[package]


@pytest.mark.parametrize(
    ("library", "packages"),
    [
        ("httpcore2", {"http"}),
        ("httpx2", set()),
        ("httpx", set()),
        ("h11", set()),
        ("tenacity", {"asking"}),
        ("rich", {"bulk", "printer", "engines", "cli"}),
        ("typer", {"cli"}),
        ("llama_cpp", {"http"}),
    ],
)
def test_a_library_is_imported_in_one_package(library: str, packages: set[str]):
    found: set[str] = set()
    for path in _modules():
        for node in ast.walk(_parsed(path)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == library for name in names):
                found.add(_package_of(path))
    assert found <= packages


def test_ready_made_tools_import_only_the_public_api():
    for path in sorted((ROOT.parent / "tools").glob("*.py")):
        for module, _ in _imports(path):
            assert module == "lmagent", path.name
