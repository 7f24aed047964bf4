from __future__ import annotations

from typing import Any

import pytest

from tests.prompting.reading import TOOLS, accepted, random_cuts, read, rows

ROWS = [*rows("examples.jsonl"), *rows("cases.jsonl")]


def tools_of(row: dict[str, Any]) -> dict[str, Any]:
    if "tools" not in row:
        return TOOLS
    return {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_each_case_has_an_accepted_outcome_however_it_is_cut(row: dict[str, Any]):
    text, tools, reason = row["text"], tools_of(row), row.get("finish_reason", "stop")
    stop = row.get("stop", ())
    whole = read(text, tools, reason, stop=stop)
    assert any(accepted(whole, wanted) for wanted in [row["expect"], *row.get("alt", [])]), whole
    cuts = [list(text), row.get("chunks") or [text], *(random_cuts(text, seed) for seed in range(6))]
    for chunks in cuts:
        assert read(text, tools, reason, chunks, stop=stop) == whole


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_tool_result_never_adds_calls_and_native_mode_adds_none(row: dict[str, Any]):
    text, tools, reason = row["text"], tools_of(row), row.get("finish_reason", "stop")
    allowed = [wanted["calls"] for wanted in [row["expect"], *row.get("alt", [])]]
    native = read(text, tools, reason, native=True)
    assert any(all(call in calls for call in native["calls"]) for calls in [[], *allowed])
    assert read(text, {}, reason, native=True)["calls"] == []
