"""The results of a bulk run: `Completion`, `Summary`, their JSON forms, and the progress display."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TextIO, TypeAlias

from lmagent import errors
from lmagent.agent.result import RunResult
from lmagent.core.messages import AssistantMessage, Reply, Usage, message_from_dict, message_to_dict
from lmagent.engines.bulk.work import Row
from lmagent.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InvalidResponse,
    LMAgentError,
    MessageError,
    NotFound,
    ParameterError,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    StreamInterrupted,
)

__all__ = [
    "Completion",
    "Progress",
    "ProgressBar",
    "Summary",
    "check_finish",
    "describe",
    "error_from_dict",
    "error_to_dict",
    "is_fatal",
    "progress_of",
    "result_from_dict",
    "result_to_dict",
    "row_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The result of one item of a bulk run, answered or failed."""

    index: int
    """Position in the input, from 0."""
    id: str
    """Id of the item as given, else its index as text."""
    result: Reply | RunResult | None = None
    """The `Reply` of the model or the `RunResult` of the agent. Of a failed item: the answer that the provider ended
    with an error, or the agent's run up to the error; None if there is none, or if it comes from the journal."""
    error: Exception | None = None
    from_journal: bool = False
    """True if the answer comes from an earlier run, or from an identical item of this run; no request was sent."""
    attempts: int = 0
    """Requests sent for the item, retries included, in the run that asked it."""

    @property
    def reply(self) -> str:
        """Text of the answer; empty if the item failed."""
        return self.result.reply if self.result is not None and self.error is None else ""

    @property
    def usage(self) -> Usage | None:
        """Tokens used, if the provider reported them."""
        return self.result.usage if self.result is not None else None

    @property
    def model_id(self) -> str:
        """Id of the model that answered."""
        return self.result.model_id if self.result is not None else ""

    @property
    def output(self) -> Any:
        """Structured output of an agent with an `output_type`, else the text; an empty text if the item failed."""
        return self.result.output if isinstance(self.result, RunResult) and self.error is None else self.reply

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values: id, index, reply or error, usage."""
        line: dict[str, Any] = {"id": self.id, "index": self.index}
        if self.error is not None:
            return {**line, "error": error_to_dict(self.error)}
        assert self.result is not None
        line |= {"reply": self.reply, "finish_reason": self.result.finish_reason, "model_id": self.model_id}
        if self.usage is not None:
            line["usage"] = asdict(self.usage)
        if self.result.tool_calls:
            holder = AssistantMessage(tool_calls=self.result.tool_calls)
            line["tool_calls"] = message_to_dict(holder)["tool_calls"]
        return line


@dataclass(slots=True, kw_only=True)
class Summary:
    """Counts of a bulk run, updated while it runs."""

    items: int = 0
    """Items taken from the input."""
    done: int = 0
    """Items answered, by this run or an earlier one."""
    from_journal: int = 0
    """Items answered from the journal, or by an identical item; included in `done` and `failed`."""
    failed: dict[str, int] = field(default_factory=dict[str, int])
    """Failed items by error class name."""
    cut: dict[str, int] = field(default_factory=dict[str, int])
    """Answers that may be incomplete, by finish reason (`length`, `content_filter`, `refusal`); included in `done`."""
    retried: int = 0
    """Items asked again because they failed in an earlier run."""
    in_doubt: int = 0
    """Items in flight when an earlier run was killed; they may have been paid for. Needs `track_in_doubt`."""
    unused: int = 0
    """Answers in the journal without an item in this input (set at the end): the input has changed."""
    requests: int = 0
    """Requests sent by this run, retries included."""
    usage: Usage = field(default_factory=Usage)
    """Tokens used by this run."""
    journal_usage: Usage = field(default_factory=Usage)
    """Tokens of the answers from the journal."""
    cost: float | None = None
    """Cost of this run by the given prices; None without prices."""
    journal_cost: float | None = None
    """Cost of the answers from the journal."""
    seconds: float = 0.0
    stopped: str = ""
    """Reason why the run stopped early; empty if it did not."""
    total: int | None = None
    """Length of the input, if known."""

    @property
    def failures(self) -> int:
        """Number of failed items."""
        return sum(self.failed.values())

    @property
    def finished(self) -> int:
        """Number of items done or failed."""
        return self.done + self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        known = f"{self.from_journal} from the journal" if self.from_journal else ""
        doubt = f"{self.in_doubt} in doubt" if self.in_doubt else ""
        parts = [
            f"{self.done} done",
            *(f"{count} of them ended by {reason}" for reason, count in sorted(self.cut.items())),
            known,
            *(f"{count} failed with {name}" for name, count in sorted(self.failed.items())),
            f"{self.retried} asked again" if self.retried else "",
            doubt,
            f"{self.unused} journaled answers unused" if self.unused else "",
            f"{self.requests} requests",
            f"{self.usage.total_tokens} tokens",
            f"cost {self.cost:.4f}" if self.cost is not None else "",
            f"{self.seconds:.1f} s",
            f"stopped: {self.stopped}" if self.stopped else "",
        ]
        return ", ".join(part for part in parts if part)


_FATAL = (AuthenticationFailed, PermissionDenied, QuotaExceeded, NotFound)
_FATAL_STATUS = (401, 402)
"""Statuses that concern the key, whatever the body calls the error: wrong credentials, and payment required."""


def is_fatal(error: BaseException) -> bool:
    """Whether every other item would fail with the same error."""
    if isinstance(error, MessageError | ParameterError):
        return False  # concern one item only
    if isinstance(error, ProviderError) and error.status in _FATAL_STATUS:
        return True
    return isinstance(error, (*_FATAL, ConfigurationError))


def check_finish(result: Reply | RunResult) -> None:
    """Raise if the provider ended the answer with an error; its text and its calls are not to be trusted.

    Raises:
        InvalidResponse: The finish reason is `error`. It is retryable.
    """
    if result.finish_reason != "error":
        return
    run, last = (result, result.last) if isinstance(result, RunResult) else (None, result)
    raise InvalidResponse(
        f"The provider ended the answer with an error after {len(result.reply)} characters; ask again.",
        code=last.raw_finish_reason if last is not None else None,
        model=result.model_id or None,
        request_id=last.request_id if last is not None else None,
        attempts=run.requests if run is not None else last.attempts if last is not None else 1,
        retryable=True,
    )


def result_to_dict(result: Reply | RunResult) -> dict[str, Any]:
    """Return a result as plain JSON values, without the raw response body."""
    if isinstance(result, RunResult):
        return {"run": result.to_dict()}
    plain = ("finish_reason", "model_id", "raw_finish_reason", "response_id", "request_id", "attempts")
    return {
        "message": message_to_dict(result.message),
        "usage": asdict(result.usage) if result.usage is not None else None,
        **{name: getattr(result, name) for name in plain},
    }


def result_from_dict(data: Mapping[str, Any]) -> Reply | RunResult:
    """Read the form of `result_to_dict`."""
    if "run" in data:
        return RunResult.from_dict(data["run"])
    message = message_from_dict(data["message"])
    assert isinstance(message, AssistantMessage)
    usage = Usage(**data["usage"]) if data["usage"] is not None else None
    plain: dict[str, Any] = {name: value for name, value in data.items() if name not in ("message", "usage")}
    return Reply(message=message, usage=usage, **plain)


def error_to_dict(error: Exception) -> dict[str, Any]:
    """Return an error as plain JSON values without secrets: `{"type", "message", ...facts}`."""
    if isinstance(error, LMAgentError):
        return error.to_dict()
    return {"type": type(error).__name__, "message": errors.LMAgentError(str(error)).message}


def error_from_dict(data: Mapping[str, Any]) -> Exception:
    """Read the form of `error_to_dict`. A class from outside lmagent becomes an `LMAgentError` that names it."""
    facts = dict(data)
    name, message = facts.pop("type"), facts.pop("message")
    kind = getattr(errors, name, None) if name in errors.__all__ else None
    if kind is None:
        return LMAgentError(f"{name}: {message}")
    if issubclass(kind, ProviderError) or facts:
        return kind(message, **facts)
    return kind(message)


def row_of(completion: Completion, key: str, started: float) -> Row:
    """Return the journal row of a completion."""
    error = completion.error
    return Row(
        key=key,
        index=completion.index,
        id=completion.id,
        result=result_to_dict(completion.result) if completion.result is not None and error is None else None,
        error=error_to_dict(error) if error is not None else None,
        retryable=error is not None and _may_succeed_later(error),
        attempts=completion.attempts,
        started=started,
        finished=time.time(),
    )


def _may_succeed_later(error: Exception) -> bool:
    """Whether the same item may succeed later: the cause may be gone, or a bug in a tool or hook fixed.

    An answer that was unreadable or broke off is not retried within a run, but another one may be whole.
    """
    if is_fatal(error) or not isinstance(error, LMAgentError) or isinstance(error, InvalidResponse | StreamInterrupted):
        return True
    return isinstance(error, ProviderError) and error.retryable


ProgressBar: TypeAlias = bool | Literal["rich", "plain"] | Callable[[Summary], None]

_PLAIN_EVERY = 10.0


class Progress:
    """Display the progress of a bulk run.

    Args:
        stream: Output stream; default: standard error.
        style: `rich` for a bar, `plain` for a line every ten seconds. None: a bar if the stream is a terminal.
        clock: Returns seconds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        style: Literal["rich", "plain"] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._style = style or ("rich" if self._stream.isatty() else "plain")
        self._clock = clock
        self._last_line = clock()
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, summary: Summary) -> None:
        """Display the current state."""
        if self._style == "plain":
            now = self._clock()
            if now - self._last_line >= _PLAIN_EVERY:
                self._last_line = now
                self._stream.write(describe(summary) + "\n")
                self._stream.flush()
            return
        self._bar = self._bar or self._started(summary)
        self._bar.update(self._task, completed=summary.finished, total=summary.total, facts=describe(summary))
        self._bar.refresh()

    def _started(self, summary: Summary) -> Any:
        from rich.console import Console  # takes 50 ms, needed for terminals only
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(bar_width=24), TextColumn("{task.fields[facts]}", markup=False))
        # Without rich's refresh thread, no thread outlives the run.
        bar = Bar(*columns, console=Console(file=self._stream), auto_refresh=False)
        self._task = bar.add_task("", total=summary.total, facts=describe(summary))
        bar.start()
        return bar

    def close(self, summary: Summary) -> None:
        """Display the final state and release the terminal."""
        if self._style == "plain":
            self._stream.write(describe(summary) + "\n")
            self._stream.flush()
        elif self._bar is not None:
            self(summary)
            self._bar.stop()
            self._bar = None


def progress_of(choice: ProgressBar) -> Callable[[Summary], None] | None:
    """Return the function that displays progress, or None. Raises `ConfigurationError` for an unknown choice."""
    if choice is False:
        return None
    if choice is True:
        return Progress()
    if callable(choice):
        return choice
    if choice == "rich" or choice == "plain":  # two comparisons, so that pyright narrows the type
        return Progress(style=choice)
    raise ConfigurationError(f"progress_bar must be True, False, 'rich', 'plain' or a function, not {choice!r}.")


def describe(summary: Summary) -> str:
    """Return the state of a run in one line: items finished and in total, rate, cost so far, time left."""
    asked = max(summary.finished - summary.from_journal, 0)
    rate = asked / summary.seconds if summary.seconds > 0 else 0.0
    parts = [f"{summary.finished}" + (f"/{summary.total}" if summary.total is not None else "")]
    if summary.failures:
        parts.append(f"{summary.failures} failed")
    if summary.from_journal:
        parts.append(f"{summary.from_journal} from the journal")
    parts.append(f"{rate:.1f}/s")
    parts.append(f"cost {summary.cost:.4f}" if summary.cost is not None else f"{summary.usage.total_tokens} tokens")
    if summary.total is not None and rate > 0 and summary.total > summary.finished:
        parts.append(f"{_clock_of((summary.total - summary.finished) / rate)} left")
    return ", ".join(parts)


def _clock_of(seconds: float) -> str:
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
