from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmagent.core.events import Done, ReplyBuilder
from lmagent.prompting.leaked_calls import delta_of
from lmagent.prompting.markers import MARKERS
from lmagent.prompting.scanner import Scanner
from lmagent.prompting.whole_reply import read_reply
from lmagent.toolkit.loose_json import JSONReadError, read_calls, read_json
from lmagent.toolkit.repair import repair_arguments
from tests.prompting.reading import TOOLS, random_cuts, read
from tests.prompting.rendering import RENDER

BOUNDED = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
PARTS = (
    *MARKERS,
    *(
        "```",
        "```json\n",
        "`",
        "~~~",
        "\n",
        "\n\n",
        " ",
        "> ",
        ">>>",
        "Action: ",
        "Action Input: ",
        "Thought: ",
        "Observation:",
    ),
    *(
        "Final Answer: ",
        "✿ARGS✿: ",
        "<|message|>",
        " to=functions.ping",
        "<｜tool▁sep｜>",
        "<|tool_call_argument_begin|>",
    ),
    *(
        '{"name": "ping", "arguments": {}}',
        '"arguments": {',
        '{"name": "',
        "ping",
        "stock_quote",
        '{"ticker": "A"}',
        "[ARGS]",
    ),
    *(
        "<parameter=ticker>",
        "</parameter>",
        "<arg_key>ticker</arg_key>",
        "<arg_value>A</arg_value>",
        "<|channel|>analysis",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "\\",
        "\\u00",
        ":",
        ",",
        "，",
        "：",
        "“",
        "”",
        "#",
        "//",
        "/*",
        "0",
        "1.",
        "-",
        "🎈",
        "\u2028",
    ),
    *(
        "ping()",
        "[ping()",
        "[stock_quote(ticker='A')]",
        "function",
        "functions.",
        "functools[",
        "name",
        "true",
        "None",
        "...",
    ),
)
texts = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=25).map("".join)
names = st.sampled_from(sorted(TOOLS))
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=8,
)


@BOUNDED
@given(texts, st.lists(st.integers(0, 400), max_size=6), st.sampled_from(["stop", "length"]), st.booleans())
def test_random_text_never_raises_and_cuts_change_nothing(text: str, cuts: list[int], reason: str, native: bool):
    places = sorted(min(cut, len(text)) for cut in cuts)
    chunks = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    whole = read(text, TOOLS, reason, native=native)
    assert read(text, TOOLS, reason, chunks, native=native) == whole
    assert read(text, TOOLS, reason, list(text), native=native) == whole
    for call in whole["calls"]:
        assert call["name"] in text
        for value in call["arguments"].values():
            assert not isinstance(value, str) or value in text


@BOUNDED
@given(st.text(alphabet="abc <>`{}[]\"':,\n", max_size=80))
def test_text_without_markers_comes_out_as_it_went_in(text: str):
    scanner = Scanner(TOOLS, bare_json=False)
    assert "".join(piece.text for piece in [*scanner.feed(text), *scanner.finish()]) == text  # type: ignore[union-attr]


@BOUNDED
@given(st.text(max_size=60) | texts)
def test_readers_return_a_value_or_raise_a_read_error(text: str):
    for reader in (read_json, read_calls, lambda text: repair_arguments(text, TOOLS["add_todo"])):
        with suppress(JSONReadError):
            reader(text)


@BOUNDED
@given(st.dictionaries(plain, values, max_size=4))
def test_valid_json_is_read_unchanged_and_keeps_its_text(value: dict[str, Any]):
    text = json.dumps(value, ensure_ascii=False)
    assert read_json(text).value == value
    assert repair_arguments(text, {"type": "object"}) == (text, ())


@BOUNDED
@given(names, plain, plain, st.sampled_from(sorted(RENDER)))
def test_any_text_argument_survives_every_family_or_is_reported(name: str, title: str, due: str, family: str):
    arguments = {"title": title, "due": due}
    text = RENDER[family]([("add_todo", arguments)])
    found = read(text)
    assert found["calls"] in ([], [{"name": "add_todo", "arguments": arguments}])
    if not found["calls"]:
        raw_values = family in (
            "qwen3_coder",
            "glm45",
            "glm47",
            "minimax_m2",
            "dsml",
            "dsml_v4",
            "pythonic",
            "llama4",
            "tool_code",
        )
        assert raw_values


WRAPS = (
    "{}", "Sure.\n{}\nok", "```text\n{}\n```\nno", "> {}", "`{}`", "<think>{}</think>{}", "{}</think>ok", "{}\n{}",
    "<tool_response>{}</tool_response>", "{}\n<tool_response>\n3", "Thought: x\n{}\nObservation: 1\n{}", "    {}",
    "<|channel|>analysis<|message|>{}<|end|>{}", '{"response": {}}',
)  # fmt: skip
edits = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 12), st.sampled_from(PARTS)), max_size=3)


def edited(text: str, changes: list[tuple[int, int, str]]) -> str:
    for place, gone, put in changes:
        at = place % (len(text) + 1)
        text = text[:at] + put + text[at + gone :]
    return text


@BOUNDED
@given(
    st.sampled_from(sorted(RENDER)), st.sampled_from(WRAPS), plain, edits, st.integers(0, 99),
    st.sampled_from(["stop", "length"]), st.booleans(),
)  # fmt: skip
def test_a_spoiled_reply_reads_the_same_in_all_ways_and_runs_what_was_found(
    family: str, wrap: str, title: str, changes: list[tuple[int, int, str]], seed: int, reason: str, native: bool
):
    markup = RENDER[family]([("ping", {}), ("add_todo", {"title": title, "done": True})])
    text = edited(wrap.replace("{}", markup), changes)
    whole = read_reply(text, TOOLS, finish_reason=reason, native=native)
    for chunks in (list(text), random_cuts(text, seed), random_cuts(text, seed, 2)):
        assert read_reply(chunks, TOOLS, finish_reason=reason, native=native) == whole
    scanner, builder = Scanner(TOOLS, native=native), ReplyBuilder()
    for piece in [*scanner.feed(text), *scanner.finish(reason)]:
        builder.add(delta_of(piece))
    builder.add(Done(finish_reason="stop"))
    calls = [(call.name, call.arguments) for call in builder.reply().tool_calls if not call.problem]
    assert calls == [(call.name, call.arguments) for call in whole.calls]


SPOILED = {
    "single quotes": lambda text: text.replace('"', "'"),
    "trailing comma": lambda text: text.replace("}", ",}"),
    "full-width": lambda text: text.replace('": ', '"：').replace(", ", "，"),
    "smart quotes": lambda text: text.replace('"', "“"),
    "no last brace": lambda text: text[:-1],
    "no last braces": lambda text: text[:-2],
    "surplus brace": lambda text: text + "}",
    "doubled braces": lambda text: "{" + text + "}",
    "escaped throughout": lambda text: text.replace("\\", "\\\\").replace('"', '\\"'),
    "encoded": json.dumps,
    "encoded twice": lambda text: json.dumps(json.dumps(text)),
    "half": lambda text: text[: len(text) // 2],
    "no commas": lambda text: text.replace(",", ""),
    "unquoted": lambda text: text.replace('"', ""),
    "fence": lambda text: f"```json\n{text}\n```",
    "comment": lambda text: text.replace("{", "{ // note\n", 1),
    "raw newlines": lambda text: text.replace("\\n", "\n"),
    "lost quote": lambda text: text.replace('"', "", 1),
    "python": lambda text: text.replace("true", "True").replace("false", "False").replace("null", "None"),
}
words = st.text(
    st.characters(categories=["L", "N"], include_characters=" .:;!?-_/()中文，：\n"), min_size=1, max_size=14
)


@BOUNDED
@given(words, words, st.booleans(), st.lists(words, max_size=2), st.sampled_from(sorted(SPOILED)))
def test_a_spoiled_call_is_recovered_exactly_or_reported(
    title: str, due: str, done: bool, labels: list[str], spoil: str
):
    arguments = {"title": title, "due": due, "done": done, "labels": labels}
    body = SPOILED[spoil](json.dumps({"name": "add_todo", "arguments": arguments}, ensure_ascii=False))
    found = read(f"<tool_call>\n{body}\n</tool_call>")
    if spoil in ("python", "single quotes", "trailing comma", "full-width", "smart quotes", "no commas", "unquoted"):
        # These also change text inside the strings: compare with what was spoiled there in the same way.
        arguments = json.loads(json.dumps(arguments, ensure_ascii=False))
    if found["calls"]:
        [call] = found["calls"]
        spoiled_inside = {SPOILED[spoil](word) if spoil in ("full-width", "python") else word for word in (title, due)}
        assert (
            call["arguments"] == arguments or {call["arguments"]["title"], call["arguments"]["due"]} == spoiled_inside
        )
    else:
        assert found["errors"]
