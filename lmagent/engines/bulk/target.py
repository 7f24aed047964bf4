"""The target of a bulk run: a model, asked once per item, or an agent, run once per item."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from lmagent.agent.agent import Agent
from lmagent.agent.result import RunResult
from lmagent.asking.exchange import Exchange
from lmagent.core.budget import Budget
from lmagent.core.messages import AssistantMessage, FilePart, ImagePart, Message, Reply, TextPart
from lmagent.core.redaction import redact_value
from lmagent.engines.bulk.gate import Gate
from lmagent.engines.bulk.results import result_from_dict
from lmagent.engines.bulk.work import Row, SharedLimiter, Work, canonical, identity
from lmagent.errors import ConfigurationError, ToolError
from lmagent.models.fallback import FallbackModel
from lmagent.models.model import ChatModel

__all__ = ["Target", "own_limiter"]

_HIDDEN = ("extra_headers",)
"""Parameters that may hold secrets. They are not part of an item's identity and are not stored in the journal."""


class Target:
    """Ask a model, or run an agent, for one item at a time.

    Args:
        asked: A model or an agent.
        parameters: Model parameters; they override those of the model and the agent.

    Raises:
        ConfigurationError: `asked` is neither a model nor an agent.
        ParameterError: A parameter is unknown or out of range.
    """

    def __init__(self, asked: ChatModel | Agent, parameters: Mapping[str, Any]) -> None:
        if not isinstance(asked, ChatModel | Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"CompletionEngine needs a ChatModel or an Agent, not {type(asked).__name__}.")
        self._asked = asked
        self.model = asked.model if isinstance(asked, Agent) else asked
        base = asked.parameters if isinstance(asked, Agent) else self.model.parameters
        self._defaults = self.model.check_parameters(parameters, over=base)
        shown = {name: value for name, value in self._defaults.items() if name not in _HIDDEN}
        self.fingerprint: dict[str, Any] = {
            "model": self.model.model_id,
            "parameters": redact_value(shown),
            "asks": "model",
        }
        """Settings that all items share, by name."""
        if isinstance(asked, Agent):
            output = asked.typed_output
            self.fingerprint |= {
                "asks": "agent",
                "system prompt": asked.system_prompt,
                "tools": [[spec.name, spec.description, spec.parameters] for spec in asked.tools.specs],
                "output": [output.mode, output.instruction, output.schema and output.schema.schema] if output else None,
            }
        self._frame = canonical(self.fingerprint)
        shared = [self.fingerprint[name] for name in ("system prompt", "tools") if name in self.fingerprint]
        self._shared_size = len(canonical(shared)) if shared else 0

    def bound(self, gate: Gate) -> Target:
        """Return a copy whose requests pass `gate`. It shares connections and credentials with the caller's model."""
        target = copy.copy(self)
        target.model = _bound(self.model, gate)
        target._asked = target.model
        if isinstance(self._asked, Agent):
            target._asked = copy.copy(self._asked)
            target._asked.model = target.model
        return target

    def identity(self, work: Work) -> str:
        """Return the hash of everything that determines the answer to `work`."""
        parameters = {name: value for name, value in work.parameters.items() if name not in _HIDDEN}
        return identity(self._frame, work.messages, parameters)

    def size(self, work: Work) -> int:
        """Return the approximate size of the prompt in bytes, for token estimates."""
        return self._shared_size + sum(_size(message) for message in work.messages)

    def parameters(self, work: Work) -> Mapping[str, Any]:
        """Return the model parameters of `work`. Raises `ParameterError`."""
        return self.model.check_parameters(work.parameters, over=self._defaults)

    async def ask(self, work: Work, budget: Budget) -> Reply | RunResult:
        """Ask for `work` and count its requests in `budget`.

        Raises:
            LMAgentError: The item failed.
        """
        parameters = self.parameters(work)
        if isinstance(self._asked, Agent):
            result = await self._asked.async_run(work.messages, budget=budget, **parameters)
            if result.is_paused:
                names = ", ".join(call.name for call in result.pending)
                error = ToolError(f"A bulk run cannot pause for approval of {names}; give the agent approve=.")
                error.run = result
                raise error
            return result
        call = self.model.call(work.messages)
        return await self.model.exchange.async_ask(replace(call, parameters=parameters, meter=budget))

    def result_of(self, row: Row) -> Reply | RunResult:
        """Return the result of a journal row, including its structured output."""
        assert row.result is not None
        result = result_from_dict(row.result)
        output = self._asked.typed_output if isinstance(self._asked, Agent) else None
        if output is None or not isinstance(result, RunResult):
            return replace(result, output=result.reply) if isinstance(result, RunResult) else result
        last = next(message for message in reversed(result.messages) if isinstance(message, AssistantMessage))
        value, _ = output.read(Reply(message=last))
        return replace(result, output=value)


def _bound(model: ChatModel, gate: Gate) -> ChatModel:
    if isinstance(model, FallbackModel):
        return FallbackModel([_bound(each, gate) for each in model.models], on=model.on)
    bound = copy.copy(model)
    bound.exchange = copy.copy(model.exchange)
    bound.exchange.limiter = gate
    return bound


def own_limiter(model: ChatModel) -> SharedLimiter | None:
    """Return the rate limiter that was passed to a model, or None.

    Raises:
        ConfigurationError: It is not a `SharedLimiter`, or a fallback model has several.
    """
    if isinstance(model, FallbackModel):
        found = {id(limiter): limiter for each in model.models if (limiter := own_limiter(each)) is not None}
        if len(found) > 1:
            raise ConfigurationError(
                "The models of the FallbackModel have several limiters; pass the same limiter= to all."
            )
        return next(iter(found.values()), None)
    exchange = cast("Any", model.exchange)
    limiter = exchange.limiter if isinstance(exchange, Exchange) else None
    if limiter is not None and not isinstance(limiter, SharedLimiter):
        raise ConfigurationError(
            f"The model's limiter ({type(limiter).__name__}) is not a SharedLimiter: a bulk run needs its peek, book, "
            "pause and counts_tokens. Use a RateLimiter, or build the model without limiter=."
        )
    return limiter


_IMAGE_BYTES = 4000
"""Counted for an image or a file: about a thousand tokens."""


def _size(message: Message) -> int:
    if isinstance(message.content, str):
        return len(message.content.encode("utf-8", "replace")) + 16
    return sum(_part_size(part) for part in message.content)


def _part_size(part: TextPart | ImagePart | FilePart) -> int:
    return len(part.text.encode("utf-8", "replace")) if isinstance(part, TextPart) else _IMAGE_BYTES
