from __future__ import annotations

import base64
import copy
import io
import logging
import pickle
import subprocess
import sys
import time
from urllib.parse import quote

import pytest

from lmagent.core.redaction import Secret, SecretFilter, library_logger, mask, redact, redact_value


@pytest.mark.parametrize(
    ("value", "shown"),
    [("sk-abcdefghijkl1234", "sk-…1234"), ("abcdefghijkl1234", "…1234"), ("short", "…"), ("", "…")],
)
def test_mask_shows_only_the_start_and_end_of_long_keys(value, shown):
    assert mask(value) == shown


def test_a_secret_is_shown_only_as_its_mask():
    key = "sk-canary/+redaction=0001"
    secret = Secret(key)
    shown = f"{secret} {secret!r} {secret!s} {[secret]} {pickle.loads(pickle.dumps(secret)).reveal()}"
    assert key not in shown
    assert secret.reveal() == key
    assert bool(secret)
    assert not Secret("")
    assert secret == Secret(key) != Secret("other")


def test_a_copied_secret_keeps_its_value():
    secret = Secret("sk-canary-redaction-0002")
    assert copy.deepcopy([secret])[0].reveal() == secret.reveal()
    assert copy.copy(secret).reveal() == secret.reveal()


def test_every_encoding_of_a_known_secret_is_redacted():
    key = "canary/key+with=odd&signs-0003"
    Secret(key)
    for spelling in (key, quote(key, safe=""), base64.b64encode(key.encode()).decode(), f"Bearer {key}"):
        assert spelling.rstrip("=") not in redact(f"<< {spelling} >>")


@pytest.mark.parametrize("user", ["", "u", "us", "use", "名"])
def test_base64_of_user_and_secret_is_redacted(user):
    key = "sk-canary/+~key-0123456789"
    Secret(key)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(f"{user}:{key}".encode()).decode()
        shown = redact(f"Basic {encoded} failed")
        assert shown.startswith("Basic ")
        assert shown.endswith(" failed")
        assert len(shown) < len(f"Basic {encoded} failed") - 20


def test_of_two_secrets_with_the_same_beginning_nothing_remains():
    Secret("canary-abc")
    Secret("canary-abc-and-the-rest")
    assert "rest" not in redact("x canary-abc-and-the-rest y")[:-6]
    assert "-and-the" not in redact("x canary-abc-and-the-rest y")


@pytest.mark.parametrize(
    "text",
    [
        "https://host/v1?access_token=hush12345&x=1",
        "https://host/v1?a=b&key=hush12345",
        "https://host/v1?sign=hush12345",
        "api_key=hush12345",
        'x = {"api_key": "hush12345"}',
        "password: hush12345",
        "Authorization: Bearer hush12345",
        "{'x-api-key': 'hush12345'}",
        "sent Bearer hush12345.abc",
    ],
)
def test_values_with_secret_names_are_redacted(text):
    assert "hush12345" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "Unexpected token: identifier",
        "KeyError: missing key: 'city'",
        "max_tokens=4096 is above 2048",
        "the token limit: 128000",
        "a sign: closed",
        "?page=2&city=Shanghai",
    ],
)
def test_ordinary_words_are_not_redacted(text):
    assert redact(text) == text


def test_a_key_with_special_characters_is_redacted_in_every_encoding():
    key = Secret("canary+a/b=0006").reveal()
    slashed = key.replace("/", "\\/")
    for spelling in (key, quote(key), quote(key, safe=""), slashed, base64.b64encode(key.encode()).decode()):
        assert redact(f"<{spelling}>") == "<…0006>", spelling


def test_values_inside_json_are_redacted():
    Secret("canary-json-value-0004")
    value = {"error": ["bad canary-json-value-0004", 1, None, {"canary-json-value-0004": True}]}
    assert "canary-json-value-0004" not in repr(redact_value(value))
    assert redact_value(3) == 3


def test_redaction_takes_linear_time():
    for piece in ("api_key", "api_key ", "bearer ", "?key=", "authorization:" + " " * 50):
        begun = time.perf_counter()
        redact(piece * 20_000)
        assert time.perf_counter() - begun < 1


def test_the_log_filter_redacts_message_arguments_and_traceback(caplog):
    key = Secret("canary-logging-0005").reveal()
    logger = library_logger("test")
    assert logger.name == "lmagent.test"
    assert library_logger("test") is logger
    assert sum(isinstance(each, SecretFilter) for each in logger.filters) == 1
    with caplog.at_level(logging.DEBUG):
        logger.info("key %s", key)
        try:
            raise ValueError(key)
        except ValueError:
            logger.exception("failed", stack_info=True)
    assert "failed" in caplog.text
    assert key not in caplog.text


def test_the_log_filter_is_accepted_by_loggers_and_handlers_and_redacts_the_stack():
    Secret("sk-filter-0123456789")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(SecretFilter())
    logger = logging.getLogger("test.secret_filter")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        logger.warning("key %s", "sk-filter-0123456789", stack_info=True)  # stack: sk-filter-0123456789
    finally:
        logger.removeHandler(handler)
    assert "sk-filter-0123456789" not in written.getvalue()
    assert written.getvalue().startswith("key sk-…6789\nStack")


def test_redaction_does_not_import_logging_before_the_first_record():
    code = (
        "import sys\nfrom lmagent.core.redaction import SecretFilter, library_logger\n"
        "assert 'logging' not in sys.modules\n"
        "logger = library_logger('x')\n"
        "assert any(isinstance(each, SecretFilter) for each in logger.filters)\n"
        "assert library_logger('x').filters == logger.filters\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
