"""Messages, their parts and the reply of a model: plain immutable values that any codec can read.

Nothing here knows a provider. `prompts.py` reads the input of users, and converts messages to and from JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import MessageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AssistantMessage",
    "FilePart",
    "FinishReason",
    "ImagePart",
    "Message",
    "Part",
    "Prompt",
    "Reply",
    "ReplyChunk",
    "StreamInfo",
    "SystemMessage",
    "TextPart",
    "ToolCall",
    "ToolMessage",
    "Usage",
    "UserMessage",
]

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
