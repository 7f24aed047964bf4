"""Baidu's credentials: a token bought with a key pair, IAM signatures (`bce-auth-v1`), a bearer bought with one.

Wire facts: docs/providers/wenxin.md. Pure: the clock comes in, token requests go out through the flow.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from lmagent.core.json_text import JSON
from lmagent.core.redaction import Secret
from lmagent.errors import AuthenticationFailed, ProviderError
from lmagent.providers.auth import TokenAuth
from lmagent.providers.base import Auth, AuthFlow, Request, quoted, seconds
from lmagent.providers.fields import first_text, mapping
from lmagent.providers.wenxin import BASE_URL, wenxin_error

__all__ = ["AccessTokenAuth", "BceSignatureAuth", "IamBearerAuth", "KeyPairAuth"]

_IAM_URL = "https://iam.bj.baidubce.com/v1/BCE-BEARER/token"
_BEARER_LIFE = 43200
"""Seconds, the longest the vendor's own SDK asks for."""
_SIGNATURE_LIFE = 300
_MARGIN = 0.1
"""A token is renewed when this share of its life is left, at most a day."""
_DAY = 86400.0
_EXPIRED = frozenset({"110", "111"})


class AccessTokenAuth(Auth):
    """An access token that the caller has, as the query parameter `access_token`."""

    def __init__(self, token: Secret) -> None:
        self.token = token

    def flow(self, request: Request, now: float) -> AuthFlow:
        return request.with_params(access_token=self.token.reveal())
        yield request  # a flow is a generator; this one asks for nothing


class KeyPairAuth(TokenAuth):
    """An access token of the classic API, bought with API key and secret key and kept until it expires.

    Share one object between models of one key pair and they share the token.

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
        return Request(
            url=self.url,
            content=b"{}",
            headers={"content-type": "application/json"},
            params={
                "grant_type": "client_credentials",
                "client_id": self.api_key.reveal(),
                "client_secret": self.secret_key.reveal(),
            },
        )

    def bought(self, answer: JSON, now: float) -> tuple[Secret, float]:
        error = wenxin_error(None, {}, answer)
        if error is not None:
            raise error
        token = _secret(answer, "access_token")
        life = seconds(mapping(answer).get("expires_in")) or _DAY
        return token, now + life - min(_DAY, life * _MARGIN)

    def carrying(self, request: Request, token: Secret) -> Request:
        return request.with_params(access_token=token.reveal())

    def carried_by(self, request: Request) -> str | None:
        return request.params.get("access_token")

    def is_stale(self, error: ProviderError) -> bool:
        return error.code in _EXPIRED


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


class IamBearerAuth(TokenAuth):
    """A short-lived bearer for Qianfan v2, bought with IAM keys and kept until it expires.

    Args:
        access_key: IAM access key.
        secret_key: IAM secret key.
    """

    def __init__(self, access_key: Secret, secret_key: Secret, *, url: str = _IAM_URL) -> None:
        super().__init__()
        self.signer = BceSignatureAuth(access_key, secret_key)
        self.url = url

    def asking(self, now: float) -> Request:
        asking = Request(
            method="GET",
            url=self.url,
            params={"expireInSeconds": str(_BEARER_LIFE)},
            headers={"content-type": "application/json"},
        )
        return self.signer.signed(asking, now)

    def bought(self, answer: JSON, now: float) -> tuple[Secret, float]:
        token = _secret(answer, "token")
        return token, now + _seconds_until(mapping(answer).get("expireTime"), now) * (1 - _MARGIN)


def _secret(body: JSON, name: str) -> Secret:
    fields = mapping(body)
    value = fields.get(name)
    if isinstance(value, str) and value:
        return Secret(value)
    raise AuthenticationFailed(
        f"The token endpoint gave no token: {quoted(fields.get('message') or fields.get('msg'), 'unknown answer')}.",
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
