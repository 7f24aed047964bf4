"""Baidu's classic ERNIE-Bot dialect (`functions`, `function_call` with `thoughts`, role `function`), credentials too.

Credentials: a token obtained with a key pair, IAM signatures (`bce-auth-v1`), a bearer obtained with a signature.

Wire reference: docs/providers/wenxin.md. Qianfan v2 speaks OpenAI's dialect (`openai.variants`).

Over 400 lines because the dialect and its token endpoint share their errors, and are read side by side.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from lmagent import errors
from lmagent.core.events import Delta, Done, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON, dumps_text
from lmagent.core.messages import AssistantMessage, FinishReason, Message, ToolMessage, UserMessage
from lmagent.core.redaction import Secret
from lmagent.errors import ParameterError, ProviderError
from lmagent.providers.base import (
    ChatCall,
    EventCodec,
    Fault,
    Features,
    NamedTool,
    ParameterRule,
    ReplyState,
    Request,
    SigningAuth,
    TokenAuth,
    error_for_status,
)
from lmagent.providers.conversation import (
    alternating,
    messages_of,
    one_call_each,
    settled,
    system_apart,
    system_in_front,
    text_only,
    tools_as_text,
)
from lmagent.providers.fields import (
    by_code,
    call_arguments,
    encoded,
    ended,
    failure,
    first_text,
    joined,
    mapping,
    one_call_a_reply,
    parsed,
    quoted,
    same,
    seconds,
    text,
    usage_of,
    within,
)
from lmagent.providers.vendors import VENDORS
from lmagent.toolkit.schema import ToolSpec
from lmagent.toolkit.schema_dialects import never_blank, wenxin_subset

__all__ = [
    "BASE_URL", "MODELS", "AccessTokenAuth", "BceSignatureAuth", "IamBearerAuth", "KeyPairAuth", "WenxinCodec",
    "WenxinModel", "wenxin_fault",
]  # fmt: skip

BASE_URL = VENDORS["wenxin"].api("classic").address
_PATH = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/"


@dataclass(frozen=True, slots=True)
class WenxinModel:
    """Facts about one model name of the classic API."""

    endpoint: str
    """Last part of the URL, by which the classic API chooses the model."""
    functions: bool = False
    """Whether the model obeys `functions`. The others ignore it silently."""


MODELS: Mapping[str, WenxinModel] = {
    "ernie-bot": WenxinModel("completions", True),
    "ernie-3.5-8k": WenxinModel("completions", True),
    "ernie-bot-4": WenxinModel("completions_pro", True),
    "ernie-4.0-8k": WenxinModel("completions_pro", True),
    "ernie-4.0-8k-preview-0518": WenxinModel("completions_adv_pro", True),
    "ernie-3.5-8k-0205": WenxinModel("ernie-3.5-8k-0205", True),
    "ernie-3.5-8k-0329": WenxinModel("ernie-3.5-8k-0329", True),
    "ernie-3.5-8k-preview": WenxinModel("ernie-3.5-8k-preview", True),
    "ernie-3.5-128k": WenxinModel("ernie-3.5-128k", True),
    "ernie-4.0-turbo-8k": WenxinModel("ernie-4.0-turbo-8k"),
    "ernie-bot-turbo": WenxinModel("eb-instant"),
    "ernie-lite-8k-0922": WenxinModel("eb-instant"),
    "ernie-lite-8k-0308": WenxinModel("ernie-lite-8k"),
    "ernie-speed-8k": WenxinModel("ernie_speed"),
    "ernie-speed-128k": WenxinModel("ernie-speed-128k"),
    "ernie-speed-pro-128k": WenxinModel("ernie-speed-pro-128k"),
    "ernie-tiny-8k": WenxinModel("ernie-tiny-8k"),
    "ernie-character-8k": WenxinModel("ernie-char-8k"),
    "ernie-functions-8k": WenxinModel("ernie-func-8k"),
}
"""Lower-case model name -> its facts. Any other name is its own endpoint, in lower case and without functions."""

_ERRORS = by_code(
    (errors.ServerFailed, "1 2 15 336000"),
    (errors.BadRequest, "3 336001 336002 336003 336006"),
    (errors.RateLimited, "4 18 336501 336502"),
    (errors.PermissionDenied, "6 336004 336005"),
    (errors.AuthenticationFailed, "13 14 100 110 111"),
    (errors.QuotaExceeded, "17 19"),
    (errors.ContextTooLong, "336007 336103"),
    (errors.Overloaded, "336100"),
)


def wenxin_fault(status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]) -> Fault | None:
    """Return the error in a body of the classic API or of its token endpoint; None if it is no error.

    Errors come with HTTP 200 as `{"error_code", "error_msg"}`, from the gateway as `{"code", "msg"}`, from the token
    endpoint as `{"error", "error_description"}`. `status` is None if it is not known.
    """
    code, message = body.get("error_code"), body.get("error_msg")
    if code in (None, 0) and "msg" in body:
        code, message = body.get("code"), body["msg"]
    kind = error_for_status(status or 200)
    if code not in (None, 0):
        kind = _ERRORS.get(str(code), kind)
    elif body.get("error"):
        # The token endpoint's codes (invalid_client, invalid_request, unauthorized_client) all mean wrong keys.
        code, message = body["error"], body.get("error_description")
        kind = errors.AuthenticationFailed if (status or 200) < 500 else errors.ServerFailed
    elif (status or 200) < 400:
        return None
    return Fault(kind, message, code, (body.get("id"), headers.get("x-bce-request-id")))


def _stop(value: list[str]) -> dict[str, Any]:
    if len(value) > 4 or any(len(text) > 20 for text in value):
        raise ParameterError(f"stop takes at most 4 texts of at most 20 characters, got {value!r}.")
    return {"stop": value}


def _response_format(value: Mapping[str, Any] | str) -> dict[str, Any]:
    kind = value if isinstance(value, str) else value.get("type")  # a plain word here, an object elsewhere
    if kind not in ("json_object", "text"):
        raise ParameterError(f"response_format must be 'json_object' or 'text' in the classic API, got {value!r}.")
    return {"response_format": kind}


_PARAMETERS: Mapping[str, ParameterRule] = {
    "temperature": within("temperature", 0, 1, sent=(0.01, 1)),
    "max_tokens": lambda value: {"max_output_tokens": max(value, 2)},  # 1 is refused by the server
    "stop": _stop,
    "user": "user_id",
    "parallel_tool_calls": one_call_a_reply,
    "penalty_score": within("penalty_score", 1, 2),
    "response_format": _response_format,
    **same("top_p", "disable_search", "enable_citation"),
}


@dataclass(slots=True)
class _State(ReplyState):
    thoughts: str = ""
    call: bool = False
    flagged: dict[str, Any] = field(default_factory=dict[str, Any])


class WenxinCodec(EventCodec):
    """The classic API of one model.

    Args:
        model: A name of `MODELS` in any case, or the name of an endpoint.
        base_url: The host.
        endpoint: Last part of the URL, for models that are not in `MODELS`.
        tools: Whether the model obeys `functions`; default: as in `MODELS`.
    """

    provider: ClassVar[str] = "wenxin"
    state_class = _State

    def __init__(
        self, model: str, *, base_url: str = BASE_URL, endpoint: str | None = None, tools: bool | None = None
    ) -> None:
        facts = MODELS.get(model.lower()) or WenxinModel(model.lower())
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.endpoint = endpoint or facts.endpoint
        self.features = Features(
            tools=facts.functions if tools is None else tools,
            parallel_calls=False,
            tool_choice=frozenset({"auto", "none", "named"}),
            images=False,
            json_schema="object",
        )

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST.

        The API does not accept its field for system text together with functions; the text is then put in front of the
        first user message.
        """
        if not self.features.tools:
            self.refuse_tools(call)
        specs = () if call.tool_choice == "none" else call.tools
        messages = text_only(messages_of(call), self.refuse)
        head: dict[str, Any] = {}
        if specs:
            messages = system_in_front(messages)
        else:
            system, messages = system_apart(messages)
            head = {"system": system} if system else {}
        messages = alternating(one_call_each(settled(messages)) if self.features.tools else tools_as_text(messages))
        parts = {"messages": [encoded(message.wire, "wenxin", _rendered, message) for message in messages]}
        if specs:
            parts["functions"] = [encoded(spec.encoded, "wenxin", _function, spec) for spec in specs]
            choice = self.choice_of(call)
            if isinstance(choice, NamedTool):
                head["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        if call.output_schema is not None:
            head["response_format"] = "json_object"
        if call.stream:
            head["stream"] = True
        head |= self.render_parameters(call.parameters, _PARAMETERS)
        return self.post(f"{self.base_url}{_PATH}{self.endpoint}", joined(head, parts), call)

    def read(self, state: _State, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        call: Any = body.get("function_call")
        said = text(body.get("result") if call else body["result"])
        if said:
            yield TextDelta(said)
        if call and not state.call:
            state.call = True
            state.thoughts = text(call.get("thoughts"))
            yield ToolCallDelta(0, name=call["name"], arguments=call_arguments(call.get("arguments")))
        state.usage = usage_of(body.get("usage")) or state.usage
        if body.get("need_clear_history"):
            state.flagged = {"need_clear_history": True, "ban_round": body.get("ban_round")}
        if whole or body.get("is_end"):
            state.ended = True
            yield _done(state, body)

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        return wenxin_fault(status, headers, body)


def _rendered(message: Message) -> dict[str, Any]:
    match message:
        case AssistantMessage(tool_calls=calls):
            body: dict[str, Any] = {"role": "assistant", "content": message.content}
            if calls:
                thoughts = mapping(message.details.get("wenxin")).get("thoughts")
                function_call = {"name": calls[0].name, "arguments": calls[0].arguments}
                body["function_call"] = function_call | ({"thoughts": thoughts} if thoughts else {})
            return body
        case ToolMessage():
            content = message.content
            if not isinstance(parsed(content), dict):  # the API demands the text of a JSON object
                content = dumps_text({"error" if message.is_error else "tool_result": content})
            return {"role": "function", "name": message.name, "content": content}
        case UserMessage():
            return {"role": "user", "content": message.text}
        case _:
            raise TypeError("system messages are rendered by build_request")


def _function(spec: ToolSpec) -> dict[str, Any]:
    description = never_blank(spec.name, spec.description)
    return {"name": spec.name, "description": description, "parameters": wenxin_subset(spec.parameters)}


def _done(state: _State, body: JSON) -> Done:
    raw = text(body.get("finish_reason"))
    reason: FinishReason | None = "length" if not raw and body.get("is_truncated") else None
    if state.flagged:  # a safety hit looks like an ordinary reply
        reason = "content_filter"
    details = ({"thoughts": state.thoughts} if state.thoughts else {}) | state.flagged
    return ended(
        raw,
        body,
        usage=state.usage,
        response_id=body.get("id"),
        details={"wenxin": details} if details else {},
        finish_reason=reason,
    )


_IAM_URL = "https://iam.bj.baidubce.com/v1/BCE-BEARER/token"
_BEARER_LIFE = 43200
"""Seconds; the longest life that the provider's own SDK requests."""
_SIGNATURE_LIFE = 300
_MARGIN = 0.1
"""A token is renewed when this fraction of its life is left, at most a day."""
_DAY = 86400.0
_EXPIRED = frozenset({"110", "111"})


class AccessTokenAuth(SigningAuth):
    """The caller's own access token, as the query parameter `access_token`."""

    def __init__(self, token: Secret) -> None:
        self.token = token

    def signed(self, request: Request, now: float) -> Request:
        return request.with_params(access_token=self.token.reveal())


class KeyPairAuth(TokenAuth):
    """An access token of the classic API, obtained with API key and secret key and cached until it expires.

    Models that share one object share the token.

    Args:
        api_key: Of the application.
        secret_key: Of the application.
        base_url: Host of the token endpoint.
    """

    def __init__(self, api_key: Secret, secret_key: Secret, *, base_url: str = BASE_URL) -> None:
        super().__init__()
        self.api_key = api_key
        self.secret_key = secret_key
        self.url = f"{base_url.rstrip('/')}/oauth/2.0/token"

    def asking(self, now: float) -> Request:
        keys = {"client_id": self.api_key.reveal(), "client_secret": self.secret_key.reveal()}
        params = {"grant_type": "client_credentials", **keys}
        return Request(url=self.url, content=b"{}", headers={"content-type": "application/json"}, params=params)

    def bought(self, answer: JSON, now: float) -> tuple[Secret, float]:
        fault = wenxin_fault(None, {}, mapping(answer))
        if fault is not None:
            raise failure(
                fault.kind,
                fault.message,
                provider="wenxin",
                code=fault.code,
                body=answer,
                request_ids=fault.request_ids,
            )
        life = seconds(mapping(answer).get("expires_in")) or _DAY
        return _secret(answer, "access_token"), now + life - min(_DAY, life * _MARGIN)

    def carrying(self, request: Request, token: Secret) -> Request:
        return request.with_params(access_token=token.reveal())

    def carried_by(self, request: Request) -> str | None:
        return request.params.get("access_token")

    def is_stale(self, error: ProviderError) -> bool:
        return error.code in _EXPIRED


class BceSignatureAuth(SigningAuth):
    """Signs each request with IAM keys (`bce-auth-v1`), without a token.

    Args:
        access_key: IAM access key; not the application's API key.
        secret_key: IAM secret key.
    """

    def __init__(self, access_key: Secret, secret_key: Secret) -> None:
        self.access_key = access_key
        self.secret_key = secret_key

    def signed(self, request: Request, now: float) -> Request:
        """Return `request` with `x-bce-date` and `authorization`, which cover method, path, query and host."""
        parts = urlsplit(request.url)
        date = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {"host": parts.netloc, "x-bce-date": date}
        prefix = f"bce-auth-v1/{self.access_key.reveal()}/{date}/{_SIGNATURE_LIFE}"
        key = _hmac(self.secret_key.reveal(), prefix)  # hex text, not bytes
        canonical = "\n".join(
            (
                request.method,
                quote(parts.path, safe="/-_.~"),
                "&".join(sorted(f"{_encoded(name)}={_encoded(value)}" for name, value in request.params.items())),
                *sorted(f"{name}:{_encoded(value)}" for name, value in headers.items()),
            )
        )
        authorization = f"{prefix}/{';'.join(headers)}/{_hmac(key, canonical)}"
        return request.with_headers(x_bce_date=date, authorization=authorization)


class IamBearerAuth(TokenAuth):
    """A short-lived bearer for Qianfan v2, obtained with IAM keys and cached until it expires.

    Args:
        access_key: IAM access key.
        secret_key: IAM secret key.
    """

    def __init__(self, access_key: Secret, secret_key: Secret, *, url: str = _IAM_URL) -> None:
        super().__init__()
        self.signer = BceSignatureAuth(access_key, secret_key)
        self.url = url

    def asking(self, now: float) -> Request:
        params, headers = {"expireInSeconds": str(_BEARER_LIFE)}, {"content-type": "application/json"}
        return self.signer.signed(Request(method="GET", url=self.url, params=params, headers=headers), now)

    def bought(self, answer: JSON, now: float) -> tuple[Secret, float]:
        token = _secret(answer, "token")
        try:
            life = datetime.fromisoformat(str(mapping(answer).get("expireTime"))).timestamp() - now
        except ValueError:
            life = float(_BEARER_LIFE)
        return token, now + life * (1 - _MARGIN)


def _secret(body: JSON, name: str) -> Secret:
    fields = mapping(body)
    value = fields.get(name)
    if isinstance(value, str) and value:
        return Secret(value)
    raise errors.AuthenticationFailed(
        f"The token endpoint gave no token: {quoted(fields.get('message') or fields.get('msg'), 'unknown answer')}.",
        provider="wenxin",
        code=str(fields["code"]) if fields.get("code") else None,
        request_id=first_text(fields.get("requestId")),
        body=body,
    )


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
