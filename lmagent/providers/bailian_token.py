"""The token of Bailian's apps: bought with an access key by the cloud call `CreateToken`, signed as its version 3.

Pure: the clock comes in, the token request goes out through the flow.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit
from uuid import uuid4

from lmagent.core.json_text import JSON
from lmagent.core.redaction import Secret
from lmagent.errors import AuthenticationFailed, InvalidResponse
from lmagent.providers.auth import TokenAuth
from lmagent.providers.bailian_errors import bailian_error_class
from lmagent.providers.base import Request
from lmagent.providers.failures import quoted
from lmagent.providers.fields import first_text, mapping

__all__ = ["BailianTokenAuth", "signed"]

_URL = "https://bailian.cn-beijing.aliyuncs.com/"
_ALGORITHM = "ACS3-HMAC-SHA256"
_MARGIN_S = 600.0


class BailianTokenAuth(TokenAuth):
    """A bearer token for app completions, kept until ten minutes before it expires.

    Args:
        access_key_id: Id of the cloud key.
        access_key_secret: The key itself.
        agent_key: Id of the workspace that the app lives in.
        url: Where tokens are made.
        new_nonce: Makes a text that is used once.
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
