"""`__all__` is sorted, complete and documented, in `lmagent` and in every module that has one."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lmagent

ROOT = Path(lmagent.__file__).parent
MODULES = sorted(
    ".".join(("lmagent", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if "__pycache__" not in path.parts and path.stem != "__main__"
)


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(Path(module.__file__ or "").read_text("utf-8"))


def _classes_and_functions(tree: ast.Module) -> set[str]:
    made = (node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in made if not node.name.startswith("_")}


def _ruff_sorted(names: list[str]) -> list[str]:
    """Sort constants first, then classes, then functions, as ruff's RUF022 does."""

    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)

    return sorted(names, key=rank)


@pytest.mark.parametrize("name", MODULES)
def test_names_in_all_are_sorted_complete_and_documented(name: str):
    module = importlib.import_module(name)
    tree = _tree(module)
    assert module.__doc__, f"{name} has no docstring"
    listed: list[str] | None = getattr(module, "__all__", None)
    made = _classes_and_functions(tree)
    if listed is None:
        assert not made, f"{name} has no __all__"
        return
    assert listed == _ruff_sorted(list(set(listed)))
    # The commands of `lmagent tools` are registered with typer and not imported.
    assert name == "lmagent.cli.tools" or made <= set(listed)
    for public in listed:
        value: Any = getattr(module, public)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


def test_names_imported_by_other_modules_are_in_all():
    unlisted: list[str] = []
    for user in MODULES:
        for node in ast.walk(_tree(importlib.import_module(user))):
            if not isinstance(node, ast.ImportFrom) or node.module not in MODULES:
                continue
            listed: list[str] = getattr(importlib.import_module(node.module), "__all__", [])
            for alias in node.names:
                is_module = f"{node.module}.{alias.name}" in MODULES
                if alias.name != "*" and alias.name not in listed and not is_module and not alias.name.startswith("__"):
                    unlisted.append(f"{node.module}.{alias.name}, used by {user}")
    assert unlisted == []


def test_public_api_has_exactly_the_names_in_all():
    assert lmagent.__all__ == _ruff_sorted(lmagent.__all__)
    for name in lmagent.__all__:
        assert inspect.getdoc(getattr(lmagent, name)), name
    assert set(lmagent.__all__) == set(lmagent._HOME)  # pyright: ignore[reportPrivateUsage]
    assert set(lmagent.__all__) <= set(dir(lmagent))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lmagent.nothing  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_public_api():
    for node in _tree(lmagent).body:
        if isinstance(node, ast.If):
            seen = {
                alias.name: (inner.module or "").removeprefix("lmagent.")
                for inner in node.body
                if isinstance(inner, ast.ImportFrom)
                for alias in inner.names
            }
            assert seen == lmagent._HOME  # pyright: ignore[reportPrivateUsage]
            return
    raise AssertionError("no TYPE_CHECKING block")


def test_submodule_does_not_replace_a_public_name():
    importlib.import_module("lmagent.function")
    assert callable(lmagent.function)
    assert not isinstance(lmagent.function, ModuleType)


MOVED: dict[str, str] = lmagent._MOVED  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("name", ["events", "messages"])
def test_public_module_has_the_names_of_its_core_module(name: str):
    public = importlib.import_module(f"lmagent.{name}")
    made = importlib.import_module(f"lmagent.core.{name}")
    assert public.__all__ == made.__all__
    assert all(getattr(public, each) is getattr(made, each) for each in made.__all__)


@pytest.mark.parametrize("old", MOVED)
def test_old_import_path_is_the_new_module(old: str):
    spec = importlib.import_module(f"lmagent.{MOVED[old]}").__spec__
    module = importlib.import_module(f"lmagent.{old}")
    assert module is sys.modules[f"lmagent.{MOVED[old]}"]
    assert module.__spec__ is spec, "the module has the spec of the old path"


def test_every_public_method_has_a_docstring():
    missing: list[str] = []
    for name in lmagent.__all__:
        value = getattr(lmagent, name)
        if not inspect.isclass(value):
            continue
        for key, member in vars(value).items():
            if key.startswith("_") or not (inspect.isroutine(member) or isinstance(member, property)):
                continue
            if not inspect.getdoc(getattr(value, key)):
                missing.append(f"{name}.{key}")
    assert missing == []
