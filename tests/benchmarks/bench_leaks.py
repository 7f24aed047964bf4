"""What watching native streams for leaked markup costs: microseconds a text delta without any marker.

Run `python tests/benchmarks/bench_leaks.py`. The budget is 0.3 us for deltas of usual length.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from lmagent.core.events import TextDelta
from lmagent.prompting.leaked_calls import _read_deltas, _TextReader

COUNT = 20_000


def scanner() -> Any:
    raise AssertionError("there is no marker in these texts")


def cost(text: str) -> float:
    best = 1.0
    for _ in range(7):
        reader = _TextReader(scanner)
        deltas = [(TextDelta(text),) for _ in range(COUNT)]
        start = perf_counter()
        for delta in deltas:
            _read_deltas(reader, delta)
        best = min(best, (perf_counter() - start) / COUNT)
    return best * 1e6


if __name__ == "__main__":
    for text in ("word ", " a few words more", "a line of some forty characters, as sent "):
        print(f"{len(text):>3} characters: {cost(text):.2f} us a delta")
