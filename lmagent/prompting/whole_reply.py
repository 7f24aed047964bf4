"""Readers of a reply: `read_reply` for a text or its chunks, and `WholeReplyReader` for whole-reply JSON in a stream.

A whole-reply object is the form of constrained decoding: `{"thought": ..., "response": ...}` is emitted while it
arrives, and `{"tool_calls": [...]}` goes to the scanner.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmagent.prompting.quotation import EarlierTexts
from lmagent.prompting.scanner import Scanner
from lmagent.prompting.scanner_events import CallFailed, CallFound, Piece, TextPiece, ThinkingPiece

__all__ = ["ReadReply", "WholeReplyReader", "read_reply"]

_OBJECT_START = re.compile(r"\s{0,400}(?:```(?:json)?\s{0,400})?\{\s*", re.IGNORECASE)
_MAY_BE_START = re.compile(r"\s{0,400}(?:`{1,3}|```j?s?o?n?\s{0,400})?", re.IGNORECASE)
_KEY = re.compile(r'\s*"(thought|response)"\s*:\s*(?=\S)')
_MAX_KEY = 64
_CHUNK = 1024
"""Characters read at a time: each step copies the rest of the buffer, so the buffer must stay short."""
_PLAIN = re.compile(r'[^"\\]+')
_BLANKS = re.compile(r"\s{0,64}")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_STRUCTURE = re.compile(r'["{}\[\]]')
_SCALAR = re.compile(r"(-?[0-9][0-9.eE+-]*|true|false|null)\s*(?=[,}])")
_PARTIAL_SCALAR = re.compile(r"[\w.+-]{0,40}\s{0,40}")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"}


class WholeReplyReader:
    """Reads one reply that should be one JSON object; any other text goes to the scanner.

    Has the methods of the scanner: `feed` it, then `finish` it once.

    Args:
        scanner: Reads the calls.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._buf: str = ""
        self._head = ""
        """The beginning of an object of which nothing was emitted yet."""
        self._step: Callable[[], bool] | None = self._start
        self._kind: type[TextPiece] | type[ThinkingPiece] = TextPiece
        self._depth = 0
        self._in_string = False
        self._pieces: list[Piece] = []
        self._ended = False

    @property
    def cut(self) -> bool:
        """Whether the rest of the reply is dropped."""
        return self._scanner.cut

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that `text` completes."""
        if self._step is None:
            return self._scanner.feed(text)
        for start in range(0, len(text), _CHUNK):
            piece = text[start : start + _CHUNK]
            if self._step is None:
                self._pieces.extend(self._scanner.feed(piece))
                continue
            self._buf += piece
            while self._step is not None and self._step():
                pass
        return self._drain()

    def finish(self, finish_reason: str = "stop") -> list[Piece]:
        """Return the rest: held-back text, calls and failures."""
        self._ended = True
        while self._step is not None and self._buf and self._step():
            pass
        if self._step is not None and self._head:
            self._pass_to_scanner(self._head)
        return [*self._drain(), *self._scanner.finish(finish_reason)]

    def _drain(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _emit(self, text: str) -> None:
        if text:
            last = self._pieces[-1] if self._pieces else None
            if isinstance(last, self._kind):
                last.text += text
            else:
                self._pieces.append(self._kind(text))

    def _pass_to_scanner(self, text: str) -> bool:
        """Give `text` and the rest of the reply to the scanner."""
        self._step = None
        self._buf = ""
        if text:
            self._pieces.extend(self._scanner.feed(text))
        return False

    # Steps: each returns whether it made progress.

    def _start(self) -> bool:
        found = _OBJECT_START.match(self._buf)
        if found:
            self._head, self._buf = found.group(), self._buf[found.end() :]
            self._step = self._key
            return True
        if self._ended or _MAY_BE_START.fullmatch(self._buf) is None:
            return self._pass_to_scanner(self._buf)
        return False

    def _key(self) -> bool:
        found = _KEY.match(self._buf)
        if found is None:
            begun = self._buf.lstrip()
            known = any(f'"{name}"'.startswith(begun[: len(name) + 2]) for name in ("thought", "response"))
            if self._ended or (begun and not known) or len(self._buf) >= _MAX_KEY:
                return self._pass_to_scanner((self._head or "{") + self._buf)
            return False
        value = self._buf[found.end()]
        self._kind = ThinkingPiece if found.group(1) == "thought" else TextPiece
        if value == '"':
            self._buf, self._step = self._buf[found.end() + 1 :], self._string
        elif self._kind is TextPiece and value in "{[":
            self._buf, self._step, self._depth = self._buf[found.end() :], self._value, 0
        elif self._kind is TextPiece and (scalar := _SCALAR.match(self._buf, found.end())):
            self._emit("" if scalar.group(1) == "null" else scalar.group(1))  # null accompanies calls
            self._buf, self._step = self._buf[scalar.end() :], self._after
        elif self._kind is TextPiece and not self._ended and _PARTIAL_SCALAR.fullmatch(self._buf, found.end()):
            return False
        else:
            return self._pass_to_scanner((self._head or "{") + self._buf)
        self._head = ""
        return True

    def _string(self) -> bool:
        """Decode a string as far as it has arrived."""
        buf, at = self._buf, 0
        text: list[str] = []
        while at < len(buf):
            run = _PLAIN.match(buf, at)
            if run:
                text.append(run.group())
                at = run.end()
                continue
            if buf[at] == '"':
                blanks = _BLANKS.match(buf, at + 1)
                after = blanks.end() if blanks else at + 1
                endless = after - at > 64  # a weak model may close its answer and then write white space without end
                if after >= len(buf) and not self._ended and not endless:
                    break
                if after >= len(buf) or endless or buf[after] in ",}":
                    self._emit("".join(text))
                    self._buf, self._step = buf[after:], self._after
                    return True
                text.append('"')  # a quote that the model forgot to escape
                at += 1
                continue
            end, decoded = self._escape(buf, at)
            if end < 0:
                break
            text.append(decoded)
            at = end
        self._emit("".join(text))
        self._buf = buf[at:]
        return False

    def _escape(self, buf: str, at: int) -> tuple[int, str]:
        """Return the end and the decoded text of the escape at `at`; -1 while it is incomplete."""
        if at + 1 >= len(buf):
            return -1, ""
        char = buf[at + 1]
        if char != "u":
            return at + 2, _ESCAPES.get(char, "\\" + char)
        if len(buf) < at + 6:
            return (-1, "") if not self._ended else (len(buf), "")
        if not _HEX.fullmatch(buf, at + 2, at + 6):
            return at + 2, "\\u"
        code = int(buf[at + 2 : at + 6], 16)
        if not 0xD800 <= code <= 0xDFFF:
            return at + 6, chr(code)
        low = buf[at + 6 : at + 12]
        if code <= 0xDBFF and len(low) < 6 and "\\u".startswith(low[:2]) and not self._ended:
            return -1, ""
        if code <= 0xDBFF and low[:2] == "\\u" and _HEX.fullmatch(low, 2):
            second = int(low[2:], 16)
            if 0xDC00 <= second <= 0xDFFF:
                return at + 12, chr(0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00))
        return at + 6, "\ufffd"

    def _value(self) -> bool:
        """Emit a structured answer as its JSON text, up to its end."""
        buf, at = self._buf, 0
        while at < len(buf):
            if self._in_string:
                run = _PLAIN.match(buf, at)
                at = run.end() if run else at
                if at >= len(buf):
                    break
                if buf[at] == "\\":
                    if at + 1 >= len(buf):
                        break
                    at += 2
                    continue
                self._in_string = False
                at += 1
                continue
            found = _STRUCTURE.search(buf, at)
            if found is None:
                at = len(buf)
                break
            char, at = found.group(), found.start()
            if char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    self._emit(buf[: at + 1])
                    self._buf, self._step = buf[at + 1 :], self._after
                    return True
            at += 1
        self._emit(buf[:at])
        self._buf = buf[at:]
        return False

    def _after(self) -> bool:
        self._buf = rest = self._buf.lstrip()
        if not rest:
            return False
        if rest[0] == ",":
            self._buf, self._step = rest[1:], self._key
            return True
        if rest[0] == "}":
            self._buf, self._step = rest[1:], self._rest
            return True
        return self._pass_to_scanner(rest)

    def _rest(self) -> bool:
        self._buf = self._buf.lstrip()
        if self._buf:
            self._step = self._fence_end
        return bool(self._buf)

    def _fence_end(self) -> bool:
        """Skip the end of a fence, or surplus braces."""
        self._buf = self._buf.lstrip("}`")
        if self._buf:
            self._step = self._surplus
        return bool(self._buf)

    def _surplus(self) -> bool:
        """Give the text after the object to the scanner."""
        self._buf = self._buf.lstrip()
        return self._pass_to_scanner(self._buf) if self._buf else False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReply:
    """The content of a reply. Calls and failures are in order of appearance."""

    text: str
    """Text for the user, without markup and thinking."""
    thinking: str
    calls: tuple[CallFound, ...]
    """Calls that may run: known tool, arguments (JSON text) that fit its schema, `repairs`."""
    failures: tuple[CallFailed, ...]
    """Calls that do not run, with `reason` and a `message` for the model."""


def read_reply(
    reply: str | Iterable[str],
    tools: Mapping[str, Mapping[str, Any]],
    *,
    finish_reason: str = "stop",
    stop: Sequence[str] = (),
    native: bool = False,
    repair: bool = True,
    earlier: Iterable[str] = (),
) -> ReadReply:
    """Read text, thinking, calls and failures from a reply.

    Args:
        reply: The text, or its chunks. How it is cut does not matter.
        tools: Parameters schema (JSON Schema) by tool name.
        finish_reason: `length` when the reply was cut there.
        stop: The stop sequences that were sent.
        native: The reply comes from a provider with native calls, so only leaked markup counts.
        repair: False reads strict JSON only.
        earlier: Tool results and user messages of the conversation: a call that is repeated from them is text.
    """
    scanner = Scanner(tools, native=native, repair=repair, stop=stop, earlier=EarlierTexts(texts=earlier))
    chunks = [reply] if isinstance(reply, str) else reply
    pieces: list[Piece] = [piece for chunk in chunks for piece in scanner.feed(chunk)]
    pieces.extend(scanner.finish(finish_reason))
    return ReadReply(
        text="".join(piece.text for piece in pieces if isinstance(piece, TextPiece)),
        thinking="".join(piece.text for piece in pieces if isinstance(piece, ThinkingPiece)),
        calls=tuple(piece for piece in pieces if isinstance(piece, CallFound)),
        failures=tuple(piece for piece in pieces if isinstance(piece, CallFailed)),
    )
