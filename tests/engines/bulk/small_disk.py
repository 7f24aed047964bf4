"""A real small disk for tests: a tmpfs of a few hundred KiB, which can be filled, emptied and made read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, left: int = 0) -> None:
        """Use all space except about `left` bytes."""
        with open(self._filler, "ab", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    pass
        if left:
            os.truncate(self._filler, max(self._filler.stat().st_size - left, 0))

    def empty(self) -> None:
        """Free the space that `fill` used."""
        self._filler.unlink(missing_ok=True)

    def make_read_only(self, *, read_only: bool = True) -> None:
        """Remount the disk read-only, or writable again."""
        _mount("-o", f"remount,{'ro' if read_only else 'rw'}", str(self.path))

    def grow(self, kib: int) -> None:
        """Make the disk larger."""
        _mount("-o", f"remount,size={kib}k", str(self.path))

    def names(self) -> list[str]:
        """Return the names of its files, except the filler."""
        return sorted(path.name for path in self.path.iterdir() if path != self._filler)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def small_disk(path: Path, kib: int = 512) -> Iterator[SmallDisk]:
    """Mount a tmpfs on `path`; skip the test if that is not allowed."""
    path.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={kib}k", "lmagent-test", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here (needs Linux and root): {error}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)
