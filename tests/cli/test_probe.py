"""`lmagent probe`: report as text and as JSON, and `--plan`."""

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


def test_report_as_text(address: LoopbackServer):
    done = CliRunner().invoke(app, ["probe", "openai/m"])
    assert done.exit_code == 0, done.output
    assert "Use tool_mode='native'" in done.stdout
    assert "small requests, at most 512 output tokens each" in done.stderr


def test_report_as_json(address: LoopbackServer):
    done = CliRunner().invoke(app, ["probe", "openai/m", "--json"])
    assert json.loads(done.stdout)["tool_mode"] == "native"


def test_plan_sends_no_request(address: LoopbackServer):
    done = CliRunner().invoke(app, ["probe", "openai/m", "--plan"])
    assert "native parallel: two calls" in done.stdout
    assert address.requests == []
