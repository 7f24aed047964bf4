"""Test what a model can do with tools: `probe(model)` makes a few small requests and recommends settings.

`plan(model)` lists the requests before any is made. No tool is run; the tools are only offered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from lmagent.asking.exchange import Exchange
from lmagent.asking.retry import RetryPolicy
from lmagent.core.messages import Reply
from lmagent.errors import AuthenticationFailed, ConfigurationError, LMAgentError, ParameterError, ProviderError
from lmagent.models.model import ChatModel
from lmagent.prompting.formats import format_for
from lmagent.prompting.leaked_calls import LEAKED, LeakedCallReader
from lmagent.prompting.prompted import Prompted
from lmagent.providers.base import Codec
from lmagent.toolkit.schema import OutputSchema, ToolSpec

__all__ = ["MAX_TOKENS", "Check", "ProbeReport", "plan", "probe"]

MAX_TOKENS = 512
"""Most output tokens of one request, where the model takes such a limit."""

_WEATHER = ToolSpec(
    name="get_weather",
    description="Get the current weather of a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city."}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
_TIME = ToolSpec(name="get_time", description="Get the current time in a city.", parameters=_WEATHER.parameters)
_TOOLS = (_WEATHER, _TIME)
_ONE = "What is the weather in Paris? Use the tool get_weather."
_TWO = "What is the weather in Paris and in Tokyo? Make both calls of get_weather at once, in this reply."
_NONE = "Say hello in one word. Do not use a tool."
_COUNT = OutputSchema(
    name="count",
    schema={
        "type": "object",
        "properties": {"count": {"type": "integer"}},
        "required": ["count"],
        "additionalProperties": False,
    },
)
_FORMATS = ("json", "hermes", "react", "object")

_Mode: TypeAlias = Literal["configured", "native", "prompt", "schema"]
_Advice: TypeAlias = Literal["auto", "native", "prompt", "none"]


@dataclass(frozen=True, slots=True)
class Check:
    """One request to the model and its outcome."""

    name: str
    about: str
    ok: bool
    detail: str = ""
    """What was wrong, or a note."""
    seconds: float = 0.0
    tokens: int = 0
    """Input and output, if the provider reports them."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a model can do, and how to use it."""

    model_id: str
    checks: tuple[Check, ...]
    tool_mode: _Advice
    """The `tool_mode=` to use; `none`: no way of calling tools worked."""
    prompt_format: str | None
    """The `prompt_format=` to use; None: the model's default."""
    reason: str
    requests: int
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)

    @property
    def recommendation(self) -> str:
        """The recommendation as keywords of a model."""
        if self.tool_mode == "none":
            return "no tools"
        given = f"tool_mode={self.tool_mode!r}"
        return given if self.prompt_format is None else f"{given}, prompt_format={self.prompt_format!r}"

    def __str__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [
            f"{'yes' if check.ok else 'no ':<3}  {check.name:<{width}}  {check.seconds:5.1f} s  {check.detail}".rstrip()
            for check in self.checks
        ]
        spent = f"{self.requests} requests, {self.tokens} tokens"
        return "\n".join([self.model_id, *lines, f"Use {self.recommendation}: {self.reason} ({spent})"])


@dataclass(frozen=True, slots=True)
class _Question:
    name: str
    about: str
    mode: _Mode
    prompt: str = _ONE
    format: str | None = None
    stream: bool = False
    judge: Callable[[Reply], str] = lambda reply: _wrong_calls(reply, ["Paris"])


def _wrong_calls(reply: Reply, cities: list[str]) -> str:
    """Return what is wrong with the calls of a reply, or ""."""
    calls = reply.tool_calls
    if not calls:
        return f"no call; it said {reply.reply[:80]!r}" if reply.reply else "no call and no text"
    problems = [call.problem for call in calls if call.problem]
    if problems:
        return problems[0].partition("\n")[0]
    try:
        given = [(call.name, str(json.loads(call.arguments).get("city", "")).strip().lower()) for call in calls]
    except (ValueError, AttributeError):
        given = []
    wanted = [("get_weather", city.lower()) for city in cities]
    return "" if given == wanted else "it called " + ", ".join(f"{call.name}({call.arguments[:60]})" for call in calls)


def _wrong_text(reply: Reply) -> str:
    if reply.tool_calls:
        return f"it called {reply.tool_calls[0].name} although no tool was needed"
    return "" if reply.reply.strip() else "no text"


def _wrong_count(reply: Reply) -> str:
    try:
        value: Any = json.loads(reply.reply)
    except ValueError:
        return f"no JSON: {reply.reply[:80]!r}"
    fits = isinstance(value, dict) and list(value) == ["count"] and type(value["count"]) is int  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return "" if fits else f"JSON of another form: {reply.reply[:80]!r}"


def _native_codec(model: ChatModel) -> Codec:
    codec = model.codec
    return codec.inner if isinstance(codec, Prompted) else codec


def plan(model: ChatModel) -> tuple[tuple[str, str], ...]:
    """Return name and purpose of every request that `probe` may make."""
    return tuple((question.name, question.about) for question in _questions(model))


def _questions(model: ChatModel) -> Iterator[_Question]:
    codec = _native_codec(model)
    features = codec.features
    yield _Question("as configured", "a call, in the present mode", "configured")
    yield _Question("plain answer", "no call where none is needed", "configured", _NONE, judge=_wrong_text)
    if features.tools:
        yield _Question("native tools", "a call by native function calling", "native")
        yield _Question(
            "native parallel", "two calls in one reply", "native", _TWO,
            judge=lambda reply: _wrong_calls(reply, ["Paris", "Tokyo"]),
        )  # fmt: skip
        if features.stream:
            yield _Question("native streaming", "a call in a stream", "native", stream=True)
    for name in dict.fromkeys((*_FORMATS, _preferred(codec))):
        yield _Question(f"prompt: {name}", f"a call in the prompt format {name}", "prompt", format=name)
    if features.stream:
        family = _preferred(codec)
        yield _Question("prompt streaming", f"a streamed call, format {family}", "prompt", format=family, stream=True)
    if features.json_schema != "none":
        prompt = "How many days has a week? Answer as JSON with the key count."
        yield _Question("JSON schema", "an answer by JSON schema", "schema", prompt, judge=_wrong_count)


def _preferred(codec: Codec) -> str:
    """Return the format that prompt mode would choose."""
    return "object" if codec.features.constrained else format_for(codec.model).name


def probe(model: ChatModel, *, on_check: Callable[[Check], None] | None = None) -> ProbeReport:
    """Make a few small requests to `model` and report what it can do. `plan` lists them beforehand.

    Args:
        model: Any chat model; it is not changed.
        on_check: Called with each check as it finishes.

    Raises:
        AuthenticationFailed: The key is rejected.
        ConfigurationError: The model cannot be used at all.
    """
    checks: list[Check] = []
    for question in _questions(model):
        check = _ask(model, question)
        checks.append(check)
        if on_check:
            on_check(check)
    mode, form, reason = _recommend(model, {check.name: check for check in checks})
    return ProbeReport(model.model_id, tuple(checks), mode, form, reason, len(checks), sum(c.tokens for c in checks))


def _ask(model: ChatModel, question: _Question) -> Check:
    started = time.monotonic()
    try:
        reply = _reply(_variant(model, question), question)
        wrong, tokens = question.judge(reply), reply.usage.total_tokens if reply.usage else 0
        leaked = any(LEAKED in call.repairs for call in reply.tool_calls)
        repairs = sorted({repair for call in reply.tool_calls for repair in call.repairs} - {LEAKED})
        notes = [
            wrong,
            "read from leaked markup" if leaked else "",
            f"repaired: {', '.join(repairs)}" if repairs else "",
        ]
        detail = "; ".join(note for note in notes if note)
    except (AuthenticationFailed, ConfigurationError):
        raise
    except LMAgentError as error:
        wrong, tokens, detail = "error", 0, f"{type(error).__name__}: {str(error)[:120]}"
        if isinstance(error, ProviderError) and error.status is None and question.name == "as configured":
            raise  # the server does not answer: each further request would time out too
    return Check(question.name, question.about, not wrong, detail, round(time.monotonic() - started, 2), tokens)


def _reply(model: ChatModel, question: _Question) -> Reply:
    parameters: dict[str, Any] = {}
    for name, value in (("max_tokens", MAX_TOKENS), ("temperature", 0)):
        try:
            model.codec.build_request(model.call("hi", parameters=parameters | {name: value}))
        except ParameterError:
            continue  # this model has no such limit
        parameters[name] = value
    tools = () if question.mode == "schema" else _TOOLS
    schema = _COUNT if question.mode == "schema" else None
    if not question.stream:
        return model.chat_completion(question.prompt, tools=tools, output_schema=schema, **parameters)
    *_, last = model.stream_chat_completion(question.prompt, tools=tools, output_schema=schema, **parameters)
    assert isinstance(last, Reply)
    return last


def _variant(model: ChatModel, question: _Question) -> ChatModel:
    """Return the model in another mode: same credentials and transport, one retry at most."""
    native = _native_codec(model)
    made = copy(model)
    if question.mode == "prompt":
        bounded = isinstance(model.codec, Prompted) and model.codec.bounded
        made.codec = Prompted(native, format=question.format, bounded=bounded)
    elif question.mode != "configured":
        made.codec = native
    exchange = model.exchange
    reading = LeakedCallReader(made.codec) if made.codec is native and native.features.tools else made.codec
    made.exchange = Exchange(
        exchange.codec if question.mode == "configured" else reading,
        transport=exchange.transport,
        auth=exchange.auth,
        retry=RetryPolicy(max_retries=min(exchange.retry.max_retries, 1)),
        timeouts=exchange.timeouts,
        limiter=exchange.limiter,
    )
    return made


def _recommend(model: ChatModel, checks: dict[str, Check]) -> tuple[_Advice, str | None, str]:
    def ok(name: str) -> bool:
        return name in checks and checks[name].ok

    codec = _native_codec(model)
    if ok("native tools") and "leaked" not in checks["native tools"].detail:
        return "native", None, "native function calls work" + ("" if ok("native parallel") else ", one at a time")
    family = _preferred(codec)
    formats = [name for name in dict.fromkeys((family, *_FORMATS)) if ok(f"prompt: {name}")]
    clean = [name for name in formats if not checks[f"prompt: {name}"].detail]
    if ok("native tools"):
        return "native", None, "its server leaks the calls into the text; they are read from there"
    if type(model.codec) is not Prompted and isinstance(model.codec, Prompted) and ok("as configured"):
        return "auto", None, "the present mode works"
    if formats:
        form = (clean or formats)[0]
        what = f"it writes the format {form}"
        if form == "object" and codec.features.constrained:
            what = "decoding is constrained, so a call cannot be malformed"
        return "prompt", None if form == family else form, what
    if ok("as configured"):
        return "auto", None, "the present mode works"
    return "none", None, "it called no tool in any mode"
