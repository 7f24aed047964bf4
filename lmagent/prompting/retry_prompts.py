"""What a model is told about a call that could not be read: place, expectation, what came, and the form to use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmagent.core.json_text import JSONError, dumps_text, loads
from lmagent.core.messages import AssistantMessage, Message, ToolMessage
from lmagent.prompting.scanner_events import CallFailed

__all__ = ["complaint", "failures_at_end", "without_failures"]

_POSITION = re.compile(r"\(char (\d+)\)")
_PARAMETER = re.compile(r"(?:^|; )([\w.\[\]-]+): ")
_QUOTED = 80
_SCHEMA = 600


def complaint(piece: CallFailed, schemas: Mapping[str, Mapping[str, Any]], form: str) -> str:
    """Return the message for one failed call.

    Args:
        piece: What the scanner says.
        schemas: Parameters schema by tool name.
        form: The template of a call in the format that was asked for.
    """
    message = piece.message or piece.reason
    said = [f"This call was not run: {message}{'' if message.endswith('?') else '.'}"]
    if piece.reason == "truncated":
        return f"{said[0]} The reply was cut: send the whole call again, shorter."
    if piece.reason == "invalid_arguments" and piece.name and piece.name in schemas:
        said.append(_expected(piece, schemas[piece.name]))
    else:
        if piece.raw:
            said.append(f"It came as: {_around(piece)}")
        said.append(f"The form is:\n{form}")
        said.append(f"Tools: {', '.join(schemas)}.")
    said.append("Send only the corrected call.")
    return "\n".join(part for part in said if part)


def _around(piece: CallFailed) -> str:
    found = _POSITION.search(piece.message)
    at = min(int(found.group(1)), len(piece.raw)) if found else 0
    start = max(at - _QUOTED // 2, 0)
    part = piece.raw[start : start + _QUOTED]
    return dumps_text(("…" if start else "") + part + ("…" if start + _QUOTED < len(piece.raw) else ""))


def _expected(piece: CallFailed, schema: Mapping[str, Any]) -> str:
    """Return the schemas of the parameters that the failure names; without one, those of all."""
    properties: Mapping[str, Any] = schema.get("properties") or {}
    tops = dict.fromkeys(re.split(r"[.\[]", name)[0] for name in _PARAMETER.findall(piece.message))
    named = {name: properties[name] for name in tops if name in properties}
    text = dumps_text(named or dict(properties))
    return f"Expected: {text}" if len(text) <= _SCHEMA else f"Expected the parameters: {', '.join(properties)}."


def without_failures(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the conversation without unreadable calls and what was said of them, once a later answer was better.

    A model copies what it sees, mistakes as well. The history keeps them.
    """
    failed = [index for index, message in enumerate(messages) if _failed(message)]
    if not failed:
        return messages
    good = max((index for index, m in enumerate(messages) if m.role == "assistant" and index not in failed), default=-1)
    dropped = {index for index in failed if index < good}
    for index in sorted(dropped):
        after = index + 1
        while after < len(messages) and isinstance(messages[after], ToolMessage):
            dropped.add(after)
            after += 1
    return tuple(_kept(messages, dropped))


def failures_at_end(messages: Sequence[Message]) -> int:
    """Return how many answers in a row, up to the end, held nothing but unreadable calls."""
    count = 0
    for message in reversed(messages):
        if _failed(message):
            count += 1
        elif not isinstance(message, ToolMessage):
            break
    return count


def _kept(messages: Sequence[Message], dropped: set[int]) -> Iterable[Message]:
    return (message for index, message in enumerate(messages) if index not in dropped)


def _failed(message: Message) -> bool:
    """True when all calls of the message are unreadable. One whose arguments only did not fit is a call."""
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
