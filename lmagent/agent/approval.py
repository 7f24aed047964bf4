"""Who decides whether a tool call runs: decisions, rules, and the policy that finds the rule of a call.

Knows no loop and no model. Rules never see text that they did not ask for, and nothing a model writes decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeAlias

from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.json_text import dumps_text
from lmagent.core.messages import ToolCall
from lmagent.errors import ConfigurationError, MessageError
from lmagent.toolkit.context import RunContext
from lmagent.toolkit.outcomes import ToolOutcome
from lmagent.toolkit.registry import ToolRegistry

__all__ = [
    "Allow",
    "ApprovalRule",
    "Approver",
    "Decision",
    "Deny",
    "Edit",
    "Pause",
    "Policy",
    "Ruling",
    "as_decision",
    "decision_from_dict",
    "decision_to_dict",
]


@fast_dataclass(frozen=True)
class Allow:
    """Run the call."""


@fast_dataclass(frozen=True)
class Deny:
    """Do not run it; the model is told why, in one line."""

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

_RULES = (True, False, "always", "once", "never")


@fast_dataclass(frozen=True)
class Ruling:
    """What a rule says of a call that may not simply run."""

    rule: str
    """The rule in a word, for events and traces."""
    decision: Decision | None = None
    """None: somebody must be asked."""


class Policy:
    """Finds the rule of a call: that of its name, the tool's own, that of `*`, and else what its effects ask for.

    A tool that declares an effect other than `reads` is asked about unless a rule says otherwise. A tool that declares
    none is taken at its word.

    Nobody is asked about a call that cannot run as it stands: its error goes to the model.

    Args:
        tools: The tools of the agent; it may grow.
        rules: Name of a tool, or `*`, -> rule.
        repair: How arguments are mended, as `ToolRegistry.prepare` takes it.

    Raises:
        ConfigurationError: A rule that is none, or a name that no tool has.
    """

    def __init__(self, tools: ToolRegistry, rules: Mapping[str, ApprovalRule], *, repair: Any = None) -> None:
        self._tools = tools
        self._repair = repair
        self.rules = dict(rules)
        for name, rule in self.rules.items():
            if not callable(rule) and rule not in _RULES:
                raise ConfigurationError(
                    f"approval={{{name!r}: {rule!r}}}: a rule is True, False, 'always', 'once', 'never' or a function."
                )
            if name != "*":
                tools.get(name)  # a misspelt name would leave its tool without a rule

    def __call__(self, call: ToolCall, allowed: Collection[str]) -> Ruling | None:
        """Return what stands between a call and its run, or None.

        Args:
            call: As the model made it.
            allowed: Names of the tools that were allowed in this run.
        """
        if call.name not in self._tools:
            return None
        ruling = self._ruling(call, allowed)
        if ruling is not None and isinstance(self._tools.prepare(call, repair=self._repair), ToolOutcome):
            return None
        return ruling

    def _ruling(self, call: ToolCall, allowed: Collection[str]) -> Ruling | None:
        options = self._tools.get(call.name).options
        for rule in (self.rules.get(call.name), options.requires_approval, self.rules.get("*")):
            if rule is not None:
                return _applied(rule, call, allowed)
        effects = sorted(options.effects - {"reads"})
        return Ruling(f"effects: {', '.join(effects)}") if effects else None


def _applied(rule: ApprovalRule, call: ToolCall, allowed: Collection[str]) -> Ruling | None:
    if callable(rule):
        name = getattr(rule, "__name__", type(rule).__name__)
        try:
            answer = rule(call)
        except Exception:  # the user's rule: what cannot be decided needs a decision
            return Ruling(name)
        if isinstance(answer, Allow | Deny | Edit | Pause):
            return Ruling(name, as_decision(answer))
        return Ruling(name) if answer else None
    if rule == "once":
        return None if call.name in allowed else Ruling("once")
    return Ruling("always") if rule in (True, "always") else None


def as_decision(answer: Any) -> Decision:
    """Read what an approver returned: anything that is not clearly a yes is a no."""
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
