"""Deltas become starts, deltas and ends with stable ids, and one whole reply."""

from __future__ import annotations

from lmagent.core.events import (
    Done,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    ReplyBuilder,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from lmagent.core.messages import ToolCall


def feed(*deltas, prefix="1"):
    builder = ReplyBuilder(prefix)
    return builder, [event for delta in deltas for event in builder.add(delta)]


def test_a_block_has_start_deltas_and_end_with_the_same_id():
    builder, events = feed(ReasoningDelta("hm"), TextDelta("a"), TextDelta("b"), Done())
    assert events == [
        ReasoningStart("1-1"),
        ReasoningDelta("hm", "1-1"),
        ReasoningEnd("1-1", "hm"),
        TextStart("1-2"),
        TextDelta("a", "1-2"),
        TextDelta("b", "1-2"),
        TextEnd("1-2", "ab"),
    ]
    reply = builder.reply("p/m")
    assert (reply.reply, reply.message.reasoning, reply.finish_reason, reply.model_id) == ("ab", "hm", "stop", "p/m")


def test_a_tool_call_in_pieces_is_joined():
    builder, events = feed(
        ToolCallDelta(0, id="c1", name="ad"),
        ToolCallDelta(0, name="d"),
        ToolCallDelta(0, arguments='{"a"'),
        ToolCallDelta(0, arguments=": 1}"),
        Done(),
    )
    call = ToolCall(id="c1", name="add", arguments='{"a": 1}')
    assert events[0] == ToolCallStart("c1", 0, "add")
    assert events[-1] == ToolCallEnd("c1", 0, call)
    assert builder.reply().finish_reason == "tool_calls"
    assert builder.reply().tool_calls == (call,)


def test_interleaved_calls_with_text_between_them_are_separated():
    builder, _ = feed(
        ToolCallDelta(0, id="a", name="f"),
        ToolCallDelta(1, id="b", name="g"),
        ToolCallDelta(0, arguments="{}"),
        TextDelta("x"),
        ToolCallDelta(1, arguments="[]"),
        Done(),
    )
    assert [(c.id, c.name, c.arguments) for c in builder.message().tool_calls] == [("a", "f", "{}"), ("b", "g", "[]")]
    assert builder.message().content == "x"


def test_missing_and_repeated_call_ids_are_replaced():
    builder, events = feed(
        ToolCallDelta(0, name="f", arguments="{}"),
        ToolCallDelta(1, id="x", name="g", arguments="{}"),
        ToolCallDelta(2, id="x", name="h", arguments="{}"),
        Done(),
        prefix="7",
    )
    ids = [call.id for call in builder.message().tool_calls]
    assert ids == ["call_000000000000000700000000", "x", "call_000000000000000700000002"]
    assert [e.id for e in events if isinstance(e, ToolCallEnd)] == ids


def test_the_last_call_of_an_incomplete_reply_has_a_problem():
    builder, _ = feed(
        ToolCallDelta(0, name="f", arguments="{}"),
        ToolCallDelta(1, name="g", arguments='{"amount": 10'),
        Done(finish_reason="length"),
    )
    first, second = builder.message().tool_calls
    assert first.problem == ""
    assert "length" in second.problem
    assert builder.reply().finish_reason == "length"


def test_a_partial_message_has_text_but_no_calls():
    builder, _ = feed(TextDelta("so far"), ToolCallDelta(0, id="c", name="f", arguments='{"a'))
    assert builder.message().content == "so far"
    assert builder.message().tool_calls == ()


def test_a_refusal_is_in_the_message_and_the_finish_reason():
    builder, _ = feed(RefusalDelta("I can"), RefusalDelta("not."), Done())
    reply = builder.reply()
    assert (reply.reply, reply.message.refusal, reply.finish_reason) == ("I cannot.", "I cannot.", "refusal")
