from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from lmagent.prompting.scanner import Scanner
from lmagent.prompting.scanner_events import CallDelta, CallFailed, CallFound, CallStarted, TextPiece
from lmagent.prompting.whole_reply import read_reply
from tests.prompting.reading import TOOLS, fold, read
from tests.prompting.rendering import PROSE_BEFORE, RENDER, Call

CALLS: list[Call] = [
    ("add_todo", {"title": "Renew passport", "due": "2026-09-30", "labels": ["home", "urgent"], "done": False}),
    ("plot", {"series": [{"name": "a", "points": [1, 2.5, -3]}, {"name": "b", "points": []}], "title": "demo"}),
    ("ping", {}),
    ("translate", {"text": "Mind the gap, please!", "target": "de", "glossary": {"gap": "Spalt"}}),
    ("query_express", {"单号": "SF1029384756", "公司": "顺丰"}),
    (
        "book_table",
        {"restaurant": "Chez Lulu", "guests": 4, "when": "2026-07-01 19:00", "outdoor": True, "notes": None},
    ),
    ("stock_quote", {"ticker": "0700.HK"}),
]
PING = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
CLOSED_PAIRS = ("glm45", "glm47")
"""Families whose last closing tag may be missing when the model stops: all pairs of key and value are closed."""
families = pytest.mark.parametrize("family", list(RENDER))


def expected(calls: list[Call]) -> list[dict[str, object]]:
    return [{"name": name, "arguments": arguments} for name, arguments in calls]


def both_ways(text: str, finish_reason: str = "stop") -> dict[str, object]:
    """Read whole and one character at a time; both must agree."""
    whole = read(text, TOOLS, finish_reason)
    assert read(text, TOOLS, finish_reason, list(text)) == whole
    return whole


@families
def test_each_family_yields_its_calls_and_shows_no_markup(family: str):
    for call in CALLS:
        found = both_ways(RENDER[family]([call]))
        assert found["calls"] == expected([call])
        assert fold(str(found["text"])) == ""
        assert not found["errors"]


@families
def test_each_family_yields_several_calls_in_order(family: str):
    for pair in permutations(CALLS[:4], 2):
        found = both_ways(RENDER[family](list(pair)))
        assert found["calls"] == expected(list(pair))
        assert not found["errors"]


@families
def test_thinking_is_separated_and_calls_in_it_never_run(family: str):
    render = RENDER[family]
    for call in CALLS:
        draft = render([CALLS[0]])
        found = both_ways(f"<think>\nDraft: {draft} - no, not that.\n</think>\n\n{render([call])}")
        assert found["calls"] == expected([call])
        assert fold(str(found["text"])) == ""
        assert both_ways(f"Draft:\n{draft}\n</think>\n\n{render([call])}")["calls"] == expected([call])
        assert both_ways(f"<think>{draft}</think>\n\nAll done.")["calls"] == []


@families
def test_quoted_calls_are_text(family: str):
    for call in CALLS:
        markup = RENDER[family]([call])
        quotes = [f"````text\n{markup}\n````", f"~~~~\n{markup}\n~~~~", "> " + markup.replace("\n", "\n> ")]
        if "```" not in markup:
            quotes.append(f"```text\n{markup}\n```")
        if "`" not in markup and "\n" not in markup:
            quotes.append(f"`{markup}`")
        for quote in quotes:
            text = f"This is what it looks like:\n\n{quote}\n\nI do not need it now."
            found = both_ways(text)
            assert found["calls"] == []
            assert found["errors"] == []
            assert found["text"] == text


@families
def test_an_invented_result_ends_the_reply(family: str):
    render = RENDER[family]
    for call in CALLS:
        text = f"{render([call])}\n<tool_response>\n17\n</tool_response>\nSo it is 17. {render([CALLS[2]])}"
        found = both_ways(text)
        assert found["calls"] == expected([call])
        assert "17" not in str(found["text"])
        assert both_ways(f"<tool_response>\n{render([call])}\n</tool_response>\nIgnored.")["calls"] == []


@families
def test_an_unknown_tool_is_reported_never_run(family: str):
    found = both_ways(RENDER[family]([("launch_rocket", {"target": "moon"})]))
    assert found["calls"] == []
    if family != "pythonic":  # `[f(x=1)]` without a known name is ordinary text
        assert found["errors"] == ["unknown_tool"]


def _are_prefixes(found: Any, calls: list[Call]) -> bool:
    """Return whether the calls are the wanted ones, each with the first of its arguments: the model stopped there."""
    return len(found) <= len(calls) and all(
        one["name"] == name and list(arguments.items())[: len(one["arguments"])] == list(one["arguments"].items())
        for one, (name, arguments) in zip(found, calls, strict=False)
    )


@families
@pytest.mark.parametrize("finish_reason", ["length", "stop"])
def test_a_reply_cut_anywhere_never_runs_half_a_call(family: str, finish_reason: str):
    for calls in ([CALLS[0]], [CALLS[3]], [CALLS[5]], [CALLS[2], CALLS[6]]):
        for prose in ("", "One second.\n") if family in PROSE_BEFORE else ("",):
            text = prose + RENDER[family](calls)
            for cut in range(len(text)):
                found = read(text[:cut], TOOLS, finish_reason)
                if family in CLOSED_PAIRS and finish_reason == "stop":
                    assert _are_prefixes(found["calls"], calls), text[:cut]
                    continue
                assert found["calls"] in ([], expected(calls[:1]), expected(calls)), text[:cut]
                if finish_reason == "length":
                    assert found["errors"] in ([], ["truncated"])
                    if cut > len(prose) + 25:
                        assert found["calls"] or found["errors"], text[:cut]


def test_text_is_emitted_at_once_and_only_a_possible_marker_is_held():
    scanner = Scanner(TOOLS)
    assert scanner.feed("Hello, wor") == [TextPiece("Hello, wor")]
    assert scanner.feed("ld <") == [TextPiece("ld ")]
    assert scanner.feed("tool") == []
    assert scanner.feed("box> x") == [TextPiece("<toolbox> x")]


def test_data_in_a_json_fence_is_emitted_once_a_key_shows_that_it_is_no_call():
    scanner = Scanner(TOOLS)
    assert scanner.feed('```json\n{"na') == []
    pieces = scanner.feed('me": "Alice", "age": 3, ')
    assert (
        "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
        == '```json\n{"name": "Alice", "age": 3, '
    )


def test_arguments_stream_as_they_arrive():
    text = f"<tool_call>\n{json.dumps({'name': 'translate', 'arguments': CALLS[3][1]})}\n</tool_call>"
    scanner = Scanner(TOOLS)
    pieces = [piece for char in text for piece in scanner.feed(char)]
    assert pieces[0] == CallStarted(0, "translate")
    shown = "".join(piece.arguments for piece in pieces if isinstance(piece, CallDelta))
    assert json.loads(shown) == CALLS[3][1]
    [call] = scanner.finish()
    assert call == CallFound(0, "translate", json.dumps(CALLS[3][1]), ())


def test_unchanged_arguments_keep_the_text_of_the_model():
    text = '<tool_call>{"name":"plot","arguments":{"series":[{"name":"a","points":[1.50,1E2]}]}}</tool_call>'
    [call] = read_reply(text, TOOLS).calls
    assert call.arguments == '{"series":[{"name":"a","points":[1.50,1E2]}]}'
    assert call.repairs == ()


def test_repairs_are_recorded_and_can_be_switched_off():
    text = "<tool_call>{'name': 'add_todo', 'arguments': {'title': 'x', 'done': 'true',}}</tool_call>"
    [call] = read_reply(text, TOOLS).calls
    assert call == CallFound(
        0, "add_todo", '{"title": "x", "done": true}', ("single quotes", "trailing comma", "string to boolean")
    )
    [failure] = read_reply(text, TOOLS, repair=False).failures
    assert failure.reason == "malformed"


def test_failures_name_the_place_the_expectation_and_what_came():
    def message(body: str) -> str:
        [failure] = read_reply(f"<tool_call>{body}</tool_call>", TOOLS).failures
        return failure.message

    assert message('{"name": "stock_quote", "arguments": {"ticker": }}') == (
        "line 1 column 49 (char 48): expected a value, got '}}'"
    )
    assert "did you mean 'stock_quote'?" in message('{"name": "stock_qoute", "arguments": {}}')
    assert message('{"name": "stock_quote", "arguments": {"tickr": "A"}}') == (
        "ticker: required, but missing; tickr: no such argument; did you mean 'ticker'?"
    )


def test_an_invented_result_sets_cut():
    scanner = Scanner(TOOLS)
    scanner.feed(PING)
    assert not scanner.cut
    scanner.feed("\n<tool_response>")
    assert scanner.cut
    assert scanner.feed(PING) == []
    assert [type(piece) for piece in scanner.finish()] == [CallFound]


def test_native_mode_reads_leaked_calls_and_keeps_other_text():
    assert read(PING, TOOLS, native=True)["calls"] == expected([CALLS[2]])
    for text in (
        '```json\n{"name": "ping", "arguments": {}}\n```',
        "Thought: x\nAction: ping\nAction Input: {}",
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        "Observation: it rains.\nFinal Answer: 5",
        "The marker <tool_response> stands here.",
    ):
        found = read(text, TOOLS, native=True)
        assert found["text"] == text
        assert not found["calls"]
        assert not found["errors"]


def test_reply_over_the_size_limit_is_truncated():
    scanner = Scanner(TOOLS, max_reply_chars=20)
    pieces = [*scanner.feed(PING), *scanner.finish()]
    assert scanner.cut
    assert [piece.reason for piece in pieces if isinstance(piece, CallFailed)] == ["truncated"]


def test_too_many_calls_are_reported():
    found = read(PING * 70)
    assert len(found["calls"]) == 64
    assert found["errors"] == ["malformed"]


def test_bare_json_can_be_switched_off():
    text = '{"name": "ping", "parameters": {}}'
    assert read(text)["calls"] == expected([CALLS[2]])
    assert Scanner(TOOLS, bare_json=False).feed(text) == [TextPiece(text)]
