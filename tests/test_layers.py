"""Arrows point down: a module imports only from lower floors or its own room. See docs/architecture.md."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import lmagent

ROOT = Path(__file__).resolve().parent.parent / "lmagent"

GROUND = "values errors redaction logs messages prompts events schema framing jsontext context history portal"
FLOORS: tuple[tuple[str, ...], ...] = (
    tuple(GROUND.split()),
    (
        "describing", "calling", "definitions", "function", "running", "registry", "tool_sources", "parameters",
        "budget", "watching",
    ),
    ("providers", "prompting", "trimming"),
    ("caching", "transport"),
    ("chat_models", "credentials", "fallback", "loading", "model", "output", "sessions"),
    ("agent", "approval", "drivers", "flow", "hooks", "otel", "probing", "result", "tracing"),
    ("bulk", "chat_engine", "completion_engine", "printer"),
    ("cli", "__main__"),
)  # fmt: skip
"""Rooms by floor, from the ground up. `testing` stands beside the house and may look into any floor."""

BESIDE = ("testing", "__init__", "tools")

HEIGHT = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def _room(module: str) -> str:
    """`lmagent.transport.http` -> `transport`."""
    return module.split(".")[1] if "." in module else "__init__"


def _modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)


def _named(name: str) -> str:
    """`from lmagent import errors` names a room, `from lmagent import Agent` the front door."""
    is_room = (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()
    return f"lmagent.{name}" if is_room and name not in lmagent.__all__ else "lmagent"


@cache
def _parsed(path: Path) -> ast.Module:
    text = path.read_text("utf-8")
    try:
        return ast.parse(text)
    except SystemError:  # CPython 3.11 miscounts its own depth now and then, when a collection runs in the middle
        return ast.parse(text)


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Every import of ours in a file, also inside functions; whether it is for type checkers only."""
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


def test_every_room_has_a_floor():
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in _modules()}
    assert rooms - set(BESIDE) <= set(HEIGHT)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path: Path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room in BESIDE:
        return
    for module, typing_only in _imports(path):
        target = _room(module)
        if typing_only or target == room or (room in ("cli",) and target == "__init__"):
            continue
        assert target not in BESIDE, f"{room} imports {module}"
        assert HEIGHT[target] <= HEIGHT[room], (
            f"{room} (floor {HEIGHT[room]}) imports {module} (floor {HEIGHT[target]})"
        )


def test_there_is_no_cycle_between_rooms():
    """Imports at the top of modules, room by room: no room can be reached from itself."""
    arrows: dict[str, set[str]] = {}
    for path in _modules():
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in BESIDE:
            continue
        targets = {_room(module) for module, typing_only in _imports(path) if not typing_only}
        arrows.setdefault(room, set()).update(targets - {room, *BESIDE})
    remaining = dict(arrows)
    while remaining:
        free = [room for room, targets in remaining.items() if not targets & remaining.keys()]
        assert free, f"a cycle among {sorted(remaining)}"
        for room in free:
            del remaining[room]


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("httpx", {"transport"}),
        ("h11", {"transport"}),
        ("tenacity", {"transport"}),
        ("rich", {"bulk", "printer", "cli"}),
        ("typer", {"cli"}),
        ("llama_cpp", {"transport"}),
    ],
)
def test_a_library_is_imported_in_one_room(library: str, rooms: set[str]):
    found: set[str] = set()
    for path in _modules():
        for node in ast.walk(_parsed(path)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == library for name in names):
                found.add(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    assert found <= rooms


def test_ready_made_tools_import_only_the_front_door():
    for path in sorted((ROOT.parent / "tools").glob("*.py")):
        for module, _ in _imports(path):
            assert module == "lmagent", path.name
