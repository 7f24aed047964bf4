"""A lock between processes that ends with its holder, however that dies: a locked file beside the journal."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lmagent.errors import JournalError

__all__ = ["FileLock"]


class FileLock:
    """Held from construction to `release`.

    The lock is on a file of its own: SQLite's own locks would shut readers out, and closing a second descriptor of the
    database file would drop them.

    Raises:
        JournalError: Another process, or another run of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        for _ in range(10):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                _lock(self._descriptor)
            except OSError as error:
                os.close(self._descriptor)
                raise JournalError(
                    f"The journal is being written by another run (its lock is {str(path)!r}); wait for it or end it."
                ) from error
            if self._is_current():
                return
            os.close(self._descriptor)  # its last holder removed it meanwhile: that file is nobody's
        raise JournalError(f"The lock {str(path)!r} cannot be held: it is removed again and again.")

    def _is_current(self) -> bool:
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        return False

    def release(self) -> None:
        """Remove the file and give the lock back."""
        with suppress(OSError):  # Windows removes no open file: it stays, unlocked
            os.unlink(self._path)
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt  # Windows

        getattr(msvcrt, "locking")(descriptor, getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009  # unknown to types here
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
