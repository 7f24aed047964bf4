"""Old messages are written in blocks: the same bytes as one by one, with less work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

import lmagent.providers.openai.request as writing
from lmagent.core.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.providers.base import ChatCall
from lmagent.providers.openai.chat import OpenAICodec


def conversation(rounds: int, calls: int = 1, first: int = 0) -> tuple[Message, ...]:
    messages: list[Message] = []
    for number in range(first, first + rounds):
        made = tuple(ToolCall(id=f"call_{number}_{n}", name="save", arguments="{}") for n in range(calls))
        messages += [UserMessage(f"Question {number}."), AssistantMessage("", made)]
        messages += [ToolMessage(f"Result {number}.", call.id, "save") for call in made]
        messages.append(AssistantMessage(f"Answer {number}."))
    return tuple(messages)


def body(messages: Sequence[Message], codec: OpenAICodec | None = None) -> bytes:
    return (codec or OpenAICodec("m")).build_request(ChatCall(messages=tuple(messages))).content


def fresh(messages: Sequence[Message]) -> bytes:
    """Return the bytes of the same messages without any cache."""
    return body([replace(message) for message in messages])


HISTORY = conversation(100)


@pytest.mark.parametrize("calls", [1, 2, 3, 70])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 66, 67, 68, 129, 300])
def test_a_growing_history_is_written_the_same_in_blocks(calls: int, length: int):
    messages = conversation(70, calls)
    for end in (length, length + 1, length + 4, length + 90):
        # Also cut between a call and its result: then the result is made up.
        assert body(messages[:end] or [UserMessage("?")]) == fresh(messages[:end] or [UserMessage("?")])


def test_repeated_work_does_not_grow_with_the_history(monkeypatch: pytest.MonkeyPatch):
    looked: list[int] = []
    original = writing.in_order

    def counting(messages: Sequence[Message], taken: set[str] | None = None) -> bool:
        looked.append(len(messages))
        return original(messages, taken)

    monkeypatch.setattr(writing, "in_order", counting)
    codec, most = OpenAICodec("m"), []
    for end in range(4, len(HISTORY) + 1, 4):
        looked.clear()
        body(HISTORY[:end], codec)
        most.append(sum(looked))
    assert max(most) < 2 * 70


def test_a_stateful_conversation_without_the_stored_answer_is_sent_from_its_results_on():
    body(HISTORY)
    for at in (10, 65, 66, 200):
        changed = (*HISTORY[: at - at % 4], UserMessage("Otherwise."), *conversation(40, first=1000))
        assert body(changed) == fresh(changed)
    assert body(HISTORY) == fresh(HISTORY)
    assert body(HISTORY[4:]) == fresh(HISTORY[4:])


def test_a_replaced_message_in_the_middle_is_sent():
    body(HISTORY)
    for at in (0, 32, 92, 399):
        changed = [*HISTORY]
        changed[at] = replace(HISTORY[at], content="Replaced.")
        assert json.loads(body(changed))["messages"][at]["content"] == "Replaced."
        assert body(changed) == fresh(changed)


def test_a_block_that_comes_twice_has_its_calls_once():
    twice = (*HISTORY[:80], *HISTORY[:80], UserMessage("?"))
    body(HISTORY)
    assert body(twice) == fresh(twice)
    ids = [call["id"] for message in json.loads(body(twice))["messages"] for call in message.get("tool_calls", ())]
    assert len(ids) == len(set(ids)) == 40


def test_other_dialects_have_blocks_of_their_own():
    messages = (SystemMessage("Be brief."), *HISTORY)
    ours, other = OpenAICodec("gpt-5"), OpenAICodec("m", base_url="http://x.example/v1")
    for _ in range(2):
        for codec in (ours, other):
            assert body(messages, codec) == body([replace(message) for message in messages], codec)
