"""Credentials that many dialects have: a key in a header, a token bought with other keys. Signers live with theirs."""

from __future__ import annotations

from abc import abstractmethod

from lmagent.core.json_text import JSON
from lmagent.core.redaction import Secret
from lmagent.errors import AuthenticationFailed, ProviderError
from lmagent.providers.base import Auth, AuthFlow, Request

__all__ = ["BearerAuth", "HeaderAuth", "TokenAuth"]

_BEARER = "Bearer "
_RENEWING_S = 60.0
"""What one call is given to renew a token for all."""


class HeaderAuth(Auth):
    """The key as the value of one header.

    Args:
        secret: The key.
        header: Header name.
        prefix: Text in front of the key, such as `"Bearer "`.
    """

    def __init__(self, secret: Secret, header: str, prefix: str = "") -> None:
        self.secret = secret
        self.header = header
        self.prefix = prefix

    def flow(self, request: Request, now: float) -> AuthFlow:
        return request.with_headers(**{self.header: self.prefix + self.secret.reveal()})
        yield request  # a flow is a generator; this one asks for nothing


class BearerAuth(HeaderAuth):
    """`Authorization: Bearer <key>`."""

    def __init__(self, secret: Secret) -> None:
        super().__init__(secret, "authorization", _BEARER)


class TokenAuth(Auth):
    """A token bought with keys: kept, renewed by one call before it expires, dropped when the provider refuses it.

    Subclasses say how to ask for it and what the answer holds; the token travels as a bearer unless they say otherwise.
    """

    def __init__(self) -> None:
        self._token: Secret | None = None
        self._renew_at = 0.0

    @abstractmethod
    def asking(self, now: float) -> Request:
        """Return the request that buys a token."""

    @abstractmethod
    def bought(self, answer: JSON, now: float) -> tuple[Secret, float]:
        """Return the token and the time from which a new one is bought.

        Raises:
            ProviderError: The answer is a refusal.
        """

    def carrying(self, request: Request, token: Secret) -> Request:
        """Return `request` with the token."""
        return request.with_headers(authorization=_BEARER + token.reveal())

    def carried_by(self, request: Request) -> str | None:
        """Return the token that a request carries."""
        value = request.headers.get("authorization", "")
        return value.removeprefix(_BEARER) if value.startswith(_BEARER) else None

    def is_stale(self, error: ProviderError) -> bool:
        """Whether the error says that the token is no good any more."""
        return isinstance(error, AuthenticationFailed)

    def flow(self, request: Request, now: float) -> AuthFlow:
        token = self._token
        if token is None or now >= self._renew_at:
            self._renew_at = now + _RENEWING_S  # calls beside this one go on with the token that is still good
            answer = yield self.asking(now)
            token, self._renew_at = self.bought(answer, now)
            self._token = token
        return self.carrying(request, token)

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        kept = self._token.reveal() if self._token else None
        refused = kept if sent is None else self.carried_by(sent)
        if refused is None or not self.is_stale(error):
            return False  # also where the keys were refused, not the token: asking again would not help
        if refused == kept:
            self._token = None
        return True

    @property
    def needs_exchange(self) -> bool:
        return self._token is None
