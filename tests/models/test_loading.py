"""From a model id to a model, and which model is the default."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from lmagent import ChatModel, LocalChat, OpenAIChat, OpenAICompatibleChat, load_from_model_id, register_provider
from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError
from lmagent.models import loading as loading_module
from lmagent.models.loading import (
    configured,
    default_model_id,
    find_secret,
    find_setting,
    provider_table,
    require_secret,
    require_setting,
)
from lmagent.providers.openai.chat import Profile
from lmagent.testing import ScriptedModel

ALL = provider_table()
SECOND_NEEDS = {
    "minimax": ("MINIMAX_GROUP_ID",),
    "wenxin": ("WENXIN_SECRET_KEY",),
    "hunyuan": ("HUNYUAN_APP_ID", "HUNYUAN_SECRET_ID", "HUNYUAN_SECRET_KEY"),
    "baichuan": ("BAICHUAN_SECRET_KEY",),
}
"""What the oldest APIs want beside a key."""

SETTINGS = {
    "OPENAI_COMPATIBLE_BASE_URL": "https://example.com/v1",
    "AZURE_OPENAI_ENDPOINT": "https://example.openai.azure.com",
    "MINIMAX_GROUP_ID": "123",
    "HUNYUAN_API_KEY": "k-123456",
}
OLD_IDS = (
    "minimax/abab5.5-chat",
    "minimax_pro/abab5.5-chat",
    "openai/gpt-3.5-turbo",
    "wenxin/ERNIE-Bot",
    "zhipu/chatglm_turbo",
    "zhipu-character/characterglm",
    "hunyuan/v1",
    "baichuan/Baichuan2-53B",
)


def _with_keys(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    for group in ALL[prefix].keys:
        monkeypatch.setenv(group[0], SETTINGS.get(group[0], "id1234.secret5678"))


@pytest.mark.parametrize("prefix", ALL)
def test_every_provider_of_the_table_can_be_loaded(prefix: str, monkeypatch: pytest.MonkeyPatch):
    _with_keys(monkeypatch, prefix)
    model = load_from_model_id(f"{prefix}/some-model")
    assert isinstance(model, ChatModel)
    assert model.model_id.endswith("some-model")
    model.close()


@pytest.mark.parametrize("model_id", OLD_IDS)
def test_the_ids_of_lmclient_are_accepted(model_id: str, monkeypatch: pytest.MonkeyPatch):
    prefix = model_id.partition("/")[0]
    _with_keys(monkeypatch, prefix)
    for name in SECOND_NEEDS.get(prefix, ()):
        monkeypatch.setenv(name, "1234567890")
    assert load_from_model_id(model_id).model_id == model_id


@pytest.mark.parametrize("prefix", [prefix for prefix in ALL if ALL[prefix].keys])
def test_without_keys_a_provider_says_what_is_missing(prefix: str):
    with pytest.raises(ConfigurationError) as caught:
        load_from_model_id(f"{prefix}/some-model")
    names = [name for group in ALL[prefix].keys for name in group]
    assert any(name in str(caught.value) for name in names), str(caught.value)


def test_a_name_with_slashes_is_kept_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k-123456")
    assert load_from_model_id("openai/org/model:tag").model_id == "openai/org/model:tag"


def test_options_reach_the_model():
    model = load_from_model_id("openai/m", api_key="k-123456", base_url="http://127.0.0.1:9/v1", tool_mode="prompt")
    assert isinstance(model, OpenAIChat)
    assert type(model.codec).__name__ == "Prompted"


def test_an_unknown_provider_lists_the_known_ones():
    with pytest.raises(
        ConfigurationError, match=r"No provider 'nobody' \(model id 'nobody/x'\)\. A model id is.*anthropic"
    ):
        load_from_model_id("nobody/x")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("OpenAI/gpt-4o", "openai/gpt-4o"),
        ("llama.cpp/x", "llamacpp/x"),
        ("deepsek", "deepseek"),
        ("Zhipu/a/b", "zhipu/a/b"),
    ],
)
def test_a_misspelt_provider_is_named_with_the_closest_one(written: str, meant: str):
    with pytest.raises(ConfigurationError, match=f"Did you mean '{meant}'"):
        load_from_model_id(written)


def test_the_default_is_the_environments_then_the_first_key_then_local(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading_module, "find_spec", lambda name: object())
    assert default_model_id() == "local"
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k-123456")
    assert default_model_id() == "deepseek"
    monkeypatch.setenv("OPENAI_API_KEY", "k-123456")
    assert default_model_id() == "openai"
    assert isinstance(load_from_model_id(), OpenAIChat)
    monkeypatch.setenv("LMAGENT_MODEL", "local/")
    assert isinstance(load_from_model_id(), LocalChat)


def test_nothing_to_choose_from_lists_what_was_looked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"No model to use.*LMAGENT_MODEL.*ANTHROPIC_API_KEY"):
        load_from_model_id()


def test_a_provider_with_two_needs_is_configured_when_both_are_there(monkeypatch: pytest.MonkeyPatch):
    entry = ALL["minimax_pro"]
    monkeypatch.setenv("MINIMAX_API_KEY", "k-123456")
    assert not configured(entry)
    monkeypatch.setenv("MINIMAX_GROUP_ID", "123")
    assert configured(entry)
    monkeypatch.setenv("MINIMAX_API_KEY", "  ")
    assert not configured(entry)


def test_own_providers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading_module, "_TABLE", provider_table())

    def home(name: str = "default", **options: Any) -> ChatModel:
        return ScriptedModel([name], **options)

    register_provider("acme", home, keys=(("ACME_API_KEY",),), title="Acme")
    assert load_from_model_id("acme/one").chat_completion("?").reply == "one"
    assert load_from_model_id("acme").chat_completion("?").reply == "default"
    assert provider_table()["acme"].title == "Acme"
    for prefix, message in (("acme", "registered already"), ("openai", "registered already"), ("", "one word")):
        with pytest.raises(ConfigurationError, match=message):
            register_provider(prefix, home)
    with pytest.raises(ConfigurationError, match="one word"):
        register_provider("a/b", home)


def test_the_table_handed_out_is_a_copy():
    provider_table().clear()
    assert provider_table()


def test_every_model_class_says_what_it_takes():
    for entry in ALL.values():
        module, _, name = str(entry.home).partition(":")
        kind = getattr(__import__(module, fromlist=[name]), name)
        assert "Args:" in (inspect.getdoc(kind) or ""), name


def test_a_key_without_variables_is_asked_for_without_them():
    acme = Profile(provider="acme", base_url="https://api.acme.example/v1")
    with pytest.raises(ConfigurationError, match=r"No API key for 'acme': pass api_key=\.\.\.; `lmagent doctor`"):
        OpenAICompatibleChat("m", vendor=acme)


def test_credentials(monkeypatch: pytest.MonkeyPatch):
    names = ("FIRST_X", "SECOND_X")
    assert find_setting(None, names) is None
    assert find_setting(None, names, "default") == "default"
    assert find_setting("", names) == ""
    monkeypatch.setenv("SECOND_X", " value-123 ")
    assert find_setting(None, names, "default") == "value-123"
    assert find_setting("given", names) == "given"
    secret = find_secret(None, names)
    assert secret == Secret("value-123")
    assert "value-123" not in repr(secret)
    assert find_secret(Secret("own-secret"), names) == Secret("own-secret")
    monkeypatch.setenv("FIRST_X", "first-123")
    assert require_secret("x", None, names).reveal() == "first-123"
    assert require_setting("x", "endpoint", "endpoint", None, names) == "first-123"
    monkeypatch.delenv("FIRST_X")
    monkeypatch.delenv("SECOND_X")
    with pytest.raises(
        ConfigurationError, match=r"No endpoint for 'x': pass endpoint=\.\.\. or set FIRST_X or SECOND_X"
    ):
        require_setting("x", "endpoint", "endpoint", None, names)
    with pytest.raises(ConfigurationError, match="No API key for 'x'"):
        require_secret("x", " ", names)
