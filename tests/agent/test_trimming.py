"""What is sent fits; what belongs together stays together."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from lmagent import Agent, function
from lmagent.agent.run import Limits
from lmagent.agent.trimming import Summarise, TrimTo, estimate_tokens
from lmagent.core.budget import Budget
from lmagent.core.history import history_problems
from lmagent.core.messages import AssistantMessage, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.observe.hooks import Hooks
from lmagent.providers.base import ChatCall
from lmagent.testing import ScriptedModel, calls


def conversation(rounds: int):
    messages = [SystemMessage("be brief")]
    for index in range(rounds):
        call = ToolCall(id=f"c{index}", name="f", arguments="{}")
        messages += [
            UserMessage(f"question {index} " + "x" * 100),
            AssistantMessage("", tool_calls=(call,)),
            ToolMessage("y" * 100, tool_call_id=call.id, name="f"),
            AssistantMessage(f"answer {index}"),
        ]
    return (*messages, UserMessage("the newest question"))


@given(st.integers(0, 8), st.integers(1, 500))
def test_trimmed_conversations_are_valid_and_keep_the_question(rounds, tokens):
    messages = conversation(rounds)
    trimmed = TrimTo(tokens=tokens)(ChatCall(messages=messages)) or ChatCall(messages=messages)
    assert history_problems(trimmed.messages) == []
    assert trimmed.messages[0] == messages[0]
    assert trimmed.messages[-1] == messages[-1]
    assert isinstance(trimmed.messages[1], UserMessage)
    if estimate_tokens(messages[:1] + messages[-1:]) <= tokens:
        assert estimate_tokens(trimmed.messages) <= tokens


def test_a_long_tool_loop_keeps_its_question_and_drops_old_rounds():
    @function
    def step(n: int) -> str:
        """Step."""
        return "z" * 400

    script = [calls(("step", {"n": n})) for n in range(10)] + ["done"]
    model = ScriptedModel(script)
    result = Agent(model, [step], hooks=Hooks(before_model=[TrimTo(tokens=400)]), limits=Limits()).run("the task")
    assert len(result.messages) == 22
    assert all(asked[0].content == "the task" for asked in model.asked)
    assert max(map(len, model.asked)) < 10
    assert all(history_problems(asked) == [] for asked in model.asked)
    ids = [call.id for call in result.tool_calls]
    assert len(set(ids)) == 10  # minted by where they stand in the whole conversation, not in what was sent


def test_chinese_counts_more_than_letters():
    assert estimate_tokens([UserMessage("天" * 100)]) > estimate_tokens([UserMessage("a" * 100)])


def test_a_summary_is_asked_for_once_and_charged():
    writer = ScriptedModel(["they said hello"])
    hook = Summarise(writer, tokens=300, keep=2)
    budget = Budget()
    model = ScriptedModel(["a", "b"])
    agent = Agent(model, hooks=Hooks(before_model=[hook]))
    from lmagent import History

    history = History(conversation(4)[1:])
    agent.run("go on", history=history, budget=budget)
    agent.run("and on", history=history, budget=budget)
    writer.check()
    assert budget.spent.requests == 3
    assert model.asked[0][0].content == "Summary of the conversation so far:\nthey said hello"
    assert model.asked[1][0] is model.asked[0][0]
    assert all(history_problems(asked) == [] for asked in model.asked)
    assert len(history) == 21


def test_a_summary_in_an_asynchronous_run():
    writer = ScriptedModel(["short"])
    agent = Agent(ScriptedModel(["a"]), hooks=Hooks(before_model=[Summarise(writer, tokens=200, keep=1)]))
    asyncio.run(agent.async_run("go", history=conversation(3)))
    assert agent.model.asked[0][1].content.endswith("short")
