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
    """Asks the first model, and the next one when its retries are used up.

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


class _Attempt:
    """The attempt of one model, as a context that ends its errors in `on` and logs them, until an item was passed on.

    Args:
        model: Is asked.
        call: The call; the model's own defaults are put under its parameters.
        on: Errors after which the next model is asked; none for the last model.
        failed: Number of requests of the models before.
    """

    def __init__(self, model: ChatModel, call: ChatCall, on: tuple[type[ProviderError], ...], failed: int) -> None:
        self.exchange = model.exchange
        self.call = replace(call, parameters=model.check_parameters(call.parameters))
        self.failed = failed
        self._model_id = model.model_id
        self._on = on

    def passed(self, item: Any) -> Any:
        """Return an item of the answer. An error that comes later leaves: the consumer has seen a part."""
        self._on = ()
        return replace(item, attempts=item.attempts + self.failed) if self.failed and isinstance(item, Reply) else item

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, self._on):
            return False
        library_logger("fallback").warning("%s failed, asking the next model: %s", self._model_id, error)
        self.failed += error.attempts
        return True


class _Chain:
    """The exchanges of several models, tried in order."""

    def __init__(self, models: tuple[ChatModel, ...], on: tuple[type[ProviderError], ...]) -> None:
        self._models = models
        self._on = on

    def _attempts(self, call: ChatCall) -> Iterator[_Attempt]:
        failed = 0
        for index, model in enumerate(self._models, 1):
            attempt = _Attempt(model, call, self._on if index < len(self._models) else (), failed)
            yield attempt
            failed = attempt.failed

    def ask(self, call: ChatCall) -> Reply:
        for attempt in self._attempts(call):
            with attempt:
                return attempt.passed(attempt.exchange.ask(attempt.call))
        raise AssertionError("the last attempt returns or raises")

    async def async_ask(self, call: ChatCall) -> Reply:
        for attempt in self._attempts(call):
            with attempt:
                return attempt.passed(await attempt.exchange.async_ask(attempt.call))
        raise AssertionError("the last attempt returns or raises")

    def stream(self, call: ChatCall) -> Iterator[Event | Reply]:
        for attempt in self._attempts(call):
            with attempt, closing(cast("Any", attempt.exchange.stream(attempt.call))) as items:
                for item in items:
                    yield attempt.passed(item)
                return

    async def async_stream(self, call: ChatCall) -> AsyncIterator[Event | Reply]:
        for attempt in self._attempts(call):
            with attempt:
                async with aclosing(cast("Any", attempt.exchange.async_stream(attempt.call))) as items:
                    async for item in items:
                        yield attempt.passed(item)
                    return

    def close(self) -> None:
        for model in self._models:
            model.exchange.close()

    async def aclose(self) -> None:
        for model in self._models:
            await model.exchange.aclose()
