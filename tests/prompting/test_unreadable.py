"""In prompt mode, call markup is a call or a reported failure, never the final answer."""

from __future__ import annotations

import pytest

from lmagent.prompting.scanner import Scanner
from tests.prompting.reading import TOOLS, read, work

PING = [{"name": "ping", "arguments": {}}]
UNREADABLE = {
    "empty": "<tool_call></tool_call>",
    "empty, lines": "<tool_call>\n\n</tool_call>",
    "YAML": "<tool_call>\nname: ping\narguments: {}\n</tool_call>",
    "words": "<tool_call>\nI want to use the ping tool\n</tool_call>",
    "words on one line": "<tool_call>call ping now</tool_call>",
    "unknown words": "<tool_call>\nplease look it up\n</tool_call>",
    "inline code": '<tool_call>`{"name": "ping"}`</tool_call>',
    "named function tag": '<tool_call><function name="ping"></function></tool_call>',
    "function_call": "<function_call>\nping please\n</function_call>",
    "TOOLCALL": "<TOOLCALL>ping, quickly</TOOLCALL>",
    "python tag": "<|python_tag|>ping.call(x=[1)",
}


def every_way(text: str, finish_reason: str = "stop", **options: object) -> dict[str, object]:
    """Read whole, in two pieces cut everywhere, and by characters; all must agree."""
    whole = read(text, TOOLS, finish_reason, **options)
    for chunks in (list(text), *([text[:cut], text[cut:]] for cut in range(1, len(text)))):
        assert read(text, TOOLS, finish_reason, chunks, **options) == whole, chunks
    return whole


@pytest.mark.parametrize("before", ["", "One moment.\n", "<think>hm</think>\n"])
@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_call_is_a_failure(text: str, before: str):
    found = every_way(before + text)
    assert found["calls"] or found["errors"] in (["malformed"], ["unknown_tool"])
    assert "<" not in str(found["text"])
    assert not read(before + text, native=True)["errors"]


@pytest.mark.parametrize("body", ["ping()", "\nping()\n", "ping( )"])
@pytest.mark.parametrize("tags", [("<tool_call>", "</tool_call>"), ("<function_call>", "</function_call>")])
def test_python_call_in_tags_is_read(body: str, tags: tuple[str, str]):
    assert every_way(tags[0] + body + tags[1])["calls"] == PING
    assert every_way(f"{tags[0]}stock_quote(ticker='A'){tags[1]}")["calls"]


@pytest.mark.parametrize(
    "text",
    [
        "Put it between <tool_call> and </tool_call> tags.",
        "Use <tool_call></tool_call> here.",
        "<tool_call><tool name></tool_call>",
        "<tool_call>...</tool_call>",
        "<tool_call> is the tag.",
        "The <|python_tag|> token.",
    ],
)
def test_sentences_about_markers_and_templates_stay_text(text: str):
    found = every_way(text)
    assert found["text"] == text
    assert found["errors"] == []


BARE = '{"name": "ping", "arguments": {}}'


@pytest.mark.parametrize(
    "before", ["I will check.\n\n", "Let me see: ", "See [1] and {x}.\n", "<think>hm</think>Well.\n"]
)
@pytest.mark.parametrize(
    "call",
    [
        BARE,
        '{"tool": "ping", "parameters": {}}',
        f"[{BARE}]",
        "[ping()]",
        '{\n  "name": "ping",\n  "arguments": {}\n}\n',
    ],
)
def test_bare_call_that_ends_the_reply_after_text_is_read(before: str, call: str):
    found = every_way(before + call)
    assert found["calls"] == PING
    assert found["errors"] == []
    assert str(found["text"]).strip() == before.removeprefix("<think>hm</think>").strip()
    assert read(before + call, native=True)["calls"] == []


@pytest.mark.parametrize(
    "text",
    [
        f"For example {BARE} is a call.",
        f"It is `{BARE}`",
        f'It is "{BARE}"',
        f"> {BARE}",
        f"```text\n{BARE}\n```",
        'The person: {"name": "Ann", "arguments": {}}',
        'The person: {"name": "Ann", "age": 3}',
        "The list: [other(x=1)]",
        "The link: [ping](http://x)",
        "a {",
        'a {"name": "ping", "argum',
    ],
)
def test_other_json_after_text_stays_text(text: str):
    found = every_way(text)
    assert found["calls"] == []
    assert found["text"] == text or found["errors"]


def test_bare_call_after_text_that_stands_in_an_earlier_text_stays_text():
    assert every_way(f"It says: {BARE}", earlier=[BARE])["calls"] == []


@pytest.mark.parametrize("unit", ["<tool_call>", "<tool_call>ping x", f"x {BARE} ", '{"name": "ping", "x', "[ping( "])
def test_unreadable_calls_cost_linear_time(unit: str):
    def scan(count: int) -> int:
        text = "x " + unit * count
        scanner = Scanner(TOOLS)
        return work(lambda: [scanner.feed(text[at : at + 32]) for at in range(0, len(text), 32)] + [scanner.finish()])

    assert scan(800) < 2.6 * scan(400)
