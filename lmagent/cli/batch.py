"""`lmagent batch`: read prompts from a file, write answers to a file, resume with `--resume`."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Annotated, Any, TextIO

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
from lmagent.engines.bulk.results import Progress
from lmagent.engines.completion import CompletionEngine
from lmagent.engines.printer import printable
from lmagent.errors import ConfigurationError, LMAgentError, MessageError

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
    _check_files(source, target, kept, resume)
    items = _items(source)
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
    stopped: LMAgentError | None = None
    with chat_model, _signals(engine) as interrupted, _written(target) as out:
        try:
            for completion in engine.run(items):
                out.write(dumps_text(completion.to_dict()) + "\n")
        except LMAgentError as error:
            stopped = error
    sys.stderr.write(f"lmagent: {printable(str(engine.summary))}\n")
    if stopped is not None:
        sys.stderr.write(
            f"lmagent: fix the problem, then continue with --resume; the journal is {printable(str(kept))}\n"
        )
        raise stopped
    if interrupted():
        sys.stderr.write(f"lmagent: interrupted; continue with --resume; the journal is {printable(str(kept))}\n")
        raise SystemExit(INTERRUPTED)
    if engine.summary.failures:
        raise SystemExit(FAILED)


def _check_files(source: str, target: Path, kept: Path, resume: bool) -> None:
    if source != "-" and not Path(source).is_file():
        fail(f"There is no file {source!r}.")
    if source != "-" and target.exists() and os.path.samefile(source, target):
        fail("IN and OUT are the same file.")
    if not target.parent.is_dir():
        fail(f"There is no folder {str(target.parent)!r}.")
    if str(target) == "-" or (target.exists() and not target.is_file()):
        fail(f"OUT must be a file, because it is replaced at the end; {str(target)!r} is not a file.")
    if resume:
        return
    for path in (kept, target):
        if path.exists():
            fail(f"{str(path)!r} exists already: continue it with --resume, or use another name.")


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
def _written(target: Path) -> Generator[TextIO]:
    """Write to OUT.part and rename it at the end, so that OUT is always complete."""
    part = Path(f"{target}.part")
    with open(part, "w", encoding="utf-8", newline="\n") as out:
        try:
            yield out
        except BaseException:
            out.close()
            part.unlink()
            raise
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, target)


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

    The constructor reads the file once, to count the prompts and to reject a broken CSV before anything is asked.

    Raises:
        ConfigurationError: The file is a CSV that cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._read = _rows if path.lower().endswith(".csv") else _lines
        self._count = sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        with open(self._path, "rb") as file:
            yield from self._read(file)


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
    rows = csv.DictReader(TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
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


def _item(row: dict[Any, Any], line: int) -> Any:
    if None in row:
        return MessageError(f"Line {line} has more fields than the header; put a prompt with commas in quotes.")
    if not row["prompt"]:
        return MessageError(f"Line {line} has no prompt.")
    prompt = [{"role": "user", "content": row["prompt"]}]
    if row.get("system"):
        prompt.insert(0, {"role": "system", "content": row["system"]})
    return {"prompt": prompt, "id": row.get("id") or None}
