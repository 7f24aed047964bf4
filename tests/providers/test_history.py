from __future__ import annotations

import pytest

from lmagent.core.history import NO_RESULT
from lmagent.core.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import MessageError
from lmagent.providers.conversation import (
    ACKNOWLEDGED,
    BEGIN,
    CONTINUE,
    alternating,
    answered,
    merged,
    one_call_each,
    split_system,
    system_apart,
    system_in_front,
    text_only,
    tools_as_text,
    turns,
)

A = ToolCall(id="a", name="add", arguments='{"x":1}')
B = ToolCall(id="b", name="get", arguments="{}")


def test_system_messages_are_collected_from_the_whole_history():
    hi = UserMessage("hi")
    system, others = split_system([SystemMessage("one"), hi, SystemMessage("two"), SystemMessage("  ")])
    assert system == "one\n\ntwo"
    assert others == [hi]
    assert others[0] is hi


def test_system_text_is_put_in_front_of_the_first_user_message():
    messages: list[Message] = [
        SystemMessage("be brief"),
        AssistantMessage("hello"),
        UserMessage("hi"),
        UserMessage("you"),
    ]
    assert system_in_front(messages) == [AssistantMessage("hello"), UserMessage("be brief\n\nhi"), UserMessage("you")]
    assert system_in_front([SystemMessage("be brief")]) == [UserMessage("be brief")]
    assert system_in_front([UserMessage("hi")]) == [UserMessage("hi")]


def test_a_system_text_alone_becomes_a_user_message():
    assert system_apart([SystemMessage("s"), UserMessage("u")]) == ("s", [UserMessage("u")])
    assert system_apart([SystemMessage("s")]) == ("", [UserMessage("s")])
    assert system_apart([]) == ("", [])


def test_system_text_in_front_of_parts_is_a_part():
    image = ImagePart(url="http://x/y.png")
    assert system_in_front([SystemMessage("s"), UserMessage((image,))]) == [UserMessage((TextPart("s"), image))]


def test_text_parts_become_one_text_and_images_are_refused():
    def refuse(what: str) -> MessageError:
        return MessageError(f"acme cannot express {what}.")

    assert text_only([UserMessage((TextPart("a"), TextPart("b")))], refuse) == [UserMessage("a\nb")]
    with pytest.raises(MessageError, match="acme cannot express a user message with an image"):
        text_only([UserMessage((TextPart("a"), ImagePart(url="http://x/y.png")))], refuse)


def test_results_are_put_in_the_order_of_the_calls_and_named():
    messages = [UserMessage("q"), AssistantMessage("", (A, B)), ToolMessage("2", "b"), ToolMessage("1", "a")]
    assert answered(messages)[2:] == [ToolMessage("1", "a", "add"), ToolMessage("2", "b", "get")]


def test_a_late_result_is_moved_to_its_call():
    messages = [AssistantMessage("", (A,)), UserMessage("wait"), ToolMessage("1", "a", "add"), AssistantMessage("x")]
    assert answered(messages) == [messages[0], messages[2], messages[1], messages[3]]


def test_a_call_without_a_result_gets_one():
    assert answered([AssistantMessage("", (A, B)), ToolMessage("2", "b", "get")]) == [
        AssistantMessage("", (A, B)),
        ToolMessage(NO_RESULT, "a", "add", is_error=True),
        ToolMessage("2", "b", "get"),
    ]


def test_a_result_with_a_strange_id_is_matched_by_position():
    assert answered([AssistantMessage("", (A, B)), ToolMessage("1", ""), ToolMessage("2", "b")])[1:] == [
        ToolMessage("1", "a", "add"),
        ToolMessage("2", "b", "get"),
    ]


def test_a_result_without_a_call_becomes_user_text():
    assert answered([ToolMessage("1", "z", "old"), UserMessage("q")]) == [
        UserMessage("[Result of old: 1]"),
        UserMessage("q"),
    ]
    assert answered([AssistantMessage("x"), ToolMessage("boom", "z", is_error=True)])[1] == UserMessage(
        "[Error of a tool: boom]"
    )
    twice = answered([AssistantMessage("", (A,)), ToolMessage("1", "a", "add"), ToolMessage("2", "a", "add")])
    assert twice[1:] == [ToolMessage("1", "a", "add"), UserMessage("[Result of add: 2]")]


def test_one_id_in_two_turns_is_matched_turn_by_turn():
    messages = [
        AssistantMessage("", (A,)),
        ToolMessage("1", "a", "add"),
        AssistantMessage("", (A,)),
        ToolMessage("2", "a", "add"),
    ]
    assert answered(messages) == messages


def test_parallel_calls_become_consecutive_pairs():
    messages = answered(
        [
            UserMessage("q"),
            AssistantMessage("let me see", (A, B), details={"acme": 1}),
            ToolMessage("1", "a"),
            ToolMessage("2", "b"),
            AssistantMessage("3"),
        ]
    )
    assert one_call_each(messages) == [
        UserMessage("q"),
        AssistantMessage("let me see", (A,), details={"acme": 1}),
        ToolMessage("1", "a", "add"),
        AssistantMessage("", (B,)),
        ToolMessage("2", "b", "get"),
        AssistantMessage("3"),
    ]


def test_calls_and_results_as_text():
    messages = [
        UserMessage("q"),
        AssistantMessage("let me see", (A, B)),
        ToolMessage("1", "a"),
        ToolMessage("no", "b", is_error=True),
    ]
    assert alternating(tools_as_text(messages)) == [
        UserMessage("q"),
        AssistantMessage('let me see\n[I called add with {"x":1}]\n[I called get with {}]'),
        UserMessage("[Result of add: 1]\n\n[Error of get: no]"),
    ]


def test_neighbours_of_one_role_are_merged_and_empty_messages_dropped():
    image = ImagePart(url="http://x/y.png")
    assert merged([UserMessage("a"), UserMessage(" "), AssistantMessage(""), UserMessage("b")]) == [
        UserMessage("a\n\nb")
    ]
    assert merged([UserMessage("a"), UserMessage((image,))]) == [UserMessage((TextPart("a"), image))]
    assert merged([AssistantMessage("a", details={"p": 1}), AssistantMessage("b", (A,), details={"q": 2})]) == [
        AssistantMessage("a\n\nb", (A,), details={"p": 1, "q": 2})
    ]
    pair = [AssistantMessage("", (A,)), AssistantMessage("b")]
    assert merged(pair) == pair


def test_messages_that_fit_are_the_same_objects():
    messages = [UserMessage("q"), AssistantMessage("", (A,)), ToolMessage("1", "a", "add")]
    result = alternating(one_call_each(answered(text_only(messages, MessageError))))
    assert all(ours is theirs for ours, theirs in zip(result, messages, strict=True))


def test_missing_turns_are_inserted():
    assert alternating([AssistantMessage("hello")]) == [
        UserMessage(BEGIN),
        AssistantMessage("hello"),
        UserMessage(CONTINUE),
    ]
    messages = [UserMessage("q"), AssistantMessage("", (A,)), ToolMessage("1", "a", "add"), UserMessage("and?")]
    assert alternating(messages)[3:] == [AssistantMessage(ACKNOWLEDGED), UserMessage("and?")]


def test_a_repeated_id_in_one_message_is_matched_in_order():
    twin = ToolCall(id="a", name="get")
    messages = [AssistantMessage("", (A, twin)), ToolMessage("1", "a", "add"), ToolMessage("2", "a", "get")]
    assert answered(messages) == messages


def test_an_empty_history_is_refused():
    with pytest.raises(MessageError, match="nothing to send"):
        alternating([UserMessage(" ")])


def test_turns_keep_the_results_of_parallel_calls_together():
    messages = [AssistantMessage("", (A, B)), ToolMessage("1", "a"), ToolMessage("2", "b"), UserMessage("q")]
    assert turns(messages) == [UserMessage(BEGIN), *messages]
    strict = turns(messages, user_behind_result=False)
    assert strict == [UserMessage(BEGIN), *messages[:3], AssistantMessage(ACKNOWLEDGED), messages[3]]


def test_turns_begin_and_end_with_input():
    assert turns([]) == [UserMessage(BEGIN)]
    assert turns([UserMessage("q"), AssistantMessage("x")])[-1] == UserMessage(CONTINUE)
    calls = AssistantMessage("", (A,))
    answer = turns([UserMessage("q"), AssistantMessage("x", (A,)), ToolMessage("1", "a"), calls, ToolMessage("2", "a")])
    assert answer[-1] == ToolMessage("2", "a")
    assert turns([UserMessage("q"), calls, AssistantMessage("x")])[2] == UserMessage(CONTINUE)
