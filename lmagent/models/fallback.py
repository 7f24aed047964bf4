"""Several models as one: if the first fails, the next gets the same call, with the same history and tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from copy import copy
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

from lmagent.core.events import Event
from lmagent.core.messages import Reply
from lmagent.core.redaction import library_logger
from lmagent.errors import ConfigurationError, ProviderError
from lmagent.models.model import ChatModel
from lmagent.providers.base import ChatCall, Features

if TYPE_CHECKING:
    from lmagent.models.parameters import ChatParameters

__all__ = ["FallbackModel"]


class FallbackModel(ChatModel):
    """Asks the first model, and the next one when it fails for good (its own repeats are over).

        model = FallbackModel([OpenAIChat(), WenxinChat(), LocalChat()])

    Histories are neutral, so a conversation goes on across dialects, tools included. A stream changes models only
    before its first event. `Reply.model_id` names the model that answered. Only features that all models have are used.

    Args:
        models: In order of preference.
        on: Errors that make the next model try; default: every `ProviderError`.

    Raises:
        ConfigurationError: No model was given.
    """

    def __init__(self, models: Sequence[ChatModel], *, on: tuple[type[ProviderError], ...] = (ProviderError,)) -> None:
        if not models:
            raise ConfigurationError("FallbackModel needs at least one model.")
        for model in models:
            if not isinstance(model, ChatModel):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"FallbackModel takes models, such as load_from_model_id('local'), not {model!r:.80}.")
        self.models = tuple(models)
        self.on = on
        self.codec = copy(self.models[0].codec)
        self.codec.features = _common(*(model.codec.features for model in self.models))
        self._defaults: Mapping[str, Any] = {}
        self.exchange = cast("Any", _Chain(self.models, on))

    @property
    def model_id(self) -> str:
        """The ids of all models, in order."""
        return "|".join(model.model_id for model in self.models)

    def check_parameters(
        self, given: ChatParameters | Mapping[str, Any] | None, *, over: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Return parameters that every model takes; each then adds its own defaults."""
        for model in self.models if given else ():
            model.check_parameters(given)
        return super().check_parameters(given, over=over)


def _common(*features: Features) -> Features:
    """Return what all of them can do: a structured answer, for example, is requested in the weakest model's way."""
    first = features[0]
    shared: dict[str, Any] = {
        made.name: all(getattr(each, made.name) for each in features)
        for made in fields(Features)
        if isinstance(getattr(first, made.name), bool)
    }
    levels = ("none", "object", "schema")
    return replace(
        first,
        **shared,
        tool_choice=first.tool_choice.intersection(*(each.tool_choice for each in features)),
        json_schema=min((each.json_schema for each in features), key=levels.index),
        constrained=first.constrained if all(each.constrained == first.constrained for each in features) else "",
    )


class _Chain:
    """The exchanges of several models, tried in order."""

    def __init__(self, models: tuple[ChatModel, ...], on: tuple[type[ProviderError], ...]) -> None:
        self._models = models
        self._on = on

    def ask(self, call: ChatCall) -> Reply:
        failed = 0
        for model in self._models[:-1]:
            try:
                return _counted(model.exchange.ask(_own(model, call)), failed)
            except self._on as error:
                failed += _noted(model, error)
        last = self._models[-1]
        return _counted(last.exchange.ask(_own(last, call)), failed)

    async def async_ask(self, call: ChatCall) -> Reply:
        failed = 0
        for model in self._models[:-1]:
            try:
                return _counted(await model.exchange.async_ask(_own(model, call)), failed)
            except self._on as error:
                failed += _noted(model, error)
        last = self._models[-1]
        return _counted(await last.exchange.async_ask(_own(last, call)), failed)

    def stream(self, call: ChatCall) -> Iterator[Event | Reply]:
        failed = 0
        for model in self._models:
            handed = False
            try:
                with closing(cast("Any", model.exchange.stream(_own(model, call)))) as items:
                    for item in items:
                        handed = True
                        yield _counted(item, failed) if isinstance(item, Reply) else item
                return
            except self._on as error:
                if handed or model is self._models[-1]:
                    raise
                failed += _noted(model, error)

    async def async_stream(self, call: ChatCall) -> AsyncIterator[Event | Reply]:
        failed = 0
        for model in self._models:
            handed = False
            try:
                async with aclosing(cast("Any", model.exchange.async_stream(_own(model, call)))) as items:
                    async for item in items:
                        handed = True
                        yield _counted(item, failed) if isinstance(item, Reply) else item
                return
            except self._on as error:
                if handed or model is self._models[-1]:
                    raise
                failed += _noted(model, error)

    def close(self) -> None:
        for model in self._models:
            model.exchange.close()

    async def aclose(self) -> None:
        for model in self._models:
            await model.exchange.aclose()


def _own(model: ChatModel, call: ChatCall) -> ChatCall:
    """Return the call with the model's own defaults under its parameters."""
    return replace(call, parameters=model.check_parameters(call.parameters))


def _counted(reply: Reply, failed: int) -> Reply:
    return replace(reply, attempts=reply.attempts + failed) if failed else reply


def _noted(model: ChatModel, error: ProviderError) -> int:
    library_logger("fallback").warning("%s failed, asking the next model: %s", model.model_id, error)
    return error.attempts
