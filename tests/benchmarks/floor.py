"""The floor: the same work by hand on httpx and json, with care and without validation.

One client for all runs, compact JSON, tools described beforehand, nothing kept that is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

HEADERS = {"content-type": "application/json"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where to look."}},
            "required": ["city"],
        },
    },
}
FUNCTIONS: dict[str, Callable[..., str]] = {
    "get_weather": lambda city: f"{city}: sunny, 21 degrees",
    "save": lambda text: str(len(text)),
}


def body(model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **more: Any) -> bytes:
    members = {"model": model, "messages": messages, **({"tools": tools} if tools else {}), **more}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def _answers(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "role": "tool",
            "tool_call_id": call["id"],
            "content": FUNCTIONS[call["function"]["name"]](**json.loads(call["function"]["arguments"])),
        }
        for call in message["tool_calls"]
    ]


def run(
    client: httpx.Client, base: str, model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> str:
    messages = list(messages)
    while True:
        response = client.post(f"{base}/chat/completions", content=body(model, messages, tools), headers=HEADERS)
        response.raise_for_status()
        message = json.loads(response.content)["choices"][0]["message"]
        messages.append(message)
        if not message.get("tool_calls"):
            return message["content"]
        messages += _answers(message)


async def async_run(
    client: httpx.AsyncClient, base: str, model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> str:
    messages = list(messages)
    while True:
        response = await client.post(f"{base}/chat/completions", content=body(model, messages, tools), headers=HEADERS)
        response.raise_for_status()
        message = json.loads(response.content)["choices"][0]["message"]
        messages.append(message)
        if not message.get("tool_calls"):
            return message["content"]
        messages += _answers(message)


class _Pieces:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.arguments: list[list[str]] = []
        self.events = 0

    def take(self, line: str) -> None:
        if not line.startswith("data: ") or line == "data: [DONE]":
            return
        self.events += 1
        for choice in json.loads(line[6:])["choices"]:
            delta = choice["delta"]
            if delta.get("content"):
                self.text.append(delta["content"])
            for call in delta.get("tool_calls") or ():
                if call.get("id"):
                    self.calls.append({"id": call["id"], "type": "function", "function": call["function"]})
                    self.arguments.append([])
                self.arguments[call["index"]].append(call["function"]["arguments"])

    def message(self) -> dict[str, Any]:
        for call, arguments in zip(self.calls, self.arguments, strict=True):
            call["function"]["arguments"] = "".join(arguments)
        return {"role": "assistant", "content": "".join(self.text), "tool_calls": self.calls}


def stream(client: httpx.Client, base: str, model: str, prompt: str) -> int:
    """Return the number of events."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    events = 0
    while True:
        pieces = _Pieces()
        content = body(model, messages, [], stream=True)
        with client.stream("POST", f"{base}/chat/completions", content=content, headers=HEADERS) as response:
            for line in response.iter_lines():
                pieces.take(line)
        events += pieces.events
        message = pieces.message()
        messages.append(message)
        if not message["tool_calls"]:
            return events
        messages += _answers(message)


async def async_stream(client: httpx.AsyncClient, base: str, model: str, prompt: str) -> int:
    """`stream`, asynchronous."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    events = 0
    while True:
        pieces = _Pieces()
        content = body(model, messages, [], stream=True)
        async with client.stream("POST", f"{base}/chat/completions", content=content, headers=HEADERS) as response:
            async for line in response.aiter_lines():
                pieces.take(line)
        events += pieces.events
        message = pieces.message()
        messages.append(message)
        if not message["tool_calls"]:
            return events
        messages += _answers(message)
