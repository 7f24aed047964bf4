"""Print a conversation: plain text in a pipe, colors in a terminal, live while it streams.

Text from models and tools is untrusted: control characters and bidirectional controls are printed as escapes, and
nothing is read as markup.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, TextIO

from lmagent.core.events import (
    Event,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    RoundEnd,
    RoundStart,
    TextDelta,
    TextEnd,
    ToolCallEnd,
    ToolEnd,
)
from lmagent.core.messages import AssistantMessage, ToolCall, ToolMessage, UserMessage

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Printer", "printable"]

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ESCAPES = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"},
    **{ord(char): f"\\u{ord(char):04x}" for char in _BIDI},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}

_STYLES = {"user": "bold green", "assistant": "bold cyan", "function": "bold magenta", "reasoning": "dim italic"}


def printable(text: str) -> str:
    """Replace terminal control characters with escapes; newlines and tabs stay."""
    return text.translate(_ESCAPES)


class Printer:
    """Print messages and events as they arrive.

    Args:
        file: Output stream. Default: standard output at the time of printing.
        color: None: use colors if `file` is a terminal and `NO_COLOR` is not set.
        reasoning: Also print the model's reasoning.
    """

    def __init__(self, file: TextIO | None = None, *, color: bool | None = None, reasoning: bool = False) -> None:
        self._file = file
        self._color = color
        self._reasoning = reasoning
        self._console: Console | None = None
        self._open = ""
        self._shown: set[str] = set()

    @property
    def is_terminal(self) -> bool:
        """Whether the output goes to a terminal."""
        if self._color is not None:
            return self._color
        return (self._file or sys.stdout).isatty()

    def user(self, message: UserMessage | str) -> None:
        """Print a user message."""
        text = message if isinstance(message, str) else message.text
        self._line("user", text)

    def event(self, event: Event) -> None:
        """Print an event of a run, streamed or not."""
        match event:
            case TextDelta() | RefusalDelta():
                self._piece("assistant", event.text)
            case ReasoningDelta():
                if self._reasoning:
                    self._piece("reasoning", event.text)
            case TextEnd() | ReasoningEnd():
                self.end_line()
            case ToolCallEnd():
                self._call(event.call)
            case ToolEnd():
                self._result(event.message)
            case RoundStart():
                self._shown.clear()
                self._open = ""  # an interrupted reply left its line open
            case RoundEnd():
                self.end_line()
                self._round(event)
            case _:
                pass

    def _round(self, event: RoundEnd) -> None:
        """Print the parts of the round that were not streamed."""
        for message in event.messages:
            if isinstance(message, AssistantMessage):
                if message.reasoning and self._reasoning and "reasoning" not in self._shown:
                    self._line("reasoning", message.reasoning)
                if message.content and "assistant" not in self._shown:
                    self._line("assistant", message.content)
                for call in message.tool_calls:
                    if call.id not in self._shown:
                        self._call(call)
            elif isinstance(message, ToolMessage) and f"result {message.tool_call_id}" not in self._shown:
                self._result(message)
        self._shown.clear()

    def _call(self, call: ToolCall) -> None:
        self._shown.add(call.id)
        self._line("Function call", call.name)
        self._line("Arguments", _indented(call.arguments))

    def _result(self, message: ToolMessage) -> None:
        self._shown.add(f"result {message.tool_call_id}")
        is_json = message.content.startswith(("{", "["))
        self._line("function", message.content if is_json else json.dumps(message.content, ensure_ascii=False))

    def _line(self, label: str, text: str) -> None:
        self.end_line()
        self._write(label, text, end="\n")

    def _piece(self, label: str, text: str) -> None:
        self._shown.add(label)
        if self._open == label:
            self._write("", text, end="")
            return
        self.end_line()
        self._open = label
        self._write(label, text, end="")

    def end_line(self) -> None:
        """End the line of an unfinished reply."""
        if self._open:
            self._open = ""
            self._write("", "", end="\n")

    def _write(self, label: str, text: str, *, end: str) -> None:
        text = printable(text)
        if self.is_terminal:
            self._write_rich(label, text, end)
            return
        file = self._file or sys.stdout
        line = f"{label}: {text}{end}" if label else text + end
        try:
            file.write(line)
        except UnicodeEncodeError:  # a stream whose encoding is not UTF-8
            encoding = file.encoding or "ascii"
            file.write(line.encode(encoding, "backslashreplace").decode(encoding))
        file.flush()

    def _write_rich(self, label: str, text: str, end: str) -> None:
        from rich.console import Console  # slow import, needed for terminals only
        from rich.text import Text

        if self._console is None or self._console.file is not (self._file or sys.stdout):
            self._console = Console(file=self._file or sys.stdout, highlight=False, force_terminal=self._color)
        style = _STYLES.get(label, "bold yellow") if label else ""
        shown = Text()  # the label style must not be the base style: it would apply to all text that follows
        if label:
            shown.append(f"{label}: ", style=style)
        shown.append(text, style="dim italic" if "reasoning" in (label, self._open) else "")
        self._console.print(shown, end=end, soft_wrap=True)


def _indented(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), indent=4, ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
