"""Zhipu's own dialect of 2023: the model API v3 (`invoke`, `sse-invoke`) and CharacterGLM; the key as a signed token.

v4 speaks OpenAI's dialect (`openai.variants`); it shares the table of codes and the token of this module. v3 has no
system role, no tools and no limit of length.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lmagent import errors
from lmagent.core.events import Delta, Done, TextDelta
from lmagent.core.json_text import JSON, MAX_EVENT, Frame, FramingError, SSEDecoder, dumps
from lmagent.core.redaction import Secret
from lmagent.errors import ConfigurationError, InvalidResponse, ProviderError
from lmagent.providers.base import ChatCall, Fault, ParameterRule, ReplyState, Request, SigningAuth, error_for_status
from lmagent.providers.conversation import TextOnlyCodec
from lmagent.providers.fields import by_code, ended, mapping, objects, parsed, same, text, usage_of, within
from lmagent.providers.vendors import VENDORS

__all__ = [
    "BASE_URL", "CHARACTER", "ERRORS", "CharacterCodec", "MetaDecoder", "ZhipuAuth", "ZhipuCodec", "ZhipuState",
    "unwrapped",
]  # fmt: skip

BASE_URL = VENDORS["zhipu"].api("v3").address

ERRORS = by_code(
    (errors.AuthenticationFailed, "1000 1001 1002 1003 1004"),
    (errors.PermissionDenied, "1110 1111 1112 1121 1212 1220 1221"),
    (errors.QuotaExceeded, "1113 1304 1308 1310"),
    (errors.ServerFailed, "1200 1230 1234"),
    (errors.BadRequest, "1210 1213 1214 1215 1231"),
    (errors.NotFound, "1211 1222"),
    (errors.ContextTooLong, "1261"),
    (errors.ContentFiltered, "1300 1301"),
    (errors.RateLimited, "1302 1303"),
    (errors.Overloaded, "1305 1312"),
)
"""Business code -> class, the same for v3 (numbers) and v4 (texts). HTTP 429 covers several of them."""

_EXPIRED = "1003"
_JWT_HEADER = {"alg": "HS256", "sign_type": "SIGN", "typ": "JWT"}


class ZhipuAuth(SigningAuth):
    """The key as a short-lived JSON web token, made for each request: that takes microseconds, and no token expires.

    Args:
        secret: The key, `<id>.<secret>`.
        scheme: Put before the token: empty for v3, `"Bearer"` for v4.
        lifetime_s: How long a token is valid.

    Raises:
        ConfigurationError: The key does not have that form.
    """

    def __init__(self, secret: Secret, *, scheme: str = "", lifetime_s: float = 180.0) -> None:
        key_id, _, rest = secret.reveal().partition(".")
        if not key_id or not rest or "." in rest:
            raise ConfigurationError(f"A Zhipu key has the form <id>.<secret>, with one dot; {secret} has not.")
        self.secret = secret
        self.scheme = scheme
        self.lifetime_s = lifetime_s

    def signed(self, request: Request, now: float) -> Request:
        token = self.token(now)
        return request.with_headers(authorization=f"{self.scheme} {token}" if self.scheme else token)

    def token(self, now: float) -> str:
        """Return the token for this moment (seconds since 1970). Its own times are milliseconds."""
        key_id, _, secret = self.secret.reveal().partition(".")
        issued = round(now * 1000)
        payload = {"api_key": key_id, "exp": issued + round(self.lifetime_s * 1000), "timestamp": issued}
        signed = f"{_segment(dumps(_JWT_HEADER))}.{_segment(dumps(payload))}"
        return f"{signed}.{_segment(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        """Return True if the token arrived too late, so that the call is repeated once with a new one."""
        return isinstance(error, errors.AuthenticationFailed) and error.code == _EXPIRED


def _segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class MetaDecoder(SSEDecoder):
    """Server-sent events with Zhipu's own `meta:` field, which has the usage and which ordinary decoders drop.

    An event with a `meta:` line gives two frames: the meta as an event `"meta"`, then the event itself. Events without
    data are kept: a `finish` may be empty.
    """

    __slots__ = ("_meta",)

    def __init__(self) -> None:
        super().__init__()
        self._meta: list[bytes] = []

    def _take(self, lines: list[bytes]) -> list[Frame]:
        frames: list[Frame] = []
        for line in lines:
            if not line:
                frames.extend(self._end())
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                self._event = value.strip().decode("utf-8", "replace")
            elif name in (b"data", b"meta"):
                (self._data if name == b"data" else self._meta).append(value)
                self._size += len(value)
                if self._size > MAX_EVENT:
                    raise FramingError(f"an event of the stream is longer than {MAX_EVENT} bytes")
        return frames

    def _end(self) -> Iterator[Frame]:
        if self._meta:
            yield Frame(b"\n".join(self._meta), "meta")
        if self._data or self._event:
            # Several data lines are one text with line breaks; two empty lines are one line break.
            yield Frame(b"\n".join(self._data), self._event)
        self._data, self._meta, self._event, self._size = [], [], "", 0


@dataclass(slots=True)
class ZhipuState(ReplyState):
    """One stream: its meta, and the text so far if each event repeats it."""

    meta: dict[str, Any] | None = None
    shown: str = ""


class ZhipuCodec(TextOnlyCodec):
    """The model API v3.

    Args:
        model: Model name, such as `"chatglm_turbo"`; part of the path.
        base_url: Up to `/model-api`.
        incremental: True: a stream sends pieces (the API's default). False: each event repeats the whole text. None:
            not sent.
    """

    provider = "zhipu"
    framing = MetaDecoder
    state_class = ZhipuState

    def __init__(self, model: str, *, base_url: str = BASE_URL, incremental: bool | None = None) -> None:
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.incremental = incremental

    def build_request(self, call: ChatCall) -> Request:
        body: dict[str, Any] = {"prompt": self.turns(call), **self._own()}
        if call.stream and self.incremental is not None:
            body["incremental"] = self.incremental
        body |= self.render_parameters(call.parameters, self.parameters)
        return self.post(f"{self.base_url}/{self.model}/{'sse-invoke' if call.stream else 'invoke'}", dumps(body), call)

    def _own(self) -> dict[str, Any]:
        return {}

    @property
    def parameters(self) -> Mapping[str, ParameterRule]:
        """The rules for parameters."""
        return _PARAMETERS

    def request_id_of(self, body: dict[str, Any]) -> Any:
        return mapping(body.get("data")).get("request_id")

    def read(self, state: ZhipuState, body: JSON, *, whole: bool = False) -> Iterator[Delta]:
        """Yield the deltas of a complete answer; the events of a stream are no JSON objects."""
        data = body["data"]
        yield TextDelta(unwrapped(text(objects(data["choices"])[0].get("content"))))
        yield _done(data, body)

    def parse_event(self, state: ZhipuState, data: bytes, event: str = "") -> Iterable[Delta]:
        if state.ended:
            return ()
        shown = data.decode("utf-8", "replace")
        match event:
            case "meta":
                state.meta = mapping(parsed(shown)) or None
            case "add" | "":
                return self._text(state, shown)
            case "finish":
                state.ended = True
                with self.reading(state.meta):
                    return [*self._text(state, shown), _done(state.meta or {}, state.meta)]
            case "interrupted":
                # The service stopped the answer because of its content; the text so far is kept.
                body = mapping(parsed(shown))
                error = self.parse_error(200, {}, body)
                if error is None or isinstance(error, errors.ContentFiltered):
                    state.ended = True
                    return [_done(state.meta or {}, body or shown, "interrupted")]
                raise error
            case "error":
                body = mapping(parsed(shown))
                raise self.parse_error(200, {}, body) or self.failure(InvalidResponse, shown, status=200)
            case _:
                pass
        return ()

    def _text(self, state: ZhipuState, shown: str) -> list[Delta]:
        if self.incremental is False:
            before, state.shown = state.shown, shown or state.shown
            shown = shown[len(before) :]
        return [TextDelta(shown)] if shown else []

    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        data, task_failed = mapping(body.get("data")), False
        if status < 400:
            task_failed = data.get("task_status") == "FAIL"
            is_error = bool(body.get("error")) or body.get("success") is False
            if not (is_error or task_failed or body.get("code") not in (None, 200, "200", 0, "0")):
                return None
        inner = mapping(body.get("error")) or body
        code = str(inner.get("code") or "")
        kind = ERRORS.get(code, errors.ServerFailed if task_failed else error_for_status(status))
        ids = (body.get("request_id"), data.get("request_id"))
        return Fault(kind, inner.get("msg") or inner.get("message"), code, ids)


CHARACTER: Mapping[str, str] = {
    "user_info": "我是User",
    "bot_info": "耐心的助手",
    "bot_name": "Assistant",
    "user_name": "User",
}
"""The default card of a role play: who speaks to whom."""


class CharacterCodec(ZhipuCodec):
    """CharacterGLM, for role play: v3 with a card of the two characters in `meta`.

    Args:
        model: Model name.
        base_url: Up to `/model-api`.
        incremental: As in `ZhipuCodec`.
        meta: The card, over `CHARACTER`. The parameter `meta` of a call goes over this one.
    """

    provider = "zhipu-character"

    def __init__(
        self,
        model: str = "characterglm",
        *,
        base_url: str = BASE_URL,
        incremental: bool | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(model, base_url=base_url, incremental=incremental)
        self.meta = {**CHARACTER, **(meta or {})}

    def _own(self) -> dict[str, Any]:
        return {"meta": self.meta}

    @property
    def parameters(self) -> Mapping[str, ParameterRule]:
        return {**_PARAMETERS, "meta": lambda card: {"meta": {**self.meta, **card}}}


def unwrapped(content: str) -> str:
    """Return the text of an answer; v3 puts it in quotes, like a JSON string, with a space in front."""
    if len(content) >= 2 and content[0] == content[-1] == '"':
        value = parsed(content)
        content = value if isinstance(value, str) else content[1:-1]
    return content.removeprefix(" ")


def _done(data: dict[str, Any], raw: JSON, interrupted: str = "") -> Done:
    return ended(
        interrupted,
        raw,
        usage=usage_of(data.get("usage")),
        response_id=data.get("task_id"),
        finish_reason="content_filter" if interrupted else "stop",
    )


_PARAMETERS: Mapping[str, ParameterRule] = {
    "temperature": within("temperature", 0, 1, sent=(0.01, 0.99)),
    "top_p": within("top_p", 0, 1, sent=(0.01, 0.99)),
    **same("request_id", "return_type", "ref"),
}
