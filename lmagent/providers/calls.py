"""Tool calls for dialects that are stricter than the neutral form: ids and names of a pattern, arguments as objects.

Histories come from anywhere: other providers, prompt mode, models that wrote broken JSON. Each helper hands on the same
object where nothing has to change, so bytes that a codec keeps in `message.wire` stay with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from lmagent.core.json_text import JSONError, loads
from lmagent.core.messages import AssistantMessage, Message, ToolCall, ToolMessage
from lmagent.providers.conversation import answered

__all__ = ["RAW_ARGUMENTS", "arguments_object", "called_names", "fitting_ids", "kept_items", "settled"]

RAW_ARGUMENTS = "_raw"
"""Where text that is no JSON object stands in the object that the dialect asks for."""

_ANY = re.compile(r".+", re.DOTALL)
"""What an id must match where any will do, as long as there is one and it is unique."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME = 64


def arguments_object(text: str) -> dict[str, Any]:
    """Return the arguments of a call as an object: blank is `{}`, what is no JSON object is `{"_raw": text}`."""
    if not text.strip():
        return {}
    try:
        value = loads(text)
    except JSONError:
        value = None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {RAW_ARGUMENTS: text}


def kept_items(message: AssistantMessage, provider: str, name: str) -> list[dict[str, Any]]:
    """Return the list of objects that a codec left in `details[provider][name]`, or an empty one."""
    details: object = message.details.get(provider)
    found: object = cast("dict[str, object]", details).get(name) if isinstance(details, dict) else None
    items = cast("list[object]", found) if isinstance(found, list) else []
    return cast("list[dict[str, Any]]", items) if all(isinstance(item, dict) for item in items) else []


def called_names(messages: Iterable[Message]) -> list[str]:
    """Return the names of the tools called in a history, each once, in order."""
    calls = (call for message in messages if isinstance(message, AssistantMessage) for call in message.tool_calls)
    return list(dict.fromkeys(call.name for call in calls))


def settled(
    messages: Sequence[Message], pattern: re.Pattern[str], max_length: int = 64, *, key: object = None
) -> Sequence[Message]:
    """Return the messages with every call answered right behind it and ids that fit: `answered`, then `fitting_ids`.

    A history that is in order already is only looked at, once, and handed on as it is.

    Args:
        messages: Without system messages, or with them where the dialect takes them anywhere.
        pattern: What an id must match.
        max_length: Longest id.
        key: Under which the codec keeps encoded bytes: a message that has them was found to fit before.
    """
    if _in_order(messages, pattern, max_length, key):
        return messages
    return fitting_ids(answered(messages), pattern, max_length)


def _in_order(messages: Sequence[Message], pattern: re.Pattern[str], max_length: int, key: object) -> bool:
    open_calls: tuple[ToolCall, ...] = ()
    at = 0
    taken: set[str] = set()
    for message in messages:
        role = message.role
        if role == "tool":
            result = cast("ToolMessage", message)
            if at == len(open_calls):
                return False
            call = open_calls[at]
            if result.tool_call_id != call.id or result.name != call.name:
                return False
            at += 1
            continue
        if at != len(open_calls):
            return False
        if role != "assistant":
            continue
        open_calls, at = cast("AssistantMessage", message).tool_calls, 0
        for call in open_calls:
            if call.id in taken:
                return False
            taken.add(call.id)
            if key not in message.wire and not _fits(call, pattern, max_length):
                return False
    return at == len(open_calls)


def _fits(call: ToolCall, pattern: re.Pattern[str], max_length: int) -> bool:
    return bool(len(call.id) <= max_length and pattern.fullmatch(call.id) and _NAME.fullmatch(call.name))


def fitting_ids(messages: Iterable[Message], pattern: re.Pattern[str] = _ANY, max_length: int = 64) -> list[Message]:
    """Return the messages with call ids that match `pattern` and are unique, and with names that providers take.

    A strange character becomes `_`, a repeated id gets a number; results follow their calls. The messages must have
    gone through `history.answered`.
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
        # The end of a long id tells it apart better than its beginning.
        wanted = _NOT_IN_NAMES.sub("_", wanted)[-max_length:] or "call"
    number = 1
    unique = wanted
    while unique in taken:
        number += 1
        unique = f"{wanted[: max_length - len(str(number)) - 1]}_{number}"
    taken.add(unique)
    name = call.name if _NAME.fullmatch(call.name) else _NOT_IN_NAMES.sub("_", call.name)[:_MAX_NAME] or "unknown"
    return call if unique == call.id and name == call.name else replace(call, id=unique, name=name)
