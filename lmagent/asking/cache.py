"""`ResponseCache`: answered requests are not sent again. In memory or in an SQLite file; off by default.

    model = OpenAIChat(cache=ResponseCache("answers.sqlite"))

The cache stores the body of a complete, successful answer as it came. The codec reads it again, so a cached answer
equals the first one in every verb, and a stream is replayed in the same chunks. Failures and interrupted streams are
never stored. The key is a hash of the request before it is signed, so no credentials are part of it. An answer that
holds a secret of this process is not stored.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

from lmagent.core.redaction import library_logger, redact
from lmagent.errors import ConfigurationError
from lmagent.http.base import AsyncStoredBody, StoredBody, Timeouts
from lmagent.providers.base import Request

__all__ = ["CachedAnswer", "ResponseCache"]

_VERSION = 1
_KEPT_HEADERS = ("content-type",)
"""The headers that are needed to read a body."""


class ResponseCache:
    """Stores complete answers by request. One cache can be shared between models, threads and tasks.

    A cached `Reply` has `cached=True`, cost no tokens (`usage` is zero) and no request (`attempts` is 0); budgets and
    rate limiters do not count it. Answers are stored whatever the temperature. If the file fails, that is logged and
    the model is asked.

    Args:
        path: An SQLite file, for this process and others, created for its owner only. None: in memory.
        max_entries: Above this number the oldest entries are deleted.
        max_age: Seconds after which an entry is no longer used; None: never.
        clock: Seconds since 1970.

    Raises:
        ConfigurationError: The file belongs to another program, or cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_entries: int = 10_000,
        max_age: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_entries < 1:
            raise ConfigurationError(f"max_entries={max_entries}: it must be at least 1.")
        self._clock = clock
        self._max_age = max_age
        self._store = _MemoryStore(max_entries) if path is None else _FileStore(Path(path), max_entries)

    def key_of(self, model_id: str, request: Request) -> str:
        """Return the key of an unsigned request: a hash of model, method, URL, parameters, headers and body."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        parts = (
            model_id,
            request.method,
            request.url,
            json.dumps(sorted(request.params.items())),
            json.dumps(sorted(headers.items())),
        )
        digest = sha256()
        for part in (*(part.encode("utf-8", "surrogatepass") for part in parts), request.content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.hexdigest()

    def get(self, key: str) -> CachedAnswer | None:
        """Return the stored answer to a request, or None."""
        try:
            found = self._store.get(key)
        except (sqlite3.Error, ValueError, KeyError, OSError) as error:
            _log_failure("read", error)
            return None
        if found is None:
            return None
        made_at, answer = found
        if self._max_age is not None and self._clock() - made_at > self._max_age:
            return None
        return answer

    def put(self, key: str, headers: Mapping[str, str], chunks: Sequence[bytes], text: str = "") -> None:
        """Store a successful answer, unless it shows a secret. `text` is checked too: a stream may cut a secret."""
        body = b"".join(chunks).decode("utf-8", "replace")
        if redact(body) != body or redact(text) != text:
            return
        kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        try:
            self._store.put(key, self._clock(), CachedAnswer(headers=kept, chunks=tuple(chunks)))
        except (sqlite3.Error, OSError) as error:
            _log_failure("written", error)

    def forget(self, key: str) -> None:
        """Delete one answer."""
        try:
            self._store.delete(key)
        except (sqlite3.Error, OSError) as error:
            _log_failure("written", error)

    def clear(self) -> None:
        """Delete all answers."""
        self._store.delete(None)

    def __len__(self) -> int:
        return self._store.count()


def _log_failure(what: str, error: Exception) -> None:
    library_logger("caching").warning("the response cache could not be %s: %s", what, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAnswer:
    """A stored answer. It is also a transport, which answers every request with it."""

    headers: Mapping[str, str]
    chunks: tuple[bytes, ...]

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> StoredBody:
        """Return the answer."""
        return StoredBody(200, self.headers, self.chunks)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> AsyncStoredBody:
        """`open`, asynchronous."""
        return AsyncStoredBody(self.open(request, timeouts, deadline))

    def close(self) -> None:
        """Do nothing; there is no connection."""

    async def aclose(self) -> None:
        """Do nothing; there is no connection."""


class _MemoryStore:
    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[str, tuple[float, CachedAnswer]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> tuple[float, CachedAnswer] | None:
        return self._entries.get(key)

    def put(self, key: str, now: float, answer: CachedAnswer) -> None:
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = (now, answer)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def delete(self, key: str | None) -> None:
        with self._lock:
            if key is None:
                self._entries.clear()
            else:
                self._entries.pop(key, None)

    def count(self) -> int:
        return len(self._entries)


class _FileStore:
    """Opens a connection per operation, so that none is shared between threads, kept after a fork, or left open."""

    def __init__(self, path: Path, max_entries: int) -> None:
        self._path = path.absolute()
        self._max_entries = max_entries
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(self._connect()) as db, db:
                (version,) = db.execute("pragma user_version").fetchone()
                tables = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
                if version > _VERSION or (tables and "lmagent_answers" not in tables):
                    raise ConfigurationError(
                        f"{str(path)!r} is not a response cache of this version of lmagent; use another path."
                    )
                db.execute(
                    "create table if not exists lmagent_answers"
                    " (key text primary key, made_at real, headers text, lengths text, body blob)"
                )
                db.execute("create index if not exists lmagent_answers_by_age on lmagent_answers (made_at)")
                db.execute(f"pragma user_version = {_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(f"Cannot open the response cache {str(path)!r}: {error}.") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=5.0)

    def get(self, key: str) -> tuple[float, CachedAnswer] | None:
        with closing(self._connect()) as db:
            row = db.execute(
                "select made_at, headers, lengths, body from lmagent_answers where key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        made_at, headers, lengths, body = row
        chunks: list[bytes] = []
        start = 0
        for length in json.loads(lengths):
            chunks.append(body[start : start + length])
            start += length
        return made_at, CachedAnswer(headers=json.loads(headers), chunks=tuple(chunks))

    def put(self, key: str, now: float, answer: CachedAnswer) -> None:
        lengths = json.dumps([len(chunk) for chunk in answer.chunks])
        row = (key, now, json.dumps(dict(answer.headers)), lengths, b"".join(answer.chunks))
        with closing(self._connect()) as db, db:
            db.execute("insert or replace into lmagent_answers values (?, ?, ?, ?, ?)", row)
            (count,) = db.execute("select count(*) from lmagent_answers").fetchone()
            if count > self._max_entries:
                db.execute(
                    "delete from lmagent_answers where key in"
                    " (select key from lmagent_answers order by made_at, rowid limit ?)",
                    (count - self._max_entries,),
                )

    def delete(self, key: str | None) -> None:
        with closing(self._connect()) as db, db:
            db.execute("delete from lmagent_answers where ?1 is null or key = ?1", (key,))

    def count(self) -> int:
        with closing(self._connect()) as db:
            return db.execute("select count(*) from lmagent_answers").fetchone()[0]
