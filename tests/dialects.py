"""The server side of each dialect, as pure functions: from requests to `Asked`, from scripted replies to bodies.

Written from the documentation of each provider and the recorded cases in `tests/wire/`, not from lmagent's codecs.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Call = tuple[str, Mapping[str, Any]]


class HTTPRequest(Protocol):
    """The parts of a request that are read: a `Received`, or a request of lmagent with a `path`."""

    @property
    def path(self) -> str: ...
    @property
    def json(self) -> Any: ...


@dataclass(frozen=True)
class Said:
    """Reply of the model behind a server."""

    text: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One message as the server understands it."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    text: str = ""


@dataclass(frozen=True)
class Asked:
    """Contents of a request, without its dialect."""

    turns: tuple[Turn, ...]
    tools: tuple[str, ...]
    stream: bool
    body: Any

    @property
    def user(self) -> str:
        """Text of the last user message."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def results(self) -> tuple[str, ...]:
        """Tool results after the last user message."""
        found: list[str] = []
        for turn in reversed(self.turns):
            if turn.role == "user":
                break
            if turn.role == "tool":
                found.append(turn.text)
        return tuple(reversed(found))

    @property
    def everything(self) -> str:
        """All texts of the request."""
        return "\n".join(turn.text for turn in self.turns)


def pieces(text: str, size: int = 3) -> list[str]:
    """Split a text as a stream does."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def flat(content: Any) -> str:
    """Return the text of a message content: text, parts or None."""
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content)
    return content or ""


class Shape(ABC):
    """Server side of one dialect."""

    parallel = True
    """Whether one answer may hold several calls."""
    stream_type = "text/event-stream"

    @abstractmethod
    def read(self, request: HTTPRequest) -> Asked:
        """Return the contents of a request."""

    @abstractmethod
    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        """Return the body of a reply that is not streamed; `ids` are for the calls."""

    @abstractmethod
    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        """Yield the items of a streamed reply: JSON values, or bytes that are already framed."""

    def streamed(self, said: Said, ids: Sequence[str]) -> bytes:
        """Return the whole body of a streamed answer."""
        return b"".join(map(self.frame, self.events(said, ids)))

    def frame(self, item: Any) -> bytes:
        return item if isinstance(item, bytes) else f"data: {compact(item)}\n\n".encode()

    def limited(self) -> tuple[int, Any]:
        """Return status and body of "too many requests"."""
        return 429, {"error": {"message": "Rate limit reached.", "type": "requests", "code": "rate_limit_exceeded"}}


USAGE = {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}


class OpenAIShape(Shape):
    """Chat Completions, as OpenAI and many others serve it."""

    def __init__(self, **extra: Any) -> None:
        self.extra = extra
        """Members that only this provider adds to every reply."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = [Turn(_ROLES[message["role"]], flat(message.get("content"))) for message in body["messages"]]
        tools = [tool["function"] for tool in body.get("tools", ())] or body.get("functions", ())
        return Asked(tuple(turns), tuple(tool["name"] for tool in tools), bool(body.get("stream")), body)

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
        if said.calls:
            message["tool_calls"] = self._calls(said.calls, ids)
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if said.calls else "stop"}
        return {**self._head("chat.completion"), "choices": [choice], "usage": USAGE}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        yield self._chunk({"role": "assistant", "content": ""})
        for piece in pieces(said.text):
            yield self._chunk({"content": piece})
        for index, call in enumerate(self._calls(said.calls, ids)):
            arguments = call["function"]["arguments"]
            call = {"index": index, **call, "function": {**call["function"], "arguments": ""}}
            yield self._chunk({"tool_calls": [call]})
            for piece in pieces(arguments, 5):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield self._chunk({}, "tool_calls" if said.calls else "stop")
        yield {**self._head("chat.completion.chunk"), "choices": [], "usage": USAGE}
        yield b"data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1790000000, "model": "m", **self.extra}

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> Any:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _calls(self, calls: Iterable[Call], ids: Sequence[str]) -> list[Any]:
        return [
            {"id": id, "type": "function", "function": {"name": name, "arguments": compact(arguments)}}
            for id, (name, arguments) in zip(ids, calls, strict=True)
        ]


_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class LegacyShape(OpenAIShape):
    """Chat Completions as of 2023, with `functions`."""

    parallel = False

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        body = super().whole(Said(said.text), ())
        for name, arguments in said.calls:
            body["choices"][0]["message"]["function_call"] = {"name": name, "arguments": compact(arguments)}
            body["choices"][0]["finish_reason"] = "function_call"
        return body

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        yield self._chunk({"role": "assistant", "content": said.text or None})
        for name, arguments in said.calls:
            yield self._chunk({"function_call": {"name": name, "arguments": ""}})
            for piece in pieces(compact(arguments), 5):
                yield self._chunk({"function_call": {"arguments": piece}})
        yield self._chunk({}, "function_call" if said.calls else "stop")
        yield b"data: [DONE]\n\n"


class MinimaxV2Shape(OpenAIShape):
    """MiniMax's chatcompletion_v2: a stream ends with the whole reply and has no end mark; failures have status 200."""

    def __init__(self) -> None:
        super().__init__(input_sensitive=False, output_sensitive=False)

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        return {**super().whole(said, ids), "base_resp": {"status_code": 0, "status_msg": ""}}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            yield self._chunk({"role": "assistant", "content": piece})
        if said.calls:
            yield self._chunk({"content": "", "tool_calls": self._calls(said.calls, ids)}, "tool_calls")
        yield self.whole(said, ids)

    def limited(self) -> tuple[int, Any]:
        return 200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}


class ResponsesShape(Shape):
    """OpenAI's Responses API."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = [Turn("system", body["instructions"])] if body.get("instructions") else []
        for item in body["input"]:
            if item.get("type", "message") == "message":
                turns.append(Turn(_ROLES[item["role"]], flat(item["content"])))
            elif item["type"] == "function_call_output":
                turns.append(Turn("tool", item["output"]))
            else:
                turns.append(Turn("assistant"))
        return Asked(
            tuple(turns), tuple(tool["name"] for tool in body.get("tools", ())), body.get("stream", False), body
        )

    def _items(self, said: Said, ids: Sequence[str]) -> list[Any]:
        items: list[Any] = []
        if said.text:
            text = {"type": "output_text", "text": said.text, "annotations": []}
            items.append(
                {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [text]}
            )
        for id, (name, arguments) in zip(ids, said.calls, strict=True):
            made = {"id": f"fc_{id}", "type": "function_call", "status": "completed", "call_id": id}
            items.append({**made, "name": name, "arguments": compact(arguments)})
        return items

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        usage = {"input_tokens": 21, "output_tokens": 9, "total_tokens": 30}
        head = {"id": "resp_1", "object": "response", "status": "completed", "error": None, "incomplete_details": None}
        return {**head, "model": "m", "output": self._items(said, ids), "usage": usage}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        number = 0

        def event(kind: str, **members: Any) -> bytes:
            nonlocal number
            number += 1
            return f"event: {kind}\ndata: {compact({'type': kind, 'sequence_number': number, **members})}\n\n".encode()

        whole = self.whole(said, ids)
        yield event("response.created", response={**whole, "status": "in_progress", "output": [], "usage": None})
        for index, item in enumerate(whole["output"]):
            at = {"output_index": index}
            if item["type"] == "message":
                at |= {"item_id": item["id"], "content_index": 0}
                yield event("response.output_item.added", output_index=index, item={**item, "content": []})
                part = {"type": "output_text", "text": "", "annotations": []}
                yield event("response.content_part.added", **at, part=part)
                for piece in pieces(said.text):
                    yield event("response.output_text.delta", **at, delta=piece)
                yield event("response.output_text.done", **at, text=said.text)
                yield event("response.content_part.done", **at, part=item["content"][0])
            else:
                at |= {"item_id": item["id"]}
                yield event("response.output_item.added", output_index=index, item={**item, "arguments": ""})
                for piece in pieces(item["arguments"], 5):
                    yield event("response.function_call_arguments.delta", **at, delta=piece)
                yield event("response.function_call_arguments.done", **at, arguments=item["arguments"])
            yield event("response.output_item.done", output_index=index, item=item)
        yield event("response.completed", response=whole)


class AnthropicShape(Shape):
    """Anthropic's Messages API."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = [Turn("system", flat(body["system"]))] if "system" in body else []
        for message in body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            results = [block for block in blocks if block["type"] == "tool_result"]
            turns += [Turn("tool", flat(block.get("content"))) for block in results]
            texts = [block["text"] for block in blocks if block["type"] == "text"]
            if texts or not results:
                turns.append(Turn(message["role"], "\n".join(texts)))
        return Asked(
            tuple(turns), tuple(tool["name"] for tool in body.get("tools", ())), body.get("stream", False), body
        )

    def _blocks(self, said: Said, ids: Sequence[str]) -> list[Any]:
        blocks: list[Any] = [{"type": "text", "text": said.text}] if said.text else []
        return blocks + [
            {"type": "tool_use", "id": id, "name": name, "input": arguments}
            for id, (name, arguments) in zip(ids, said.calls, strict=True)
        ]

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
        reason = "tool_use" if said.calls else "end_turn"
        usage = {"input_tokens": 21, "output_tokens": 9}
        return {**head, "content": self._blocks(said, ids), "stop_reason": reason, "usage": usage}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        def event(kind: str, **members: Any) -> bytes:
            return f"event: {kind}\ndata: {compact({'type': kind, **members})}\n\n".encode()

        whole = self.whole(said, ids)
        start = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": 21, "output_tokens": 1}}
        yield event("message_start", message=start)
        for index, block in enumerate(whole["content"]):
            empty = {"text": ""} if block["type"] == "text" else {"input": {}}
            yield event("content_block_start", index=index, content_block={**block, **empty})
            if block["type"] == "text":
                deltas = [{"type": "text_delta", "text": piece} for piece in pieces(said.text)]
            else:
                arguments = compact(block["input"])
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(arguments, 5)]
            for delta in deltas:
                yield event("content_block_delta", index=index, delta=delta)
            yield event("content_block_stop", index=index)
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield event("message_delta", delta=delta, usage={"output_tokens": 9})
        yield event("message_stop")

    def limited(self) -> tuple[int, Any]:
        return 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


class GeminiShape(Shape):
    """Google's generateContent."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = [Turn("system", flat(body["systemInstruction"]["parts"]))] if "systemInstruction" in body else []
        for content in body["contents"]:
            for part in content["parts"]:
                if "functionResponse" in part:
                    turns.append(Turn("tool", compact(part["functionResponse"]["response"])))
                else:
                    turns.append(Turn("user" if content["role"] == "user" else "assistant", part.get("text", "")))
        tools = [declared["name"] for tool in body.get("tools", ()) for declared in tool["functionDeclarations"]]
        return Asked(tuple(turns), tuple(tools), "streamGenerateContent" in request.path, body)

    def _body(self, parts: list[Any], reason: str | None) -> Any:
        candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if reason:
            candidate["finishReason"] = reason
        usage = {"promptTokenCount": 21, "candidatesTokenCount": 9, "totalTokenCount": 30}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}

    def _calls(self, calls: Iterable[Call]) -> list[Any]:
        made = [{"functionCall": {"name": name, "args": arguments}} for name, arguments in calls]
        return [{**part, "thoughtSignature": "c2ln"} if not index else part for index, part in enumerate(made)]

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        return self._body(([{"text": said.text}] if said.text else []) + self._calls(said.calls), "STOP")

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            yield self._body([{"text": piece}], None)
        for part in self._calls(said.calls):
            yield self._body([part], None)
        yield self._body([{"text": ""}], "STOP")

    def limited(self) -> tuple[int, Any]:
        return 503, {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
