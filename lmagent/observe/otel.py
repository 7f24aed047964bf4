"""OpenTelemetry: spans and metrics of runs, named as the GenAI semantic conventions name them. Extra: `otel`.

    invoke_agent {agent}          a run
      chat {model}                one request to the model
      execute_tool {tool}         one call; parent of the spans that the tool makes and of the runs that it starts

Metrics: `gen_ai.client.token.usage` and `gen_ai.client.operation.duration`, of requests to the model. Prompts, answers,
arguments, results and error texts are included only with `content=True`; secrets of this process never are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from lmagent.core.messages import AssistantMessage, Message, Reply, SystemMessage, ToolMessage, Usage
from lmagent.core.redaction import redact, redact_value
from lmagent.errors import ConfigurationError
from lmagent.observe.hooks import Hooks, Observer, Span
from lmagent.toolkit.context import ToolOutcome

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["OpenTelemetry"]

Attributes: TypeAlias = "dict[str, Any]"

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
"""Provider -> its name in the conventions, where that differs."""

_PARAMETERS = ("temperature", "top_p", "top_k", "max_tokens", "seed", "presence_penalty", "frequency_penalty", "n")
"""Parameters that become `gen_ai.request.<name>`. Stop sequences are text of the user, so they are left out."""

_TOKEN_BUCKETS = tuple(4**power for power in range(14))
_SECOND_BUCKETS = tuple(0.01 * 2**power for power in range(14))


class OpenTelemetry(Observer):
    """Makes a span of every run, request and tool call: `Agent(..., hooks=OpenTelemetry().hooks)`.

    Runs nested in such a run are included. The program sets up exporting, with the OpenTelemetry SDK.

    Args:
        tracer_provider: Default: the process's own.
        meter_provider: Default: the process's own.
        content: Also put prompts, answers, arguments, results and error texts into attributes.
        timer: Seconds, for the duration metric.

    Raises:
        ConfigurationError: `opentelemetry-api` is not installed.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        content: bool = False,
        timer: Callable[[], float] = perf_counter,
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError:
            raise ConfigurationError("OpenTelemetry is not installed: pip install 'lmagent[otel]'.") from None
        from lmagent import __version__

        self.content = content
        self._trace = trace
        self._context = context
        self._timer = timer
        self._tracer = trace.get_tracer("lmagent", __version__, tracer_provider)
        meter = metrics.get_meter("lmagent", __version__, meter_provider)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECOND_BUCKETS,
        )

    @property
    def hooks(self) -> Hooks:
        """Hooks for an agent; add them to others with `+`."""
        return Hooks(observers=(self,))

    def started(self, span: Span) -> None:
        """Start the span, as a child of its parent's."""
        name, attributes = _BEGINNINGS[span.kind](span)
        if self.content:
            attributes |= _given_content(span)
        parent = span.parent.notes.get(self) if span.parent is not None else None
        remote = span.kind == "model" and not span.model_id.startswith("local/")
        made = self._tracer.start_span(
            redact(name),
            context=self._trace.set_span_in_context(parent[0]) if parent else None,
            kind=self._trace.SpanKind.CLIENT if remote else self._trace.SpanKind.INTERNAL,
            attributes=_clean(attributes),
        )
        span.notes[self] = (made, self._timer())

    def ended(self, span: Span) -> None:
        """End the span; record the metrics of a request."""
        noted = span.notes.pop(self, None)
        if noted is None:
            return
        made, started = noted
        attributes = _ENDINGS[span.kind](span)
        failure = _failure(span)
        if failure:
            attributes["error.type"] = failure
            text = redact(str(span.error)) if self.content and span.error is not None else None
            made.set_status(self._trace.Status(self._trace.StatusCode.ERROR, text))
        if self.content:
            attributes |= _outcome_content(span)
        made.set_attributes(_clean(attributes))
        made.end()
        if span.kind == "model":
            self._measure(span, self._timer() - started, attributes)

    def entered(self, span: Span) -> Any:
        """Make the span of the call the current one, for spans that the tool makes."""
        noted = span.notes.get(self)
        return self._context.attach(self._trace.set_span_in_context(noted[0])) if noted else None

    def left(self, span: Span, token: Any) -> None:
        """Restore the span that was current before."""
        if token is not None:
            self._context.detach(token)

    def _measure(self, span: Span, seconds: float, attributes: Attributes) -> None:
        labels = {
            **_model_attributes("chat", span.model_id),
            **{name: attributes[name] for name in ("gen_ai.response.model", "error.type") if name in attributes},
        }
        self._seconds.record(seconds, labels)
        usage = span.outcome.usage if isinstance(span.outcome, Reply) else None
        if usage is not None:
            labels.pop("error.type", None)
            self._tokens.record(usage.input_tokens, {**labels, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, {**labels, "gen_ai.token.type": "output"})


def _model_attributes(operation: str, model_id: str) -> Attributes:
    provider, _, model = model_id.partition("/")
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
    }


def _begin_run(span: Span) -> tuple[str, Attributes]:
    attributes = _model_attributes("invoke_agent", span.model_id)
    return f"invoke_agent {span.agent}", {**attributes, "gen_ai.agent.name": span.agent}


def _begin_request(span: Span) -> tuple[str, Attributes]:
    attributes = _model_attributes("chat", span.model_id)
    call = span.given
    given: Mapping[str, Any] = call.parameters
    for name in _PARAMETERS:
        if isinstance(given.get(name), int | float):
            attributes[f"gen_ai.request.{'choice.count' if name == 'n' else name}"] = given[name]
    if call.stream:
        attributes["gen_ai.request.stream"] = True
    attributes["gen_ai.output.type"] = "json" if call.output_schema else "text"
    return f"chat {attributes['gen_ai.request.model']}", attributes


def _begin_call(span: Span) -> tuple[str, Attributes]:
    call = span.given
    return f"execute_tool {call.name}", {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": call.name,
        "gen_ai.tool.call.id": call.id,
        "gen_ai.tool.type": "function",
    }


def _end_run(span: Span) -> Attributes:
    result = span.outcome
    attributes = _usage_attributes(result.usage)
    if result.finish_reason:
        attributes["gen_ai.response.finish_reasons"] = [result.finish_reason]
    return attributes


def _end_request(span: Span) -> Attributes:
    reply: Reply | None = span.outcome
    if reply is None:
        return {}
    attributes = _usage_attributes(reply.usage)
    attributes["gen_ai.response.finish_reasons"] = [reply.finish_reason]
    attributes["gen_ai.response.model"] = reply.model_id.partition("/")[2]
    if reply.response_id:
        attributes["gen_ai.response.id"] = reply.response_id
    return attributes


_BEGINNINGS: Mapping[str, Callable[[Span], tuple[str, Attributes]]] = {
    "run": _begin_run,
    "model": _begin_request,
    "tool": _begin_call,
}
_ENDINGS: Mapping[str, Callable[[Span], Attributes]] = {
    "run": _end_run,
    "model": _end_request,
    "tool": lambda span: {},
}


def _usage_attributes(usage: Usage | None) -> Attributes:
    if usage is None:
        return {}
    counts: Attributes = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
    if usage.cached_tokens:
        counts["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        counts["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    return counts


def _failure(span: Span) -> str:
    """Return the class of the error, or ""; the attribute must have few values."""
    if span.error is not None:
        return type(span.error).__name__
    outcome = span.outcome
    if isinstance(outcome, ToolOutcome) and outcome.is_error:
        return type(outcome.error).__name__ if outcome.error is not None else outcome.kind
    return ""


def _given_content(span: Span) -> Attributes:
    match span.kind:
        case "run":
            system = {"gen_ai.system_instructions": _json([_text(span.system)])} if span.system else {}
            return system | {"gen_ai.input.messages": _json([_message(each) for each in span.given()])}
        case "model":
            return {"gen_ai.input.messages": _json([_message(each) for each in span.given.messages])}
        case "tool":
            return {"gen_ai.tool.call.arguments": span.given.arguments}


def _outcome_content(span: Span) -> Attributes:
    outcome = span.outcome
    if isinstance(outcome, ToolOutcome):
        return {"gen_ai.tool.call.result": outcome.content}
    last = outcome if isinstance(outcome, Reply) else getattr(outcome, "last", None)
    if not isinstance(last, Reply):
        return {}
    return {"gen_ai.output.messages": _json([{**_message(last.message), "finish_reason": last.finish_reason}])}


def _message(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    match message:
        case ToolMessage():
            parts.append({"type": "tool_call_response", "id": message.tool_call_id, "response": message.content})
        case AssistantMessage():
            if message.reasoning:
                parts.append({"type": "reasoning", "content": message.reasoning})
            if message.content:
                parts.append(_text(message.content))
            parts.extend(
                {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
                for call in message.tool_calls
            )
        case SystemMessage():
            parts.append(_text(message.content))
        case _:
            parts.append(_text(message.text))
    return {"role": message.role, "parts": parts}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _json(value: Sequence[Any]) -> str:
    return json.dumps(redact_value(list(value)), ensure_ascii=False)


def _clean(attributes: Attributes) -> Attributes:
    return {name: redact_value(value) for name, value in attributes.items()}
