"""Baichuan's dialect of 2023: signed `v1/chat`, streams of one JSON object per line, no tools, no system role.

Wire reference: docs/providers/baichuan.md. The current endpoint speaks OpenAI's dialect (`BAICHUAN` of `openai`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lmagent import errors
from lmagent.core.events import Delta, Done, TextDelta
from lmagent.core.json_text import JSON, LineDecoder, storable
from lmagent.core.redaction import Secret
from lmagent.errors import ParameterError
from lmagent.providers.base import ChatCall, Fault, ParameterRule, ReplyState, Request, SigningAuth, error_for_status
from lmagent.providers.conversation import TextOnlyCodec
from lmagent.providers.fields import by_code, ended, mapping, objects, text, usage_of, within
from lmagent.providers.vendors import VENDORS

__all__ = ["BASE_URL", "BaichuanCodec", "BaichuanSignatureAuth"]

BASE_URL = VENDORS["baichuan"].api("classic").address

_ERRORS = by_code(
    (errors.ServerFailed, "1"),
    (errors.BadRequest, "10000"),
    (errors.AuthenticationFailed, "10100 10101 10102 10103 10104 10105"),
)
_CLOCK = frozenset({"10103", "10104"})
"""Codes for a timestamp that the server rejects."""
_LIMIT_WORDS = ("limit", "frequen", "too many", "限", "频")

_PARAMETERS: Mapping[str, ParameterRule] = {
    "temperature": within("temperature", 0, 1),
    "top_p": within("top_p", 0, 1, sent=(0, 0.99)),
    "top_k": within("top_k", 0, 20),
    "with_search_enhance": "with_search_enhance",
}


class BaichuanSignatureAuth(SigningAuth):
    """Bearer key and an MD5 signature over secret, body and time.

    Args:
        api_key: The bearer key.
        secret_key: Key of the signature.
    """

    def __init__(self, api_key: Secret, secret_key: Secret) -> None:
        self.api_key = api_key
        self.secret_key = secret_key

    def signed(self, request: Request, now: float) -> Request:
        timestamp = str(int(now))
        signed = self.secret_key.reveal().encode() + request.content + timestamp.encode()
        return request.with_headers(
            authorization=f"Bearer {self.api_key.reveal()}",
            x_bc_timestamp=timestamp,
            x_bc_sign_algo="MD5",
            # The provider's scheme has no stronger algorithm.
            x_bc_signature=hashlib.md5(signed, usedforsecurity=False).hexdigest(),
        )


@dataclass(slots=True)
class _State(ReplyState):
    reason: str = ""

    def done(self) -> Done:
        self.ended = True
        return ended(self.reason, self.last, usage=self.usage)


class BaichuanCodec(TextOnlyCodec):
    """The signed API of 2023 (`Baichuan2-53B`).

    Args:
        model: Model name as sent.
        base_url: The host.
    """

    provider: ClassVar[str] = "baichuan"
    framing = LineDecoder
    state_class = _State

    def __init__(self, model: str, *, base_url: str = BASE_URL) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")

    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one POST; streams have a URL of their own.

        System text is put in front of the first user message; calls and results of earlier turns become text.
        """
        body: dict[str, Any] = {"model": self.model, "messages": self.turns(call)}
        given = {name: value for name, value in call.parameters.items() if name != "extra_body"}
        parameters = self.render_parameters(given, _PARAMETERS)
        if parameters:
            body["parameters"] = dict(sorted(parameters.items()))
        body |= call.parameters.get("extra_body") or {}
        return self.post(f"{self.base_url}/v1/{'stream/chat' if call.stream else 'chat'}", _encoded(body), call)

    def finish(self, state: _State) -> Iterable[Delta]:
        """Return `Done` for a stream that had a finish reason but no usage."""
        return (state.done(),) if state.reason and not state.ended else ()

    def read(self, state: _State, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        messages = objects(mapping(body["data"]).get("messages"))
        usage = mapping(body.get("usage"))
        made = "answer_tokens" if "answer_tokens" in usage else "completion_tokens"
        state.usage = usage_of(usage, outputs=made) or state.usage
        state.last = body
        last = messages[-1]
        state.reason = text(last.get("finish_reason")) or state.reason
        said = text(last["content"])
        if said:
            yield TextDelta(said)
        if whole or (state.reason and state.usage is not None):
            yield state.done()

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        code = body.get("code")
        if status < 400 and code in (None, 0, "0"):
            return None
        message, word = str(body.get("msg") or text), str(code)
        kind = _ERRORS.get(word) or error_for_status(status)
        if len(word) == 5 and word.startswith("102"):  # a failure of the service; only the message says which
            is_limit = any(part in message.lower() for part in _LIMIT_WORDS)
            kind = errors.RateLimited if is_limit else errors.ServerFailed
        suffix = " (check the clock of this machine)" if word in _CLOCK else ""
        return Fault(kind, message, code, (headers.get("x-bc-request-id"),), suffix)


def _encoded(body: Mapping[str, Any]) -> bytes:
    """Return the body in the layout of the provider's example, so that signatures can be compared."""
    try:
        return storable(json.dumps(body, ensure_ascii=False, allow_nan=False)).encode()
    except (TypeError, ValueError) as error:
        raise ParameterError(f"The request cannot be encoded as JSON: {error}.") from error
