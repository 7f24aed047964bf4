"""`lmagent tools`: what is there, what a model sees of it, and calling one by hand."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from lmagent.cli.exits import fail
from lmagent.cli.options import ToolOption, build_tools
from lmagent.errors import ToolError
from lmagent.jsontext import dumps_text
from lmagent.messages import ToolCall
from lmagent.registry import ToolRegistry

__all__ = ["tools_app"]

tools_app = typer.Typer(no_args_is_help=True, help="List, show and call tools.")


def _registry(sources: list[str] | None) -> ToolRegistry:
    """The tools named, or all ready-made ones that need no settings."""
    if sources:
        return build_tools(sources)
    from importlib import import_module

    from lmagent.tool_sources import ready_made_names

    registry = ToolRegistry()
    for name in ready_made_names():
        if not getattr(import_module(f"lmagent.tools.{name}"), "FACTORIES", None):
            registry.load(name)
    return registry


@tools_app.command("list")
def list_tools(
    tool: ToolOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the ready-made tools, or those that --tool names."""
    registry = _registry(tool)
    if as_json:
        sys.stdout.write(dumps_text([each.json_schema for each in registry], indent=2) + "\n")
        return
    width = max((len(each.name) for each in registry), default=0)
    for each in registry:
        sys.stdout.write(f"{each.name:<{width}}  {each.description.partition(chr(10))[0]}\n")
    if tool:
        return
    from importlib import import_module

    from lmagent.tool_sources import ready_made_names

    for name in ready_made_names():
        factories: dict[str, str] = getattr(import_module(f"lmagent.tools.{name}"), "FACTORIES", {})
        for example in factories.values():
            sys.stderr.write(f"needs settings: --tool {name}:...   in Python {example}\n")


@tools_app.command("show")
def show_tool(name: str, tool: ToolOption = None) -> None:
    """Print what a model sees of a tool, as JSON."""
    sys.stdout.write(dumps_text(_registry(tool).get(name).json_schema, indent=2) + "\n")


@tools_app.command("call")
def call_tool(
    name: str,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help='Arguments: one JSON object, or name=value pairs. "-" reads standard input.'),
    ] = None,
    tool: ToolOption = None,
) -> None:
    """Call a tool as a model would, and print what the model would get."""
    registry = _registry(tool)
    registry.get(name)
    outcome = registry.run_one(ToolCall(id="cli", name=name, arguments=_arguments(arguments or [])))
    if outcome.is_error:
        raise ToolError(outcome.content)
    sys.stdout.write(outcome.content + "\n")


def _arguments(given: list[str]) -> str:
    if given == ["-"]:
        return sys.stdin.read()
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        return given[0]
    values: dict[str, Any] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals:
            fail(f"Arguments are one JSON object or name=value pairs, not {item!r}.")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return dumps_text(values)
