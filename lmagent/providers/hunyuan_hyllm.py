"""Hunyuan's first API (2023): credentials in the body, HMAC-SHA1 over the body's text in `Authorization`.

The vendor has switched it off. It is kept for private copies of the service and for replayed recordings, so that
`hunyuan/v1` keeps its meaning. No system role, no tools.
"""

from __future__ import annotations

import base64
import hmac
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from lmagent import errors
from lmagent.core.events import Delta, TextDelta
from lmagent.core.json_text import JSON, dumps, loads
from lmagent.core.redaction import Secret
from lmagent.errors import ProviderError
from lmagent.providers.base import ChatCall, Fault, ParameterRule, ReplyState, Request, SigningAuth, error_for_status
from lmagent.providers.conversation import TextOnlyCodec
from lmagent.providers.fields import ended, mapping, objects, text, usage_of
from lmagent.providers.vendors import VENDORS

__all__ = ["BASE_URL", "HyllmAuth", "HyllmCodec", "signed_text"]

BASE_URL = VENDORS["hunyuan"].api("hyllm").address

_LIFETIME_S = 86400
_WORDS: tuple[tuple[tuple[str, ...], type[ProviderError]], ...] = (
    (("authori", "signature", "secret", "鉴权", "签名"), errors.AuthenticationFailed),
    (("quota", "arrear", "balance", "欠费", "余额"), errors.QuotaExceeded),
    (("limit", "frequen", "concurren", "too many", "频率", "并发"), errors.RateLimited),
    (("internal", "server error", "timeout", "内部"), errors.ServerFailed),
)
"""Words of a message -> class; the vendor never published a table of codes."""


class HyllmAuth(SigningAuth):
    """Puts the credentials into the body and signs its text.

    Args:
        app_id: The account's number.
        secret_id: Id of the cloud key.
        secret_key: Secret of the cloud key.
        new_query_id: Makes the id of one request.
    """

    def __init__(
        self,
        app_id: int,
        secret_id: Secret,
        secret_key: Secret,
        *,
        new_query_id: Callable[[], str] = lambda: f"query_id_{uuid.uuid4()}",
    ) -> None:
        self.app_id = app_id
        self.secret_id = secret_id
        self.secret_key = secret_key
        self._new_query_id = new_query_id

    def signed(self, request: Request, now: float) -> Request:
        timestamp = int(now)
        body = {
            "app_id": self.app_id,
            "secret_id": self.secret_id.reveal(),
            "query_id": self._new_query_id(),
            **loads(request.content),
            "timestamp": timestamp,
            "expired": timestamp + _LIFETIME_S,
        }
        signature = hmac.digest(self.secret_key.reveal().encode(), signed_text(request.url, body).encode(), "sha1")
        return replace(request, content=dumps(body)).with_headers(authorization=base64.b64encode(signature).decode())


def signed_text(url: str, body: Mapping[str, Any]) -> str:
    """Return the text to sign: host, path and the sorted body.

    Messages are not escaped, as in the vendor's sample, so quotes inside a message are ambiguous.
    """
    address = urlsplit(url)
    pairs = "&".join(f"{name}={_as_text(body[name])}" for name in sorted(body))
    return f"{address.netloc}{address.path}?{pairs}"


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        turns = [f'{{"role":"{turn["role"]}","content":"{turn["content"]}"}}' for turn in objects(value)]  # pyright: ignore[reportUnknownArgumentType]
        return f"[{','.join(turns)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


class HyllmCodec(TextOnlyCodec):
    """Hunyuan's API of 2023.

    Args:
        model: A name for the model id; the API has one model and no name for it.
        base_url: Up to `/v1`.
    """

    provider = "hunyuan"
    max_messages = 40

    def __init__(self, model: str = "v1", *, base_url: str = BASE_URL) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")

    def build_request(self, call: ChatCall) -> Request:
        body = {
            "messages": self.turns(call),
            "stream": int(call.stream),
            **self.render_parameters(call.parameters, _PARAMETERS),
        }
        return self.post(f"{self.base_url}/chat/completions", dumps(body), call)

    def request_id_of(self, body: dict[str, Any]) -> Any:
        return body.get("req_id")

    def read(self, state: ReplyState, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        choices = objects(body.get("choices"))
        for choice in [choices[0]] if whole else choices[:1]:
            # In a complete answer the field is `messages`, an object.
            message = mapping(choice.get("delta") or choice.get("messages") or choice.get("message"))
            if content := text(message["content"] if whole else message.get("content")):
                yield TextDelta(content)
            reason = text(choice.get("finish_reason"))
            if whole or reason:
                state.ended = True
                yield ended(reason or "stop", body, usage=usage_of(body.get("usage")), response_id=body.get("id"))

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        if not body.get("error") and status < 400:
            return None
        fault = mapping(body.get("error"))
        message = str(fault.get("message") or text)
        by_words = (kind for words, kind in _WORDS if any(word in message.lower() for word in words))
        return Fault(next(by_words, error_for_status(status)), message, fault.get("code"), (body.get("req_id"),))


_PARAMETERS: dict[str, ParameterRule] = {"temperature": "temperature", "top_p": "top_p"}
