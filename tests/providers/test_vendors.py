"""The vendor table: every row loads what it says, and no fact about a provider stands twice."""

from __future__ import annotations

import ast
import inspect
import re
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import lmagent
from lmagent import ChatModel, load_from_model_id
from lmagent.cli.info import sample_model
from lmagent.http.local import EMBEDDED
from lmagent.models.loading import provider_table
from lmagent.providers.base import Codec
from lmagent.providers.openai.chat import OpenAICodec
from lmagent.providers.openai.profile import Profile
from lmagent.providers.vendors import VENDORS, ProviderAPI, ProviderEntry

ROOT = Path(lmagent.__file__).parent
APIS = [(entry, api) for entry in VENDORS.values() for api in entry.apis]
IDS = [f"{entry.prefix} {api.name}".strip() for entry, api in APIS]

WORD = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
"""What a name of an environment variable looks like."""


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _codec(model: ChatModel) -> Any:
    codec: Codec = model.codec
    return getattr(codec, "inner", codec)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in VENDORS.values():
        for name in entry.variables:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("entry", "api"), APIS, ids=IDS)
def test_each_api_loads_the_class_and_the_codec_of_its_row(entry: ProviderEntry, api: ProviderAPI) -> None:
    model = sample_model(entry, api)
    assert isinstance(entry.home, str)
    assert type(model) is _load(entry.home)
    codec = _codec(model)
    assert codec.provider == entry.prefix
    assert codec.model == (api.model or api.example or EMBEDDED)
    if api.address:
        assert codec.base_url.startswith(api.address)
        assert codec.base_url.removeprefix(api.address) in ("", "/v1")
    if api.profile:
        profile: Profile = _load(api.profile)
        assert isinstance(codec, OpenAICodec)
        assert codec.profile is profile
        assert profile.provider == entry.prefix


@pytest.mark.parametrize(("entry", "api"), APIS, ids=IDS)
def test_the_name_of_a_usual_model_chooses_its_api(entry: ProviderEntry, api: ProviderAPI) -> None:
    """`zhipu/chatglm_turbo` is on v3 by its name; only APIs with the same model need the argument `api`."""
    sharing = [other for other in entry.apis if other.model == api.model]
    if not api.model or sharing[0] is not api:
        return
    given = {name: value for name, value in _settings(api).items() if name != "api"}
    assert type(_codec(load_from_model_id(f"{entry.prefix}/{api.model}", **given))) is type(
        _codec(sample_model(entry, api))
    )


@pytest.mark.parametrize("prefix", [prefix for prefix, entry in VENDORS.items() if entry.default_model])
def test_without_a_model_name_the_first_api_and_its_model_are_used(prefix: str) -> None:
    entry = VENDORS[prefix]
    model = load_from_model_id(prefix, **_settings(entry.api()))
    assert model.model_id == f"{prefix}/{entry.default_model}"
    assert type(_codec(model)) is type(_codec(sample_model(entry, entry.api())))


def _settings(api: ProviderAPI) -> dict[str, Any]:
    return {name: 1 if name == "app_id" else "placeholder.placeholder" for name in api.needs}


def test_the_public_table_is_the_vendor_table() -> None:
    assert provider_table() == VENDORS
    assert list(provider_table()) == list(VENDORS)


@pytest.mark.parametrize("entry", VENDORS.values(), ids=VENDORS)
def test_the_date_of_the_last_check_is_a_day_in_the_past(entry: ProviderEntry) -> None:
    assert date(2026, 1, 1) <= date.fromisoformat(entry.checked) <= date.today()


@pytest.mark.parametrize("entry", VENDORS.values(), ids=VENDORS)
def test_keys_and_settings_together_are_the_variables_of_the_row(entry: ProviderEntry) -> None:
    assert set(entry.variables) == {name for names in entry.env.values() for name in names}
    assert all(WORD.fullmatch(name) for name in entry.variables)


def test_an_api_that_the_row_lacks_is_a_key_error() -> None:
    assert VENDORS["zhipu"].api() is VENDORS["zhipu"].api("v4")
    assert VENDORS["zhipu"].api("v3").model == "chatglm_turbo"
    with pytest.raises(KeyError, match="v9"):
        VENDORS["zhipu"].api("v9")


def _own_classes() -> list[tuple[type[ChatModel], ProviderEntry]]:
    return [(_load(str(entry.home)), entry) for entry in VENDORS.values() if not entry.options]


@pytest.mark.parametrize(("kind", "entry"), _own_classes(), ids=lambda value: getattr(value, "prefix", ""))
def test_each_model_class_documents_the_variables_of_its_row(kind: type[ChatModel], entry: ProviderEntry) -> None:
    text = inspect.getdoc(kind) or ""
    pointed = re.findall(r"As in `(\w+)`", text)
    text += "".join(inspect.getdoc(getattr(lmagent, name)) or "" for name in pointed)
    assert set(entry.variables) <= set(WORD.findall(text))


@pytest.mark.parametrize(("kind", "entry"), _own_classes(), ids=lambda value: getattr(value, "prefix", ""))
def test_each_model_class_reads_every_setting_of_its_row(kind: type[ChatModel], entry: ProviderEntry) -> None:
    source = inspect.getsource(import_module(kind.__module__))
    assert set(entry.env) <= set(re.findall(r'"(\w+)"', source))


def _strings(path: Path) -> list[str]:
    """Return the string constants of a module, without its docstrings and the names of `__all__`."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            skipped |= {id(item) for item in ast.walk(node.value)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
    ]


def test_no_environment_name_stands_in_two_modules() -> None:
    known = {name for entry in VENDORS.values() for name in entry.variables}
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for text in _strings(path):
            # Outside the table a name counts alone; a name of the table counts in the middle of a message as well.
            names = {text} if WORD.fullmatch(text) else set(WORD.findall(text)) & known
            for name in names:
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}
    assert {name for name in known if found.get(name) != {"providers/vendors.py"}} == set()
