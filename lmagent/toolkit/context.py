"""What goes into the run of a tool and what comes out: run context, injection marks, outcomes and their text.

A result is text as it is, anything else strict JSON (None is `null`), never ASCII-escaped; what JSON cannot carry is
written as text. A failure tells the model
what went wrong and never shows a traceback, a path of this machine or a secret.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import field, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.errors import InvalidArguments, ToolError

if TYPE_CHECKING:
    from lmagent.core.messages import Message, ToolCall, Usage

__all__ = ["MAX_RESULT_CHARS", "Inject", "OutcomeKind", "RunContext", "ToolOutcome", "cut", "failure_text", "render"]

Deps = TypeVar("Deps")


@fast_dataclass(kw_only=True)
class RunContext(Generic[Deps]):
    """What a running tool may know of its run.

    A parameter annotated `RunContext` or `RunContext[MyDeps]` is filled by the agent and hidden from the model.
    """

    deps: Deps = None  # type: ignore[assignment]  # None is right for RunContext[None], the default
    """Whatever the caller gave as `deps=` to the run."""
    messages: tuple[Message, ...] = ()
    """The history up to and including the assistant message that made this call."""
    round: int = 1
    """Which round of the run this is, from 1."""
    tool_call: ToolCall | None = None
    """The call being run."""
    usage: Usage | None = None
    """Tokens used by the run so far."""
    budget: Any = None
    """The budget that a nested agent shares with its parent."""
    agent_name: str = ""
    emit: Callable[[Any], None] | None = None
    """Hands an event of a nested run to the outer stream; None outside of streamed runs."""
    approve: Any = None
    """The run's approver, for nested agents that have none of their own."""
    resumed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Call id -> the paused run behind it that goes on."""
    around: Callable[[ToolCall], Any] | None = None
    """Makes the context manager around the body of each call, for tracing; None without tracing."""
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    """A place where the tools of one run keep things, from its first round to its last."""


@fast_dataclass(frozen=True)
class Inject:
    """Mark a parameter as injected: `db: Annotated[Database, Inject(get_database)]`.

    Args:
        factory: Called with no argument, or with the `RunContext` when it takes one, at each call of the tool. A
            generator function yields the value; the rest of it runs after the call (`contextlib.contextmanager`).
    """

    factory: Callable[..., Any]


MAX_RESULT_CHARS = 64 * 1024
_MAX_ERROR = 500

OutcomeKind: TypeAlias = Literal[
    "ok",
    "unknown_tool",
    "invalid_arguments",
    "tool_error",
    "failed",
    "timeout",
    "unserialisable",
    "denied",
    "cancelled",
    "skipped",
]


@fast_dataclass()  # not frozen, as `BoundArguments`
class ToolOutcome:
    """The answer to one tool call."""

    call_id: str
    name: str
    content: str
    """What the model gets."""
    is_error: bool = False
    value: Any = None
    """What the tool returned; None if it failed."""
    duration: float = 0.0
    """Seconds."""
    kind: OutcomeKind = "ok"
    repairs: tuple[str, ...] = ()
    """What was repaired in the arguments; `lmagent.toolkit.repair.REPAIRS` says what each name means."""
    error: BaseException | None = None
    """The exception behind `failed` and `tool_error`, for logs; the model never sees it."""


def render(value: Any) -> str:
    """Return a tool's result as text for the model. What JSON cannot carry becomes text, with a note at the end.

    Raises:
        ValueError: It is an object without a text of its own, such as a function, or contains itself.
    """
    if isinstance(value, str):
        return str(value) if value.isascii() else _storable(str(value))
    if value is None:
        return "null"
    to_json, from_json = _json()
    try:
        written = to_json(value)
        if b"NaN" in written or b"Infinity" in written:
            from_json(written, allow_inf_nan=False)  # raises ValueError where it is a number and not a word in a text
        return written.decode()
    except ValueError:  # PydanticSerializationError and UnicodeEncodeError are
        replaced: dict[str, None] = {}
        plain = _plain(value, replaced)
    text = plain if isinstance(plain, str) else to_json(plain).decode()
    return f"{text}\n[Note: {', '.join(replaced)} written as text.]" if replaced else text


@cache
def _json() -> tuple[Any, Any]:
    # Cached: an import statement costs more than writing a short result, and text results need none.
    from pydantic_core import from_json, to_json

    return to_json, from_json


def _storable(text: str) -> str:
    if text.isascii():
        return text
    from lmagent.core.json_text import storable

    return storable(text)


def _plain(value: Any, replaced: dict[str, None]) -> Any:
    """Return a value of plain JSON types; the names of types that became text, or lists, go into `replaced`."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, float) and type(value) is float:
        if math.isfinite(value):
            return value
        replaced["NaN or Infinity"] = None
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_plain_key(key, replaced): _plain(inner, replaced) for key, inner in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, replaced) for inner in cast("list[Any]", value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name), replaced) for each in fields(value)}
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return _plain(value.model_dump(), replaced)
    to_json, from_json = _json()
    try:
        return from_json(to_json(value), allow_inf_nan=False)
    except ValueError as error:
        return _as_text(value, replaced, error)


def _plain_key(key: Any, replaced: dict[str, None]) -> str:
    plain = _plain(key, replaced)
    return plain if isinstance(plain, str) else render(plain)


def _as_text(value: Any, replaced: dict[str, None], cause: ValueError) -> Any:
    """Return the text of an object, or the plain values of an array or a number of numpy and its like."""
    kind = cast("type[Any]", type(value))
    listed = None if isinstance(value, type) else getattr(value, "tolist", None)
    text = "" if callable(listed) else str(value)
    if text.startswith("<") and text.endswith(">") and kind.__str__ is object.__str__:
        raise cause  # a standard representation says nothing
    replaced[kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"] = None
    return _plain(listed(), replaced) if callable(listed) else _storable(text)


def cut(text: str, limit: int) -> str:
    """Return text of at most `limit` characters; what is left out of the middle is said in its place."""
    if len(text) <= limit:
        return text
    note = f"\n[... {len(text) - limit} of {len(text)} characters left out ...]\n"
    note = f"\n[... {min(len(text) - limit + len(note), len(text))} of {len(text)} characters left out ...]\n"
    room = limit - len(note)
    if room <= 0:
        return text[:limit]
    tail = room // 3
    return text[: room - tail] + note + (text[-tail:] if tail else "")


def failure_text(error: BaseException, *, expose: bool) -> tuple[OutcomeKind, str]:
    """Return the kind of a failed call and its text for the model: never a traceback, a path of ours or a secret.

    `ToolError` is passed on word for word; of anything else the class, and the message if `expose`.
    """
    if isinstance(error, InvalidArguments):
        return "invalid_arguments", str(error)
    from lmagent.core.redaction import redact  # only for errors

    if isinstance(error, ToolError):
        return "tool_error", _storable(redact(str(error)))
    name = type(error).__name__
    if not expose:
        return "failed", f"tool failed: {name}"
    try:
        message = str(error)
    except Exception:  # the tool author's __str__
        message = ""
    message = _storable(_without_paths(redact(message))).strip()
    text = f"{name}: {message}" if message else name
    return "failed", text if len(text) <= _MAX_ERROR else f"{text[: _MAX_ERROR - 1]}…"


def _without_paths(text: str) -> str:
    for folder in _folders():
        if folder in text:
            text = text.replace(folder, "…")
    return text


@cache
def _folders() -> tuple[str, ...]:
    """Return folders of this machine that the model must not see, longest first."""
    import sysconfig  # only a tool that failed asks
    import tempfile

    places = {
        os.path.realpath(os.path.join(__file__, "..", "..", "..")),
        sys.prefix,
        sys.base_prefix,
        os.path.expanduser("~"),
        tempfile.gettempdir(),
        *(path for key in ("stdlib", "purelib", "platlib") if (path := sysconfig.get_path(key))),
    }
    return tuple(sorted((place for place in places if len(place) > 3), key=len, reverse=True))
