"""Model families and forms of 2025 and 2026: each reads its calls, however the reply is cut, and never half a call."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time
from typing import Any

import pytest

from lmagent.prompting.markers import MARKERS, neutralise
from lmagent.prompting.scanner import Scanner
from lmagent.prompting.whole_reply import read_reply
from tests.prompting.reading import TOOLS, fold, random_cuts, read
from tests.prompting.rendering import RENDER, Call, dumps, each, envelope, listed, python, raw

MINIMAX = "]<]minimax[>["
ID = ":6124c78e"


def gemma_value(value: Any, quote: str) -> str:
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{gemma_value(one, quote)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(gemma_value(one, quote) for one in value)}]"
    return dumps(value)


def gemma(quote: str, opener: str, closer: str) -> Callable[[list[Call]], str]:
    return each(lambda c: f"{opener}call:{c[0]}{gemma_value(c[1], quote)}{closer}", "")


def element(call: Call, prefix: str = "", word: str = "invoke", parameter: str = "parameter") -> str:
    values = "".join(f'<{prefix}{parameter} name="{k}">{raw(v)}</{prefix}{parameter}>\n' for k, v in call[1].items())
    return f'<{prefix}{word} name="{call[0]}">\n{values}</{prefix}{word}>\n'


def dsml(call: Call, prefix: str) -> str:
    values = "".join(
        f'<{prefix}parameter name="{k}" string="{str(isinstance(v, str)).lower()}">{raw(v)}</{prefix}parameter>\n'
        for k, v in call[1].items()
    )
    return f'<{prefix}invoke name="{call[0]}">\n{values}</{prefix}invoke>\n'


def kimi_k3(call: Call) -> str:
    kinds = {str: "string", bool: "boolean", int: "number", list: "array", dict: "object", type(None): "null"}
    values = "".join(
        f'<|open|>argument key="{k}" type="{kinds[type(v)]}"<|sep|>{raw(v)}<|close|>argument<|sep|>'
        for k, v in call[1].items()
    )
    return f'<|open|>call tool="{call[0]}" index="1"<|sep|>{values}<|close|>call<|sep|>'


def kimi_k3_json(call: Call) -> str:
    block = f'<|open|>json type="object"<|sep|>{dumps(call[1])}<|close|>json<|sep|>'
    return f'<|open|>call tool="{call[0]}" index="1"<|sep|>{block}<|close|>call<|sep|>'


def step3(call: Call) -> str:
    inner = element(call, "steptml:").strip()
    return f"<｜tool_call_begin｜>function<｜tool_sep｜>{inner}<｜tool_call_end｜>"


def pairs(call: Call, prefix: str = "", suffix: str = "", separator: str = "\n") -> str:
    values = "".join(
        f"<{prefix}arg_key{suffix}>{k}</{prefix}arg_key{suffix}>\n"
        f"<{prefix}arg_value{suffix}>{raw(v)}</{prefix}arg_value{suffix}>\n"
        for k, v in call[1].items()
    )
    return f"<{prefix}tool_call{suffix}>{call[0]}{separator}{values}</{prefix}tool_call{suffix}>"


def minimax_value(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(
            f"{MINIMAX}<{key}>{minimax_value(one)}{MINIMAX}</{key}>" for key, one in value.items() if one is not None
        )
    if isinstance(value, list):
        return "".join(f"{MINIMAX}<item>{minimax_value(one)}{MINIMAX}</item>" for one in value)
    return raw(value)


def minimax_m3(call: Call) -> str:
    return f'{MINIMAX}<invoke name="{call[0]}">{minimax_value(call[1])}{MINIMAX}</invoke>'


def harmony(call: Call, header: str = "assistantcommentary to=functions.{} json") -> str:
    return header.format(call[0]) + dumps(call[1])


def wrapped(opener: str, inner: Callable[[Call], str], closer: str, joiner: str = "") -> Callable[[list[Call]], str]:
    return lambda calls: opener + joiner.join(map(inner, calls)) + closer


FAMILIES: dict[str, Callable[[list[Call]], str]] = {
    "gemma_4": gemma('<|"|>', "<|tool_call>", "<tool_call|>"),
    "functiongemma": gemma("<escape>", "<start_function_call>", "<end_function_call>"),
    "kimi_k3": wrapped("<|open|>tools<|sep|>", kimi_k3, "<|close|>tools<|sep|>"),
    "kimi_k3_json": wrapped("<|open|>tools<|sep|>", kimi_k3_json, "<|close|>tools<|sep|>"),
    "apertus": lambda calls: f"<|tools_prefix|>{dumps([{n: a} for n, a in calls])}<|tools_suffix|>",
    "step_3": wrapped("<｜tool_calls_begin｜>", step3, "<｜tool_calls_end｜>"),
    "hunyuan_v3": wrapped("<tool_calls>", lambda c: pairs(c, separator="<tool_sep>\n"), "</tool_calls>"),
    "hunyuan_v4": wrapped(f"<tool_calls{ID}>", lambda c: pairs(c, suffix=ID, separator=""), f"</tool_calls{ID}>"),
    "olmo_3": wrapped("<function_calls>\n", python, "\n</function_calls>", "\n"),
    "longcat": each(lambda c: f"<longcat_tool_call>\n{envelope(c)}\n</longcat_tool_call>", ""),
    "longcat_pairs": each(lambda c: pairs(c, "longcat_")),
    "minicpm_5": each(lambda c: element(c, word="function", parameter="param")),
    "minimax_m3": wrapped(f"{MINIMAX}<tool_call>", minimax_m3, f"{MINIMAX}</tool_call>"),
    "gigachat_3": each(lambda c: f"<|message_sep|>\n\nfunction call<|role_sep|>\n{envelope(c)}<|message_sep|>\n\n"),
    "gigachat_3_token": each(lambda c: f"<|function_call|>{envelope(c)}"),
    "gigachat_3_5": wrapped("<｜GCML｜tool_calls>\n", lambda c: dsml(c, "｜GCML｜"), "</｜GCML｜tool_calls>"),
    "hyperclova_x_14b": lambda calls: f" -> tool/function_call\n{listed(calls)}<|im_end|>",
    "hyperclova_x_turn": lambda calls: (
        f"<|im_end|>\n<|im_start|>assistant -> tool/function_call\n{listed(calls)}<|im_end|>"
    ),
    "hyperclova_x": each(pairs),
    "qwen25_coder": each(lambda c: f"<tools>\n{envelope(c)}\n</tools>"),
    "calling_tool": each(lambda c: f"[Calling tool: {c[0]}({dumps(c[1])})]", " "),
    "calling_tool_python": each(lambda c: f"[Calling tool: {python(c)}]"),
    "lm_studio": each(lambda c: f"[TOOL_REQUEST]{envelope(c)}[END_TOOL_REQUEST]"),
    "dsml_ascii": wrapped("<|DSML|function_calls>\n", lambda c: dsml(c, "|DSML|"), "</|DSML|function_calls>"),
    "dsml_double": wrapped(
        "<｜｜DSML｜｜tool_calls>\n", lambda c: dsml(c, "｜｜DSML｜｜"), "</｜｜DSML｜｜tool_calls>"
    ),
    "harmony_plain": each(harmony),
    "harmony_glued": each(lambda c: harmony(c, "assistant to=functions.{}commentary json")),
    "tool_call_name": each(lambda c: f'<tool_call name="{c[0]}">{dumps(c[1])}</tool_call>'),
    "tool_call_name_values": each(lambda c: element(c, word="tool_call")),
    "react_chinese": each(lambda c: f"思考：下一步\n行动：{c[0]}\n行动输入：{dumps(c[1])}"),
    "react_numbered": each(lambda c: f"Thought 1: next\nAction 1: {c[0]}\nAction Input 1: {dumps(c[1])}"),
    "functionary_mid_line": lambda calls: ">>>all\nSo" + "".join(f">>>{n}\n{dumps(a)}" for n, a in calls),
    "json_fence_comment": each(lambda c: f"```json\n// the call\n{envelope(c)}\n```"),
    "json_fence_hash": each(lambda c: f"```json\n# the call\n/* of a tool */ {envelope(c)}\n```"),
    "tilde_fence": each(lambda c: f"~~~json\n{envelope(c)}\n~~~"),
    "default_api": lambda calls: "```tool_code\n" + "\n".join(f"default_api.{python(c)}" for c in calls) + "\n```",
}
"""Family or form: how it writes a list of calls."""
PROMPT_ONLY = {
    "react_chinese", "react_numbered", "functionary_mid_line", "json_fence_comment", "json_fence_hash", "tilde_fence",
    "default_api",
}  # fmt: skip
"""Forms that are ordinary text unless the prompt asked for calls."""
PAIRS = {"hunyuan_v3", "hunyuan_v4", "longcat_pairs", "hyperclova_x"}
"""Families whose last closing tag may be missing when the model stops."""
UNNAMED = {"apertus", "functionary_mid_line"}
"""Families whose calls of unknown tools can't be told from other text or JSON."""
NO_SPACES = {"harmony_glued"}

CALLS: list[Call] = [
    ("add_todo", {"title": 'Say "hi" {to} [all], <b>now</b>', "due": "2026-09-30", "labels": ["a, b", "c: d"]}),
    ("translate", {"text": "注意：间隙，\n「请」!", "target": "de", "glossary": {"间隙": "Spalt", "a b": "x{y}"}}),
    ("ping", {}),
    ("book_table", {"restaurant": "Chez 'Lulu'", "guests": 4, "when": "2026-07-01 19:00", "outdoor": True}),
    ("plot", {"series": [{"name": "a", "points": [1, 2.5, -3]}, {"name": "b", "points": [0]}], "title": "demo"}),
]
families = pytest.mark.parametrize("family", list(FAMILIES))


def cases(family: str) -> list[list[Call]]:
    """Return lists of calls that the family can write: keys with blanks are no tags."""
    calls = CALLS
    if family == "minimax_m3":
        calls = [c if c[0] != "translate" else (c[0], {**c[1], "glossary": {"间隙": "Spalt"}}) for c in CALLS]
    if family in ("react_chinese", "react_numbered"):
        return [[call] for call in calls]
    return [*([call] for call in calls), calls[:2], [calls[2], calls[3]], [calls[4], calls[2], calls[0]]]


def expected(calls: list[Call]) -> list[dict[str, object]]:
    return [{"name": name, "arguments": arguments} for name, arguments in calls]


def every_way(text: str, finish_reason: str = "stop", **options: Any) -> dict[str, Any]:
    """Read whole, one character at a time and in pieces; all must agree."""
    whole = read(text, TOOLS, finish_reason, **options)
    for chunks in (list(text), random_cuts(text, 1), random_cuts(text, 2)):
        assert read(text, TOOLS, finish_reason, chunks, **options) == whole
    return whole


@families
def test_calls_are_read_and_their_markup_is_not_shown(family: str):
    for calls in cases(family):
        found = every_way(FAMILIES[family](calls))
        assert found["calls"] == expected(calls)
        assert not found["errors"]
        assert fold(found["text"]) in ("", "So")


@families
def test_text_before_a_call_is_kept(family: str):
    for calls in cases(family):
        found = every_way("好的, one moment.\n" + FAMILIES[family](calls))
        assert found["calls"] == expected(calls)
        assert not found["errors"]
        assert fold(found["text"]).startswith("好的, one moment.")


@families
def test_leaked_markup_is_read_in_native_mode_where_it_is_unmistakable(family: str):
    for calls in cases(family):
        text = FAMILIES[family](calls)
        found = every_way(text, native=True)
        assert found["calls"] == ([] if family in PROMPT_ONLY else expected(calls))
        assert not found["errors"]


@families
def test_an_unknown_tool_never_runs(family: str):
    text = FAMILIES[family]([("launch_rocket", {"target": "moon"})])
    found = every_way(text)
    assert found["calls"] == []
    if family not in UNNAMED:
        assert found["errors"] == ["unknown_tool"]
    assert every_way(text, native=True)["errors"] == []


@families
@pytest.mark.parametrize("finish_reason", ["length", "stop"])
def test_a_reply_cut_anywhere_never_runs_half_a_call(family: str, finish_reason: str):
    calls = CALLS[3:4] if family.startswith("react") else [CALLS[3], CALLS[2]]
    text = FAMILIES[family](calls)
    for cut in range(len(text)):
        found = read(text[:cut], TOOLS, finish_reason)
        if family in PAIRS and finish_reason == "stop" and len(found["calls"]) == 1:
            assert found["calls"][0]["arguments"].items() <= calls[0][1].items()
            continue
        assert found["calls"] in ([], expected(calls[:1]), expected(calls)), text[:cut]
        if finish_reason == "length":
            assert found["errors"] in ([], ["truncated"]), text[:cut]


@families
def test_quoted_calls_are_text(family: str):
    markup = FAMILIES[family]([CALLS[3]])
    for quote in (f"````text\n{markup}\n````", "> " + markup.replace("\n", "\n> ")):
        text = f"It looks so:\n\n{quote}\n\nI do not need it now."
        found = every_way(text)
        assert found["calls"] == []
        assert found["errors"] == []
        assert found["text"] == text


@families
def test_markup_from_a_tool_or_user_is_harmless(family: str):
    if family in PROMPT_ONLY:
        return  # no markers: results enter the prompt as JSON
    # More text follows: bare JSON that ends a reply is a call without any marker.
    assert read(neutralise(FAMILIES[family]([CALLS[3]])) + "\nSo it says.", TOOLS)["calls"] == []


def test_every_marker_is_neutralised():
    for marker in MARKERS:
        assert marker not in neutralise(f"x {marker} y")


ARGUMENTS = {"restaurant": "Chez 'Lulu'", "guests": 4, "when": "2026-07-01 19:00"}
HOLDERS = {
    "mistral_compact": "[TOOL_CALLS]book_table[ARGS]{}",
    "mistral_call_id": "[TOOL_CALLS]book_table[CALL_ID]abcDEF123[ARGS]{}",
    "deepseek_v3": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>book_table\n"
        "{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v31": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>book_table<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "kimi_k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.book_table:0<|tool_call_argument_begin|>"
        "{}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "functionary_v31": "<function=book_table>{}</function>",
    "functionary_v32": ">>>book_table\n{}",
    "invoke": '<minimax:tool_call>\n<invoke name="book_table">{}</invoke>\n</minimax:tool_call>',
    "harmony": (
        "<|start|>assistant<|channel|>commentary to=functions.book_table <|constrain|>json<|message|>{}<|call|>"
    ),
    "harmony_plain": "assistantcommentary to=functions.book_table json{}",
    "name_first": "<tool_call>book_table\n{}\n</tool_call>",
    "tool_call_name": '<tool_call name="book_table">{}</tool_call>',
    "react": "Action: book_table\nAction Input: {}",
    "qwen_star": "✿FUNCTION✿: book_table\n✿ARGS✿: {}",
    "hermes": '<tool_call>{{"name": "book_table", "arguments": {}}}</tool_call>',
}
"""Family: a call of `book_table`, with a place for its arguments."""
NO_FENCE = {"hermes"}
"""The arguments stand inside other JSON."""


@pytest.mark.parametrize("family", list(HOLDERS))
def test_arguments_that_were_encoded_as_a_string_are_read(family: str):
    for encoded in (json.dumps(json.dumps(ARGUMENTS)), json.dumps(json.dumps(json.dumps(ARGUMENTS)))):
        found = every_way(HOLDERS[family].format(encoded))
        assert found["calls"] == expected([("book_table", ARGUMENTS)])
        assert not found["errors"]
        assert fold(found["text"]) == ""
    made = read_reply(HOLDERS[family].format(json.dumps(json.dumps(ARGUMENTS))), TOOLS)
    assert made.calls[0].repairs == ("encoded as a string",)


@pytest.mark.parametrize("family", [name for name in HOLDERS if name not in NO_FENCE])
def test_arguments_in_a_code_fence_are_read(family: str):
    for fence in ("```json\n{}\n```", "```\n{}\n```"):
        found = every_way(HOLDERS[family].format(fence.format(json.dumps(ARGUMENTS))))
        assert found["calls"] == expected([("book_table", ARGUMENTS)])
        assert not found["errors"]
        assert fold(found["text"]) == ""


@pytest.mark.parametrize("family", list(HOLDERS))
@pytest.mark.parametrize("broken", ['{"restaurant": , "guests": 4}', '"{\\"restaurant\\": }"', '{"restaurant": "x"}'])
def test_a_broken_call_is_one_failure(family: str, broken: str):
    found = every_way(HOLDERS[family].format(broken) + "\n")
    assert found["calls"] == []
    assert len(found["errors"]) == 1
    assert found["errors"][0] in ("malformed", "invalid_arguments")


@pytest.mark.parametrize("family", [name for name in HOLDERS if name not in NO_FENCE])
def test_a_broken_call_in_a_fence_is_one_failure(family: str):
    found = every_way(HOLDERS[family].format('```json\n{"restaurant": , "guests": 4}\n```') + "\n")
    assert found["calls"] == []
    assert found["errors"] == ["malformed"]


@pytest.mark.parametrize("family", list(HOLDERS))
def test_encoded_arguments_that_were_cut_do_not_run(family: str):
    text = HOLDERS[family].format(json.dumps(json.dumps(ARGUMENTS)))
    for cut in range(len(text)):
        found = read(text[:cut], TOOLS, "length")
        assert found["calls"] in ([], expected([("book_table", ARGUMENTS)]))
        assert found["errors"] in ([], ["truncated"])


def test_kimi_says_what_is_wrong_when_the_end_is_there():
    text = RENDER["kimi_k2"]([("stock_quote", {})]).replace("{}", "ticker A")
    [failure] = read_reply(text, TOOLS).failures
    assert failure.reason == "malformed"
    assert "object" in failure.message
    assert "end is missing" not in failure.message


GLM = "<tool_call>stock_quote\n<arg_key>ticker</arg_key>\n<arg_value>0700.HK</arg_value>\n"
GLM_CALL = ("stock_quote", {"ticker": "0700.HK"})


@pytest.mark.parametrize("end", ["", "\n", "<|observation|>", "<|user|>\nThanks", "<|endoftext|>"])
def test_glm_call_without_its_last_tag_runs_when_the_model_stopped(end: str):
    found = every_way(GLM + end)
    assert found["calls"] == expected([GLM_CALL])
    assert not found["errors"]
    [call] = read_reply(GLM + end, TOOLS).calls
    assert call.repairs == ("missing closing tag",)


def test_glm_calls_without_their_last_tags_run_when_the_next_begins():
    assert every_way(GLM + GLM + "</tool_call>")["calls"] == expected([GLM_CALL, GLM_CALL])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GLM, "length"),
        (GLM[:-13], "stop"),
        (GLM.replace("ticker", "tickr"), "stop"),
        (GLM + "<arg_key>currency</arg_key>", "stop"),
        (GLM + "So it goes.", "stop"),
    ],
)
def test_glm_call_without_its_last_tag_is_refused_when_anything_else_is_missing(text: str, reason: str):
    found = every_way(text, reason)
    assert found["calls"] == []
    assert len(found["errors"]) == 1
    assert read(GLM, TOOLS, repair=False)["calls"] == []


def test_list_of_tools_between_tags_is_text():
    shown = {"name": "ping", "description": "Check", "parameters": {"type": "object", "properties": {}}}
    text = f"<tools>\n{json.dumps(shown)}\n</tools>"
    assert every_way(text) == {"calls": [], "text": text, "errors": [], "thinking": ""}


@pytest.mark.parametrize(
    "text",
    [
        "[Calling tool: ping]",
        "The assistant to=functions.ping header is removed by the server.",
        "An arrow -> tool/function is not a call; a ] < b neither.",
        "My assistant is helpful. assistantcommentary is one word.",
        "Observation 1: the sky is blue.\nObservation 2: it is day.",
        "行动：买牛奶，然后回家。",
        "x>>>ping or >>> ping\nis Python",
        "~~~\n" + envelope(CALLS[2]) + "\n~~~",
        "```json\n// only a comment\n```",
        "Use <function name=> or <tool_call name=> or <tool_call: as you like.",
        "<start_function_call> begins a call and call:ping{} is one.",
        "`<|tool_call>call:ping{}<tool_call|>`",
    ],
)
def test_words_of_the_forms_in_prose_stay_text(text: str):
    for native in (False, True):
        assert every_way(text, native=native) == {"calls": [], "text": text, "errors": [], "thinking": ""}


def test_invented_results_of_the_new_families_cut_the_reply():
    call = FAMILIES["gemma_4"]([CALLS[2]])
    for result in (
        "<|tool_response>response:ping{value:1}",
        "<start_function_response>x",
        '<|open|>message role="tool"',
    ):
        found = every_way(f"{call}{result} Done. {call}")
        assert found["calls"] == expected([CALLS[2]])
        assert "Done" not in found["text"]
    numbered = "Action 1: ping\nAction Input 1: {}\nObservation 1: ok\nAction 2: ping\nAction Input 2: {}"
    assert every_way(numbered)["calls"] == expected([CALLS[2]])
    chinese = "行动：ping\n行动输入：{}\n观察：好\n行动：ping\n行动输入：{}"
    assert every_way(chinese)["calls"] == expected([CALLS[2]])


def test_minimax_m3_tags_in_disorder_are_one_failure():
    inner = f'{MINIMAX}<invoke name="stock_quote">{MINIMAX}<ticker>A{MINIMAX}</currency>{MINIMAX}</invoke>'
    found = every_way(f"{MINIMAX}<tool_call>{inner}{MINIMAX}</tool_call>")
    assert found == {"calls": [], "text": "", "errors": ["malformed"], "thinking": ""}


def test_numbers_of_gemma_keep_their_spelling():
    text = '<|tool_call>call:plot{series:[{name:<|"|>a<|"|>,points:[1.50,1E2]}]}<tool_call|>'
    [call] = read_reply(text, TOOLS).calls
    assert call.arguments == '{"series":[{"name":"a","points":[1.50,1E2]}]}'
    assert call.repairs == ()


HOSTILE = {
    "gemma": ("<|tool_call>call:ping{a:", '<|"|>x<|"|>,'),
    "gemma brackets": ("<|tool_call>call:ping", "{["),
    "gemma quotes": ("<|tool_call>call:ping{", '"'),
    "minimax": (f'{MINIMAX}<invoke name="ping">', f"{MINIMAX}<a>"),
    "minimax words": ("", MINIMAX),
    "hunyuan": ("<tool_calls:a>", "<tool_call:a>ping</tool_call:a>"),
    "hunyuan suffixes": ("", "<tool_calls:a>"),
    "pairs": ("<tool_call:a>ping", "<arg_key:a>k</arg_key:a><arg_value:a>v</arg_value:a>"),
    "python": ("<function_calls>ping(", "('"),
    "python calls": ("<function_calls>", "ping()\n"),
    "python names": ("", "<function_calls>ping("),
    "calling": ("", "[Calling tool: ping("),
    "harmony": ("", "assistantcommentary to=functions.ping json "),
    "assistants": ("", "assistantcommentar"),
    "arrows": ("", "->>>ping\n"),
    "comments": ("```json\n", "// x\n"),
    "fences": ("", "```json\n// x\n"),
    "kimi": ("<|open|>tools<|sep|>", "<|open|>call "),
    "encoded": ('[TOOL_CALLS]ping[ARGS]"', '\\"'),
    "encoded calls": ("", '[TOOL_CALLS]ping[ARGS]"{'),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_text_costs_linear_time(name: str):
    head, part = HOSTILE[name]

    def seconds(size: int) -> float:
        text = head + part * (size // len(part))
        best = 9.0
        for _ in range(2):
            scanner = Scanner(TOOLS)
            began = process_time()
            for at in range(0, len(text), 1000):
                scanner.feed(text[at : at + 1000])
            scanner.finish()
            best = min(best, process_time() - began)
        return best

    half, whole = seconds(40_000), seconds(80_000)
    assert whole < 3 * half + 0.05
