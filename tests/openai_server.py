"""A scripted server for OpenAI's Chat Completions, for tests of model, HTTP and codec together."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.loopback import Answer, LoopbackServer, Received, answer, sse_answer

Line = Any
"""A text, a list of `(name, arguments)` calls, or a ready `Answer`."""


def answer_of(line: Line, *, stream: bool) -> Answer:
    """Return the response to one line of the script."""
    if isinstance(line, Answer):
        return line
    text = line if isinstance(line, str) else None
    made = [] if isinstance(line, str) else line
    asked = [
        {"id": f"call_{i}_{name}", "type": "function", "function": {"name": name, "arguments": _text(arguments)}}
        for i, (name, arguments) in enumerate(made)
    ]
    reason = "tool_calls" if asked else "stop"
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    message: dict[str, Any] = {"role": "assistant", "content": text} | ({"tool_calls": asked} if asked else {})
    if not stream:
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return answer(json.dumps({"id": "r1", "model": "m", "choices": [choice], "usage": usage}))
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[i : i + 4]} for i in range(0, len(text or ""), 4)] if text else []
    deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(asked)]
    chunks = [{"id": "r1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"id": "r1", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({"id": "r1", "choices": [], "usage": usage})
    # Escaped to ASCII, so that a lone surrogate can be sent.
    return sse_answer(*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), "[DONE]")


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def openai_server(*lines: Line) -> LoopbackServer:
    """Return a server that answers with `lines` and repeats the last one; its base URL is `server.url + "/v1"`."""
    asked = [0]

    def say(request: Received) -> Answer:
        line = lines[min(asked[0], len(lines) - 1)]
        asked[0] += 1
        return answer_of(line, stream=bool(request.json.get("stream")))

    script: Callable[[Received], Answer] = say
    return LoopbackServer(script)
