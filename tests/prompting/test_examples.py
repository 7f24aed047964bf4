from __future__ import annotations

import json
from typing import Any

import pytest

from lmagent.core.messages import Reply
from lmagent.testing import ScriptedModel
from lmagent.testing import text as said
from lmagent.toolkit.schema import ToolSpec
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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
@pytest.mark.parametrize("piece", [0, 1, 5], ids=["whole", "by character", "by five"])
def test_a_model_in_prompt_mode_runs_what_the_case_allows_and_nothing_else(row: dict[str, Any], piece: int):
    tools = [ToolSpec(name=name, description="", parameters=schema) for name, schema in tools_of(row).items()]
    line = said(row["text"], finish_reason=row.get("finish_reason", "stop"))
    model = ScriptedModel([line], tool_mode="prompt", piece=piece or 7)
    stop = {"stop": row["stop"]} if "stop" in row else {}
    if piece:
        *_, reply = model.stream_chat_completion("?", tools=tools, **stop)
        assert isinstance(reply, Reply)
    else:
        reply = model.chat_completion("?", tools=tools, **stop)
    known = {tool.name for tool in tools}
    runs = [call for call in reply.tool_calls if not call.problem and call.name in known]
    found = {
        "calls": [{"name": call.name, "arguments": json.loads(call.arguments)} for call in runs],
        "errors": len(reply.tool_calls) - len(runs),
        "text": reply.reply,
    }
    wanted = [{**one, "error": "", "errors": bool(one.get("error"))} for one in [row["expect"], *row.get("alt", [])]]
    assert any(
        accepted({**found, "errors": []}, {key: one[key] for key in ("calls", "text")})
        and bool(found["errors"]) == one["errors"]
        for one in wanted
    ), found
