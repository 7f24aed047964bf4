"""Hooks and observers of runs, usable from sync and async runs.

Hooks are functions called at named points; they may change what passes. Observers, such as a trace file, receive spans:
the run, each request to its model, each tool call. Without observers no span is created.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, fields
from threading import Lock
from types import TracebackType
from typing import Any, Literal, TypeAlias

from lmagent.core.events import ToolDecided
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.messages import ToolCall
from lmagent.toolkit.context import ToolOutcome

__all__ = ["CURRENT_SPAN", "Hooks", "Observer", "RunTracer", "Span", "SpanContext", "SpanKind"]

Hook = Callable[[Any], Any]

SpanKind: TypeAlias = Literal["run", "model", "tool"]


@dataclass(slots=True, kw_only=True, eq=False)
class Span:
    """A period of a run: the run itself, one request to its model, or one tool call."""

    kind: SpanKind
    run_id: str
    """Id of the run that it is, or is part of."""
    parent: Span | None
    """Of a request or a call: its run. Of a nested run: the tool call that started it."""
    agent: str
    model_id: str
    given: Any
    """The input: a function that returns the new messages of a run, the `ChatCall` of a request, the `ToolCall`."""
    system: str = ""
    """The system prompt of a run."""
    outcome: Any = None
    """The output: `RunResult`, `Reply` or `ToolOutcome`. Of a run that failed: the result so far."""
    error: BaseException | None = None
    notes: dict[Any, Any] = field(default_factory=dict[Any, Any])
    """Data of observers; the key is the observer."""
    ended: bool = False


class Observer:
    """Receives the spans of runs. Override the methods you need. What they raise is logged and never ends a run.

    Spans start and end on the threads and in the tasks where the work is done, several at once.
    """

    def started(self, span: Span) -> None:
        """Called when a span starts."""

    def ended(self, span: Span) -> None:
        """Called when a span has ended: `outcome` or `error` is set."""

    def decided(self, span: Span, decided: ToolDecided) -> None:
        """Called after a decision on a call of the run `span`."""

    def entered(self, span: Span) -> Any:
        """Called before a tool's body, in its thread and context. The return value is passed to `left`."""

    def left(self, span: Span, token: Any) -> None:
        """Called after a tool's body, in the same thread and context."""


@fast_dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions called at each point, in order. Each may be sync or async, in sync and async runs.

    If a hook has an attribute `async_form`, async runs call that instead. What a hook returns replaces the value;
    `None` keeps it. A hook that raises ends the run.
    """

    before_model: Sequence[Hook] = ()
    """Receive the `ChatCall` before it is sent."""
    after_model: Sequence[Hook] = ()
    """Receive the `Reply`."""
    before_tool: Sequence[Hook] = ()
    """Receive the `ToolCall`. Changed arguments are validated like the model's own."""
    after_tool: Sequence[Hook] = ()
    """Receive the `ToolOutcome`."""
    on_error: Sequence[Hook] = ()
    """Receive the error of a failed request before it is raised. Their return value is ignored."""
    observers: Sequence[Observer] = ()
    """Receive the spans of every run and of the runs nested in it, and change nothing; see
    `lmagent.observe.trace_file` and `lmagent.observe.otel`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            given = getattr(self, item.name)
            if not isinstance(given, Sequence):
                raise TypeError(f"Hooks({item.name}=...) takes a list, not {given!r:.80}.")

    def __add__(self, other: Hooks) -> Hooks:
        points = [item.name for item in fields(self)]
        return Hooks(**{point: (*getattr(self, point), *getattr(other, point)) for point in points})


CURRENT_SPAN: ContextVar[tuple[RunTracer, Span] | None] = ContextVar("lmagent_span", default=None)
"""The tool call that runs in this context: parent of the runs it starts, also on threads and in tasks of its own."""


class RunTracer:
    """Sends the spans of one run to its observers and to those of the run around it."""

    __slots__ = ("_lock", "_observers", "_open", "_tools", "span")

    def __init__(self, observers: Sequence[Observer], span: Span) -> None:
        self._observers = observers
        self._lock = Lock()
        self._open: dict[Span, None] = {}
        self._tools: dict[str, Span] = {}
        self.span = span
        self._notify("started", span)

    @classmethod
    def over(
        cls, observers: Sequence[Observer], *, agent: str, model_id: str, given: Any, system: str
    ) -> RunTracer | None:
        """Start the span of a run; None if it has no observers."""
        around = CURRENT_SPAN.get()
        if around is None and not observers:
            return None
        outer, parent = around or (None, None)
        everyone = tuple(dict.fromkeys((*(outer._observers if outer else ()), *observers)))
        run_id = os.urandom(8).hex()
        span = Span(
            kind="run", run_id=run_id, parent=parent, agent=agent, model_id=model_id, given=given, system=system
        )
        return cls(everyone, span)

    def request(self, given: Any, *, agent: str, model_id: str) -> SpanContext:
        """Return the context of one request to the model."""
        return SpanContext(self, self._part("model", given, agent, model_id))

    def tool(self, call: ToolCall) -> SpanContext:
        """Return the context of a tool's body."""
        span = self._tools[call.id] = self._part("tool", call, self.span.agent, "")
        return SpanContext(self, span, is_body=True)

    def _part(self, kind: SpanKind, given: Any, agent: str, model_id: str) -> Span:
        return Span(kind=kind, run_id=self.span.run_id, parent=self.span, agent=agent, model_id=model_id, given=given)

    def outcomes(self, calls: Sequence[ToolCall], outcomes: Sequence[ToolOutcome]) -> None:
        """End the spans of a round's calls, also of calls that timed out or never ran."""
        for call, outcome in zip(calls, outcomes, strict=True):
            span = self._tools.pop(call.id, None)
            if span is None:
                span = self._part("tool", call, self.span.agent, "")
                self.start(span)
            self.end(span, outcome)

    def decided(self, event: ToolDecided) -> None:
        """Report a decision."""
        self._notify("decided", self.span, event)

    def start(self, span: Span) -> None:
        """Start a span within the run."""
        self._open[span] = None
        self._notify("started", span)

    def end(self, span: Span, outcome: Any = None, error: BaseException | None = None) -> None:
        """End a span, once. The end of the run also ends the spans that are still open in it."""
        if span is self.span:
            for part in tuple(self._open):
                self.end(part, error=error)
        with self._lock:  # a call that timed out is ended by the run, and again by its thread when that finishes
            if span.ended:
                return
            span.ended = True
            self._open.pop(span, None)
        span.outcome, span.error = outcome, error
        self._notify("ended", span)

    def enter(self, span: Span) -> list[tuple[Observer, Any]]:
        """Call `entered` of each observer and return what they gave."""
        return [(observer, _guarded(observer, "entered", span)) for observer in self._observers]

    def leave(self, span: Span, tokens: list[tuple[Observer, Any]]) -> None:
        """Call `left` of each observer, in reverse order."""
        for observer, token in reversed(tokens):
            _guarded(observer, "left", span, token)

    def _notify(self, point: str, *values: Any) -> None:
        for observer in self._observers:
            _guarded(observer, point, *values)


def _guarded(observer: Observer, point: str, *values: Any) -> Any:
    try:
        return getattr(observer, point)(*values)
    except Exception as error:  # the observer's own code, or a full disk: the run goes on
        from lmagent.core.redaction import library_logger

        library_logger("tracing").warning("an observer failed: %s", type(error).__name__, exc_info=error)


class SpanContext:
    """Context manager of one span. Entering returns a function that records the outcome and returns it unchanged.

    A tool's body that leaves by an exception keeps its span open: the run knows the outcome (a time-out, for example).
    """

    __slots__ = ("_is_body", "_span", "_token", "_tokens", "_tracer")

    def __init__(self, tracer: RunTracer, span: Span, *, is_body: bool = False) -> None:
        self._tracer = tracer
        self._span = span
        self._is_body = is_body
        self._tokens: list[tuple[Observer, Any]] = []
        self._token: Token[tuple[RunTracer, Span] | None] | None = None

    def __enter__(self) -> Callable[[Any], Any]:
        self._tracer.start(self._span)
        if self._is_body:
            self._token = CURRENT_SPAN.set((self._tracer, self._span))
            self._tokens = self._tracer.enter(self._span)
        return self._record

    def _record(self, outcome: Any) -> Any:
        self._span.outcome = outcome
        return outcome

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            self._tracer.leave(self._span, self._tokens)
            CURRENT_SPAN.reset(self._token)
        outcome = self._span.outcome
        if self._is_body and (error is not None or not isinstance(outcome, ToolOutcome)):
            return
        self._tracer.end(self._span, outcome, error)
