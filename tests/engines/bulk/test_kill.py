"""A bulk run that is killed repeatedly asks only items in flight again, and loses no answer."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lmagent.engines.bulk.journal import read_journal
from tests.loopback import Answer, LoopbackServer, Received, json_answer

PROMPTS = 2000
CAPACITY = 16
KILLS = 20


class Bill:
    """Counts of the requests and answers of the server."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.by_run: Counter[str] = Counter()
        """Requests by the first part of their path, so that late ones count for the process that sent them."""
        self._changed = threading.Condition()

    def answer(self, request: Received) -> Answer:
        prompt = request.json["messages"][-1]["content"]
        with self._changed:
            self.asked[prompt] += 1
            self.by_run[request.path.split("/")[1]] += 1
            self._changed.notify_all()
        usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
        message = {"role": "assistant", "content": f"re {prompt}"}
        return json_answer({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    @property
    def total(self) -> int:
        return sum(self.asked.values())

    def wait_for(self, total: int, process: subprocess.Popen[str]) -> None:
        with self._changed:
            while self.total < total and process.poll() is None:
                self._changed.wait(0.05)


def start(url: str, journal: Path) -> subprocess.Popen[str]:
    program = Path(__file__).with_name("program.py")
    command = [sys.executable, str(program), url, str(journal), str(PROMPTS), str(CAPACITY)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done_in(journal: Path) -> int:
    if not journal.exists():
        return 0
    with sqlite3.connect(journal) as db:
        (state,) = db.execute("pragma integrity_check").fetchone()
    db.close()
    assert state == "ok"
    rows = list(read_journal(journal))
    assert all(row.result is not None for row in rows)
    return len(rows)


def test_run_killed_at_twenty_moments_is_resumed_without_loss(tmp_path: Path):
    chance = random.Random(20)
    journal = tmp_path / "run.db"
    bill = Bill()
    kept = 0
    kept_by_run: dict[str, int] = {}
    with LoopbackServer(bill.answer) as server:
        for kill in range(KILLS):
            process = start(f"{server.url}/run{kill}", journal)
            if kill % 5 == 4:  # during the start, or shortly after
                time.sleep(chance.uniform(0.05, 0.2))
            else:
                bill.wait_for(bill.total + chance.randint(1, 160), process)
                time.sleep(chance.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            _, complaint = process.communicate(timeout=10)
            assert process.returncode == -signal.SIGKILL, complaint
            now = done_in(journal)
            assert now >= kept, "what was kept is lost"
            kept_by_run[f"run{kill}"] = now - kept
            kept = now
        assert 0 < kept < PROMPTS
        process = start(f"{server.url}/last", journal)
        shown, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    summary: dict[str, Any] = json.loads(shown)
    assert summary["wrong"] == []
    assert summary["done"] == PROMPTS
    assert summary["from_journal"] == kept
    assert summary["requests"] == PROMPTS - kept
    assert summary["in_doubt"] <= CAPACITY
    assert set(bill.asked) == {f"prompt {number}" for number in range(PROMPTS)}
    lost = {name: bill.by_run[name] - count for name, count in kept_by_run.items()}
    assert all(0 <= count <= CAPACITY for count in lost.values()), lost
    assert bill.by_run["last"] == PROMPTS - kept
    assert bill.total - PROMPTS == sum(lost.values())
    assert max(bill.asked.values()) <= 1 + KILLS
    assert done_in(journal) == PROMPTS
