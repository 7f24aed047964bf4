"""Watching runs: spans of what a run does, told to observers such as a trace file. Nobody watches: nothing is made."""

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

__all__ = ["UNSEEN", "Hooks", "NoopSpan", "Observer", "RunTracer", "Span", "SpanContext", "SpanKind"]

SpanKind: TypeAlias = Literal["run", "model", "tool"]


@dataclass(slots=True, kw_only=True, eq=False)
class Span:
    """One thing that takes time: a run, one ask of its model, one tool call. Asks and calls are parts of a run."""

    kind: SpanKind
    run_id: str
    """Of the run that it is, or is part of."""
    parent: Span | None
    """The run of an ask or a call; of a nested run the tool call that it runs in."""
    agent: str
    model_id: str
    given: Any
    """What it began with: the new messages of a run, the `ChatCall` of an ask, the `ToolCall` of a call."""
    system: str = ""
    """The system prompt of a run."""
    outcome: Any = None
    """What it ended with: `RunResult`, `Reply` or `ToolOutcome`; of a run that failed, the result so far."""
    error: BaseException | None = None
    notes: dict[Any, Any] = field(default_factory=dict[Any, Any])
    """A place for each observer (its key is the observer)."""
    ended: bool = False


class Observer:
    """Is told of the spans of runs. Override what you need; what is raised here is logged and never ends a run.

    Spans start and end on the threads and in the tasks where the work is done, several at once.
    """

    def started(self, span: Span) -> None:
        """A span began."""

    def ended(self, span: Span) -> None:
        """A span is over: `outcome` or `error` is set."""

    def decided(self, span: Span, decided: ToolDecided) -> None:
        """It was decided whether a call of the run `span` runs."""

    def entered(self, span: Span) -> Any:
        """The body of a tool begins, on this thread and in this context; the answer is handed to `left`."""

    def left(self, span: Span, token: Any) -> None:
        """The body of a tool is over, where it began."""


_current: ContextVar[tuple[RunTracer, Span] | None] = ContextVar("lmagent_span", default=None)
"""The tool call that runs here: parent of the runs that it starts, on threads and in tasks of its own too."""


class RunTracer:
    """The spans of one run, told to all who watch it: its own observers and those of the run around it."""

    __slots__ = ("_lock", "_observers", "_open", "_tools", "span")

    def __init__(self, observers: Sequence[Observer], span: Span) -> None:
        self._observers = observers
        self._lock = Lock()
        self._open: dict[Span, None] = {}
        self._tools: dict[str, Span] = {}
        self.span = span
        self._tell("started", span)

    @classmethod
    def over(
        cls, observers: Sequence[Observer], *, agent: str, model_id: str, given: Any, system: str
    ) -> RunTracer | None:
        """Begin to watch a run; None when nobody wants to know."""
        around = _current.get()
        if around is None and not observers:
            return None
        watch, parent = around or (None, None)
        everyone = tuple(dict.fromkeys((*(watch._observers if watch else ()), *observers)))
        run_id = os.urandom(8).hex()
        span = Span(
            kind="run", run_id=run_id, parent=parent, agent=agent, model_id=model_id, given=given, system=system
        )
        return cls(everyone, span)

    def sight(self, kind: SpanKind, given: Any, *, agent: str, model_id: str) -> SpanContext:
        """Return the context of one ask."""
        return SpanContext(self, self._part(kind, given, agent, model_id))

    def tool(self, call: ToolCall) -> SpanContext:
        """Return the context of a tool's body."""
        span = self._tools[call.id] = self._part("tool", call, self.span.agent, "")
        return SpanContext(self, span, is_body=True)

    def _part(self, kind: SpanKind, given: Any, agent: str, model_id: str) -> Span:
        return Span(kind=kind, run_id=self.span.run_id, parent=self.span, agent=agent, model_id=model_id, given=given)

    def outcomes(self, calls: Sequence[ToolCall], outcomes: Sequence[ToolOutcome]) -> None:
        """End the calls of a round: those that ran out of time, and those that never ran."""
        for call, outcome in zip(calls, outcomes, strict=True):
            span = self._tools.pop(call.id, None)
            if span is None:
                span = self._part("tool", call, self.span.agent, "")
                self.start(span)
            self.end(span, outcome)

    def decided(self, event: ToolDecided) -> None:
        """Tell of a decision."""
        self._tell("decided", self.span, event)

    def start(self, span: Span) -> None:
        """Begin a part of the run."""
        self._open[span] = None
        self._tell("started", span)

    def end(self, span: Span, outcome: Any = None, error: BaseException | None = None) -> None:
        """End a span, once; of a run also what is still open in it."""
        if span is self.span:
            for part in tuple(self._open):
                self.end(part, error=error)
        with self._lock:  # a call that ran out of time is ended by the run, and by its thread when that is done
            if span.ended:
                return
            span.ended = True
            self._open.pop(span, None)
        span.outcome, span.error = outcome, error
        self._tell("ended", span)

    def enter(self, span: Span) -> list[tuple[Observer, Any]]:
        """Make `span` the current one of this context."""
        return [(observer, _guarded(observer, "entered", span)) for observer in self._observers]

    def leave(self, span: Span, tokens: list[tuple[Observer, Any]]) -> None:
        """Undo `enter`."""
        for observer, token in reversed(tokens):
            _guarded(observer, "left", span, token)

    def _tell(self, point: str, *values: Any) -> None:
        for observer in self._observers:
            _guarded(observer, point, *values)


def _guarded(observer: Observer, point: str, *values: Any) -> Any:
    try:
        return getattr(observer, point)(*values)
    except Exception as error:  # an observer's own code, a full disk: no reason to lose the run
        from lmagent.core.redaction import library_logger

        library_logger("tracing").warning("an observer failed: %s", type(error).__name__, exc_info=error)


class SpanContext:
    """The context of one span; entering gives a function that takes its outcome and hands it on.

    The body of a tool that is left by an exception stays open: its run knows the outcome (a time-out, for example).
    """

    __slots__ = ("_is_body", "_mark", "_span", "_tokens", "_watch")

    def __init__(self, watch: RunTracer, span: Span, *, is_body: bool = False) -> None:
        self._watch = watch
        self._span = span
        self._is_body = is_body
        self._tokens: list[tuple[Observer, Any]] = []
        self._mark: Token[tuple[RunTracer, Span] | None] | None = None

    def __enter__(self) -> Callable[[Any], Any]:
        self._watch.start(self._span)
        if self._is_body:
            self._mark = _current.set((self._watch, self._span))
            self._tokens = self._watch.enter(self._span)
        return self._take

    def _take(self, outcome: Any) -> Any:
        self._span.outcome = outcome
        return outcome

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._mark is not None:
            self._watch.leave(self._span, self._tokens)
            _current.reset(self._mark)
        outcome = self._span.outcome
        if self._is_body and (error is not None or not isinstance(outcome, ToolOutcome)):
            return
        self._watch.end(self._span, outcome, error)


class NoopSpan:
    """Stands for a `SpanContext` where nobody watches."""

    __slots__ = ()

    def __enter__(self) -> Callable[[Any], Any]:
        return _same

    def __exit__(self, *_: object) -> None:
        return None


def _same(outcome: Any) -> Any:
    return outcome


UNSEEN = NoopSpan()
"""The one that is needed."""


Hook = Callable[[Any], Any]


@fast_dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callables called at each point, in order. Each may be sync or async, in runs of either colour.

    A hook with an attribute `async_form` is called by that in asynchronous runs. What a hook returns takes the
    value's place; `None` leaves it as it is. A hook that raises ends the run.
    """

    before_model: Sequence[Hook] = ()
    """Gets the `ChatCall` that is about to be sent."""
    after_model: Sequence[Hook] = ()
    """Gets the `Reply`."""
    before_tool: Sequence[Hook] = ()
    """Gets the `ToolCall`; arguments that a hook changes are validated like the model's own."""
    after_tool: Sequence[Hook] = ()
    """Gets the `ToolOutcome`."""
    on_error: Sequence[Hook] = ()
    """Gets the error of a failed request, before it is raised; its return value is ignored."""
    observers: Sequence[Observer] = ()
    """Told of the spans of every run (the run, each ask, each tool call) and of the runs nested in it; see
    `lmagent.observe.trace_file` and `lmagent.observe.otel`. They watch and change nothing."""

    def __post_init__(self) -> None:
        for item in fields(self):
            given = getattr(self, item.name)
            if not isinstance(given, Sequence):
                raise TypeError(f"Hooks({item.name}=...) takes a list, not {given!r:.80}.")

    def __add__(self, other: Hooks) -> Hooks:
        points = [item.name for item in fields(self)]
        return Hooks(**{point: (*getattr(self, point), *getattr(other, point)) for point in points})
