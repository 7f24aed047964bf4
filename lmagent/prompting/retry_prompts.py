"""Messages for calls that could not be read: place, expectation, what came instead, and the form to use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmagent.core.json_text import JSONError, dumps_text, loads
from lmagent.core.messages import AssistantMessage, Message, ToolMessage
from lmagent.prompting.scanner_events import CallFailed
from lmagent.toolkit.schema import inline_refs

__all__ = ["failed_rounds_at_end", "failure_message", "without_failed_calls"]

_POSITION = re.compile(r"\(char (\d+)\)")
_PARAMETER = re.compile(r"(?:^|; )([\w.\[\]-]+): ")
_MAX_QUOTE = 80
_MAX_SCHEMA = 600


def failure_message(piece: CallFailed, schemas: Mapping[str, Mapping[str, Any]], form: str) -> str:
    """Return the message for one failed call.

    Args:
        piece: The failure that the scanner reports.
        schemas: Parameters schema by tool name.
        form: The template of a call in the format that was asked for.
    """
    message = piece.message or piece.reason
    lines = [f"This call was not run: {message}{'' if message.endswith('?') else '.'}"]
    if piece.reason == "truncated":
        return f"{lines[0]} The reply was cut: send the whole call again, shorter."
    if piece.reason == "invalid_arguments" and piece.name and piece.name in schemas:
        lines.append(_expected(piece, schemas[piece.name]))
    else:
        if piece.raw:
            lines.append(f"It came as: {_quote(piece)}")
        lines.append(f"The form is:\n{form}")
        lines.append(f"Tools: {', '.join(schemas)}.")
    lines.append("Send only the corrected call.")
    return "\n".join(part for part in lines if part)


def _quote(piece: CallFailed) -> str:
    found = _POSITION.search(piece.message)
    at = min(int(found.group(1)), len(piece.raw)) if found else 0
    start = max(at - _MAX_QUOTE // 2, 0)
    part = piece.raw[start : start + _MAX_QUOTE]
    return dumps_text(("…" if start else "") + part + ("…" if start + _MAX_QUOTE < len(piece.raw) else ""))


def _expected(piece: CallFailed, schema: Mapping[str, Any]) -> str:
    """Return the schemas of the parameters that the failure names; of all parameters when it names none."""
    properties: Mapping[str, Any] = schema.get("properties") or {}
    parameters = dict.fromkeys(re.split(r"[.\[]", name)[0] for name in _PARAMETER.findall(piece.message))
    named = {name: properties[name] for name in parameters if name in properties}
    whole = inline_refs({"properties": named or dict(properties), "$defs": schema.get("$defs", {})})
    text = dumps_text(whole["properties"])
    return f"Expected: {text}" if len(text) <= _MAX_SCHEMA else f"Expected the parameters: {', '.join(properties)}."


def without_failed_calls(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the conversation without unreadable calls and their answers, once a later reply was better.

    Models repeat what they see, mistakes as well. The history keeps them.
    """
    failed = [index for index, message in enumerate(messages) if _failed(message)]
    if not failed:
        return messages
    last_good = max(
        (index for index, m in enumerate(messages) if m.role == "assistant" and index not in failed), default=-1
    )
    dropped = {index for index in failed if index < last_good}
    for index in sorted(dropped):
        after = index + 1
        while after < len(messages) and isinstance(messages[after], ToolMessage):
            dropped.add(after)
            after += 1
    return tuple(message for index, message in enumerate(messages) if index not in dropped)


def failed_rounds_at_end(messages: Sequence[Message]) -> int:
    """Return how many replies in a row, up to the last, had only unreadable calls."""
    count = 0
    for message in reversed(messages):
        if _failed(message):
            count += 1
        elif not isinstance(message, ToolMessage):
            break
    return count


def _failed(message: Message) -> bool:
    """Return whether all calls of the message are unreadable. A call that does not fit its schema is readable."""
    return (
        isinstance(message, AssistantMessage)
        and bool(message.tool_calls)
        and all(call.problem and not _is_object(call.arguments) for call in message.tool_calls)
    )


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(loads(arguments), dict)
    except JSONError:
        return False
