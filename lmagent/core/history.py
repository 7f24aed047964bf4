"""What a valid history is, and how an invalid one is mended. Pure; knows no provider and no store.

The rules: every call of an assistant message is answered exactly once, right behind it and in call order; a call has an
id, and no other call of the conversation has the same; no result stands without its call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import count

from lmagent.core.messages import AssistantMessage, Message, ToolCall, ToolMessage

__all__ = ["NOT_RUN", "History", "history_problems", "in_order", "open_calls", "own_id", "repair_history"]

NOT_RUN = "Not run: the run was cancelled before this call finished. Its effect is unknown; call again if needed."


def open_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """Return the calls at the end of `messages` that have no result yet, in order."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AssistantMessage):
            return tuple(call for call in message.tool_calls if call.id not in answered)
        else:
            return ()
    return ()


def history_problems(messages: Iterable[Message]) -> list[str]:
    """Return what is wrong with a history, one line each; empty when it is valid."""
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

    The one look at every message of a turn, so it does nothing but compare types while no call is open.

    Args:
        messages: All, or those behind others that are in order.
        taken: The ids of the calls of those others; it grows by what is found here.
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
    """Return a valid history: open calls are answered with `missing`, stray and repeated results are left out.

    A history without problems comes back with the same message objects.
    """
    items = list(messages)
    if in_order(items):  # nearly always, and looking takes a fourth of the time of mending
        return tuple(items)
    out: list[Message] = []
    taken: set[str] = set()
    position = 0
    while position < len(items):
        message = items[position]
        position += 1
        if isinstance(message, ToolMessage):
            continue
        if not isinstance(message, AssistantMessage) or not message.tool_calls:
            out.append(message)
            continue
        results: list[ToolMessage] = []
        while position < len(items) and isinstance(result := items[position], ToolMessage):
            results.append(result)
            position += 1
        calls = _unique(message.tool_calls, taken)
        out.append(message if calls == message.tool_calls else replace(message, tool_calls=calls))
        for old, call in zip(message.tool_calls, calls, strict=True):
            found = next((result for result in results if result.tool_call_id == old.id), None)
            if found is None:
                out.append(ToolMessage(missing, tool_call_id=call.id, name=call.name, is_error=True))
                continue
            results.remove(found)
            out.append(found if found.tool_call_id == call.id else replace(found, tool_call_id=call.id))
    return tuple(out)


def _unique(calls: tuple[ToolCall, ...], taken: set[str]) -> tuple[ToolCall, ...]:
    """Return the calls with ids of their own, and note them in `taken`."""
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


class History:
    """The messages of one conversation: grows at the end, hands out tuples, stays valid.

    An agent run appends to the history it is given, so what a cancelled run had done is kept in it.
    """

    __slots__ = ("_messages",)

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._messages = list(repair_history(messages))

    @classmethod
    def restored(cls, messages: Iterable[Message]) -> History:
        """Return a history with these messages as they are, open calls included (a paused run's)."""
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
        """Put `message` in the place of the newest one."""
        self._messages[-1] = message

    def truncate(self, length: int) -> None:
        """Keep the first `length` messages."""
        del self._messages[length:]

    def reopen(self, messages: Sequence[Message]) -> None:
        """Go back to a paused run's `messages`: its calls that were answered with "Not run" meanwhile are open again.

        Raises:
            ValueError: This is another history, or something was said since.
        """
        since = self.since(len(messages))
        given_up = all(isinstance(each, ToolMessage) and each.content == NOT_RUN for each in since)
        if self.messages[: len(messages)] != tuple(messages) or not given_up:
            raise ValueError("The history is not the paused run's, or went on since: its calls cannot be run any more.")
        self.truncate(len(messages))

    def since(self, start: int) -> tuple[Message, ...]:
        """Return the messages from index `start` on."""
        return tuple(self._messages[start:])

    def answer_open_calls(self, text: str = NOT_RUN) -> None:
        """Answer every call at the end that has no result, so that the history is valid again."""
        for call in open_calls(self._messages):
            self._messages.append(ToolMessage(text, tool_call_id=call.id, name=call.name, is_error=True))

    def clear(self) -> None:
        """Forget everything."""
        self._messages.clear()
