"""`ResponseCache`: the same question asked twice is sent once. In memory or in an SQLite file; off unless asked for.

    model = OpenAIChat(cache=ResponseCache("answers.sqlite"))

What is kept is the body of a whole, good answer, as it came; it is read by the codec again, so that a cached answer is
like the first one in every verb, streamed in the pieces it came in. Failures and interrupted streams are never kept.
The question is the request before it is signed: no credentials are part of the key, which is a hash, and an answer
that holds a secret of this process is not kept.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

from lmagent.core.redaction import library_logger, redact
from lmagent.errors import ConfigurationError, ResponseTooLarge
from lmagent.http.base import Timeouts
from lmagent.providers.base import Request

__all__ = ["KeptAnswer", "ResponseCache"]

_VERSION = 1
_KEPT_HEADERS = ("content-type",)
"""What reading a body needs to know."""


class ResponseCache:
    """Keeps whole answers by question. Share one between models, threads and tasks as you like.

    A cached `Reply` has `cached=True`, cost no tokens (`usage` is zero) and no request (`attempts` is 0); budgets and
    rate limiters are not asked. Answers are kept whatever the temperature. A file that fails is logged, and the
    question asked.

    Args:
        path: An SQLite file, for this process and others, made for its owner only. None: in memory.
        max_entries: The oldest go first.
        max_age: Seconds after which an answer is asked for again; None: never.
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
            raise ConfigurationError(f"max_entries is at least 1, not {max_entries}.")
        self._clock = clock
        self._max_age = max_age
        self._store = _MemoryStore(max_entries) if path is None else _FileStore(Path(path), max_entries)

    def key_of(self, model_id: str, request: Request) -> str:
        """Return the key of an unsigned request: a hash of all that makes the question."""
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

    def get(self, key: str) -> KeptAnswer | None:
        """Return the answer that is kept for a question."""
        try:
            found = self._store.get(key)
        except (sqlite3.Error, ValueError, KeyError, OSError) as error:
            _complain("read", error)
            return None
        if found is None:
            return None
        made_at, answer = found
        if self._max_age is not None and self._clock() - made_at > self._max_age:
            return None
        return answer

    def put(self, key: str, headers: Mapping[str, str], pieces: Sequence[bytes], text: str = "") -> None:
        """Keep a good answer, unless it shows a secret; in a stream only its `text` may show one as a whole."""
        body = b"".join(pieces).decode("utf-8", "replace")
        if redact(body) != body or redact(text) != text:
            return
        kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        try:
            self._store.put(key, self._clock(), KeptAnswer(headers=kept, pieces=tuple(pieces)))
        except (sqlite3.Error, OSError) as error:
            _complain("written", error)

    def forget(self, key: str) -> None:
        """Drop one answer."""
        try:
            self._store.delete(key)
        except (sqlite3.Error, OSError) as error:
            _complain("written", error)

    def clear(self) -> None:
        """Drop all answers."""
        self._store.delete(None)

    def __len__(self) -> int:
        return self._store.count()


def _complain(what: str, error: Exception) -> None:
    library_logger("caching").warning("the response cache could not be %s: %s", what, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """An answer as it came: a transport that gives nothing else."""

    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]

    def open(self, request: Request, timeouts: Timeouts, deadline: float) -> _Kept:
        """Give the answer."""
        return _Kept(self)

    async def async_open(self, request: Request, timeouts: Timeouts, deadline: float) -> _AsyncKept:
        """Give the answer, asynchronous."""
        return _AsyncKept(self)

    def close(self) -> None:
        """Nothing to free."""

    async def aclose(self) -> None:
        """Nothing to free."""


class _Body:
    def __init__(self, answer: KeptAnswer) -> None:
        self.status = 200
        self.headers = answer.headers
        self._pieces = answer.pieces

    def _whole(self, limit: int) -> bytes:
        body = b"".join(self._pieces)
        if len(body) > limit:
            raise ResponseTooLarge(f"The answer is longer than {limit} bytes.")
        return body


class _Kept(_Body):
    def read(self, limit: int) -> bytes:
        return self._whole(limit)

    def chunks(self) -> Iterator[bytes]:
        yield from self._pieces

    def close(self) -> None:
        return None


class _AsyncKept(_Body):
    async def read(self, limit: int) -> bytes:
        return self._whole(limit)

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        return None


class _MemoryStore:
    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._kept: OrderedDict[str, tuple[float, KeptAnswer]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> tuple[float, KeptAnswer] | None:
        return self._kept.get(key)

    def put(self, key: str, now: float, answer: KeptAnswer) -> None:
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = (now, answer)
            while len(self._kept) > self._max_entries:
                self._kept.popitem(last=False)

    def delete(self, key: str | None) -> None:
        with self._lock:
            if key is None:
                self._kept.clear()
            else:
                self._kept.pop(key, None)

    def count(self) -> int:
        return len(self._kept)


class _FileStore:
    """One connection an operation: nothing to close, nothing to share between threads or after a fork."""

    def __init__(self, path: Path, max_entries: int) -> None:
        self._path = path.absolute()
        self._max_entries = max_entries
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(self._connect()) as db, db:
                (version,) = db.execute("pragma user_version").fetchone()
                tables = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
                if version > _VERSION or (tables and "lmagent_answers" not in tables):
                    raise ConfigurationError(f"{str(path)!r} belongs to another program or a newer version.")
                db.execute(
                    "create table if not exists lmagent_answers"
                    " (key text primary key, made_at real, headers text, lengths text, body blob)"
                )
                db.execute("create index if not exists lmagent_answers_by_age on lmagent_answers (made_at)")
                db.execute(f"pragma user_version = {_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(f"The response cache {str(path)!r} cannot be opened: {error}.") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=5.0)

    def get(self, key: str) -> tuple[float, KeptAnswer] | None:
        with closing(self._connect()) as db:
            row = db.execute(
                "select made_at, headers, lengths, body from lmagent_answers where key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        made_at, headers, lengths, body = row
        pieces: list[bytes] = []
        start = 0
        for length in json.loads(lengths):
            pieces.append(body[start : start + length])
            start += length
        return made_at, KeptAnswer(headers=json.loads(headers), pieces=tuple(pieces))

    def put(self, key: str, now: float, answer: KeptAnswer) -> None:
        lengths = json.dumps([len(piece) for piece in answer.pieces])
        row = (key, now, json.dumps(dict(answer.headers)), lengths, b"".join(answer.pieces))
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
