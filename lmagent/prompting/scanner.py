"""An incremental scanner for replies: text, thinking, calls and failures, in order.

Theory of operation:

- The scanner is one generator (`_read_reply`). It is suspended when the text so far does not decide what comes next,
  and `feed` resumes it. It reads from a `TextBuffer`, whose primitives wait by themselves. So each format is described
  once, as if the whole reply were there, and the calls and the text are the same however a reply is cut into chunks.
- `_read_reply` looks at three kinds of places. Where the reply begins: bare JSON, a list of Python calls, Functionary.
  Where a line begins: code fences, block quotes, ReAct keywords. Anywhere: inline code, and the marker words in the
  table of `markers`. Everything between such places is emitted as text at once.
- A family module reads a call site and returns a `CallSite`: calls, failures, visible text, and where it ends.
- Rules that no family can break are applied in this order. Thinking is taken out, and no call in it runs. From an
  invented tool result on, the reply is dropped. Markup in code and quotes is text. What remains may be a call.
- A closing `</think>` without its opening turns everything before it into a draft. Text was emitted by then and cannot
  be taken back, but calls can be: `finish` emits them all at the end. Before, a call shows only as `CallStarted` and
  `CallDelta`, for display.
- A result marker in mid-sentence may only be named there. Then the reply is not cut, but nothing after it runs
  (`_text_only`).
- A `Thought:` line is held back until it is known whether an action follows (then it is thinking) or not (then it is
  text).
- Time is linear in the length of the reply, also for hostile text: each primitive searches on from where it stopped,
  and look-ahead is bounded or remembered (`_fences_checked_to`, `_code_never_closes`).
- Over 400 lines because all of this is one state machine: each method reads or sets where in the reply the scanner is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmagent.prompting.buffer import (
    TICK,
    Scan,
    TextBuffer,
    find_pattern,
    find_text,
    match_literal,
    prefix_table,
    skip_space,
    take_while,
)
from lmagent.prompting.calls import MAX_CALLS, NAME_KEYS, Outcome, Tools, is_placeholder
from lmagent.prompting.family_json import CALL_INFOS, CallSite, Context, bare_calls, fenced_calls
from lmagent.prompting.family_lines import (
    REACT_STARTS,
    functionary,
    harmony_header,
    plain_harmony,
    qwen_star,
    react_action,
    react_keyword,
)
from lmagent.prompting.family_tags import one_call, wrapped_calls
from lmagent.prompting.markers import (
    CLOSERS,
    ELEMENTS,
    END_WORDS,
    MARKERS,
    OPENERS,
    PLAIN_HARMONY,
    RESULTS,
    THINK_CLOSERS,
    THINKING,
    WRAPPERS,
)
from lmagent.prompting.quotation import EarlierTexts, OpenQuotation
from lmagent.prompting.scanner_events import CallFailed, CallFound, Piece, TextPiece, ThinkingPiece
from lmagent.prompting.thinking_tags import (
    ANY_THINK_TAG,
    MAX_THINK_TAG,
    Closer,
    ThinkTag,
    closer_of,
    closes_thinking,
    literal_closer,
    other_tag,
    think_tag,
)
from lmagent.toolkit.loose_json import CALL_START

__all__ = ["MAX_REPLY_CHARS", "Scanner"]

MAX_REPLY_CHARS = 4_000_000


def _begins(word: str) -> str:
    """Return the pattern of `word`, or of its beginning where the text ends; not after a small letter."""
    pattern = ""
    for char in reversed(word[1:]):
        pattern = rf"(?:{re.escape(char)}{pattern}|\Z)"
    first = re.escape(word[0])
    return f"{first}(?<![a-z]{first})(?={pattern})"


_TRIGGER = re.compile(
    "|".join(
        (
            r"[<\[✿◁`\n>]",
            r"f(?<!\wf)(?=u|$)",
            r"\](?=[<~]|\Z)",
            *map(_begins, ("assistantcommentary", "assistant to=", "-> tool/")),
        )
    )
)
"""First characters of markers, line ends and backticks."""
_MARKERS = prefix_table(MARKERS)
_PROMPT_TRIGGER = re.compile(_TRIGGER.pattern.replace("[<", "[{<", 1))
_KEYS = "|".join((*NAME_KEYS, "tool_call", "tool_calls", "function_call"))
_BARE_HEAD = re.compile(
    rf"""[\[\{{]\s{{0,40}}(?:\{{\s{{0,40}})?["'“](?:{_KEYS})["'”]\s{{0,9}}[:：]"""
    r"""|\[\s{0,40}([^\W\d][\w.-]{0,63})[ \t]{0,9}\("""
)
_BARE_HEAD_BEGUN = re.compile(
    r"""[\[{]\s{0,40}(?:\{\s{0,40})?(?:["'“]\w{0,16}(?:["'”]\s{0,9})?)?|\[\s{0,40}(?:[^\W\d][\w.-]{0,63}[ \t]{0,9})?"""
)
"""The beginning of a bare call, and the end of a text that may become one."""
_MAX_BARE_TRIES = 8
"""Each try may read to the end of the reply, so their number is bounded."""
_MAX_UNREADABLE = 4000
"""Longest content of a wrapper that is reported as an unreadable call."""
_FENCE_CHAR = {"`": TICK, "~": re.compile("~")}
_INFO = re.compile(r"[\w+.#-]")
_INDENT = re.compile(r"[ \t]")
_PROSE_AFTER = re.compile(r"[ \t]+[^\s<\[{]|[\"'`.,;:!?)\]，。；：！？）”’]")

_THINK_WORDS = frozenset((*THINKING, *THINK_CLOSERS))


class Scanner:
    """Reads one reply: `feed` it, then `finish` it once.

    Args:
        tools: Parameters schema by tool name.
        native: The provider has native calls, so the text holds at most leaked markup: fences and ReAct are text, and
            so is markup that names no known tool.
        repair: False reads strict JSON only.
        stop: The stop sequences that were sent (providers drop them from the reply).
        max_reply_chars: Longer replies are dropped from there on, as if a length limit had cut them.
        bare_json: Whether a reply that is nothing but JSON may be a call.
        thinking: Whether thinking is told apart. False for text that is known to be thinking.
        earlier: Results and user messages: a call that the model repeats from them is text.
    """

    def __init__(
        self,
        tools: Mapping[str, Mapping[str, Any]],
        *,
        native: bool = False,
        repair: bool = True,
        stop: Sequence[str] = (),
        max_reply_chars: int = MAX_REPLY_CHARS,
        bare_json: bool = True,
        thinking: bool = True,
        earlier: EarlierTexts | None = None,
    ) -> None:
        self._buffer = TextBuffer()
        self._pieces: list[Piece] = []
        self._tools = Tools(tools, native=native, repair=repair)
        self._context = Context(self._buffer, self._tools, self._pieces.append, stop=tuple(stop))
        self._native = native
        self._bare_json = bare_json
        self._reads_calls = bool(tools) or not native
        self._chars_left = max_reply_chars
        self._pending: list[Outcome] = []
        self._draft_calls = 0
        self._text_shown = False
        """Visible text was emitted (since the last unmatched end of thinking)."""
        self._thought: list[str] | None = None
        """Text of a `Thought:` line, held until it is known whether an action follows."""
        self._name_lines = tuple(name + "\n" for name in tools)
        self._arrow_lines = tuple(f">>>{name}\n" for name in tools)
        self._line_start = True
        self._blank_line = True
        """Only white space so far in this line."""
        self._at_reply_start = True
        """Only white space, thinking and markup so far: bare JSON may begin here."""
        self._call_sites = 0
        self._react = False
        self._text_only = False
        """A result marker was perhaps only named: everything after it is text and nothing in it runs."""
        self._result_invented = False
        self._reads_thinking = thinking
        self._seen_thinking = False
        self._dropped_openers = 0
        """Thinking that was opened and not closed in text which is dropped, or is text only."""
        self._fences_checked_to = 0
        """Index in the reply up to which no fence holds a call."""
        self._code_ticks = 0
        """Length of the backtick run that opened inline code on this line; 0: no inline code is open."""
        self._code_never_closes = False
        """The open inline code does not close on its line, so it is no code."""
        self._earlier = earlier
        self._quotation = OpenQuotation()
        self._quotation_closes_at = 0
        """Index in the reply where the open quotation is known to close."""
        self._in_code_block = False
        self._trigger = _TRIGGER if native else _PROMPT_TRIGGER
        self._bare_tries = _MAX_BARE_TRIES if bare_json and not native else 0
        """How often the reader may still look for a bare call after text."""
        self._machine = self._read_reply()
        next(self._machine)
        self._done = False

    @property
    def cut(self) -> bool:
        """Whether the rest of the reply is dropped (invented result, size limit), so that the stream may be closed."""
        return self._result_invented or self._chars_left <= 0

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that `text` completes."""
        if self._chars_left <= 0 or self._done:
            return []
        text = text[: self._chars_left]
        self._chars_left -= len(text)
        if text and self._buffer.feed(text):
            self._machine.send(None)
        return self._drain()

    def finish(self, finish_reason: str = "stop") -> list[Piece]:
        """Return the rest: held-back text, and all calls and failures in order.

        Args:
            finish_reason: `length` means that the reply was cut: an open call is then `truncated`.
        """
        if not self._done:
            self._done = True
            self._buffer.end(truncated=finish_reason == "length" or self._chars_left <= 0)
            for _ in self._machine:
                pass
            self._flush_thought(thinking=False)
            self._emit_calls()
        return self._drain()

    def _drain(self) -> list[Piece]:
        """Return the collected pieces, with adjacent text joined."""
        pieces = self._pieces[:]
        self._pieces.clear()
        if len(pieces) < 2:
            return pieces
        joined: list[Piece] = []
        text: list[str] = []
        for piece in pieces:
            if isinstance(piece, TextPiece):
                text.append(piece.text)
                continue
            if text:
                joined.append(TextPiece("".join(text)))
                text.clear()
            joined.append(piece)
        if text:
            joined.append(TextPiece("".join(text)))
        return joined

    def _emit_calls(self) -> None:
        if self._draft_calls and not self._pending and not self._text_shown:
            message = "the call stands inside thinking; write it after the thinking has ended"
            self._pending.append(CallFailed(self._context.next_index, None, "", "malformed", message))
        self._pieces.extend(self._pending[:MAX_CALLS])
        if len(self._pending) > MAX_CALLS:
            message = f"more than {MAX_CALLS} calls in one reply"
            self._pieces.append(CallFailed(MAX_CALLS, None, "", "malformed", message))

    def _emit_text(self, text: str) -> None:
        if not text:
            return
        if not self._in_code_block:
            self._quotation.add(text)
        visible = not text.isspace()
        if "\n" in text:
            self._blank_line = not text.rpartition("\n")[2].strip()
        elif visible:
            self._blank_line = False
        if visible:
            self._at_reply_start = False
        if self._thought is not None:
            self._thought.append(text)
            return
        if visible:
            self._text_shown = True
        self._pieces.append(TextPiece(text))

    def _flush_thought(self, *, thinking: bool) -> None:
        if self._thought is None:
            return
        text = "".join(self._thought)
        self._thought = None
        if thinking:
            self._pieces.append(ThinkingPiece(text.partition(":")[2] if text.startswith("Thought:") else text))
        elif text:
            self._text_shown = self._text_shown or bool(text.strip())
            self._pieces.append(TextPiece(text))

    def _emit_until(self, end: int) -> None:
        """Emit the text up to `end`."""
        buffer = self._buffer
        self._emit_text(buffer.text[buffer.position : end])
        buffer.position = end

    def _read_reply(self) -> Scan[None]:
        buffer = self._buffer
        yield
        while True:
            buffer.compact()
            if self._result_invented and not (yield from self._after_cut()):
                return
            if self._text_only:
                yield from self._pass_text_only()
                if buffer.ended and buffer.position >= len(buffer.text):
                    return
                continue
            if buffer.position >= len(buffer.text):
                if buffer.ended:
                    return
                yield
                continue
            if self._at_reply_start and (yield from self._reply_start()):
                continue
            if self._line_start and (yield from self._line()):
                continue
            found = self._trigger.search(buffer.text, buffer.position)
            end = found.start() if found else len(buffer.text)
            if end > buffer.position:
                self._emit_until(end)
                if found is None and not buffer.ended:
                    yield
                continue
            if buffer.text[end] == "\n":
                self._emit_until(end + 1)
                self._line_start, self._code_ticks = True, 0
            elif buffer.text[end] == "`":
                yield from self._backticks()
            elif buffer.text[end] in "{[" and (yield from self._bare_call_at_end(end)):
                continue
            elif buffer.text[end] == ">" and not self._native and not self._code_ticks:
                if not (yield from self._arrow(end)):
                    self._emit_until(end + 1)
            elif not (yield from self._read_marker()):
                self._emit_until(end + 1)

    def _reply_start(self) -> Scan[bool]:
        """Read bare JSON, Python calls or Functionary where the reply begins; False when it is something else."""
        buffer, context = self._buffer, self._context
        at = yield from skip_space(buffer, buffer.position)
        above = buffer.text.rfind("\n", buffer.position, at)
        if above >= 0:
            self._emit_until(above + 1)
            self._line_start = True
        if at >= len(buffer.text):
            return above >= 0
        char = buffer.text[at]
        if char in "{[｛［":
            if char == "[" and (yield from match_literal(buffer, at, _MARKERS)):
                return False
            self._at_reply_start = False
            if not self._bare_json or not self._reads_calls:
                return False
            site = yield from bare_calls(context, at)
            return site is not None and (yield from self._accept(site, at))
        if char.isalnum() or char == "_":
            if not self._native and (yield from match_literal(buffer, at, self._name_lines)):
                site = yield from functionary(context, at, at)
                if site:
                    return (yield from self._accept(site, at))
            self._at_reply_start = False
        return False

    def _bare_call_at_end(self, at: int) -> Scan[bool]:
        """Read a bare call of known tools that ends the reply, after text; False for anything else."""
        buffer = self._buffer
        if not self._bare_tries or self._code_ticks:
            return False
        while not (head := _BARE_HEAD.match(buffer.text, at)):
            if buffer.ended or not _BARE_HEAD_BEGUN.fullmatch(buffer.text, at):
                return False
            yield
        if head[1] and not self._tools.knows(head[1]):
            return False
        self._bare_tries -= 1
        site = yield from bare_calls(self._context, at)
        known = site is not None and all(call.name and self._tools.knows(call.name) for call in site.outcomes)
        if site is None or not site.outcomes or not known or site.end < len(buffer.text):
            return False
        return (yield from self._accept(site, at))

    def _line(self) -> Scan[bool]:
        """Read what only a line can begin with: a fence, a quote, a ReAct keyword, `>>>`; False for other lines."""
        buffer = self._buffer
        at = yield from take_while(buffer, buffer.position, _INDENT, 1000)
        if at >= len(buffer.text) and not buffer.ended:
            yield
            return True
        self._line_start = False
        self._blank_line = True
        char = buffer.text[at : at + 1]
        if char and char in "`~":
            run = yield from take_while(buffer, at, _FENCE_CHAR[char], 1000)
            if run - at >= 3:
                yield from self._fence(at, run, indent=at - buffer.position)
                return True
        elif char == ">":
            yield from self._quoted(at)
            return True
        elif char in REACT_STARTS and at - buffer.position <= 3:
            found = yield from react_keyword(self._context, at)
            if found and (not self._native or found[0] == "Observation"):
                return (yield from self._react_line(found[0], at, found[1]))
        return False

    def _quoted(self, at: int) -> Scan[None]:
        """Read a line that begins with `>`: a block quote, which is text, or Functionary's `>>>name`."""
        buffer = self._buffer
        if not self._native and (yield from match_literal(buffer, at, (">>>",))):
            site = yield from functionary(self._context, at, at + 3)
            if site:
                yield from self._accept(site, at)
                return
        yield from self._emit_line()

    def _arrow(self, at: int) -> Scan[bool]:
        """Read Functionary's `>>>name` in mid-line; False when something else stands there."""
        if not (yield from match_literal(self._buffer, at, self._arrow_lines)):
            return False
        site = yield from functionary(self._context, at, at + 3)
        return site is not None and (yield from self._accept(site, at))

    def _emit_line(self) -> Scan[None]:
        buffer = self._buffer
        while True:
            line = buffer.text.find("\n", buffer.position)
            self._emit_until(line + 1 if line >= 0 else len(buffer.text))
            if line >= 0 or buffer.ended:
                self._line_start = True
                return
            yield
            buffer.compact()

    def _react_line(self, word: str, at: int, after: int) -> Scan[bool]:
        buffer = self._buffer
        if word == "Thought":
            if self._react and self._call_sites and self._pending:
                self._flush_thought(thinking=False)
            self._flush_thought(thinking=True)
            self._emit_until(at)
            self._thought = []
            self._at_reply_start = False
            self._emit_until(after)
            return True
        if word == "Observation":
            if self._call_sites or self._thought is not None:
                self._flush_thought(thinking=True)
                self._result_invented = True
            elif any(char.isdigit() for char in buffer.text[at:after]):
                return False  # `Observation 1:` is a heading of prose
            else:
                self._text_only = True
            return True
        if word == "Final Answer":
            if self._react and self._call_sites:
                self._result_invented = True
                return True
            if self._thought is None and self._text_shown:
                return False
            self._flush_thought(thinking=True)
            buffer.position = yield from skip_space(buffer, after, lines=False)
            self._at_reply_start = False
            return True
        if word == "Action":
            site = yield from react_action(self._context, at, after)
            if site is not None and not site.plain_text:
                self._flush_thought(thinking=True)
                return (yield from self._accept(site, at))
        return False

    def _fence(self, at: int, run: int, *, indent: int) -> Scan[None]:
        """Read the code fence at `at`: a call, an invented result, or code, which is text."""
        buffer = self._buffer
        start = buffer.position
        ticks = buffer.text[at:run]
        begin = yield from skip_space(buffer, run, lines=False)
        end = yield from take_while(buffer, begin, _INFO, 40)
        info = buffer.text[begin:end].lower()
        if info in ("tool_output", "tool_response", "tool_result"):
            self._result_invented, self._text_only = bool(self._call_sites), not self._call_sites
            return
        callable_here = indent <= 3 and info in CALL_INFOS and self._reads_calls and (ticks[0] == "`" or info != "")
        if callable_here and not self._native and buffer.offset + at >= self._fences_checked_to:
            fresh = self._at_reply_start
            site, reached = yield from fenced_calls(self._context, ticks, info, end)
            if site is not None:
                self._emit_until(at)
                yield from self._accept(site, at)
                return
            if fresh and (yield from self._only_fence(at, ticks, end)):
                return
            self._fences_checked_to = max(self._fences_checked_to, buffer.offset + reached)
        buffer.position = start
        self._emit_until(end)
        yield from self._code_block(ticks)

    def _only_fence(self, at: int, ticks: str, body: int) -> Scan[bool]:
        """Read a reply that is nothing but one fenced block of call markup: some models wrap their calls so."""
        buffer = self._buffer
        first = yield from skip_space(buffer, body)
        if not (yield from match_literal(buffer, first, (*WRAPPERS, *ELEMENTS))):
            return False
        end = yield from find_text(buffer, first, "\n" + ticks)
        if end < 0:
            return False
        after = yield from skip_space(buffer, end + 1 + len(ticks))
        if after < len(buffer.text):
            return False
        reason = "length" if buffer.truncated else "stop"
        _, pieces, outcomes = self._scan_part(buffer.text[first:end], native=False, finish_reason=reason)
        if not outcomes or any(isinstance(piece, TextPiece) and piece.text.strip() for piece in pieces):
            return False
        return (yield from self._accept(CallSite(len(buffer.text), outcomes), at))

    def _scan_part(
        self, text: str, *, native: bool, finish_reason: str = "stop", thinking: bool = True
    ) -> tuple[Scanner, list[Piece], list[Outcome]]:
        """Read a part of the reply with a new scanner; return that scanner, its pieces, and the calls among them."""
        tools = self._tools
        inner = Scanner(
            tools.schemas,
            native=native,
            repair=tools.repair,
            stop=self._context.stop,
            bare_json=False,
            thinking=thinking,
        )
        pieces = [*inner.feed(text), *inner.finish(finish_reason)]
        return inner, pieces, [piece for piece in pieces if isinstance(piece, (CallFound, CallFailed))]

    def _code_block(self, ticks: str) -> Scan[None]:
        """Emit the text up to the end of the fence that `ticks` opened."""
        self._in_code_block = True
        yield from self._code_lines(ticks)
        self._in_code_block = False

    def _code_lines(self, ticks: str) -> Scan[None]:
        buffer = self._buffer
        yield from self._emit_line()
        while buffer.position < len(buffer.text) or not buffer.ended:
            buffer.compact()
            at = yield from take_while(buffer, buffer.position, _INDENT, 1000)
            run = yield from take_while(buffer, at, _FENCE_CHAR[ticks[0]], 1000)
            if run - at >= len(ticks):
                after = yield from skip_space(buffer, run, lines=False)
                if after >= len(buffer.text) or buffer.text[after] in "\r\n":
                    self._emit_until(run)
                    return
            yield from self._emit_line()

    def _backticks(self) -> Scan[None]:
        """Read a run of backticks in mid-line: inline code opens or closes, or a fence begins after text."""
        buffer = self._buffer
        at = buffer.position
        run = yield from take_while(buffer, at, TICK, 1000)
        if self._code_ticks:
            self._code_ticks = 0 if run - at == self._code_ticks else self._code_ticks
            self._emit_until(run)
            return
        if run - at >= 3:
            begin = yield from skip_space(buffer, run, lines=False)
            end = yield from take_while(buffer, begin, _INFO, 40)
            end = yield from skip_space(buffer, end, lines=False)
            if buffer.text[end : end + 1] in ("\n", "\r"):
                yield from self._fence(at, run, indent=0)
                return
        self._code_ticks, self._code_never_closes = run - at, False
        self._emit_until(run)

    def _code_closes_on_line(self) -> Scan[bool]:
        """Emit the open inline code if it closes on this line; False when it does not."""
        buffer = self._buffer
        ticks = "`" * self._code_ticks
        at = buffer.position
        while True:
            found = buffer.text.find(ticks, at)
            line = buffer.text.find("\n", buffer.position)
            if found >= 0 and (line < 0 or found < line):
                run = yield from take_while(buffer, found, TICK, 1000)
                if run - found == self._code_ticks:
                    self._code_ticks = 0
                    self._emit_until(run)
                    return True
                at = run
                continue
            if line < 0 and buffer.truncated:  # the code was cut, too
                self._emit_until(len(buffer.text))
                return True
            if line >= 0 or buffer.ended:
                return False
            at = max(buffer.position, len(buffer.text) - self._code_ticks)
            yield

    def _read_marker(self) -> Scan[bool]:
        """Read the marker at the current position; False when there is none."""
        buffer = self._buffer
        at = buffer.position
        mark = yield from match_literal(buffer, at, _MARKERS)
        tag = None
        if mark in _THINK_WORDS or (mark is None and not other_tag(buffer.text, at)):
            tag = yield from self._think_tag(mark, at)
        if mark is None and tag is None:
            if buffer.ended and self._call_sites and self._blank_line and self._cut_inside_closer(at):
                buffer.position = len(buffer.text)
                return True
            if buffer.ended and buffer.truncated and self._cut_inside_opener(at):
                failure = self._tools.unfinished(buffer.text[at:], truncated=True)
                return (yield from self._accept(CallSite(len(buffer.text), [failure]), at))
            return False
        span = self._code_ticks
        if span and not self._code_never_closes:
            if (yield from self._code_closes_on_line()):
                return True
            self._code_never_closes = True
        if tag is not None:
            if tag.closer is None:
                self._close_lone_thinking(tag.end)
            else:
                yield from self._think_until(tag.closer, tag.end, line_start=self._blank_line)
            return True
        if mark is None or mark in _THINK_WORDS:
            return False
        after = at + len(mark)
        if mark in RESULTS:
            return (yield from self._result(mark, after))
        if mark in END_WORDS or mark in CLOSERS:
            return (yield from self._unmatched_closer(mark, after))
        if not self._reads_calls:
            return False
        if mark in ("<|start|>", "<|channel|>"):
            return (yield from self._harmony(mark, at, after))
        site = yield from self._read_site(mark, at, after)
        if site is None and mark in WRAPPERS and not self._native:
            site = yield from self._unreadable(mark, at, after)
        if site is None:
            self._emit_until(after)
            return True
        if span:
            closing = yield from take_while(buffer, site.end, TICK, 1000)
            if closing - site.end == span:
                self._code_ticks = 0
                self._emit_until(closing)
                return True
        return (yield from self._accept(site, at))

    def _think_tag(self, mark: str | None, at: int) -> Scan[ThinkTag | None]:
        """Return the tag of thinking at `at`; `mark` is the marker word that stands there."""
        if not self._reads_thinking:
            return None
        if mark in THINKING:
            return ThinkTag(at + len(mark), closer_of(mark))
        if mark in THINK_CLOSERS:
            return ThinkTag(at + len(mark), None)
        if self._buffer.text[at] != "<":
            return None
        return (yield from think_tag(self._buffer, at, known=not self._reads_calls))

    def _cut_inside_opener(self, at: int) -> bool:
        """Return whether the reply was cut inside a marker that only a call begins with."""
        rest = self._buffer.text[at:]
        return (
            len(rest) >= 5
            and self._reads_calls
            and not self._code_ticks
            and any(mark.startswith(rest) for mark in OPENERS)
        )

    def _cut_inside_closer(self, at: int) -> bool:
        """Return whether the reply ends within the closing word of a call."""
        rest = self._buffer.text[at:]
        return any(mark.startswith(rest) for mark in (*CLOSERS, *END_WORDS, *(MARKERS if len(rest) < 5 else ())))

    def _read_site(self, mark: str, at: int, after: int) -> Scan[CallSite | None]:
        context = self._context
        if mark == "✿FUNCTION✿":
            return (yield from qwen_star(context, at, after))
        if mark in PLAIN_HARMONY:
            return (yield from plain_harmony(context, at, after))
        if mark in WRAPPERS:
            return (yield from wrapped_calls(context, mark, at, after))
        return (yield from one_call(context, "", at, 0))

    def _unreadable(self, mark: str, at: int, after: int) -> Scan[CallSite | None]:
        """Read a wrapper whose content is no call in any known form: a failure; None when a sentence names the marker.

        The wrapper must be intact and stand where a call stands: on lines of its own, or around the name of a tool.
        """
        buffer, tools = self._buffer, self._tools
        closers = re.compile("|".join(map(re.escape, (mark, *WRAPPERS[mark]))))
        found = yield from find_pattern(buffer, after, closers, 40)
        if mark == "<|python_tag|>" and not found:
            end = start = len(buffer.text)
        elif found and found.group() != mark and found.start() - after <= _MAX_UNREADABLE:
            start, end = found.span()
        else:
            return None
        content = buffer.text[after:start].strip()
        if CALL_START.match(content) and content.endswith(")"):
            outcomes = tools.from_python(content, marked=True)
            if outcomes:
                return CallSite(end, outcomes)
        named = any(name in content for name in tools.schemas)
        if is_placeholder(content) and content and not named:
            return None
        if not named and (not self._blank_line or (content and "\n" not in buffer.text[after:start])):
            rest = yield from skip_space(buffer, end, lines=False)
            if not self._blank_line or buffer.text[rest : rest + 1] not in ("", "\n", "\r"):
                return None
        if buffer.truncated and end >= len(buffer.text):
            return CallSite(end, [tools.unfinished(buffer.text[at:end], truncated=True)])
        message = f"the text in {mark} is no call in any known form"
        return CallSite(end, [tools.failed(buffer.text[at:end], "malformed", message)])

    def _harmony(self, mark: str, at: int, after: int) -> Scan[bool]:
        kind, site = yield from harmony_header(self._context, at, after, mark)
        if kind == "foreign":
            self._result_invented = True
        elif site is None:
            self._emit_until(after)
        elif kind == "analysis":
            yield from self._think_until(literal_closer("<|end|>"), site.end, line_start=True)
        else:
            yield from self._accept(site, at)
        return True

    def _accept(self, site: CallSite, start: int) -> Scan[bool]:
        """Accept a site: keep its calls for `finish` and emit its text. Quoted calls are text. Always True."""
        buffer = self._buffer
        quoted = bool(site.outcomes) and (
            (yield from self._in_quotation(site.end, start)) or self._repeated(site, start)
        )
        if quoted or (not site.outcomes and site.plain_text):
            self._emit_until(site.end)
            self._line_start = False
            return True
        if start > buffer.position:
            self._emit_text(buffer.text[buffer.position : start])
        if site.outcomes:
            self._flush_thought(thinking=False)
        for outcome in site.outcomes:
            outcome.index = self._context.next_index
            self._context.next_index += 1
            self._pending.append(outcome)
        if site.outcomes:
            self._call_sites += 1
            self._react = site.react
        buffer.position = max(buffer.position, site.end)
        self._at_reply_start = False
        self._blank_line = True
        self._line_start = True
        self._code_ticks = 0
        self._emit_text(site.text)
        return True

    def _in_quotation(self, end: int, start: int) -> Scan[bool]:
        """Return whether a quotation is open at `start` and closes after `end`."""
        buffer = self._buffer
        if start > buffer.position:
            self._emit_until(start)
        closing = self._quotation.closing()
        if closing is None:
            return False
        if self._quotation_closes_at >= buffer.offset + end:
            return True
        found = yield from find_pattern(buffer, end, closing, 110)
        if found and found["end"]:
            self._quotation_closes_at = buffer.offset + found.start()
            return True
        if not found and buffer.truncated:  # the quotation was cut, too
            self._quotation_closes_at = buffer.offset + len(buffer.text)
            return True
        self._quotation.forget()
        return False

    def _repeated(self, site: CallSite, start: int) -> bool:
        """Return whether the model repeats the calls of the site from a tool result or a user message."""
        calls = [outcome for outcome in site.outcomes if isinstance(outcome, CallFound)]
        return (
            bool(calls) and self._earlier is not None and self._earlier.hold(self._context.raw(start, site.end), calls)
        )

    def _unmatched_closer(self, mark: str, after: int) -> Scan[bool]:
        """Drop an end token or an unmatched closing word after markup or at a line's end; False where it is prose."""
        buffer = self._buffer
        at = yield from skip_space(buffer, after, lines=False)
        ends = at >= len(buffer.text) or buffer.text[at] in "\r\n<"
        if mark in END_WORDS:
            begins = mark in ("<|START_RESPONSE|>", "<|open|>response<|sep|>") and self._blank_line
            if self._native or not (ends or begins):
                return False
        elif not self._call_sites or not self._blank_line:
            return False
        buffer.position = after
        self._line_start = self._blank_line
        return True

    def _result(self, mark: str, after: int) -> Scan[bool]:
        """Drop the rest of the reply: the model invents a tool result. Not when a sentence only names the marker."""
        buffer = self._buffer
        if (yield from self._in_quotation(after, buffer.position)):
            self._emit_until(after)
            return True
        if mark == "<|im_start|>" and not self._call_sites and not self._text_shown:
            role = yield from match_literal(buffer, after, ("assistant\n", "assistant\r\n"))
            if role:
                buffer.position = after + len(role)
                return True
        if self._native and not self._call_sites:
            self._text_only = True
            return True
        if not self._call_sites and not self._blank_line:
            while len(buffer.text) < after + 2 and not buffer.ended:
                yield
            space = yield from skip_space(buffer, after, lines=False)
            if _PROSE_AFTER.match(buffer.text, after, space + 1) or space >= len(buffer.text):
                self._text_only = True
                return True
        self._flush_thought(thinking=True)
        self._result_invented = True
        return True

    def _pass_text_only(self) -> Scan[None]:
        """Emit text after a result marker that was perhaps only named."""
        found = yield from self._next_closer()
        if found < 0:
            return
        self._emit_until(found)
        self._text_only = False

    def _next_closer(self) -> Scan[int]:
        """Emit text up to the next unopened end of thinking; return its index, -1 at the end of the reply."""
        buffer = self._buffer
        while True:
            found = ANY_THINK_TAG.search(buffer.text, buffer.position)
            if found and self._counts_as_lone_closer(found):
                return found.start()
            if found:
                self._emit_until(found.end())
                continue
            keep = len(buffer.text) if buffer.ended else _tag_begins(buffer)
            self._emit_until(keep)
            if buffer.ended:
                return -1
            yield
            buffer.compact()

    def _counts_as_lone_closer(self, found: re.Match[str]) -> bool:
        """Return whether a tag in text that is not scanned closes thinking that was opened before that text."""
        if not closes_thinking(found):
            self._dropped_openers += 1
            return False
        if self._dropped_openers:
            self._dropped_openers -= 1
            return False
        return True

    def _close_lone_thinking(self, after: int) -> None:
        """Handle `</think>` without its opening: everything before was thinking, so none of its calls runs."""
        self._flush_thought(thinking=True)
        self._draft_calls += len(self._pending)
        self._pending.clear()
        self._buffer.position = after
        self._call_sites = 0
        self._react = self._result_invented = self._text_only = self._text_shown = False
        self._dropped_openers = 0
        self._at_reply_start = self._line_start = self._blank_line = True
        self._code_ticks = 0

    def _after_cut(self) -> Scan[bool]:
        """Drop text after an invented result; True when an end of thinking shows that all of it was a draft."""
        buffer = self._buffer
        while not self._seen_thinking:
            found = yield from find_pattern(buffer, buffer.position, ANY_THINK_TAG, MAX_THINK_TAG)
            if found is None:
                break
            buffer.position = found.end()
            if self._counts_as_lone_closer(found):
                self._close_lone_thinking(found.end())
                return True
            buffer.compact()
        while not buffer.ended:
            buffer.position = len(buffer.text)
            yield
            buffer.compact()
        buffer.position = len(buffer.text)
        return False

    def _think_until(self, closer: Closer, begin: int, *, line_start: bool) -> Scan[None]:
        """Emit thinking from `begin` up to `closer`.

        A tag in mid-line may only be named in a sentence, so there the thinking is held until it closes.
        """
        buffer = self._buffer
        opened = buffer.position
        self._seen_thinking = True
        whole: list[str] = []
        if not line_start:
            found = yield from find_pattern(buffer, begin, closer.pattern, MAX_THINK_TAG)
            if found is None:
                self._thinking_never_closed(buffer.text[begin:], buffer.text[opened:])
                return
            self._pieces.append(ThinkingPiece(buffer.text[begin : found.start()]))
            buffer.position = found.end()
            return
        buffer.position = begin
        while True:
            found = closer.pattern.search(buffer.text, buffer.position)
            if found:
                stop = found.start()
            else:
                stop = len(buffer.text) if buffer.ended else closer.held_from(buffer.text, buffer.position)
            if stop > buffer.position:
                whole.append(buffer.text[buffer.position : stop])
                self._pieces.append(ThinkingPiece(whole[-1]))
            buffer.position = stop
            if found:
                buffer.position = found.end()
                self._line_start = self._blank_line = True
                self._at_reply_start = self._at_reply_start or not self._text_shown
                return
            if buffer.ended:
                self._thinking_never_closed("".join(whole), "")
                return
            yield
            buffer.compact()

    def _thinking_never_closed(self, thinking: str, text: str) -> None:
        """Handle thinking that never closed: only one call at its very end runs, and none after a cut."""
        buffer = self._buffer
        buffer.position = len(buffer.text)
        self._emit_text(text)
        if buffer.truncated:
            message = "the reply was cut by the length limit while thinking"
            self._pending.append(CallFailed(self._context.next_index, None, "", "truncated", message))
            return
        inner, _, calls = self._scan_part(thinking, native=self._native, thinking=False)
        if not calls:
            return
        if len(calls) == 1 and inner.ended_with_call and isinstance(calls[0], CallFound):
            calls[0].index = self._context.next_index
            self._pending.append(calls[0])
            return
        message = "the call stands inside thinking that never ended; write it after the thinking"
        self._pending.append(CallFailed(self._context.next_index, None, thinking[-200:], "malformed", message))

    @property
    def ended_with_call(self) -> bool:
        """Whether only white space came after the last call."""
        return bool(self._call_sites) and self._blank_line and self._line_start


def _tag_begins(buffer: TextBuffer) -> int:
    """Return where the end of the text may begin a tag of thinking; its length when it does not."""
    text = buffer.text
    after = max(buffer.position, len(text) - MAX_THINK_TAG)
    at = max(text.rfind("<", after), text.rfind("[", after), text.rfind("◁", after))
    return len(text) if at < 0 or ">" in text[at:] else at
