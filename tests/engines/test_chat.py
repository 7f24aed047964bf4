"""`ChatEngine`: printing, history, and the history after a failure."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any

import pytest

from lmagent import Agent, ChatEngine, Limits, function
from lmagent.core.events import RunEnd
from lmagent.core.history import history_problems
from lmagent.core.messages import AssistantMessage, ToolMessage, UserMessage
from lmagent.engines.printer import Printer
from lmagent.errors import LimitExceeded, ParameterError, ServerFailed
from lmagent.testing import ScriptedModel, calls
from tests.four_ways import ENGINE_VERBS


@function
def get_weather(city: str) -> str:
    """Get weather of the city."""
    return f"{city}天气晴朗, 气温20度"


WHO = """\
user: 你好，我叫 lmclient
assistant: 你好，lmclient，我是MM智能助理，很高兴认识你！
user: 我是谁？
assistant: 你是lmclient，一个由MiniMax自研的大语言模型。
"""

WEATHER = """\
user: 今天北京天气怎么样？
Function call: get_weather
Arguments: {
    "city": "北京"
}
function: "北京天气晴朗, 气温20度"
assistant: 今天北京天气晴朗，气温20度。
"""


def _who_script() -> list[Any]:
    return ["你好，lmclient，我是MM智能助理，很高兴认识你！", "你是lmclient，一个由MiniMax自研的大语言模型。"]


def _weather_script() -> list[Any]:
    return [calls(("get_weather", {"city": "北京"})), "今天北京天气晴朗，气温20度。"]


MODES: list[dict[str, Any]] = [{}, {"tool_mode": "prompt"}, {"tool_mode": "prompt", "prompt_format": "react"}]


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("stream", [None, True, False])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_quickstart_conversations_are_printed_as_documented(
    options: dict[str, Any], stream: bool | None, kind: str, capsys: pytest.CaptureFixture[str]
):
    def say(bot: ChatEngine, prompt: str) -> str:
        return (bot.chat(prompt) if kind == "sync" else asyncio.run(bot.async_chat(prompt))).reply

    bot = ChatEngine(ScriptedModel(_who_script(), **options), stream=stream)
    say(bot, "你好，我叫 lmclient")
    assert say(bot, "我是谁？") == "你是lmclient，一个由MiniMax自研的大语言模型。"
    assert capsys.readouterr() == (WHO, "")
    bot = ChatEngine(ScriptedModel(_weather_script(), **options), functions=[get_weather], stream=stream)
    assert say(bot, "今天北京天气怎么样？") == "今天北京天气晴朗，气温20度。"
    assert capsys.readouterr() == (WEATHER, "")


_STYLES = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("stream", [None, False])
def test_terminal_output_has_colors_and_the_same_text(stream: bool | None):
    out = io.StringIO()
    bot = ChatEngine(
        ScriptedModel(_weather_script()), functions=[get_weather], printer=Printer(out, color=True), stream=stream
    )
    bot.chat("今天北京天气怎么样？")
    shown = out.getvalue()
    assert "\x1b[1;32muser: \x1b[0m" in shown
    assert _STYLES.sub("", shown) == WEATHER


@pytest.mark.parametrize("stream", [True, False])
def test_control_characters_are_printed_escaped_and_stored_unchanged(stream: bool, capsys: pytest.CaptureFixture[str]):
    evil = "\x1b]0;owned\x07\x1b[2J\u202eevil\u2066 [red]x[/red]\r done"

    @function
    def look() -> str:
        """Look."""
        return evil

    bot = ChatEngine(ScriptedModel([calls(("look", {})), evil]), functions=[look], stream=stream)
    bot.chat("\x1b[31mHi")
    out = capsys.readouterr().out
    assert not [char for char in out if ord(char) < 32 and char != "\n"]
    assert "\u202e" not in out
    assert "user: \\x1b[31mHi\n" in out
    assert out.endswith("assistant: \\x1b]0;owned\\x07\\x1b[2J\\u202eevil\\u2066 [red]x[/red]\\x0d done\n")
    last = bot.history[-1]
    assert isinstance(last, AssistantMessage)
    assert last.content == evil
    colored = io.StringIO()
    bot = ChatEngine(ScriptedModel([evil]), printer=Printer(colored, color=True))
    bot.chat("Hi")
    assert "\\x1b]0;owned\\x07\\x1b[2J\\u202eevil\\u2066 [red]x[/red]\\x0d done" in _STYLES.sub("", colored.getvalue())


def test_text_before_calls_and_several_calls_are_printed_in_order(capsys: pytest.CaptureFixture[str]):
    script = [calls(("get_weather", {"city": "A"}), ("get_weather", '{"city": "B"'), content="One moment."), "Fine."]
    ChatEngine(ScriptedModel(script), functions=[get_weather], stream=False).chat("?")
    plain = capsys.readouterr().out
    script = [calls(("get_weather", {"city": "A"}), ("get_weather", '{"city": "B"'), content="One moment."), "Fine."]
    ChatEngine(ScriptedModel(script), functions=[get_weather], stream=True).chat("?")
    streamed = capsys.readouterr().out
    assert plain == streamed
    lines = plain.splitlines()
    assert lines[:3] == ["user: ?", "assistant: One moment.", "Function call: get_weather"]
    assert lines[-1] == "assistant: Fine."
    assert sum(line.startswith("function: ") for line in lines) == 2


@pytest.mark.parametrize("verb", ENGINE_VERBS, ids=lambda verb: verb.__name__)
def test_history_grows_and_reset_clears_it(verb: Any):
    model = ScriptedModel(["1.", "2.", "3."])
    bot = ChatEngine(model, system_prompt="Be brief.", print_message=False)
    verb(bot, "1?")
    verb(bot, "2?")
    assert [message.content for message in bot.history] == ["1?", "1.", "2?", "2."]
    assert [message.content for message in model.asked[1]] == ["Be brief.", "1?", "1.", "2?"]
    bot.reset()
    assert bot.history == ()
    verb(bot, "3?")
    assert [message.content for message in model.asked[2]] == ["Be brief.", "3?"]


def test_conversation_starts_with_the_given_history():
    model = ScriptedModel(["Ada."])
    bot = ChatEngine(model, history=[UserMessage("I am Ada."), AssistantMessage("Hello.")], print_message=False)
    bot.chat("Who am I?")
    assert len(model.asked[0]) == 3
    assert len(bot.history) == 4


@pytest.mark.parametrize("verb", ENGINE_VERBS, ids=lambda verb: verb.__name__)
def test_failure_before_the_first_reply_removes_the_prompt(verb: Any):
    bot = ChatEngine(ScriptedModel(["Hi.", ServerFailed("down"), "Again."]), print_message=False)
    verb(bot, "1")
    with pytest.raises(ServerFailed):
        verb(bot, "2")
    assert [message.content for message in bot.history] == ["1", "Hi."]
    assert verb(bot, "2").reply == "Again."


@pytest.mark.parametrize("verb", ENGINE_VERBS, ids=lambda verb: verb.__name__)
def test_failure_after_tools_ran_keeps_the_completed_rounds(verb: Any):
    script = [*_weather_script()[:1], ServerFailed("down"), "Sunny, as I said."]
    bot = ChatEngine(ScriptedModel(script), functions=[get_weather], print_message=False)
    with pytest.raises(ServerFailed):
        verb(bot, "?")
    assert [message.role for message in bot.history] == ["user", "assistant", "tool"]
    assert history_problems(bot.history) == []
    assert verb(bot, "Well?").reply == "Sunny, as I said."


@pytest.mark.parametrize("stream", [True, False])
def test_ctrl_c_in_a_tool_leaves_a_valid_history(stream: bool):
    @function
    def stop() -> None:
        """Stop."""
        raise KeyboardInterrupt

    bot = ChatEngine(
        ScriptedModel([calls(("stop", {})), "Still here."]),
        functions=[stop],
        printer=Printer(io.StringIO()),
        stream=stream,
    )
    with pytest.raises(KeyboardInterrupt):
        bot.chat("?")
    assert [message.role for message in bot.history] == ["user", "assistant", "tool"]
    assert bot.chat("Are you there?").reply == "Still here."


def test_stream_closed_early_leaves_a_valid_history():
    bot = ChatEngine(ScriptedModel([*_weather_script(), "ok"]), functions=[get_weather], print_message=False)
    for event in bot.stream_chat("?"):
        if type(event).__name__ == "ToolStart":
            break
    assert history_problems(bot.history) == []
    assert bot.chat("Go on").reply == "今天北京天气晴朗，气温20度。"


def test_stream_methods_print_nothing_and_end_with_the_result(capsys: pytest.CaptureFixture[str]):
    bot = ChatEngine(ScriptedModel(_weather_script()), functions=[get_weather])
    events = list(bot.stream_chat("?"))
    assert isinstance(events[-1], RunEnd)
    assert events[-1].result.messages == bot.history
    assert capsys.readouterr() == ("", "")


def test_print_message_false_prints_nothing(capsys: pytest.CaptureFixture[str]):
    ChatEngine(ScriptedModel(_weather_script()), functions=[get_weather], print_message=False).chat("?")
    assert capsys.readouterr() == ("", "")


def test_agent_as_model_keeps_its_own_settings():
    agent = Agent(ScriptedModel(_weather_script()), [get_weather], limits=Limits(rounds=1))
    bot = ChatEngine(agent, print_message=False)
    with pytest.raises(LimitExceeded):
        bot.chat("?")
    assert isinstance(bot.history[-1], ToolMessage)
    with pytest.raises(TypeError, match="on the Agent, not here"):
        ChatEngine(agent, functions=[get_weather])


def test_parameters_are_checked_at_construction_and_per_call():
    with pytest.raises(ParameterError, match="temperature"):
        ChatEngine(ScriptedModel([]), temperature=-1)
    bot = ChatEngine(ScriptedModel([]), print_message=False)
    with pytest.raises(ParameterError, match="top_p"):
        bot.chat("?", top_p=2)
    assert bot.history == ()
