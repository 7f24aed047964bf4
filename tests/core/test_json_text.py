from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmagent.core.json_text import JSONError, dumps, dumps_text, loads, storable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_dumped_values_are_loaded_back(value):
    assert loads(dumps(value)) == value
    assert loads(dumps_text(value)) == value
    assert loads(dumps_text(value, indent=2)) == value
    assert loads(json.dumps(value)) == value
    assert json.loads(dumps(value)) == value


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_loads_returns_or_raises_json_error_for_any_bytes(data):
    try:
        value = loads(data)
    except JSONError:
        return
    dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "nonsense",
            "{",
            '{"a":1',
            "[1,]",
            "{'a':1}",
            "NaN",
            "Infinity",
            "-Infinity",
            "[NaN]",
            "1e999",
            "1E+400",
        ),
        *(
            '{"a": -1e999}',
            "1" * 400 + ".0",
            "9" * 5000,
            "[" * 300 + "]" * 300,
            "[" * 100_000,
            '{"a":' * 300 + "1" + "}" * 300,
        ),
        *('"a" "b"', "\ufeff\ufeff1", "tru"),
    ],
)
def test_invalid_json_is_refused(text):
    with pytest.raises(JSONError):
        loads(text)
    with pytest.raises(JSONError):
        loads(text.encode())


def test_size_depth_and_digits_are_limited():
    with pytest.raises(JSONError, match="more than 10"):
        loads("[1,2,3,4,5,6]", max_bytes=10)
    assert loads("[[1]]", max_depth=2) == [[1]]
    with pytest.raises(JSONError, match="deeper than 2"):
        loads("[[[1]]]", max_depth=2)
    assert loads("[" * 200 + "]" * 200)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        ('\ufeff{"a":1}', {"a": 1}),
        (r'"\ud83d\ude00"', "😀"),
        (r'["\ud83d", "\ude00x"]', ["\ufffd", "\ufffdx"]),
        (r'{"\ud800": 1}', {"\ufffd": 1}),
        ('"\ud800"', "\ufffd"),
        (b'"\xff"', "\ufffd"),
        ('"a\nb\tc"', "a\nb\tc"),
        ('{"a":1,"a":2}', {"a": 2}),
        (" [1] \n", [1]),
        ("12345678901234567890123", 12345678901234567890123),
    ],
)
def test_almost_valid_json_is_read(data, value):
    assert loads(data) == value


def test_everything_loaded_can_be_dumped():
    for text in (r'"\ud800\udc00\udfff"', r'"\u0000\u001f"', b'"\xed\xa0\x80"'):
        loads(text).encode("utf-8")


@pytest.mark.parametrize("text", ["plain", "你好", "😀", "a\u0000"])
def test_storable_keeps_valid_text(text):
    assert storable(text) is text


def test_storable_replaces_lone_surrogates():
    assert storable("a\ud800b") == "a\ufffdb"
    assert storable("\ud83d\ude00") == "😀"


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": {"b": -float("inf")}}, object(), {"a": object()}]
)
def test_values_that_are_not_json_are_refused(value):
    with pytest.raises(JSONError):
        dumps(value)


def test_a_value_that_contains_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(JSONError):
        dumps(loop)


def test_dumped_text_is_compact_and_not_ascii_escaped():
    assert dumps({"a": ["你好", 1, None, True]}) == '{"a":["你好",1,null,true]}'.encode()
    assert dumps("\ud800") == '"\ufffd"'.encode()
    assert dumps_text({"a": "é"}, indent=1) == '{\n "a": "é"\n}'
