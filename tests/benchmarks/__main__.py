"""All benchmarks of the library, one table: `python -m tests.benchmarks`. About a minute on a quiet machine.

S7 (bulk) and S8 (functions) have tables of their own: `bench_bulk`, `bench_function`. Other frameworks join the run
when `BENCH_PEERS` names a folder with their environments (`bench_peers`); that takes some minutes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from tests.benchmarks import (
    bench_concurrency,
    bench_long,
    bench_peers,
    bench_proxy,
    bench_start,
    bench_stream,
    bench_turn,
)
from tests.benchmarks.measure import Row, show

PARTS: tuple[Callable[[], list[Row]], ...] = (
    bench_start.rows,
    bench_turn.rows,
    bench_stream.rows,
    bench_concurrency.rows,
    bench_proxy.rows,
    bench_long.rows,
)


def main() -> None:
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load average {os.getloadavg()[0]:.1f}; CPU of the client, medians; floor: httpx and json by hand\n")
    show([row for part in PARTS for row in part()])
    if bench_peers.FOLDER:
        print("\n" + "\n".join(bench_peers.table()))


if __name__ == "__main__":
    main()
