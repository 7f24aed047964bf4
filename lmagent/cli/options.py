"""Shared by the commands: exit codes, common options, and building the model, tools and approver from them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from inspect import signature
from typing import Annotated, Any, NoReturn, cast

import typer

from lmagent.agent.result import Allow, Decision, Deny
from lmagent.core.json_text import JSONError, dumps_text, loads
from lmagent.core.messages import ToolCall
from lmagent.engines.printer import printable
from lmagent.errors import (
    ConfigurationError,
    JournalError,
    LimitExceeded,
    LMAgentError,
    OutputError,
    ProviderError,
    ToolError,
)
from lmagent.models.loading import load_from_model_id
from lmagent.models.model import ChatModel
from lmagent.toolkit.registry import ToolRegistry
from lmagent.toolkit.sources import ready_made_names

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "MODEL_HELP",
    "OK",
    "USAGE",
    "ApproveOption",
    "JSONOption",
    "ModelOption",
    "ParameterOption",
    "SystemOption",
    "ToolOption",
    "approver",
    "build_model",
    "build_tools",
    "factories",
    "fail",
    "leave",
    "read_parameters",
    "read_stdin",
    "value_of",
    "write_json",
]

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

EXIT_CODES: tuple[tuple[type[BaseException], int, str], ...] = (
    (ConfigurationError, 3, "wrong configuration: no key, unknown model, bad tool, parameter or file"),
    (ProviderError, 4, "the provider failed or refused"),
    (LimitExceeded, 5, "a limit was reached"),
    (OutputError, 6, "the answer did not match its type"),
    (ToolError, 7, "a tool failed (`tools call`)"),
    (JournalError, 8, "a journal cannot be used"),
    (LMAgentError, FAILED, "anything else"),
    (KeyboardInterrupt, INTERRUPTED, "interrupted"),
)
"""Exception, exit code, meaning. 0 is success, 2 a wrong command line."""


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Print `message` on standard error and exit."""
    sys.stderr.write(f"lmagent: {printable(message)}\n")
    raise SystemExit(code)


def leave(error: BaseException) -> NoReturn:
    """Print `error` in one line and exit with its code."""
    code = next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), FAILED)
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("\nlmagent: interrupted\n")
    else:
        sys.stderr.write(f"lmagent: {type(error).__name__}: {printable(str(error))}\n")
    raise SystemExit(code) from None


MODEL_HELP = "Model id, e.g. openai/gpt-5.4-mini. Default: LMAGENT_MODEL, the first key found, or local."
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help=MODEL_HELP)]
SystemOption = Annotated[str, typer.Option("--system", "-s", help="System prompt.")]
JSONOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
ToolOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tool",
        "-t",
        help="Name of a ready-made tool, a .py file, a folder or a module; may be repeated. "
        "With settings: files:root=./notes,write=true  web:hosts=example.com",
    ),
]
ParameterOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="A model parameter, e.g. -p temperature=0 -p max_tokens=200."),
]


def _policy(given: str) -> str:
    if given not in ("ask", "always", "never"):
        raise typer.BadParameter(f"must be ask, always or never, not {given!r}.")
    return given


ApproveOption = Annotated[
    str,
    typer.Option(
        "--approve", callback=_policy, help="Tool calls that need approval: ask, always (allow) or never (deny)."
    ),
]


def build_model(model_id: str | None, **options: Any) -> ChatModel:
    """Load the model of the `--model` option."""
    return load_from_model_id(model_id, **{name: value for name, value in options.items() if value is not None})


def build_tools(sources: list[str] | None) -> ToolRegistry:
    """Load the tools of the `--tool` options. Output of their files while loading goes to standard error."""
    registry = ToolRegistry()
    with redirect_stdout(sys.stderr):
        for source in sources or ():
            name, colon, settings = source.partition(":")
            if colon and "=" in settings and not name.endswith((".py", "/")):
                registry.add(*_made(name, settings))
            else:
                registry.load(source)
    return registry


def factories(name: str) -> dict[str, str]:
    """Return the factories of a ready-made module that needs settings, with an example of each; else `{}`."""
    return getattr(import_module(f"lmagent.tools.{name}"), "FACTORIES", {})


def _made(name: str, settings: str) -> list[Any]:
    """Build the tools of a ready-made module that needs settings: `files:root=./notes`."""
    if name not in ready_made_names():
        raise ConfigurationError(
            f"There is no ready-made tool {name!r}; the ready-made tools are {', '.join(ready_made_names())}."
        )
    if not (found := factories(name)):
        raise ConfigurationError(f"The tool {name!r} takes no settings.")
    values: dict[str, Any] = {}
    for item in settings.split(","):
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigurationError(f"{name}: write a setting as name=value, not {item!r}.")
        values[key] = _setting(text)
    for key in ("hosts", "programs"):
        if isinstance(values.get(key), str):
            values[key] = values[key].split("+")
    factory, example = next(iter(found.items()))
    build = getattr(import_module(f"lmagent.tools.{name}"), factory)
    if "approve" in signature(build).parameters:
        values["approve"] = _confirmed
    try:
        made = build(**values)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: {str(error).rstrip('.')}. In Python: {example}.") from error
    return list(cast("list[Any]", made)) if isinstance(made, list | tuple) else [made]


def _setting(text: str) -> Any:
    words: dict[str, Any] = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def _confirmed(command: Sequence[str]) -> bool:
    return _asked(f"The model wants to run {shlex.join(command)}")


def _asked(about: str) -> bool:
    """Ask the user at the terminal for permission. Without a terminal: no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"\n{printable(about)}\nAllow? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes", "是")


def read_parameters(given: list[str] | None) -> dict[str, Any]:
    """Convert `-p name=value` options to a dict."""
    values: dict[str, Any] = {}
    for item in given or ():
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"Write a parameter as name=value, not {item!r}.")
        values[name] = value_of(text)
    return values


def value_of(text: str) -> Any:
    """Convert the value of `name=value`: parse it as JSON if possible, else keep the text."""
    try:
        return loads(text)
    except JSONError:
        return text


def write_json(value: Any) -> None:
    """Print `value` as indented JSON."""
    sys.stdout.write(dumps_text(value, indent=2) + "\n")


def read_stdin() -> str:
    """Read all of standard input as UTF-8, independent of the locale."""
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def approver(policy: str) -> Any:
    """Return an approver that decides by policy or asks at the terminal."""

    def decide(call: ToolCall, context: Any) -> Decision:
        if policy == "always":
            return Allow()
        if policy == "never" or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return Deny("This call needs approval, and there is no terminal to ask for it.")
        return Allow() if _asked(f"The model wants to call {call.name} with {call.arguments}") else Deny()

    return decide
