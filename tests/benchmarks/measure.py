"""Measuring: CPU of this process (all its threads), medians over interleaved rounds, and the rows of the table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Literal


@dataclass(slots=True)
class Row:
    """One line of the table."""

    scenario: str
    unit: str
    ours: float
    floor: float | None = None
    must: float | None = None
    goal: float | None = None
    by: Literal["ratio", "ours"] = "ratio"
    """What `must` and `goal` speak of."""
    spread: float = 0.0
    """Of our rounds: half the distance of the quartiles over the median."""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.floor if self.floor else None

    @property
    def met(self) -> str:
        value = self.ratio if self.by == "ratio" else self.ours
        if value is None or self.must is None:
            return ""
        return "goal" if self.goal is not None and value <= self.goal else "must" if value <= self.must else "NO"


def spread(times: Sequence[float]) -> float:
    if len(times) < 4:
        return (max(times) - min(times)) / 2 / statistics.median(times)
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / middle


def interleaved(works: Sequence[Callable[[], object]], *, rounds: int, inner: int) -> list[list[float]]:
    """Return for each work its rounds, in microseconds of CPU a call; the works take turns."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, into in zip(works, times, strict=True):
            begun = time.process_time()
            for _ in range(inner):
                work()
            into.append((time.process_time() - begun) / inner * 1e6)
    return times


async def async_interleaved(
    works: Sequence[Callable[[], Awaitable[object]]], *, rounds: int, inner: int
) -> list[list[float]]:
    """`interleaved`, asynchronous."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        await work()
    for _ in range(rounds):
        for work, into in zip(works, times, strict=True):
            begun = time.process_time()
            for _ in range(inner):
                await work()
            into.append((time.process_time() - begun) / inner * 1e6)
    return times


def children(codes: Sequence[tuple[str, ...]], *, rounds: int, warm: bool = True) -> list[list[dict[str, Any]]]:
    """Run several programs in turns, each time in a fresh interpreter; return the JSON objects they print.

    Byte code is kept in a folder of its own and written in a first round that is not counted: installed packages
    have theirs, and a start from sources would measure the compiler. Without `warm` there is no such round.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in codes]
    with TemporaryDirectory() as folder:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = folder
        for number in range(not warm, rounds + 1):
            for (code, *arguments), into in zip(codes, found, strict=True):
                command = [sys.executable, "-c", code, *arguments]
                done = subprocess.run(command, capture_output=True, text=True, env=env)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                if number:
                    into.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def median_of(items: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(item[name] for item in items)


def show(rows: Sequence[Row]) -> None:
    """Print the table, in Markdown."""
    print("| scenario | unit | ours | ± | floor | ratio | must | goal | met |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        sign = "x" if row.by == "ratio" else ""
        limits = [f"<= {value:g}{sign}" if value is not None else "" for value in (row.must, row.goal)]
        floor = f"{row.floor:.4g}" if row.floor is not None else ""
        ratio = f"{row.ratio:.2f}x" if row.ratio is not None else ""
        cells = [row.scenario, row.unit, f"{row.ours:.4g}", f"{row.spread:.0%}" if row.spread else "", floor, ratio]
        print(f"| {' | '.join([*cells, *limits, row.met])} |", flush=True)
