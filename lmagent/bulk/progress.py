"""How far a bulk run is: a bar on a terminal, plain lines elsewhere, always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Literal, TextIO, TypeAlias

from lmagent.bulk.completion import Summary
from lmagent.errors import ConfigurationError

__all__ = ["Progress", "ProgressBar", "describe", "progress_of"]

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
