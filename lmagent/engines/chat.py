"""A conversation: an agent, its history and a printer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, cast

from lmagent.agent.agent import Agent
from lmagent.agent.loop import Limits
from lmagent.agent.result import Approver, Resumption, RunResult
from lmagent.agent.sessions import SessionStore, StoredHistory
from lmagent.core.events import Event, RunEnd
from lmagent.core.history import History, repair_history
from lmagent.core.messages import Message, Prompt, UserMessage
from lmagent.core.prompts import as_messages
from lmagent.engines.printer import Printer
from lmagent.models.model import ChatModel
from lmagent.providers.base import ToolChoice

__all__ = ["ChatEngine"]


class ChatEngine:
    """Keeps the history, runs functions, and prints the conversation as it goes.

        bot = ChatEngine(OpenAIChat(), functions=[get_weather])
        bot.chat("今天北京天气怎么样？")

    Args:
        model: A `ChatModel`, or an `Agent` that brings its own functions.
        functions: What the model may call.
        system_prompt: Instructions in front of every request.
        history: What was said before.
        session: Id of a stored conversation, which goes on where it stopped; needs `store`.
        store: Where it is kept: `SQLiteSessions(path)`, `JSONLSessions(folder)`, `MemorySessions()`.
        print_message: Print what is said and done: plain text in a pipe, colours in a terminal. The stream verbs
            never print; their reader has the events.
        stream: Whether `chat` streams while it prints; None: when a terminal watches.
        limits: Where one answer ends at the latest.
        approve: Decides on calls that need approval.
        **parameters: Of the model.

    Raises:
        ConfigurationError: Two functions of one name.
        FunctionDefinitionError: A function that cannot be described.
        ParameterError: A parameter that is unknown or out of range.
    """

    def __init__(
        self,
        model: ChatModel | Agent,
        functions: Iterable[Any] = (),
        *,
        system_prompt: str = "",
        history: Sequence[Message | Mapping[str, Any]] = (),
        session: str | None = None,
        store: SessionStore | None = None,
        print_message: bool = True,
        printer: Printer | None = None,
        stream: bool | None = None,
        limits: Limits | None = None,
        approve: Approver | None = None,
        **parameters: Any,
    ) -> None:
        if isinstance(model, Agent):
            if functions or system_prompt or parameters or limits or approve:
                raise TypeError("An Agent brings its own functions, system prompt, limits and parameters.")
            self.agent = model
        else:
            self.agent = Agent(
                model, functions, system_prompt=system_prompt, limits=limits, approve=approve, **parameters
            )
        if (session is None) != (store is None):
            raise TypeError("session= and store= belong together.")
        self._history = StoredHistory(store, session) if store is not None and session is not None else History()
        self._history.extend(repair_history(as_messages(history) if history else ()))
        self._printer = (printer or Printer()) if print_message else None
        self._stream = stream

    def __repr__(self) -> str:
        return f"ChatEngine({self.agent!r}, messages={len(self._history)})"

    @property
    def history(self) -> tuple[Message, ...]:
        """Everything said and done so far; always valid to send to any model."""
        return self._history.messages

    def reset(self) -> None:
        """Forget the conversation."""
        self._history.clear()

    def rewind(self, prompts: int = 1) -> None:
        """Take the last `prompts` prompts back, with everything that came of them."""
        starts = [index for index, message in enumerate(self.history) if isinstance(message, UserMessage)]
        if prompts > 0 and starts:
            self._history.truncate(starts[max(len(starts) - prompts, 0)])

    def fork(self, session: str | None = None) -> ChatEngine:
        """Return an engine that goes on from here on its own; a stored conversation needs a new `session` id."""
        copy = ChatEngine(self.agent, print_message=False, stream=self._stream)
        copy._printer = self._printer
        if isinstance(self._history, StoredHistory):
            if session is None:
                raise TypeError("A stored conversation is forked under a session id of its own.")
            copy._history = self._history.fork(session)
        else:
            copy._history = History(self.history)
        return copy

    def chat(
        self, prompt: Prompt | Resumption, *, tool_choice: ToolChoice | str | None = None, **options: Any
    ) -> RunResult:
        """Say something and return the answer, after all function calls it took.

        When it fails before the model answered anything, the history is as it was before; what a longer run had done
        stays in it.

        Args:
            prompt: As of `Agent.run`; a paused answer goes on with `bot.chat(paused.decide(True))`.
            tool_choice: As of `Agent.run`.
            **options: The others of `Agent.run`, and parameters of the model.

        Raises:
            LMAgentError: As `Agent.run`.
        """
        with _Turn(self._history, self._printer, prompt):
            if not self._streams:
                return self.agent.run(
                    prompt, history=self._history, tool_choice=tool_choice, on_event=self._show, **options
                )
            events = self.agent.stream_run(prompt, history=self._history, tool_choice=tool_choice, **options)
            with closing(cast("Any", events)):
                return self._watch(events)

    async def async_chat(
        self, prompt: Prompt | Resumption, *, tool_choice: ToolChoice | str | None = None, **options: Any
    ) -> RunResult:
        """`chat`, asynchronous."""
        with _Turn(self._history, self._printer, prompt):
            if not self._streams:
                return await self.agent.async_run(
                    prompt, history=self._history, tool_choice=tool_choice, on_event=self._show, **options
                )
            events = self.agent.async_stream_run(prompt, history=self._history, tool_choice=tool_choice, **options)
            async with aclosing(cast("Any", events)):
                async for event in events:
                    self._show(event)
                    if isinstance(event, RunEnd):
                        return event.result
        raise AssertionError("a run ends with RunEnd or an exception")

    def stream_chat(
        self, prompt: Prompt | Resumption, *, tool_choice: ToolChoice | str | None = None, **options: Any
    ) -> Iterator[Event]:
        """`chat`, yielding events; the last is `RunEnd` with the result. Prints nothing."""
        with _Turn(self._history, None, prompt):
            events = self.agent.stream_run(prompt, history=self._history, tool_choice=tool_choice, **options)
            with closing(cast("Any", events)):
                yield from events

    async def async_stream_chat(
        self, prompt: Prompt | Resumption, *, tool_choice: ToolChoice | str | None = None, **options: Any
    ) -> AsyncIterator[Event]:
        """`stream_chat`, asynchronous."""
        with _Turn(self._history, None, prompt):
            events = self.agent.async_stream_run(prompt, history=self._history, tool_choice=tool_choice, **options)
            async with aclosing(cast("Any", events)):
                async for event in events:
                    yield event

    @property
    def _streams(self) -> bool:
        if self._stream is not None:
            return self._stream
        return self._printer is not None and self._printer.is_terminal and self.agent.model.codec.features.stream

    def _watch(self, events: Iterable[Event]) -> RunResult:
        for event in events:
            self._show(event)
            if isinstance(event, RunEnd):
                return event.result
        raise AssertionError("a run ends with RunEnd or an exception")

    def _show(self, event: Event) -> None:
        if self._printer:
            self._printer.event(event)


class _Turn:
    """One exchange: shows the prompt, and takes it back when nothing came of it."""

    __slots__ = ("_history", "_length", "_printer", "_prompt")

    def __init__(self, history: History, printer: Printer | None, prompt: Prompt | Resumption) -> None:
        self._history = history
        self._printer = printer
        self._prompt = prompt
        self._length = 0

    def __enter__(self) -> None:
        prompt = self._prompt
        if isinstance(prompt, Resumption):  # its calls are open, and stay so when nothing comes of it
            self._length = len(self._history)
            return
        self._history.answer_open_calls()
        self._length = len(self._history)
        if self._printer:
            for message in as_messages(prompt):
                if isinstance(message, UserMessage):
                    self._printer.user(message)

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is not None and all(isinstance(m, UserMessage) for m in self._history.since(self._length)):
            self._history.truncate(self._length)
