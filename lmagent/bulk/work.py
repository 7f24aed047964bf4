"""The local work source: any iterable, read one item at a time. And what identifies an item in a journal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sized
from hashlib import blake2b
from inspect import isasyncgen, isgenerator
from typing import Any, cast

from lmagent.bulk.in_thread import InThread
from lmagent.bulk.parts import Work
from lmagent.core.messages import Message
from lmagent.core.prompts import as_messages, message_to_dict
from lmagent.errors import ConfigurationError, MessageError

__all__ = ["LocalSource", "canonical", "identity", "read_item"]


class LocalSource:
    """Takes items from an iterable or an async iterable.

    Args:
        prompts: Prompts, or mappings with `prompt` (or `messages`), `id` and `parameters`.
        in_thread: Whether an iterable of unknown length, which may wait for something, is read in a thread of its own.

    Raises:
        ConfigurationError: It is a single text, or nothing one can go through.
    """

    def __init__(self, prompts: Any, *, in_thread: bool = False) -> None:
        self._next = 0
        self._iterator: Iterator[Any] | None = None
        self._async_iterator: AsyncIterator[Any] | None = None
        if isinstance(prompts, str | bytes | Mapping):
            raise ConfigurationError("The prompts are an iterable of prompts; put a single one into a list.")
        if hasattr(prompts, "__aiter__"):
            self._async_iterator = aiter(prompts)
        elif in_thread and isinstance(prompts, Iterable) and not isinstance(prompts, Sized):
            self._async_iterator = InThread(iter(cast("Iterable[Any]", prompts)))
        elif isinstance(prompts, Iterable):
            self._iterator = iter(cast("Iterable[Any]", prompts))
        else:
            raise ConfigurationError(f"The prompts are an iterable of prompts, not {type(prompts).__name__}.")

    async def take(self) -> Work | None:
        """Return the next item, None at the end. What the iterable raises comes out as it is."""
        if self._iterator is not None:
            item = next(self._iterator, _END)
        else:
            item = await anext(cast("AsyncIterator[Any]", self._async_iterator), _END)
        if item is _END:
            return None
        index, self._next = self._next, self._next + 1
        return read_item(item, index)

    async def aclose(self) -> None:
        """Close a generator."""
        if isgenerator(self._iterator):
            self._iterator.close()
        if isasyncgen(self._async_iterator) or isinstance(self._async_iterator, InThread):
            await self._async_iterator.aclose()


_END: Any = object()
_FIELDS = {"prompt", "messages", "id", "parameters"}


def read_item(item: Any, index: int) -> Work:
    """Return an item as work; what cannot be read is work with a problem."""
    name, given = str(index), item
    parameters: dict[str, Any] = {}
    try:
        if isinstance(item, Exception):
            raise item
        if isinstance(item, Mapping) and "role" not in item:
            fields = cast("Mapping[str, Any]", item)
            unknown = sorted(str(key) for key in fields.keys() - _FIELDS)
            if unknown or ("prompt" in fields) == ("messages" in fields):
                raise MessageError(
                    f"Item {index} is a dict with 'prompt' (or 'messages') and, if wanted, 'id' and 'parameters'; "
                    f"it has {sorted(str(key) for key in fields)}."
                )
            name = str(fields["id"]) if fields.get("id") is not None else name
            given = fields["prompt"] if "prompt" in fields else fields["messages"]
            found: Any = fields.get("parameters") or {}
            if not isinstance(found, Mapping):
                raise MessageError(f"The parameters of item {index} are a dict, not {type(found).__name__}.")
            parameters = dict(cast("Mapping[str, Any]", found))
        return Work(index=index, id=name, messages=as_messages(given), parameters=parameters)
    except (MessageError, TypeError) as error:
        problem = error if isinstance(error, MessageError) else MessageError(f"Item {index}: {error}")
        return Work(index=index, id=name, problem=problem)


def canonical(value: Any) -> str:
    """Return plain values in one form: keys sorted, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)


def identity(frame: str, messages: tuple[Message, ...], parameters: Mapping[str, Any]) -> str:
    """Return the hash of everything that decides on an answer.

    Args:
        frame: What all items share, in canonical form: model, tools, instructions.
        messages: Of the item.
        parameters: Of the item, over the defaults.
    """
    text = canonical([[message_to_dict(message) for message in messages], dict(parameters)])
    return blake2b(f"{frame}\n{text}".encode(), digest_size=16).hexdigest()
