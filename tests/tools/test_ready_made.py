"""Common rules of all ready-made tools: they have schemas, accept JSON text, and are not loaded by default."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lmagent import Tool
from lmagent.errors import ConfigurationError
from lmagent.toolkit.sources import load_tools
from lmagent.tools import calculator, clock, files, shell, web

READY = {"calculator": ["calculator"], "clock": ["add_to_date", "convert_time", "current_time", "days_between"]}
FOLDER = Path(calculator.__file__).parent


def _made(tmp_path: Path) -> list[Tool[..., Any]]:
    return [
        *files.file_tools(tmp_path, write=True),
        web.web_fetch(hosts=["example.com"]),
        shell.run_program(programs=["cat"], root=tmp_path, approve=lambda command: True),
    ]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
def test_modules_contain_harmless_tools_or_factories(name: str):
    module = import_module(f"lmagent.tools.{name}")
    ready = sorted(key for key, value in vars(module).items() if isinstance(value, Tool))
    assert ready == READY.get(name, [])
    factories: dict[str, str] = getattr(module, "FACTORIES", {})
    assert bool(ready) != bool(factories)
    for factory, example in factories.items():
        assert callable(getattr(module, factory))
        assert example.startswith(factory + "(")


def test_tools_are_loaded_by_name(tmp_path: Path):
    assert load_tools("calculator") == [calculator.calculator]
    assert sorted(tool.name for tool in load_tools("clock")) == READY["clock"]
    with pytest.raises(ConfigurationError, match=r'Build one first: file_tools\(root="some/folder", write=False\)'):
        load_tools("files")
    with pytest.raises(ConfigurationError, match=r"Build one first: web_fetch\(hosts="):
        load_tools("web")
    with pytest.raises(ConfigurationError, match=r"Build one first: run_program\(programs="):
        load_tools("shell")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_modules_import_only_the_standard_library_and_lmagent(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            module = node.module or ""
            if module.split(".")[0] == "lmagent":
                assert module == "lmagent"
                assert {alias.name for alias in node.names} <= {"Tool", "ToolError", "function"}
            else:
                assert module.split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__")


def test_every_parameter_has_a_description(tmp_path: Path):
    tools = [getattr(import_module(f"lmagent.tools.{name}"), tool) for name in READY for tool in READY[name]]
    for tool in [*tools, *_made(tmp_path)]:
        schema = tool.json_schema
        assert schema["description"], tool.name
        assert "Args" not in schema["description"]
        for name, parameter in schema["parameters"]["properties"].items():
            assert parameter.get("description"), (tool.name, name)


def test_calculator_description_is_short_enough_for_a_small_model():
    assert len(str(calculator.calculator.json_schema)) < 360


def test_every_tool_declares_its_effects(tmp_path: Path):
    effects = {tool.name: sorted(tool.options.effects) for tool in _made(tmp_path)}
    assert effects == {
        "read_file": ["reads"],
        "list_files": ["reads"],
        "search_files": ["reads"],
        "write_file": ["writes"],
        "web_fetch": ["network"],
        "run_program": ["irreversible", "network", "reads", "writes"],
    }


def test_tools_accept_json_text_from_a_model(tmp_path: Path):
    tools = {tool.name: tool for tool in _made(tmp_path)}
    assert calculator.calculator.call('{"expression": "6 × 7"}') == "42"
    assert clock.days_between.call('{"start": "2024-02-28", "end": "2024-03-01"}').startswith("2 days")
    arguments = '{"time": "2025-03-30T14:00", "to_timezone": "Asia/Tokyo", "from_timezone": "UTC"}'
    assert clock.convert_time.call(arguments) == "2025-03-30 23:00:00+09:00 Sunday (Asia/Tokyo)"
    tools["write_file"].call('{"path": "a.txt", "content": "hi"}')
    assert tools["read_file"].call('{"path": "a.txt"}') == "hi"
    assert tools["run_program"].call('{"program": "cat", "arguments": ["a.txt"]}') == "exit status 0\nhi"


def test_function_is_the_decorator_after_any_import_order():
    code = (
        "import lmagent.toolkit.tool, lmagent.toolkit.registry; from lmagent import function; function(len, name='x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FOLDER.parent)
