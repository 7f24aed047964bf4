"""Read, search and write text files in one folder.

`file_tools(root="notes")` gives the model access to that folder only. Every path is opened one component at a time from
a descriptor of the root, without following symbolic links. So no path leads outside: not with `..`, not through a link,
and not if another process replaces a folder by a link during the call. Only regular files are opened. Names with a
leading dot (`.env`, `.git`) are invisible to the model unless `hidden=True`.

Nothing is expanded (`~`, `$HOME`, wildcards). This is not a sandbox: hard links and mounts in the root are followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from secrets import token_hex
from typing import TYPE_CHECKING
from unicodedata import category

from lmagent import ToolError, function

if TYPE_CHECKING:
    from lmagent import Tool

__all__ = ["FACTORIES", "file_tools"]

FACTORIES = {"file_tools": 'file_tools(root="some/folder", write=False)'}
"""How to create the tools of this module: they need a root folder."""

MAX_PATH = 4096
MAX_DEPTH = 64
MAX_PATTERN = 200
MAX_LISTED = 1_000
MAX_VISITED = 20_000
MAX_MATCHES = 100
MAX_SEARCHED_BYTES = 64 * 1024 * 1024
MAX_LINE = 200

_HAS_OPENAT = {os.open, os.stat, os.unlink, os.mkdir, os.rename} <= os.supports_dir_fd and os.scandir in os.supports_fd
_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def file_tools(
    root: str | os.PathLike[str],
    *,
    write: bool = False,
    hidden: bool = False,
    max_bytes: int = 1024 * 1024,
) -> list[Tool[..., str]]:
    """Return the tools `read_file`, `list_files`, `search_files` and, if allowed, `write_file`, bound to one folder.

    Args:
        root: An existing folder; if it is a link, it is resolved once, now.
        write: Whether the model may create and replace files.
        hidden: Whether names with a leading dot are visible.
        max_bytes: Largest file that is read or written.

    Raises:
        ValueError: `root` is empty or not a folder.
    """
    if not os.fspath(root):
        raise ValueError("file_tools needs root=: the folder that the model may see.")
    if not _HAS_OPENAT:
        raise NotImplementedError("file_tools needs openat, which only Linux, macOS and BSD have.")
    real = os.path.realpath(root)
    if not os.path.isdir(real):
        raise ValueError(f"file_tools: {os.fspath(root)!r} is not a folder.")
    folder = _Folder(real, hidden, max_bytes)
    tools: list[Tool[..., str]] = [
        function(folder.read_file, name="read_file", effects="reads"),
        function(folder.list_files, name="list_files", effects="reads"),
        function(folder.search_files, name="search_files", effects="reads"),
    ]
    if write:
        # JSON writes a character of a text as two bytes, rarely as six.
        size = max(2 * max_bytes + 64 * 1024, 1024 * 1024)
        tools.append(
            function(folder.write_file, name="write_file", effects="writes", sequential=True, max_argument_bytes=size)
        )
    return tools


class _Folder:
    """The tools of one root."""

    def __init__(self, root: str, hidden: bool, max_bytes: int) -> None:
        self._root = root
        self._hidden = hidden
        self._max_bytes = max_bytes

    def read_file(self, path: str, first_line: int = 1, line_count: int | None = None) -> str:
        """Read a text file.

        Args:
            path: Relative to the folder, such as notes/today.txt.
            first_line: Where to begin, counted from 1.
            line_count: How many lines to read; all by default.
        """
        if first_line < 1 or (line_count is not None and line_count < 1):
            raise ToolError("first_line and line_count must be at least 1.")
        parts = self._file_parts(path)
        with _as_tool_errors(path), self._open_folder(parts[:-1]) as folder:
            data = _read(folder, parts[-1], self._max_bytes)
        text = _decoded(data)
        if text is None:
            raise ToolError(f"{path!r} is not a UTF-8 text file.")
        if first_line == 1 and line_count is None:
            return text
        lines = text.split("\n")
        if first_line > len(lines):
            raise ToolError(f"{path!r} has only {len(lines)} lines.")
        return "\n".join(lines[first_line - 1 : None if line_count is None else first_line - 1 + line_count])

    def list_files(self, path: str = ".", pattern: str = "*", recursive: bool = False) -> str:
        """List files with their sizes in bytes; folders end with a slash.

        Args:
            path: A folder, relative to the top folder.
            pattern: Only names like this, such as *.txt.
            recursive: Whether to list folders inside folders too.
        """
        _check_pattern(pattern)
        lines: list[str] = []
        with _as_tool_errors(path), self._open_folder(self._parts(path)) as folder:
            for place, _, entry in self._walk(folder, recursive):
                if fnmatchcase(entry.name, pattern):
                    if len(lines) == MAX_LISTED:
                        lines.append(f"… more than {MAX_LISTED} entries: choose a folder or a pattern.")
                        break
                    lines.append(_described(place, entry))
        return "\n".join(lines) if lines else "Nothing found."

    def search_files(self, text: str, path: str = ".", pattern: str = "*") -> str:
        """Find the lines that contain a text, in all files below a folder.

        Args:
            text: What to find, word for word.
            path: A folder, relative to the top folder.
            pattern: Only in files with names like this, such as *.py.
        """
        if not text or len(text) > MAX_PATH:
            raise ToolError(f"The text to find must have 1 to {MAX_PATH} characters.")
        _check_pattern(pattern)
        lines: list[str] = []
        budget = MAX_SEARCHED_BYTES
        with _as_tool_errors(path), self._open_folder(self._parts(path)) as top:
            for place, folder, entry in self._walk(top, recursive=True):
                if not fnmatchcase(entry.name, pattern) or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    data = _read(folder, entry.name, min(self._max_bytes, budget))
                except (OSError, ToolError):
                    continue  # unreadable, too large or deleted: continue with the next file
                budget -= len(data)
                for number, line in enumerate((_decoded(data) or "").split("\n"), 1):
                    at = line.find(text)
                    if at >= 0:
                        if len(lines) == MAX_MATCHES:
                            return "\n".join([*lines, f"… more than {MAX_MATCHES} lines: search for a longer text."])
                        lines.append(
                            f"{_printable(place + entry.name)}:{number}: {line[max(0, at - 80) :][:MAX_LINE].strip()}"
                        )
                if budget <= 0:
                    lines.append("… stopped: too much to search. Choose a folder or a pattern.")
                    break
        return "\n".join(lines) if lines else "Nothing found."

    def write_file(self, path: str, content: str, overwrite: bool = False) -> str:
        """Write a text file; folders on the way are created.

        Args:
            path: Relative to the folder, such as notes/today.txt.
            content: The whole new content.
            overwrite: Whether an existing file may be replaced.
        """
        data = content.encode("utf-8", "replace")
        if len(data) > self._max_bytes:
            raise ToolError(f"The content has {len(data)} bytes; at most {self._max_bytes} can be written.")
        parts = self._file_parts(path)
        with _as_tool_errors(path), self._open_folder(parts[:-1], create=True) as folder:
            existing = _status(folder, parts[-1])
            if existing and not stat.S_ISREG(existing.st_mode):
                raise ToolError(f"{path!r} is not a regular file.")
            if existing and not overwrite:
                raise ToolError(f"{path!r} exists already; pass overwrite=true to replace it.")
            _replace(folder, parts[-1], data, existing)
        return f"Wrote {len(data)} bytes to {'/'.join(parts)}."

    def _parts(self, path: str) -> list[str]:
        """Return the components of a path; reject paths that could lead outside the root."""
        if len(path) > MAX_PATH or "\0" in path or _printable(path) != path:
            raise ToolError("The path is too long or contains control characters.")
        if path.startswith("/"):
            raise ToolError(f"{path!r} is absolute; give a path relative to the folder, such as notes/today.txt.")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ToolError(f"{path!r} contains '..': only files inside the folder can be reached.")
        if len(parts) > MAX_DEPTH:
            raise ToolError(f"The path is more than {MAX_DEPTH} folders deep.")
        if not self._hidden and any(part.startswith(".") for part in parts):
            raise ToolError(f"{path!r} is hidden; names that begin with a dot cannot be used.")
        return parts

    def _file_parts(self, path: str) -> list[str]:
        parts = self._parts(path)
        if not parts or path.endswith("/"):
            raise ToolError(f"{path!r} is not a file name.")
        return parts

    @contextmanager
    def _open_folder(self, parts: list[str], create: bool = False) -> Generator[int]:
        """Open the folder `parts` below the root and yield its descriptor; no component may be a link."""
        folder = os.open(self._root, os.O_RDONLY | _DIRECTORY)
        try:
            for part in parts:
                if create and _status(folder, part) is None:
                    os.mkdir(part, dir_fd=folder)
                inner = os.open(part, os.O_RDONLY | _DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _walk(self, folder: int, recursive: bool) -> Iterator[tuple[str, int, os.DirEntry[str]]]:
        """Yield (path of the folder, its descriptor, entry) in order of names, never following links or mount loops."""
        left = MAX_VISITED

        def visit(folder: int, place: str, depth: int) -> Iterator[tuple[str, int, os.DirEntry[str]]]:
            nonlocal left
            with os.scandir(folder) as entries:
                found: list[os.DirEntry[str]] = []
                for entry in entries:
                    left -= 1
                    if left < 0:
                        raise ToolError(f"There are more than {MAX_VISITED} files; choose a folder inside.")
                    if self._hidden or not entry.name.startswith("."):
                        found.append(entry)
            for entry in sorted(found, key=lambda entry: entry.name):
                yield place, folder, entry
                if recursive and depth < MAX_DEPTH and entry.is_dir(follow_symlinks=False):
                    try:
                        inner = os.open(entry.name, os.O_RDONLY | _DIRECTORY, dir_fd=folder)
                    except OSError:
                        continue  # deleted, forbidden or replaced by a link since it was listed
                    try:
                        yield from visit(inner, f"{place}{entry.name}/", depth + 1)
                    finally:
                        os.close(inner)

        return visit(folder, "", 0)


@contextmanager
def _as_tool_errors(path: str) -> Generator[None]:
    """Convert errors of the system to errors for the model, which name its path and never the root."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid name"
        hint = " (links are not followed)" if "symbolic" in reason or isinstance(error, NotADirectoryError) else ""
        raise ToolError(f"{path[:200]!r}: {reason}{hint}.") from error


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _read(folder: int, name: str, limit: int) -> bytes:
    # Checked before it is opened, because opening a device can have effects; and after, because it may be another file.
    before = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(before.st_mode):
        raise ToolError(f"{name!r} is not a regular file.")
    descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=folder)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ToolError(f"{name!r} is not a regular file.")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ToolError(f"{name!r} is larger than the {limit} bytes that can be read.")
    return data


def _decoded(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _replace(folder: int, name: str, data: bytes, existing: os.stat_result | None) -> None:
    """Write a temporary file and rename it: readers see the old file or the new one, and no link is followed."""
    temporary = f".lmagent-{token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
    descriptor = os.open(temporary, flags, 0o666, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            if existing:
                os.fchmod(descriptor, stat.S_IMODE(existing.st_mode) & 0o777)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN or "/" in pattern:
        raise ToolError("A pattern, such as *.txt, matches names: it has no slash and at most 200 characters.")


def _described(place: str, entry: os.DirEntry[str]) -> str:
    name = _printable(place + entry.name)
    if entry.is_symlink():
        return f"{name} (link, not followed)"
    if entry.is_dir(follow_symlinks=False):
        return f"{name}/"
    if not entry.is_file(follow_symlinks=False):
        return f"{name} (not a regular file)"
    try:
        return f"{name} {entry.stat(follow_symlinks=False).st_size}"
    except OSError:
        return f"{name} (deleted)"


def _printable(name: str) -> str:
    """Escape control characters and invalid bytes, so that a name cannot imitate a line of the result."""
    # Wide spaces are common in file names, but `isprintable` rejects them.
    return "".join(c if c.isprintable() or category(c) == "Zs" else ascii(c)[1:-1] for c in name)
