"""Baidu's credentials: a token bought with a key pair, IAM signatures (`bce-auth-v1`), a bearer bought with one.

Wire facts: docs/providers/wenxin.md. Pure: the clock comes in, token requests go out through the flow.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from lmagent.errors import AuthenticationFailed, ProviderError
from lmagent.jsontext import JSON
from lmagent.providers.base import Auth, AuthFlow, Request
from lmagent.providers.fields import first_text, mapping
from lmagent.providers.wenxin import BASE_URL, wenxin_error
from lmagent.redaction import Secret

__all__ = ["AccessTokenAuth", "BceSignatureAuth", "IamBearerAuth", "KeyPairAuth"]

_IAM_URL = "https://iam.bj.baidubce.com/v1/BCE-BEARER/token"
_BEARER_LIFE = 43200
"""Seconds, the longest the vendor's own SDK asks for."""
_SIGNATURE_LIFE = 300
_MARGIN = 0.1
"""A token is renewed when this share of its life is left, at most a day."""
_DAY = 86400.0
_RENEWING = 60.0
"""Seconds that one call is given to renew the token for all."""
_EXPIRED = frozenset({"110", "111"})


class AccessTokenAuth(Auth):
    """An access token that the caller has, as the query parameter `access_token`."""

    def __init__(self, token: Secret) -> None:
        self.token = token

    def flow(self, request: Request, now: float) -> AuthFlow:
        return request.with_params(access_token=self.token.reveal())
        yield request  # a flow is a generator; this one asks for nothing


class KeyPairAuth(Auth):
    """An access token of the classic API, bought with API key and secret key and kept until it expires.

    Share one object between models of one key pair and they share the token.

    Args:
        api_key: Of the application.
        secret_key: Of the application.
        base_url: Host of the token endpoint.
    """

    def __init__(self, api_key: Secret, secret_key: Secret, *, base_url: str = BASE_URL) -> None:
        self.api_key = api_key
        self.secret_key = secret_key
        self.url = f"{base_url.rstrip('/')}/oauth/2.0/token"
        self._token: Secret | None = None
        self._renew_at = 0.0

    def flow(self, request: Request, now: float) -> AuthFlow:
        token = self._token
        if token is None or now >= self._renew_at:
            self._renew_at = now + _RENEWING  # calls beside this one go on with the token that is still good
            body = yield Request(
                url=self.url,
                content=b"{}",
                headers={"content-type": "application/json"},
                params={
                    "grant_type": "client_credentials",
                    "client_id": self.api_key.reveal(),
                    "client_secret": self.secret_key.reveal(),
                },
            )
            error = wenxin_error(200, {}, body)
            if error is not None:
                raise error
            token = self._token = _secret(body, "access_token")
            life = float(body.get("expires_in") or _DAY)
            self._renew_at = now + life - min(_DAY, life * _MARGIN)
        return request.with_params(access_token=token.reveal())

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        if error.code not in _EXPIRED:
            return False
        if sent is None or (self._token and sent.params.get("access_token") == self._token.reveal()):
            self._token = None
        return True

    @property
    def needs_exchange(self) -> bool:
        return self._token is None


class BceSignatureAuth(Auth):
    """Signs each request with IAM keys (`bce-auth-v1`): no token, nothing to renew.

    Args:
        access_key: IAM access key; not the application's API key.
        secret_key: IAM secret key.
    """

    def __init__(self, access_key: Secret, secret_key: Secret) -> None:
        self.access_key = access_key
        self.secret_key = secret_key

    def flow(self, request: Request, now: float) -> AuthFlow:
        return self.signed(request, now)
        yield request  # a flow is a generator; this one asks for nothing

    def signed(self, request: Request, now: float) -> Request:
        """Return `request` with `x-bce-date` and `authorization`, which cover method, path, query and host."""
        parts = urlsplit(request.url)
        date = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {"host": parts.netloc, "x-bce-date": date}
        prefix = f"bce-auth-v1/{self.access_key.reveal()}/{date}/{_SIGNATURE_LIFE}"
        key = _hmac(self.secret_key.reveal(), prefix)  # used as hex text, not as bytes
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


class IamBearerAuth(Auth):
    """A short-lived bearer for Qianfan v2, bought with IAM keys and kept until it expires.

    Args:
        access_key: IAM access key.
        secret_key: IAM secret key.
    """

    def __init__(self, access_key: Secret, secret_key: Secret, *, url: str = _IAM_URL) -> None:
        self.signer = BceSignatureAuth(access_key, secret_key)
        self.url = url
        self._token: Secret | None = None
        self._renew_at = 0.0

    def flow(self, request: Request, now: float) -> AuthFlow:
        token = self._token
        if token is None or now >= self._renew_at:
            self._renew_at = now + _RENEWING
            asking = Request(
                method="GET",
                url=self.url,
                params={"expireInSeconds": str(_BEARER_LIFE)},
                headers={"content-type": "application/json"},
            )
            body = yield self.signer.signed(asking, now)
            token = self._token = _secret(body, "token")
            life = _seconds_until(body.get("expireTime"), now)
            self._renew_at = now + life * (1 - _MARGIN)
        return request.with_headers(authorization=f"Bearer {token.reveal()}")

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        bearer = f"Bearer {self._token.reveal()}" if self._token else ""
        refused = bearer if sent is None else sent.headers.get("authorization", "")
        if not isinstance(error, AuthenticationFailed) or not refused.startswith("Bearer "):
            return False  # also a refusal of the token endpoint itself: asking again would not help
        if refused == bearer:
            self._token = None
        return True

    @property
    def needs_exchange(self) -> bool:
        return self._token is None


def _secret(body: JSON, name: str) -> Secret:
    fields = mapping(body)
    value = fields.get(name)
    if isinstance(value, str) and value:
        return Secret(value)
    raise AuthenticationFailed(
        f"The token endpoint gave no token: {fields.get('message') or fields.get('msg') or 'unknown answer'}.",
        provider="wenxin",
        code=str(fields["code"]) if fields.get("code") else None,
        request_id=first_text(fields.get("requestId")),
        body=body,
    )


def _seconds_until(moment: JSON, now: float) -> float:
    try:
        return datetime.fromisoformat(str(moment)).timestamp() - now
    except ValueError:
        return float(_BEARER_LIFE)


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
