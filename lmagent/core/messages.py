"""Messages, their parts and the reply of a model: plain immutable values that any codec can read.

The second half reads the input of users, and converts messages to plain JSON and back without loss. The JSON form is
lmagent's own; OpenAI's dicts (`tool_calls` with `function`, `image_url`, role `function`) are read as well. Knows no
provider. Over 400 lines because the values and their JSON form are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import MessageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AssistantMessage", "FilePart", "FinishReason", "ImagePart", "Message", "Part", "Prompt", "Reply", "ReplyChunk",
    "StreamInfo", "SystemMessage", "TextPart", "ToolCall", "ToolMessage", "Usage", "UserMessage", "as_messages",
    "message_from_dict", "message_to_dict",
]  # fmt: skip

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "error", "other"]
"""Why a reply ended. `tool_calls` whenever calls are present, whatever the provider said."""


@fast_dataclass(frozen=True)
class TextPart:
    """A piece of text inside a user message."""

    text: str
    type: ClassVar[str] = "text"


@fast_dataclass(frozen=True, kw_only=True)
class ImagePart:
    """An image: by `url` or by `data` (base64 text) with its media type. Build it with `from_bytes`, `from_path`."""

    url: str | None = None
    data: str | None = None
    """Base64, without a `data:` prefix."""
    media_type: str = "image/png"
    detail: Literal["auto", "low", "high"] | None = None
    """The resolution at which the model sees the image, if the provider supports it."""
    type: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        if (self.url is None) == (self.data is None):
            raise MessageError("An image needs exactly one of url= and data= (base64).")

    @classmethod
    def from_bytes(cls, content: bytes, media_type: str | None = None) -> ImagePart:
        """Return an image of these bytes. Without `media_type` it is detected from the bytes."""
        import base64  # few programs need it, so it is not imported at start

        return cls(data=base64.b64encode(content).decode(), media_type=media_type or _sniff(content))

    @classmethod
    def from_path(cls, path: str | Path) -> ImagePart:
        """Return the image in a file. Raises `OSError` if it cannot be read."""
        import mimetypes
        from pathlib import Path

        content = Path(path).read_bytes()
        return cls.from_bytes(content, _sniff(content, mimetypes.guess_type(str(path))[0]))

    @property
    def data_url(self) -> str:
        """The image as one URL: its own, or a `data:` URL."""
        return self.url if self.url is not None else f"data:{self.media_type};base64,{self.data}"


_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"))


def _sniff(content: bytes, otherwise: str | None = None) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), otherwise or "image/png")


@fast_dataclass(frozen=True, kw_only=True)
class FilePart:
    """A document: by `url`, by `data` (base64 text) or by the provider's own `file_id`."""

    url: str | None = None
    data: str | None = None
    file_id: str | None = None
    media_type: str = "application/pdf"
    name: str | None = None
    type: ClassVar[str] = "file"

    def __post_init__(self) -> None:
        if (self.url is not None) + (self.data is not None) + (self.file_id is not None) != 1:
            raise MessageError("A file needs exactly one of url=, data= (base64) and file_id=.")


Part: TypeAlias = TextPart | ImagePart | FilePart


@fast_dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A tool call that the model requests."""

    id: str
    """Unique in its conversation; generated if the provider has no ids."""
    name: str
    arguments: str = "{}"
    """The raw JSON text the model wrote, broken or not."""
    repairs: tuple[str, ...] = ()
    """The lossless repairs that made `arguments` readable."""
    problem: str = ""
    """Why the call cannot be run (incomplete, unreadable); this text is then its result."""


@fast_dataclass(frozen=True)
class SystemMessage:
    """Instructions. For a provider without a system role the codec puts them elsewhere."""

    content: str
    wire: dict[Any, Any] = field(default_factory=dict[Any, Any], init=False, repr=False, compare=False)
    role: ClassVar[Literal["system"]] = "system"


@fast_dataclass(frozen=True)
class UserMessage:
    """A message of the user: text, or parts."""

    content: str | tuple[Part, ...]
    name: str | None = None
    wire: dict[Any, Any] = field(default_factory=dict[Any, Any], init=False, repr=False, compare=False)
    """Encoded forms, which codecs store under keys of their own. Messages never change, so these stay valid."""
    role: ClassVar[Literal["user"]] = "user"

    def __post_init__(self) -> None:
        content: Any = self.content
        if not isinstance(content, str | tuple):  # changing a list later would not change the encoded forms
            object.__setattr__(self, "content", tuple(content))

    @property
    def text(self) -> str:
        """The text parts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


@fast_dataclass(frozen=True)
class AssistantMessage:
    """A message of the model: text, tool calls, and data that has to go back to the same provider."""

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    """The model's visible reasoning, never part of the answer."""
    refusal: str = ""
    """The text of a refusal, if the provider marks it as one."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Provider name -> plain JSON that its codec needs in the next request (signatures, `thoughts`). Read-only."""
    wire: dict[Any, Any] = field(default_factory=dict[Any, Any], init=False, repr=False, compare=False)
    role: ClassVar[Literal["assistant"]] = "assistant"

    def __post_init__(self) -> None:
        calls: Any = self.tool_calls
        if not isinstance(calls, tuple):  # for the same reason as the content of a user message
            object.__setattr__(self, "tool_calls", tuple(calls))

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.content


@fast_dataclass(frozen=True)
class ToolMessage:
    """The result of one tool call."""

    content: str
    tool_call_id: str
    name: str = ""
    is_error: bool = False
    wire: dict[Any, Any] = field(default_factory=dict[Any, Any], init=False, repr=False, compare=False)
    role: ClassVar[Literal["tool"]] = "tool"


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage
Prompt: TypeAlias = "str | Message | Mapping[str, Any] | Sequence[str | Message | Mapping[str, Any]]"
"""Text, a message, a dict such as `{"role": "user", "content": "hi"}`, or a list of them."""


@fast_dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one or more requests. Details are 0 if the provider does not report them."""

    input_tokens: int = 0
    """All tokens of the prompt, cached ones included."""
    output_tokens: int = 0
    """All tokens of the answer, reasoning included."""
    total_tokens: int = 0
    """As reported by the provider, else the sum."""
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage | None) -> Usage:
        if other is None:
            return self
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@fast_dataclass(frozen=True)
class StreamInfo:
    """The position of an item in its stream."""

    delta: str = ""
    """New text of the answer."""
    control: Literal["start", "continue", "finish"] = "finish"


@fast_dataclass(frozen=True, kw_only=True)
class Reply:
    """The complete answer of a model; also the last item of a stream."""

    message: AssistantMessage
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None
    """None if the provider did not report it."""
    model_id: str = ""
    """`provider/model`, as requested."""
    raw: Any = None
    """The provider's decoded body; in a stream its last chunk. Not copied."""
    raw_finish_reason: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    attempts: int = 1
    """Number of requests that were made for it, retries included; 0 if it was cached."""
    cached: bool = False
    """Whether it came from a `ResponseCache`; then it cost nothing and `usage` is zero."""
    stream: StreamInfo = StreamInfo()
    is_finish: ClassVar[Literal[True]] = True

    @property
    def reply(self) -> str:
        """The text of the answer."""
        return self.message.content

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages that the answer adds to the history."""
        return (self.message,)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls that the model requests, in order."""
        return self.message.tool_calls


@fast_dataclass(kw_only=True)
class ReplyChunk:
    """One item of a stream before the last."""

    stream: StreamInfo
    event: Any = None
    """The event behind the item, such as a reasoning or tool-call delta."""
    is_finish: ClassVar[Literal[False]] = False


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
