"""Pages on providers: their tables equal the vendor table, every provider has a page, every example runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import lmagent.models.loading
from lmagent import Agent, OpenAICompatibleChat, function, load_from_model_id
from lmagent.asking.exchange import Exchange
from lmagent.core.messages import AssistantMessage, Reply
from lmagent.errors import ParameterError
from lmagent.models.loading import provider_table
from tests.dialect_servers import VENDORS, DialectServer, as_text, calls_then, prompted
from tests.dialects import Asked, Turn
from tests.four_ways import MODEL_VERBS
from tests.loopback import LoopbackServer, Received, json_answer, sse_answer
from tests.provider_tables import INDEX, PAGES, ROOT, environment, rendered

ADDING = (ROOT / "docs" / "adding-a-provider.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "<docs>", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmagent.models.loading, "_TABLE", provider_table())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_equal_the_vendor_table(page: Path):
    text = page.read_text(encoding="utf-8")
    assert text == rendered(text), "refresh with: python -m tests.provider_tables"


def test_every_provider_has_a_page():
    shown = INDEX.read_text(encoding="utf-8").partition("## What works where")[0]
    assert set(provider_table()) - {"local"} <= set(re.findall(r"`([a-z_-]+)`", shown))
    for page in PAGES:
        assert page.name == "index.md" or f"({page.name})" in shown
        assert f"providers/{page.name}" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_every_vendor_has_a_section():
    page = (ROOT / "docs" / "providers" / "compatible.md").read_text(encoding="utf-8")
    for prefix, entry in provider_table().items():
        if prefix in VENDORS:
            section = page.partition(f"\n## {entry.title}\n")[2].partition("\n## ")[0]
            assert section.startswith("\n**Key**: "), prefix
            assert all(f"`{name}`" in section for group in entry.keys for name in group), prefix


def test_every_variable_on_a_page_is_in_the_vendor_table():
    known = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", environment()))
    for page in PAGES:
        names = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`", page.read_text(encoding="utf-8")))
        assert names <= known, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_on_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def ask(self: Exchange, call: Any) -> Reply:
        assert self.codec.build_request(call).content
        return Reply(message=AssistantMessage("你好！"))

    monkeypatch.setattr(Exchange, "ask", ask)
    examples = blocks(page.read_text(encoding="utf-8"))
    assert examples
    for example in examples:
        run(example)
    assert "你好！" in capsys.readouterr().out


@function
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_documented_profile_works_with_tools():
    code = blocks(ADDING)[0]
    statements = [line for line in code.splitlines() if line and not line.startswith("from")]
    assert len(statements) <= 10
    run(code)
    with DialectServer(VENDORS["compatible"], calls_then(("add", {"a": 1, "b": 2}))) as server:
        with load_from_model_id("acme/rocket-1", api_key="fake-key", base_url=server.url) as model:
            assert model.model_id == "acme/rocket-1"
            assert Agent(model, tools=[add]).run("1 + 2?").reply == "结果: 3"


def test_documented_profile_sends_its_own_parameters():
    acme = run(blocks(ADDING)[1])["STRICT_ACME"]
    reply = {"choices": [{"message": {"content": "hi"}, "finish_reason": "finished"}]}
    with LoopbackServer(json_answer(reply)) as server:
        with OpenAICompatibleChat("rocket-1", vendor=acme, base_url=server.url) as model:
            assert model.chat_completion("?", seed=7).finish_reason == "stop"
            with pytest.raises(ParameterError, match="strict-acme: temperature must be from 0 to 1"):
                model.chat_completion("?", temperature=2)
        assert server.requests[0].json["random_seed"] == 7


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_documented_codec_works_with_all_verbs(verb: Any):
    run(blocks(ADDING)[2])
    brain = calls_then(("add", {"a": 1, "b": 2}))

    def respond(request: Received) -> Any:
        assert request.headers["authorization"] == "Bearer fake-key"
        body = request.json
        turns = tuple(Turn(said["who"], said["text"]) for said in body["said"])
        said = _server_says(brain, Asked(turns, (), body["stream"], body))
        if not body["stream"]:
            return json_answer({"text": said})
        return sse_answer(*({"text": char} for char in said), {"end": True})

    with LoopbackServer(respond) as server:
        with load_from_model_id("echo/parrot", api_key="fake-key", base_url=server.url) as model:
            assert verb(model, "hi", temperature=0).reply == "No tools here."
            assert server.requests[-1].json["heat"] == 0
            assert Agent(model, tools=[add]).run("1 + 2?").reply == "结果: 3"


def _server_says(brain: Any, asked: Asked) -> str:
    understood = prompted(asked)
    said = brain(understood)
    return as_text(said, asked).text if understood is not asked else said.text
