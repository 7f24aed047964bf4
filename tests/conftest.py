"""Fixtures of all tests: requests to other machines are blocked, and API keys of the developer are hidden."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lmagent.testing import block_requests
from lmagent.toolkit.sources import ready_made_names

ready_made_names()  # makes `lmagent.tools` importable in a bare checkout, too

_SECRET_WORDS = ("API_KEY", "SECRET", "ACCESS_KEY", "_TOKEN", "_SK", "_AK", "LMAGENT_")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if any(word in name for word in _SECRET_WORDS) or name.endswith(("_BASE_URL", "_PROXY", "_proxy")):
            monkeypatch.delenv(name)
    with block_requests():
        yield
