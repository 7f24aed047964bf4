from __future__ import annotations

from typing import Any

import pytest

from lmagent.errors import ParameterError
from lmagent.providers.fields import one_call_a_reply, only, same, switched, within
from lmagent.providers.wenxin import WenxinCodec
from tests.providers.wire_cn import RIVER, chat


@pytest.mark.parametrize(
    ("rule", "value", "written"),
    [
        (within("a", 0, 1), 0, {"a": 0}),
        (within("a", 0, 1), 0.5, {"a": 0.5}),
        (within("a", 0, 1, sent=(0.01, 0.99)), 0, {"a": 0.01}),
        (within("a", 0, 1, sent=(0.01, 0.99)), 1.0, {"a": 0.99}),
        (within("a", 0, 1, sent=(0.01, 0.99)), 0.001, {"a": 0.001}),  # no end: the server takes it
        (within("a", 1, 9, wire="A"), 3, {"A": 3}),
        (only("a", 1), 1, {"a": 1}),
        (switched("think"), "none", {"think": False}),
        (switched("think"), "low", {"think": True}),
        (one_call_a_reply, False, {}),
    ],
)
def test_what_a_rule_writes(rule: Any, value: Any, written: dict[str, Any]):
    assert rule(value) == written


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (within("a", 0, 1), -0.1),
        (within("a", 0, 1), 1.1),
        (within("a", 0, 1), float("nan")),
        (only("a", 1), 2),
        (one_call_a_reply, True),
    ],
)
def test_what_a_rule_refuses(rule: Any, value: Any):
    with pytest.raises(ParameterError, match=str(value)):
        rule(value)


def test_same_names():
    assert same("a", "b") == {"a": "a", "b": "b"}


def test_a_refusal_names_the_provider():
    with pytest.raises(ParameterError, match=r"^wenxin: temperature must be from 0 to 1, got 1\.5\.$"):
        WenxinCodec("ERNIE-Bot").build_request(chat(RIVER, parameters={"temperature": 1.5}))
