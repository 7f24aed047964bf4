"""A model: a codec, credentials and a transport behind four verbs. A verb sends one question and never runs a tool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict, Unpack, cast

from lmagent.core.events import Event, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from lmagent.core.messages import Prompt, Reply, ReplyChunk, StreamInfo, as_messages
from lmagent.errors import ConfigurationError, ParameterError
from lmagent.providers.base import Auth, ChatCall, Codec, NamedTool, ToolChoice
from lmagent.toolkit.schema import OutputSchema, ToolSpec

if TYPE_CHECKING:
    from lmagent.asking.cache import ResponseCache
    from lmagent.asking.limits import Limiter
    from lmagent.asking.retry import RetryPolicy
    from lmagent.http.base import Timeouts, Transport
    from lmagent.models.parameters import ChatParameters
    from lmagent.prompting.formats import PromptFormat

__all__ = ["ChatModel", "ModelOptions", "ToolMode", "resolve_tool_choice", "tool_specs"]

ToolMode = Literal["auto", "native", "prompt"]
"""`auto`: the provider's own function calls where it has them, else the prompt."""


class ModelOptions(TypedDict, total=False):
    """Keywords that every model takes beside its own."""

    parameters: ChatParameters | Mapping[str, Any] | None
    """Defaults of every call."""
    tool_mode: ToolMode
    prompt_format: str | PromptFormat | None
    """How tools are described in prompt mode: `json`, `hermes`, `react` …; None: by model family."""
    leaked_calls: bool | None
    """Whether call markup that a server leaks into the text of a native reply is read as the call it is. None: yes,
    except at OpenAI, Anthropic, Google and Azure themselves, which never leak (`lmagent.prompting.leaked_calls`)."""
    timeout: float | Timeouts
    """Seconds for a whole call, or `Timeouts` with its three limits."""
    max_retries: int | RetryPolicy
    transport: Transport | None
    """Where requests go; the default is HTTP."""
    limiter: Limiter | None
    """Shared by the models that share a key."""
    cache: ResponseCache | None
    """Answers repeated requests; off unless given. Any models may share one."""


class ChatModel:
    """Asks one model: `chat_completion`, and the same with `async_`, `stream_` and `async_stream_` in front.

    Stateless between calls and safe to share between threads, tasks and agents. Subclasses know a provider's
    settings; any codec can be used directly:

        model = ChatModel(OpenAICodec("my-model", base_url="http://localhost:8000/v1"))

    Args:
        codec: The dialect, bound to a model name.
        auth: Puts credentials on each request; None for servers that need none.
        **options: See `ModelOptions`.

    Raises:
        ConfigurationError: `tool_mode="native"` for a dialect without function calls.
        ParameterError: A default parameter is unknown or out of range.
    """

    parameters_type: ClassVar[str] = "lmagent.models.parameters:ChatParameters"
    """`module:class` of the parameters, imported when the first parameter is given."""

    def __init__(self, codec: Codec, *, auth: Auth | None = None, **options: Unpack[ModelOptions]) -> None:
        # Loaded with the first model, not with the package: 12 of the 45 ms that importing an agent costs.
        from lmagent.asking.exchange import Exchange
        from lmagent.prompting.leaked_calls import with_leaked_calls

        unknown = options.keys() - ModelOptions.__annotations__.keys()
        if unknown:
            name = sorted(unknown)[0]
            raise TypeError(
                f"{type(self).__name__} has no argument {name!r}. "
                f"A model parameter goes into parameters={{{name!r}: ...}} or to a call."
            )
        if not isinstance(codec.model, str) or not codec.model:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{type(self).__name__} needs the name of a model, not {codec.model!r}.")
        self._tool_mode: ToolMode = options.get("tool_mode", "auto")
        self._prompt_format = options.get("prompt_format")
        self._defaults: Mapping[str, Any] = {}
        self._defaults = self.check_parameters(options.get("parameters"))
        self.codec = self._with_tool_mode(codec)
        transport = options.get("transport")
        if not transport:
            from lmagent.http.transport import HttpTransport  # httpx2 is loaded when the first request needs it

            transport = HttpTransport()
        self.exchange = Exchange(
            with_leaked_calls(self.codec, options.get("leaked_calls")) if self.codec is codec else self.codec,
            transport=transport,
            auth=auth,
            retry=_retry_policy(options.get("max_retries")),
            timeouts=_timeouts(options.get("timeout")),
            limiter=options.get("limiter"),
            cache=options.get("cache"),
        )

    def _with_tool_mode(self, codec: Codec) -> Codec:
        mode = self._tool_mode
        if mode not in ("auto", "native", "prompt"):
            raise ConfigurationError(f"tool_mode is 'auto', 'native' or 'prompt', not {mode!r}.")
        if mode == "native" and not codec.features.tools:
            raise ConfigurationError(
                f"{codec.model_id} has no native function calls; use tool_mode='auto' or 'prompt'."
            )
        if mode == "prompt" or (mode == "auto" and not codec.features.tools):
            from lmagent.prompting.prompted import Prompted  # loaded only for models that need it

            return Prompted(codec, format=self._prompt_format)
        return codec

    @property
    def model_id(self) -> str:
        """`provider/model`, as `load_from_model_id` takes it."""
        return self.codec.model_id

    @property
    def parameters(self) -> dict[str, Any]:
        """The default parameters that were set (a copy)."""
        return dict(self._defaults)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r})"

    def chat_completion(
        self,
        prompt: Prompt,
        *,
        tools: Iterable[Any] = (),
        tool_choice: ToolChoice | str = "auto",
        output_schema: OutputSchema | None = None,
        **parameters: object,
    ) -> Reply:
        """Ask once and return the whole answer.

        Args:
            prompt: Text, a message, a dict, or a list of them.
            tools: Functions or tools the model may call; running them is up to the caller (or use `Agent`).
            tool_choice: `auto`, `required`, `none`, or the name of the tool to call.
            output_schema: What the text of the answer must look like.
            **parameters: Over the model's defaults, e.g. `temperature=0`; `None` unsets one.

        Raises:
            MessageError: The prompt has no known form, or the provider cannot express it.
            ParameterError: A parameter is unknown or out of range.
            ProviderError: The provider failed; its subclasses say how.
        """
        return self.exchange.ask(self.call(prompt, tools, tool_choice, output_schema, parameters))

    async def async_chat_completion(
        self,
        prompt: Prompt,
        *,
        tools: Iterable[Any] = (),
        tool_choice: ToolChoice | str = "auto",
        output_schema: OutputSchema | None = None,
        **parameters: object,
    ) -> Reply:
        """`chat_completion`, asynchronous."""
        return await self.exchange.async_ask(self.call(prompt, tools, tool_choice, output_schema, parameters))

    def stream_chat_completion(
        self,
        prompt: Prompt,
        *,
        tools: Iterable[Any] = (),
        tool_choice: ToolChoice | str = "auto",
        output_schema: OutputSchema | None = None,
        **parameters: object,
    ) -> Iterator[ReplyChunk | Reply]:
        """Ask once and yield the answer as it comes.

        Each item has `.stream.delta`, `.stream.control` and `.is_finish`; the finish item is the whole `Reply`.
        Closing the iterator frees the connection. Arguments and errors as in `chat_completion`, and:

        Raises:
            StreamInterrupted: The stream ended early; `.partial` is what came.
        """
        call = self.call(prompt, tools, tool_choice, output_schema, parameters, stream=True)

        def chunks() -> Iterator[ReplyChunk | Reply]:
            chunk = _Chunker()
            with closing(cast("Any", self.exchange.stream(call))) as items:
                for item in items:
                    yield from chunk(item)

        return chunks()  # not a generator itself, so that a wrong argument raises at once

    async def async_stream_chat_completion(
        self,
        prompt: Prompt,
        *,
        tools: Iterable[Any] = (),
        tool_choice: ToolChoice | str = "auto",
        output_schema: OutputSchema | None = None,
        **parameters: object,
    ) -> AsyncIterator[ReplyChunk | Reply]:
        """`stream_chat_completion`, asynchronous."""
        call = self.call(prompt, tools, tool_choice, output_schema, parameters, stream=True)
        chunk = _Chunker()
        async with aclosing(cast("Any", self.exchange.async_stream(call))) as items:
            async for item in items:
                for made in chunk(item):
                    yield made

    def call(
        self,
        prompt: Prompt,
        tools: Iterable[Any] = (),
        tool_choice: ToolChoice | str = "auto",
        output_schema: OutputSchema | None = None,
        parameters: Mapping[str, object] | None = None,
        *,
        stream: bool = False,
    ) -> ChatCall:
        """Return the checked call that the verbs pass to the exchange. Raises as `chat_completion`."""
        specs = tool_specs(tools)
        return ChatCall(
            messages=as_messages(prompt),
            tools=specs,
            parameters=self.check_parameters(parameters),
            tool_choice=resolve_tool_choice(tool_choice, specs),
            output_schema=output_schema,
            stream=stream,
        )

    def check_parameters(
        self, given: ChatParameters | Mapping[str, Any] | None, *, over: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Return the parameters of a call: the model's defaults with `given` over them, checked.

        Args:
            given: By name, or a parameters object (also under the name `parameters`). `None` values unset.
            over: Checked parameters to start from, instead of the defaults.

        Raises:
            ParameterError: One is unknown or out of range, or the object is another provider's.
        """
        base = self._defaults if over is None else over
        if not given:  # pydantic is loaded only when there is something to check
            return base
        kind: type[ChatParameters] | None = None
        values = dict(base)
        nested = given.get("parameters") if isinstance(given, Mapping) else None
        for part in (nested, given):
            if isinstance(part, Mapping):
                values |= {str(k): v for k, v in cast("Mapping[str, Any]", part).items() if k != "parameters"}
            elif part is not None:
                kind, values = type(cast("ChatParameters", part)), values | cast("ChatParameters", part).given()
        values = {name: value for name, value in values.items() if value is not None}
        module, _, name = self.parameters_type.partition(":")
        wanted: type[ChatParameters] = getattr(import_module(module), name)
        if kind is not None and not (issubclass(wanted, kind) or issubclass(kind, wanted)):
            raise ParameterError(f"{type(self).__name__} takes {wanted.__name__}, not {kind.__name__}.")
        return (kind if kind is not None and issubclass(kind, wanted) else wanted)(**values).given()

    def close(self) -> None:
        """Free the connections of the sync verbs. The model stays usable."""
        self.exchange.close()

    async def aclose(self) -> None:
        """Free the connections of this event loop."""
        await self.exchange.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _timeouts(given: Any) -> Timeouts:
    from lmagent.http.base import Timeouts

    if given is None or isinstance(given, Timeouts):
        return given or Timeouts()
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"timeout is a number of seconds or Timeouts(...), not {given!r}.")
    return Timeouts(total=float(given))


def _retry_policy(given: Any) -> RetryPolicy:
    from lmagent.asking.retry import RetryPolicy

    if given is None or isinstance(given, RetryPolicy):
        return given or RetryPolicy()
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ConfigurationError(f"max_retries is a number from 0 on or RetryPolicy(...), not {given!r}.")
    return RetryPolicy(max_retries=given)


def tool_specs(tools: Iterable[Any]) -> tuple[ToolSpec, ...]:
    """Return the specs that codecs need of these tools: specs, tools, functions, or a registry."""
    if isinstance(tools, list | tuple) and all(isinstance(tool, ToolSpec) for tool in cast("list[Any]", tools)):
        return tuple(cast("list[ToolSpec]", tools))
    from lmagent.toolkit.registry import ToolRegistry  # docstrings and schemas are needed only with tools

    return (tools if isinstance(tools, ToolRegistry) else ToolRegistry(tools)).specs


def resolve_tool_choice(choice: ToolChoice | str, specs: tuple[ToolSpec, ...]) -> ToolChoice:
    """Return the choice that a word or a tool's name means. Raises `ConfigurationError` for any other word."""
    if choice in ("auto", "none") or (choice == "required" and specs):
        return choice
    name = choice.name if isinstance(choice, NamedTool) else choice
    if name not in (spec.name for spec in specs):
        names = [spec.name for spec in specs]
        raise ConfigurationError(f"tool_choice={name!r} is none of 'auto', 'required', 'none' and the tools {names}.")
    return NamedTool(name)


_SHOWN = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta)
"""Events that become chunks; starts and ends are only for `Agent.stream_run`."""


class _Chunker:
    """Turns the items of one stream into chunks; the first has the control `start`."""

    __slots__ = ("_control",)

    def __init__(self) -> None:
        self._control: Literal["start", "continue"] = "start"

    def __call__(self, item: Event | Reply) -> tuple[ReplyChunk | Reply, ...]:
        if isinstance(item, Reply):
            return (item,)
        if not isinstance(item, _SHOWN):
            return ()
        text = item.text if isinstance(item, TextDelta | RefusalDelta) else ""
        chunk = ReplyChunk(stream=StreamInfo(text, self._control), event=item)
        self._control = "continue"
        return (chunk,)
