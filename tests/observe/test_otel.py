"""OpenTelemetry spans and metrics: names, nesting in every verb, errors; no content and no secret unless asked."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from lmagent import Agent, OpenAIChat, function
from lmagent.core.messages import Usage
from lmagent.errors import AuthenticationFailed, ServerFailed
from lmagent.observe.otel import OpenTelemetry
from lmagent.observe.trace_file import TraceFile
from lmagent.testing import FakeAnswer, FakeTransport, ScriptedModel, calls, text
from tests.four_ways import AGENT_VERBS, AGENT_VERBS_AND_LOOPS

CANARY = "sk-canary-0123456789abcdefWXYZ"

every_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
every_verb_and_loop = pytest.mark.parametrize("verb", AGENT_VERBS_AND_LOOPS, ids=lambda verb: verb.__name__)


class Seen:
    """An SDK of its own, in memory."""

    def __init__(self, **options: Any) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = tracers.get_tracer("test")
        self.observer = OpenTelemetry(tracer_provider=tracers, meter_provider=meters, **options)
        self.hooks = self.observer.hooks

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order in which they began."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def points(self, metric: str) -> list[Any]:
        data: Any = self._reader.get_metrics_data()
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]

    def everything(self) -> str:
        data: Any = self._reader.get_metrics_data()
        return "\n".join(span.to_json() for span in self.spans) + (data.to_json() if data else "")


def is_under(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return child.parent is not None and parent.context is not None and child.parent.span_id == parent.context.span_id


@function
def double(n: int) -> int:
    """Double."""
    return 2 * n


@function
def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)


USAGE = Usage(input_tokens=10, output_tokens=5, total_tokens=15, cached_tokens=4, reasoning_tokens=2)


@every_verb_and_loop
def test_a_run_its_asks_and_its_calls(verb: Any):
    seen = Seen()
    model = ScriptedModel([calls(("double", {"n": 1}), usage=USAGE), text("2", usage=USAGE)])
    agent = Agent(model, [double], name="counter", hooks=seen.hooks, temperature=0.5, max_tokens=9, stop=["END"])
    verb(agent, "?")
    assert [span.name for span in seen.spans] == [
        "invoke_agent counter",
        "chat script",
        "execute_tool double",
        "chat script",
    ]
    run, ask, call, _ = seen.spans
    assert all(is_under(span, run) for span in seen.spans[1:])
    assert run.parent is None
    assert [span.kind for span in seen.spans[:3]] == [SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.INTERNAL]
    assert dict(run.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "script",
        "gen_ai.agent.name": "counter",
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.response.finish_reasons": ("stop",),
    }
    streamed = {"gen_ai.request.stream": True} if "stream" in verb.__name__ else {}
    assert dict(ask.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "script",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.output.type": "text",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.response.model": "script",
        **streamed,
    }
    assert dict(call.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "double",
        "gen_ai.tool.call.id": "call_000000000000000100000000",
        "gen_ai.tool.type": "function",
    }


@every_verb_and_loop
def test_nesting_across_threads_and_tasks(verb: Any):
    seen = Seen()

    @function
    def by_hand(n: int) -> int:
        """Make a span."""
        with seen.tracer.start_as_current_span(f"inside {n}"):
            return n

    @function
    async def waiting(n: int) -> int:
        """Make a span in a task."""
        await asyncio.sleep(0)
        with seen.tracer.start_as_current_span(f"awaited {n}"):
            return n

    inner = Agent(ScriptedModel([calls(("by_hand", {"n": 9})), "in"]), [by_hand], name="helper")
    first = calls(("by_hand", {"n": 1}), ("by_hand", {"n": 2}), ("helper", {"prompt": "?"}))
    outer = Agent(
        ScriptedModel([first, calls(("waiting", {"n": 3})), "x"]),
        [by_hand, waiting, inner.as_function()],
        name="boss",
        hooks=seen.hooks,
    )
    with seen.tracer.start_as_current_span("program"):
        verb(outer, "go")
        assert getattr(otel_trace.get_current_span(), "name", "") == "program"  # no span of lmagent is left behind
    boss, helper = seen.named("invoke_agent boss"), seen.named("invoke_agent helper")
    assert is_under(boss, seen.named("program"))
    asked = seen.named("execute_tool helper")
    assert is_under(helper, asked)
    assert is_under(asked, boss)
    by_id = {span.context.span_id: span for span in seen.spans if span.context}
    for name, tool in (
        ("inside 1", "by_hand"),
        ("inside 2", "by_hand"),
        ("inside 9", "by_hand"),
        ("awaited 3", "waiting"),
    ):
        made = seen.named(name)
        assert made.parent is not None
        assert by_id[made.parent.span_id].name == f"execute_tool {tool}"
    inside = seen.named("inside 9")
    assert inside.parent is not None
    assert is_under(by_id[inside.parent.span_id], helper)
    assert len({span.context.trace_id for span in seen.spans if span.context}) == 1


def test_a_stream_leaves_no_span_behind_between_its_events():
    seen = Seen()
    agent = Agent(ScriptedModel([calls(("double", {"n": 1})), "a long answer"]), [double], hooks=seen.hooks)
    for _ in agent.stream_run("?"):
        assert not otel_trace.get_current_span().get_span_context().is_valid

    async def main() -> None:
        again = Agent(ScriptedModel([calls(("double", {"n": 1})), "a long answer"]), [double], hooks=seen.hooks)
        async for _ in again.async_stream_run("?"):
            assert not otel_trace.get_current_span().get_span_context().is_valid

    asyncio.run(main())


@every_verb
def test_errors_have_a_type_and_a_status(verb: Any):
    seen = Seen()
    script = [calls(("fail", {"why": "SECRET WORDS"}), ("unknown", {})), ServerFailed("QUESTION", status=503)]
    with pytest.raises(ServerFailed):
        verb(Agent(ScriptedModel(script), [fail], hooks=seen.hooks), "QUESTION")
    types = {span.name: (span.attributes or {}).get("error.type") for span in seen.spans}
    assert types == {
        "invoke_agent agent": "ServerFailed",
        "chat script": "ServerFailed",
        "execute_tool fail": "ValueError",
        "execute_tool unknown": "unknown_tool",
    }
    assert {span.status.status_code for span in seen.spans if span.name != "chat script"} == {StatusCode.ERROR}
    assert all(span.status.description is None and not span.events for span in seen.spans)
    assert "QUESTION" not in seen.everything()
    assert "SECRET WORDS" not in seen.everything()


@every_verb
def test_metrics(verb: Any):
    ticks = iter(range(0, 1000, 2))
    seen = Seen(timer=lambda: float(next(ticks)))
    script = [text("1", usage=USAGE), text("2", usage=USAGE), ServerFailed("down")]
    agent = Agent(ScriptedModel(script), hooks=seen.hooks)
    verb(agent, "?")
    verb(agent, "?")
    with pytest.raises(ServerFailed):
        verb(agent, "?")
    labels = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "script",
    }
    points = seen.points("gen_ai.client.token.usage")
    assert {(point.attributes["gen_ai.token.type"], point.sum, point.count) for point in points} == {
        ("input", 20, 2),
        ("output", 10, 2),
    }
    assert all(labels.items() <= dict(point.attributes).items() for point in points)
    assert points[0].explicit_bounds[:4] == (1, 4, 16, 64)
    durations = seen.points("gen_ai.client.operation.duration")
    by_error = {point.attributes.get("error.type"): (point.count, point.sum) for point in durations}
    assert by_error == {None: (2, 4.0), "ServerFailed": (1, 2.0)}
    assert durations[0].explicit_bounds[0] == 0.01


@pytest.mark.parametrize(
    ("model_id", "provider"), [("openai/m", "openai"), ("azure/m", "azure.ai.openai"), ("zhipu/m", "zhipu")]
)
def test_providers_have_the_names_of_the_conventions(model_id: str, provider: str):
    from lmagent.observe.otel import _model_attributes  # pyright: ignore[reportPrivateUsage]

    assert _model_attributes("chat", model_id)["gen_ai.provider.name"] == provider


def _leaky(kind: Callable[[Any], FakeAnswer]) -> OpenAIChat:
    return OpenAIChat("m", api_key=CANARY, transport=FakeTransport(kind))


@every_verb
@pytest.mark.parametrize("content", [False, True])
def test_content_only_when_asked_and_a_key_never(verb: Any, content: bool):
    seen = Seen(content=content)
    message = {"role": "assistant", "content": f"ANSWER {CANARY}"}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    model = _leaky(lambda request: FakeAnswer(body=body))
    verb(Agent(model, system_prompt=f"SYSTEM {CANARY}", hooks=seen.hooks), f"QUESTION {CANARY}")
    refusal = json.dumps({"error": {"message": f"REFUSED {CANARY}"}}).encode()
    with pytest.raises(AuthenticationFailed):
        verb(Agent(_leaky(lambda request: FakeAnswer(status=401, body=refusal)), hooks=seen.hooks), "?")
    script = ScriptedModel([calls(("fail", {"why": f"ARGUMENT {CANARY}"})), "ok"])
    verb(Agent(script, [fail], hooks=seen.hooks), "?")
    written = seen.everything()
    assert CANARY not in written
    for word in ("ANSWER", "SYSTEM", "QUESTION", "ARGUMENT", "REFUSED"):
        assert (word in written) == content, word
    if content:
        (prompt, *_) = json.loads(str((seen.spans[0].attributes or {})["gen_ai.input.messages"]))
        assert prompt["role"] == "user"
        assert prompt["parts"][0]["type"] == "text"
        output = json.loads(str((seen.spans[1].attributes or {})["gen_ai.output.messages"]))
        assert output[0]["finish_reason"] == "stop"


def test_two_observers_at_once(tmp_path: Any):
    seen = Seen()
    trace = TraceFile(tmp_path / "t.jsonl")
    Agent(ScriptedModel(["ok"]), hooks=seen.hooks + trace.hooks).run("?")
    assert len(seen.spans) == 2
    assert trace.path.exists()


def test_without_the_library_it_is_said():
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\nfrom lmagent.observe.otel import OpenTelemetry\n"
        "try:\n    OpenTelemetry()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ConfigurationError OpenTelemetry is not installed: pip install 'lmagent[otel]'."
