"""Thinking of all model families is told apart, and no call drafted in it runs."""

from __future__ import annotations

import pytest

from lmagent.prompting.markers import neutralise
from lmagent.prompting.scanner import Scanner
from tests.prompting.reading import TOOLS, read, work

DRAFT = '<tool_call>\n{"name": "stock_quote", "arguments": {"ticker": "A"}}\n</tool_call>'
CALL = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
PING = [{"name": "ping", "arguments": {}}]
TAGS = {
    "plain": ("<think>", "</think>"),
    "Seed-OSS": ("<seed:think>", "</seed:think>"),
    "thought": ("<thought>", "</thought>"),
    "MiniMax M3": ("<mm:think>", "</mm:think>"),
    "LongCat": ("<longcat_think>", "</longcat_think>"),
    "Kimi-VL": ("◁think▷", "◁/think▷"),
    "Gemma 4": ("<|channel>thought\n", "<channel|>"),
    "Apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "Kimi K3": ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    "Hunyuan V4": ("<think:7c9>", "</think:7c9>"),
    "begin of thought": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "title case": ("<Think>", "</Think>"),
    "mixed case": ("<THINK>", "</think>"),
    "namespace forgotten": ("<seed:think>", "</think>"),
    "id forgotten": ("<think:7c9>", "</think>"),
    "attribute": ('<thinking budget="low">', "</thinking>"),
    "space": ("<think >", "</think >"),
    "unknown name": ("<my_reason>", "</my_reason>"),
    "unknown hyphenated name": ("<deep-thought>", "</deep-thought>"),
    "unknown namespace": ("<acme:inner-thinking>", "</acme:inner-thinking>"),
    "unknown token": ("<|thinking|>", "<|/thinking|>"),
    "bracket token": ("[REASONING]", "[/REASONING]"),
}
tags = pytest.mark.parametrize(("opening", "closing"), TAGS.values(), ids=TAGS)
native = pytest.mark.parametrize("native", [False, True], ids=["prompt", "native"])


def every_way(text: str, finish_reason: str = "stop", **options: bool) -> dict[str, object]:
    """Read whole, in two pieces cut everywhere, and by characters; all must agree."""
    whole = read(text, TOOLS, finish_reason, **options)
    for chunks in (list(text), *([text[:cut], text[cut:]] for cut in range(1, len(text)))):
        assert read(text, TOOLS, finish_reason, chunks, **options) == whole, chunks
    return whole


@native
@tags
def test_drafted_call_does_not_run_and_the_call_after_thinking_does(opening: str, closing: str, native: bool):
    found = every_way(f"{opening}draft {DRAFT} no{closing}\n\n{CALL}", native=native)
    assert found["calls"] == PING
    assert found["errors"] == []
    assert str(found["text"]).strip() == ""
    assert "stock_quote" in str(found["thinking"])


@native
@tags
def test_thinking_after_text_is_told_apart(opening: str, closing: str, native: bool):
    found = every_way(f"One moment. {opening}draft {DRAFT}{closing} Done.", native=native)
    assert found["calls"] == []
    assert found["text"] == "One moment.  Done."
    assert every_way(f"Hello.\n{opening}draft {DRAFT}{closing}\nDone.", native=native)["text"] == "Hello.\n\nDone."


@native
@tags
def test_end_of_thinking_without_its_opening_makes_the_calls_before_it_a_draft(
    opening: str, closing: str, native: bool
):
    found = every_way(f"Perhaps {DRAFT} no.\n{closing}\n{CALL}", native=native)
    assert found["calls"] == PING
    assert closing not in str(found["text"])


@native
@tags
def test_calls_in_thinking_that_was_cut_do_not_run(opening: str, closing: str, native: bool):
    found = every_way(f"{opening}draft {DRAFT}", "length", native=native)
    assert found["calls"] == []
    assert found["errors"] == ["truncated"]


@tags
def test_tag_that_a_sentence_names_is_text(opening: str, closing: str):
    for text in (f"Use the {opening.strip()} tag.", f"Use `{opening.strip()}` here.", f"Write `{closing}` last."):
        assert every_way(text)["text"] == text


@tags
def test_tags_in_text_from_outside_are_made_harmless(opening: str, closing: str):
    for tag in (opening.strip(), closing):
        found = read(f"{neutralise(tag)}x")
        assert found["thinking"] == ""
        assert str(found["text"]).replace("\u200b", "") == f"{tag}x"


@pytest.mark.parametrize(
    "text", ["Vec<Thought> and List<Reason>", "a <thoughtful remark", "1 <think 2", "<b>x</b> <thin"]
)
def test_other_angle_brackets_are_text(text: str):
    assert every_way(text)["text"] == text


def test_tag_with_an_uncertain_name_is_text_where_no_call_is_read():
    text = "<order>\n<reason>late</reason>\n</order>"
    assert read(text, {}, native=True)["text"] == text
    assert read("<think>hm</think>Yes.", {}, native=True)["text"] == "Yes."


def test_thinking_after_an_invented_result_does_not_bring_the_reply_back():
    found = every_way(f"{CALL}\n<tool_response>1</tool_response><think>so</think>{DRAFT}")
    assert found["calls"] == PING
    assert every_way(f"{DRAFT}\n<tool_response>1</tool_response>\n</think>{CALL}")["calls"] == PING


def test_thinking_after_a_named_result_marker_does_not_let_calls_run():
    text = f"The marker <tool_response> is a word. <think>so</think>\n{CALL}"
    assert every_way(text)["calls"] == []


@pytest.mark.parametrize("unit", ["<think>", "a <think> ", "<think></think>", "</think>", "<seed:think>\n<thought>"])
def test_repeated_tags_cost_linear_time_and_do_not_recurse(unit: str):
    def scan(count: int) -> int:
        text = unit * count + DRAFT + " no"
        scanner = Scanner(TOOLS)
        return work(lambda: [scanner.feed(text[at : at + 16]) for at in range(0, len(text), 16)] + [scanner.finish()])

    assert scan(1440) < 2.5 * scan(720)
    assert read(unit * 180 + DRAFT + " no")["calls"] in ([], [{"name": "stock_quote", "arguments": {"ticker": "A"}}])
