"""`lmagent run` and `lmagent chat`: one question, or a conversation at the terminal."""

from __future__ import annotations

import dataclasses
import locale
import sys
from collections.abc import Iterator
from contextlib import closing, redirect_stdout, suppress
from importlib import import_module
from typing import Annotated, Any, TextIO, cast

import typer

from lmagent.agent.agent import Agent
from lmagent.agent.result import Allow, Deny, Edit, Pause, RunResult, decision_to_dict
from lmagent.agent.run import Limits
from lmagent.cli.options import (
    ApproveOption,
    ModelOption,
    ParameterOption,
    SystemOption,
    ToolOption,
    approver,
    build_model,
    build_tools,
    fail,
    read_parameters,
    read_stdin,
)
from lmagent.cli.trace import ContentOption, TraceOption, trace_file
from lmagent.core.events import Event, RoundEnd, TextDelta, TextEnd, TextStart
from lmagent.core.json_text import dumps_text
from lmagent.core.messages import AssistantMessage, Reply, ToolCall, ToolMessage, Usage, message_to_dict
from lmagent.engines.chat import ChatEngine
from lmagent.engines.printer import Printer, printable
from lmagent.errors import LMAgentError

__all__ = ["chat", "event_to_dict", "result_to_dict", "run"]

_HELP = """/help      show this list
/tools     list the tools that the model may call
/history   show the messages so far
/reset     forget the conversation
/quit      leave (also Ctrl-D)
Ctrl-C stops an answer; the conversation continues."""


def run(
    question: Annotated[
        str | None, typer.Argument(help="The question. Without it, or with -, read standard input.")
    ] = None,
    model: ModelOption = None,
    tool: ToolOption = None,
    system: SystemOption = "",
    param: ParameterOption = None,
    tool_choice: Annotated[str, typer.Option(help="auto, required, none or the name of a tool.")] = "auto",
    tool_mode: Annotated[str, typer.Option(help="auto, native or prompt.")] = "auto",
    approve: ApproveOption = "ask",
    max_rounds: Annotated[int, typer.Option(help="Maximum number of rounds.", min=1)] = 20,
    timeout: Annotated[float, typer.Option(help="Timeout of each request in seconds.", min=0.1)] = 600.0,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Default: stream if the output is a terminal.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as one JSON object.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="Print every event as one line of JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show tool calls on standard error.")] = False,
    trace: TraceOption = None,
    trace_content: ContentOption = False,
) -> None:
    """Ask one question and print the answer. The model may call the given tools."""
    if as_json and as_jsonl:
        fail("Use either --json or --jsonl, not both.")
    prompt = _question(question)
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # the output of tools is not part of the result
        agent = Agent(
            build_model(model, tool_mode=tool_mode, timeout=timeout),
            build_tools(tool),
            system_prompt=system,
            tool_choice=tool_choice,
            limits=Limits(rounds=max_rounds),
            approve=approver(approve),
            hooks=trace_file(trace, trace_content),
            **read_parameters(param),
        )
        with agent.model:
            if as_jsonl:
                with closing(cast("Any", agent.stream_run(prompt))) as events:
                    for event in events:
                        out.write(dumps_text(event_to_dict(event)) + "\n")
                        out.flush()
            elif as_json:
                out.write(dumps_text(result_to_dict(agent.run(prompt)), indent=2) + "\n")
            elif out.isatty() if stream is None else stream:
                _stream_answer(agent, prompt, out, quiet=quiet)
            else:
                aside = Printer(sys.stderr)
                result = agent.run(prompt, on_event=None if quiet else lambda event: _aside(aside, event))
                out.write(printable(result.reply) + "\n")


def _question(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        fail("There is no question: give it as an argument or on standard input.")
    text = read_stdin().strip() if given in (None, "-") else given
    if not text.strip():
        fail("The question is empty.")
    return text


def _stream_answer(agent: Agent, prompt: str, out: TextIO, *, quiet: bool) -> None:
    """Print the answer to `out`, tool calls and results to standard error."""
    aside = Printer(sys.stderr)
    with closing(cast("Any", agent.stream_run(prompt))) as events:
        for event in events:
            if isinstance(event, TextDelta):
                out.write(printable(event.text))
                out.flush()
            elif isinstance(event, TextEnd):
                out.write("\n")
                out.flush()
            elif not quiet:
                _aside(aside, event)


def _aside(printer: Printer, event: Event) -> None:
    """Print tool calls and results, but not the answer."""
    if isinstance(event, TextStart | TextDelta | TextEnd):
        return
    if isinstance(event, RoundEnd):
        kept = (dataclasses.replace(m, content="") if isinstance(m, AssistantMessage) else m for m in event.messages)
        event = dataclasses.replace(event, messages=tuple(kept))
    printer.event(event)


def result_to_dict(result: RunResult) -> dict[str, Any]:
    """Return a run result as plain JSON values: `{"reply", "messages", "tool_calls", "usage", ...}`."""
    return {
        "reply": result.reply,
        "model_id": result.model_id,
        "finish_reason": result.finish_reason,
        "rounds": result.rounds,
        "requests": result.requests,
        "usage": dataclasses.asdict(result.usage),
        "tool_calls": [_plain(call) for call in result.tool_calls],
        "pending": [_plain(call) for call in result.pending],
        "messages": [message_to_dict(message) for message in result.messages],
    }


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return an event as `{"event": "text_delta", ...its fields}`."""
    name = "".join("_" + char.lower() if char.isupper() else char for char in type(event).__name__).lstrip("_")
    return {"event": name} | {
        field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event) if field.name != "whole"
    }


def _plain(value: Any) -> Any:
    match value:
        case RunResult():
            return result_to_dict(value)
        case Reply():
            usage = dataclasses.asdict(value.usage) if value.usage else None
            return {"reply": value.reply, "finish_reason": value.finish_reason, "usage": usage}
        case ToolCall():
            shown = {"id": value.id, "name": value.name, "arguments": value.arguments}
            return shown | ({"repairs": list(value.repairs)} if value.repairs else {})
        case ToolMessage():
            return message_to_dict(value)
        case Allow() | Deny() | Edit() | Pause():
            return decision_to_dict(value)
        case Usage():
            return dataclasses.asdict(value)
        case tuple():
            return [message_to_dict(item) for item in cast("tuple[Any, ...]", value)]
        case _:
            return value


def chat(
    model: ModelOption = None,
    tool: ToolOption = None,
    system: SystemOption = "",
    param: ParameterOption = None,
    approve: ApproveOption = "ask",
    trace: TraceOption = None,
    trace_content: ContentOption = False,
) -> None:
    """Hold a conversation. The model may call the given tools. A pipe gives one prompt per line."""
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
    """A printer that does not repeat the prompt that the user has just typed."""

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
            import_module("readline")  # adds line editing and history to `input`, if available
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
    """Whether readline accepts keys other than ASCII; unlike Python, it depends on the locale."""
    try:
        return locale.nl_langinfo(locale.CODESET).upper() in ("UTF-8", "UTF8")
    except AttributeError:  # Windows
        return True


def _command(engine: ChatEngine, line: str) -> bool:
    """Run a slash command. Return False to leave."""
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
