"""Stored conversations: one interface, three stores, and a history that writes each change to a store.

Each message is on disk before the run continues, so a crash loses at most the current round. Calls without a result are
answered when the session is opened again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import quote, unquote

from lmagent.core.history import History, repair_history
from lmagent.core.messages import Message, message_from_dict, message_to_dict
from lmagent.errors import JournalError, MessageError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["JSONLSessions", "MemorySessions", "SQLiteSessions", "SessionStore", "StoredHistory"]

_VERSION = 1


class SessionStore(Protocol):
    """Stores conversations. A session is a list of messages under an id."""

    def load(self, session: str) -> tuple[Message, ...]:
        """Return the stored messages; none for an unknown id."""
        ...

    def append(self, session: str, messages: Sequence[Message]) -> None:
        """Add messages; they are durable when this returns."""
        ...

    def truncate(self, session: str, length: int) -> None:
        """Keep the first `length` messages."""
        ...

    def sessions(self) -> list[str]:
        """Return the known ids, sorted."""
        ...

    def delete(self, session: str) -> None:
        """Delete a session."""
        ...


class StoredHistory(History):
    """A history that writes every change to a store.

    Args:
        store: The store.
        session: The id; its stored messages are loaded, and repaired if the last process crashed.
    """

    __slots__ = ("session", "store")

    def __init__(self, store: SessionStore, session: str) -> None:
        stored = store.load(session)
        super().__init__(stored)
        self.store = store
        self.session = session
        repaired = super().messages
        same = 0
        while same < min(len(stored), len(repaired)) and stored[same] == repaired[same]:
            same += 1
        if same < len(stored):
            store.truncate(session, same)
        if same < len(repaired):
            store.append(session, repaired[same:])

    def append(self, message: Message) -> None:
        self.store.append(self.session, (message,))
        super().append(message)

    def extend(self, messages: Iterable[Message]) -> None:
        added = tuple(messages)
        if added:
            self.store.append(self.session, added)
            super().extend(added)

    def replace_last(self, message: Message) -> None:
        self.store.truncate(self.session, len(self) - 1)
        self.store.append(self.session, (message,))
        super().replace_last(message)

    def truncate(self, length: int) -> None:
        if length < len(self):
            self.store.truncate(self.session, length)
            super().truncate(length)

    def answer_open_calls(self, text: str | None = None) -> None:
        answered = repair_history(super().messages) if text is None else repair_history(super().messages, missing=text)
        self.extend(answered[len(self) :])

    def clear(self) -> None:
        self.store.truncate(self.session, 0)
        super().clear()

    def fork(self, session: str, length: int | None = None) -> StoredHistory:
        """Return a new session that begins with this one's first `length` messages (default: all).

        Raises:
            JournalError: The new id exists.
        """
        if self.store.load(session):
            raise JournalError(f"The session {session!r} exists already.")
        self.store.append(session, self.messages[:length])
        return StoredHistory(self.store, session)


class MemorySessions:
    """Sessions in memory."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[Message]] = {}

    def load(self, session: str) -> tuple[Message, ...]:
        return tuple(self._sessions.get(session, ()))

    def append(self, session: str, messages: Sequence[Message]) -> None:
        self._sessions.setdefault(session, []).extend(messages)

    def truncate(self, session: str, length: int) -> None:
        del self._sessions.get(session, [])[length:]

    def sessions(self) -> list[str]:
        return sorted(self._sessions)

    def delete(self, session: str) -> None:
        self._sessions.pop(session, None)


class JSONLSessions:
    """One file per session in a folder, one line of JSON per change.

    An incomplete last line, which a crash may leave, is ignored, and removed at the next write.

    Args:
        folder: Created with the first message.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()

    def load(self, session: str) -> tuple[Message, ...]:
        """Return the messages.

        Raises:
            JournalError: The file is not a session file.
        """
        path = self._path(session)
        messages: list[Message] = []
        with _as_journal_error(path):
            content = path.read_bytes() if path.exists() else b""
            for line in content.split(b"\n")[:-1]:  # what follows the last newline is incomplete
                try:
                    data = json.loads(line)
                    if "truncate" in data:
                        del messages[data["truncate"] :]
                    elif "version" not in data:
                        messages.append(message_from_dict(data))
                    elif data["version"] != _VERSION:
                        raise JournalError(f"{str(path)!r} was written by another version ({data['version']}).")
                except (ValueError, TypeError, MessageError) as error:
                    raise JournalError(f"{str(path)!r} is no session file: {error}") from error
        return tuple(messages)

    def append(self, session: str, messages: Sequence[Message]) -> None:
        self._write(session, [message_to_dict(message) for message in messages])

    def truncate(self, session: str, length: int) -> None:
        if self._path(session).exists():
            self._write(session, [{"truncate": length}])

    def _write(self, session: str, changes: Sequence[dict[str, Any]]) -> None:
        path = self._path(session)
        with self._lock, _as_journal_error(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(path, "ab+") as file:
                size = file.seek(0, os.SEEK_END)
                if not size:
                    changes = [{"version": _VERSION}, *changes]
                file.seek(max(size - 1, 0))
                if size and file.read(1) != b"\n":  # remove the incomplete last line
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
                text = "".join(json.dumps(change, ensure_ascii=False) + "\n" for change in changes)
                file.write(text.encode("utf-8", "surrogatepass"))
                file.flush()
                os.fsync(file.fileno())

    def sessions(self) -> list[str]:
        return sorted(unquote(path.stem) for path in self._folder.glob("*.jsonl"))

    def delete(self, session: str) -> None:
        self._path(session).unlink(missing_ok=True)

    def _path(self, session: str) -> Path:
        return self._folder / (quote(session, safe="") + ".jsonl")


class SQLiteSessions:
    """All sessions in one SQLite file: the store to use when in doubt.

    Args:
        path: The file; created if it does not exist.

    Raises:
        JournalError: The file belongs to another program or a newer version, or is locked.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        with _as_journal_error(self._path):
            # One connection for all threads; each use holds the lock.
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10.0)
            self._prepare()

    def _prepare(self) -> None:
        (version,) = self._db.execute("pragma user_version").fetchone()
        tables = {name for (name,) in self._db.execute("select name from sqlite_master where type = 'table'")}
        if version > _VERSION or (tables and "lmagent_messages" not in tables):
            self._db.close()
            what = f"a newer version ({version})" if version > _VERSION else "another program"
            raise JournalError(f"{str(self._path)!r} belongs to {what}.")
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")
        self._db.execute(
            "create table if not exists lmagent_messages "
            "(session text, position integer, message text not null, primary key (session, position)) without rowid"
        )
        self._db.execute(f"pragma user_version = {_VERSION}")

    def load(self, session: str) -> tuple[Message, ...]:
        with self._lock, _as_journal_error(self._path):
            rows = self._db.execute(
                "select message from lmagent_messages where session = ? order by position", (session,)
            ).fetchall()
        return tuple(message_from_dict(json.loads(text)) for (text,) in rows)

    def append(self, session: str, messages: Sequence[Message]) -> None:
        rows = [json.dumps(message_to_dict(message), ensure_ascii=True) for message in messages]
        with self._lock, _as_journal_error(self._path):
            self._db.execute("begin immediate")
            try:
                (start,) = self._db.execute(
                    "select coalesce(max(position) + 1, 0) from lmagent_messages where session = ?", (session,)
                ).fetchone()
                self._db.executemany(
                    "insert into lmagent_messages values (?, ?, ?)",
                    [(session, start + index, row) for index, row in enumerate(rows)],
                )
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:  # on a full disk, SQLite has rolled back already
                    self._db.execute("rollback")
                raise

    def truncate(self, session: str, length: int) -> None:
        with self._lock, _as_journal_error(self._path):
            self._db.execute("delete from lmagent_messages where session = ? and position >= ?", (session, length))

    def sessions(self) -> list[str]:
        with self._lock, _as_journal_error(self._path):
            rows = self._db.execute("select distinct session from lmagent_messages order by session").fetchall()
        return [session for (session,) in cast("list[tuple[str]]", rows)]

    def delete(self, session: str) -> None:
        self.truncate(session, 0)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


@contextmanager
def _as_journal_error(path: Path) -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"{str(path)!r} cannot be used: {error}.") from error
