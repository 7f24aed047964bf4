"""Outside data: the ground-truth calls of the Berkeley function-calling cases, in every format, cut and corrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lmagent.toolkit.schema import problems
from tests.prompting.reading import random_cuts, read, same_calls
from tests.prompting.rendering import RENDER, Call

pytestmark = pytest.mark.skipif(
    find_spec("bfcl_eval") is None, reason="needs the cases in bfcl-eval: pip install --no-deps bfcl-eval"
)
FILES = ("simple_python", "multiple", "parallel", "parallel_multiple", "live_simple", "live_multiple", "live_parallel")
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None, "double": "number", "long": "integer"}
Case = tuple[dict[str, dict[str, Any]], list[Call]]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip())


def schema_of(node: Any) -> Any:
    """The schema in JSON Schema's own type names."""
    if not isinstance(node, dict):
        return node
    schema = {key: item for key, item in node.items() if key in ("required", "enum")}
    kind = node.get("type")
    kind = TYPES.get(kind, kind) if isinstance(kind, str) else kind
    if kind:
        schema["type"] = kind
    if "properties" in node:
        schema["properties"] = {key: schema_of(item) for key, item in node["properties"].items()}
    if "items" in node:
        schema["items"] = schema_of(node["items"])
    return schema


def choose(options: Any) -> Any:
    """The first allowed value (an empty text means that the argument may be left out)."""
    if not isinstance(options, list):
        return options
    value = next((option for option in options if option != ""), None)
    return {key: choose(item) for key, item in value.items()} if isinstance(value, dict) else value


@cache
def cases() -> list[Case]:
    found: list[Case] = []
    spec = find_spec("bfcl_eval")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    for file in FILES:
        name = f"BFCL_v4_{file}.json"
        answers = {row["id"]: row["ground_truth"] for row in lines(data / "possible_answer" / name)}
        for row in lines(data / name):
            tools = {tool["name"]: schema_of(tool["parameters"]) for tool in row["function"]}
            calls = [
                (name, {key: choose(item) for key, item in arguments.items() if item and "" not in item})
                for call in answers[row["id"]]
                for name, arguments in call.items()
            ]
            try:
                fits = all(name in tools and not problems(arguments, tools[name]) for name, arguments in calls)
            except TypeError:
                fits = False
            if fits:
                found.append((tools, calls))
    return found


def expected(calls: list[Call]) -> list[dict[str, Any]]:
    return [{"name": name, "arguments": arguments} for name, arguments in calls]


def test_the_cases_are_there():
    assert len(cases()) > 1500


@pytest.mark.parametrize("family", list(RENDER))
def test_every_ground_truth_call_parses_however_it_is_cut(family: str):
    raw_values = family in ("qwen3_coder", "glm45", "glm47", "minimax_m2")
    step = 1 if family in ("hermes", "json_fence", "react", "llama_json", "pythonic") else 7
    wrong: list[tuple[str, object]] = []
    for index, (tools, calls) in enumerate(cases()[::step]):
        if raw_values and any(not typed(tools[name], arguments) for name, arguments in calls):
            continue  # values between tags have no type of their own where the schema gives none
        text = RENDER[family](calls)
        found = read(text, tools, chunks=random_cuts(text, index))
        if not same_calls(found["calls"], expected(calls)) or found["errors"]:
            wrong.append((text, found))
    assert not wrong, (len(wrong), wrong[:2])


def typed(schema: dict[str, Any], arguments: dict[str, Any]) -> bool:
    properties = schema.get("properties", {})
    return all(
        properties.get(key, {}).get("type") in ("string", "integer", "number", "boolean", "array", "object")
        for key in arguments
    )


def write(
    value: Any, quote: str = '"', colon: str = ": ", comma: str = ", ", *, end: str = "", bare: bool = False
) -> str:
    """JSON with other quotes, separators, a comma before the end, or bare keys."""

    def text(word: str) -> str:
        inner = json.dumps(word, ensure_ascii=False)[1:-1]
        return quote + (inner.replace('\\"', '"').replace("'", "\\'") if quote == "'" else inner) + quote

    def inside(item: Any) -> str:
        return write(item, quote, colon, comma, end=end, bare=bare)

    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        pairs = [
            (key if bare and key.isidentifier() else text(key)) + colon + inside(item) for key, item in value.items()
        ]
        return "{" + comma.join(pairs) + (end if pairs else "") + "}"
    if isinstance(value, list):
        return "[" + comma.join(map(inside, value)) + (end if value else "") + "]"
    return repr(value) if quote == "'" else json.dumps(value)


CORRUPT: dict[str, Callable[[dict[str, Any]], str]] = {
    "python": lambda call: write(call, "'"),
    "trailing commas": lambda call: write(call, end=","),
    "bare keys": lambda call: write(call, bare=True),
    "full-width": lambda call: write(call, colon="：", comma="，"),
    "comments": lambda call: write(call, comma=", // next, \"so\" 'on' {\n"),
    "double braces": lambda call: "{" + write(call) + "}",
    "surplus brace": lambda call: write(call) + "}",
    "missing brace": lambda call: write(call)[:-1],
    "missing braces": lambda call: write(call)[:-2],
    "encoded arguments": lambda call: write({**call, "arguments": json.dumps(call["arguments"])}),
    "encoded call": lambda call: json.dumps(json.dumps(call)),
    "escaped": lambda call: json.dumps(json.dumps(call, ensure_ascii=False), ensure_ascii=False)[1:-1],
    "raw newlines": lambda call: write(call).replace("\\n", "\n"),
    "fence": lambda call: f"```json\n{write(call)}\n```",
    "elision": lambda call: write(call)[:-2] + ", ...}}",
    "lost colon": lambda call: write(call, colon=" "),
    "lost commas": lambda call: write(call, comma=" "),
    "lost quote": lambda call: write(call).replace('"', "", 1),
    "cut": lambda call: write(call)[: len(write(call)) * 2 // 3],
    "aliases": lambda call: write({"tool": call["name"], "parameters": call["arguments"]}),
}
RECOVERED = frozenset(CORRUPT) - {"elision", "lost colon", "lost commas", "lost quote", "cut"}


@pytest.mark.parametrize("corruption", list(CORRUPT))
def test_a_corrupted_call_is_recovered_or_reported_never_changed(corruption: str):
    random = Random(corruption)
    missed: list[str] = []
    for tools, calls in random.sample(cases(), 250):
        name, arguments = calls[0]
        text = "<tool_call>\n" + CORRUPT[corruption]({"name": name, "arguments": arguments})
        text += "" if corruption == "cut" else "\n</tool_call>"
        found = read(text, tools)
        assert found["calls"] in ([], expected(calls[:1])), (text, found)
        assert found["calls"] or found["errors"], (text, found)
        if not found["calls"] and corruption in RECOVERED and arguments:
            missed.append(text)
    assert len(missed) <= 2, (len(missed), missed[:3])
