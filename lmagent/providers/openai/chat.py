"""The codec of OpenAI's Chat Completions, for every server that speaks it; a `Profile` describes the server.

Also Azure OpenAI, by the dated API or by v1: bodies are OpenAI's; the address and the key's header differ, and the
service cannot know which model is behind the name of a deployment.

Wire reference: docs/providers/openai.md and azure.md. `request` writes bodies, `reply` and `calls` read answers,
`errors` sorts errors, `profile` and `vendor_profiles` hold the differences between servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from lmagent.core.events import Delta
from lmagent.core.json_text import JSON, JSONError, loads
from lmagent.core.messages import Reply, SystemMessage
from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError, InvalidResponse, ParameterError, ProviderError
from lmagent.providers.base import ChatCall, Codec, Request, SigningAuth
from lmagent.providers.fields import joined, quoted
from lmagent.providers.openai.calls import ThinkSplitter
from lmagent.providers.openai.errors import sort_error
from lmagent.providers.openai.profile import (
    OPENAI,
    REASONING_MODELS,
    ModelRule,
    Profile,
    endpoint,
    profile_at,
    rules_of_model,
)
from lmagent.providers.openai.reply import ChatState, cut_delta, end_of, quick_delta, read_chunk
from lmagent.providers.openai.request import MessageWriter, choice_members, format_members, tool_bytes
from lmagent.toolkit.schema import ToolSpec
from lmagent.toolkit.schema_dialects import schema_as_text

__all__ = ["AZURE", "OPENAI", "AzureCodec", "EntraAuth", "ModelRule", "OpenAICodec", "Profile"]

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_DONE = b"[DONE]"


class OpenAICodec(Codec):
    """Chat Completions for one model of one server.

    Args:
        model: Any name; it is not checked against a list.
        base_url: Everything up to `/chat/completions`. Default: the profile's.
        profile: Describes the server. Default: OpenAI's, or a more conservative one for other models at another
            address (`profile_at`).
        legacy_functions: Use `functions` and `function_call` instead of `tools`. Parallel calls are sent as
            consecutive pairs, because the old form has one call a message.
        headers: Sent with every request, in addition to the usual ones.
        model_rules: What the model refuses; default: the profile's table. `()` sends everything.
        stream_usage: Ask for usage in streams; default: as the profile says.
    """

    default_profile: ClassVar[Profile | None] = None
    """The profile of a subclass for one server."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        profile: Profile | None = None,
        legacy_functions: bool = False,
        headers: Mapping[str, str] | None = None,
        model_rules: Sequence[ModelRule] | None = None,
        stream_usage: bool | None = None,
    ) -> None:
        profile = profile or self.default_profile or profile_at(base_url, model)
        self.model = model
        self.base_url = (base_url or profile.base_url).rstrip("/")
        self.profile = profile
        # One class serves many servers, so the name is the value's and not the class's.
        self.provider = profile.provider  # pyright: ignore[reportAttributeAccessIssue]
        self.features = profile.features
        if legacy_functions:
            choices = self.features.tool_choice - {"required"}
            self.features = replace(self.features, parallel_calls=False, tool_choice=choices)
        self.legacy_functions = legacy_functions
        self.headers = {**_HEADERS, **(headers or {})}
        self.model_rules = tuple(profile.model_rules if model_rules is None else model_rules)
        self.stream_usage = profile.stream_usage if stream_usage is None else stream_usage
        self._writer = MessageWriter(profile, legacy=legacy_functions)
        self._last_tools: tuple[tuple[ToolSpec, ...], bytes] = ((), b"")

    @property
    def url(self) -> str:
        """The URL of requests."""
        path = self.profile.path
        return self.base_url if self.base_url.endswith(path) else self.base_url + path

    def build_request(self, call: ChatCall) -> Request:
        schema = call.output_schema
        if schema is not None and call.tools and not self.profile.schema_with_tools:
            messages = (SystemMessage(schema_as_text(schema)), *call.messages)
            call, schema = replace(call, messages=messages, output_schema=None), None
        given = call.parameters
        body = self._rendered(given)
        parts = {"messages": self._writer.messages(call, body)}
        head: dict[str, Any] = {"model": self.model}
        tools = call.tools
        if tools and call.tool_choice == "none" and "none" not in self.features.tool_choice:
            tools = ()  # the server has no "none"; without tools the model can call none
        if tools:
            parts["functions" if self.legacy_functions else "tools"] = [self._tool_set(tools)]
        else:
            body.pop("parallel_tool_calls", None)  # a 400 without tools, where it has no meaning
        if tools or call.tool_choice != "none":
            head |= choice_members(self.profile, self.choice_of(call), body, legacy=self.legacy_functions)
        if schema is not None:
            head |= format_members(self.profile, schema)
        if call.stream:
            head["stream"] = True
            if self.stream_usage:
                head["stream_options"] = {"include_usage": True}
        head |= {**body, **(given.get("extra_body") or {})}
        extra_headers = given.get("extra_headers")
        return Request(
            url=self.url,
            content=joined(head, parts),
            headers={**self.headers, **extra_headers} if extra_headers else self.headers,
        )

    def _tool_set(self, tools: tuple[ToolSpec, ...]) -> bytes:
        """Return the bytes of all tools. The last set is cached: an agent sends the same one every turn."""
        known, encoded = self._last_tools
        if known != tools:  # specs are compared by identity
            encoded = b",".join([tool_bytes(self.profile, spec, legacy=self.legacy_functions) for spec in tools])
            self._last_tools = (tools, encoded)  # one assignment: another thread reads the old pair or the new one
        return encoded

    def _rendered(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters in wire form, without `extra_body`."""
        if not given:
            return {}
        own = rules_of_model(self.model_id, self.model_rules, given)
        rules = {**self.profile.parameters, **own} if own else self.profile.parameters
        stop = given.get("stop")
        if stop and self.profile.max_stop and len(stop) > self.profile.max_stop:
            raise ParameterError(
                f"{self.provider} takes at most {self.profile.max_stop} stop sequences, got {len(stop)}."
            )
        return self.render_parameters({k: v for k, v in given.items() if k != "extra_body"}, rules)

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        return self.reply_of(body, self._whole(body), prefix=prefix)

    def _whole(self, body: JSON) -> Iterator[Delta]:
        if not body.get("choices"):
            raise self._no_answer(body, "The answer has no choices")
        choice = body["choices"][0]
        if not isinstance(choice.get("message", choice.get("delta")), Mapping):
            raise KeyError("message")
        state = self.new_state()
        yield from read_chunk(self.profile, state, body, whole=True)
        yield from end_of(self.profile, state)

    def new_state(self) -> ChatState:
        return ChatState(ThinkSplitter() if self.profile.think_tags else None)

    def parse_event(self, state: ChatState, data: bytes, event: str = "") -> Sequence[Delta]:
        if state.ended:
            return ()
        delta = cut_delta(state, data)
        if delta is not None:
            return (delta,)
        if data.strip() == _DONE:
            if not state.seen:
                raise self._no_answer(state.raw, "The stream ended without an answer")
            return end_of(self.profile, state)
        try:
            chunk = loads(data)
        except JSONError as error:
            if not data.strip():
                return ()
            raise InvalidResponse(
                f"A chunk of the stream is not JSON: {data[:80]!r}", provider=self.provider, model=self.model
            ) from error
        delta = quick_delta(state, data, chunk)
        if delta is not None:
            return (delta,)
        if chunk is None:
            return ()
        failure = self.parse_error(200, {}, chunk)
        if failure is not None:
            raise failure
        try:
            return read_chunk(self.profile, state, chunk)
        except (KeyError, TypeError, AttributeError, ValueError):
            with self.reading(chunk):
                raise

    def finish(self, state: ChatState) -> Sequence[Delta]:
        """Return `Done` if the body ended after a finish reason but without `[DONE]`."""
        if state.ended or state.finish_reason is None:
            return ()
        return end_of(self.profile, state)

    def _no_answer(self, body: JSON, what: str) -> InvalidResponse:
        return InvalidResponse(f"{what}: {quoted(str(body))}", provider=self.provider, model=self.model, body=body)

    def parse_error(self, status: int, headers: Mapping[str, str], body: JSON, text: str = "") -> ProviderError | None:
        return sort_error(self.profile, self.model, status, headers, body, text)


_FIRST_WITH_USAGE = "2024-09-01"
"""Versions before this one refuse `stream_options`."""

AZURE = replace(
    OPENAI,
    **endpoint("azure", address="endpoint"),
    auth="api-key",
    parameters={**OPENAI.parameters, "data_sources": "data_sources"},
    model_rules=(),
)
"""Azure OpenAI: OpenAI's models behind deployments."""

_REASONING = replace(REASONING_MODELS[0], models=("*",))


class AzureCodec(OpenAICodec):
    """Chat Completions of one deployment.

    Args:
        model: Name of the deployment, any characters.
        endpoint: `https://RESOURCE.openai.azure.com`, also with a path such as `/openai/v1`.
        api_version: `2024-10-21` or another date: the dated API. None: the v1 API, which needs none.
        reasoning: The deployment is a reasoning model: `max_tokens` is sent as `max_completion_tokens`, and sampling
            parameters raise an error before the request.
        profile: Describes the service.
        headers: Sent with every request, e.g. the opt-in of a preview feature.
        model_rules: What the deployment refuses; default: by `reasoning`.
        stream_usage: Request usage in streams; default: yes, if the version supports it.

    Raises:
        ConfigurationError: No endpoint, no deployment, or a version that is not a date.
    """

    def __init__(
        self,
        model: str,
        *,
        endpoint: str,
        api_version: str | None = None,
        reasoning: bool = False,
        profile: Profile = AZURE,
        headers: Mapping[str, str] | None = None,
        model_rules: Sequence[ModelRule] | None = None,
        stream_usage: bool | None = None,
    ) -> None:
        if not model:
            raise ConfigurationError("Azure needs the name of a deployment: pass it as the model.")
        if "://" not in endpoint:
            raise ConfigurationError(f"The endpoint of Azure is https://RESOURCE.openai.azure.com, not {endpoint!r}.")
        if api_version is not None and not api_version[:4].isdecimal():
            raise ConfigurationError(f"api_version is a date such as '2024-10-21' or None for v1, not {api_version!r}.")
        host = endpoint.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        place = "v1" if api_version is None else f"deployments/{quote(model, safe='')}"
        if api_version is not None and not reasoning:
            # Deployments of the dated API may be older than `max_completion_tokens`.
            profile = replace(profile, parameters={**profile.parameters, "max_tokens": "max_tokens"})
        if stream_usage is None and api_version is not None:
            stream_usage = profile.stream_usage and api_version >= _FIRST_WITH_USAGE
        if model_rules is None and reasoning:
            model_rules = (*profile.model_rules, _REASONING)
        super().__init__(
            model,
            base_url=f"{host}/openai/{place}",
            profile=profile,
            headers=headers,
            model_rules=model_rules,
            stream_usage=stream_usage,
        )
        self.api_version = api_version

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST; raises as `OpenAICodec.build_request`."""
        request = super().build_request(call)
        return request if self.api_version is None else replace(request, params={"api-version": self.api_version})


class EntraAuth(SigningAuth):
    """A Microsoft Entra token from a function, for example of `azure.identity.get_bearer_token_provider(...)`.

    Args:
        provider: Returns a valid token. It is called for every request, so it should cache its token.
    """

    def __init__(self, provider: Callable[[], str | Secret]) -> None:
        self.provider = provider

    def signed(self, request: Request, now: float) -> Request:
        token = self.provider()
        shown = token.reveal() if isinstance(token, Secret) else Secret(token).reveal()
        return request.with_headers(authorization=f"Bearer {shown}")
