"""`lmagent chat`: a conversation at the terminal, or a list of prompts on standard input."""

from __future__ import annotations

import locale
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Annotated

import typer

from lmagent.cli.options import (
    ApproveOption,
    ModelOption,
    ParameterOption,
    ToolOption,
    approver,
    build_model,
    build_tools,
    read_parameters,
)
from lmagent.cli.trace import ContentOption, TraceOption, trace_file
from lmagent.engines.chat import ChatEngine
from lmagent.engines.printer import Printer, printable
from lmagent.errors import LMAgentError

__all__ = ["chat"]

_HELP = """/help      this list
/tools     the tools the model may call
/history   what was said so far
/reset     forget the conversation
/quit      leave (Ctrl-D too)
Ctrl-C stops an answer; the conversation goes on."""


def chat(
    model: ModelOption = None,
    tool: ToolOption = None,
    system: Annotated[str, typer.Option("--system", "-s", help="System prompt.")] = "",
    param: ParameterOption = None,
    approve: ApproveOption = "ask",
    trace: TraceOption = None,
    trace_content: ContentOption = False,
) -> None:
    """Talk to a model; it may call the tools given. Prompts come from the terminal or, one a line, from a pipe."""
    is_person = sys.stdin.isatty()
    printer = _TerminalPrinter() if is_person else Printer()
    engine = ChatEngine(
        build_model(model),
        build_tools(tool),
        system_prompt=system,
        printer=printer,
        approve=approver(approve),
        hooks=trace_file(trace, trace_content),
        **read_parameters(param),
    )
    if is_person:
        sys.stderr.write(f"{engine.agent.model.model_id}; /help lists the commands, Ctrl-D leaves.\n")
    with engine.agent.model:
        for prompt in _prompts(is_person):
            if prompt.startswith("/") and is_person:
                if not _command(engine, prompt):
                    return
                continue
            _answer(engine, printer, prompt, is_person)


class _TerminalPrinter(Printer):
    """At the terminal the person has just typed the prompt: it is not shown again."""

    def user(self, message: object) -> None:
        return None


def _answer(engine: ChatEngine, printer: Printer, prompt: str, is_person: bool) -> None:
    try:
        engine.chat(prompt)
    except KeyboardInterrupt:
        if not is_person:
            raise
        sys.stderr.write("\n(stopped)\n")
    except LMAgentError as error:
        printer.end_line()
        if not is_person:
            raise
        sys.stderr.write(f"lmagent: {type(error).__name__}: {printable(str(error))}\n")


def _prompts(is_person: bool) -> Iterator[str]:
    if not is_person:
        for line in sys.stdin.buffer:
            text = line.decode("utf-8", "replace").strip()
            if text:
                yield text
        return
    if _speaks_utf8():
        with suppress(ImportError):
            import_module("readline")  # gives `input` its editing and its history, where the platform has it
    while True:
        try:
            text = input("user: ").strip()
        except EOFError:
            sys.stderr.write("\n")
            return
        except KeyboardInterrupt:
            sys.stderr.write("\n(Ctrl-D or /quit leaves)\n")
            continue
        except UnicodeDecodeError:
            sys.stderr.write("(that was not UTF-8)\n")
            continue
        if text:
            yield text


def _speaks_utf8() -> bool:
    """Whether readline takes other keys than ASCII: it goes by the locale, Python does not."""
    try:
        return locale.nl_langinfo(locale.CODESET).upper() in ("UTF-8", "UTF8")
    except AttributeError:  # Windows
        return True


def _command(engine: ChatEngine, line: str) -> bool:
    """Carry out a slash command; False: leave."""
    match line.split()[0]:
        case "/quit" | "/exit":
            return False
        case "/reset":
            engine.reset()
            sys.stderr.write("(forgotten)\n")
        case "/tools":
            for each in engine.agent.tools:
                sys.stderr.write(f"{each.name}  {printable(each.description.partition(chr(10))[0])}\n")
        case "/history":
            for message in engine.history:
                sys.stderr.write(f"{message.role}: {printable(str(message.content))}\n")
        case _:
            sys.stderr.write(_HELP + "\n")
    return True
