"""Tools found by name, path or module: ready-made ones, the user's own files and folders.

A ready-made tool is a module of `lmagent.tools`. In a bare checkout that package is the folder `tools/` beside
`lmagent/`; it is loaded under the same module name, so both ways give the same objects.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from lmagent.core.redaction import redact
from lmagent.errors import ConfigurationError
from lmagent.toolkit.tool import Tool

__all__ = ["load_tools", "ready_made_names"]

_PACKAGE = "lmagent.tools"
_NAME = re.compile(r"[A-Za-z]\w*\Z")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\Z")


def load_tools(source: Any) -> list[Any]:
    """Return the tools of a source.

    Args:
        source: `"calculator"` (ready-made), `"package.module"`, `"./mine.py"`, `"./folder"`, a `Path`, a module, or
            anything a registry takes, which is handed on.

    Raises:
        ConfigurationError: Nothing there, an import that fails, or a file without tools.
    """
    if isinstance(source, ModuleType):
        return _tools_in(source, source.__name__)
    if isinstance(source, os.PathLike):
        return _from_path(Path(cast("os.PathLike[str]", source)))
    if not isinstance(source, str):
        return [source]
    if _NAME.match(source) and source in ready_made_names():
        return _tools_in(_imported(f"{_PACKAGE}.{source}", source), source)
    path = Path(source)
    if path.exists():
        return _from_path(path)
    if _DOTTED.match(source) and not source.endswith(".py"):
        return _tools_in(_imported(source, source), source)
    raise ConfigurationError(
        f"No tools found at {source!r}: it is no ready-made tool ({', '.join(ready_made_names()) or 'none here'}) "
        "and no file, folder or module."
    )


def ready_made_names() -> tuple[str, ...]:
    """Return the names of the ready-made tools that are installed."""
    names = {
        file.stem
        for folder in _package().__path__
        for file in Path(folder).glob("*.py")
        if _NAME.match(file.stem) and file.stem != "__init__"
    }
    return tuple(sorted(names))


def _package() -> ModuleType:
    """Return the package `lmagent.tools`, installed or beside a bare checkout."""
    try:
        return importlib.import_module(_PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != _PACKAGE:
            raise
    folder = Path(__file__).resolve().parents[2] / "tools"
    init = folder / "__init__.py"
    if init.is_file():
        module = _executed(_PACKAGE, init, search=[str(folder)])
    else:
        module = ModuleType(_PACKAGE)
        module.__path__ = [str(folder)]
        sys.modules[_PACKAGE] = module
    setattr(sys.modules["lmagent"], "tools", module)  # noqa: B010  # as the import system would
    return module


def _from_path(path: Path) -> list[Any]:
    if path.is_dir():
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        tools = [tool for file in files for tool in _found_in(_from_file(file))]
        if not tools:
            raise ConfigurationError(f"No tools in the folder {str(path)!r}: none of its .py files has a @function.")
        return _distinct(tools)
    if not path.is_file():
        raise ConfigurationError(f"No tools found at {str(path)!r}: no such file or folder.")
    if path.suffix != ".py":
        raise ConfigurationError(f"{str(path)!r} is no Python file: tools are loaded from .py files.")
    return _tools_in(_from_file(path), str(path))


def _from_file(path: Path) -> ModuleType:
    """Return the module of a file; the same file always gives the same module."""
    resolved = path.resolve()
    if any(resolved.parent == Path(folder).resolve() for folder in _package().__path__):
        return _imported(f"{_PACKAGE}.{resolved.stem}", str(path))
    digest = hashlib.sha1(str(resolved).encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:8]
    name = f"lmagent_loaded_{re.sub(r'[^0-9A-Za-z]', '_', resolved.stem)}_{digest}"
    known = sys.modules.get(name)
    return known if known is not None else _executed(name, resolved)


def _executed(name: str, path: Path, search: list[str] | None = None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    assert spec is not None  # a .py file always has a spec
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and hints look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code
        sys.modules.pop(name, None)
        raise _import_error(str(path), error) from error
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _imported(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # the module's own code
        raise _import_error(shown, error) from error


def _import_error(shown: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"Tools cannot be loaded from {shown!r}: {type(error).__name__}: {redact(str(error))}")


def _tools_in(module: ModuleType, shown: str) -> list[Any]:
    tools = _found_in(module)
    if not tools:
        factories: Mapping[str, str] = getattr(module, "FACTORIES", {})  # name -> how to call it
        hint = f" Build one first: {', '.join(factories.values())}." if factories else ""
        raise ConfigurationError(f"No tools in {shown!r}: it has no @function at its top level.{hint}")
    return tools


def _found_in(module: ModuleType) -> list[Any]:
    """Return the tools a module offers: those of `__all__`, else every public one at its top level."""
    listed: Iterable[str] | None = getattr(module, "__all__", None)
    names = [name for name in vars(module) if not name.startswith("_")] if listed is None else list(listed)
    return _distinct([value for name in names if isinstance(value := getattr(module, name, None), Tool)])


def _distinct(tools: list[Any]) -> list[Any]:
    return list({id(tool): tool for tool in tools}.values())
