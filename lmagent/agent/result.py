"""Results of runs and decisions on tool calls: `RunResult`, `Allow`, `Deny`, `Edit`, `Pause`.

A paused run is a value: stored as JSON, it resumes in another process with the decisions it waited for. Knows neither
the loop nor a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import Any, Literal, TypeAlias, cast

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.history import open_calls
from lmagent.core.json_text import dumps_text
from lmagent.core.messages import (
    AssistantMessage,
    FinishReason,
    Message,
    Reply,
    ToolCall,
    ToolMessage,
    Usage,
    message_from_dict,
    message_to_dict,
)
from lmagent.errors import MessageError
from lmagent.toolkit.context import RunContext

__all__ = [
    "Allow", "ApprovalRule", "Approver", "Decision", "Decisions", "Deny", "Edit", "Pause", "Resumption", "Ruling",
    "RunResult", "Waiting", "as_decision", "decision_from_dict", "decision_to_dict",
]  # fmt: skip


@fast_dataclass(frozen=True)
class Allow:
    """Run the call."""


@fast_dataclass(frozen=True)
class Deny:
    """Do not run it; the reason is sent to the model, in one line."""

    reason: str = "The user did not allow this call."


@fast_dataclass(frozen=True)
class Edit:
    """Run it with these arguments (JSON text or an object), checked like the model's own."""

    arguments: str | Mapping[str, Any]


@fast_dataclass(frozen=True)
class Pause:
    """Decide later: the run ends with `.pending` and goes on with `RunResult.decide`."""


Decision: TypeAlias = Allow | Deny | Edit | Pause

Approver: TypeAlias = Callable[[ToolCall, RunContext[Any]], Any]
"""Decides on one call: returns `Allow()`, `Deny(reason)`, `Edit(arguments)`, `Pause()` or a bool; may be async."""

ApprovalRule: TypeAlias = bool | Literal["always", "once", "never"] | Callable[[ToolCall], Any]
"""`always` or True: ask about each call; `once`: about the first of a run; `never` or False: do not ask. A function of
the call says whether to ask, or decides itself by returning a `Decision`."""


@fast_dataclass(frozen=True)
class Ruling:
    """What a rule says about a call that needs a decision."""

    rule: str
    """Short name of the rule, for events and traces."""
    decision: Decision | None = None
    """None: the approver decides."""


def as_decision(answer: Any) -> Decision:
    """Return the decision that an approver's answer means; anything unclear is a denial."""
    match answer:
        case Allow() | Pause() | Deny(str()) | Edit(str()):
            return answer
        case Edit(Mapping()) if _is_json(answer.arguments):
            return answer
        case _:
            return Allow() if answer is True else Deny()


def _is_json(arguments: Any) -> bool:
    try:
        dumps_text(dict(arguments))
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def decision_to_dict(decision: Decision) -> dict[str, Any]:
    """Return `{"decision": "allow" | "deny" | "edit" | "pause"}` with the reason or the arguments."""
    shown: dict[str, Any] = {"decision": type(decision).__name__.lower()}
    if isinstance(decision, Deny):
        shown["reason"] = decision.reason
    if isinstance(decision, Edit):
        given = decision.arguments
        shown["arguments"] = given if isinstance(given, str) else dict(given)
    return shown


def decision_from_dict(data: Mapping[str, Any]) -> Decision:
    """Read what `decision_to_dict` wrote. Raises `MessageError` when it is something else."""
    match data:
        case {"decision": "allow"}:
            return Allow()
        case {"decision": "deny", "reason": str(reason)}:
            return Deny(reason)
        case {"decision": "edit", "arguments": arguments}:
            return Edit(arguments)
        case {"decision": "pause"}:
            return Pause()
        case _:
            raise MessageError(f"This is no decision: {data!r:.80}.")


Decisions: TypeAlias = "Decision | bool | Mapping[str, Decision | bool]"
"""One decision for all pending calls, or call id -> decision; a call without one waits on."""

_NO_USAGE = Usage()


@fast_dataclass(kw_only=True)
class Waiting:
    """What a paused run needs to resume, beside its messages."""

    calls: tuple[ToolCall, ...] = ()
    """Calls of the newest message that wait for a decision."""
    decided: Mapping[str, Decision] = field(default_factory=dict[str, Decision])
    """Call id -> decision, of calls beside them that are decided and have not run."""
    answered: tuple[ToolMessage, ...] = ()
    """Results of calls beside them that have run."""
    nested: Mapping[str, RunResult] = field(default_factory=dict[str, "RunResult"])
    """Call id -> the paused run of the agent that was called."""
    allowed: tuple[str, ...] = ()
    """Names of the tools that were allowed in this run."""


@fast_dataclass(kw_only=True)
class RunResult:
    """Result of a run, finished or not: messages, calls and usage."""

    messages: tuple[Message, ...]
    """The whole history, with what the run added."""
    new_messages: tuple[Message, ...] = ()
    """What the run added, the prompt included."""
    reply: str = ""
    """The text of the last answer."""
    output: Any = None
    """The structured answer, when an `output_type` was asked for; else the text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Every call of the run, in order."""
    usage: Usage = _NO_USAGE
    finish_reason: FinishReason | Literal["", "paused"] = ""
    """Of the last reply; empty when there was none, `paused` when calls wait for a decision."""
    rounds: int = 0
    requests: int = 0
    """Requests made, retries included."""
    model_id: str = ""
    agent_name: str = ""
    """Who answered last: after a hand-off the other agent."""
    last: Reply | None = None
    """The last reply as the model gave it."""
    waiting: Waiting | None = None
    """What a paused run waits for; `pending` is the short form."""

    def __str__(self) -> str:
        return self.reply

    @property
    def is_paused(self) -> bool:
        """True if approvals are pending; pass `decide(...)` to `run` to resume."""
        return self.waiting is not None

    @property
    def pending(self) -> tuple[ToolCall, ...]:
        """Calls that wait for a decision. The id of a nested agent's call begins with the id of the outer call."""
        if self.waiting is None:
            return ()
        nested = (
            replace(call, id=f"{outer}/{call.id}")
            for outer, result in self.waiting.nested.items()
            for call in result.pending
        )
        return (*self.waiting.calls, *nested)

    def decide(self, decisions: Decisions) -> Resumption:
        """Return the prompt that resumes this run: `agent.run(paused.decide(True))`.

        Args:
            decisions: `Allow()`, `Deny(reason)`, `Edit(arguments)` or a bool for all pending calls, or a mapping of
                call ids to them. A call that is not in it waits on.

        Raises:
            ValueError: The run waits for nothing, or not for one of these calls.
        """
        if not self.is_paused:
            raise ValueError("This run waits for no decision.")
        ids = [call.id for call in self.pending]
        given = decisions if isinstance(decisions, Mapping) else dict.fromkeys(ids, decisions)
        for id in given:
            if id not in ids:
                raise ValueError(f"No call {id!r} waits for a decision; there are {ids}.")
        return Resumption(self, {id: as_decision(decision) for id, decision in given.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain JSON values; `from_dict` reads it back, in another process too.

        `output` and the raw reply are not kept.
        """
        stored: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN} | {
            "tool_calls": _calls_to_dicts(self.tool_calls),
            "usage": asdict(self.usage),
            "added": len(self.new_messages),
            "messages": [message_to_dict(message) for message in self.messages],
        }
        waiting = self.waiting
        if waiting is not None:
            stored["waiting"] = {
                "calls": _calls_to_dicts(waiting.calls),
                "decided": {id: decision_to_dict(decision) for id, decision in waiting.decided.items()},
                "answered": [message_to_dict(message) for message in waiting.answered],
                "nested": {id: result.to_dict() for id, result in waiting.nested.items()},
                "allowed": list(waiting.allowed),
            }
        return stored

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunResult:
        """Read what `to_dict` wrote. Raises `MessageError` when it is something else."""
        try:
            messages = _messages_from(data["messages"])
            waiting = data.get("waiting")
            return cls(
                **{name: data[name] for name in _PLAIN},
                tool_calls=_calls_from(data["tool_calls"]),
                usage=Usage(**data["usage"]),
                messages=messages,
                new_messages=messages[len(messages) - data["added"] :],
                waiting=None if waiting is None else _waiting_from(waiting),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise MessageError(f"This is no stored run ({type(error).__name__}: {error}).") from error


_PLAIN = ("reply", "finish_reason", "rounds", "requests", "model_id", "agent_name")


@fast_dataclass(frozen=True)
class Resumption:
    """A paused run with decisions: a prompt that every verb of an agent or an engine takes."""

    run: RunResult
    decisions: Mapping[str, Decision]

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls that the run stopped at, in order."""
        return open_calls(self.run.messages)

    @property
    def answered(self) -> tuple[ToolMessage, ...]:
        """Results of those that have run already."""
        return self._waiting.answered

    @property
    def allowed(self) -> tuple[str, ...]:
        """Names of the tools that were allowed before."""
        return self._waiting.allowed

    @property
    def decided(self) -> dict[str, Decision]:
        """Call id -> decision, with those made before; a call behind which a paused run stands was allowed."""
        waiting = self._waiting
        made = {call.id: self.decisions[call.id] for call in waiting.calls if call.id in self.decisions}
        return {**waiting.decided, **made, **dict.fromkeys(waiting.nested, Allow())}

    @property
    def nested(self) -> dict[str, Resumption]:
        """Call id -> the paused run behind it, with the decisions on its calls."""
        return {outer: Resumption(run, self._of(f"{outer}/")) for outer, run in self._waiting.nested.items()}

    def _of(self, prefix: str) -> dict[str, Decision]:
        own = {id.removeprefix(prefix): id for id in self.decisions if id.startswith(prefix)}
        return {id: self.decisions[whole] for id, whole in own.items()}

    @property
    def _waiting(self) -> Waiting:
        return self.run.waiting or Waiting()


def _waiting_from(data: Mapping[str, Any]) -> Waiting:
    return Waiting(
        calls=_calls_from(data["calls"]),
        decided={id: decision_from_dict(each) for id, each in data["decided"].items()},
        answered=cast("tuple[ToolMessage, ...]", _messages_from(data["answered"])),
        nested={id: RunResult.from_dict(each) for id, each in data["nested"].items()},
        allowed=tuple(data["allowed"]),
    )


def _calls_to_dicts(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return message_to_dict(AssistantMessage(tool_calls=tuple(calls))).get("tool_calls", [])


def _calls_from(data: Any) -> tuple[ToolCall, ...]:
    holder = message_from_dict({"role": "assistant", "tool_calls": data})
    return cast("AssistantMessage", holder).tool_calls


def _messages_from(data: Any) -> tuple[Message, ...]:
    return tuple(message_from_dict(item) for item in data)
