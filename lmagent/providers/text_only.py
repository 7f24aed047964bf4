"""What dialects of plain texts share: user and assistant take turns, and there are no tools, pictures or system role.

Tools go through the prompt there (`Prompted`); calls and results of earlier turns become text.
"""

from __future__ import annotations

from typing import ClassVar

from lmagent.providers.base import ChatCall, Codec, Features
from lmagent.providers.history import alternating, messages_of, system_in_front, text_only, tools_as_text

__all__ = ["TextOnlyCodec"]


class TextOnlyCodec(Codec):
    """A dialect that knows nothing but texts of two speakers."""

    features = Features(
        tools=False,
        parallel_calls=False,
        stream_tools=False,
        tool_choice=frozenset(),
        images=False,
        json_schema="none",
        system=False,
        stop=False,
    )
    max_messages: ClassVar[int | None] = None
    """Longest history the API takes."""

    def turns(self, call: ChatCall) -> list[dict[str, str]]:
        """Return the conversation as `{"role": ..., "content": ...}`: the two take turns, the user begins and ends.

        Raises:
            MessageError: There are tools, pictures or too many messages.
        """
        self.refuse_tools(call)
        messages = alternating(tools_as_text(text_only(system_in_front(messages_of(call)), self.refuse)))
        if self.max_messages is not None and len(messages) > self.max_messages:
            raise self.refuse(f"{len(messages)} messages; it takes at most {self.max_messages} (shorten the history)")
        return [{"role": message.role, "content": str(message.content)} for message in messages]
