"""`lmagent batch`: read prompts from a file, write answers to a file, resume with `--resume`.

OUT is replaced in one step at the end, so it is always whole. A run that stops early keeps the lines that OUT had for
the prompts it did not reach. An answer that the new OUT does not have, because IN has changed, stays in a copy of the
former file. A first start that answers nothing leaves no file.

Over 400 lines because the command, its input files and its output file belong together: what IN lacks, OUT must keep.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from itertools import count
from pathlib import Path
from typing import IO, Annotated, Any, cast

import typer

from lmagent.agent.agent import Agent
from lmagent.agent.run import Limits
from lmagent.cli.options import (
    FAILED,
    INTERRUPTED,
    ModelOption,
    ParameterOption,
    ToolOption,
    approver,
    build_model,
    build_tools,
    fail,
    read_parameters,
)
from lmagent.core.budget import load_prices
from lmagent.core.json_text import JSONError, dumps_text, loads
from lmagent.engines.bulk.journal import FileLock, discard_journal
from lmagent.engines.bulk.results import Progress, is_fatal
from lmagent.engines.bulk.work import read_item
from lmagent.engines.completion import CompletionEngine
from lmagent.engines.printer import printable
from lmagent.errors import ConfigurationError, JournalError, LMAgentError, MessageError

__all__ = ["batch"]

_LONGEST = 16 * 1024 * 1024
"""Maximum number of characters in a CSV field."""


def batch(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="Prompts: a .jsonl or .csv file; - reads JSON lines from standard input."),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Answers, as JSON lines, in the order of the input.")],
    model: ModelOption = None,
    tool: ToolOption = None,
    system: Annotated[str, typer.Option("--system", "-s", help="System prompt.")] = "",
    param: ParameterOption = None,
    rpm: Annotated[float | None, typer.Option(help="Maximum number of requests per minute.", min=0.01)] = None,
    tpm: Annotated[float | None, typer.Option(help="Maximum number of tokens per minute.", min=1)] = None,
    concurrency: Annotated[int, typer.Option(help="Maximum number of prompts in progress.", min=1)] = 5,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run that is stored in OUT's journal.")] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Ask all failed prompts again, not only those that may succeed now; implies --resume.",
        ),
    ] = False,
    journal: Annotated[Path | None, typer.Option(help="Journal file. Default: OUT.journal.")] = None,
    share_identical: Annotated[bool, typer.Option("--share-identical", help="Ask identical prompts once.")] = False,
    prices: Annotated[
        Path | None, typer.Option(help='JSON: {"provider/model": {"input": 0.25, "output": 2.0}} per million tokens.')
    ] = None,
    max_rounds: Annotated[int, typer.Option(help="With tools: maximum number of rounds for each prompt.", min=1)] = 20,
    timeout: Annotated[float, typer.Option(help="Timeout of each request in seconds.", min=0.1)] = 600.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show progress on standard error.")] = False,
) -> None:
    """Answer every prompt of a file, within rate limits.

    A line of IN is a JSON string, or an object with "prompt" (or "messages") and
    optionally "id" and "parameters". A CSV file needs a column "prompt" and may
    have "id" and "system". A journal beside OUT stores finished answers: after a
    crash, an interruption or failures, repeat the command with --resume to
    continue. Finished prompts are not asked again.

    Exit codes in addition to the usual ones: 0 all prompts answered, 1 some
    prompts failed (see OUT), 130 interrupted.
    """
    kept = journal or Path(f"{target}.journal")
    resume = resume or retry_failed
    _check_names(source, target, kept, prices)
    _check_existing(target, kept, resume)
    is_first = not target.exists() and not kept.exists()
    items = _items(source)
    if isinstance(items, _File) and not len(items) and _has_lines(target):
        fail(f"IN ({source!r}) has no prompts, but OUT ({str(target)!r}) has answers; is IN the right file?")
    priced = load_prices(prices) if prices else None
    chat_model = build_model(model, timeout=timeout)
    asked = _asked(chat_model, tool, system, max_rounds)
    engine = CompletionEngine(
        asked,
        concurrency,
        rpm,
        tpm,
        error_mode="return",
        journal=kept,
        retry_failed=True if retry_failed else "retryable",
        share_identical=share_identical,
        prices=priced,
        track_in_doubt=True,
        progress_bar=False if quiet else Progress(),
        **read_parameters(param),
    )
    with chat_model, _signals(engine) as interrupted, _opened(target) as out:
        _check_existing(target, kept, resume)  # again: now no other run can change them
        failure = _answer(engine, items, out, interrupted)
        done = engine.summary
        is_useless = not done.done and (not done.finished or (failure is not None and is_fatal(failure)))
        has_stopped = failure is not None or interrupted()
        if not (is_first and has_stopped and is_useless and discard_journal(kept)):
            try:
                out.finish(is_complete=not has_stopped)
            except JournalError as error:
                failure = failure or error
    _say(str(engine.summary))
    if out.copy is not None:
        _say(
            f"{out.missing} lines of {str(target)!r} are not in the new one, because IN has changed; the former file "
            f"is kept as {str(out.copy)!r}"
        )
    if failure is not None:
        if kept.exists() or target.exists():
            _say(f"fix the problem, then continue with --resume; the journal is {kept}")
        else:
            _say("fix the problem, then start again (--resume works too); nothing was answered, so no file is left")
        raise failure
    if interrupted():
        _say(f"interrupted; continue with --resume; the journal is {kept}")
        raise SystemExit(INTERRUPTED)
    if engine.summary.failures:
        raise SystemExit(FAILED)


def _say(text: str) -> None:
    sys.stderr.write(f"lmagent: {printable(text)}\n")


def _check_names(source: str, target: Path, kept: Path, prices: Path | None) -> None:
    """Exit if a file does not exist, is not a file, or is both read and written."""
    if source != "-" and not Path(source).is_file():
        fail(f"There is no file {source!r}.")
    if source != "-" and target.exists() and os.path.samefile(source, target):
        fail("IN and OUT are the same file.")
    if str(target) == "-" or (target.exists() and not target.is_file()):
        fail(f"OUT must be a file, because it is replaced at the end; {str(target)!r} is not a file.")
    if kept.exists() and not kept.is_file():
        fail(f"The journal must be a file; {str(kept)!r} is not a file.")
    out, stored = (Path(os.path.realpath(path)) for path in (target, kept))
    for path in (out, stored):
        if not path.parent.is_dir():
            fail(f"There is no folder {str(path.parent)!r}.")
    written = [out, *(Path(f"{out}{end}") for end in (".part", ".lock"))]
    written += [stored, *(Path(f"{stored}{end}") for end in (".lock", "-wal", "-shm"))]
    if len(set(written)) < len(written):
        fail("OUT and the journal must be different files.")
    for path in (source, prices):
        if path is not None and Path(os.path.realpath(path)) in written:
            fail(f"{str(path)!r} would be overwritten, because OUT or the journal uses this name; use another name.")


def _check_existing(target: Path, kept: Path, resume: bool) -> None:
    """Exit if a first start finds files, or a resumed one finds answers without their journal."""
    for path in () if resume else (kept, target):
        if path.exists():
            fail(f"{str(path)!r} exists already: continue it with --resume, or use another name.")
    if _has_lines(target) and not kept.exists():
        fail(
            f"{str(target)!r} has answers, but their journal {str(kept)!r} does not exist: name it with --journal, or "
            "use another OUT. Otherwise every prompt would be asked again."
        )


def _has_lines(target: Path) -> bool:
    return target.exists() and target.stat().st_size > 0


def _answer(
    engine: CompletionEngine, items: Iterable[Any], out: _Output, interrupted: Callable[[], bool]
) -> LMAgentError | None:
    """Write all answers to `out`. Return the error that stopped the run, if any."""
    failure: LMAgentError | None = None
    try:
        for completion in engine.run(items):
            if interrupted():
                engine.stop()  # again: the signal may have come before the run began
            if failure is not None:
                continue  # prompts in progress: their answers are in the journal
            try:
                out.add(completion.to_dict())
            except JournalError as error:
                failure = error
                engine.stop()
    except LMAgentError as error:
        failure = failure or error
    return failure


def _asked(model: Any, tool: list[str] | None, system: str, max_rounds: int) -> Any:
    if not tool and not system:
        return model
    # A batch runs unattended: calls that need approval are denied.
    return Agent(
        model,
        build_tools(tool),
        system_prompt=system,
        limits=Limits(rounds=max_rounds),
        approve=approver("never"),
    )


@contextmanager
def _opened(target: Path) -> Generator[_Output]:
    """Lock OUT and write to it. Without `finish`, OUT stays as it is."""
    path = Path(os.path.realpath(target))
    with _as_output_error(path):
        lock = FileLock(Path(f"{path}.lock"), f"The output {str(target)!r}")
    try:
        out = _Output(path)
        try:
            yield out
        finally:
            out.close()
    finally:
        lock.release()


class _Output:
    """Write to OUT.part in the order of the input; `finish` replaces OUT by it.

    Lines of the former OUT are merged in while the new ones are written: one pass, and memory does not grow.

    Raises:
        JournalError: OUT cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = Path(f"{path}.part")
        self._added = 0
        self.missing = 0
        """Answers, and lines that are not from `batch`, of the former OUT that the new one does not have."""
        self.copy: Path | None = None
        """Copy of the former OUT, made if lines of it are missing."""
        with _as_output_error(path):
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(13, "Permission denied")
            self._former = open(path, "rb") if path.exists() else None  # noqa: SIM115  # closed by `close`
            self._file = open(self._part, "wb")  # noqa: SIM115
        self._lines = self._former_lines()
        self._next = next(self._lines, None)

    def _former_lines(self) -> Iterator[tuple[int, bytes, Mapping[str, Any]]]:
        last = -1
        for line in self._former or ():
            record = _record(line)
            if record is None or record["index"] <= last:
                self.missing += 1
                continue
            last = record["index"]
            yield last, line.rstrip(b"\r\n"), record

    def add(self, record: Mapping[str, Any]) -> None:
        """Write the line of a prompt; it replaces the former line of that prompt."""
        with _as_output_error(self._path):
            self._keep(record["index"])
            if self._next is not None and self._next[0] == record["index"]:
                self._drop(record)
            self._file.write(dumps_text(record).encode("utf-8", "replace") + b"\n")
            self._added += 1

    def _keep(self, until: float) -> None:
        """Copy the former lines before index `until`: the run was stopped before it reached their prompts."""
        while self._next is not None and self._next[0] < until:
            self._file.write(self._next[1] + b"\n")
            self._next = next(self._lines, None)

    def _drop(self, record: Mapping[str, Any]) -> None:
        """Skip the next former line, and count it if it is an answer that `record` does not repeat."""
        assert self._next is not None
        former = self._next[2]
        same = all(former.get(name) == record.get(name) for name in ("id", "reply", "tool_calls"))
        self.missing += "error" not in former and not same
        self._next = next(self._lines, None)

    def finish(self, *, is_complete: bool) -> None:
        """Replace OUT by what was written. A run that stopped before its first line leaves OUT as it is."""
        if not is_complete and not self._added:
            return
        with _as_output_error(self._path):
            if not is_complete:
                self._keep(float("inf"))
            while self._next is not None:  # IN is shorter than before
                self._drop({})
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self._former is not None:
                self._former.close()
                shutil.copymode(self._path, self._part)
                if self.missing:
                    self.copy = self._copied()
            os.replace(self._part, self._path)

    def _copied(self) -> Path:
        names = (Path(f"{self._path}.old{number or ''}") for number in count())
        copy = next(name for name in names if not name.exists())
        try:
            os.link(self._path, copy)
        except OSError:  # the file system has no links
            shutil.copy2(self._path, copy)
        return copy

    def close(self) -> None:
        """Close the files and remove OUT.part."""
        for file in (self._former, self._file):
            if file is not None:
                with suppress(OSError):  # on a full disk, closing writes and fails again
                    file.close()
        with suppress(OSError):
            self._part.unlink()


def _record(line: bytes) -> dict[str, Any] | None:
    """Read a line of OUT; None if `batch` did not write it."""
    try:
        value = loads(line.decode("utf-8", "replace"))
    except JSONError:
        return None
    if not isinstance(value, dict):
        return None
    record = cast("dict[str, Any]", value)
    return record if type(record.get("index")) is int else None


@contextmanager
def _as_output_error(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"The output {str(path)!r} cannot be written: {error.strerror or error}. It is as it was before, and the "
            "journal has all answers of this run. Free some space or make the folder writable."
        ) from error


@contextmanager
def _signals(engine: CompletionEngine) -> Generator[Callable[[], bool]]:
    """Stop gracefully at the first Ctrl-C or SIGTERM, at once at the second."""
    times = 0

    def on_signal(number: int, frame: object) -> None:
        nonlocal times
        times += 1
        if times > 1:
            raise KeyboardInterrupt
        engine.stop()
        sys.stderr.write("\nlmagent: finishing prompts in progress; press Ctrl-C again to stop at once\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: times > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _items(source: str) -> Iterable[Any]:
    if source != "-":
        return _File(source)
    # A separate file object: the interpreter cannot exit while another thread waits in `sys.stdin`.
    return _lines(open(sys.stdin.fileno(), "rb", closefd=False))


class _File:
    """The prompts of a file, read one at a time.

    The constructor reads the file once, to count the prompts and to reject a wrong file before anything is asked.

    Raises:
        ConfigurationError: The file cannot be read, is a broken CSV, or none of its lines is a prompt.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._read = _rows if path.lower().endswith(".csv") else _lines
        self._count = 0
        problem: Exception | None = None
        is_readable = False
        for item in self:
            if not is_readable:
                found = read_item(item, self._count).problem
                problem, is_readable = problem or found, found is None
            self._count += 1
        if problem is not None and not is_readable:
            raise ConfigurationError(f"No line of {path!r} is a prompt; the first problem: {problem}")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        try:
            with open(self._path, "rb") as file:
                yield from self._read(file)
        except OSError as error:
            raise ConfigurationError(f"{self._path!r} cannot be read: {error.strerror or error}.") from error


def _lines(file: IO[bytes]) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield MessageError(f"Line {number} is not UTF-8.")
        except JSONError as error:
            yield MessageError(f"Line {number} is not JSON: {str(error).replace('at line 1 ', 'at ')}")


def _rows(file: IO[bytes]) -> Iterator[Any]:
    # Strict: otherwise an unclosed quote turns the rest of the file into one prompt.
    text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.DictReader(text, strict=True)
    csv.field_size_limit(_LONGEST)
    try:
        if "prompt" not in (rows.fieldnames or ()):
            raise ConfigurationError(
                f"The CSV file needs a column 'prompt'; its columns are {list(rows.fieldnames or ())}."
            )
        for row in rows:
            yield _item(row, rows.line_num)
    except csv.Error as error:
        raise ConfigurationError(f"The CSV file cannot be read after line {rows.line_num}: {error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError("The CSV file is not UTF-8; save it as UTF-8 first.") from error
    finally:
        text.close()


def _item(row: dict[Any, Any], line: int) -> Any:
    if None in row:
        return MessageError(f"Line {line} has more fields than the header; put a prompt with commas in quotes.")
    if not row["prompt"]:
        return MessageError(f"Line {line} has no prompt.")
    prompt = [{"role": "user", "content": row["prompt"]}]
    if row.get("system"):
        prompt.insert(0, {"role": "system", "content": row["system"]})
    return {"prompt": prompt, "id": row.get("id") or None}
