from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import lmagent
from lmagent import function
from lmagent.prompting.leaked_calls import LEAKED
from lmagent.prompting.whole_reply import read_reply
from lmagent.toolkit.loose_json import JSONReadError, read_json
from lmagent.toolkit.repair import ALIASES, REPAIRS, repair_arguments

TASK: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "count": {"type": "integer"},
        "price": {"type": "number"},
        "done": {"type": "boolean"},
        "labels": {"type": "array", "items": {"type": "string"}},
        "extra": {"$ref": "#/$defs/Extra"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "mixed": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    },
    "$defs": {"Extra": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}

REPAIRED = [
    ("{'a': 'b'}", {"a": "b"}, ("single quotes",)),
    (r"{'a': 'it\'s'}", {"a": "it's"}, ("single quotes", "illegal escape")),
    ("""{'a': 'say "hi"'}""", {"a": 'say "hi"'}, ("single quotes",)),
    ('{"a": [1, 2,], }', {"a": [1, 2]}, ("trailing comma",)),
    ('{"a": True, "b": False, "c": None}', {"a": True, "b": False, "c": None}, ("Python literal",)),
    ('{"a": "x\ny\tz"}', {"a": "x\ny\tz"}, ("raw control character",)),
    ('{"a": 1, // one\n"b": /* two */ 2 # three\n}', {"a": 1, "b": 2}, ("comment",)),
    ('{"a": "http://x#y /* z */",}', {"a": "http://x#y /* z */"}, ("trailing comma",)),
    ("{a: 1, 名: 2}", {"a": 1, "名": 2}, ("unquoted key",)),
    ('{{"a": 1}}', {"a": 1}, ("doubled braces",)),
    ('{"a": {"b": 1}}}', {"a": {"b": 1}}, ("surplus closing bracket",)),
    (r'{"a": "\d+\.\w"}', {"a": r"\d+\.\w"}, ("illegal escape",)),
    (r'{"a": "C:\users"}', {"a": r"C:\users"}, ("illegal escape",)),
    ('{"a": .5, "b": -.5e3}', {"a": 0.5, "b": -500.0}, ("leading-dot number",)),
    ("{“a”: “b”}", {"a": "b"}, ("smart quotes",)),
    ('｛"a"：［1，２］，"b"："：，［］１"｝', {"a": [1, 2], "b": "：，［］１"}, ("full-width structure",)),
    ('```json\n{"a": 1}\n```', {"a": 1}, ("inner code fence",)),
    ('json {"a": 1}', {"a": 1}, ("leading word json",)),
    ('\ufeff{"a":\u00a01}', {"a": 1}, ("odd white space",)),
    (r"{\"a\": \"b \\\"c\\\" \\n\"}", {"a": 'b "c" \n'}, ("escaped quotes",)),
]

REFUSED = [
    '{"a": [1, 2, ...]}',
    '{"a": …}',
    '{"a": NaN}',
    '{"a": -Infinity}',
    '{"a": 1e999}',
    '{"a": 1,299.00}',
    '{"a": }',
    '{"a" 1}',
    '{"a": 1 "b": 2}',
    '{"a": [1,,2]}',
    '{"a": "\\ud83d"}',
    '{"a": "the "big" one"}',
    "{'a': 'it's'}",
    '{"a": hello}',
    '{"a": undefined}',
    '{"a": 007}',
    '{"a": 0x10}',
    '{"a": 1_000}',
    '{"a": +1}',
    '{"a": 5.}',
    '{"a": "x}',
    '{"a": 1',
    '{"a": [1}',
    '{"a": 1, "a": 2}',
    '{"a": "x"} and more',
    r'{"a": "C:\dir\new"}',
    '{"a": "\\u12g4"}',
    '{"a": "x" /* open}',
    "",
    "{",
    "[" * 300 + "]" * 300,
    "[" * 100_000,
    "{" * 100_000,
    "{{{" + "}}}",
    "1" * 5000,
]


@pytest.mark.parametrize(("text", "value", "repairs"), REPAIRED)
def test_each_repair_is_lossless_and_named(text: str, value: Any, repairs: tuple[str, ...]):
    reading = read_json(text)
    assert reading.value == value
    assert reading.repairs == repairs
    with pytest.raises(JSONReadError):
        read_json(text, repair=False)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_what_has_no_certain_reading_is_refused(text: str):
    with pytest.raises(JSONReadError):
        read_json(text)


def test_strict_json_wins_and_a_legal_escape_is_never_touched():
    assert read_json(r'{"a": "C:\new"}').value == {"a": "C:\new"}
    assert read_json(r'{"a": "\ud83d\ude00"}').value == {"a": "😀"}
    assert read_json('{"a": 1, "a": 1}').value == {"a": 1}
    assert read_json("[" * 200 + "]" * 200).repairs == ()


def test_missing_brackets_are_added_only_before_a_closing_delimiter():
    assert read_json('{"a": [1, {"b": 2', closed=True).value == {"a": [1, {"b": 2}]}
    assert read_json('{"a": ["x"}', closed=True).value == {"a": ["x"]}
    for text in ('{"a": "x', '{"a": 1,', '{"a":', '{"a": [1}, "b": 2}'):
        with pytest.raises(JSONReadError):
            read_json(text, closed=True)


def test_an_error_names_the_place_the_expectation_and_what_came():
    with pytest.raises(JSONReadError) as caught:
        read_json('{"a": 1,\n "b" 2}')
    assert str(caught.value) == "line 2 column 6 (char 14): expected ':', got '2}'"
    assert not caught.value.at_end
    with pytest.raises(JSONReadError) as caught:
        read_json('{"a": "x')
    assert caught.value.at_end


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ('{"a": 1,\n "b": NaN}', "line 2 column 7", "a value, got 'NaN'"),
        ('{"a": 1, "a": 2}', "line 1 column 16", "one value for the key 'a', got two"),
        ('{"a": 1%s}' % ("0" * 5000), "line 1 column 7", "a value of sensible length"),
    ],
)
def test_what_strict_json_reads_and_we_refuse_has_its_place(text: str, place: str, expected: str):
    for repair in (True, False):
        with pytest.raises(JSONReadError) as caught:
            read_json(text, repair=repair)
        assert str(caught.value).startswith(place)
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value", "repairs"),
    [
        ('{"count": "2"}', {"count": 2}, ("string to integer",)),
        ('{"count": 2.0}', {"count": 2}, ("number to integer",)),
        ('{"price": "1.5"}', {"price": 1.5}, ("string to number",)),
        ('{"done": "True"}', {"done": True}, ("string to boolean",)),
        ('{"labels": "[\\"a\\"]"}', {"labels": ["a"]}, ("string to array",)),
        ('{"labels": "[\'a\']"}', {"labels": ["a"]}, ("string to array",)),
        ('{"extra": "{\\"n\\": \\"3\\"}"}', {"extra": {"n": 3}}, ("string to object", "string to integer")),
        ('{"either": "4"}', {"either": 4}, ("string to integer",)),
        ('{"either": "null"}', {"either": None}, ("string to null",)),
        ('"{\\"title\\": \\"x\\"}"', {"title": "x"}, ("encoded as a string",)),
        (json.dumps(json.dumps('{"title": "x"}')), {"title": "x"}, ("encoded as a string",)),
        ("", {}, ("empty arguments",)),
        ("null", {}, ("empty arguments",)),
        ("{'title': 'x'}", {"title": "x"}, ("single quotes",)),
    ],
)
def test_arguments_are_fitted_to_the_schema_without_loss(text: str, value: Any, repairs: tuple[str, ...]):
    fitted, noted = repair_arguments(text, TASK)
    if text == json.dumps(json.dumps('{"title": "x"}')):
        assert fitted is None or json.loads(fitted) == value  # three layers: two are undone, or it is refused
        return
    assert fitted is not None
    assert json.loads(fitted) == value
    assert noted == repairs


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "null"}',
        '{"title": "007", "mixed": "7"}',
        '{"title": "{\\"a\\": 1}"}',
        '{"count": "007"}',
        '{"count": "2.5"}',
        '{"count": 2.5}',
        '{"count": "1,299"}',
        '{"count": true}',
        '{"done": "maybe"}',
        '{"done": 1}',
        '{"labels": "a, b"}',
        '{"title": 5}',
        '{"price": "NaN"}',
        '{"price":1.50}',
    ],
)
def test_what_is_text_or_does_not_fit_stays_as_it_came(text: str):
    assert repair_arguments(text, TASK) == (text, ())


@pytest.mark.parametrize("text", ['{"title": "x', '{"title": ...}', "[1]", '"x"', "5", '{"title": "x" "count": 2}'])
def test_arguments_that_cannot_be_read_give_the_reason(text: str):
    fitted, reasons = repair_arguments(text, TASK)
    assert fitted is None
    assert reasons
    assert "expected" in reasons[0]


def test_a_schema_that_refers_to_itself_ends():
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert repair_arguments('{"a": "1"}', schema) == ('{"a": "1"}', ())


# The list of names

EXAMPLES: list[tuple[str, str]] = [
    ('{"done": "true"}', "string to boolean"),
    ('{"either": "null"}', "string to null"),
    ('{"count": "3"}', "string to integer"),
    ('{"price": "3.5"}', "string to number"),
    ('{"extra": "{\'n\': 1}"}', "string to object"),
    ('{"labels": "[]"}', "string to array"),
    ('{"count": 3.0}', "number to integer"),
]


@pytest.mark.parametrize(("text", "name"), EXAMPLES)
def test_conversions_are_noted_by_the_kinds_of_value(text: str, name: str):
    assert repair_arguments(text, TASK)[1] == (name,)


def _emitted(path: Path) -> set[str]:
    """Every name that a module notes as a literal: `_note("x")`, `notes.append("x")`, `repairs=("x",)`, ..."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(attr="_note")):
                found += node.args
            case ast.Call(func=ast.Attribute(value=ast.Name(id="notes" | "repairs"), attr="append" | "extend")):
                found += node.args
            case ast.Call(func=ast.Name(id="Reading"), args=[_, names]):
                found.append(names)
            case ast.keyword(arg="repairs", value=ast.Tuple()):
                found.append(node.value)
            case ast.Assign(targets=[ast.Subscript(value=ast.Attribute(attr="_names"), slice=name)]):
                found.append(name)
            case ast.Return(value=ast.Tuple(elts=[_, ast.Tuple() as names])) if path.name == "arguments.py":
                found.append(names)
            case _:
                continue
    literals = [inner for node in found for inner in _literals(node)]
    return {literal.value for literal in literals if isinstance(literal.value, str)}


def _literals(node: ast.AST) -> list[ast.Constant]:
    if isinstance(node, ast.IfExp):
        return [*_literals(node.body), *_literals(node.orelse)]
    if isinstance(node, ast.Tuple):
        return [literal for element in node.elts for literal in _literals(element)]
    return [node] if isinstance(node, ast.Constant) else []


def test_the_public_list_has_exactly_the_names_that_the_code_emits():
    emitted = {name for path in Path(lmagent.__file__).parent.rglob("*.py") for name in _emitted(path)}
    assert emitted | {name for _, name in EXAMPLES} | {LEAKED} == set(REPAIRS)
    assert list(REPAIRS) == sorted(REPAIRS)


def test_old_names_lead_to_names_in_the_list():
    assert not set(ALIASES) & set(REPAIRS)
    assert {name for names in ALIASES.values() for name in names} <= set(REPAIRS)


def test_the_documentation_lists_every_repair():
    text = (Path(__file__).parents[2] / "docs" / "prompted-tools.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE))
    assert rows | REPAIRS == rows
    assert all(f"`{old}`" in text for old in ALIASES)


def test_native_and_prompted_calls_note_the_same_repairs():
    @function
    def add(a: int, b: int = 0) -> int:
        return a + b

    text = "{'a': '2',}"
    native = add.validate(text, repair=True)
    [prompted] = read_reply(
        f'<tool_call>{{"name": "add", "arguments": {text}}}</tool_call>', {"add": add.parameters}
    ).calls
    assert native.repairs == prompted.repairs == ("single quotes", "trailing comma", "string to integer")
