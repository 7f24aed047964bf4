"""Change a history to suit a dialect: neutral messages in, neutral messages out, all pure.

Most Chinese dialects want strict turns (input, answer, input, ...); some have one call a turn, some no tools or no
system role; others demand ids of a pattern or arguments as objects. Each function solves one of these problems and
leaves the rest alone. A codec composes the ones it needs:

    system, messages = split_system(call.messages)            # or system_apart, system_in_front
    messages = text_only(messages, self.refuse)               # images and files are refused
    messages = one_call_each(settled(messages))               # or tools_as_text(messages)
    messages = alternating(messages)                          # implies merged()

Nothing here knows a wire format. A message that needs no change is passed on as the same object, which keeps the bytes
that a codec caches in `message.wire`.

Over 400 lines because the functions are steps of one pipeline, read side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from lmagent.core.history import answered, in_order, result_as_text
from lmagent.core.messages import (
    AssistantMessage,
    Message,
    Part,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import MessageError
from lmagent.providers.base import ChatCall, EventCodec, Features
from lmagent.providers.fields import parsed
from lmagent.toolkit.schema_dialects import schema_as_text

__all__ = [
    "ACKNOWLEDGED", "BEGIN", "CONTINUE", "NO_OUTPUT", "RAW_ARGUMENTS", "TextOnlyCodec", "alternating", "answered",
    "arguments_object", "called_names", "fitting_ids", "fitting_name", "kept_items", "merged", "messages_of",
    "one_call_each", "settled", "split_system", "system_apart", "system_in_front", "system_texts", "text_only",
    "tools_as_text", "turns", "with_system",
]  # fmt: skip

BEGIN = "(The conversation begins.)"
"""User message put before a history that begins with an answer."""
CONTINUE = "Please continue."
"""User message put after a history that ends with an answer."""
ACKNOWLEDGED = "OK."
"""Assistant message put between a tool result and a user message."""
NO_OUTPUT = "(no output)"
"""Sent in place of an empty tool result, where empty content is refused."""
RAW_ARGUMENTS = "_raw"
"""Key under which arguments that are not a JSON object are sent, where the dialect demands an object."""

_SEPARATOR = "\n\n"
_ANY_ID = re.compile(r".+", re.DOTALL)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME = 64


def messages_of(call: ChatCall) -> tuple[Message, ...]:
    """Return the messages of a call for a dialect without a field for an output schema: system text describes it."""
    if call.output_schema is None:
        return call.messages
    return (*call.messages, SystemMessage(schema_as_text(call.output_schema)))


def system_texts(messages: Iterable[Message]) -> tuple[list[str], list[Message]]:
    """Return the texts of the system messages that are not blank, and the other messages in order."""
    texts: list[str] = []
    others: list[Message] = []
    for message in messages:
        if not isinstance(message, SystemMessage):
            others.append(message)
        elif message.content.strip():
            texts.append(message.content)
    return texts, others


def split_system(messages: Iterable[Message]) -> tuple[str, list[Message]]:
    """Return the text of all system messages, joined by blank lines, and the other messages in order."""
    texts, others = system_texts(messages)
    return _SEPARATOR.join(texts), others


def with_system(system: str, messages: list[Message]) -> list[Message]:
    """Return the messages after one system message; without it if `system` is empty."""
    return [SystemMessage(system), *messages] if system else messages


def system_apart(messages: Iterable[Message]) -> tuple[str, list[Message]]:
    """Return system text and other messages like `split_system`, but never system text alone.

    Dialects with a system field refuse a body without messages, so the system text becomes a user message then.
    """
    system, others = split_system(messages)
    if not system or not all(_is_blank(message) for message in others):
        return system, others
    return "", [UserMessage(system)]


def system_in_front(messages: Iterable[Message]) -> list[Message]:
    """Return the messages without system role: all system text is put in front of the first user message.

    A history without a user message begins with one that holds only the system text.
    """
    system, others = split_system(messages)
    if not system:
        return others
    for index, message in enumerate(others):
        if isinstance(message, UserMessage):
            others[index] = _joined_users(UserMessage(system), message)
            return others
    return [UserMessage(system), *others]


def text_only(messages: Iterable[Message], refuse: Callable[[str], MessageError]) -> list[Message]:
    """Return the messages with every user message as one text.

    Args:
        messages: Any messages.
        refuse: Makes the error for a part that is not text; `Codec.refuse`.

    Raises:
        MessageError: A message has an image or a file.
    """
    return [_as_text(message, refuse) if isinstance(message, UserMessage) else message for message in messages]


def _as_text(message: UserMessage, refuse: Callable[[str], MessageError]) -> UserMessage:
    if isinstance(message.content, str):
        return message
    for part in message.content:
        if not isinstance(part, TextPart):
            raise refuse(f"a user message with {'an image' if part.type == 'image' else 'a file'}")
    return UserMessage(message.text, message.name)


def one_call_each(messages: Iterable[Message]) -> list[Message]:
    """Return the messages with parallel calls as consecutive pairs: call, result, call, result.

    Text, reasoning and details stay with the first call. The messages must have gone through `answered`.
    """
    answer: list[Message] = []
    waiting: list[AssistantMessage] = []
    for message in messages:
        if isinstance(message, AssistantMessage) and len(message.tool_calls) > 1:
            first, *others = message.tool_calls
            answer.append(replace(message, tool_calls=(first,)))
            waiting = [AssistantMessage("", (call,)) for call in others]
        else:
            answer.append(message)
            if waiting and isinstance(message, ToolMessage):
                answer.append(waiting.pop(0))
    return answer


def tools_as_text(messages: Iterable[Message]) -> list[Message]:
    """Return the messages with calls and results as plain text, for dialects without tools.

    Calls become lines of the assistant's text; each result becomes a user message.
    """
    answer: list[Message] = []
    for message in answered(messages):
        if isinstance(message, AssistantMessage) and message.tool_calls:
            lines = [f"[I called {call.name} with {call.arguments}]" for call in message.tool_calls]
            text = "\n".join([message.content, *lines] if message.content.strip() else lines)
            answer.append(replace(message, content=text, tool_calls=()))
        elif isinstance(message, ToolMessage):
            answer.append(result_as_text(message))
        else:
            answer.append(message)
    return answer


def merged(messages: Iterable[Message]) -> list[Message]:
    """Return the messages with neighbours of one role merged, and without blank messages.

    User texts are joined by a blank line; parts (images) are concatenated. An assistant message with calls is never
    merged with the message after it. Tool and system messages are left alone.
    """
    answer: list[Message] = []
    for message in messages:
        last = answer[-1] if answer else None
        match message:
            case UserMessage() | AssistantMessage() if _is_blank(message):
                continue
            case UserMessage() if isinstance(last, UserMessage):
                answer[-1] = _joined_users(last, message)
            case AssistantMessage() if isinstance(last, AssistantMessage) and not last.tool_calls:
                answer[-1] = _joined_assistants(last, message)
            case _:
                answer.append(message)
    return answer


def _is_blank(message: Message) -> bool:
    """Whether a message has no text, no part and no call."""
    match message:
        case UserMessage(content=str()):
            return not message.text.strip()
        case UserMessage(content=parts):
            return all(isinstance(part, TextPart) and not part.text.strip() for part in parts)
        case AssistantMessage():
            return not message.tool_calls and not message.content.strip()
        case _:
            return False


def _joined_users(first: UserMessage, second: UserMessage) -> UserMessage:
    name = second.name if first.name == second.name else None
    if isinstance(first.content, str) and isinstance(second.content, str):
        return UserMessage(f"{first.content}{_SEPARATOR}{second.content}", name)
    return UserMessage(_parts(first) + _parts(second), name)


def _parts(message: UserMessage) -> tuple[Part, ...]:
    return (TextPart(message.content),) if isinstance(message.content, str) else message.content


def _joined_assistants(first: AssistantMessage, second: AssistantMessage) -> AssistantMessage:
    return replace(
        second,
        content=_SEPARATOR.join(text for text in (first.content, second.content) if text.strip()),
        reasoning="\n".join(text for text in (first.reasoning, second.reasoning) if text),
        details={**first.details, **second.details},
    )


def alternating(messages: Iterable[Message]) -> list[Message]:
    """Return the messages in strict turns: input (user or tool), answer, input, ..., input.

    The list begins with a user message and its length is odd. Where the history breaks the rule, `BEGIN`,
    `ACKNOWLEDGED` or `CONTINUE` is inserted as the missing turn.

    Args:
        messages: Messages without system role, with one call a message (`one_call_each`) or none (`tools_as_text`).

    Raises:
        MessageError: No message has any content.
    """
    answer: list[Message] = []
    for message in merged(messages):
        is_answer = isinstance(message, AssistantMessage)
        if not answer and is_answer:
            answer.append(UserMessage(BEGIN))
        elif answer and isinstance(answer[-1], AssistantMessage) == is_answer:
            answer.append(UserMessage(CONTINUE) if is_answer else AssistantMessage(ACKNOWLEDGED))
        answer.append(message)
    if not answer:
        raise MessageError("There is nothing to send: the history has no message with content.")
    if isinstance(answer[-1], AssistantMessage):
        answer.append(UserMessage(CONTINUE))
    return answer


def turns(messages: Iterable[Message], *, user_behind_result: bool = True) -> list[Message]:
    """Return the messages in turns, with the results of parallel calls as one turn: user, calls, results, answer, user.

    The list begins with a user message and ends with a user message or results. The messages must have no system role
    and have gone through `answered` or `tools_as_text`.

    Args:
        messages: Such messages.
        user_behind_result: Whether a user message may follow a result; otherwise `ACKNOWLEDGED` is put between them.
    """
    answer: list[Message] = []
    for message in merged(messages):
        last = answer[-1] if answer else None
        if last is None and not isinstance(message, UserMessage):
            answer.append(UserMessage(BEGIN))
        elif isinstance(message, AssistantMessage) and isinstance(last, AssistantMessage):
            answer.append(UserMessage(CONTINUE))
        elif isinstance(message, UserMessage) and isinstance(last, ToolMessage) and not user_behind_result:
            answer.append(AssistantMessage(ACKNOWLEDGED))
        answer.append(message)
    if not answer or isinstance(answer[-1], AssistantMessage):
        answer.append(UserMessage(CONTINUE if answer else BEGIN))
    return answer


def arguments_object(text: str) -> dict[str, Any]:
    """Return the arguments of a call as an object: blank is `{}`, text that is no JSON object is `{"_raw": text}`."""
    if not text.strip():
        return {}
    value = parsed(text)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {RAW_ARGUMENTS: text}


def kept_items(message: AssistantMessage, provider: str, name: str) -> list[dict[str, Any]]:
    """Return the list of objects that a codec stored in `details[provider][name]`, or an empty list."""
    details: object = message.details.get(provider)
    found: object = cast("dict[str, object]", details).get(name) if isinstance(details, dict) else None
    items = cast("list[object]", found) if isinstance(found, list) else []
    return cast("list[dict[str, Any]]", items) if all(isinstance(item, dict) for item in items) else []


def called_names(messages: Iterable[Message]) -> list[str]:
    """Return the names of the tools called in a history, each once, in order."""
    calls = (call for message in messages if isinstance(message, AssistantMessage) for call in message.tool_calls)
    return list(dict.fromkeys(call.name for call in calls))


def settled(
    messages: Sequence[Message], pattern: re.Pattern[str] = _ANY_ID, max_length: int = 64, *, key: object = None
) -> Sequence[Message]:
    """Return the messages with every call answered directly after it and valid ids: `answered`, then `fitting_ids`.

    A history that is already so is returned unchanged.

    Args:
        messages: Without system messages, or with them if the dialect takes them anywhere.
        pattern: What an id must match.
        max_length: Longest id.
        key: Cache key of the codec's encoded bytes; a message that has them was checked before.
    """
    if in_order(messages) and _all_fit(messages, pattern, max_length, key):
        return messages
    return fitting_ids(answered(messages), pattern, max_length)


def _all_fit(messages: Sequence[Message], pattern: re.Pattern[str], max_length: int, key: object) -> bool:
    """Whether a history in order has valid ids and names, and the results have the names of their calls."""
    names: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.name != names.pop():
                return False
        elif isinstance(message, AssistantMessage) and message.tool_calls:
            names = [call.name for call in reversed(message.tool_calls)]
            for call in () if key in message.wire else message.tool_calls:
                if len(call.id) > max_length or not pattern.fullmatch(call.id) or not _NAME.fullmatch(call.name):
                    return False
    return True


def fitting_ids(messages: Iterable[Message], pattern: re.Pattern[str] = _ANY_ID, max_length: int = 64) -> list[Message]:
    """Return the messages with unique call ids that match `pattern`, and with names that providers accept.

    An invalid character becomes `_`, a repeated id gets a number; results keep the ids of their calls. The messages
    must have gone through `answered`.
    """
    answer: list[Message] = []
    taken: set[str] = set()
    waiting: list[ToolCall] = []
    for message in messages:
        if isinstance(message, AssistantMessage) and message.tool_calls:
            calls = tuple(_fitting(call, pattern, max_length, taken) for call in message.tool_calls)
            waiting = list(calls)
            same = all(new is old for new, old in zip(calls, message.tool_calls, strict=True))
            answer.append(message if same else replace(message, tool_calls=calls))
        elif isinstance(message, ToolMessage) and waiting:
            call = waiting.pop(0)
            same = call.id == message.tool_call_id and call.name == message.name
            answer.append(message if same else replace(message, tool_call_id=call.id, name=call.name))
        else:
            answer.append(message)
    return answer


def _fitting(call: ToolCall, pattern: re.Pattern[str], max_length: int, taken: set[str]) -> ToolCall:
    wanted = call.id
    if not pattern.fullmatch(wanted) or len(wanted) > max_length:
        # The end of a long id is more distinctive than its beginning.
        wanted = _NOT_IN_NAMES.sub("_", wanted)[-max_length:] or "call"
    number = 1
    unique = wanted
    while unique in taken:
        number += 1
        unique = f"{wanted[: max_length - len(str(number)) - 1]}_{number}"
    taken.add(unique)
    name = fitting_name(call.name)
    return call if unique == call.id and name == call.name else replace(call, id=unique, name=name)


def fitting_name(name: str) -> str:
    """Return a tool name that providers accept; a model may have called a tool that cannot exist."""
    return name if _NAME.fullmatch(name) else _NOT_IN_NAMES.sub("_", name)[:_MAX_NAME] or "unknown"


class TextOnlyCodec(EventCodec):
    """A dialect with only texts of a user and an assistant: no tools, images or system role."""

    features = Features(
        tools=False,
        parallel_calls=False,
        stream_tools=False,
        tool_choice=frozenset(),
        images=False,
        json_schema="none",
        system=False,
        stop=False,
    )
    max_messages: ClassVar[int | None] = None
    """Longest history that the API takes."""

    def turns(self, call: ChatCall) -> list[dict[str, str]]:
        """Return the conversation as `{"role": ..., "content": ...}` in alternating turns; the user begins and ends.

        Raises:
            MessageError: There are tools, images or too many messages.
        """
        self.refuse_tools(call)
        messages = alternating(tools_as_text(text_only(system_in_front(messages_of(call)), self.refuse)))
        self.refuse_longer(len(messages), self.max_messages)
        return [{"role": message.role, "content": str(message.content)} for message in messages]
