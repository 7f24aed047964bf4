"""What a bulk run hands out: one `Completion` an item and a truthful `Summary`; both as plain JSON and back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TextIO, TypeAlias

from lmagent import errors
from lmagent.agent.result import RunResult
from lmagent.core.messages import AssistantMessage, Reply, Usage
from lmagent.core.prompts import message_from_dict, message_to_dict
from lmagent.errors import (
    AuthenticationFailed,
    ConfigurationError,
    LMAgentError,
    MessageError,
    NotFound,
    ParameterError,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
)

__all__ = [
    "Completion",
    "Progress",
    "ProgressBar",
    "Summary",
    "describe",
    "error_from_dict",
    "error_to_dict",
    "is_fatal",
    "progress_of",
    "result_from_dict",
    "result_to_dict",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One item of a bulk run, answered or failed."""

    index: int
    """Where it stands in the input, from 0."""
    id: str
    """As given; else the index as text."""
    result: Reply | RunResult | None = None
    """What the model (a `Reply`) or the agent (a `RunResult`) answered; None when it failed."""
    error: Exception | None = None
    from_journal: bool = False
    """Answered by an earlier run, or by an equal item of this one: nothing was asked."""
    attempts: int = 0
    """Requests made for it, repeats included, in the run that asked."""

    @property
    def reply(self) -> str:
        """The text of the answer; empty when it failed."""
        return self.result.reply if self.result is not None else ""

    @property
    def usage(self) -> Usage | None:
        """Tokens it cost, where the provider told."""
        return self.result.usage if self.result is not None else None

    @property
    def model_id(self) -> str:
        """Who answered."""
        return self.result.model_id if self.result is not None else ""

    @property
    def output(self) -> Any:
        """The structured answer of an agent with an `output_type`; else the text."""
        return self.result.output if isinstance(self.result, RunResult) else self.reply

    def to_dict(self) -> dict[str, Any]:
        """Return it as one line of plain JSON for people and programs: id, index, reply or error, usage."""
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
    """What a run did; it grows while the run goes on."""

    items: int = 0
    """Taken from the input."""
    done: int = 0
    """Answered, by this run or an earlier one."""
    from_journal: int = 0
    """Of these and of the failed: known already, nothing was asked."""
    failed: dict[str, int] = field(default_factory=dict[str, int])
    """Class of error -> how many."""
    retried: int = 0
    """Asked again because an earlier run failed at them."""
    in_doubt: int = 0
    """Were being asked when an earlier run was killed: perhaps paid for, the answer lost. Needs `track_in_doubt`."""
    unused: int = 0
    """Answers in the journal that belong to no item of this input (known at its end): the input was changed."""
    requests: int = 0
    """Sent by this run, repeats included."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of this run."""
    journal_usage: Usage = field(default_factory=Usage)
    """Tokens of the answers that came from the journal."""
    cost: float | None = None
    """Of this run, by the prices given; None without prices."""
    journal_cost: float | None = None
    """Of the answers that came from the journal."""
    seconds: float = 0.0
    stopped: str = ""
    """Why the run ended before its input did; empty when it did not."""
    total: int | None = None
    """Items of the input, where it is known beforehand."""

    @property
    def failures(self) -> int:
        """How many failed."""
        return sum(self.failed.values())

    @property
    def finished(self) -> int:
        """Done or failed."""
        return self.done + self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        known = f"{self.from_journal} from the journal" if self.from_journal else ""
        doubt = f"{self.in_doubt} in doubt" if self.in_doubt else ""
        parts = [
            f"{self.done} done",
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


def is_fatal(error: BaseException) -> bool:
    """Whether every other item would fail with it as well."""
    if isinstance(error, MessageError | ParameterError):
        return False  # of one item
    return isinstance(error, (*_FATAL, ConfigurationError))


def result_to_dict(result: Reply | RunResult) -> dict[str, Any]:
    """Return a result as plain JSON; the raw body is not kept."""
    if isinstance(result, RunResult):
        return {"run": result.to_dict()}
    plain = ("finish_reason", "model_id", "raw_finish_reason", "response_id", "request_id", "attempts")
    return {
        "message": message_to_dict(result.message),
        "usage": asdict(result.usage) if result.usage is not None else None,
        **{name: getattr(result, name) for name in plain},
    }


def result_from_dict(data: Mapping[str, Any]) -> Reply | RunResult:
    """Read what `result_to_dict` wrote."""
    if "run" in data:
        return RunResult.from_dict(data["run"])
    message = message_from_dict(data["message"])
    assert isinstance(message, AssistantMessage)
    usage = Usage(**data["usage"]) if data["usage"] is not None else None
    plain: dict[str, Any] = {name: value for name, value in data.items() if name not in ("message", "usage")}
    return Reply(message=message, usage=usage, **plain)


def error_to_dict(error: Exception) -> dict[str, Any]:
    """Return an error as plain JSON, secrets taken out: `{"type", "message", ...facts}`."""
    if isinstance(error, LMAgentError):
        return error.to_dict()
    return {"type": type(error).__name__, "message": errors.LMAgentError(str(error)).message}


def error_from_dict(data: Mapping[str, Any]) -> Exception:
    """Read what `error_to_dict` wrote; a class that is not ours becomes an `LMAgentError` that names it."""
    facts = dict(data)
    name, message = facts.pop("type"), facts.pop("message")
    kind = getattr(errors, name, None) if name in errors.__all__ else None
    if kind is None:
        return LMAgentError(f"{name}: {message}")
    if issubclass(kind, ProviderError) or facts:
        return kind(message, **facts)
    return kind(message)


ProgressBar: TypeAlias = bool | Literal["rich", "plain"] | Callable[[Summary], None]

_PLAIN_EVERY = 10.0


class Progress:
    """Shows a run's summary while it grows.

    Args:
        stream: Where; standard error by default.
        style: `rich` for a bar, `plain` for a line every ten seconds; None: what suits the stream.
        clock: Seconds.
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
        self._told = clock()
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, summary: Summary) -> None:
        """Show how far it is."""
        if self._style == "plain":
            now = self._clock()
            if now - self._told >= _PLAIN_EVERY:
                self._told = now
                self._stream.write(describe(summary) + "\n")
                self._stream.flush()
            return
        self._bar = self._bar or self._started(summary)
        self._bar.update(self._task, completed=summary.finished, total=summary.total, facts=describe(summary))
        self._bar.refresh()

    def _started(self, summary: Summary) -> Any:
        from rich.console import Console  # 50 ms that only a terminal needs
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(bar_width=24), TextColumn("{task.fields[facts]}", markup=False))
        # No refresh thread of its own: nothing is left when the run ends.
        bar = Bar(*columns, console=Console(file=self._stream), auto_refresh=False)
        self._task = bar.add_task("", total=summary.total, facts=describe(summary))
        bar.start()
        return bar

    def close(self, summary: Summary) -> None:
        """Show the last state and give the terminal back."""
        if self._style == "plain":
            self._stream.write(describe(summary) + "\n")
            self._stream.flush()
        elif self._bar is not None:
            self(summary)
            self._bar.stop()
            self._bar = None


def progress_of(choice: ProgressBar) -> Callable[[Summary], None] | None:
    """Return what shows progress, if anything does. Raises `ConfigurationError` for an unknown word."""
    if choice is False:
        return None
    if choice is True:
        return Progress()
    if callable(choice):
        return choice
    if choice == "rich" or choice == "plain":  # so that types see the two words
        return Progress(style=choice)
    raise ConfigurationError(f"progress_bar is True, False, 'rich', 'plain' or a function, not {choice!r}.")


def describe(summary: Summary) -> str:
    """Return a run's state in one line: how many of how many, rate, cost so far, time left."""
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
