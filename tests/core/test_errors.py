from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from lmagent import errors
from lmagent.core.redaction import Secret
from lmagent.errors import (
    InvalidArguments,
    LimitExceeded,
    LMAgentError,
    OutputError,
    ProviderError,
    RateLimited,
    RequestTimeout,
    StreamInterrupted,
    ToolError,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LMAgentError)]


def test_every_error_is_exported_and_in_the_tree():
    assert {kind.__name__ for kind in CLASSES} == set(errors.__all__)
    for kind in CLASSES:
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_pickle_and_copy(kind):
    error = kind("it failed")
    error.add_note("a note")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert twin.__dict__ == error.__dict__
        assert twin.to_dict() == error.to_dict()


def test_facts_survive_a_pickle():
    error = RequestTimeout("slow", which="connect", provider="p", model="m", status=408, retry_after=1.5, attempts=3)
    twin = pickle.loads(pickle.dumps(error))
    assert twin.to_dict() == {
        "type": "RequestTimeout",
        "message": "slow",
        "provider": "p",
        "model": "m",
        "status": 408,
        "retry_after": 1.5,
        "attempts": 3,
        "retryable": True,
        "which": "connect",
    }
    assert str(twin) == "p/m: slow (status 408, 3 attempts)"


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (errors.ParameterError, ValueError),
        (errors.MessageError, ValueError),
        (errors.FunctionDefinitionError, TypeError),
        (errors.ConnectionFailed, ConnectionError),
        (errors.RequestTimeout, TimeoutError),
    ],
)
def test_errors_have_the_documented_second_base(kind, also):
    with pytest.raises(also):
        raise kind("x")


def test_messages_are_shortened_and_redacted():
    key = Secret("sk-canary-errors-0006").reveal()
    error = ProviderError(f"{key} " + "x" * 10_000, code=key, request_id=key, body={"echo": [key]})
    assert len(error.message) == 500
    assert key not in repr(error) + str(error) + repr(error.to_dict()) + repr(error.body) + repr(error.args)
    assert key not in pickle.dumps(error).decode("latin-1")


def test_the_text_of_a_tool_error_is_redacted_but_not_shortened():
    key = Secret("sk-canary-errors-0007").reveal()
    assert len(ToolError("x" * 2000).message) == 2000
    assert key not in ToolError(key).message


def test_retryable_defaults_to_the_rule_of_the_class():
    assert RateLimited("x").retryable
    assert not RateLimited("x", retryable=False).retryable
    assert not errors.QuotaExceeded("x").retryable
    assert not StreamInterrupted("x").retryable


def test_errors_have_the_documented_attributes():
    assert InvalidArguments("x", problems=["a", "b"]).problems == ("a", "b")
    assert OutputError("x", problems=["a"], run=1).run == 1
    assert LimitExceeded("x", limit="rounds", value=3).to_dict() == {
        "type": "LimitExceeded",
        "message": "x",
        "limit": "rounds",
        "value": 3,
    }
    assert StreamInterrupted("x", partial="so far").partial == "so far"
