"""Baichuan's old dialect: signed `v1/chat`, streams as one JSON object a line, no tools, no system role.

Wire facts: docs/providers/baichuan.md. The current endpoint is OpenAI's dialect and no business of this module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from lmagent.core.events import Delta, Done, ReplyBuilder, TextDelta
from lmagent.core.json_text import JSON, LineDecoder, storable
from lmagent.core.messages import FinishReason, Reply, Usage
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    ParameterError,
    ProviderError,
    RateLimited,
    ServerFailed,
)
from lmagent.providers.base import Auth, AuthFlow, ChatCall, ParameterRule, Request, error_for_status, quoted
from lmagent.providers.conversation import TextOnlyCodec
from lmagent.providers.fields import mapping, object_of, objects, text, usage_of, within
from lmagent.providers.vendors import VENDORS

__all__ = ["BASE_URL", "BaichuanCodec", "BaichuanSignatureAuth"]

BASE_URL = VENDORS["baichuan"].api("classic").address

_ERRORS: Mapping[str, type[ProviderError]] = {
    "1": ServerFailed,
    "10000": BadRequest,
    "10100": AuthenticationFailed,
    "10101": AuthenticationFailed,
    "10102": AuthenticationFailed,
    "10103": AuthenticationFailed,
    "10104": AuthenticationFailed,
    "10105": AuthenticationFailed,
}
_CLOCK = frozenset({"10103", "10104"})
"""Codes for a timestamp the server does not accept."""
_LIMIT_WORDS = ("limit", "frequen", "too many", "限", "频")

_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}


_PARAMETERS: Mapping[str, ParameterRule] = {
    "temperature": within("temperature", 0, 1),
    "top_p": within("top_p", 0, 1, sent=(0, 0.99)),
    "top_k": within("top_k", 0, 20),
    "with_search_enhance": "with_search_enhance",
}


class BaichuanSignatureAuth(Auth):
    """Bearer key and an MD5 signature over secret, body and time.

    Args:
        api_key: The bearer key.
        secret_key: What signs.
    """

    def __init__(self, api_key: Secret, secret_key: Secret) -> None:
        self.api_key = api_key
        self.secret_key = secret_key

    def flow(self, request: Request, now: float) -> AuthFlow:
        timestamp = str(int(now))
        signed = self.secret_key.reveal().encode() + request.content + timestamp.encode()
        return request.with_headers(
            authorization=f"Bearer {self.api_key.reveal()}",
            x_bc_timestamp=timestamp,
            x_bc_sign_algo="MD5",
            # The vendor's scheme; there is no better algorithm to ask for.
            x_bc_signature=hashlib.md5(signed, usedforsecurity=False).hexdigest(),
        )
        yield request  # a flow is a generator; this one asks for nothing


class _State:
    """What one stream has told so far."""

    __slots__ = ("ended", "last", "reason", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.reason = ""
        self.last: JSON = None
        self.ended = False


class BaichuanCodec(TextOnlyCodec):
    """The signed API of 2023 (`Baichuan2-53B`).

    Args:
        model: Model name as sent.
        base_url: The host.
    """

    provider: ClassVar[str] = "baichuan"
    framing = LineDecoder

    def __init__(self, model: str, *, base_url: str = BASE_URL) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST; plain and streamed have a URL each.

        System text stands in front of the first user message; calls and results of earlier turns become text.
        """
        body: dict[str, Any] = {"model": self.model, "messages": self.turns(call)}
        given = {name: value for name, value in call.parameters.items() if name != "extra_body"}
        parameters = self.render_parameters(given, _PARAMETERS)
        if parameters:
            body["parameters"] = dict(sorted(parameters.items()))
        body |= call.parameters.get("extra_body") or {}
        return self.post(f"{self.base_url}/v1/{'stream/chat' if call.stream else 'chat'}", _encoded(body), call)

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        builder, state = ReplyBuilder(prefix), self.new_state()
        with self.reading(body):
            for delta in self._read(state, body):
                builder.add(delta)
        builder.add(_done(state))
        return builder.reply(self.model_id)

    def new_state(self) -> _State:
        return _State()

    def parse_event(self, state: _State, data: bytes, event: str = "") -> Iterable[Delta]:
        body = object_of(self, data)
        self.check(body)
        with self.reading(body):
            yield from self._read(state, body)
        if state.reason and state.usage is not None and not state.ended:
            state.ended = True
            yield _done(state)

    def finish(self, state: _State) -> Iterable[Delta]:
        """End a stream that told a finish reason but no usage."""
        if state.reason and not state.ended:
            state.ended = True
            yield _done(state)

    def _read(self, state: _State, body: JSON) -> Iterator[Delta]:
        messages = objects(mapping(body["data"]).get("messages"))
        usage = mapping(body.get("usage"))
        made = "answer_tokens" if "answer_tokens" in usage else "completion_tokens"
        state.usage = usage_of(usage, "prompt_tokens", made, "total_tokens") or state.usage
        state.last = body
        last = messages[-1]
        state.reason = text(last.get("finish_reason")) or state.reason
        said = text(last["content"])
        if said and not state.ended:
            yield TextDelta(said)

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        fields = mapping(body)
        code = fields.get("code")
        if status < 400 and code in (None, 0, "0"):
            return None
        message = quoted(fields.get("msg")) or quoted(text)
        if str(code) in _CLOCK:
            message += " (check the clock of this machine)"
        return self.failure(
            _class_of(status, str(code), message),
            message,
            status=status,
            headers=headers,
            body=body,
            code=code,
            request_ids=(headers.get("x-bc-request-id"),),
        )


def _class_of(status: int, code: str, message: str) -> type[ProviderError]:
    if code in _ERRORS:
        return _ERRORS[code]
    if len(code) == 5 and code.startswith("102"):  # the service's own side; which of them is in the words
        return RateLimited if any(word in message.lower() for word in _LIMIT_WORDS) else ServerFailed
    return error_for_status(status)


def _encoded(body: Mapping[str, Any]) -> bytes:
    """Return the body laid out as upstream's and the vendor's example are, so that signatures can be compared."""
    try:
        return storable(json.dumps(body, ensure_ascii=False, allow_nan=False)).encode()
    except (TypeError, ValueError) as error:
        raise ParameterError(f"The request is not JSON: {error}.") from error


def _done(state: _State) -> Done:
    reason: FinishReason = _FINISH.get(state.reason, "other") if state.reason else "stop"
    return Done(finish_reason=reason, raw_finish_reason=state.reason or None, usage=state.usage, raw=state.last)
