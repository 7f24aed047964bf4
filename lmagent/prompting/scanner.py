"""One incremental scanner for streamed and whole replies: text, thinking, calls and failures, in order.

Fed whole or in chunks, the pieces add up to the same calls and the same text, however the text is cut. A call is handed
out only by `finish`: until then a `</think>` may still turn all of it into a draft. Order of work: thinking out, cut at
an invented result, code and quotes left alone, then call sites.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmagent.prompting import family_json as fences
from lmagent.prompting import family_lines as lines
from lmagent.prompting import family_tags as tags
from lmagent.prompting.buffer import Scan, Source, literal, skip_space, take_while, until
from lmagent.prompting.calls import Outcome, Tools
from lmagent.prompting.family_json import Context, Site
from lmagent.prompting.markers import (
    CLOSERS,
    ELEMENTS,
    END_WORDS,
    MARKERS,
    OPENERS,
    RESULTS,
    THINK_CLOSERS,
    THINKING,
    WRAPPERS,
)
from lmagent.prompting.scanner_events import CallFailed, CallFound, Piece, TextPiece, ThinkingPiece

__all__ = ["MAX_REPLY_CHARS", "Scanner"]

MAX_REPLY_CHARS = 4_000_000
_MAX_CALLS = 64
_TRIGGER = re.compile(r"[<\[✿`\n>]|(?<!\w)f(?=u|$)")
_TICK = re.compile("`")
_FENCE_CHAR = {"`": _TICK, "~": re.compile("~")}
_INFO = re.compile(r"[\w+.#-]")
_INDENT = re.compile(r"[ \t]")
_PROSE_AFTER = re.compile(r"[ \t]+[^\s<\[{]|[\"'`.,;:!?)\]，。；：！？）”’]")


class Scanner:
    """Reads one reply. Feed it, finish it, throw it away.

    Args:
        tools: Parameters schema by tool name.
        native: The provider has native calls and the text only may hold leaked markup: no fences, no ReAct, and
            whatever names no known tool is text.
        repair: False reads strict JSON only.
        stop: The stop sequences that were sent (providers drop them from the reply).
        max_reply_chars: What comes after is dropped, as if a length limit had cut the reply.
        bare_json: A reply that is nothing but JSON may be a call.
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
    ) -> None:
        self._src = Source()
        self._pieces: list[Piece] = []
        self._tools = Tools(tools, native=native, repair=repair)
        self._context = Context(self._src, self._tools, self._pieces.append, stop=tuple(stop), results=RESULTS)
        self._native = native
        self._bare_json = bare_json
        self._active = bool(tools) or not native
        self._stop = tuple(stop)
        self._left = max_reply_chars
        self._pending: list[Outcome] = []
        self._dropped = 0
        self._shown = False
        """Some visible text was handed out (since the last lone closing of thinking)."""
        self._held: list[str] | None = None
        """Text of a `Thought:` line until it is known whether ReAct follows."""
        self._heads = tuple(name + "\n" for name in tools)
        self._line_start = True
        self._blank_line = True
        """Nothing but blanks stands before this point of the line."""
        self._fresh = True
        """Nothing but blanks, thinking and markup so far: bare JSON may begin here."""
        self._sites = 0
        self._react = False
        self._mute = False
        """A result marker was perhaps only named: what follows is text and nothing in it runs."""
        self._cut = False
        self._seen_thinking = False
        self._tail: list[str] = []
        self._calls_from = 0
        self._span = 0
        """Length of the backtick run that opened inline code on this line."""
        self._span_open = False
        """It is known that this inline code does not close on its line."""
        self._run = self._main()
        next(self._run)
        self._done = False

    @property
    def cut(self) -> bool:
        """True once an invented result (or the size limit) was met: the rest is dropped, the stream may be closed."""
        return self._cut or self._left <= 0

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that `text` completes."""
        if self._left <= 0 or self._done:
            return []
        text = text[: self._left]
        self._left -= len(text)
        if text and self._src.feed(text):
            self._run.send(None)
        return self._take()

    def finish(self, finish_reason: str = "stop") -> list[Piece]:
        """Return the rest: held-back text, and all calls and failures in order.

        Args:
            finish_reason: `length` means that the reply was cut: an open call is then `truncated`.
        """
        if not self._done:
            self._done = True
            self._src.end(length=finish_reason == "length" or self._left <= 0)
            for _ in self._run:
                pass
            self._flush_held(thinking=False)
            self._hand_out()
        return self._take()

    def _take(self) -> list[Piece]:
        """Hand over what was collected, neighbouring text joined."""
        pieces: list[Piece] = []
        text: list[str] = []
        for piece in self._pieces:
            if isinstance(piece, TextPiece):
                text.append(piece.text)
                continue
            if text:
                pieces.append(TextPiece("".join(text)))
                text.clear()
            pieces.append(piece)
        if text:
            pieces.append(TextPiece("".join(text)))
        self._pieces.clear()
        return pieces

    def _hand_out(self) -> None:
        if self._dropped and not self._pending and not self._shown:
            message = "the call stands inside thinking; write it after the thinking has ended"
            self._pending.append(CallFailed(self._context.next_index, None, "", "malformed", message))
        self._pieces.extend(self._pending[:_MAX_CALLS])
        if len(self._pending) > _MAX_CALLS:
            message = f"more than {_MAX_CALLS} calls in one reply"
            self._pieces.append(CallFailed(_MAX_CALLS, None, "", "malformed", message))

    # Text, in order

    def _text(self, text: str) -> None:
        if not text:
            return
        self._blank_line = not text.rpartition("\n")[2].strip() and (self._blank_line or "\n" in text)
        if text.strip():
            self._fresh = False
        if self._held is not None:
            self._held.append(text)
            return
        if text.strip():
            self._shown = True
        self._pieces.append(TextPiece(text))

    def _flush_held(self, *, thinking: bool) -> None:
        if self._held is None:
            return
        text = "".join(self._held)
        self._held = None
        if thinking:
            self._pieces.append(ThinkingPiece(text.partition(":")[2] if text.startswith("Thought:") else text))
        elif text:
            self._shown = self._shown or bool(text.strip())
            self._pieces.append(TextPiece(text))

    def _pass(self, end: int) -> None:
        """Take the text up to `end` as visible."""
        src = self._src
        self._text(src.buf[src.pos : end])
        src.pos = end

    # The outermost loop

    def _main(self) -> Scan[None]:
        src = self._src
        yield
        while True:
            src.compact()
            if self._cut and not (yield from self._after_cut()):
                return
            if self._mute:
                yield from self._muted()
                if src.ended and src.pos >= len(src.buf):
                    return
                continue
            if src.pos >= len(src.buf):
                if src.ended:
                    return
                yield
                continue
            if self._fresh and (yield from self._reply_start()):
                continue
            if self._line_start and (yield from self._line()):
                continue
            found = _TRIGGER.search(src.buf, src.pos)
            end = found.start() if found else len(src.buf)
            if end > src.pos:
                self._pass(end)
                continue
            if src.buf[end] == "\n":
                self._pass(end + 1)
                self._line_start, self._span = True, 0
            elif src.buf[end] == "`":
                yield from self._ticks()
            elif not (yield from self._marker()):
                self._pass(end + 1)

    def _reply_start(self) -> Scan[bool]:
        """Bare JSON, Python calls or Functionary where the reply begins."""
        src, context = self._src, self._context
        at = yield from skip_space(src, src.pos)
        above = src.buf.rfind("\n", src.pos, at)
        if above >= 0:
            self._pass(above + 1)
            self._line_start = True
        if at >= len(src.buf):
            return above >= 0
        char = src.buf[at]
        if char in "{[｛［":
            if char == "[" and (yield from literal(src, at, MARKERS)):
                return False
            self._fresh = False
            if not self._bare_json or not self._active:
                return False
            site = yield from fences.bare(context, at)
            return site is not None and self._apply(site, at)
        if char.isalnum() or char == "_":
            if not self._native and (yield from literal(src, at, self._heads)):
                site = yield from lines.functionary(context, at, at)
                if site:
                    return self._apply(site, at)
            self._fresh = False
        return False

    def _line(self) -> Scan[bool]:
        """What only the beginning of a line can be: a fence, a quote, a ReAct word, `>>>`."""
        src = self._src
        at = yield from take_while(src, src.pos, _INDENT, 1000)
        if at >= len(src.buf) and not src.ended:
            yield
            return True
        self._line_start = False
        self._blank_line = True
        char = src.buf[at : at + 1]
        if char and char in "`~":
            run = yield from take_while(src, at, _FENCE_CHAR[char], 1000)
            if run - at >= 3:
                yield from self._fence(at, run, indent=at - src.pos)
                return True
        elif char == ">":
            yield from self._quoted(at)
            return True
        elif char and (char in "*_#" or char in "TAOF") and at - src.pos <= 3:
            found = yield from lines.react_word(self._context, at)
            if found and (not self._native or found[0] == "Observation"):
                return (yield from self._react_line(found[0], at, found[1]))
        return False

    def _quoted(self, at: int) -> Scan[None]:
        """A block quote is text to its line end; `>>>name` is Functionary's."""
        src = self._src
        if not self._native and (yield from literal(src, at, (">>>",))):
            site = yield from lines.functionary(self._context, at, at + 3)
            if site:
                self._apply(site, at)
                return
        yield from self._rest_of_line()

    def _rest_of_line(self) -> Scan[None]:
        src = self._src
        while True:
            line = src.buf.find("\n", src.pos)
            self._pass(line + 1 if line >= 0 else len(src.buf))
            if line >= 0 or src.ended:
                self._line_start = True
                return
            yield
            src.compact()

    def _react_line(self, word: str, at: int, after: int) -> Scan[bool]:
        src = self._src
        if word == "Thought":
            if self._react and self._sites and self._pending:
                self._flush_held(thinking=False)
            self._flush_held(thinking=True)
            self._pass(at)
            self._held = []
            self._fresh = False
            self._pass(after)
            return True
        if word == "Observation":
            if self._sites or self._held is not None:
                self._flush_held(thinking=True)
                self._cut = True
            else:
                self._mute = True
            return True
        if word == "Final Answer":
            if self._react and self._sites:
                self._cut = True
                return True
            if self._held is None and self._shown:
                return False
            self._flush_held(thinking=True)
            src.pos = yield from skip_space(src, after, lines=False)
            self._fresh = False
            return True
        if word == "Action":
            site = yield from lines.action(self._context, at, after)
            if site is not None and not site.whole_text:
                self._flush_held(thinking=True)
                return self._apply(site, at)
        return False

    # Fences and inline code

    def _fence(self, at: int, run: int, *, indent: int) -> Scan[None]:
        """A code fence begins at `at`: a call, an invented result, or code that is text."""
        src = self._src
        start = src.pos
        ticks = src.buf[at:run]
        begin = yield from skip_space(src, run, lines=False)
        end = yield from take_while(src, begin, _INFO, 40)
        info = src.buf[begin:end].lower()
        if info in ("tool_output", "tool_response", "tool_result"):
            self._cut, self._mute = bool(self._sites), not self._sites
            return
        callable_here = ticks[0] == "`" and indent <= 3 and info in fences.CALL_INFOS and self._active
        if callable_here and not self._native and src.base + at >= self._calls_from:
            fresh = self._fresh
            site, reached = yield from fences.fence(self._context, ticks, info, end)
            if site is not None:
                self._pass(at)
                self._apply(site, at)
                return
            if fresh and (yield from self._sole_fence(at, ticks, end)):
                return
            self._calls_from = max(self._calls_from, src.base + reached)
        src.pos = start
        self._pass(end)
        yield from self._code(ticks)

    def _sole_fence(self, at: int, ticks: str, body: int) -> Scan[bool]:
        """A reply that is nothing but one fenced tag block is run: models wrap calls so."""
        src = self._src
        first = yield from skip_space(src, body)
        if not (yield from literal(src, first, (*WRAPPERS, *ELEMENTS))):
            return False
        end = yield from until(src, first, "\n" + ticks)
        if end < 0:
            return False
        after = yield from skip_space(src, end + 1 + len(ticks))
        if after < len(src.buf):
            return False
        inner = Scanner(self._tools.schemas, native=False, repair=self._tools.repair, stop=self._stop, bare_json=False)
        pieces = [*inner.feed(src.buf[first:end]), *inner.finish("length" if src.length else "stop")]
        outcomes = [piece for piece in pieces if isinstance(piece, (CallFound, CallFailed))]
        if not outcomes or any(isinstance(piece, TextPiece) and piece.text.strip() for piece in pieces):
            return False
        return self._apply(Site(len(src.buf), outcomes), at)

    def _code(self, ticks: str) -> Scan[None]:
        """Text up to the end of the fence that `ticks` opened."""
        src = self._src
        yield from self._rest_of_line()
        while src.pos < len(src.buf) or not src.ended:
            src.compact()
            at = yield from take_while(src, src.pos, _INDENT, 1000)
            run = yield from take_while(src, at, _FENCE_CHAR[ticks[0]], 1000)
            if run - at >= len(ticks):
                after = yield from skip_space(src, run, lines=False)
                if after >= len(src.buf) or src.buf[after] in "\r\n":
                    self._pass(run)
                    return
            yield from self._rest_of_line()

    def _ticks(self) -> Scan[None]:
        """A run of backticks within a line: inline code opens or closes, or a fence begins late."""
        src = self._src
        at = src.pos
        run = yield from take_while(src, at, _TICK, 1000)
        if self._span:
            self._span = 0 if run - at == self._span else self._span
            self._pass(run)
            return
        if run - at >= 3:
            begin = yield from skip_space(src, run, lines=False)
            end = yield from take_while(src, begin, _INFO, 40)
            end = yield from skip_space(src, end, lines=False)
            if src.buf[end : end + 1] in ("\n", "\r"):
                yield from self._fence(at, run, indent=0)
                return
        self._span, self._span_open = run - at, False
        self._pass(run)

    def _in_span(self) -> Scan[bool]:
        """True when the inline code that is open here closes on this line; the text up to its end is passed."""
        src = self._src
        ticks = "`" * self._span
        at = src.pos
        while True:
            found = src.buf.find(ticks, at)
            line = src.buf.find("\n", src.pos)
            if found >= 0 and (line < 0 or found < line):
                run = yield from take_while(src, found, _TICK, 1000)
                if run - found == self._span:
                    self._span = 0
                    self._pass(run)
                    return True
                at = run
                continue
            if line >= 0 or src.ended:
                return False
            at = max(src.pos, len(src.buf) - self._span)
            yield

    # Markers

    def _marker(self) -> Scan[bool]:
        """A marker at the current place; False when there is none, so that one character passes as text."""
        src = self._src
        at = src.pos
        mark = yield from literal(src, at, MARKERS)
        if mark is None:
            if src.ended and self._sites and self._blank_line and self._cut_closer(at):
                src.pos = len(src.buf)
                return True
            if src.ended and src.length and self._cut_marker(at):
                return self._apply(Site(len(src.buf), [self._tools.unfinished(src.buf[at:], length=True)]), at)
            return False
        span = self._span
        if span and not self._span_open:
            if (yield from self._in_span()):
                return True
            self._span_open = True
        after = at + len(mark)
        if mark in THINKING:
            return (yield from self._thinking(mark, after))
        if mark in THINK_CLOSERS:
            self._close_lone_thinking(after)
            return True
        if mark in RESULTS:
            return (yield from self._result(mark, after))
        if mark in END_WORDS or mark in CLOSERS:
            return (yield from self._stray(mark, after))
        if not self._active:
            return False
        if mark in ("<|start|>", "<|channel|>"):
            return (yield from self._harmony(mark, at, after))
        site = yield from self._site(mark, at, after)
        if site is None:
            self._pass(after)
            return True
        if span:
            closing = yield from take_while(src, site.end, _TICK, 1000)
            if closing - site.end == span:
                self._span = 0
                self._pass(closing)
                return True
        return self._apply(site, at)

    def _cut_marker(self, at: int) -> bool:
        """True when the reply was cut inside an opening marker that nothing but a call begins with."""
        rest = self._src.buf[at:]
        return len(rest) >= 5 and self._active and not self._span and any(mark.startswith(rest) for mark in OPENERS)

    def _cut_closer(self, at: int) -> bool:
        """True when the reply ends within the closing word of a call."""
        rest = self._src.buf[at:]
        return any(mark.startswith(rest) for mark in (*CLOSERS, *END_WORDS, *(MARKERS if len(rest) < 5 else ())))

    def _site(self, mark: str, at: int, after: int) -> Scan[Site | None]:
        context = self._context
        if mark == "✿FUNCTION✿":
            return (yield from lines.flower(context, at, after))
        if mark in WRAPPERS:
            return (yield from tags.wrapper(context, mark, at, after))
        return (yield from tags.element(context, "", at, 0))

    def _harmony(self, mark: str, at: int, after: int) -> Scan[bool]:
        kind, site = yield from lines.harmony_header(self._context, at, after, mark)
        if kind == "foreign":
            self._cut = True
        elif site is None:
            self._pass(after)
        elif kind == "analysis":
            self._src.pos = site.end
            yield from self._think_until("<|end|>", line_start=True, opened=at)
        else:
            self._apply(site, at)
        return True

    def _apply(self, site: Site, start: int) -> bool:
        """Take a site: its calls are kept for the end, its text shows. Always True."""
        src = self._src
        if not site.outcomes and site.whole_text:
            self._pass(site.end)
            self._line_start = False
            return True
        if start > src.pos:
            self._text(src.buf[src.pos : start])
        if site.outcomes:
            self._flush_held(thinking=False)
        for outcome in site.outcomes:
            outcome.index = self._context.next_index
            self._context.next_index += 1
            self._pending.append(outcome)
        if site.outcomes:
            self._sites += 1
            self._react = site.react
        src.pos = max(src.pos, site.end)
        self._fresh = False
        self._blank_line = True
        self._line_start = True
        self._span = 0
        self._text(site.text)
        return True

    def _stray(self, mark: str, after: int) -> Scan[bool]:
        """An end token, or a closing word without its opening: dropped after markup and at a line's end, else prose."""
        src = self._src
        at = yield from skip_space(src, after, lines=False)
        ends = at >= len(src.buf) or src.buf[at] in "\r\n<"
        if mark in END_WORDS:
            begins = mark == "<|START_RESPONSE|>" and self._blank_line
            if self._native or not (ends or begins):
                return False
        elif not self._sites or not self._blank_line:
            return False
        src.pos = after
        self._line_start = self._blank_line
        return True

    def _result(self, mark: str, after: int) -> Scan[bool]:
        """A tool result that the model invented: the rest is dropped, unless the marker is only named in a sentence."""
        src = self._src
        if mark == "<|im_start|>" and not self._sites and not self._shown:
            role = yield from literal(src, after, ("assistant\n", "assistant\r\n"))
            if role:
                src.pos = after + len(role)
                return True
        if self._native and not self._sites:
            self._mute = True
            return True
        if not self._sites and not self._blank_line:
            while len(src.buf) < after + 2 and not src.ended:
                yield
            space = yield from skip_space(src, after, lines=False)
            if _PROSE_AFTER.match(src.buf, after, space + 1) or space >= len(src.buf):
                self._mute = True
                return True
        self._flush_held(thinking=True)
        self._cut = True
        return True

    def _muted(self) -> Scan[None]:
        """After a result marker that was perhaps only named: everything is text."""
        found = yield from self._next_closer()
        if found < 0:
            return
        self._pass(found)
        self._mute = False

    def _next_closer(self) -> Scan[int]:
        """Pass text up to the next closing of thinking; -1 at the end of the reply."""
        src = self._src
        while True:
            at = src.buf.find("</think", src.pos)
            if at >= 0:
                return at
            keep = len(src.buf) if src.ended else max(src.pos, len(src.buf) - 7)
            self._pass(keep)
            if src.ended:
                return -1
            yield
            src.compact()

    # Thinking

    def _close_lone_thinking(self, after: int) -> None:
        """`</think>` without its opening: all before it was thinking, so no call of it runs."""
        self._flush_held(thinking=True)
        self._dropped += len(self._pending)
        self._pending.clear()
        self._src.pos = after
        self._sites = 0
        self._react = self._cut = self._mute = self._shown = False
        self._fresh = self._line_start = self._blank_line = True
        self._span = 0

    def _after_cut(self) -> Scan[bool]:
        """Drop text after an invented result; True if a closing of thinking shows that it all was a draft."""
        src = self._src
        while True:
            at = -1 if self._seen_thinking else src.buf.find("</think>", src.pos)
            if at >= 0:
                self._close_lone_thinking(at + len("</think>"))
                return True
            src.pos = max(src.pos, len(src.buf) - 7)
            if src.ended:
                src.pos = len(src.buf)
                return False
            yield
            src.compact()

    def _thinking(self, mark: str, after: int) -> Scan[bool]:
        opened = self._src.pos
        line_start = self._blank_line
        self._src.pos = after
        yield from self._think_until(THINKING[mark], line_start=line_start, opened=opened)
        return True

    def _think_until(self, closer: str, *, line_start: bool, opened: int) -> Scan[None]:
        """Hand out thinking up to `closer`.

        Opened within a line it may be a tag that a sentence names: then it is held until it closes.
        """
        src = self._src
        self._seen_thinking = True
        begin = src.pos
        whole: list[str] = []
        if not line_start:
            end = yield from until(src, begin, closer)
            if end < 0:
                src.pos = opened
                self._unclosed(src.buf[begin:], src.buf[opened:])
                return
            self._pieces.append(ThinkingPiece(src.buf[begin:end]))
            src.pos = end + len(closer)
            return
        while True:
            end = src.buf.find(closer, src.pos)
            if end >= 0 or src.ended:
                stop = end if end >= 0 else len(src.buf)
            else:
                stop = max(src.pos, len(src.buf) - len(closer) + 1)
            if stop > src.pos:
                whole.append(src.buf[src.pos : stop])
                self._pieces.append(ThinkingPiece(whole[-1]))
            src.pos = stop
            if end >= 0:
                src.pos = end + len(closer)
                self._line_start = self._blank_line = True
                self._fresh = self._fresh or not self._shown
                return
            if src.ended:
                self._unclosed("".join(whole), "")
                return
            yield
            src.compact()

    def _unclosed(self, thinking: str, text: str) -> None:
        """Thinking that never closed: nothing in it runs, but for one call at its very end (never after a cut)."""
        src = self._src
        src.pos = len(src.buf)
        self._text(text)
        if src.length:
            message = "the reply was cut by the length limit while thinking"
            self._pending.append(CallFailed(self._context.next_index, None, "", "truncated", message))
            return
        inner = Scanner(
            self._tools.schemas, native=self._native, repair=self._tools.repair, stop=self._stop, bare_json=False
        )
        pieces = [*inner.feed(thinking), *inner.finish()]
        calls = [piece for piece in pieces if isinstance(piece, (CallFound, CallFailed))]
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
        """True if nothing but white space came after the last call."""
        return bool(self._sites) and self._blank_line and self._line_start
