"""Bailian's app completions of 2023: an app made in the console, called with a prompt and a history of pairs.

A cloud call, signed with an access key, returns the bearer token. No tools, no system role.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

from lmagent.core.events import Delta, Done, TextDelta
from lmagent.core.json_text import JSON, dumps
from lmagent.core.messages import Usage
from lmagent.core.redaction import Secret
from lmagent.errors import AuthenticationFailed, InvalidResponse
from lmagent.providers.bailian import bailian_error_class
from lmagent.providers.base import ChatCall, Fault, ParameterRule, ReplyState, Request, TokenAuth, error_for_status
from lmagent.providers.conversation import TextOnlyCodec
from lmagent.providers.fields import first_text, mapping, objects, quoted, text
from lmagent.providers.vendors import VENDORS

__all__ = ["BASE_URL", "BailianAppCodec", "BailianAppState", "BailianTokenAuth", "signed"]

_URL = "https://bailian.cn-beijing.aliyuncs.com/"
_ALGORITHM = "ACS3-HMAC-SHA256"
_MARGIN_S = 600.0


class BailianTokenAuth(TokenAuth):
    """A bearer token for app completions, cached until ten minutes before it expires.

    Args:
        access_key_id: Id of the cloud key.
        access_key_secret: Secret of the cloud key.
        agent_key: Id of the app's workspace.
        url: The token endpoint.
        new_nonce: Makes the nonce of one request.
    """

    def __init__(
        self,
        access_key_id: Secret,
        access_key_secret: Secret,
        agent_key: Secret,
        *,
        url: str = _URL,
        new_nonce: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        super().__init__()
        self.access_key_id = access_key_id
        self.access_key_secret = access_key_secret
        self.agent_key = agent_key
        self.url = url
        self._new_nonce = new_nonce

    def asking(self, now: float) -> Request:
        wanted = Request(
            url=self.url,
            headers={"x-acs-action": "CreateToken", "x-acs-version": "2023-06-01", "accept": "application/json"},
            params={"AgentKey": self.agent_key.reveal()},
        )
        return signed(wanted, self.access_key_id, self.access_key_secret, now, self._new_nonce())

    def bought(self, answer: JSON, now: float) -> tuple[Secret, float]:
        body = mapping(answer)
        data = mapping(body.get("Data"))
        token, expires = data.get("Token"), data.get("ExpiredTime")
        if isinstance(token, str) and token and isinstance(expires, int | float):
            return Secret(token), float(expires) - _MARGIN_S
        code = str(body.get("Code") or "")
        message = quoted(body.get("Message"), "the answer of the token endpoint has no token")
        refused = body.get("Success") is False or bool(code)
        kind = bailian_error_class(code, message) or (AuthenticationFailed if refused else InvalidResponse)
        raise kind(
            f"No token for the app: {message}",
            provider="bailian",
            code=code or None,
            request_id=first_text(body.get("RequestId")),
        )


def signed(request: Request, access_key_id: Secret, access_key_secret: Secret, now: float, nonce: str) -> Request:
    """Return `request` with date, nonce and an `ACS3-HMAC-SHA256` signature over method, path, query, headers, body."""
    address = urlsplit(request.url)
    digest = hashlib.sha256(request.content).hexdigest()
    own = {
        "x-acs-content-sha256": digest,
        "x-acs-date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
    }
    given = {name.lower(): value.strip() for name, value in request.headers.items()}
    covered = {"host": address.netloc, **own, **{name: given[name] for name in given if name.startswith("x-acs-")}}
    names = ";".join(sorted(covered))
    canonical = "\n".join(
        (
            request.method,
            address.path or "/",
            "&".join(f"{_encoded(name)}={_encoded(request.params[name])}" for name in sorted(request.params)),
            "".join(f"{name}:{covered[name]}\n" for name in sorted(covered)),
            names,
            digest,
        )
    )
    to_sign = f"{_ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(access_key_secret.reveal().encode(), to_sign.encode(), "sha256").hex()
    credential = f"Credential={access_key_id.reveal()},SignedHeaders={names},Signature={signature}"
    return request.with_headers(**own, authorization=f"{_ALGORITHM} {credential}")


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


BASE_URL = VENDORS["bailian"].api("app").address


@dataclass(slots=True)
class BailianAppState(ReplyState):
    """One stream: the text so far, which each event repeats, and the last event, because the end has no mark."""

    shown: str = ""


class BailianAppCodec(TextOnlyCodec):
    """The app completions API.

    Args:
        app_id: Id of the app, used as the model name.
        base_url: Scheme and host.
        session_id: Session on the server; sent together with the history.
        new_request_id: Makes the id of one request, 32 hex digits.
    """

    provider = "bailian"
    features = replace(TextOnlyCodec.features, stop=True)
    state_class = BailianAppState

    def __init__(
        self,
        app_id: str,
        *,
        base_url: str = BASE_URL,
        session_id: str | None = None,
        new_request_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self.model = app_id
        self.base_url = base_url.rstrip("/")
        self.session_id = session_id
        self._new_request_id = new_request_id

    def build_request(self, call: ChatCall) -> Request:
        *texts, prompt = [turn["content"] for turn in self.turns(call)]
        pairs = [{"User": user, "Bot": bot} for user, bot in zip(texts[::2], texts[1::2], strict=True)]
        given = dict(call.parameters)
        extra: Mapping[str, Any] = given.pop("extra_body", None) or {}
        top = {name: value for name, value in given.items() if name in _TOP}
        inner = {name: value for name, value in given.items() if name not in _TOP}
        body: dict[str, Any] = {
            "RequestId": self._new_request_id(),
            "AppId": self.model,
            "Prompt": prompt,
            **({"History": pairs} if pairs else {}),
            "Stream": call.stream,
            "HasThoughts": False,
            **self.render_parameters(top, _TOP),
            "Parameters": self.render_parameters(inner, _INNER),
        }
        if self.session_id is not None:
            body["SessionId"] = self.session_id
        headers = {
            "content-type": "application/json;charset=UTF-8",
            "accept": "text/event-stream" if call.stream else "*/*",
        }
        return self.post(f"{self.base_url}/v2/app/completions", dumps({**body, **extra}), call, headers=headers)

    def parse_event(self, state: BailianAppState, data: bytes, event: str = "") -> Iterable[Delta]:
        return self.finish(state) if data.strip() == b"[DONE]" else super().parse_event(state, data, event)

    def request_id_of(self, body: dict[str, Any]) -> Any:
        return body.get("RequestId")

    def read(self, state: BailianAppState, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        data = mapping(body["Data"])
        so_far = text(data["Text"]) if whole else text(data.get("Text")).rstrip("\ufffd")
        state.last = body
        if len(so_far) > len(state.shown):
            before, state.shown = state.shown, so_far
            yield TextDelta(so_far[len(before) :])
        if whole:
            yield _done(body)

    def finish(self, state: BailianAppState) -> Iterable[Delta]:
        """Return `Done` if any event came: the protocol has no mark for the end except the end of the body."""
        if state.ended or state.last is None:
            return ()
        state.ended = True
        with self.reading(state.last):
            return [_done(state.last)]

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        if body.get("Success") is not False and status < 400:
            return None
        code, message = str(body.get("Code") or ""), str(body.get("Message") or text)
        kind = bailian_error_class(code, message) or error_for_status(status)
        return Fault(kind, message, code, (body.get("RequestId"),))


def _done(body: dict[str, Any]) -> Done:
    data = mapping(body.get("Data"))
    counts = objects(data.get("Usage"))
    given = sum(int(count.get("InputTokens") or 0) for count in counts)
    made = sum(int(count.get("OutputTokens") or 0) for count in counts)
    return Done(
        usage=Usage(input_tokens=given, output_tokens=made, total_tokens=given + made) if counts else None,
        response_id=data.get("ResponseId"),
        raw=body,
    )


_TOP: dict[str, ParameterRule] = {
    "top_p": "TopP",
    "has_thoughts": "HasThoughts",
    "biz_params": "BizParams",
    "doc_reference_type": "DocReferenceType",
    "doc_tag_codes": "DocTagCodes",
}
_INNER: dict[str, ParameterRule] = {
    "temperature": "Temperature",
    "top_k": "TopK",
    "seed": "Seed",
    "max_tokens": "MaxTokens",
    "stop": "Stop",
    "use_raw_prompt": "UseRawPrompt",
}
