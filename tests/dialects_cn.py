"""Dialects of the Chinese providers; see `tests/dialects.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.dialects import USAGE, Asked, HTTPRequest, Said, Shape, Turn, compact, flat, pieces

_DONE = {"status_code": 0, "status_msg": ""}


class WenxinShape(Shape):
    """Wenxin's classic API: one call per reply; failures have status 200."""

    parallel = False

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = [Turn("system", body["system"])] if "system" in body else []
        for message in body["messages"]:
            turns.append(Turn("tool" if message["role"] == "function" else message["role"], message["content"] or ""))
        tools = tuple(function["name"] for function in body.get("functions", ()))
        return Asked(tuple(turns), tools, body.get("stream", False), body)

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        head = {"id": "as-1", "object": "chat.completion", "created": 1700000000, "is_truncated": False}
        body = {**head, "result": said.text, "need_clear_history": False, "finish_reason": "normal", "usage": USAGE}
        for name, arguments in said.calls:
            body["function_call"] = {"name": name, "thoughts": f"I need {name}.", "arguments": compact(arguments)}
            body["finish_reason"] = "function_call"
        return body

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        whole = self.whole(said, ids)
        texts = pieces(said.text) if not said.calls else []
        for number, piece in enumerate(texts):
            chunk = {**whole, "sentence_id": number, "is_end": False, "result": piece}
            yield {name: value for name, value in chunk.items() if name != "finish_reason"}
        yield {**whole, "sentence_id": len(texts), "is_end": True, "result": "" if texts else said.text}

    def limited(self) -> tuple[int, Any]:
        return 200, {"error_code": 18, "error_msg": "Open api qps request limit reached"}


class _MinimaxShape(Shape):
    parallel = False

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = [Turn("system", body["prompt"])] if "prompt" in body else []
        turns += [Turn("system", bot["content"]) for bot in body.get("bot_setting", ())]
        roles = {"USER": "user", "BOT": "assistant", "FUNCTION": "tool"}
        turns += [Turn(roles[message["sender_type"]], message["text"]) for message in body["messages"]]
        tools = tuple(function["name"] for function in body.get("functions", ()))
        return Asked(tuple(turns), tools, body.get("stream", False), body)

    def _body(self, said: Said, choice: Any) -> Any:
        head = {"created": 1700000000, "model": "abab5.5-chat", "reply": said.text, "choices": [choice]}
        return {**head, "usage": {"total_tokens": 30}, "id": "02f4", "base_resp": _DONE}

    def limited(self) -> tuple[int, Any]:
        return 200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}


class MinimaxShape(_MinimaxShape):
    """MiniMax's chatcompletion."""

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        return self._body(said, {"text": said.text, "index": 0, "finish_reason": "stop"})

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            yield {"reply": "", "choices": [{"delta": piece, "index": 0, "finish_reason": ""}], "request_id": "02f4"}
        yield self._body(said, {"delta": "", "index": 0, "finish_reason": "stop"})


class MinimaxProShape(_MinimaxShape):
    """MiniMax's chatcompletion_pro: one call per reply."""

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        message: dict[str, Any] = {"sender_type": "BOT", "sender_name": "Assistant", "text": said.text}
        extra: dict[str, Any] = {}
        for name, arguments in said.calls:
            extra = {"function_call": {"name": name, "arguments": compact(arguments)}}
        return {**self._body(said, {"finish_reason": "stop", "messages": [{**message, **extra}]}), **extra}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        whole = self.whole(said, ids)
        message = whole["choices"][0]["messages"][0]
        for piece in pieces(said.text) if not said.calls else ():
            yield {"reply": "", "choices": [{"messages": [{**message, "text": piece}]}]}
        if said.calls:
            yield {"reply": "", "choices": [{"messages": [message]}]}
        yield whole


class BaichuanShape(Shape):
    """Baichuan's signed API of 2023: lines of JSON."""

    stream_type = "application/json"

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = tuple(Turn(message["role"], message["content"]) for message in body["messages"])
        return Asked(turns, (), request.path.endswith("/stream/chat"), body)

    def _body(self, text: str, reason: str) -> Any:
        message = {"role": "assistant", "content": text, "finish_reason": reason}
        return {"code": 0, "msg": "success", "data": {"messages": [message]}}

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        usage = {"prompt_tokens": 21, "answer_tokens": 9, "total_tokens": 30}
        return {**self._body(said.text, "stop"), "usage": usage}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            yield self._body(piece, "")
        yield self.whole(Said(""), ())

    def frame(self, item: Any) -> bytes:
        return compact(item).encode() + b"\n"

    def limited(self) -> tuple[int, Any]:
        return 200, {"code": 10201, "msg": "请求过于频繁"}


class ZhipuV3Shape(Shape):
    """Zhipu's model API of 2023: text is quoted twice, and events have names."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = tuple(Turn(message["role"], message["content"]) for message in body["prompt"])
        return Asked(turns, (), request.path.endswith("/sse-invoke"), body)

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        choice = {"role": "assistant", "content": json.dumps(" " + said.text, ensure_ascii=False)}
        data = {"request_id": "8", "task_id": "8", "task_status": "SUCCESS", "choices": [choice], "usage": USAGE}
        return {"code": 200, "msg": "操作成功", "data": data, "success": True}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            lines = "".join(f"data: {line}\n" for line in piece.split("\n"))
            yield f"event: add\nid: 8\n{lines}\n".encode()
        meta = {"task_status": "SUCCESS", "usage": USAGE, "task_id": "8", "request_id": "8"}
        yield f"event: finish\nid: 8\ndata: \nmeta: {compact(meta)}\n\n".encode()

    def limited(self) -> tuple[int, Any]:
        return 200, {"code": 1302, "msg": "您当前使用该API的并发数过高", "success": False}


class HunyuanShape(Shape):
    """Tencent's cloud API: names begin with capital letters."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = tuple(Turn(message["Role"], message.get("Content") or "") for message in body["Messages"])
        tools = tuple(tool["Function"]["Name"] for tool in body.get("Tools", ()))
        return Asked(turns, tools, body.get("Stream", False), body)

    def _body(self, choice: Any) -> Any:
        usage = {"PromptTokens": 21, "CompletionTokens": 9, "TotalTokens": 30}
        return {"Note": "AI", "Choices": [{"Index": 0, **choice}], "Created": 1700000000, "Id": "0", "Usage": usage}

    def _calls(self, said: Said, ids: Sequence[str]) -> list[Any]:
        return [
            {
                "Id": id,
                "Type": "function",
                "Function": {"Name": name, "Arguments": compact(arguments)},
                "Index": index,
            }
            for index, (id, (name, arguments)) in enumerate(zip(ids, said.calls, strict=True))
        ]

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        message: dict[str, Any] = {"Role": "assistant", "Content": said.text}
        if said.calls:
            message["ToolCalls"] = self._calls(said, ids)
        reason = "tool_calls" if said.calls else "stop"
        return {"Response": {"RequestId": "r", **self._body({"Message": message, "FinishReason": reason})}}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            yield self._body({"Delta": {"Role": "assistant", "Content": piece}, "FinishReason": ""})
        for call in self._calls(said, ids):
            name = call["Function"]["Name"]
            for number, piece in enumerate(pieces(call["Function"]["Arguments"], 5)):
                part = {**call, "Function": {"Name": "" if number else name, "Arguments": piece}}
                yield self._body(
                    {"Delta": {"Role": "assistant", "Content": "", "ToolCalls": [part]}, "FinishReason": ""}
                )
        reason = "tool_calls" if said.calls else "stop"
        yield self._body({"Delta": {"Role": "assistant", "Content": ""}, "FinishReason": reason})

    def limited(self) -> tuple[int, Any]:
        error = {"Code": "LimitExceeded", "Message": "Quota exceeded, please try later."}
        return 200, {"Response": {"Error": error, "RequestId": "r"}}


class HyllmShape(Shape):
    """Hunyuan's signed API of 2023."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = tuple(Turn(message["role"], message["content"]) for message in body["messages"])
        return Asked(turns, (), body["stream"] == 1, body)

    def _body(self, **choice: Any) -> Any:
        return {"choices": [choice], "created": "1700000000", "id": "b6", "note": "AI", "usage": USAGE}

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        message = {"role": "assistant", "content": said.text}
        return {**self._body(finish_reason="stop", messages=message), "req_id": "r"}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            yield self._body(finish_reason="", delta={"content": piece})
        yield self._body(finish_reason="stop", delta={"content": ""})

    def limited(self) -> tuple[int, Any]:
        return 429, {"error": {"code": 2003, "message": "Too many requests"}, "req_id": "r"}


class BailianShape(Shape):
    """DashScope's native API; streams hold deltas."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns = tuple(Turn(message["role"], flat(message["content"])) for message in body["input"]["messages"])
        tools = tuple(tool["function"]["name"] for tool in body["parameters"].get("tools", ()))
        return Asked(turns, tools, "incremental_output" in body["parameters"], body)

    def _body(self, message: Any, reason: str) -> Any:
        choice = {"finish_reason": reason, "message": {"role": "assistant", "content": "", **message}}
        usage = {"input_tokens": 21, "output_tokens": 9, "total_tokens": 30}
        return {"output": {"choices": [choice]}, "usage": usage, "request_id": "f1"}

    def _calls(self, said: Said, ids: Sequence[str]) -> list[Any]:
        return [
            {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": compact(arguments)}}
            for index, (id, (name, arguments)) in enumerate(zip(ids, said.calls, strict=True))
        ]

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        message: dict[str, Any] = {"content": said.text}
        if said.calls:
            message["tool_calls"] = self._calls(said, ids)
        return self._body(message, "tool_calls" if said.calls else "stop")

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for piece in pieces(said.text):
            yield self._body({"content": piece}, "null")
        for call in self._calls(said, ids):
            for number, piece in enumerate(pieces(call["function"]["arguments"], 5)):
                function = {"name": "" if number else call["function"]["name"], "arguments": piece}
                part = {**call, "id": "" if number else call["id"], "function": function}
                yield self._body({"tool_calls": [part]}, "null")
        yield self._body({}, "tool_calls" if said.calls else "stop")

    def frame(self, item: Any) -> bytes:
        return f"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{compact(item)}\n\n".encode()

    def limited(self) -> tuple[int, Any]:
        return 429, {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded.", "request_id": "f1"}


class BailianAppShape(Shape):
    """Bailian's app completions of 2023: each event holds the whole text so far."""

    def read(self, request: HTTPRequest) -> Asked:
        body = request.json
        turns: list[Turn] = []
        for pair in body.get("History", ()):
            turns += [Turn("user", pair["User"]), Turn("assistant", pair["Bot"])]
        return Asked((*turns, Turn("user", body["Prompt"])), (), body["Stream"], body)

    def whole(self, said: Said, ids: Sequence[str]) -> Any:
        usage = [{"ModelId": "qwen-plus", "InputTokens": 21, "OutputTokens": 9}]
        data = {"ResponseId": "9f", "Text": said.text, "Thoughts": [], "Usage": usage}
        return {"Success": True, "Code": None, "Message": None, "RequestId": "a1", "Data": data}

    def events(self, said: Said, ids: Sequence[str]) -> Iterator[Any]:
        for end in range(3, len(said.text) + 3, 3):
            yield self.whole(Said(said.text[:end]), ())

    def limited(self) -> tuple[int, Any]:
        return 429, {"Success": False, "Code": "Throttling", "Message": "too many", "RequestId": "a1", "Data": None}
