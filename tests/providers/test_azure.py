"""Azure OpenAI against recordings of the official SDK: both addresses, both kinds of key, the content filter."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from lmagent.core.json_text import loads
from lmagent.core.messages import UserMessage
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ContentFiltered,
    NotFound,
    ParameterError,
    ProviderError,
    RateLimited,
)
from lmagent.providers.base import Auth, BearerAuth, ChatCall, HeaderAuth
from lmagent.providers.openai.chat import AZURE, AzureCodec, EntraAuth
from tests.providers.wire import (
    assert_body,
    assert_cuts_do_not_matter,
    assert_headers,
    assert_reply,
    call_of,
    load,
    names,
    read_stream,
    signed,
)

HOST = "https://RESOURCE.openai.azure.com"
RESPONSES = {"12-v1-responses", "13-responses-dated"}
"""Another API: its codec's tests read these."""
CHAT = [name for name in names("azure") if name not in RESPONSES]
ASK = (UserMessage("hi"),)


def codec_of(name: str) -> AzureCodec:
    case = load("azure", name)
    path = case.request["path"]
    deployment = path.split("/")[3] if "/deployments/" in path else case.body["model"]
    return AzureCodec(
        deployment,
        endpoint=HOST,
        api_version=case.request["query"].get("api-version"),
        stream_usage="stream_options" in case.body,
    )


def body_of(codec: AzureCodec, **parameters: Any) -> dict[str, Any]:
    return loads(codec.build_request(ChatCall(messages=ASK, parameters=parameters)).content)


@pytest.mark.parametrize("name", CHAT)
def test_requests_equal_the_sdk(name: str) -> None:
    case = deepcopy(load("azure", name))
    request = codec_of(name).build_request(call_of(case.body))
    assert request.url == HOST + case.request["path"]
    assert dict(request.params) == case.request["query"]
    if name == "10-entra-token":  # the SDK sends its `model` argument, which the service does not read
        case.request["body"]["model"] = "my-deploy"
    assert_body(request, case)
    recorded = case.request["headers"]
    auth: Auth = HeaderAuth(Secret("azkey-test-0000"), "api-key")
    if "authorization" in recorded:
        auth = BearerAuth(Secret(recorded["authorization"].removeprefix("Bearer ")))
    assert_headers(signed(request, auth).headers, case)


@pytest.mark.parametrize("name", [n for n in names("azure", streams=False, errors=False) if n not in RESPONSES])
def test_replies_equal_the_sdk(name: str) -> None:
    case = load("azure", name)
    reply = codec_of(name).parse_reply(case.json)
    assert_reply(reply, case)
    assert reply.model_id.startswith("azure/")


@pytest.mark.parametrize("name", names("azure", streams=True))
def test_streams_equal_the_sdk_however_they_are_cut(name: str) -> None:
    case = load("azure", name)
    codec = codec_of(name)
    assert_reply(read_stream(codec, case.content), case)
    assert_cuts_do_not_matter(codec, case.content)


ERRORS: dict[str, type[ProviderError]] = {
    "20-error-400-content-filter": ContentFiltered,
    "21-error-401": AuthenticationFailed,
    "22-error-429": RateLimited,
    "23-error-404-deployment": NotFound,
}


@pytest.mark.parametrize("name", names("azure", errors=True))
def test_errors_are_sorted(name: str) -> None:
    case = load("azure", name)
    error = codec_of(name).parse_error(case.status, case.headers, case.json)
    expected = case.expected["error"]
    assert type(error) is ERRORS[name]
    assert (error.code, error.status, error.provider) == (expected["code"], expected["status"], "azure")
    assert error.retry_after == expected["retry_after"]
    assert error.retryable is (name == "22-error-429")


def test_a_gateway_in_front_of_azure() -> None:
    codec = AzureCodec("d", endpoint=HOST)
    error = codec.parse_error(429, {}, {"statusCode": 429, "message": "Rate limit is exceeded."})
    assert (type(error), error.code, error.message) == (RateLimited, "429", "Rate limit is exceeded.")
    inner = {"error": {"code": "BadRequest", "message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}
    assert type(codec.parse_error(400, {}, inner)) is ContentFiltered


def test_the_asynchronous_filter_sends_chunks_without_a_delta() -> None:
    chunks: list[dict[str, Any]] = [
        {"id": "", "choices": [], "prompt_filter_results": []},
        {"id": "r", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]},
        {
            "id": "",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": None,
                    "content_filter_results": {},
                    "content_filter_offsets": {"check_offset": 1, "start_offset": 0, "end_offset": 2},
                }
            ],
        },
        {"id": "r", "choices": [{"index": 0, "finish_reason": "content_filter", "content_filter_results": {}}]},
    ]
    content = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    reply = read_stream(AzureCodec("d", endpoint=HOST), content.encode())
    assert (reply.reply, reply.finish_reason, reply.response_id) == ("hi", "content_filter", "r")


def test_an_answer_that_was_filtered_keeps_its_text() -> None:
    body = {"choices": [{"index": 0, "message": {"content": "cut"}, "finish_reason": "content_filter"}]}
    reply = AzureCodec("d", endpoint=HOST).parse_reply(body)
    assert (reply.reply, reply.finish_reason) == ("cut", "content_filter")
    body = {"choices": [{"index": 0, "message": {}, "finish_reason": "content_filter"}]}
    assert AzureCodec("d", endpoint=HOST).parse_reply(body).finish_reason == "content_filter"


@pytest.mark.parametrize("tail", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
def test_endpoints_as_people_paste_them(tail: str) -> None:
    assert AzureCodec("d", endpoint=HOST + tail).url == HOST + "/openai/v1/chat/completions"


def test_the_name_of_a_deployment_is_encoded() -> None:
    url = AzureCodec("my deploy/你", endpoint=HOST, api_version="2024-10-21").url
    assert url == HOST + "/openai/deployments/my%20deploy%2F%E4%BD%A0/chat/completions"


def test_settings_that_cannot_work_fail_early() -> None:
    with pytest.raises(ConfigurationError, match="name of a deployment"):
        AzureCodec("", endpoint=HOST)
    with pytest.raises(ConfigurationError, match="https://RESOURCE"):
        AzureCodec("d", endpoint="None")
    with pytest.raises(ConfigurationError, match="a date such as"):
        AzureCodec("d", endpoint=HOST, api_version="None")


def test_the_length_limit_has_two_names() -> None:
    dated = {"endpoint": HOST, "api_version": "2024-10-21"}
    assert body_of(AzureCodec("d", **dated), max_tokens=5)["max_tokens"] == 5
    assert body_of(AzureCodec("d", reasoning=True, **dated), max_tokens=5)["max_completion_tokens"] == 5
    assert body_of(AzureCodec("d", endpoint=HOST), max_tokens=5)["max_completion_tokens"] == 5
    assert AZURE.parameters["max_tokens"] == "max_completion_tokens"


def test_parameters_that_a_reasoning_deployment_refuses() -> None:
    with pytest.raises(ParameterError, match="azure/o1 does not take temperature"):
        body_of(AzureCodec("o1", endpoint=HOST, reasoning=True), temperature=0)
    assert body_of(AzureCodec("o1", endpoint=HOST), temperature=0)["temperature"] == 0  # a name says nothing here
    freed = AzureCodec("d", endpoint=HOST, reasoning=True, model_rules=())
    assert body_of(freed, temperature=0)["temperature"] == 0


def test_usage_in_streams_is_requested_if_supported() -> None:
    call = ChatCall(messages=ASK, stream=True)
    for version, known in (("2023-12-01-preview", False), ("2024-10-21", True), (None, True)):
        codec = AzureCodec("d", endpoint=HOST, api_version=version)
        assert ("stream_options" in loads(codec.build_request(call).content)) is known


def test_entra_tokens_come_from_a_function() -> None:
    tokens = iter(["eyJ-one-token", Secret("eyJ-two-token")])
    auth = EntraAuth(lambda: next(tokens))
    request = AzureCodec("d", endpoint=HOST).build_request(ChatCall(messages=ASK))
    assert signed(request, auth).headers["authorization"] == "Bearer eyJ-one-token"
    assert signed(request, auth).headers["authorization"] == "Bearer eyJ-two-token"
