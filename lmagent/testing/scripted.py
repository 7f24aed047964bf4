"""A model that answers from a script, through the real exchange, codec interface and prompt mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeAlias, Unpack

from lmagent.core.events import Delta, Done, ReasoningDelta, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, dumps, dumps_text, loads
from lmagent.core.messages import AssistantMessage, FinishReason, Message, Reply, ToolCall, Usage, message_to_dict
from lmagent.errors import LMAgentError, ProviderError
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.prompting.prompted import Prompted
from lmagent.providers.base import ChatCall, Codec, Features, Request
from lmagent.testing.fake import FakeAnswer, FakeTransport

__all__ = ["ScriptError", "ScriptedModel", "calls", "text"]


class ScriptError(AssertionError):
    """The model was asked more often, or less often, than the script has lines."""


def text(content: str, *, finish_reason: FinishReason = "stop", usage: Usage | None = None) -> Reply:
    """Return a text reply for a script."""
    return Reply(message=AssistantMessage(content), finish_reason=finish_reason, usage=usage or Usage())


def calls(*asked: tuple[str, Mapping[str, Any] | str], content: str = "", usage: Usage | None = None) -> Reply:
    """Return a reply with tool calls for a script: `calls(("add", {"a": 1, "b": 2}))`.

    Args:
        *asked: Name and arguments (an object, or JSON text) of each call.
        content: Text before the calls.
        usage: The tokens of the reply.
    """
    made = tuple(
        ToolCall(id="", name=name, arguments=arguments if isinstance(arguments, str) else dumps_text(dict(arguments)))
        for name, arguments in asked
    )
    return Reply(message=AssistantMessage(content, tool_calls=made), finish_reason="tool_calls", usage=usage or Usage())


Said: TypeAlias = "str | AssistantMessage | Reply | LMAgentError"
Line: TypeAlias = "Said | Callable[[tuple[Message, ...]], Said]"


class ScriptedModel(ChatModel):
    """Answers from a script and records what it was asked.

        model = ScriptedModel([calls(("get_weather", {"city": "Paris"})), "Sunny."])
        assert Agent(model, tools=[get_weather]).run("Weather in Paris?").reply == "Sunny."
        model.check()

    Asking more often than the script has lines raises `ScriptError`. So does `check()`, or the end of a `with`, if
    lines are left over.

    Args:
        script: One line per request: a text, a message, a reply from `text()` or `calls()`, an error to raise, or a
            function of the messages that returns one of these.
        piece: Length of the pieces in which text is streamed.
        **options: See `ModelOptions`; with `tool_mode="prompt"` calls are written as text and read back.
    """

    def __init__(self, script: Iterable[Line], *, piece: int = 3, **options: Unpack[ModelOptions]) -> None:
        self._lines = list(script)
        self.asked: list[tuple[Message, ...]] = []
        """The messages of each request, in order, as the codec got them."""
        self.choices: list[Any] = []
        """The tool choice of each request."""
        codec = _ScriptedCodec(self, piece)
        super().__init__(codec, **{"max_retries": 0, **options, "transport": FakeTransport(self._answer)})

    def _answer(self, request: Request) -> FakeAnswer:
        position = len(self.asked) - 1
        if position >= len(self._lines):
            raise ScriptError(
                f"The script has {len(self._lines)} lines, and this is request {position + 1}. Add a line for it."
            )
        line = self._lines[position]
        if callable(line):
            line = line(self.asked[position])
        if isinstance(line, LMAgentError):
            raise line
        reply = self._as_asked(_reply_of(line, position))
        return FakeAnswer(body=_encode(reply, stream=loads(request.content)["stream"], piece=self._piece))

    def _as_asked(self, reply: Reply) -> Reply:
        """In prompt mode, write the calls as text: a model has no other way to call tools."""
        made = reply.message.tool_calls
        if not made or not isinstance(self.codec, Prompted):
            return reply
        written = "\n".join(part for part in (reply.message.content, self.codec.format.calls(made)) if part)
        return replace(reply, message=replace(reply.message, content=written, tool_calls=()), finish_reason="stop")

    @property
    def _piece(self) -> int:
        inner: Any = getattr(self.codec, "inner", self.codec)
        return inner.piece

    def check(self) -> None:
        """Raise `ScriptError` if lines are left over."""
        left = len(self._lines) - len(self.asked)
        if left > 0:
            raise ScriptError(f"{left} of {len(self._lines)} lines of the script were not used.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[:1] == (None,):
            self.check()

    async def __aexit__(self, *raised: object) -> None:
        if raised[:1] == (None,):
            self.check()


def _reply_of(line: Any, position: int) -> Reply:
    match line:
        case Reply():
            return line
        case str():
            return text(line)
        case AssistantMessage():
            return Reply(message=line, finish_reason="tool_calls" if line.tool_calls else "stop", usage=Usage())
        case _:
            raise TypeError(
                f"Line {position + 1} of the script is a {type(line).__name__}; "
                "it may be a text, an AssistantMessage, text(...), calls(...) or an error."
            )


class _ScriptedCodec(Codec):
    """A minimal dialect: a reply is plain JSON, a stream is one JSON delta per event."""

    provider = "scripted"
    features = Features()
    model = "script"

    def __init__(self, owner: ScriptedModel, piece: int) -> None:
        self._owner = owner
        self.piece = piece

    def build_request(self, call: ChatCall) -> Request:
        self._owner.asked.append(call.messages)
        self._owner.choices.append(call.tool_choice)
        shown = {"messages": [message_to_dict(message) for message in call.messages], "stream": call.stream}
        return Request(url="scripted:", content=dumps(shown))

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        builder = ReplyBuilder(prefix)
        for delta in body["deltas"]:
            builder.add(_read(delta))
        return builder.reply(self.model_id)

    def new_state(self) -> None:
        return None

    def parse_event(self, state: None, data: bytes, event: str = "") -> Iterable[Delta]:
        return (_read(loads(data)),)

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        return None


def _encode(reply: Reply, *, stream: bool, piece: int) -> bytes | list[bytes]:
    deltas = list(_deltas(reply, piece))
    if not stream:
        return dumps({"deltas": deltas})
    return [b"data: " + dumps(delta) + b"\n\n" for delta in deltas]


def _deltas(reply: Reply, piece: int) -> Iterable[dict[str, Any]]:
    message = reply.message
    for kind, content in (("reasoning", message.reasoning), ("text", message.content)):
        for start in range(0, len(content), piece):
            yield {"kind": kind, "text": content[start : start + piece]}
    for index, call in enumerate(message.tool_calls):
        yield {"kind": "call", "index": index, "id": call.id, "name": call.name, "arguments": ""}
        for start in range(0, len(call.arguments), piece):
            yield {"kind": "call", "index": index, "arguments": call.arguments[start : start + piece]}
    usage = reply.usage or Usage()
    tokens: Sequence[int] = (usage.input_tokens, usage.output_tokens, usage.total_tokens)
    yield {"kind": "done", "reason": reply.finish_reason, "tokens": tokens}


def _read(delta: Mapping[str, Any]) -> Delta:
    match delta["kind"]:
        case "text":
            return TextDelta(delta["text"])
        case "reasoning":
            return ReasoningDelta(delta["text"])
        case "call":
            return ToolCallDelta(
                delta["index"], id=delta.get("id", ""), name=delta.get("name", ""), arguments=delta["arguments"]
            )
        case _:
            given, made, total = delta["tokens"]
            usage = Usage(input_tokens=given, output_tokens=made, total_tokens=total)
            return Done(finish_reason=delta["reason"], usage=usage)
