"""Worked examples: what a model sees of a callable and what a call gives."""

from __future__ import annotations

import datetime
import functools
import json
import socket
import typing
from dataclasses import dataclass, field
from math import inf
from typing import (
    Annotated,
    Any,
    Required,
)

import pytest
from pydantic import Field
from typing_extensions import TypedDict, Unpack

from lmagent.errors import FunctionDefinitionError, InvalidArguments
from lmagent.toolkit.context import RunContext
from lmagent.toolkit.tool import function
from tests.toolkit.callables import (
    SENTINEL,
    Priority,
    Stop,
    file_ticket,
    log_event,
    plan_trip,
    problems,
    properties,
    transfer,
)


def test_example_a_docstring_and_optional():
    assert transfer.json_schema == {
        "name": "transfer",
        "description": "Move money to an account.\n\nThe transfer is booked on the next working day.",
        "parameters": {
            "type": "object",
            "properties": {
                "account": {"type": "string", "description": "IBAN of the receiver."},
                "amount": {"type": "number", "description": "How much, in euro."},
                "memo": {
                    "anyOf": [{"type": "string"}, {"type": "null"}],
                    "description": "Shown on the statement.",
                    "default": None,
                },
            },
            "required": ["account", "amount"],
            "additionalProperties": False,
        },
    }
    assert transfer.call('{"account": "DE1", "amount": "3"}') == ("DE1", 3.0, None)
    with pytest.raises(InvalidArguments) as caught:
        transfer.call('{"account": "DE1", "amount": "much", "meno": 1}')
    assert str(caught.value) == (
        "transfer: invalid arguments\n"
        'amount: Input should be a valid number, unable to parse string as a number (got "much")\n'
        "meno: Extra inputs are not permitted (got 1)"
    )


def test_example_b_names_like_keywords():
    assert list(properties(file_ticket)) == ["title", "type", "priority"]
    assert file_ticket.parameters["required"] == ["title"]
    assert properties(file_ticket)["priority"] == {"$ref": "#/$defs/Priority", "default": "low"}
    assert file_ticket.parameters["$defs"]["Priority"] == {"enum": ["low", "high"], "type": "string"}
    assert file_ticket.call('{"title": "x", "type": null}') == ("x", "bug", Priority.LOW)
    assert file_ticket.call('{"title": "x", "priority": "high"}') == ("x", "bug", Priority.HIGH)


def test_example_d_nested_models():
    assert properties(plan_trip)["start"] == {"$ref": "#/$defs/Stop", "description": "Where it begins."}
    assert properties(plan_trip)["budget"]["description"] == "Most to spend"
    assert plan_trip.parameters["required"] == ["start", "budget"]
    start, via, budget = plan_trip.call(
        '{"start": {"city": "Rome"}, "via": [{"city": "Bari", "nights": 2}], "budget": 1}'
    )
    assert (start, via, budget) == (Stop(city="Rome"), [Stop(city="Bari", nights=2)], 1.0)
    assert problems(plan_trip, '{"start": {"city": "Rome", "nights": -1}, "budget": 0}') == [
        "start.nights: Input should be greater than or equal to 0 (got -1)",
        "budget: Input should be greater than 0 (got 0)",
    ]
    assert plan_trip.call('{"start": "{\\"city\\": \\"Rome\\"}", "budget": 1}')[0] == Stop(city="Rome")


@function
def 订票(出发地: str, 日期: datetime.date):
    """预订火车票。

    参数：
        出发地：从哪个城市出发。
        日期：乘车日期。
    """
    return 出发地, 日期


def test_example_e_chinese():
    assert 订票.name == "tool_c8397d6c"
    assert 订票.original_name == "订票"
    assert 订票.description == "预订火车票。"
    assert properties(订票) == {
        "出发地": {"type": "string", "description": "从哪个城市出发。"},
        "日期": {"type": "string", "format": "date", "description": "乘车日期。"},
    }
    assert 订票.call('{"出发地": "北京", "日期": "2030-01-02"}') == ("北京", datetime.date(2030, 1, 2))


def test_example_f_every_kind_of_parameter():
    assert log_event.parameters == {
        "type": "object",
        "properties": {
            "level": {"type": "string", "description": "Severity word"},
            "words": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["level"],
        "additionalProperties": {"type": "integer"},
    }
    context = RunContext(deps=7)
    called = log_event.call('{"level": "warn", "words": ["disk", "full"], "node": "7"}', context=context)
    assert called == (context, "warn", ("disk", "full"), {"node": 7})
    assert problems(log_event, '{"level": "warn", "ctx": 1}') == ["ctx: Extra inputs are not permitted (got 1)"]
    assert problems(log_event, '{"level": "warn", "node": "many"}')[0].startswith("node: ")


class Paging(TypedDict, total=False):
    page: Required[int]
    size: Annotated[int, Field(le=100), "How many"]


class OldPaging(typing.TypedDict, total=False):
    page: typing.Required[int]
    size: Annotated[int, Field(le=100)]


def test_example_g_unpack():
    def list_users(team: str, **paging: Unpack[Paging]):
        return team, paging

    def list_old(team: str, **paging: typing.Unpack[OldPaging]):
        return team, paging

    for body in (list_users, list_old):
        tool = function(body)
        assert set(properties(tool)) == {"team", "page", "size"}
        assert properties(tool)["size"]["maximum"] == 100
        assert tool.parameters["required"] == ["team", "page"]
        assert tool.parameters["additionalProperties"] is False
        assert tool.call('{"team": "a", "page": 2}') == ("a", {"page": 2})
        assert len(problems(tool, '{"team": "a", "size": 101}')) == 2
    assert properties(function(list_users))["size"]["description"] == "How many"


def test_example_h_awkward_names():
    @function
    def resize(_img: str, model_config: int, json: bool = False):
        return _img, model_config, json

    assert list(properties(resize)) == ["_img", "model_config", "json"]
    assert resize.call('{"_img": "a", "model_config": 1, "json": true}') == ("a", 1, True)


AWKWARD = [
    "schema", "json", "copy", "model_config", "model_fields", "validate", "title",
    "type", "properties", "default", "required", "items", "enum", "const",
    "format", "additionalProperties", "_x", "__y", "self_", "cls_", "名字",
    "name", "description", "parameters", "values", "kwargs",
]  # fmt: skip


def test_any_identifier_is_a_parameter_name():
    namespace: dict[str, Any] = {"datetime": datetime}
    exec(f"def f({', '.join(f'{name}: datetime.date' for name in AWKWARD)}):\n    return locals()", namespace)
    tool = function(namespace["f"])
    assert list(properties(tool)) == AWKWARD
    assert tool.parameters["required"] == AWKWARD
    called = tool.call(json.dumps(dict.fromkeys(AWKWARD, "2030-01-02")))
    assert called == dict.fromkeys(AWKWARD, datetime.date(2030, 1, 2))


@dataclass
class Part:
    name: str
    parts: list[Part] = field(default_factory=list)


def test_example_i_recursion():
    @function
    def build(part: Part):
        return part

    assert build.parameters["$defs"]["Part"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    assert build.call('{"part": {"name": "a", "parts": [{"name": "b"}]}}') == Part("a", [Part("b")])


class Mailer:
    """Sends mail."""

    def __call__(self, to: str, cc: list[str] = []):
        cc.append(to)
        return cc


class SilentMailer:
    def __call__(self, to: str):
        """Send to nobody."""


def test_example_j_an_instance():
    tool = function(Mailer())
    assert tool.name == "Mailer"
    assert tool.description == "Sends mail."
    assert list(properties(tool)) == ["to", "cc"]
    assert tool.call('{"to": "a"}') == ["a"]
    assert tool.call('{"to": "b"}') == ["b"]
    assert function(SilentMailer()).description == "Send to nobody."


def test_example_k_defaults_that_are_not_json():
    @function
    def wait(seconds: float = inf, until: datetime.datetime = datetime.datetime(2030, 1, 1), retry: object = SENTINEL):
        return seconds, until, retry

    assert "required" not in wait.parameters
    assert properties(wait)["until"]["default"] == "2030-01-01T00:00:00"
    assert "default" not in properties(wait)["seconds"]
    assert "default" not in properties(wait)["retry"]
    assert wait.call("") == (inf, datetime.datetime(2030, 1, 1), SENTINEL)


def test_example_l_partial():
    tool = function(functools.partial(transfer.__wrapped__, "DE9"))
    assert tool.name == "transfer"
    assert tool.description.startswith("Move money")
    assert list(properties(tool)) == ["amount", "memo"]
    assert properties(tool)["amount"]["description"] == "How much, in euro."
    assert tool.call('{"amount": 1}') == ("DE9", 1.0, None)
    hidden = function(functools.partial(functools.partial(transfer.__wrapped__, memo="m"), "DE9"))
    assert list(properties(hidden)) == ["amount"]
    assert hidden.call('{"amount": 1}') == ("DE9", 1.0, "m")
    assert problems(hidden, '{"amount": 1, "memo": "x"}') == ['memo: Extra inputs are not permitted (got "x")']


def test_example_n_refused():
    @function
    def connect(sock: socket.socket): ...

    for _ in range(2):
        with pytest.raises(FunctionDefinitionError) as caught:
            connect.check()
        assert str(caught.value) == "connect: parameter 'sock': <class 'socket.socket'> cannot be described as JSON"
