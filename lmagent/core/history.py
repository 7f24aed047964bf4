"""The rules of a valid history, and the one place that repairs an invalid one. Pure; knows no provider and no store.

The rules: every call of an assistant message is answered exactly once, directly after it and in call order; every call
has an id that no other call of the conversation has; every result belongs to a call.

`answered` settles which result belongs to which call. It serves both kinds of history: `repair_history` keeps the
history of a conversation valid, and the codecs send a list of messages that the user wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from lmagent.core.messages import AssistantMessage, Message, ToolCall, ToolMessage, UserMessage

__all__ = [
    "NOT_RUN", "NO_RESULT", "History", "answered", "history_problems", "in_order", "open_calls", "own_id",
    "repair_history", "result_as_text",
]  # fmt: skip

NOT_RUN = "Not run: the run was cancelled before this call finished. Its effect is unknown; call again if needed."
"""The result of a call that a cancelled run left open."""
NO_RESULT = "No result: this call was not run."
"""The result of a call in messages written by the user that contain no result for it."""


def open_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """Return the calls at the end of `messages` that have no result yet, in order."""
    with_result: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            with_result.add(message.tool_call_id)
        elif isinstance(message, AssistantMessage):
            return tuple(call for call in message.tool_calls if call.id not in with_result)
        else:
            return ()
    return ()


def history_problems(messages: Iterable[Message]) -> list[str]:
    """Return what is wrong with a history, one line per problem; empty when it is valid."""
    problems: list[str] = []
    waiting: list[ToolCall] = []
    taken: set[str] = set()
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if not waiting or message.tool_call_id not in (call.id for call in waiting):
                problems.append(f"message {index}: a result for {message.tool_call_id!r}, which is no open call")
                continue
            if waiting[0].id != message.tool_call_id:
                problems.append(f"message {index}: the result for {message.tool_call_id!r} is out of order")
            waiting = [call for call in waiting if call.id != message.tool_call_id]
            continue
        problems.extend(f"message {index}: the call {call.id!r} before it has no result" for call in waiting)
        waiting = list(message.tool_calls) if isinstance(message, AssistantMessage) else []
        for call in waiting:
            if not call.id:
                problems.append(f"message {index}: a call of {call.name!r} has no id")
            elif call.id in taken:
                problems.append(f"message {index}: the call id {call.id!r} is repeated")
            taken.add(call.id)
    problems.extend(f"at the end: the call {call.id!r} has no result" for call in waiting)
    return problems


def in_order(messages: Sequence[Message], taken: set[str] | None = None) -> bool:
    """Whether a history has no problems.

    The only pass over all messages of a turn, so it compares types and nothing else while no call is open.

    Args:
        messages: All messages, or the ones after others that are known to be valid.
        taken: The call ids of those others; the ids found here are added to it.
    """
    waiting: list[str] = []
    taken = set() if taken is None else taken
    for message in messages:
        if isinstance(message, ToolMessage):
            if not waiting or message.tool_call_id != waiting.pop():
                return False
        elif waiting:
            return False
        elif isinstance(message, AssistantMessage) and message.tool_calls:
            waiting = [call.id for call in reversed(message.tool_calls)]
            if "" in waiting or not taken.isdisjoint(waiting) or len(set(waiting)) < len(waiting):
                return False
            taken.update(waiting)
    return not waiting


def repair_history(messages: Iterable[Message], *, missing: str = NOT_RUN) -> tuple[Message, ...]:
    """Return a valid history: open calls are answered with `missing`, results without a call are dropped.

    A history without problems comes back with the same message objects.
    """
    items = list(messages)
    if in_order(items):  # true nearly always, and checking takes a fourth of the time of repairing
        return tuple(items)
    repaired: list[Message] = []
    taken: set[str] = set()
    waiting: list[ToolCall] = []
    for message in answered(items, missing=missing, stray=lambda _: None):
        if isinstance(message, AssistantMessage):
            waiting = list(_with_own_ids(message.tool_calls, taken))
            same = tuple(waiting) == message.tool_calls
            repaired.append(message if same else replace(message, tool_calls=tuple(waiting)))
        elif isinstance(message, ToolMessage):
            id = waiting.pop(0).id
            repaired.append(message if message.tool_call_id == id else replace(message, tool_call_id=id))
        else:
            repaired.append(message)
    return tuple(repaired)


def _with_own_ids(calls: tuple[ToolCall, ...], taken: set[str]) -> tuple[ToolCall, ...]:
    """Return the calls with ids that no other call has, and add the ids to `taken`."""
    unique: list[ToolCall] = []
    for call in calls:
        own = own_id(call.id, taken)
        taken.add(own)
        unique.append(call if own == call.id else replace(call, id=own))
    return tuple(unique)


def own_id(id: str, taken: Collection[str]) -> str:
    """Return `id`, or one made from it that is not taken."""
    if id and id not in taken:
        return id
    return next(made for number in count(2) if (made := f"{id or 'call'}_{number}") not in taken)


def result_as_text(result: ToolMessage) -> UserMessage:
    """Return a tool result as a user message."""
    return UserMessage(f"[{'Error' if result.is_error else 'Result'} of {result.name or 'a tool'}: {result.content}]")


def answered(
    messages: Iterable[Message],
    *,
    missing: str = NO_RESULT,
    stray: Callable[[ToolMessage], Message | None] = result_as_text,
) -> list[Message]:
    """Return the messages with each call answered exactly once, directly after it, in the order of the calls.

    A result belongs to the call with its id, else to a call of its name by position; it may stand anywhere before the
    next assistant message. It gets the name of its call.

    Args:
        messages: A whole conversation.
        missing: The result of a call that has none.
        stray: Called with a result that belongs to no call; what it returns takes the place of the result.
    """
    out: list[Message] = []
    for opening, followers in _segments(messages):
        results = [item for item in followers if isinstance(item, ToolMessage)]
        matches: list[ToolMessage | None] = []
        if opening is not None:
            out.append(opening)
            matches = _matched(opening.tool_calls, results)
            for call, match in zip(opening.tool_calls, matches, strict=True):
                result = match or ToolMessage(missing, call.id, call.name, is_error=True)
                fits = result.name == call.name and result.tool_call_id == call.id
                out.append(result if fits else replace(result, name=call.name, tool_call_id=call.id))
        used = {id(match) for match in matches}
        for item in followers:
            if not isinstance(item, ToolMessage):
                out.append(item)
            elif id(item) not in used and (instead := stray(item)) is not None:
                out.append(instead)
    return out


def _segments(messages: Iterable[Message]) -> Iterator[tuple[AssistantMessage | None, list[Message]]]:
    """Yield each assistant message with the messages after it, up to the next assistant message."""
    opening: AssistantMessage | None = None
    followers: list[Message] = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            yield opening, followers
            opening, followers = message, []
        else:
            followers.append(message)
    yield opening, followers


def _matched(calls: Sequence[ToolCall], results: Sequence[ToolMessage]) -> list[ToolMessage | None]:
    """Return the result of each call: by id, in order where an id repeats; unknown ids by position and name."""
    by_id: dict[str, list[ToolMessage]] = {call.id: [] for call in calls}
    unknown: list[ToolMessage] = []
    for result in results:
        by_id.get(result.tool_call_id, unknown).append(result)
    matches: list[ToolMessage | None] = []
    for call in calls:
        waiting = by_id[call.id]
        if not waiting and unknown and unknown[0].name in ("", call.name):
            waiting = unknown
        matches.append(waiting.pop(0) if waiting else None)
    return matches


class History:
    """The messages of one conversation: new ones are added at the end, and the history stays valid.

    An agent run appends to the history it is given, so it keeps what a cancelled run had done.
    """

    __slots__ = ("_messages",)

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._messages = list(repair_history(messages))

    @classmethod
    def restored(cls, messages: Iterable[Message]) -> History:
        """Return a history with these messages unchanged, open calls (of a paused run) included."""
        history = cls()
        history._messages = list(messages)
        return history

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages so far."""
        return tuple(self._messages)

    @property
    def last(self) -> Message | None:
        """The newest message."""
        return self._messages[-1] if self._messages else None

    def __len__(self) -> int:
        return len(self._messages)

    def call_ids(self) -> set[str]:
        """Return the ids of all calls."""
        spoken = [message.tool_calls for message in self._messages if isinstance(message, AssistantMessage)]
        return {call.id for calls in spoken for call in calls}

    def append(self, message: Message) -> None:
        """Add one message."""
        self._messages.append(message)

    def extend(self, messages: Iterable[Message]) -> None:
        """Add several messages."""
        self._messages.extend(messages)

    def replace_last(self, message: Message) -> None:
        """Replace the newest message."""
        self._messages[-1] = message

    def truncate(self, length: int) -> None:
        """Keep the first `length` messages."""
        del self._messages[length:]

    def reopen(self, messages: Sequence[Message]) -> None:
        """Go back to the `messages` of a paused run: calls that were answered with "Not run" since are open again.

        Raises:
            ValueError: This is another history, or other messages were added since.
        """
        since = self.since(len(messages))
        given_up = all(isinstance(each, ToolMessage) and each.content == NOT_RUN for each in since)
        if self.messages[: len(messages)] != tuple(messages) or not given_up:
            raise ValueError(
                "The paused run cannot go on: this history is another one, or has new messages since the pause. "
                "Pass the history of the paused run, unchanged."
            )
        self.truncate(len(messages))

    def since(self, start: int) -> tuple[Message, ...]:
        """Return the messages from index `start` on."""
        return tuple(self._messages[start:])

    def answer_open_calls(self, text: str = NOT_RUN) -> None:
        """Answer every call at the end that has no result, so that the history is valid again."""
        for call in open_calls(self._messages):
            self._messages.append(ToolMessage(text, tool_call_id=call.id, name=call.name, is_error=True))

    def clear(self) -> None:
        """Remove all messages."""
        self._messages.clear()
