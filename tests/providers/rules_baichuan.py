"""The rules of Baichuan's old API for a request body (docs/providers/baichuan.md)."""

from __future__ import annotations

from typing import Any


def check(body: Any) -> None:
    """Raise `AssertionError` if the server would refuse the body."""
    assert set(body) <= {"model", "messages", "parameters"}
    assert body["model"]
    messages = body["messages"]
    assert messages
    for index, message in enumerate(messages):
        assert set(message) == {"role", "content"}
        assert message["role"] == ("assistant" if index % 2 else "user")
        assert message["content"].strip()
    assert messages[-1]["role"] == "user"
    parameters = body.get("parameters")
    assert parameters != {}
    parameters = parameters or {}
    assert set(parameters) <= {"temperature", "top_p", "top_k", "with_search_enhance"}
    assert 0 <= parameters.get("temperature", 0) <= 1
    assert 0 <= parameters.get("top_p", 0) < 1
    assert 0 <= parameters.get("top_k", 0) <= 20
