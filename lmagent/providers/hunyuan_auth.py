"""Tencent Cloud's signature `TC3-HMAC-SHA256`. Pure: the clock comes in."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import urlsplit

from lmagent.core.redaction import Secret
from lmagent.providers.base import Auth, AuthFlow, Request

__all__ = ["TC3Auth"]

_ALGORITHM = "TC3-HMAC-SHA256"


class TC3Auth(Auth):
    """Signs requests with `TC3-HMAC-SHA256`: the bytes that are sent, the content type and the host.

    Args:
        secret_id: Id of the cloud key (`AKID…`).
        secret_key: The key itself.
        token: Session token of a temporary key.
        service: Which cloud product the signature is for.
    """

    def __init__(
        self, secret_id: Secret, secret_key: Secret, *, token: Secret | None = None, service: str = "hunyuan"
    ) -> None:
        self.secret_id = secret_id
        self.secret_key = secret_key
        self.token = token
        self.service = service

    def flow(self, request: Request, now: float) -> AuthFlow:
        headers = {name.lower(): value for name, value in request.headers.items()}
        timestamp = int(now)
        date = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
        address = urlsplit(request.url)
        canonical = (
            f"{request.method}\n{address.path or '/'}\n\n"
            f"content-type:{headers['content-type']}\nhost:{address.netloc}\n\n"
            f"content-type;host\n{hashlib.sha256(request.content).hexdigest()}"
        )
        scope = f"{date}/{self.service}/tc3_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = b"TC3" + self.secret_key.reveal().encode()
        for part in (date, self.service, "tc3_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, f"{_ALGORITHM}\n{timestamp}\n{scope}\n{digest}".encode(), "sha256").hex()
        signed = {
            "x-tc-timestamp": str(timestamp),
            "authorization": (
                f"{_ALGORITHM} Credential={self.secret_id.reveal()}/{scope}, "
                f"SignedHeaders=content-type;host, Signature={signature}"
            ),
        }
        if self.token:
            signed["x-tc-token"] = self.token.reveal()
        return request.with_headers(**signed)
        yield request  # a flow is a generator; this one asks for nothing
