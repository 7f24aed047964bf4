"""The agent over the scripted model: limits, approvals, context, choice, errors that keep the run, cancellation."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Any

import pytest

from lmagent import Agent, History, Inject, Limits, RunContext, RunResult, ToolError, ToolRegistry, function
from lmagent.agent.result import Allow, Deny, Edit, Pause
from lmagent.core.events import (
    RoundEnd,
    RunEnd,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolEnd,
    ToolStart,
)
from lmagent.core.history import NOT_RUN, history_problems
from lmagent.core.messages import AssistantMessage, Reply, SystemMessage, ToolCall, ToolMessage, Usage, UserMessage
from lmagent.errors import (
    ConfigurationError,
    FunctionDefinitionError,
    LimitExceeded,
    MessageError,
    ParameterError,
    ServerFailed,
)
from lmagent.providers.base import NamedTool
from lmagent.testing import ScriptedModel, ScriptError, calls
from tests.four_ways import AGENT_VERBS, AgentVerb, no_tasks_left, nothing_left

every_verb = pytest.mark.parametrize("verb", AGENT_VERBS, ids=lambda verb: verb.__name__)


@function
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _results(messages: Any) -> list[str]:
    return [message.content for message in messages if isinstance(message, ToolMessage)]


# Limits


def _endless(messages: Any) -> Any:
    return calls(("add", {"a": len(messages), "b": 1}), usage=Usage(input_tokens=6, output_tokens=4, total_tokens=10))


def _same(messages: Any) -> Any:
    return calls(("add", {"a": 1, "b": 1}))


def _wrong(messages: Any) -> Any:
    return calls(("add", {"a": "x" * len(messages), "b": 1}))


LIMITS = {
    "rounds": (_endless, Limits(rounds=3), 3),
    "tool_calls": (_endless, Limits(tool_calls=2), 2),
    "tokens": (_endless, Limits(tokens=25), 2),
    "seconds": (_endless, Limits(seconds=0.0), 0),
    "identical_calls": (_same, Limits(), 3),
    "tool_errors": (_wrong, Limits(tool_errors=4), 4),
}


@every_verb
@pytest.mark.parametrize("limit", LIMITS)
def test_a_model_that_calls_for_ever_meets_a_limit_with_the_run_in_it(verb: AgentVerb, limit: str):
    line, limits, ran = LIMITS[limit]
    agent = Agent(ScriptedModel([line] * 10), [add], limits=limits)
    history = History()
    with pytest.raises(LimitExceeded) as caught:
        verb(agent, "Go.", history=history)
    error = caught.value
    assert error.limit == limit
    assert limit.replace("_", " ") in str(error)
    assert isinstance(error.run, RunResult)
    assert error.run.messages == history.messages
    assert history_problems(history.messages) == []
    assert len(error.run.tool_calls) == ran
    assert error.to_dict()["limit"] == limit


def test_limits_of_a_run_come_before_the_agents():
    agent = Agent(ScriptedModel([_endless] * 5), [add], limits=Limits(rounds=1))
    with pytest.raises(LimitExceeded) as caught:
        agent.run("Go.", limits=Limits(rounds=4))
    assert caught.value.value == 4


def test_more_than_64_calls_in_one_reply_are_not_run():
    count: list[int] = []
    tool = function(lambda n: count.append(n) or n, name="note")
    model = ScriptedModel([calls(*(("note", {"n": n}) for n in range(70))), "done"])
    result = Agent(model, [tool]).run("Go.")
    assert sorted(count) == list(range(64))
    assert _results(result.messages)[64:] == ["Not run: at most 64 calls in one reply."] * 6


# What the model is asked


@every_verb
@pytest.mark.parametrize(("choice", "first"), [("required", "required"), ("add", NamedTool("add")), ("none", "none")])
def test_a_forced_choice_holds_for_the_first_ask(verb: AgentVerb, choice: str, first: Any):
    model = ScriptedModel(["Hello."] if choice == "none" else [calls(("add", {"a": 1, "b": 2})), "3"])
    verb(Agent(model, [add], tool_choice=choice), "Go.")
    assert model.choices == [first, "auto"][: len(model.choices)]
    model = ScriptedModel(["Hello."])
    verb(Agent(model, [add], tool_choice=choice), "Go.", tool_choice="auto")
    assert model.choices == ["auto"]


def test_an_unknown_choice_is_refused_at_once():
    for wrong in ("subtract", "any", "required"):
        with pytest.raises(ConfigurationError, match=f"tool_choice='{wrong}' is none of 'auto', 'required', 'none'"):
            Agent(ScriptedModel([]), [add] if wrong != "required" else [], tool_choice=wrong)


@every_verb
def test_the_system_prompt_is_sent_and_no_part_of_the_history(verb: AgentVerb):
    model = ScriptedModel([calls(("add", {"a": 1, "b": 2})), "3"])
    result = verb(Agent(model, [add], system_prompt="Be brief."), "Go.")
    assert [asked[0] for asked in model.asked] == [SystemMessage("Be brief.")] * 2
    assert not any(isinstance(message, SystemMessage) for message in result.messages)
    assert result.messages[0] == UserMessage("Go.")


@every_verb
def test_a_history_grows_and_a_sequence_is_copied(verb: AgentVerb):
    earlier = [UserMessage("1?"), AssistantMessage("1.")]
    history = History(earlier)
    result = verb(Agent(ScriptedModel(["2."])), "2?", history=history)
    assert history.messages == result.messages == (*earlier, UserMessage("2?"), AssistantMessage("2."))
    assert result.new_messages == result.messages[2:]
    assert verb(Agent(ScriptedModel(["2."])), "2?", history=earlier).messages == result.messages
    assert len(earlier) == 2


def test_an_open_call_in_a_given_history_is_answered_before_the_prompt():
    call = ToolCall(id="c", name="add", arguments="{}")
    model = ScriptedModel(["ok"])
    Agent(model, [add]).run("Go on.", history=History([UserMessage("?"), AssistantMessage(tool_calls=(call,))]))
    assert [message.role for message in model.asked[0]] == ["user", "assistant", "tool", "user"]
    assert _results(model.asked[0]) == [NOT_RUN]


@pytest.mark.parametrize(
    "prompt",
    ["Hi", UserMessage("Hi"), {"role": "user", "content": "Hi"}, ["Hi"], [{"role": "user", "content": "Hi"}]],
    ids=["text", "message", "dict", "texts", "dicts"],
)
@every_verb
def test_a_prompt_may_be_many_things(verb: AgentVerb, prompt: Any):
    assert verb(Agent(ScriptedModel(["Hello."])), prompt).messages[0] == UserMessage("Hi")


def test_a_prompt_of_no_known_form_is_refused_before_any_request():
    model = ScriptedModel([])
    for wrong in ({"role": "wizard", "content": "x"}, {"content": "x"}, [42], 42, None):
        with pytest.raises((MessageError, TypeError)):
            Agent(model).run(wrong)  # type: ignore[arg-type]
    assert model.asked == []


def test_parameters_are_checked_when_the_agent_is_built_and_when_it_runs():
    with pytest.raises(ParameterError, match="temperature"):
        Agent(ScriptedModel([]), temperature=-1)
    with pytest.raises(ParameterError, match="max_tokens"):
        Agent(ScriptedModel([])).run("?", max_tokens=0)
    with pytest.raises(ParameterError, match="wizardry"):
        Agent(ScriptedModel([]), wizardry=1)


def test_tools_that_cannot_be_described_or_share_a_name_are_refused_when_the_agent_is_built():
    def odd(value: threading.Lock) -> None:  # type: ignore[valid-type]
        """Nothing."""

    with pytest.raises(FunctionDefinitionError, match="odd"):
        Agent(ScriptedModel([]), [odd])
    with pytest.raises(ConfigurationError, match="'add'"):
        Agent(ScriptedModel([]), [add, function(lambda x: x, name="add")])


# Context and injection


@every_verb
def test_tools_get_the_run_context_and_injected_values(verb: AgentVerb):
    seen: list[RunContext[dict[str, int]]] = []

    @function
    def look(key: str, context: RunContext[dict[str, int]], store: Annotated[str, Inject(lambda: "shop")]) -> str:
        """Look a key up."""
        seen.append(context)
        return f"{store} {context.deps[key]}"

    used = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    model = ScriptedModel([calls(("look", {"key": "a"}), usage=used), calls(("look", {"key": "b"})), "done"])
    result = verb(Agent(model, [look], name="clerk"), "Go.", deps={"a": 1, "b": 2})
    assert _results(result.messages) == ["shop 1", "shop 2"]
    assert look.json_schema["parameters"]["properties"].keys() == {"key"}
    first, second = seen
    assert (first.round, second.round, first.agent_name) == (1, 2, "clerk")
    assert first.messages == result.messages[:2]
    assert first.tool_call == result.tool_calls[0]
    assert first.usage == used
    assert second.messages == result.messages[:4]


# Approvals


def _guarded(ran: list[int], **options: Any) -> Any:
    @function(requires_approval=True, **options)
    def delete(number: int) -> str:
        """Delete something."""
        ran.append(number)
        return f"deleted {number}"

    return delete


async def _async_allow(call: ToolCall, context: RunContext[Any]) -> Any:
    await asyncio.sleep(0)
    return Allow()


def _raise(call: ToolCall, context: RunContext[Any]) -> Any:
    raise RuntimeError("no such approver")


async def _async_raise(call: ToolCall, context: RunContext[Any]) -> Any:
    raise LookupError("gone")


_UNDECIDED = "Not allowed: the approval could not be decided."
_DENIED = "The user did not allow this call."

APPROVERS: dict[str, tuple[Any, list[int], str]] = {
    "allow": (lambda call, context: Allow(), [1], "deleted 1"),
    "true": (lambda call, context: True, [1], "deleted 1"),
    "async": (_async_allow, [1], "deleted 1"),
    "deny": (lambda call, context: Deny("Not today."), [], "Not today."),
    "false": (lambda call, context: False, [], _DENIED),
    "none": (lambda call, context: None, [], _DENIED),
    "truthy": (lambda call, context: "yes", [], _DENIED),
    "one": (lambda call, context: 1, [], _DENIED),
    "class": (lambda call, context: Allow, [], _DENIED),
    "edit object": (lambda call, context: Edit({"number": 7}), [7], "deleted 7"),
    "edit text": (lambda call, context: Edit('{"number": 8}'), [8], "deleted 8"),
    "raises": (_raise, [], _UNDECIDED),
    "async raises": (_async_raise, [], _UNDECIDED),
}


@every_verb
@pytest.mark.parametrize("approver", APPROVERS)
def test_approvals(verb: AgentVerb, approver: str):
    approve, expected, content = APPROVERS[approver]
    ran: list[int] = []
    model = ScriptedModel([calls(("delete", {"number": 1})), "ok"])
    result = verb(Agent(model, [_guarded(ran)], approve=approve), "Go.")
    assert ran == expected
    assert _results(result.messages) == [content]
    assert result.messages[2].is_error is (not expected)  # type: ignore[union-attr]
    assert result.tool_calls[0].arguments == '{"number":1}'
    assert result.reply == "ok"


@every_verb
def test_edited_arguments_are_checked_like_the_models_own(verb: AgentVerb):
    ran: list[int] = []
    model = ScriptedModel([calls(("delete", {"number": 1})), "ok"])
    agent = Agent(model, [_guarded(ran)], approve=lambda call, context: Edit({"number": "many", "force": True}))
    [content] = _results(verb(agent, "Go.").messages)
    assert ran == []
    assert "number" in content
    assert "force" in content


@every_verb
def test_without_an_approver_the_run_pauses(verb: AgentVerb):
    ran: list[int] = []
    model = ScriptedModel([calls(("delete", {"number": 1}), ("add", {"a": 1, "b": 2}))])
    history = History()
    result = verb(Agent(model, [_guarded(ran), add]), "Go.", history=history)
    assert ran == []
    assert result.is_paused
    assert result.finish_reason == "paused"
    assert [call.name for call in result.pending] == ["delete"]
    assert result.messages == history.messages
    assert isinstance(history.last, AssistantMessage)


def test_going_on_after_a_pause_without_a_decision_answers_the_calls():
    ran: list[int] = []
    history = History()
    agent = Agent(ScriptedModel([calls(("delete", {"number": 1})), "Then not."]), [_guarded(ran)])
    agent.run("Go.", history=history)
    result = agent.run("Never mind.", history=history)
    assert result.reply == "Then not."
    assert ran == []
    assert history_problems(result.messages) == []


@every_verb
def test_an_approver_may_pause(verb: AgentVerb):
    agent = Agent(
        ScriptedModel([calls(("delete", {"number": 1}))]), [_guarded([])], approve=lambda call, context: Pause()
    )
    assert verb(agent, "Go.").is_paused


@pytest.mark.parametrize(
    ("rule", "asked"),
    [(True, [1, 2]), ("always", [1, 2]), ("once", [1]), ("never", []), (False, []), (None, [])],
    ids=str,
)
def test_rules_of_approval(rule: Any, asked: list[int]):
    decided: list[int] = []

    def approve(call: ToolCall, context: RunContext[Any]) -> bool:
        decided.append(int(call.arguments[-2]))
        return True

    @function(requires_approval=rule)
    def delete(number: int) -> int:
        """Delete."""
        return number

    model = ScriptedModel([calls(("delete", {"number": 1})), calls(("delete", {"number": 2})), "ok"])
    assert _results(Agent(model, [delete], approve=approve).run("Go.").messages) == ["1", "2"]
    assert decided == asked


def test_a_rule_that_is_a_function_sees_the_call_and_asks_when_it_fails():
    decided: list[str] = []

    def rule(call: ToolCall) -> bool:
        if "9" in call.arguments:
            raise ValueError("odd")
        return "2" in call.arguments

    @function(requires_approval=rule)
    def delete(number: int) -> int:
        """Delete."""
        return number

    model = ScriptedModel([calls(*(("delete", {"number": number}) for number in (1, 2, 9))), "ok"])
    Agent(model, [delete], approve=lambda call, context: decided.append(call.arguments) or True).run("Go.")
    assert decided == ['{"number":2}', '{"number":9}']


def test_keyboard_interrupt_in_an_approver_is_no_denial():
    def approve(call: ToolCall, context: RunContext[Any]) -> bool:
        raise KeyboardInterrupt

    history = History()
    with pytest.raises(KeyboardInterrupt):
        Agent(ScriptedModel([calls(("delete", {"number": 1}))]), [_guarded([])], approve=approve).run(
            "Go.", history=history
        )
    assert _results(history.messages) == [NOT_RUN]


# Errors keep the run


@every_verb
def test_a_provider_that_fails_in_the_middle_loses_nothing(verb: AgentVerb):
    history = History()
    model = ScriptedModel([calls(("add", {"a": 1, "b": 2})), ServerFailed("down", status=500)])
    with pytest.raises(ServerFailed) as caught:
        verb(Agent(model, [add]), "Go.", history=history)
    assert caught.value.run.messages == history.messages
    assert [message.role for message in history.messages] == ["user", "assistant", "tool"]
    assert caught.value.run.tool_calls[0].name == "add"
    assert history_problems(history.messages) == []


@every_verb
def test_a_script_that_is_too_short_says_so(verb: AgentVerb):
    with pytest.raises(ScriptError, match="The script has 1 lines, and this is request 2"):
        verb(Agent(ScriptedModel([calls(("add", {"a": 1, "b": 2}))]), [add]), "Go.")


# Cancellation


def _interrupting(where: str, error: type[BaseException]) -> tuple[ScriptedModel, list[Any]]:
    def stop() -> str:
        """Stop everything."""
        raise error

    async def async_stop() -> str:
        """Stop everything."""
        await asyncio.sleep(0)
        raise error

    def line(messages: Any) -> Any:
        raise error

    script = {
        "model": [line],
        "model later": [calls(("add", {"a": 1, "b": 1})), line],
        "tool": [calls(("stop", {}))],
        "tools": [calls(("add", {"a": 1, "b": 1}), ("stop", {}), ("add", {"a": 2, "b": 1}))],
        "async tool": [calls(("async_stop", {}))],
        "async tools": [calls(("add", {"a": 1, "b": 1}), ("async_stop", {}))],
    }[where]
    return ScriptedModel(script), [add, function(stop), function(async_stop)]


@pytest.mark.parametrize("where", ["model", "model later", "tool", "tools", "async tool", "async tools"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@every_verb
def test_an_interrupt_passes_through_and_the_history_is_valid(verb: AgentVerb, error: type[BaseException], where: str):
    model, tools = _interrupting(where, error)
    history = History()
    with nothing_left(), pytest.raises(error):
        verb(Agent(model, tools), "Go.", history=history)
    assert history_problems(history.messages) == []
    assert history.messages[0] == UserMessage("Go.")
    lengths = {"model": 1, "model later": 3, "tool": 3, "tools": 5, "async tool": 3, "async tools": 4}
    assert len(history) == lengths[where]
    if "tool" in where:
        assert set(_results(history.messages)) == {NOT_RUN}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["async tool", "sync tool"])
def test_cancelling_a_task_in_a_tool(kind: str, count: int, stream: bool):
    history = History()
    ended: list[str] = []
    release = threading.Event()

    async def main() -> None:
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def wait(number: int) -> str:
            """Wait."""
            started.set()
            try:
                await asyncio.sleep(30)
            finally:
                ended.append("async")
            return "never"

        def block(number: int) -> str:
            """Wait."""
            loop.call_soon_threadsafe(started.set)
            release.wait(5)
            return "too late"

        tool = function(wait if kind == "async tool" else block, name="wait")
        agent = Agent(ScriptedModel([calls(*(("wait", {"number": n}) for n in range(count)))]), [tool])

        async def drain() -> None:
            async for _ in agent.async_stream_run("Go.", history=history):
                pass

        task = asyncio.create_task(drain() if stream else agent.async_run("Go.", history=history))  # type: ignore[arg-type]
        await asyncio.wait_for(started.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await no_tasks_left()
        release.set()

    with nothing_left():
        asyncio.run(main())
    assert history_problems(history.messages) == []
    assert _results(history.messages) == [NOT_RUN] * count
    assert len(ended) == (count if kind == "async tool" else 0)


@pytest.mark.parametrize("prompted", [False, True])
def test_a_stream_closed_after_any_event_leaves_a_valid_history(prompted: bool):
    options: dict[str, Any] = {"tool_mode": "prompt"} if prompted else {}

    def build() -> tuple[Agent, ScriptedModel]:
        model = ScriptedModel(
            [calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}), content="So."), "Done."], **options
        )
        return Agent(model, [add]), model

    total = len(list(build()[0].stream_run("Go.")))
    for stop in range(1, total):
        agent, model = build()
        history = History()
        events = agent.stream_run("Go.", history=history)
        for _ in range(stop):
            last = next(events)
        events.close()  # type: ignore[attr-defined]
        assert history_problems(history.messages) == [], last
        assert model.exchange.transport.open_answers == 0  # type: ignore[attr-defined]

        async def main() -> None:
            agent, model = build()
            history = History()
            events: Any = agent.async_stream_run("Go.", history=history)
            for _ in range(stop):
                await anext(events)
            await events.aclose()
            await no_tasks_left()
            assert history_problems(history.messages) == []
            assert model.exchange.transport.open_answers == 0  # type: ignore[attr-defined]

        asyncio.run(main())


def test_the_history_of_a_closed_stream_can_be_gone_on_with():
    model = ScriptedModel([calls(("add", {"a": 1, "b": 2})), "ok"])
    agent, history = Agent(model, [add]), History()
    events: Any = agent.stream_run("Go.", history=history)
    while not isinstance(next(events), ToolStart):
        pass
    events.close()
    assert _results(history.messages) == [NOT_RUN]
    assert agent.run("Again?", history=history).reply == "ok"


def test_an_error_in_the_readers_own_code_leaves_a_valid_history():
    history = History()
    agent = Agent(ScriptedModel([calls(("add", {"a": 1, "b": 2}))]), [add])

    def read() -> None:
        for event in agent.stream_run("Go.", history=history):
            if isinstance(event, ToolStart):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()
    assert history_problems(history.messages) == []


# Events


def test_on_event_tells_what_happens_between_requests():
    seen: list[Any] = []
    model = ScriptedModel([calls(("add", {"a": 1, "b": 2})), "3"])
    result = Agent(model, [add]).run("Go.", on_event=seen.append)
    assert [event.round for event in seen if isinstance(event, RoundEnd)] == [1, 2]
    assert tuple(m for event in seen if isinstance(event, RoundEnd) for m in event.messages) == result.messages[1:]
    assert not any(isinstance(event, TextDelta | RunEnd) for event in seen)


def test_tool_end_tells_how_long_it_took_and_whether_it_failed():
    def fail() -> None:
        """Fail."""
        raise ToolError("no luck")

    events = list(Agent(ScriptedModel([calls(("fail", {})), "sorry"]), [fail]).stream_run("Go."))
    [ended] = [event for event in events if isinstance(event, ToolEnd)]
    assert ended.message == ToolMessage("no luck", ended.call.id, "fail", is_error=True)
    assert ended.duration >= 0


def test_a_registry_may_be_shared_and_may_grow():
    registry = ToolRegistry([add])
    agent = Agent(ScriptedModel([calls(("double", {"n": 4})), "8"]), registry)
    registry.add(function(lambda n: n * 2, name="double"))
    assert _results(agent.run("Go.").messages) == ["8"]
    assert repr(agent) == "Agent('scripted/script', tools=['add', 'double'])"


@every_verb
def test_a_server_that_numbers_the_calls_of_each_reply_from_anew(verb: AgentVerb):
    def once(text: str) -> Any:
        made = tuple(
            ToolCall(id=f"call_{number}", name="add", arguments=f'{{"a": {number}, "b": {len(text)}}}')
            for number in range(2)
        )
        return Reply(message=AssistantMessage(text, tool_calls=made), finish_reason="tool_calls")

    agent = Agent(ScriptedModel([once("a"), once("bb"), "done"]), [add])
    result = verb(agent, "Go.")
    assert history_problems(result.messages) == []
    assert [call.id for call in result.tool_calls] == ["call_0", "call_1", "call_0_2", "call_1_2"]
    assert _results(result.messages) == ["1", "2", "2", "3"]


def test_events_have_the_ids_of_the_history():
    reply = Reply(message=AssistantMessage(tool_calls=(ToolCall(id="x", name="add", arguments='{"a": 1, "b": 1}'),)))
    ids: list[str] = []
    for event in Agent(ScriptedModel([reply, reply, "done"]), [add]).stream_run("Go."):
        if isinstance(event, ToolCallStart | ToolCallDelta | ToolCallEnd):
            ids.append(event.id)
        elif isinstance(event, ToolStart | ToolEnd):
            ids.append(event.call.id)
    assert list(dict.fromkeys(ids)) == ["x", "x_2"]
    assert ids == sorted(ids)
