"""Run the command line in a subprocess, with pipes or with a pseudo-terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_STYLE = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?2004[hl]\r?")
"""Color codes, and the codes of line editing that switch bracketed paste on and off."""

CANARY = "sk-canary-0123456789abcdefWXYZ"


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment with only PATH and UTF-8 settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "TERM": "xterm", "COLUMNS": "100", **(more or {})}


def over(url: str) -> dict[str, str]:
    """Return the variables that direct `openai/...` to the server of a test."""
    return {"OPENAI_BASE_URL": url + "/v1", "OPENAI_API_KEY": CANARY, "LMAGENT_MODEL": "openai/m"}


def lmagent(
    *arguments: str, given: str | bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `lmagent` with pipes, and check that its output never has the test key."""
    done = subprocess.run(
        [sys.executable, "-m", "lmagent", *arguments],
        input=given if isinstance(given, bytes) else given.encode(),
        capture_output=True,
        cwd=cwd or ROOT,
        env=environment(env),
        timeout=60,
    )
    out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    assert CANARY not in out + err
    assert "Traceback" not in out + err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@contextmanager
def started(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start `lmagent` with pipes and empty standard input; it is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lmagent", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(env),
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


class Terminal:
    """`lmagent` in a pseudo-terminal."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        import pty

        self._main, other = pty.openpty()
        self.process: subprocess.Popen[Any] = subprocess.Popen(
            [sys.executable, "-m", "lmagent", *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=ROOT,
            env=environment(env),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(other)
        self.shown = ""
        self._raw = b""

    def type(self, text: str) -> None:
        """Type keys."""
        os.write(self._main, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C; the terminal sends the signal."""
        self.type("\x03")

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """Read until `text` is shown, and return the output since the last call."""
        until = time.monotonic() + seconds
        while text not in self.shown:
            left = until - time.monotonic()
            assert left > 0, f"{text!r} was not shown, but {self.shown!r}"
            if not self._read(left):
                raise AssertionError(f"{text!r} was not shown before the end, but {self.shown!r}")
        at = self.shown.index(text) + len(text)
        seen, self.shown = self.shown[:at], self.shown[at:]
        return seen

    def finish(self, seconds: float = 20) -> int:
        """Read to the end and return the exit code."""
        until = time.monotonic() + seconds
        while self._read(max(until - time.monotonic(), 0)):
            pass
        return self.process.wait(max(until - time.monotonic(), 1))

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._main], [], [], seconds)
        if not ready:
            return False
        try:
            piece = os.read(self._main, 65536)
        except OSError:  # Linux reports the end of a terminal this way
            return False
        self._raw += piece
        text = self._raw.decode("utf-8", "ignore")
        self._raw = b"" if text.encode() == self._raw else self._raw[len(text.encode()) :]
        self.shown += _STYLE.sub("", text.replace("\r\n", "\n"))
        return bool(piece)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._main)


def _take_terminal() -> None:
    """Make the pseudo-terminal the controlling one, so that Ctrl-C reaches the process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
