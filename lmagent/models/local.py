"""A model in this process: no key, no server, no network."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Unpack

from lmagent.http.local import EMBEDDED, LocalTransport
from lmagent.models.model import ChatModel, ModelOptions
from lmagent.prompting.prompted import Prompted
from lmagent.prompting.tiny import TinyPrompted
from lmagent.providers.base import Codec, Features
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.providers.openai.profile import COMMON_PARAMETERS, GENERIC

__all__ = ["LocalChat"]

_PARAMETERS = ("temperature", "top_p", "max_tokens", "stop", "seed", "presence_penalty", "frequency_penalty")

_PROFILE = replace(
    GENERIC,
    provider="local",
    base_url="local:",
    needs_key=False,
    features=Features(
        tools=False,
        parallel_calls=False,
        images=False,
        json_schema="schema",
        tool_choice=frozenset(),
        constrained="json_schema",
    ),
    parameters={
        **{name: COMMON_PARAMETERS[name] for name in _PARAMETERS},
        **{name: name for name in ("top_k", "min_p", "repeat_penalty")},
    },
)


class LocalChat(ChatModel):
    """llama.cpp in this process, over the embedded SmolLM2-135M-Instruct or any GGUF file.

    The embedded model is tiny: it can fill in the arguments of one tool that the request names in its own words, and
    put a short result into a sentence, in English. It cannot plan, choose among similar tools, calculate, or hold a
    conversation. Give it a larger GGUF for that.

    Args:
        model: Path of a GGUF file; default: the embedded weights (extra `lmagent[local]`).
        tiny: Use the recipe for tiny models (see `lmagent.prompting.tiny`); default: for the embedded model only.
        context: Tokens of prompt and answer together.
        threads: CPU threads.
        **options: See `ModelOptions`. The default temperature is 0.

    Raises:
        ConfigurationError: At the first request: the extra is missing, or the file is no model.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:LocalChatParameters"

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        tiny: bool | None = None,
        context: int = 4096,
        threads: int | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        embedded = model is None or str(model) in ("", EMBEDDED, "smollm2")
        path = None if embedded else str(model)
        self._tiny = embedded if tiny is None else tiny
        name = EMBEDDED if path is None else Path(path).stem
        codec = OpenAICodec(name, profile=_PROFILE)
        options.setdefault("transport", _shared(path, context, threads))
        options.setdefault("max_retries", 0)
        super().__init__(codec, **options)
        if "temperature" not in self._defaults:
            self._defaults = {"temperature": 0.0, **self._defaults}

    def _with_tool_mode(self, codec: Codec) -> Codec:
        wrapped = super()._with_tool_mode(codec)
        if self._tiny and self._prompt_format is None:
            return TinyPrompted(codec)
        # Any other file: the whole reply is one JSON object under a grammar, so that a call cannot be malformed.
        return Prompted(codec, format=self._prompt_format, bounded=True) if wrapped is not codec else wrapped


@cache
def _shared(path: str | None, context: int, threads: int | None) -> LocalTransport:
    """Return one loaded model per process for equal settings: weights are large, and calls run one at a time anyway."""
    return LocalTransport(path, context=context, threads=threads)
