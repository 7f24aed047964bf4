"""`ChatEngine`: an agent with its history and a printer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from typing import Any, Unpack, cast

from lmagent.agent.agent import Agent
from lmagent.agent.result import Approver, Resumption, RunResult
from lmagent.agent.run import ChatOptions, Limits
from lmagent.agent.sessions import SessionStore, StoredHistory
from lmagent.core.events import Event, RunEnd
from lmagent.core.history import History, repair_history
from lmagent.core.messages import Message, Prompt, UserMessage, as_messages
from lmagent.engines.printer import Printer
from lmagent.models.model import ChatModel

__all__ = ["ChatEngine"]


class ChatEngine:
    """Hold a conversation: keep the history, run tools, and print messages as they arrive.

        bot = ChatEngine(OpenAIChat(), functions=[get_weather])
        bot.chat("今天北京天气怎么样？")

    Args:
        model: A `ChatModel`, or an `Agent` with its own tools and settings.
        functions: Tools that the model may call.
        system_prompt: System prompt of every request.
        history: Earlier messages.
        session: Id of a stored conversation to continue; needs `store`.
        store: Where the conversation is stored: `SQLiteSessions(path)`, `JSONLSessions(folder)`, `MemorySessions()`.
        print_message: Print messages, tool calls and results: plain text in a pipe, colors in a terminal. The
            streaming methods never print; their caller has the events.
        stream: Whether `chat` streams while it prints. None: stream if the output is a terminal.
        limits: Limits of each run, e.g. rounds and seconds.
        approve: Decides on tool calls that need approval.
        **parameters: Model parameters.

    Raises:
        ConfigurationError: Two tools have the same name.
        FunctionDefinitionError: A function has no usable schema.
        ParameterError: A parameter is unknown or out of range.
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
                raise TypeError("Set functions, system prompt, limits, approval and parameters on the Agent, not here.")
            self.agent = model
        else:
            self.agent = Agent(
                model, functions, system_prompt=system_prompt, limits=limits, approve=approve, **parameters
            )
        if (session is None) != (store is None):
            raise TypeError("Pass session= and store= together.")
        self._history = StoredHistory(store, session) if store is not None and session is not None else History()
        self._history.extend(repair_history(as_messages(history) if history else ()))
        self._printer = (printer or Printer()) if print_message else None
        self._stream = stream

    def __repr__(self) -> str:
        return f"ChatEngine({self.agent!r}, messages={len(self._history)})"

    @property
    def history(self) -> tuple[Message, ...]:
        """All messages so far; always valid to send to any model."""
        return self._history.messages

    def reset(self) -> None:
        """Forget the conversation."""
        self._history.clear()

    def rewind(self, prompts: int = 1) -> None:
        """Remove the last `prompts` user messages and everything after each of them."""
        starts = [index for index, message in enumerate(self.history) if isinstance(message, UserMessage)]
        if prompts > 0 and starts:
            self._history.truncate(starts[max(len(starts) - prompts, 0)])

    def fork(self, session: str | None = None) -> ChatEngine:
        """Return an independent copy of this conversation; a stored one needs a new `session` id."""
        copy = ChatEngine(self.agent, print_message=False, stream=self._stream)
        copy._printer = self._printer
        if isinstance(self._history, StoredHistory):
            if session is None:
                raise TypeError("Pass a new session id: fork(session=...) stores the copy under it.")
            copy._history = self._history.fork(session)
        else:
            copy._history = History(self.history)
        return copy

    def chat(self, prompt: Prompt | Resumption, **options: Unpack[ChatOptions]) -> RunResult:
        """Send a prompt, run the tools that the model calls, and return the result.

        If the run fails before the model's first reply, the prompt is removed from the history. If it fails later,
        the completed rounds stay in the history.

        Args:
            prompt: See `Agent.run`. To resume a paused run: `bot.chat(paused.decide(True))`.
            **options: `deps`, `limits`, `tool_choice`, `output_type`, `budget` and `approve` of `Agent.run` (see
                `ChatOptions`), and model parameters.

        Raises:
            LMAgentError: See `Agent.run`.
        """
        with _turn(self._history, self._printer, prompt):
            if not self._streams:
                return self.agent.run(prompt, history=self._history, on_event=self._show, **options)
            events = self.agent.stream_run(prompt, history=self._history, **options)
            with closing(cast("Any", events)):
                for event in events:
                    self._show(event)
                    if isinstance(event, RunEnd):
                        return event.result
        raise AssertionError("a run ends with RunEnd or an exception")

    async def async_chat(self, prompt: Prompt | Resumption, **options: Unpack[ChatOptions]) -> RunResult:
        """Async version of `chat`."""
        with _turn(self._history, self._printer, prompt):
            if not self._streams:
                return await self.agent.async_run(prompt, history=self._history, on_event=self._show, **options)
            events = self.agent.async_stream_run(prompt, history=self._history, **options)
            async with aclosing(cast("Any", events)):
                async for event in events:
                    self._show(event)
                    if isinstance(event, RunEnd):
                        return event.result
        raise AssertionError("a run ends with RunEnd or an exception")

    def stream_chat(self, prompt: Prompt | Resumption, **options: Unpack[ChatOptions]) -> Iterator[Event]:
        """Like `chat`, but yield events; the last is `RunEnd` with the result. Prints nothing."""
        with _turn(self._history, None, prompt):
            events = self.agent.stream_run(prompt, history=self._history, **options)
            with closing(cast("Any", events)):
                yield from events

    async def async_stream_chat(
        self, prompt: Prompt | Resumption, **options: Unpack[ChatOptions]
    ) -> AsyncIterator[Event]:
        """Async version of `stream_chat`."""
        with _turn(self._history, None, prompt):
            events = self.agent.async_stream_run(prompt, history=self._history, **options)
            async with aclosing(cast("Any", events)):
                async for event in events:
                    yield event

    @property
    def _streams(self) -> bool:
        if self._stream is not None:
            return self._stream
        return self._printer is not None and self._printer.is_terminal and self.agent.model.codec.features.stream

    def _show(self, event: Event) -> None:
        if self._printer:
            self._printer.event(event)


@contextmanager
def _turn(history: History, printer: Printer | None, prompt: Prompt | Resumption) -> Generator[None]:
    """Print the prompt, and remove it from the history if the run fails before it adds anything else."""
    if not isinstance(prompt, Resumption):  # its pending calls stay unanswered
        history.answer_open_calls()
        for message in as_messages(prompt) if printer else ():
            if printer and isinstance(message, UserMessage):
                printer.user(message)
    length = len(history)
    try:
        yield
    except BaseException:
        if all(isinstance(message, UserMessage) for message in history.since(length)):
            history.truncate(length)
        raise
