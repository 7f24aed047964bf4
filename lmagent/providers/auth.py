"""Credentials that need no exchange: a key in a header. Signers live with their dialect."""

from __future__ import annotations

from lmagent.providers.base import Auth, AuthFlow, Request
from lmagent.redaction import Secret

__all__ = ["BearerAuth", "HeaderAuth"]


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
        super().__init__(secret, "authorization", "Bearer ")
