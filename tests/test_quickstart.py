"""Each block of LMClient's quick start runs with the import renamed, over real HTTP, against local servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import lmagent
from lmagent import Agent, ChatEngine, ChatModel, OpenAIChat, function, load_from_model_id
from lmagent.errors import ParameterError
from tests.dialect_servers import DIALECTS, QUICK, Brain, DialectServer, answers, calls_then
from tests.dialects import Asked, Said
from tests.four_ways import AGENT_VERBS, ENGINE_VERBS, MODEL_VERBS, complete

DOCUMENT = (Path(__file__).parent / "data" / "lmclient-quickstart.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
CODE = [text for language, text in _BLOCKS if language == "python"]
SHOWN = [text for language, text in _BLOCKS if not language]
(FIRST, BY_ID, PARAMETERS, STREAMING, CHAT_ENGINE, COMPLETION_ENGINE, FUNCTION_CALL, SEVERAL_MODELS) = CODE

TODAY = {
    "minimax-current": "MINIMAX_API_HOST",
    "minimax_pro": None,  # shares MiniMax's address; see `_by_path`
    "openai": "OPENAI_BASE_URL",
    "wenxin": "WENXIN_BASE_URL",
    "zhipu": "ZHIPUAI_BASE_URL",
    "zhipu-character-v4": None,
    "hunyuan": "HUNYUAN_BASE_URL",
    "baichuan-current": "BAICHUAN_BASE_URL",
}
"""Dialect of a class without arguments -> environment variable of its address."""

KEYS = {
    "OPENAI_API_KEY": "fake-key",
    "MINIMAX_API_KEY": "fake-key",
    "MINIMAX_GROUP_ID": "17",
    "WENXIN_API_KEY": "fake-key",
    "WENXIN_SECRET_KEY": "fake-secret",
    "ZHIPU_API_KEY": "fakeid.fakesecret",
    "HUNYUAN_API_KEY": "fake-key",
    "BAICHUAN_API_KEY": "fake-key",
}

OLD_IDS: dict[str, tuple[str, dict[str, Any]]] = {
    "minimax": ("minimax/abab5.5-chat", {"api_key": "fake-key", "group_id": "17"}),
    "minimax_pro": ("minimax_pro/abab5.5-chat", {"api_key": "fake-key", "group_id": "17"}),
    "openai": ("openai/gpt-3.5-turbo", {"api_key": "fake-key"}),
    "wenxin": ("wenxin/ERNIE-Bot", {"api_key": "fake-key", "secret_key": "fake-secret"}),
    "zhipu-v3": ("zhipu/chatglm_turbo", {"api_key": "fakeid.fakesecret"}),
    "zhipu-character": ("zhipu-character/characterglm", {"api_key": "fakeid.fakesecret"}),
    "hunyuan-v1": ("hunyuan/v1", {"secret_id": "AKIDfake", "secret_key": "fakesecret", "app_id": 13}),
    "baichuan": ("baichuan/Baichuan2-53B", {"api_key": "fake-key", "secret_key": "fake-secret"}),
}
"""Dialect -> model id in the document, and its credentials."""


@function
def get_weather(city: str) -> str:
    """Get weather of the city."""
    return f"{city}天气晴朗, 气温20度"


CALL = ("get_weather", {"city": "北京"})


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, DialectServer]]:
    """Start one server per dialect and set the environment variables for the default models."""
    with ExitStack() as stack:
        made = {name: stack.enter_context(DialectServer(DIALECTS[name], answers("你好！"))) for name in TODAY}
        for name, variable in TODAY.items():
            if variable:
                monkeypatch.setenv(variable, made[name].url)
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        yield made


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a block as a script."""
    names["__name__"] = "__main__"
    exec(compile(code.replace("from lmclient import", "from lmagent import"), "<quickstart>", "exec"), names)
    for value in list(names.values()):
        if isinstance(value, ChatModel):
            value.close()
        if isinstance(value, ChatEngine):
            value.agent.model.close()
    return names


def test_first_block_prints_the_reply(servers: dict[str, DialectServer]):
    assert run(FIRST)["model_response"].reply == "你好！"


def test_model_is_loaded_by_its_id(servers: dict[str, DialectServer]):
    names = run(BY_ID)
    assert names["model"].model_id == "openai/gpt-4"
    assert names["model_response"].reply == "你好！"
    assert servers["openai"].asked[0].body["model"] == "gpt-4"


def test_parameters_of_a_call_override_those_of_the_model(servers: dict[str, DialectServer]):
    run(PARAMETERS)
    assert [asked.body["temperature"] for asked in servers["openai"].asked] == [0, 0]


def test_stream_yields_deltas_and_the_whole_reply(
    servers: dict[str, DialectServer], capsys: pytest.CaptureFixture[str]
):
    with OpenAIChat() as model:
        names = run(STREAMING, model=model)
    assert capsys.readouterr().out == "你好！"
    assert names["response"].reply == "你好！"


def _says(*texts: str) -> Brain:
    waiting = list(texts)
    return lambda asked: Said(waiting.pop(0))


def test_chat_engine_keeps_and_prints_the_conversation(
    servers: dict[str, DialectServer], capsys: pytest.CaptureFixture[str]
):
    said = re.findall("^assistant: (.*)$", SHOWN[0], re.MULTILINE)
    servers["minimax-current"].brain = _says(*said)
    run(CHAT_ENGINE)
    assert capsys.readouterr().out == SHOWN[0]
    assert [turn.text for turn in servers["minimax-current"].asked[1].turns] == [
        "你好，我叫 lmclient",
        said[0],
        "我是谁？",
    ]


def test_completion_engine_answers_all_prompts(servers: dict[str, DialectServer], capsys: pytest.CaptureFixture[str]):
    servers["minimax-current"].brain = lambda asked: Said(asked.user.upper())
    run(COMPLETION_ENGINE)
    assert capsys.readouterr().out.splitlines() == [
        "HELLO, MY NAME IS",
        "CAN YOU PLEASE TELL ME YOUR NAME?",
        "WHAT IS YOUR NAME?",
    ]


def test_chat_engine_calls_a_function(servers: dict[str, DialectServer], capsys: pytest.CaptureFixture[str]):
    final = SHOWN[1].strip().rpartition("assistant: ")[2]
    servers["openai"].brain = calls_then(CALL, final=final)
    run(FUNCTION_CALL)
    assert capsys.readouterr().out == SHOWN[1]


def test_several_models_have_one_interface(
    servers: dict[str, DialectServer], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # Some APIs share an address, which two servers cannot.
    monkeypatch.setattr(lmagent, "MinimaxProChat", lambda: servers["minimax_pro"].model())
    monkeypatch.setattr(lmagent, "ZhiPuCharacterChat", lambda: servers["zhipu-character-v4"].model())
    names = run(SEVERAL_MODELS)
    for model in names["chat_models"]:
        model.close()
    ids = [line.partition(": ") for line in capsys.readouterr().out.splitlines()]
    assert [id for id, _, _ in ids] == [
        "minimax/MiniMax-M2.7",
        "minimax_pro/abab5.5-chat",
        "openai/gpt-5.4-mini",
        "wenxin/ERNIE-Bot",
        "zhipu/glm-4.6",
        "zhipu-character/charglm-4",
        "hunyuan/hunyuan-turbos-latest",
        "baichuan/Baichuan4-Turbo",
    ]
    assert {reply for _, _, reply in ids} == {"你好！"}
    assert all(len(server.asked) == 1 for server in servers.values())


@pytest.mark.parametrize("verb", MODEL_VERBS)
@pytest.mark.parametrize("name", OLD_IDS)
def test_old_model_ids_work_with_all_verbs(name: str, verb: Any):
    model_id, keys = OLD_IDS[name]
    with DialectServer(DIALECTS[name], answers("我是一个语言模型。")) as server:
        with load_from_model_id(model_id, base_url=server.url, **keys) as model:
            reply = verb(model, "你好，你是谁？请介绍一下你自己", temperature=0)
        assert (model.model_id, reply.model_id, reply.reply) == (model_id, model_id, "我是一个语言模型。")
        assert repr(model).endswith(f"({model_id!r})")


@pytest.mark.parametrize("verb", MODEL_VERBS)
@pytest.mark.parametrize("name", DIALECTS)
def test_every_api_accepts_temperature_zero_in_all_verbs(name: str, verb: Any):
    with DialectServer(DIALECTS[name], answers("你好！")) as server:
        reply = verb(server.model(), "你好", temperature=0)
        assert (reply.reply, reply.finish_reason, reply.attempts) == ("你好！", "stop", 1)
        assert reply.usage is not None or name == "openai-functions"


WITHOUT_MAX_TOKENS = {"baichuan", "hunyuan-tc3", "hunyuan-v1", "zhipu-v3", "zhipu-character"}
"""APIs without this parameter, as their pages say."""


@pytest.mark.parametrize("name", DIALECTS)
def test_max_tokens_is_sent_or_is_a_parameter_error(name: str):
    with DialectServer(DIALECTS[name], answers("你好！")) as server:
        model = server.model()
        if name in WITHOUT_MAX_TOKENS:
            with pytest.raises(ParameterError, match="max_tokens"):
                model.chat_completion("你好", max_tokens=100)
            return
        model.chat_completion("你好", max_tokens=100)
        assert "100" in server.requests[-1].body.decode()


@pytest.mark.parametrize("name", DIALECTS)
def test_error_for_a_value_out_of_range_names_the_field_and_the_range(name: str):
    with pytest.raises(ParameterError, match=r"temperature=-1.*at least 0 and at most [12]"):
        DIALECTS[name].model().chat_completion("你好", temperature=-1)


@pytest.mark.parametrize("verb", AGENT_VERBS)
@pytest.mark.parametrize("name", DIALECTS)
def test_every_api_runs_a_tool_in_all_verbs(name: str, verb: Any):
    with DialectServer(DIALECTS[name], calls_then(CALL)) as server:
        result = verb(Agent(server.model(), tools=[get_weather]), "今天北京天气怎么样？", temperature=0)
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("get_weather", '{"city":"北京"}')]
    assert "北京天气晴朗, 气温20度" in result.reply
    assert (result.rounds, result.requests) == (2, 2)


@pytest.mark.parametrize("verb", ENGINE_VERBS)
@pytest.mark.parametrize("name", OLD_IDS)
def test_every_old_api_continues_a_conversation(name: str, verb: Any):
    with DialectServer(DIALECTS[name], calls_then(CALL)) as server:
        bot = ChatEngine(server.model(), functions=[get_weather], print_message=False)
        verb(bot, "今天北京天气怎么样？")
        verb(bot, "再问一次。")
        assert [message.role for message in bot.history] == ["user", "assistant", "tool", "assistant"] * 2


@pytest.mark.parametrize("fault", ["limited", "broken"])
@pytest.mark.parametrize("verb", AGENT_VERBS)
@pytest.mark.parametrize("name", DIALECTS)
def test_temporary_failure_is_retried(name: str, verb: Any, fault: str):
    with DialectServer(DIALECTS[name], calls_then(CALL), faults=[fault]) as server:
        result = verb(Agent(server.model(), tools=[get_weather]), "今天北京天气怎么样？")
        assert "晴朗" in result.reply
        assert (len(server.asked), server.faults) == (2, [])
        assert result.requests == 3


@pytest.mark.parametrize("verb", AGENT_VERBS)
def test_expired_token_is_renewed(verb: Any):
    def brain(asked: Asked) -> Said:
        if not asked.results:
            server.faults.append("expired")  # between the tool call and its result
        return calls_then(CALL)(asked)

    with DialectServer(DIALECTS["wenxin"], brain) as server:
        model = server.model()
        for tokens in (2, 3):  # one code is 110, the other 111
            result = verb(Agent(model, tools=[get_weather]), "今天北京天气怎么样？")
            assert "晴朗" in result.reply
            assert server.tokens == tokens
        used = [request.target.rpartition("=")[2] for request in server.requests if "chat" in request.path]
        assert used == ["24.fake-1", "24.fake-1", "24.fake-2", "24.fake-2", "24.fake-2", "24.fake-3"]


def test_old_models_answer_after_failures_and_an_expired_token(capsys: pytest.CaptureFixture[str]):
    with ExitStack() as stack:
        models: list[ChatModel] = []
        for name, (model_id, keys) in OLD_IDS.items():
            faults = ["limited", "broken"] if name != "wenxin" else ["limited", "expired"]
            server = stack.enter_context(DialectServer(DIALECTS[name], answers("我是助理。"), faults))
            options = {**keys, "base_url": server.url, "max_retries": QUICK}
            models.append(stack.enter_context(load_from_model_id(model_id, **options)))
        for model in models:
            print(f"{model.model_id}: {complete(model, '你好', temperature=0).reply}")
    assert capsys.readouterr().out.splitlines() == [f"{model_id}: 我是助理。" for model_id, _ in OLD_IDS.values()]
