"""The local journal: a SQLite file that stores every finished item durably before it is yielded.

Theory of operation. The file is in WAL mode with `synchronous=FULL`: a commit that returned survives a killed process
and a power cut, and a reader sees the last commit without waiting for the writer. Opening the file again gives the
state of the last commit.

Writing. One thread owns the writing connection. `put` and `begin` add their statements to a list and return a future,
which is resolved in the event loop after the commit. Commits are grouped without a delay: while one group is being
written, the next one collects. So a slow run commits each answer at once, and a fast one up to `_GROUP` together. After
the first failed write nothing more is written, so a journal has no gaps.

Reading. A second connection answers `find` and `is_in_doubt`. It also counts how often each item's hash occurred in
this run, in a temporary table on disk, so that memory does not grow with the input.

Tables. `items` has one row per finished item, done or failed. `begun` has the keys of items that were being asked: a
row that is left over at the next start is an item in doubt. `lmagent_bulk` has the format version and the fingerprint
of the model, parameters and tools. One run at a time may write: a lock file beside the database ensures it. If the
file cannot be opened, a run that created it removes it again.

Over 400 lines because of these notes; locking, writing and reading share the tables and one error translation.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, TextIO, TypeAlias, cast

from lmagent.engines.bulk.work import Row
from lmagent.errors import JournalError

__all__ = ["FileLock", "SQLiteJournal", "check_format", "discard_journal", "export_journal", "read_journal"]

_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""Error numbers of a lock that another process holds; others mean that the file system cannot lock."""


class FileLock:
    """An exclusive lock between processes, held from construction to `release`.

    It locks a separate file: a lock on the database file would block SQLite's readers, and closing any other descriptor
    of that file would drop it.

    Args:
        path: Path of the lock file; created, and removed at the end.
        what: What is locked, for the error.

    Raises:
        JournalError: Another process, or another run in this process, holds the lock.
        OSError: The file cannot be created, or the file system cannot lock.
    """

    def __init__(self, path: Path, what: str = "The journal") -> None:
        self._path = path
        for _ in range(10):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                _lock(self._descriptor)
            except OSError as error:
                os.close(self._descriptor)
                if error.errno not in _HELD:
                    raise
                raise JournalError(
                    f"{what} is in use by another run (lock file {str(path)!r}); wait for that run or stop it."
                ) from error
            if self._is_current():
                return
            os.close(self._descriptor)  # the previous holder removed this file meanwhile: try again
        raise JournalError(f"The lock file {str(path)!r} cannot be locked: it is removed again and again.")

    def _is_current(self) -> bool:
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        return False

    def release(self) -> None:
        """Remove the file and release the lock."""
        with suppress(OSError):  # Windows cannot remove an open file: it stays, unlocked
            os.unlink(self._path)
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt  # Windows

        getattr(msvcrt, "locking")(descriptor, getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009  # not typed on POSIX
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


FORMAT = 1
_GROUP = 256

_TABLES = """
create table if not exists lmagent_bulk (name text primary key, value text not null) without rowid;
create table if not exists items (
    key text primary key, status text not null, position integer not null, id text not null, body text not null,
    retryable integer not null, attempts integer not null, error_type text, usage text,
    started real not null, finished real not null
);
create table if not exists begun (key text primary key, at real not null) without rowid;
"""
_PUT = "insert or replace into items values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

Change: TypeAlias = "tuple[str, tuple[Any, ...]]"


class SQLiteJournal:
    """The journal of a bulk run in a SQLite file. One run at a time may use it.

    Args:
        path: Path of the file, created if missing. None: a temporary database for this run, used to share the answers
            of identical items.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self._path = Path(path) if path is not None else None
        self._lock: FileLock | None = None
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writer: _Writer | None = None
        self._tracks = False
        """Whether `begun` may have rows."""
        self.known = 0
        """Number of items stored by earlier runs."""
        self.in_doubt = 0
        """Number of items that were being asked when an earlier run was killed."""

    def open(self, fingerprint: Mapping[str, Any], *, accept_change: bool = False) -> None:
        """Open the file for a run; call it in the run's event loop.

        Raises:
            JournalError: The file is locked, belongs to another program, format or model, or the disk is full.
        """
        if self._db is not None:
            raise JournalError(f"The journal {self._name} is already open for another run.")
        is_new = False
        try:
            with _as_journal_error(self._path):
                if self._path is not None:
                    self._lock = FileLock(_lock_file(self._path))
                    is_new = not self._path.exists()
                self._open(fingerprint, accept_change)
        except BaseException:
            self._close_files()
            if is_new and self._path is not None:
                _remove(self._path)
            self._unlock()
            raise

    @property
    def _name(self) -> str:
        return _shown(self._path)

    def _open(self, fingerprint: Mapping[str, Any], accept_change: bool) -> None:
        # "" makes SQLite use a temporary database.
        self._db = sqlite3.connect(self._path or "", isolation_level=None, check_same_thread=False, timeout=10.0)
        if self._path is None:
            self._db.execute("pragma synchronous = off")
            self._db.executescript(_TABLES)
            self._reader = self._db
        else:
            check_format(self._db, self._path)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.executescript(f"begin immediate; {_TABLES} commit;")
            self._head(fingerprint, accept_change)
            self._reader = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10.0)
            self._writer = _Writer(self._db, self._path)
        # How often each hash occurred in this run. On disk: memory must not grow with the input.
        self._reader.execute("pragma temp_store = file")
        self._reader.execute("create temp table seen (base text primary key, times integer not null) without rowid")
        self.known = self._reader.execute("select count(*) from items").fetchone()[0]
        doubtful = "select count(*) from begun where key not in (select key from items where status = 'done')"
        self.in_doubt = self._reader.execute(doubtful).fetchone()[0]
        self._tracks = self._reader.execute("select 1 from begun limit 1").fetchone() is not None

    def _head(self, fingerprint: Mapping[str, Any], accept_change: bool) -> None:
        from lmagent import __version__

        assert self._db is not None
        head: dict[str, str] = dict(self._db.execute("select name, value from lmagent_bulk"))
        new = json.dumps(fingerprint, sort_keys=True, default=repr)
        differs = "fingerprint" in head and head["fingerprint"] != new
        if differs and not accept_change and _is_worth_keeping(self._db):
            old = json.loads(head["fingerprint"])
            names = sorted(name for name in {*old, *fingerprint} if old.get(name) != json.loads(new).get(name))
            shown = "; ".join(
                f"{name}: {old.get(name)!r:.80} in the journal, {fingerprint.get(name)!r:.80} now" for name in names
            )
            raise JournalError(
                f"The journal {self._name} was written with other settings ({shown}). Use the same settings, another "
                "journal, or on_change='accept' to keep its answers and ask the items that do not match."
            )
        values = {"version": str(FORMAT), "library": __version__, "fingerprint": new}
        values["created"] = head.get("created", f"{time.time():.3f}")
        self._db.execute("begin immediate")
        self._db.executemany("insert or replace into lmagent_bulk values (?, ?)", list(values.items()))
        self._db.execute("commit")  # fails on a full or read-only disk, before any request is paid for

    def ordinal(self, base: str) -> int:
        """Count an item with the hash `base`; return how many identical items came before it in this run."""
        assert self._reader is not None
        with _as_journal_error(self._path):
            (times,) = self._reader.execute(
                "insert into seen values (?, 1) on conflict (base) do update set times = times + 1 returning times",
                (base,),
            ).fetchone()
        return times - 1

    def find(self, key: str) -> Row | None:
        """Return the stored item of `key`, or None."""
        assert self._reader is not None
        with _as_journal_error(self._path):
            found = self._reader.execute(f"{_ROWS} where key = ?", (key,)).fetchone()
            return _row(found) if found else None

    def is_in_doubt(self, key: str) -> bool:
        """Whether `key` was being asked when an earlier run was killed."""
        assert self._reader is not None
        with _as_journal_error(self._path):
            return self._reader.execute("select 1 from begun where key = ?", (key,)).fetchone() is not None

    def begin(self, key: str) -> asyncio.Future[None]:
        """Record that `key` is about to be asked."""
        self._tracks = True
        return self._change([("insert or replace into begun values (?, ?)", (key, time.time()))])

    def put(self, row: Row) -> asyncio.Future[None]:
        """Store a finished item; the future is done when it is on disk."""
        body = row.error if row.result is None else row.result
        usage: Any = _usage_of(row.result) if row.result is not None else None
        values = (
            row.key,
            "failed" if row.result is None else "done",
            row.index,
            row.id,
            json.dumps(body),
            row.retryable,
            row.attempts,
            row.error["type"] if row.error is not None else None,
            json.dumps(usage) if usage else None,
            row.started,
            row.finished,
        )
        changes: list[Change] = [(_PUT, values)]
        if self._tracks:
            changes.append(("delete from begun where key = ?", (row.key,)))
        return self._change(changes)

    def _change(self, changes: list[Change]) -> asyncio.Future[None]:
        if self._writer is not None:
            return self._writer.add(changes)
        assert self._db is not None
        with _as_journal_error(self._path):
            for statement, values in changes:
                self._db.execute(statement, values)
        return _done()

    def close(self) -> None:
        """Commit pending items, close the file and release the lock."""
        self._close_files()
        self._unlock()

    def _close_files(self) -> None:
        if self._writer is not None:
            self._writer.close()
        for db in (self._reader, self._db):
            if db is not None:
                with suppress(sqlite3.Error):
                    db.close()
        self._writer = self._db = self._reader = None

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class _Writer:
    """A thread that commits changes in groups."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: list[tuple[list[Change], asyncio.Future[None]]] = []
        self._closed = False
        self._failure: JournalError | None = None
        self._thread = threading.Thread(target=self._work, name="lmagent-journal", daemon=True)
        self._thread.start()

    def add(self, changes: list[Change]) -> asyncio.Future[None]:
        future = self._loop.create_future()
        with self._changed:
            self._waiting.append((changes, future))
            self._changed.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            if not group:
                return
            if self._failure is None:
                try:
                    with _as_journal_error(self._path):
                        self._commit(group)
                except JournalError as error:  # stop writing: a journal must have no gaps
                    self._failure = error
            futures = [future for _, future in group]
            with suppress(RuntimeError):  # the loop is closed: the futures are not awaited any more
                self._loop.call_soon_threadsafe(_resolve, futures, self._failure)

    def _commit(self, group: list[tuple[list[Change], asyncio.Future[None]]]) -> None:
        self._db.execute("begin immediate")
        try:
            for changes, _ in group:
                for statement, values in changes:
                    self._db.execute(statement, values)
            self._db.execute("commit")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("rollback")
            raise

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()


def _resolve(futures: list[asyncio.Future[None]], failure: JournalError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
            future.exception()  # mark as retrieved: a cancelled waiter never reads it


def _usage_of(result: Mapping[str, Any]) -> Any:
    inner: Mapping[str, Any] = result.get("run") or result
    return inner.get("usage")


def _done() -> asyncio.Future[None]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


_ROWS = "select key, status, position, id, body, retryable, attempts, started, finished from items"


def _row(found: tuple[Any, ...]) -> Row:
    key, status, position, name, text, retryable, attempts, started, finished = found
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"the row {key!r} is not a JSON object")
    body = cast("dict[str, Any]", value)
    return Row(
        key=key,
        index=position,
        id=name,
        result=body if status == "done" else None,
        error=body if status == "failed" else None,
        retryable=bool(retryable),
        attempts=attempts,
        started=started,
        finished=finished,
    )


def check_format(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file is a journal; False for an empty database.

    Raises:
        JournalError: The file belongs to another program, or has another format version.
    """
    tables = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
    if not tables:
        return False
    if "lmagent_bulk" not in tables:
        raise JournalError(f"{str(path)!r} is a database of another program; use another file.")
    found = db.execute("select value from lmagent_bulk where name = 'version'").fetchone()
    if found is not None and found[0] != str(FORMAT):
        raise JournalError(
            f"{str(path)!r} has journal format {found[0]}, this version writes format {FORMAT}; use another file."
        )
    return True


def read_journal(path: str | PathLike[str]) -> Iterator[Row]:
    """Yield the items of a journal in the order of the input, also while a run is writing it.

    Raises:
        JournalError: The file does not exist or is not a journal.
    """
    file = Path(path)
    if not file.exists():
        raise JournalError(f"There is no journal {str(file)!r}.")
    with _as_journal_error(file), closing(sqlite3.connect(file, isolation_level=None, timeout=10.0)) as db:
        if check_format(db, file):
            for found in db.execute(f"{_ROWS} order by position, key"):
                yield _row(found)


def export_journal(path: str | PathLike[str], out: TextIO) -> int:
    """Write a journal as JSON lines: key, status, index, id, result or error, attempts, times. Return their number."""
    count = 0
    for row in read_journal(path):
        line = {
            "key": row.key,
            "status": "failed" if row.result is None else "done",
            "index": row.index,
            "id": row.id,
            **({"error": row.error} if row.result is None else {"result": row.result}),
            "attempts": row.attempts,
            "started": row.started,
            "finished": row.finished,
        }
        out.write(json.dumps(line) + "\n")
        count += 1
    return count


def discard_journal(path: str | PathLike[str]) -> bool:
    """Remove a journal without an item worth keeping: all of its items, if any, failed and would be asked again.

    Returns:
        False if the journal was kept.

    Raises:
        JournalError: The file is in use, or is not a journal.
    """
    file = Path(path)
    if not file.exists():
        return True
    with _as_journal_error(file):
        lock = FileLock(_lock_file(file))
        try:
            with closing(sqlite3.connect(file, isolation_level=None, timeout=10.0)) as db:
                if check_format(db, file) and _is_worth_keeping(db):
                    return False
            _remove(file)
        finally:
            lock.release()
    return True


def _is_worth_keeping(db: sqlite3.Connection) -> bool:
    """Whether an item is done, in doubt, or failed in a way that another request does not change."""
    found = db.execute("select exists(select 1 from items where not retryable) or exists(select 1 from begun)")
    return bool(found.fetchone()[0])


def _lock_file(path: Path) -> Path:
    real = Path(os.path.realpath(path))  # so that two names of one file have one lock
    return real.with_name(real.name + ".lock")


def _remove(path: Path) -> None:
    """Remove a database and the files that SQLite keeps beside it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with suppress(OSError):
            path.with_name(name).unlink()


@contextmanager
def _as_journal_error(path: Path | None) -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:  # ValueError: a row that is not JSON
        raise JournalError(
            f"The journal {_shown(path)} cannot be used: {str(error).rstrip('.')}. {_advice(error)}"
        ) from error


_FULL = "The disk is full: free some space, then run again with the same journal. Nothing that is stored is lost."
_CLOSED = "Check that the file and its folder exist and can be written."
_DAMAGED = "It is damaged, or is not a journal: use another file, or a copy of this one."
_ADVICE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: "The disk may be full, or has failed. Nothing that is stored is lost.",
    sqlite3.SQLITE_READONLY: _CLOSED,
    sqlite3.SQLITE_CANTOPEN: _CLOSED,
    sqlite3.SQLITE_BUSY: "Another program has locked it: close that program.",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
"""What to do, by SQLite's primary error code."""


def _advice(error: Exception) -> str:
    if isinstance(error, OSError):
        return _FULL if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else _CLOSED
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # set only if SQLite itself failed
    return _ADVICE.get(code & 0xFF, _DAMAGED)


def _shown(path: Path | None) -> str:
    return repr(str(path or "in temporary files"))
