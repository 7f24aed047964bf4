"""Other frameworks at the same work, each in an environment of its own.

`BENCH_PEERS=folder python -m tests.benchmarks` puts them behind the table; this program prints them alone. The folder
holds virtual environments named as in `peer.PEERS`; those that are not there are left out:

    python -m venv folder/pydantic-ai && folder/pydantic-ai/bin/pip install 'pydantic-ai-slim[openai]'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.peer import PEERS
from tests.benchmarks.server import serving

FLOOR = "httpx"
COLUMNS = {
    "import": "import, ms",
    "memory": "memory, MB",
    "run": "run, us",
    "run_50": "with 50 tools, us",
    "event": "event, us",
}
ROUNDS = 3
FOLDER = os.environ.get("BENCH_PEERS", "")
_QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OTEL_SDK_DISABLED": "true", "AGNO_TELEMETRY": "false"}
"""Nobody phones home."""


def interpreters() -> dict[str, str]:
    """Return the interpreter of each peer that is installed, ours and the floor first."""
    own = dict.fromkeys(("lmagent", FLOOR), sys.executable)
    found = {name: Path(FOLDER, name, "bin", "python") for name in PEERS if FOLDER}
    return own | {name: str(path) for name, path in found.items() if path.exists()}


def measured(name: str, python: str, url: str) -> dict[str, float]:
    """Return what one prints."""
    command = [python, "-m", "tests.benchmarks.peer", name, url]
    # Byte code is kept as usual: a start from sources would measure the compiler.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | _QUIET
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table() -> list[str]:
    """Measure all in turns and return the lines of the table: medians, and their ratio to the floor."""
    with serving() as url:
        rounds = [{name: measured(name, python, url) for name, python in interpreters().items()} for _ in range(ROUNDS)]
    middle = {
        name: {key: sorted(each[name][key] for each in rounds)[ROUNDS // 2] for key in rounds[0][name]}
        for name in rounds[0]
    }
    lines = [f"| | {' | '.join(COLUMNS.values())} |", f"|---|{'---|' * len(COLUMNS)}"]
    for name, found in middle.items():
        cells = [
            f"{found[key]:.4g} ({found[key] / middle[FLOOR][key]:.2g}x)" if key in found else "" for key in COLUMNS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
