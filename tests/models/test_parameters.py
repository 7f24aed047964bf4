"""Checked parameters: ranges named, unknown names refused, defaults and calls merged, None unsets."""

from __future__ import annotations

from typing import Any

import pytest

from lmagent import ChatParameters, LocalChatParameters, MinimaxChatParameters, OpenAIChat, OpenAIChatParameters
from lmagent.errors import ConfigurationError, ParameterError
from lmagent.testing import FakeAnswer, FakeTransport, ScriptedModel

WRONG = {
    "temperature": (-1, "temperature=-1: .*greater than or equal to 0.*temperature is at least 0.* at most 2"),
    "top_p": (1.5, "top_p=1.5: .*at most 1"),
    "top_k": (-1, "top_k=-1: .*at least 0"),
    "max_tokens": (0, "max_tokens=0: .*at least 1"),
    "presence_penalty": (-2.5, "presence_penalty=-2.5: .*at least -2"),
    "frequency_penalty": (3, "frequency_penalty=3: .*at most 2"),
    "reasoning_effort": ("huge", "reasoning_effort='huge'"),
    "stop": (5, "stop=5"),
    "temperature ": (0.5, "no parameter of ChatParameters"),
    "wizardry": (1, "wizardry is no parameter of ChatParameters; it takes .*'temperature'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_parameter_is_an_error_that_names_field_and_range(name: str):
    value, message = WRONG[name]
    with pytest.raises(ParameterError, match=message) as caught:
        ChatParameters(**{name: value})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ConfigurationError)
    with pytest.raises(ParameterError):
        ScriptedModel([], parameters={name: value})
    with pytest.raises(ParameterError):
        ScriptedModel([]).chat_completion("?", **{name: value})


def test_several_wrong_parameters_are_reported_together():
    with pytest.raises(ParameterError, match=r"temperature=-1.*top_p=2"):
        ChatParameters(temperature=-1, top_p=2)


def _bodies(**options: Any) -> tuple[OpenAIChat, list[dict[str, Any]]]:
    import json

    sent: list[dict[str, Any]] = []

    def answer(request: Any) -> FakeAnswer:
        sent.append(json.loads(request.content))
        return FakeAnswer(
            body=b'{"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}'
        )

    return OpenAIChat("m", api_key="k", transport=FakeTransport(answer), **options), sent


def test_defaults_then_the_call_and_none_unsets():
    model, sent = _bodies(parameters=OpenAIChatParameters(temperature=0, top_p=0.5))
    model.chat_completion("?")
    model.chat_completion("?", temperature=1)
    model.chat_completion("?", temperature=None, seed=0)
    model.chat_completion("?", parameters=OpenAIChatParameters(top_p=0.9))
    model.chat_completion("?", parameters={"top_p": 0.8}, temperature=0.2)
    shown = [{key: body[key] for key in ("temperature", "top_p", "seed") if key in body} for body in sent]
    assert shown == [
        {"temperature": 0, "top_p": 0.5},
        {"temperature": 1, "top_p": 0.5},
        {"top_p": 0.5, "seed": 0},
        {"temperature": 0, "top_p": 0.9},
        {"temperature": 0.2, "top_p": 0.8},
    ]
    assert model.parameters == {"temperature": 0, "top_p": 0.5}


def test_temperature_zero_and_max_tokens_are_sent():
    model, sent = _bodies()
    model.chat_completion("?", temperature=0, max_tokens=7)
    assert sent[0]["temperature"] == 0
    assert 7 in sent[0].values()


def test_one_stop_text_is_a_list_of_one():
    assert ChatParameters(stop="END").given() == {"stop": ["END"]}


def test_an_object_of_another_provider_is_refused():
    with pytest.raises(ParameterError, match="OpenAIChat takes OpenAIChatParameters, not MinimaxChatParameters"):
        OpenAIChat("m", api_key="k", parameters=MinimaxChatParameters(temperature=0.5))
    with pytest.raises(ParameterError, match="not LocalChatParameters"):
        _bodies()[0].chat_completion("?", parameters=LocalChatParameters(min_p=0.1))


def test_the_neutral_object_fits_every_model():
    model, sent = _bodies(parameters=ChatParameters(temperature=0.5))
    model.chat_completion("?", logprobs=True)
    assert (sent[0]["temperature"], sent[0]["logprobs"]) == (0.5, True)


def test_extra_body_and_extra_headers_go_out_as_they_are():
    model, sent = _bodies()
    model.chat_completion("?", extra_body={"chat_template_kwargs": {"x": 1}}, extra_headers={"x-test": "1"})
    assert sent[0]["chat_template_kwargs"] == {"x": 1}
    transport: Any = model.exchange.transport
    assert transport.requests[0].headers["x-test"] == "1"


def test_parameters_are_values():
    given = ChatParameters(temperature=0.5)
    assert given == ChatParameters(temperature=0.5)
    with pytest.raises(Exception, match="frozen"):
        given.temperature = 1  # type: ignore[misc]
