"""`lmagent tools`: list tools, show their schemas, and call one by hand."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer

from lmagent.cli.options import JSONOption, ToolOption, build_tools, factories, fail, read_stdin, value_of, write_json
from lmagent.core.json_text import dumps_text
from lmagent.core.messages import ToolCall
from lmagent.engines.printer import printable
from lmagent.errors import ToolError
from lmagent.toolkit.registry import ToolRegistry
from lmagent.toolkit.sources import ready_made_names

__all__ = ["tools_app"]

tools_app = typer.Typer(no_args_is_help=True, help="List, show and call tools.")


NameArgument = Annotated[str, typer.Argument(help="Name of the tool, as shown by `tools list`.")]


def _registry(sources: list[str] | None) -> ToolRegistry:
    """Return the given tools, by default all ready-made tools that need no settings."""
    return build_tools(sources or [name for name in ready_made_names() if not factories(name)])


@tools_app.command("list")
def list_tools(tool: ToolOption = None, as_json: JSONOption = False) -> None:
    """List the ready-made tools, or the tools given by --tool."""
    registry = _registry(tool)
    if as_json:
        write_json([each.json_schema for each in registry])
        return
    width = max((len(each.name) for each in registry), default=0)
    for each in registry:
        sys.stdout.write(f"{each.name:<{width}}  {printable(each.description.partition(chr(10))[0])}\n")
    for name in () if tool else ready_made_names():
        for example in factories(name).values():
            sys.stderr.write(f"needs settings: --tool {name}:...   in Python {example}\n")


@tools_app.command("show")
def show_tool(name: NameArgument, tool: ToolOption = None) -> None:
    """Print the definition of a tool that the model gets, as JSON."""
    write_json(_registry(tool).get(name).json_schema)


@tools_app.command("call")
def call_tool(
    name: NameArgument,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="One JSON object, or name=value pairs; - reads the object from standard input."),
    ] = None,
    tool: ToolOption = None,
) -> None:
    """Call a tool as a model would, and print the result that the model would get."""
    registry = _registry(tool)
    written = _arguments(arguments or [], registry.get(name).json_schema["parameters"]["properties"])
    with redirect_stdout(sys.stderr):  # the output of the tool is not its result
        outcome = registry.run_one(ToolCall(id="cli", name=name, arguments=written))
    if outcome.is_error:
        raise ToolError(outcome.content)
    sys.stdout.write(printable(outcome.content) + "\n")


def _arguments(given: list[str], schemas: dict[str, Any]) -> str:
    if given == ["-"]:
        return read_stdin()
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        return given[0]
    values: dict[str, Any] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals:
            fail(f"Write arguments as one JSON object or as name=value pairs, not {item!r}.")
        schema = schemas.get(key, {})
        takes_text = any(each.get("type") == "string" for each in (schema, *schema.get("anyOf", ())))
        values[key] = text if takes_text else value_of(text)
    return dumps_text(values)
