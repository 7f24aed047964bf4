"""Assemble the tool calls of Chat Completions from pieces: which call a piece belongs to, and what it adds.

Servers omit indexes and ids, repeat them, number every call 0, send names and arguments twice, in pieces, as objects or
inside texts. Each case has one defined outcome. No call runs twice, and none runs with arguments that were not sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lmagent.core.events import Delta, ReasoningDelta, TextDelta, ToolCallDelta
from lmagent.core.messages import ToolCall
from lmagent.providers.fields import arguments_text, mapping, parsed

__all__ = ["CallState", "ThinkSplitter", "end_calls", "read_calls"]

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Split pieces of content into reasoning and text.

    Only a block at the very beginning counts; a later `<think>` is text that the model wrote. White space around the
    block belongs to neither. `raw` keeps everything that was split off, character by character, to send it back.
    """

    __slots__ = ("_held", "_place", "_raw", "_thought")

    def __init__(self) -> None:
        self._place: Literal["start", "thinking", "after", "text"] = "start"
        self._held = ""
        self._raw: list[str] = []
        self._thought = False

    @property
    def raw(self) -> str:
        """Everything before the text, tags and white space included; empty if there was no block."""
        return "".join(self._raw)

    def feed(self, piece: str) -> list[TextDelta | ReasoningDelta]:
        """Return the deltas that `piece` completes. The beginning of a tag is held back for the next piece."""
        if self._place == "text":
            return [TextDelta(piece)]
        found: list[TextDelta | ReasoningDelta] = []
        text, self._held = self._held + piece, ""
        if self._place == "start":
            stripped = text.lstrip()
            if not stripped.startswith(_OPEN):
                if _OPEN.startswith(stripped):
                    self._held = text
                    return found
                self._place = "text"
                return [TextDelta(text)]
            self._raw.append(text[: len(text) - len(stripped) + len(_OPEN)])
            self._place, text = "thinking", stripped[len(_OPEN) :]
        if self._place == "thinking":
            thought, close, text = text.partition(_CLOSE)
            if not close:
                keep = len(thought) - _sure(thought)
                self._held, thought = thought[len(thought) - keep :], thought[: len(thought) - keep]
                self._think(thought, found)
                return found
            self._think(thought.rstrip(), found)
            self._raw.append(thought[len(thought.rstrip()) :] + close)
            self._place = "after"
        stripped = text.lstrip()
        self._raw.append(text[: len(text) - len(stripped)])
        if stripped:
            self._place = "text"
            found.append(TextDelta(stripped))
        return found

    def _think(self, thought: str, found: list[TextDelta | ReasoningDelta]) -> None:
        self._raw.append(thought)
        shown = thought if self._thought else thought.lstrip()
        if shown:
            self._thought = True
            found.append(ReasoningDelta(shown))

    def close(self) -> list[TextDelta | ReasoningDelta]:
        """Return the text that was held back at the end of the answer."""
        text, self._held = self._held, ""
        if not text:
            return []
        if self._place == "start":
            return [TextDelta(text)]
        found: list[TextDelta | ReasoningDelta] = []
        self._think(text, found)
        return found


def _sure(thought: str) -> int:
    """Return the length of `thought` without a trailing part of the end tag and the white space before it."""
    for length in range(min(len(_CLOSE) - 1, len(thought)), 0, -1):
        if thought.endswith(_CLOSE[:length]):
            thought = thought[: len(thought) - length]
            break
    return len(thought.rstrip())


@dataclass(slots=True, eq=False)
class _Call:
    """One tool call so far."""

    index: int
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list[str])
    size: int = 0
    blank: str = ""
    """White space before the first real piece."""
    placeholder: bool = False
    """`{}` came as the first piece: no arguments, unless more follow."""
    settled: bool = False
    """Passed on as a whole; nothing is left for the end."""

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments so far are a complete JSON object, so that nothing can follow."""
        ends = self.size > 1 and self.pieces[-1].rstrip()[-1:] == "}"
        return self.placeholder or (ends and isinstance(parsed(self.arguments), dict))


@dataclass(slots=True, eq=False)
class CallState:
    """The calls of ONE reply so far."""

    opened: list[_Call] = field(default_factory=list[_Call])
    slots: dict[int, _Call] = field(default_factory=dict[int, _Call])
    """By the server's index; the newest call if the index repeats."""
    by_id: dict[str, _Call] = field(default_factory=dict[str, _Call])


def read_calls(state: CallState, items: list[dict[str, Any]], *, whole: bool) -> list[Delta]:
    """Return the deltas of one `tool_calls` list.

    Args:
        state: Of this reply.
        items: The list.
        whole: It is a complete list, not pieces; at the end of a stream it repeats the earlier pieces.
    """
    return _repeated_calls(state, items) if whole and state.opened else _new_calls(state, items, whole=whole)


def _new_calls(state: CallState, items: list[dict[str, Any]], *, whole: bool) -> list[Delta]:
    deltas: list[Delta] = []
    taken: set[int] = set()
    """Calls that this list has mentioned; without an index, each entry of a list is a call of its own."""
    for item in items:
        function = mapping(item.get("function"))
        call_id = _identifier(item.get("id"))
        name = _name(function.get("name"))
        arguments = arguments_text(function.get("arguments"))
        if _is_repeat(state, call_id, name, arguments, whole=whole):
            continue  # an exact repetition, id included: it must not run twice
        call = None if whole else _slot(state, item, call_id, name, arguments, taken)
        if call is None:
            call = _Call(len(state.opened))
            state.opened.append(call)
            index = _index(item)
            if index is not None:
                state.slots[index] = call
        elif name and call.is_complete and call.name == name and _same(call, arguments):
            taken.add(call.index)
            continue  # the complete call a second time: it must not run twice
        taken.add(call.index)
        new_id = "" if call.id else call_id
        if new_id:
            call.id = new_id
            state.by_id.setdefault(new_id, call)
        piece = _more_name(call, call_id, name)
        call.name += piece
        shown = _take_arguments(call, arguments)
        if new_id or piece or shown:
            deltas.append(ToolCallDelta(call.index, new_id, piece, shown))
    return deltas


def _identifier(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _index(item: Mapping[str, Any]) -> int | None:
    value = item.get("index")
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _name(value: Any) -> str:
    """Return a function's name without parts of the model's own format (Kimi's prefix, harmony's channel)."""
    return (value if isinstance(value, str) else "").removeprefix("functions.").partition("<|")[0].strip()


def _slot(
    state: CallState, item: Mapping[str, Any], call_id: str, name: str, arguments: str, taken: set[int]
) -> _Call | None:
    """Return the call that a piece continues; None if it begins a new one."""
    index = _index(item)
    if index is not None:
        call = state.slots.get(index)
        if call is None:
            return None
    elif call_id:
        call = state.by_id.get(call_id)
        if call is None:
            # An id on a piece without a name belongs to the open call, if that call has none yet.
            last = state.opened[-1] if state.opened else None
            return last if last is not None and not name and not last.id else None
    else:
        call = state.opened[-1] if state.opened else None
        if call is None or (call.index in taken and name):
            return None
    other_id = bool(call_id and call.id and call_id != call.id)
    if not name:  # some servers give every piece an id of its own, so only a complete call has ended
        return None if other_id and call.is_complete and arguments.strip() else call
    if other_id:
        return None  # servers that number every call 0
    if call.index in taken and call_id != call.id:
        return None
    if call.is_complete and arguments.strip() and not (call.name == name and _same(call, arguments)):
        return None
    if call.is_complete and name != call.name and not call_id:
        return None
    return call


def _is_repeat(state: CallState, call_id: str, name: str, arguments: str, *, whole: bool) -> bool:
    call = state.by_id.get(call_id) if call_id else None
    if call is None or call.name != name or not (whole or (arguments.strip() and call.is_complete)):
        return False
    return (arguments.strip() or "{}") == (call.arguments.strip() or "{}")


def _same(call: _Call, arguments: str) -> bool:
    return not arguments.strip() or arguments.strip() == (call.arguments.strip() or "{}")


def _more_name(call: _Call, call_id: str, name: str) -> str:
    """Return what `name` adds: all of it the first time, later only a new piece that came without an id."""
    if not name or not call.name:
        return name
    if call_id or call.size or call.placeholder or name == call.name:
        return ""
    return name.removeprefix(call.name)


def _take_arguments(call: _Call, piece: str) -> str:
    """Return the piece to pass on; a repetition of all arguments, blanks and a first `{}` are held back."""
    if not piece or call.settled:
        return ""
    if not call.size:
        stripped = piece.strip()
        if not stripped:
            call.blank += piece
            return ""
        if stripped == "{}":
            call.placeholder = True
            return ""
        call.placeholder = False
        piece, call.blank = call.blank + piece, ""
    elif len(piece) == call.size and piece.lstrip()[:1] == "{" and piece == call.arguments and call.is_complete:
        return ""  # some servers repeat the arguments in the last chunk
    call.pieces.append(piece)
    call.size += len(piece)
    return piece


def _repeated_calls(state: CallState, items: list[dict[str, Any]]) -> list[Delta]:
    """Read a whole message at the end of a stream: it replaces the calls that came in pieces, so none runs twice."""
    deltas: list[Delta] = []
    known = list(state.opened)
    for position, item in enumerate(items):
        call_id = _identifier(item.get("id"))
        call = state.by_id.get(call_id) or (known[position] if position < len(known) else None)
        if call is None:
            deltas.extend(_new_calls(state, [item], whole=True))
            continue
        function = mapping(item.get("function"))
        call.name = _name(function.get("name")) or call.name
        text = arguments_text(function.get("arguments")) or call.arguments
        deltas.append(ToolCallDelta(call.index, whole=_whole_call(call, text)))
        call.settled = True
    return deltas


def _whole_call(call: _Call, text: str) -> ToolCall:
    text = text if text.strip() else "{}"
    inner = _unpacked(text)
    if inner is None:
        return ToolCall(id=call.id, name=call.name, arguments=text)
    return ToolCall(id=call.id, name=call.name, arguments=inner, repairs=("encoded as a string",))


def _unpacked(text: str) -> str | None:
    """Return the JSON inside a JSON string (`"{\\"a\\": 1}"`), or None if `text` is not a JSON string."""
    inner = parsed(text) if text.lstrip().startswith('"') else None
    return (inner if inner.strip() else "{}") if isinstance(inner, str) else None


def end_calls(state: CallState) -> list[Delta]:
    """Return the final deltas of the calls of a complete reply."""
    deltas: list[Delta] = []
    for call in state.opened:
        if call.settled:
            continue
        if not call.size:
            deltas.append(ToolCallDelta(call.index, arguments="{}"))
        elif call.pieces[0].lstrip().startswith('"'):
            deltas.append(ToolCallDelta(call.index, whole=_whole_call(call, call.arguments)))
    return deltas
