"""What users hand over becomes messages; messages become JSON and come back."""

from __future__ import annotations

import json

import pytest

from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
    as_messages,
    message_from_dict,
    message_to_dict,
)
from lmagent.errors import MessageError

ALL = [
    SystemMessage("be brief"),
    UserMessage("你好"),
    UserMessage("hi", name="ann"),
    UserMessage("", name=""),
    UserMessage("lone \ud83d \x00 \u2028"),
    AssistantMessage("", details={"x": {"huge": 10**400, "none": None}}),
    UserMessage((TextPart("what is it?"), ImagePart(url="https://x/y.png", detail="low"), ImagePart(data="aGk="))),
    UserMessage((FilePart(data="aGk=", name="a.pdf"), FilePart(file_id="f1"))),
    AssistantMessage("hello"),
    AssistantMessage("", tool_calls=(ToolCall(id="c1", name="add", arguments='{"a": 1'),)),
    AssistantMessage(
        "so",
        tool_calls=(ToolCall(id="c1", name="add", arguments="{}", repairs=("single_quotes",), problem="cut"),),
        reasoning="hm",
        refusal="no",
        details={"wenxin": {"thoughts": "…"}},
    ),
    ToolMessage("3", tool_call_id="c1", name="add"),
    ToolMessage("boom", tool_call_id="c1", name="add", is_error=True),
]


@pytest.mark.parametrize("message", ALL, ids=lambda m: m.role)
def test_a_message_round_trips_through_json_without_loss(message):
    assert message_from_dict(json.loads(json.dumps(message_to_dict(message)))) == message


def test_changing_a_list_later_does_not_change_the_message():
    parts, calls = [TextPart("a")], [ToolCall(id="c1", name="f")]
    asked, answered = UserMessage(parts), AssistantMessage("", tool_calls=calls)
    parts.clear()
    calls.clear()
    assert asked == UserMessage((TextPart("a"),))
    assert answered == AssistantMessage("", tool_calls=(ToolCall(id="c1", name="f"),))


def test_all_prompt_forms_give_the_same_messages():
    assert as_messages("hi") == as_messages(UserMessage("hi")) == as_messages({"role": "user", "content": "hi"})
    assert as_messages(["hi", {"role": "assistant", "content": "yo"}]) == (UserMessage("hi"), AssistantMessage("yo"))


def test_openai_message_dicts_are_read():
    messages = as_messages(
        [
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,aGk=", "detail": "high"}},
                    {"type": "image_url", "image_url": "https://x/y.png"},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "ok"}]},
        ]
    )
    assert messages == (
        SystemMessage("be brief"),
        UserMessage(
            (
                TextPart("see"),
                ImagePart(data="aGk=", media_type="image/jpeg", detail="high"),
                ImagePart(url="https://x/y.png"),
            )
        ),
        AssistantMessage("", tool_calls=(ToolCall(id="c1", name="f", arguments='{"a":1}'),)),
        ToolMessage("ok", tool_call_id="c1"),
    )


def test_results_of_role_function_get_the_id_of_their_call():
    messages = as_messages(
        [
            "add",
            {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
            {"role": "function", "name": "add", "content": "3"},
        ]
    )
    assert messages[2] == ToolMessage("3", tool_call_id=messages[1].tool_calls[0].id, name="add")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"role": "robot", "content": "hi"}, "'robot'"),
        ({"content": "hi"}, "None"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": 5}, "5"),
        ({"role": "user", "content": [{"type": "video"}]}, "'video'"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "function", "name": "f", "content": "x"}, "no open call"),
        ({"role": "user", "content": [{"type": "image"}]}, "url"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "name"),
        ({"role": "assistant", "tool_calls": [{"id": "1", "name": 5}]}, "'name'.* 5"),
        ({"role": "assistant", "tool_calls": [{"id": 5, "name": "f"}]}, "'id'.* 5"),
        ({"role": "assistant", "content": "x", "reasoning": 5}, "'reasoning'.* 5"),
        ({"role": "user", "content": "x", "name": 5}, "'name'.* 5"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "'text'.* 5"),
        ({"role": "user", "content": [{"type": "image", "url": 5}]}, "'url'.* 5"),
        ({"role": "tool", "content": "x", "tool_call_id": "1", "name": 5}, "'name'.* 5"),
        ([], "empty"),
    ],
)
def test_an_invalid_prompt_is_a_message_error_that_names_the_fault(bad, words):
    with pytest.raises(MessageError, match=words):
        as_messages(bad)


def test_a_prompt_of_a_wrong_type_is_a_type_error():
    with pytest.raises(TypeError, match="int"):
        as_messages(5)
    with pytest.raises(TypeError, match="bytes"):
        as_messages([b"hi"])


def test_the_media_type_of_an_image_is_detected(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"\xff\xd8\xff\xe0rest")
    assert ImagePart.from_path(path).media_type == "image/jpeg"
    assert ImagePart.from_bytes(b"RIFF0000WEBPxx").data_url.startswith("data:image/webp;base64,")
