"""The trace file: what runs did, in every verb, nested too; no content and no secret unless asked; torn lines."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from lmagent import Agent, OpenAIChat, RunContext, function
from lmagent.agent.result import Deny
from lmagent.agent.run import Limits
from lmagent.core.messages import Usage
from lmagent.errors import AuthenticationFailed, ConfigurationError, LimitExceeded, ServerFailed
from lmagent.observe.hooks import Hooks, Observer, RunTracer, Span
from lmagent.observe.trace_file import TraceFile, read_trace
from lmagent.testing import FakeAnswer, FakeTransport, ScriptedModel, calls, text
from tests.four_ways import AGENT_VERBS, AGENT_VERBS_AND_LOOPS, async_run, async_stream_run, run

CANARY = "sk-canary-0123456789abcdefWXYZ"

every_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)
every_verb_and_loop = pytest.mark.parametrize("verb", AGENT_VERBS_AND_LOOPS, ids=lambda verb: verb.__name__)


@function
def double(n: int) -> int:
    """Double."""
    return 2 * n


@function
def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)


class Clock:
    """Goes on by a second each time it is looked at."""

    def __init__(self, start: float) -> None:
        self.now = start

    def __call__(self) -> float:
        self.now += 1
        return self.now


def traced(tmp_path: Path, **options: Any) -> TraceFile:
    return TraceFile(tmp_path / "run.jsonl", clock=Clock(1000), timer=Clock(0), **options)


def events_of(trace: TraceFile) -> list[dict[str, Any]]:
    events, unread = read_trace(trace.path)
    assert unread == 0
    return events


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


@every_verb_and_loop
def test_a_run_in_lines(tmp_path: Path, verb: Any):
    trace = traced(tmp_path)
    usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
    model = ScriptedModel([calls(("double", {"n": 21}), usage=usage), text("42", usage=usage)])
    verb(Agent(model, [double], name="counter", hooks=trace.hooks), "What is twice 21?")
    events = events_of(trace)
    assert names(events) == [
        "run_start",
        *("model_start", "model_end"),
        *("tool_start", "tool_end"),
        *("model_start", "model_end"),
        "run_end",
    ]
    assert len({event["run"] for event in events}) == 1
    assert [event["time"] for event in events] == [1001.0 + i for i in range(8)]
    assert events[0]["agent"] == "counter"
    assert events[0]["model"] == "scripted/script"
    assert "parent" not in events[0]
    assert (events[1]["messages"], events[1]["tools"]) == (1, 1)
    assert events[2]["tokens"] == {"input": 10, "output": 5, "total": 15}
    assert (events[2]["finish"], events[2]["attempts"], events[2]["calls"]) == ("tool_calls", 1, ["double"])
    assert events[2]["seconds"] == 1.0
    assert (events[3]["tool"], events[4]["outcome"]) == ("double", "ok")
    assert events[3]["call"] == events[4]["call"] == "call_000000000000000100000000"
    assert events[7]["tokens"]["total"] == 30
    assert (events[7]["finish"], events[7]["rounds"], events[7]["requests"], events[7]["calls"]) == ("stop", 2, 2, 1)


@every_verb_and_loop
def test_a_nested_run_knows_its_parent_and_is_traced_with_it(tmp_path: Path, verb: Any):
    trace = traced(tmp_path)
    inner = Agent(ScriptedModel([calls(("double", {"n": 1})), "two"]), [double], name="helper")
    outer = Agent(
        ScriptedModel([calls(("helper", {"prompt": "?"}), ("double", {"n": 3})), "done"]),
        [inner.as_function(), double],
        name="boss",
        hooks=trace.hooks,
    )
    verb(outer, "go")
    events = events_of(trace)
    boss, helper = (event for event in events if event["event"] == "run_start")
    assert (boss["agent"], helper["agent"]) == ("boss", "helper")
    assert helper["parent"] == boss["run"]
    asked = next(event for event in events if event["event"] == "tool_start" and event["tool"] == "helper")
    assert helper["parent_call"] == asked["call"]
    assert names([event for event in events if event["run"] == helper["run"]])[0::7] == ["run_start", "run_end"]
    ends = [event for event in events if event["event"] == "tool_end" and event["run"] == boss["run"]]
    assert sorted(event["tool"] for event in ends) == ["double", "helper"]


def test_an_agent_that_a_tool_runs_by_itself_is_nested_too(tmp_path: Path):
    trace = traced(tmp_path)

    @function
    def ask_another() -> str:
        """Ask."""
        return Agent(ScriptedModel(["yes"]), name="other", hooks=trace.hooks).run("?").reply

    Agent(ScriptedModel([calls(("ask_another", {})), "ok"]), [ask_another], hooks=trace.hooks).run("go")
    starts = [event for event in events_of(trace) if event["event"] == "run_start"]
    assert [start["agent"] for start in starts] == ["agent", "other"]  # once each, though both ask for it
    assert starts[1]["parent"] == starts[0]["run"]


@every_verb
def test_no_content_unless_asked(tmp_path: Path, verb: Any):
    def ask(trace: TraceFile) -> str:
        script = [calls(("fail", {"why": "ARGUMENT"})), calls(("double", {"n": "WRONG"})), "ANSWER"]
        verb(Agent(ScriptedModel(script), [fail, double], system_prompt="SYSTEM", hooks=trace.hooks), "QUESTION")
        return trace.path.read_text("utf-8")

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    silent = ask(traced(tmp_path / "a"))
    for word in ("ARGUMENT", "WRONG", "ANSWER", "QUESTION", "SYSTEM"):
        assert word not in silent
    assert '"error":"ValueError"' in silent
    assert '"outcome":"invalid_arguments"' in silent
    telling = ask(traced(tmp_path / "b", content=True))
    for word in ("ARGUMENT", "WRONG", "ANSWER", "QUESTION", "SYSTEM"):
        assert word in telling


@every_verb
@pytest.mark.parametrize("content", [False, True])
def test_a_key_is_never_in_the_trace(tmp_path: Path, verb: Any, content: bool):
    trace = traced(tmp_path, content=content)

    @function
    def leak() -> str:
        """Leak."""
        return f"the key is {CANARY}"

    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": CANARY}, "finish_reason": "stop"}]}
    transport = FakeTransport(lambda request: FakeAnswer(body=json.dumps(body).encode()))
    model = OpenAIChat("m", api_key=CANARY, transport=transport)
    verb(Agent(model, [leak], system_prompt=CANARY, hooks=trace.hooks), f"My key is {CANARY}")
    refused = FakeTransport(
        lambda request: FakeAnswer(status=401, body=json.dumps({"error": {"message": f"bad key {CANARY}"}}).encode())
    )
    with pytest.raises(AuthenticationFailed):
        verb(Agent(OpenAIChat("m", api_key=CANARY, transport=refused), hooks=trace.hooks), "?")
    script = ScriptedModel([calls(("leak", {})), "ok"])
    verb(Agent(script, [leak], hooks=trace.hooks), "?")
    written = trace.path.read_text("utf-8")
    assert CANARY not in written
    assert CANARY[:20] not in written


@every_verb
def test_a_failed_run_says_what_failed(tmp_path: Path, verb: Any):
    trace = traced(tmp_path)
    agent = Agent(ScriptedModel([ServerFailed("the prompt was QUESTION", status=503, code="busy")]), hooks=trace.hooks)
    with pytest.raises(ServerFailed):
        verb(agent, "QUESTION")
    events = events_of(trace)
    assert names(events) == ["run_start", "model_start", "model_end", "run_end"]
    for event in events[2:]:
        assert (event["error"], event["status"], event["code"]) == ("ServerFailed", 503, "busy")
    assert "QUESTION" not in trace.path.read_text("utf-8")


@every_verb
def test_a_limit_ends_the_run_in_the_trace_too(tmp_path: Path, verb: Any):
    trace = traced(tmp_path)
    agent = Agent(ScriptedModel([calls(("double", {"n": 1}))]), [double], limits=Limits(rounds=1), hooks=trace.hooks)
    with pytest.raises(LimitExceeded):
        verb(agent, "?")
    last = events_of(trace)[-1]
    assert (last["event"], last["error"], last["limit"], last["rounds"]) == ("run_end", "LimitExceeded", "rounds", 1)


@every_verb
def test_a_call_that_takes_too_long_and_one_that_never_ran(tmp_path: Path, verb: Any):
    trace = traced(tmp_path)
    release = threading.Event()

    @function(timeout=0.05)
    def slow() -> str:
        """Slow."""
        release.wait(5)
        return "late"

    model = ScriptedModel([calls(("slow", {}), ("nothing_of_the_kind", {})), "ok"])
    verb(Agent(model, [slow], hooks=trace.hooks), "?")
    release.set()
    events = events_of(trace)
    assert [event["outcome"] for event in events if event["event"] == "tool_end"] == ["timeout", "unknown_tool"]
    assert names(events).count("tool_start") == 2


@every_verb
def test_decisions_are_lines(tmp_path: Path, verb: Any):
    trace = traced(tmp_path)
    agent = Agent(
        ScriptedModel([calls(("double", {"n": 1})), "ok"]),
        [double],
        approval={"*": True},
        approve=lambda call, context: Deny("not today"),
        hooks=trace.hooks,
    )
    verb(agent, "?")
    decision = next(event for event in events_of(trace) if event["event"] == "decision")
    assert [decision[name] for name in ("tool", "decision", "rule", "by")] == ["double", "deny", "always", "approver"]
    assert "reason" not in decision


def test_a_paused_run_says_what_it_waits_for(tmp_path: Path):
    trace = traced(tmp_path)
    agent = Agent(ScriptedModel([calls(("double", {"n": 1})), "ok"]), [double], approval={"*": True}, hooks=trace.hooks)
    paused = agent.run("?")
    agent.run(paused.decide({paused.pending[0].id: True}))
    ends = [event for event in events_of(trace) if event["event"] == "run_end"]
    assert ends[0]["pending"] == ["double"]
    assert [end["finish"] for end in ends] == ["paused", "stop"]


def test_a_stream_that_is_left_ends_in_the_trace(tmp_path: Path):
    trace = traced(tmp_path)
    agent = Agent(ScriptedModel(["a long answer"]), hooks=trace.hooks)
    stream: Any = agent.stream_run("?")
    next(stream)
    next(stream)
    stream.close()
    events = events_of(trace)
    assert names(events)[-2:] == ["model_end", "run_end"]
    assert events[-1]["error"] == "GeneratorExit"
    finished: Any = Agent(ScriptedModel(["short"]), hooks=trace.hooks).stream_run("?")
    for event in finished:
        if type(event).__name__ == "RunEnd":
            break
    finished.close()
    assert "error" not in events_of(trace)[-1]


def test_a_cancelled_run_ends_in_the_trace(tmp_path: Path):
    trace = traced(tmp_path)

    @function
    async def wait_for_ever() -> str:
        """Wait."""
        await asyncio.Event().wait()
        return ""

    agent = Agent(ScriptedModel([calls(("wait_for_ever", {}))]), [wait_for_ever], hooks=trace.hooks)

    async def main() -> None:
        task = asyncio.create_task(agent.async_run("?"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    events = events_of(trace)
    assert names(events)[-2:] == ["tool_end", "run_end"]
    assert events[-1]["error"] == "CancelledError"


def test_a_handed_over_run_stays_traced(tmp_path: Path):
    trace = traced(tmp_path)
    second = Agent(ScriptedModel(["here"]), name="second")
    first = Agent(ScriptedModel([calls(("hand_over_to_second", {}))]), [second.as_handoff()], hooks=trace.hooks)
    first.run("go")
    asks = [event["agent"] for event in events_of(trace) if event["event"] == "model_start"]
    assert asks == ["agent", "second"]


def test_many_runs_at_once_in_one_file(tmp_path: Path):
    trace = TraceFile(tmp_path / "run.jsonl")

    async def one(number: int) -> None:
        model = ScriptedModel([calls(("double", {"n": number})), "ok"])
        await Agent(model, [double], hooks=trace.hooks).async_run("?")

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(main())
    events = events_of(trace)
    assert len(events) == 20 * 8
    runs = {event["run"] for event in events}
    assert len(runs) == 20
    for each in runs:
        assert len([event for event in events if event["run"] == each]) == 8
    assert not any("parent" in event for event in events)


def test_a_torn_line_is_left_behind_and_the_file_goes_on(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"event":"run_start","run":"a","time":1}\n{"event":"run_e')
    Agent(ScriptedModel(["ok"]), hooks=TraceFile(path).hooks).run("?")
    events, unread = read_trace(path)
    assert unread == 1
    assert names(events) == ["run_start", "run_start", "model_start", "model_end", "run_end"]


def test_nothing_is_written_before_a_run_and_others_cannot_read_it(tmp_path: Path):
    trace = TraceFile(tmp_path / "run.jsonl")
    assert not trace.path.exists()
    Agent(ScriptedModel(["ok"]), hooks=trace.hooks).run("?")
    assert trace.path.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigurationError):
        TraceFile(tmp_path / "missing" / "run.jsonl")


def test_a_file_that_cannot_be_written_never_ends_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "gone"
    folder.mkdir()
    trace = TraceFile(folder / "run.jsonl")
    folder.rmdir()
    assert Agent(ScriptedModel(["ok"]), hooks=trace.hooks).run("?").reply == "ok"
    assert "an observer failed: FileNotFoundError" in caplog.text


@every_verb
def test_no_span_is_made_without_observers(verb: Any, monkeypatch: pytest.MonkeyPatch):
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(RunTracer, "__init__", forbidden)
    monkeypatch.setattr(Span, "__init__", forbidden)
    seen: list[Any] = []

    @function
    def look(context: RunContext[None]) -> str:
        """Look."""
        seen.append(context.around)
        return "seen"

    assert verb(Agent(ScriptedModel([calls(("look", {})), "ok"]), [look]), "?").reply == "ok"
    assert seen == [None]


def test_an_observer_sees_what_hooks_made(tmp_path: Path):
    kinds: list[str] = []

    class Seeing(Observer):
        def started(self, span: Span) -> None:
            kinds.append(span.kind)

        def ended(self, span: Span) -> None:
            kinds.append(f"/{span.kind}")

        def entered(self, span: Span) -> str:
            kinds.append("in")
            return "token"

        def left(self, span: Span, token: str) -> None:
            kinds.append(f"out {token}")

    hooks = Hooks(observers=[Seeing()]) + Hooks(after_tool=[lambda outcome: None])
    for verb in (run, async_run, async_stream_run):
        kinds.clear()
        verb(Agent(ScriptedModel([calls(("double", {"n": 1})), "ok"]), [double], hooks=hooks), "?")
        assert " ".join(kinds) == "run model /model tool in out token /tool model /model /run"
