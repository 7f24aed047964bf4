"""A local trace of runs: one line of JSON per event, shown by `lmagent trace show`.

Prompts, answers, arguments, results and error texts are included only with `content=True`; secrets of this process
never are. A line is written in one piece, and the file is open only while it is written: after a crash at most the last
line is incomplete, and several programs may write to one file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from lmagent.core.events import ToolDecided
from lmagent.core.json_text import JSONError, dumps, loads
from lmagent.core.messages import Reply, ToolCall, Usage, message_to_dict
from lmagent.core.redaction import redact, redact_value
from lmagent.errors import ConfigurationError
from lmagent.observe.hooks import Hooks, Observer, Span
from lmagent.toolkit.context import ToolOutcome

__all__ = ["TraceFile", "read_trace"]


class TraceFile(Observer):
    """Writes the events of runs to a file: `Agent(..., hooks=TraceFile("run.jsonl").hooks)`.

    Runs that are nested in a traced run are included. An existing file is continued. A line that cannot be written (a
    full disk) is logged and never ends a run.

    Args:
        path: The file; created with the first line, for its owner only.
        content: Also write prompts, answers, arguments, results and error texts.
        clock: Seconds since 1970, for the `time` of each line.
        timer: Seconds, for durations.

    Raises:
        ConfigurationError: The folder does not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        content: bool = False,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.path = Path(path).absolute()
        if not self.path.parent.is_dir() or self.path.is_dir():
            raise ConfigurationError(f"A trace cannot be written to {str(path)!r}: there is no such folder or file.")
        self.content = content
        self._clock = clock
        self._timer = timer
        self._lock = Lock()
        self._begun = False

    @property
    def hooks(self) -> Hooks:
        """Hooks for an agent; add them to others with `+`."""
        return Hooks(observers=(self,))

    def started(self, span: Span) -> None:
        """Write the start of a run, a request or a call."""
        span.notes[self] = self._timer()
        match span.kind:
            case "run":
                facts = _run_given(span, content=self.content)
            case "model":
                call = span.given
                facts = {"agent": span.agent, "model": span.model_id, "messages": len(call.messages)}
                facts |= {"tools": len(call.tools), "stream": call.stream}
            case "tool":
                facts = {"call": span.given.id, "tool": span.given.name}
                if self.content:
                    facts["arguments"] = span.given.arguments
        self._write(f"{span.kind}_start", span, facts)

    def ended(self, span: Span) -> None:
        """Write its end, with duration, tokens and outcome."""
        seconds = round(self._timer() - span.notes.get(self, self._timer()), 6)
        match span.kind:
            case "run":
                facts = _run_outcome(span, content=self.content)
            case "model":
                facts = _reply_facts(span.outcome, content=self.content)
            case "tool":
                facts = _tool_outcome(span, content=self.content)
        error = _error_facts(span.error, content=self.content) if span.error is not None else {}
        self._write(f"{span.kind}_end", span, {"seconds": seconds, **facts, **error})

    def decided(self, span: Span, decided: ToolDecided) -> None:
        """Write a decision on a call."""
        call, decision = decided.call, decided.decision
        facts: dict[str, Any] = {"call": call.id, "tool": call.name, "decision": type(decision).__name__.lower()}
        facts |= {"rule": decided.rule, "by": decided.by}
        if self.content and getattr(decision, "reason", ""):
            facts["reason"] = decision.reason
        self._write("decision", span, facts)

    def _write(self, event: str, span: Span, facts: Mapping[str, Any]) -> None:
        line = {"event": event, "time": round(self._clock(), 6), "run": span.run_id, **facts}
        written = dumps(redact_value(line)) + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with self._lock:
            if not self._begun and _is_incomplete(self.path):
                written = b"\n" + written
            descriptor = os.open(self.path, flags, 0o600)
            try:
                os.write(descriptor, written)
                self._begun = True
            finally:
                os.close(descriptor)


def _is_incomplete(path: Path) -> bool:
    """Whether the last line has no end."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # no file, or an empty one
        return False


def _run_given(span: Span, *, content: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"agent": span.agent, "model": span.model_id}
    parent = span.parent
    if parent is not None:
        facts |= {"parent": parent.run_id, "parent_call": parent.given.id}
    if content:
        facts |= {"system": span.system, "prompt": [message_to_dict(message) for message in span.given()]}
    return facts


def _run_outcome(span: Span, *, content: bool) -> dict[str, Any]:
    result = span.outcome
    facts = {
        "finish": result.finish_reason,
        "rounds": result.rounds,
        "requests": result.requests,
        "calls": len(result.tool_calls),
        "tokens": _tokens(result.usage),
    }
    if result.pending:
        facts["pending"] = [call.name for call in result.pending]
    return facts | ({"reply": result.reply} if content else {})


def _reply_facts(reply: Reply | None, *, content: bool) -> dict[str, Any]:
    if reply is None:
        return {}
    facts: dict[str, Any] = {
        "model": reply.model_id,
        "finish": reply.finish_reason,
        "attempts": reply.attempts,
        "tokens": _tokens(reply.usage),
        "calls": [call.name for call in reply.tool_calls],
    }
    for name in ("response_id", "request_id", "cached"):
        if getattr(reply, name):
            facts[name] = getattr(reply, name)
    return facts | ({"reply": reply.reply, "reasoning": reply.message.reasoning} if content else {})


def _tool_outcome(span: Span, *, content: bool) -> dict[str, Any]:
    call: ToolCall = span.given
    outcome: ToolOutcome | None = span.outcome
    facts: dict[str, Any] = {"call": call.id, "tool": call.name}
    if outcome is None:
        return facts
    facts["outcome"] = outcome.kind
    if outcome.duration:
        facts["seconds"] = round(outcome.duration, 6)
    if outcome.repairs:
        facts["repairs"] = list(outcome.repairs)
    if outcome.error is not None:
        facts |= _error_facts(outcome.error, content=content)
    return facts | ({"result": outcome.content} if content else {})


def _tokens(usage: Usage | None) -> dict[str, int] | None:
    if usage is None:
        return None
    names = ("input", "output", "total", "cached", "reasoning")
    return {name: count for name in names if (count := getattr(usage, f"{name}_tokens"))}


def _error_facts(error: BaseException, *, content: bool) -> dict[str, Any]:
    """Return the facts of an error. Its text may quote a prompt or an answer, so it counts as content."""
    facts: dict[str, Any] = {"error": type(error).__name__}
    for name in ("status", "code", "limit", "attempts", "request_id"):
        value = getattr(error, name, None)
        if isinstance(value, str | int) and value != "":
            facts[name] = value
    return facts | ({"message": redact(str(error))} if content else {})


def read_trace(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], int]:
    """Return the events of a trace, and the number of lines that could not be read (an incomplete last one, say).

    Raises:
        OSError: There is no such file.
    """
    events: list[dict[str, Any]] = []
    unread = 0
    with Path(path).open("rb") as file:
        for line in filter(bytes.strip, file):
            try:
                event = loads(line)
            except JSONError:
                event = None
            if isinstance(event, dict) and isinstance(event.get("event"), str):  # pyright: ignore[reportUnknownMemberType]
                events.append(event)  # pyright: ignore[reportUnknownArgumentType]
            else:
                unread += 1
    return events, unread
