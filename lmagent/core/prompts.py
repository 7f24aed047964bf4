"""Reads prompts and stored messages: user input becomes messages, and messages become plain JSON and come back.

The JSON form is our own. OpenAI's dicts (`tool_calls` with `function`, `image_url`, role `function`) are read as well.
Messages round-trip through JSON without loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from lmagent.core.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    Part,
    Prompt,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from lmagent.errors import MessageError

__all__ = ["as_messages", "message_from_dict", "message_to_dict"]

_PART_FIELDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "text": (TextPart, ("text",)),
    "image": (ImagePart, ("url", "data", "media_type", "detail")),
    "file": (FilePart, ("url", "data", "file_id", "media_type", "name")),
}


def message_to_dict(message: Message) -> dict[str, Any]:
    """Return a message as plain JSON values, without empty fields. `message_from_dict` reads it back."""
    match message:
        case SystemMessage():
            return {"role": "system", "content": message.content}
        case UserMessage():
            content = (
                message.content if isinstance(message.content, str) else [_part_to_dict(p) for p in message.content]
            )
            return {"role": "user", "content": content, **({} if message.name is None else {"name": message.name})}
        case ToolMessage():
            out: dict[str, Any] = {"role": "tool", "content": message.content, "tool_call_id": message.tool_call_id}
            return out | _filled(message, ("name", "is_error"))
        case AssistantMessage():
            out = {"role": "assistant", "content": message.content}
            if message.tool_calls:
                out["tool_calls"] = [
                    {"id": c.id, "name": c.name, "arguments": c.arguments, **_filled(c, ("repairs", "problem"))}
                    for c in message.tool_calls
                ]
            out |= _filled(message, ("reasoning", "refusal", "details"))
            return out


def _filled(value: object, names: Iterable[str]) -> dict[str, Any]:
    found = {name: getattr(value, name) for name in names}
    return {
        name: list(cast("tuple[Any]", item)) if isinstance(item, tuple) else item
        for name, item in found.items()
        if item
    }


def _part_to_dict(part: Part) -> dict[str, Any]:
    _, names = _PART_FIELDS[part.type]
    return {"type": part.type} | {n: getattr(part, n) for n in names if getattr(part, n) is not None}


def message_from_dict(data: Mapping[str, Any]) -> Message:
    """Read a message from our own form or from OpenAI's (`tool_calls` with `function`, `image_url`, role `function`).

    Raises:
        MessageError: Unknown role, missing or wrong field; the text names it.
    """
    role = data.get("role")
    reader = _READERS.get(role) if isinstance(role, str) else None
    if reader is None:
        raise MessageError(f"The role of a message must be one of {sorted(_READERS)}, not {role!r}: {_shown(data)}.")
    try:
        return reader(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, MessageError):
            raise
        raise MessageError(
            f"Cannot read this {role} message ({type(error).__name__}: {error}): {_shown(data)}."
        ) from error


def _shown(data: Mapping[str, Any]) -> str:
    text = repr(dict(data))
    return text if len(text) <= 120 else text[:119] + "…"


def _text(data: Mapping[str, Any], name: str = "content", *, optional: bool = False) -> str:
    value = data.get(name)
    if value is None and optional:
        return ""
    if isinstance(value, list | tuple):
        parts = [_part_from(item) for item in cast("list[Any]", value)]
        if all(isinstance(part, TextPart) for part in parts):
            return "".join(part.text for part in parts if isinstance(part, TextPart))
    if not isinstance(value, str):
        raise MessageError(f"{name!r} of a {data.get('role')} message must be text, got {value!r:.80}.")
    return value


def _optional(data: Mapping[str, Any], *names: str) -> str:
    """Return the first of these fields that is not empty, which must be text; "" if there is none."""
    name, value = next(((name, data[name]) for name in names if data.get(name)), ("", ""))
    if not isinstance(value, str):
        raise MessageError(f"{name!r} must be text, got {value!r:.80}.")
    return value


def _part_from(item: Any) -> Part:
    if isinstance(item, TextPart | ImagePart | FilePart):
        return item
    if isinstance(item, str):
        return TextPart(item)
    if not isinstance(item, Mapping):
        raise MessageError(f"A content part must be a dict with a type, got {item!r:.80}.")
    part = cast("Mapping[str, Any]", item)
    kind = part.get("type")
    if kind == "image_url":
        return _image_from_url(part["image_url"])
    if kind not in _PART_FIELDS:
        raise MessageError(f"A content part needs a type of {sorted(_PART_FIELDS)} or 'image_url', not {kind!r}.")
    made, names = _PART_FIELDS[kind]
    fields = {name: part[name] for name in names if name in part}
    for name, value in fields.items():
        if not isinstance(value, str | None):
            raise MessageError(f"{name!r} of a content part must be text, got {value!r:.80}.")
    return made(**fields)


def _image_from_url(value: Any) -> ImagePart:
    url: str = value if isinstance(value, str) else value["url"]
    detail = None if isinstance(value, str) else value.get("detail")
    if url.startswith("data:") and ";base64," in url:
        head, _, data = url.partition(";base64,")
        return ImagePart(data=data, media_type=head.removeprefix("data:"), detail=detail)
    return ImagePart(url=url, detail=detail)


def _user_from(data: Mapping[str, Any]) -> UserMessage:
    content = data["content"]
    if not isinstance(content, str):
        if not isinstance(content, list | tuple):
            raise MessageError(f"'content' of a user message must be text or a list of parts, got {content!r:.80}.")
        content = tuple(_part_from(item) for item in cast("list[Any]", content))
    return UserMessage(content, name=_optional(data, "name") if data.get("name") is not None else None)


def _call_from(data: Any, index: int) -> ToolCall:
    if isinstance(data, ToolCall):
        return data
    inner: Mapping[str, Any] = data.get("function", data)
    name, arguments = inner["name"], inner.get("arguments")
    if not isinstance(name, str):
        raise MessageError(f"'name' of a tool call must be text, got {name!r:.80}.")
    if not isinstance(arguments, str):
        from lmagent.core.json_text import dumps_text  # only needed for arguments that are dicts; keeps imports fast

        arguments = dumps_text({} if arguments is None else arguments)
    return ToolCall(
        id=_optional(data, "id") or f"call_{index}",
        name=name,
        arguments=arguments,
        repairs=tuple(data.get("repairs", ())),
        problem=_optional(data, "problem"),
    )


def _assistant_from(data: Mapping[str, Any]) -> AssistantMessage:
    calls: list[Any] = list(cast("Iterable[Any]", data.get("tool_calls") or ()))
    legacy = data.get("function_call")
    if legacy:
        calls.append({"function": legacy})
    return AssistantMessage(
        _text(data, optional=True),
        tool_calls=tuple(_call_from(call, index) for index, call in enumerate(calls)),
        reasoning=_optional(data, "reasoning", "reasoning_content"),
        refusal=_optional(data, "refusal"),
        details=dict(data.get("details") or {}),
    )


def _tool_from(data: Mapping[str, Any]) -> ToolMessage:
    call_id = data.get("tool_call_id")
    if call_id is None and data["role"] == "function":
        call_id = ""
    if not isinstance(call_id, str):
        raise MessageError(f"A tool message needs the 'tool_call_id' of its call: {_shown(data)}.")
    return ToolMessage(
        _text(data), tool_call_id=call_id, name=_optional(data, "name"), is_error=bool(data.get("is_error", False))
    )


_READERS: dict[str, Callable[[Mapping[str, Any]], Message]] = {
    "system": lambda data: SystemMessage(_text(data)),
    "developer": lambda data: SystemMessage(_text(data)),
    "user": _user_from,
    "assistant": _assistant_from,
    "tool": _tool_from,
    "function": _tool_from,
}


def as_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as messages; a text becomes a user message.

    Raises:
        MessageError: An unknown role or form, an empty prompt.
        TypeError: `prompt` is not a text, message, dict or list of them.
    """
    if isinstance(prompt, str | SystemMessage | UserMessage | AssistantMessage | ToolMessage | Mapping):
        prompt = [prompt]
    if not isinstance(prompt, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"A prompt must be a text, a message, a dict or a list of them, not {type(prompt).__name__}.")
    messages = _name_legacy_results([_as_message(item) for item in prompt])
    if not messages:
        raise MessageError("The prompt is an empty list; pass at least one message.")
    return tuple(messages)


def _as_message(item: Any) -> Message:
    if isinstance(item, str):
        return UserMessage(item)
    if isinstance(item, SystemMessage | UserMessage | AssistantMessage | ToolMessage):
        return item
    if isinstance(item, Mapping):
        return message_from_dict(cast("Mapping[str, Any]", item))
    raise TypeError(f"A prompt must be a text, a message, a dict or a list of them, not {type(item).__name__}.")


def _name_legacy_results(messages: list[Message]) -> list[Message]:
    """Set the call id of results with the old role `function`: the id of the first open call of their name."""
    open_calls: list[ToolCall] = []
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            open_calls.extend(message.tool_calls)
        elif isinstance(message, ToolMessage):
            if not message.tool_call_id:
                match = next((call for call in open_calls if call.name == message.name), None)
                if match is None:
                    raise MessageError(
                        f"There is a result of {message.name!r}, but no open call of that name before it. Add the "
                        "assistant message with the call."
                    )
                messages[index] = ToolMessage(
                    message.content, tool_call_id=match.id, name=message.name, is_error=message.is_error
                )
                open_calls.remove(match)
            else:
                open_calls = [call for call in open_calls if call.id != message.tool_call_id]
    return messages
