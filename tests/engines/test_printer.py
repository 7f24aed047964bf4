"""`Printer`: labels, escapes, streamed lines, colors."""

from __future__ import annotations

import io

import pytest

from lmagent.core.events import (
    ReasoningDelta,
    ReasoningEnd,
    RoundEnd,
    RoundStart,
    TextDelta,
    TextEnd,
    ToolCallEnd,
    ToolEnd,
)
from lmagent.core.messages import AssistantMessage, ImagePart, Reply, TextPart, ToolCall, ToolMessage, UserMessage
from lmagent.engines.printer import Printer, printable

CALL = ToolCall(id="c", name="look", arguments='{"a": "\u4e2d", "b": [1]}')


def _printed(*events: object, reasoning: bool = False) -> str:
    out = io.StringIO()
    printer = Printer(out, reasoning=reasoning)
    for event in events:
        printer.event(event)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext 中文 😀", "plain\n\ttext 中文 😀"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x00\x07\x08\x7f\x9b", "\\x00\\x07\\x08\\x7f\\x9b"),
        ("a\rb", "a\\x0db"),
        ("\u202eabc\u2069\u200f", "\\u202eabc\\u2069\\u200f"),
        ("\ud800", "\ufffd"),
    ],
)
def test_printable_escapes_control_characters(text: str, shown: str):
    assert printable(text) == shown


def test_streamed_answer_is_one_line():
    assert _printed(TextDelta("Hel", "1"), TextDelta("lo\nyou", "1"), TextEnd("1", "Hello\nyou")) == (
        "assistant: Hello\nyou\n"
    )


def test_unfinished_stream_ends_its_line_before_other_output():
    assert _printed(TextDelta("Hel", "1"), ToolCallEnd("c", 0, CALL)) == (
        'assistant: Hel\nFunction call: look\nArguments: {\n    "a": "中",\n    "b": [\n        1\n    ]\n}\n'
    )


def test_streamed_parts_are_not_printed_again_at_the_end_of_the_round():
    result = ToolMessage("ok", "c", "look")
    message = AssistantMessage("Hi", tool_calls=(CALL,))
    end = RoundEnd(1, Reply(message=message), (message, result))
    streamed = _printed(
        RoundStart(1), TextDelta("Hi", "1"), TextEnd("1", "Hi"), ToolCallEnd("c", 0, CALL), ToolEnd(CALL, result), end
    )
    assert streamed == _printed(RoundStart(1), end)
    assert streamed.count("Hi") == streamed.count("Function call") == streamed.count("function: ") == 1


@pytest.mark.parametrize(
    ("content", "shown"),
    [("text", '"text"'), ('{"a": 1}', '{"a": 1}'), ("[1]", "[1]"), ("", '""'), ('say "hi"', '"say \\"hi\\""')],
)
def test_results_are_shown_as_json(content: str, shown: str):
    assert _printed(ToolEnd(CALL, ToolMessage(content, "c", "look"))) == f"function: {shown}\n"


def test_invalid_arguments_are_shown_unchanged():
    call = ToolCall(id="c", name="look", arguments="{broken")
    assert _printed(ToolCallEnd("c", 0, call)) == "Function call: look\nArguments: {broken\n"


def test_reasoning_is_shown_only_on_request():
    events = (ReasoningDelta("hm", "1"), ReasoningEnd("1", "hm"), TextDelta("So", "2"), TextEnd("2", "So"))
    assert _printed(*events) == "assistant: So\n"
    assert _printed(*events, reasoning=True) == "reasoning: hm\nassistant: So\n"
    message = AssistantMessage("So", reasoning="hm")
    whole = RoundEnd(1, Reply(message=message), (message,))
    assert _printed(whole) == "assistant: So\n"
    assert _printed(whole, reasoning=True) == "reasoning: hm\nassistant: So\n"


def test_text_of_a_user_message_with_parts_is_shown():
    out = io.StringIO()
    Printer(out).user(UserMessage((TextPart("Look:"), ImagePart(url="https://example.com/a.png"), TextPart("ok?"))))
    assert out.getvalue() == "user: Look:\nok?\n"


def test_characters_missing_in_the_encoding_are_escaped():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Printer(out).user("中文")
    assert raw.getvalue() == b"user: \\u4e2d\\u6587\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colors_depend_on_terminal_no_color_and_argument(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(color: bool | None) -> str:
        out = _Terminal()
        Printer(out, color=color).user("[b]Hi[/b] :smile: https://x.y")
        return out.getvalue()

    assert "\x1b[" in shown(None)
    assert "\x1b[" in shown(True)
    assert shown(False) == "user: [b]Hi[/b] :smile: https://x.y\n"
    assert shown(True) == "\x1b[1;32muser: \x1b[0m[b]Hi[/b] :smile: https://x.y\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(None).replace("\x1b[1m", "").replace("\x1b[0m", "") == "user: [b]Hi[/b] :smile: https://x.y\n"


def test_long_lines_are_not_wrapped_in_a_terminal():
    out = io.StringIO()
    Printer(out, color=True).user("word " * 100)
    assert out.getvalue().count("\n") == 1
