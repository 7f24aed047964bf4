"""Events of a reply and of a run, and `ReplyBuilder`, the only place that joins deltas.

A codec yields deltas and one `Done`. The builder gives them ids and adds starts and ends, so that a consumer sees
start, deltas, end for each block of text, each block of reasoning and each tool call. The agent adds rounds and tool
results. Over 400 lines because the events are many small classes, and their builder is read together with them.

    RoundStart
      ReasoningStart ReasoningDelta* ReasoningEnd
      TextStart TextDelta* TextEnd
      ToolCallStart ToolCallDelta* ToolCallEnd
    ToolDecided                 for each call that needs a decision
    ToolStart, ToolEnd          one pair per call, as they run
    RoundEnd
    RunEnd                      has the result

Events are not frozen: a stream creates thousands of them, and a frozen dataclass with slots takes three times as long
to create. Do not change them all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, TypeAlias

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.messages import AssistantMessage, FinishReason, Message, Reply, ToolCall, ToolMessage, Usage

__all__ = [
    "Delta", "Done", "Event", "NestedEvent", "ReasoningDelta", "ReasoningEnd", "ReasoningStart", "RefusalDelta",
    "ReplyBuilder", "RoundEnd", "RoundStart", "RunEnd", "TextDelta", "TextEnd", "TextStart", "ToolCallDelta",
    "ToolCallEnd", "ToolCallStart", "ToolDecided", "ToolEnd", "ToolStart", "minted_id",
]  # fmt: skip


@fast_dataclass()
class TextStart:
    """A block of answer text begins."""

    id: str


@fast_dataclass()
class TextDelta:
    """A piece of the answer."""

    text: str
    id: str = ""


@fast_dataclass()
class TextEnd:
    """A block of answer text is complete."""

    id: str
    text: str


@fast_dataclass()
class ReasoningStart:
    """A block of reasoning begins."""

    id: str


@fast_dataclass()
class ReasoningDelta:
    """A piece of the model's reasoning; never part of the answer."""

    text: str
    id: str = ""


@fast_dataclass()
class ReasoningEnd:
    """A block of reasoning is complete."""

    id: str
    text: str


@fast_dataclass()
class RefusalDelta:
    """A piece of a refusal, if the provider marks it as one. It is sent as text as well."""

    text: str


@fast_dataclass()
class ToolCallStart:
    """A tool call begins; its name is known.

    A call that is read from text may turn out to be a draft or a quotation; then no `ToolCallEnd` follows.
    """

    id: str
    index: int
    name: str


@fast_dataclass()
class ToolCallDelta:
    """A piece of a tool call: for display, never for execution.

    From a codec: `index` identifies the call; id and name come once, with the first piece.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    whole: ToolCall | None = None
    """Set by codecs that know the whole call (with repairs or a problem); it replaces the pieces."""
    tentative: bool = False
    """The text looks like a call so far, but may still be a draft or a quotation; without `whole` there is no call."""


@fast_dataclass()
class ToolCallEnd:
    """A tool call is complete."""

    id: str
    index: int
    call: ToolCall


@fast_dataclass(kw_only=True)
class Done:
    """The end of a reply. A codec yields it once, last, and only if the reply is complete."""

    finish_reason: FinishReason = "stop"
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Becomes `AssistantMessage.details`."""
    response_id: str | None = None
    raw: Any = None


@fast_dataclass()
class RoundStart:
    """The agent asks the model for the `round`-th time (from 1)."""

    round: int


@fast_dataclass()
class ToolDecided:
    """A decision was made whether a call runs."""

    call: ToolCall
    decision: Any
    """`Allow`, `Deny`, `Edit` or `Pause`."""
    rule: str
    """Why a decision was needed: `always`, `once`, the name of a rule's function, or `effects: …`."""
    by: str
    """Who decided: the `approver`, the `rule` itself, the `caller` who resumed a paused run, or `nobody`."""


@fast_dataclass()
class ToolStart:
    """A tool begins to run."""

    call: ToolCall


@fast_dataclass()
class ToolEnd:
    """A tool has returned a result, or an error as its result."""

    call: ToolCall
    message: ToolMessage
    duration: float = 0.0
    """Seconds."""


@fast_dataclass()
class RoundEnd:
    """One request to the model and its tool calls are complete; `messages` were added to the history."""

    round: int
    reply: Reply | None
    """None after a paused run was resumed: its reply came before the pause."""
    messages: tuple[Message, ...] = ()


@fast_dataclass()
class NestedEvent:
    """An event of an agent that runs as a tool."""

    agent: str
    event: Event


@fast_dataclass()
class RunEnd:
    """The run is complete; `result` is its `RunResult`."""

    result: Any


Delta: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Done
"""The values that a codec yields."""

Event: TypeAlias = (
    TextStart
    | TextDelta
    | TextEnd
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | RefusalDelta
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | RoundStart
    | ToolDecided
    | ToolStart
    | ToolEnd
    | RoundEnd
    | NestedEvent
    | RunEnd
)
"""The values that a stream yields to its consumer."""


_WHOLE = ("stop", "tool_calls", "other")
_INCOMPLETE_CALL = (
    "The reply ended early ({}), so this call is probably incomplete and was not run. "
    "Send the whole call again, shorter if necessary."
)


def minted_id(prefix: str, index: int) -> str:
    """Return an id in OpenAI's form, `call_` and 24 digits, for a call without an id or with the id of another call.

    Args:
        prefix: The number of the reply in the conversation, at most 16 digits.
        index: The index of the call in that reply.
    """
    return f"call_{prefix:0>16}{index:0>8}"


class _OpenCall:
    __slots__ = ("arguments", "id", "index", "name", "started", "tentative", "whole")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.started = False
        self.tentative = False
        self.whole: ToolCall | None = None

    @property
    def is_call(self) -> bool:
        return self.whole is not None or not self.tentative


class ReplyBuilder:
    """Joins the deltas of ONE reply, in linear time, and returns the events for the consumer.

    Args:
        prefix: Makes block ids and generated call ids unique in the conversation. The model verbs pass its number of
            messages (`ChatCall.position`), so that the same history gives the same ids in all four verbs.
    """

    __slots__ = (
        "_block",
        "_block_id",
        "_blocks",
        "_calls",
        "_pieces",
        "_prefix",
        "_reasoning",
        "_refusal",
        "_text",
        "done",
    )

    def __init__(self, prefix: str = "1") -> None:
        self._prefix = prefix
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _OpenCall] = {}
        self._block: type[TextDelta] | type[ReasoningDelta] | None = None
        self._block_id = ""
        self._blocks = 0
        self._pieces: list[str] = []
        self.done: Done | None = None

    def add(self, delta: Delta) -> tuple[Event, ...]:
        """Add one delta; return the events for the consumer."""
        kind = type(delta)
        if kind is self._block:  # the hot path: one more piece of the open block
            delta.id = self._block_id  # type: ignore[union-attr]
            self._pieces.append(delta.text)  # type: ignore[union-attr]
            return (delta,)  # type: ignore[return-value]
        match delta:
            case TextDelta() | ReasoningDelta():
                if not delta.text:
                    return ()
                ended = self._end_block()
                self._blocks += 1
                self._block = type(delta)
                self._block_id = delta.id = f"{self._prefix}-{self._blocks}"
                self._pieces.append(delta.text)
                start = TextStart(self._block_id) if isinstance(delta, TextDelta) else ReasoningStart(self._block_id)
                return (*ended, start, delta)
            case RefusalDelta():
                self._refusal.append(delta.text)
                return (delta,)
            case ToolCallDelta():
                return (*self._end_block(), *self._add_call(delta))
            case Done():
                self.done = delta
                return (*self._end_block(), *self._end_calls())

    def _end_block(self) -> tuple[Event, ...]:
        if self._block is None:
            return ()
        text = "".join(self._pieces)
        self._pieces = []
        kind, self._block = self._block, None
        if kind is TextDelta:
            self._text.append(text)
            return (TextEnd(self._block_id, text),)
        self._reasoning.append(text)
        return (ReasoningEnd(self._block_id, text),)

    def _add_call(self, delta: ToolCallDelta) -> tuple[Event, ...]:
        call = self._calls.get(delta.index)
        if call is None:
            call = self._calls[delta.index] = _OpenCall(delta.index)
        if delta.id and not call.id:
            call.id = delta.id
        if delta.name:
            call.name += delta.name
        if delta.arguments:
            call.arguments.append(delta.arguments)
        call.whole = delta.whole or call.whole
        call.tentative = delta.tentative or call.tentative
        if not delta.arguments:
            return ()  # the name may still come in pieces, so the start waits for the first piece of arguments
        delta.id = self._id_of(call)
        if call.started:
            return (delta,)
        call.started = True
        return (ToolCallStart(delta.id, call.index, call.name), delta)

    def _id_of(self, call: _OpenCall) -> str:
        if not call.id:
            call.id = minted_id(self._prefix, call.index)
        return call.id

    def _end_calls(self) -> tuple[Event, ...]:
        events: list[Event] = []
        for call, whole in zip(self._certain_calls(), self._whole_calls(), strict=True):
            if not call.started:
                events.append(ToolCallStart(whole.id, call.index, whole.name))
            events.append(ToolCallEnd(whole.id, call.index, whole))
        return tuple(events)

    def _certain_calls(self) -> list[_OpenCall]:
        # By index: the first piece of a later call may arrive before it is certain that an earlier one is a call.
        return sorted((call for call in self._calls.values() if call.is_call), key=lambda call: call.index)

    def _whole_calls(self) -> tuple[ToolCall, ...]:
        calls: list[ToolCall] = []
        taken: set[str] = set()
        certain = self._certain_calls()
        for open_call in certain:
            call = open_call.whole or ToolCall(
                id=self._id_of(open_call), name=open_call.name, arguments="".join(open_call.arguments)
            )
            if not call.id or call.id in taken:  # a model may repeat an id or omit it; each call needs its own
                call = replace(call, id=minted_id(self._prefix, open_call.index))
            taken.add(call.id)
            calls.append(call)
        newest = certain[-1] if certain else None
        if newest and not newest.whole and self.done and self.done.finish_reason not in _WHOLE:
            calls[-1] = replace(calls[-1], problem=_INCOMPLETE_CALL.format(self.done.finish_reason))
        return tuple(calls)

    def message(self) -> AssistantMessage:
        """Return the assistant message: complete after `Done`, else the text so far, without tool calls."""
        tail = "".join(self._pieces)
        refusal = "".join(self._refusal)
        return AssistantMessage(
            "".join(self._text) + (tail if self._block is TextDelta else "") or refusal,
            tool_calls=self._whole_calls() if self.done else (),
            reasoning="".join(self._reasoning) + (tail if self._block is ReasoningDelta else ""),
            refusal=refusal,
            details=self.done.details if self.done else {},
        )

    def reply(self, model_id: str = "", *, request_id: str | None = None, attempts: int = 1) -> Reply:
        """Return the reply. Call it after `Done`."""
        done = self.done or Done(finish_reason="error")
        message = self.message()
        reason = done.finish_reason
        if message.tool_calls and reason in ("stop", "other", "tool_calls"):
            reason = "tool_calls"
        elif message.refusal and reason == "stop":
            reason = "refusal"
        return Reply(
            message=message,
            finish_reason=reason,
            usage=done.usage,
            model_id=model_id,
            raw=done.raw,
            raw_finish_reason=done.raw_finish_reason,
            response_id=done.response_id,
            request_id=request_id,
            attempts=attempts,
        )
