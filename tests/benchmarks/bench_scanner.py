"""Scanner and reader on texts built to be quadratic: doubling the text must about double the time.

Run: `python tests/benchmarks/bench_scanner.py [characters]` (default 1,000,000). Prints a line per text, exits with 1
when a doubling costs more than three times as much.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from lmagent.prompting.scanner import Scanner
from lmagent.prompting.whole_reply import WholeReplyReader
from lmagent.toolkit.loose_json import JSONReadError, read_json

TOOLS = {
    "ping": {"type": "object", "properties": {}},
    "say": {"type": "object", "properties": {"text": {"type": "string"}}},
}
CALL = '<tool_call>\n{"name": "say", "arguments": {"text": "'


def repeated(part: str) -> Callable[[int], str]:
    return lambda size: part * (size // len(part))


def inside(head: str, part: str, tail: str = "") -> Callable[[int], str]:
    return lambda size: head + repeated(part)(size) + tail


TEXTS: dict[str, Callable[[int], str]] = {
    "prose": repeated("The quick brown fox jumps over the lazy dog.\n"),
    "one long line": repeated("word "),
    "less-than signs": repeated("<"),
    "opening markers": repeated("<tool_call>"),
    "opening markers, spaces": repeated("<tool_call>      "),
    "half markers": repeated("<tool_cal"),
    "backticks": repeated("`"),
    "open span, markers": inside("a ` b ", "<tool_call>x "),
    "spans": repeated("`` ` <think "),
    "fences": repeated("```json\n"),
    "fences with open JSON": repeated('```json\n{"name": "say", "arguments": {"text": "\n```\n'),
    "fences with odd quotes": repeated('```json\n{"a": "\n```\n'),
    "indented fence lines": inside("```py\n", "   ``\n"),
    "blank lines": repeated(" \n"),
    "spaces": repeated(" "),
    "Action lines": repeated("Action: x\n"),
    "Action Input lines": repeated("Action: say\nAction Input: x\n"),
    "Thought lines": repeated("Thought: x\n"),
    "quoted lines": repeated("> <tool_call>{\n"),
    ">>>": repeated(">>>"),
    "open call, brackets": inside(CALL + '"}, "x": ', "["),
    "open call, long string": inside(CALL, "x"),
    "open call, escapes": inside(CALL, "\\n"),
    "open call, closing words": inside(CALL, "</tool_call>"),
    "whole call": inside(CALL, "text ", '"}}\n</tool_call>'),
    "broken calls": repeated('<tool_call>{"name": "say", "arguments": {"text": }}</tool_call>'),
    "calls": repeated('<tool_call>{"name": "ping", "arguments": {}}</tool_call>'),
    "comments": inside('<tool_call>{"name": "say", ', "/* x "),
    "apostrophes": inside('<tool_call>{"name": "say", ', "   '"),
    "bare list": inside("[say(text='", "x', '"),
    "bare JSON": inside('{"name": "say", "parameters": {"text": "', "x"),
    "open thinking": inside("<think>", "<tool_call>{"),
    "thinking in a line": inside("a <think>", "</thin"),
    "closings of thinking": repeated("</think>"),
    "after a result": inside("<tool_response>", "</think"),
    "named functions": repeated("<function=say>x"),
    "disordered GLM keys": repeated("<tool_call>say\n<arg_key>a</arg_key>x"),
    "parameters": inside("<tool_call><function=say>", "<parameter=text>x</parameter>"),
    "open parameter": inside("<tool_call><function=say><parameter=text>", "</parameter"),
    "GLM keys": inside("<tool_call>say\n", "<arg_key>a</arg_key><arg_value>b</arg_value>"),
    "DeepSeek openings": repeated("<｜tool▁call▁begin｜>"),
    "flowers": repeated("✿FUNCTION✿: a\n"),
    "harmony": repeated("<|start|>assistant<|channel|>"),
    "functools": repeated("functools["),
}
OBJECTS: dict[str, Callable[[int], str]] = {
    "answer": inside('{"response": "', "word "),
    "answer: odd quotes": inside('{"response": "', '" '),
    "answer: escapes": inside('{"response": "', "\\n"),
    "answer: nested": inside('{"response": ', '{"a": '),
    "answer: blanks after it": inside('{"response": "a"', " "),
    "answer: blanks before it": repeated(" "),
    "answer: thoughts": inside("{", '"thought": "x", '),
}
"""Whole-reply objects, as they come."""
JSON_TEXTS: dict[str, Callable[[int], str]] = {
    "JSON: strings": inside("[", '"x",', "1]"),
    "JSON: single quotes": inside("[", "'x',", "1]"),
    "JSON: escapes": inside("'", "\\d"),
    "JSON: open braces": repeated("{"),
    "JSON: open lists": repeated("["),
    "JSON: spaces": inside("{", " \t"),
    "JSON: comments": inside("{", "#\n"),
    "JSON: digits": repeated("1"),
    "JSON: escaped throughout": inside("{", '\\"a\\": 1,', "}"),
    "JSON: closers": inside('{"a": [', "1, ", "]}}}}"),
    "JSON: keys": inside("{", "a: 1, ", "}"),
}


def scan(text: str, reader: Scanner | WholeReplyReader, size: int) -> None:
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    reader.finish("length")


def read(text: str) -> None:
    with suppress(JSONReadError):
        read_json(text, closed=True)


def seconds(work: Callable[[str], None], text: str) -> float:
    start = time.process_time()
    work(text)
    return time.process_time() - start


def measure(size: int) -> Iterator[tuple[str, float, float]]:
    """Yield name, seconds for half of `size`, seconds for `size`."""
    readers = ((TEXTS, lambda: Scanner(TOOLS)), (OBJECTS, lambda: WholeReplyReader(Scanner(TOOLS))))
    for texts, make in readers:
        for name, build in texts.items():
            for label, piece in (("whole", size), ("chunks", 7)):
                half, full = (
                    seconds(lambda text, piece=piece, make=make: scan(text, make(), piece), build(chars))
                    for chars in (size // 2, size)
                )
                yield f"{name} ({label})", half, full
    for name, build in JSON_TEXTS.items():
        yield name, seconds(read, build(size // 2)), seconds(read, build(size))


def main() -> int:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    bad = 0
    for name, half, full in measure(size):
        grows = full > 3 * half and full > 0.2
        bad += grows
        print(f"{name:45} {half:8.3f} s {full:8.3f} s {'  NOT LINEAR' if grows else ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
