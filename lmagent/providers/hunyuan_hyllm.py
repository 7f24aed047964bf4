"""Hunyuan's first API (2023): credentials in the body, HMAC-SHA1 over the body's text in `Authorization`.

The vendor has switched it off. It is kept for private copies of the service and for replayed recordings, so that
`hunyuan/v1` keeps its meaning. No system role, no tools.
"""

from __future__ import annotations

import base64
import hmac
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from lmagent import errors
from lmagent.core.events import Delta, Done, TextDelta
from lmagent.core.json_text import JSON, dumps, loads
from lmagent.core.messages import Reply
from lmagent.core.redaction import Secret
from lmagent.errors import ProviderError
from lmagent.providers.base import (
    ChatCall,
    ParameterRule,
    Request,
    SigningAuth,
    error_for_status,
)
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

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        return self.reply_of(body, _whole(body), prefix=prefix, request_id=mapping(body).get("req_id"))

    def new_state(self) -> list[bool]:
        """Return a list of one item: whether the reply has ended."""
        return [False]

    def parse_event(self, state: list[bool], data: bytes, event: str = "") -> Iterable[Delta]:
        if state[0] or data.strip() == b"[DONE]":
            return ()
        chunk = self.object_of(data)
        self.check(chunk)
        deltas: list[Delta] = []
        with self.reading(chunk):
            for choice in objects(chunk.get("choices")):
                if content := text(mapping(choice.get("delta") or choice.get("messages")).get("content")):
                    deltas.append(TextDelta(content))
                if reason := text(choice.get("finish_reason")):
                    state[0] = True
                    deltas.append(_done(chunk, reason))
        return deltas

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        answer = mapping(body)
        if not answer.get("error") and status < 400:
            return None
        fault = mapping(answer.get("error"))
        message = str(fault.get("message") or text)
        by_words = (kind for words, kind in _WORDS if any(word in message.lower() for word in words))
        return self.failure(
            next(by_words, error_for_status(status)),
            message,
            status=status,
            headers=headers,
            body=body,
            code=fault.get("code"),
            request_ids=(answer.get("req_id"),),
        )


def _whole(body: JSON) -> Iterator[Delta]:
    choice = body["choices"][0]
    # The field is `messages`, an object.
    yield TextDelta(text((choice.get("messages") or choice["message"])["content"]))
    yield _done(body, text(choice.get("finish_reason")) or "stop")


def _done(body: dict[str, Any], reason: str) -> Done:
    return ended(reason, body, usage=usage_of(body.get("usage")), response_id=body.get("id"))


_PARAMETERS: dict[str, ParameterRule] = {"temperature": "temperature", "top_p": "top_p"}
