"""A history is valid, or is repaired."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmagent.core.history import NOT_RUN, History, history_problems, in_order, open_calls, repair_history
from lmagent.core.messages import AssistantMessage, ToolCall, ToolMessage, UserMessage


def call(id: str) -> ToolCall:
    return ToolCall(id=id, name="f")


def result(id: str, text: str = "ok") -> ToolMessage:
    return ToolMessage(text, tool_call_id=id, name="f")


ASKED = AssistantMessage("", tool_calls=(call("a"), call("b")))


def test_a_valid_history_comes_back_with_the_same_objects():
    messages = (UserMessage("hi"), ASKED, result("a"), result("b"), AssistantMessage("done"))
    assert history_problems(messages) == []
    assert all(x is y for x, y in zip(repair_history(messages), messages, strict=True))


def test_open_calls_are_found_and_answered_with_an_error_result():
    history = History([UserMessage("hi")])
    history.extend([ASKED, result("a")])
    assert [c.id for c in open_calls(history.messages)] == ["b"]
    history.answer_open_calls()
    assert history.messages[-1] == ToolMessage(NOT_RUN, tool_call_id="b", name="f", is_error=True)
    assert history_problems(history.messages) == []


def test_results_are_put_in_call_order_and_stray_results_are_dropped():
    messages = [result("x"), UserMessage("hi"), ASKED, result("b", "B"), result("a", "A"), result("a", "again")]
    assert repair_history(messages) == (UserMessage("hi"), ASKED, result("a", "A"), result("b", "B"))


def test_a_result_behind_another_message_or_with_a_wrong_id_is_kept():
    messages = [ASKED, UserMessage("hurry up"), result("b", "B"), result("zzz", "A")]
    assert repair_history(messages) == (ASKED, result("a", "A"), result("b", "B"), UserMessage("hurry up"))


def test_repeated_call_ids_in_one_message_are_made_unique():
    twice = AssistantMessage("", tool_calls=(call("a"), call("a")))
    repaired = repair_history([twice, result("a", "1"), result("a", "2")])
    assert history_problems(repaired) == []
    assert [m.content for m in repaired[1:]] == ["1", "2"]


def test_call_ids_are_made_unique_in_the_whole_conversation():
    once = AssistantMessage("", tool_calls=(call("a"),))
    nameless = AssistantMessage("", tool_calls=(call(""), call("")))
    messages = [once, result("a", "1"), once, result("a", "2"), nameless, result("", "3"), result("", "4")]
    assert len(history_problems(messages)) == 4
    repaired = repair_history(messages)
    assert history_problems(repaired) == []
    assert [m.content for m in repaired if isinstance(m, ToolMessage)] == ["1", "2", "3", "4"]
    assert len(History(messages).call_ids()) == 4


def test_problems_name_the_message_and_the_call():
    assert history_problems([result("x")]) == ["message 0: a result for 'x', which is no open call"]
    assert "has no result" in history_problems([ASKED, UserMessage("hi")])[0]
    assert history_problems([ASKED, result("b"), result("a")]) == ["message 1: the result for 'b' is out of order"]


ids = st.sampled_from(["a", "b", "a_2", ""])
messages = st.lists(
    st.one_of(
        st.just(UserMessage("u")),
        st.lists(ids, max_size=3).map(lambda i: AssistantMessage("t", tool_calls=tuple(map(call, i)))),
        ids.map(result),
    ),
    max_size=12,
)


@given(messages)
def test_any_list_of_messages_is_repaired_to_a_valid_history(items):
    repaired = repair_history(items)
    assert history_problems(repaired) == []
    assert in_order(items) == (history_problems(items) == [])
    assert repair_history(repaired) == repaired
    spoken = [m for m in items if not isinstance(m, ToolMessage)]
    assert [m.content for m in repaired if not isinstance(m, ToolMessage)] == [m.content for m in spoken]
