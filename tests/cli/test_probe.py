"""`lmagent probe`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from lmagent.cli.app import app
from tests.loopback import LoopbackServer
from tests.observe.test_probing import Server


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Any:
    with LoopbackServer(Server(formats=("json",))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
        yield server


def test_a_report_for_people(address: LoopbackServer):
    done = CliRunner().invoke(app, ["probe", "openai/m"])
    assert done.exit_code == 0, done.output
    assert "Use tool_mode='native'" in done.stdout
    assert "small requests, at most 512 output tokens each" in done.stderr


def test_a_report_for_programs(address: LoopbackServer):
    done = CliRunner().invoke(app, ["probe", "openai/m", "--json"])
    assert json.loads(done.stdout)["tool_mode"] == "native"


def test_the_plan_asks_nothing(address: LoopbackServer):
    done = CliRunner().invoke(app, ["probe", "openai/m", "--plan"])
    assert "native parallel: two calls" in done.stdout
    assert address.requests == []
