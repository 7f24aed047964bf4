"""Every error of lmagent, in one tree.

    LMAgentError
    ├─ ConfigurationError            missing key, unknown model id, conflicting tools (before any request)
    │  ├─ ParameterError             a parameter out of its range                     (also ValueError)
    │  │  └─ UnknownParameter        a keyword that does not exist; .names            (also TypeError)
    │  ├─ MessageError               a message that a provider cannot express         (also ValueError)
    │  └─ FunctionDefinitionError    a function that cannot be described as JSON      (also TypeError)
    ├─ ProviderError                 provider, model, status, code, request_id, retry_after, attempts, retryable
    │  ├─ ConnectionFailed           refused, reset, DNS, TLS                         (also ConnectionError)
    │  ├─ RequestTimeout             which: connect | read | total                    (also TimeoutError)
    │  ├─ AuthenticationFailed ├─ PermissionDenied ├─ NotFound ├─ BadRequest
    │  ├─ ContextTooLong ├─ ContentFiltered
    │  ├─ RateLimited ├─ QuotaExceeded (never retried)
    │  ├─ ServerFailed ├─ Overloaded
    │  ├─ InvalidResponse ├─ ResponseTooLarge ├─ UnexpectedRedirect
    │  └─ StreamInterrupted          .partial: the message so far
    ├─ ToolError                     raised by tool authors; its text goes to the model
    │  └─ InvalidArguments           .problems, one line each
    ├─ OutputError                   structured output that never became valid; .run, .problems
    ├─ LimitExceeded                 .limit .value .run
    └─ JournalError                  locked, foreign, newer version, full disk

A message is short and redacted, and says what to do next. Its facts are attributes as well. Errors can be pickled and
copied; `to_dict()` is for logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from lmagent.core.redaction import redact, redact_value

__all__ = [
    "AuthenticationFailed", "BadRequest", "ConfigurationError", "ConnectionFailed", "ContentFiltered",
    "ContextTooLong", "FunctionDefinitionError", "InvalidArguments", "InvalidResponse", "JournalError",
    "LMAgentError", "LimitExceeded", "MessageError", "NotFound", "OutputError", "Overloaded", "ParameterError",
    "PermissionDenied", "ProviderError", "QuotaExceeded", "RateLimited", "RequestTimeout", "ResponseTooLarge",
    "ServerFailed", "StreamInterrupted", "ToolError", "UnexpectedRedirect", "UnknownParameter",
]  # fmt: skip

_MAX_MESSAGE = 500


def _clean(message: str) -> str:
    message = redact(message)
    return message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"


class LMAgentError(Exception):
    """Base class of all errors of lmagent.

    Args:
        message: What happened, with what value, and what to do. Secrets are removed, and 500 characters kept.
    """

    facts: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that `to_dict` returns besides the message."""
    run: Any = None
    """The run so far (a `RunResult`), if the error ended one; so no work is lost."""

    def __init__(self, message: str = "") -> None:
        self.message = self._shorten(message)
        super().__init__(self.message)

    _shorten = staticmethod(_clean)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))

    def to_dict(self) -> dict[str, Any]:
        """Return `{"type", "message", ...facts}` as plain JSON values, for logs and traces."""
        shown = {name: getattr(self, name, None) for name in self.facts}
        return {
            "type": type(self).__name__,
            "message": self.message,
            **{k: v for k, v in shown.items() if v is not None},
        }


def _rebuild(kind: type[LMAgentError], message: str, state: dict[str, Any]) -> LMAgentError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ConfigurationError(LMAgentError):
    """The configuration cannot work; raised before any request."""


class ParameterError(ConfigurationError, ValueError):
    """A parameter has a value that the model or the provider does not accept; the message names field and range."""


class UnknownParameter(ParameterError, TypeError):
    """A keyword is neither an option of the call nor a parameter of the model; the message names the closest known one.

    Args:
        message: As of `LMAgentError`.
        names: The unknown keywords.
    """

    def __init__(self, message: str = "", *, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class MessageError(ConfigurationError, ValueError):
    """A message or prompt has an unknown form, or the provider cannot express it."""


class FunctionDefinitionError(ConfigurationError, TypeError):
    """A function cannot be described as JSON Schema; the message names function, parameter and hint."""


class ProviderError(LMAgentError):
    """A provider failed, or refused a request. Catch the subclass you can handle.

    Args:
        message: The provider's message, shortened.
        provider: Name such as `"openai"`.
        model: Model name as sent.
        status: HTTP status, if there was one.
        code: The provider's own code, as text.
        request_id: The id of the request, which the provider's support asks for.
        retry_after: Seconds that the provider asked to wait.
        attempts: Number of requests that were made.
        retryable: Whether the same request may succeed later. The default depends on the class.
        body: The decoded error body, if any (not part of `to_dict`).
    """

    facts = ("provider", "model", "status", "code", "request_id", "retry_after", "attempts", "retryable")
    retryable_by_default: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        attempts: int = 1,
        retryable: bool | None = None,
        body: Any = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.code = redact(code) if code else code
        self.request_id = redact(request_id) if request_id else request_id
        self.retry_after = retry_after
        self.attempts = attempts
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.body = redact_value(body)

    def __str__(self) -> str:
        where = "/".join(part for part in (self.provider, self.model) if part)
        facts = {"status": self.status, "code": self.code, "request id": self.request_id}
        shown = [f"{name} {value}" for name, value in facts.items() if value]
        if self.attempts > 1:
            shown.append(f"{self.attempts} attempts")
        return f"{where}: " * bool(where) + self.message + f" ({', '.join(shown)})" * bool(shown)


class ConnectionFailed(ProviderError, ConnectionError):
    """No answer: the connection was refused or reset, or DNS or TLS failed."""

    retryable_by_default = True


class RequestTimeout(ProviderError, TimeoutError):
    """The provider took too long; `which` names the time limit that was exceeded."""

    facts = (*ProviderError.facts, "which")
    retryable_by_default = True

    def __init__(self, message: str = "", *, which: Literal["connect", "read", "total"] = "read", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.which = which


class AuthenticationFailed(ProviderError):
    """The key, token or signature is missing, wrong or expired."""


class PermissionDenied(ProviderError):
    """The key is valid, but may not use the model or feature."""


class NotFound(ProviderError):
    """No such model, deployment or path."""


class BadRequest(ProviderError):
    """The provider rejects the request as invalid."""


class ContextTooLong(BadRequest):
    """The messages are longer than the context of the model."""


class ContentFiltered(BadRequest):
    """The provider's content filter rejects the prompt."""


class RateLimited(ProviderError):
    """A rate limit is reached: too many requests or tokens at the moment."""

    retryable_by_default = True


class QuotaExceeded(ProviderError):
    """The paid or free quota is used up. Waiting does not help, so it is never retried."""


class ServerFailed(ProviderError):
    """The provider has an internal error (status 5xx)."""

    retryable_by_default = True


class Overloaded(ServerFailed):
    """The provider is available but too busy."""


class InvalidResponse(ProviderError):
    """The answer is unreadable, empty, or of an undocumented form."""


class ResponseTooLarge(ProviderError):
    """The answer is longer than the transport's limit."""


class UnexpectedRedirect(ProviderError):
    """A model endpoint answered with a redirect; it is never followed."""


class StreamInterrupted(ProviderError):
    """A stream ended before its finish reason. `partial` is the assistant message so far; its calls are not run."""

    def __init__(self, message: str = "", *, partial: Any = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.partial = partial


class ToolError(LMAgentError):
    """Raise this in a tool: its text goes to the model unchanged, except that secrets are removed."""

    _shorten = staticmethod(redact)


class InvalidArguments(ToolError):
    """The arguments of a tool call are invalid. `problems` has a line for each: path, expected and actual value."""

    def __init__(self, message: str = "", *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class OutputError(LMAgentError):
    """Structured output never matched its type. `problems` says why, `run` is the run up to then."""

    def __init__(self, message: str = "", *, problems: Sequence[str] = (), run: Any = None) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.run = run


class LimitExceeded(LMAgentError):
    """A run reached a limit. `run` is the run so far, so no work is lost.

    Args:
        message: Which limit, its value, and how to raise it.
        limit: `rounds`, `tool_calls`, `tokens`, `seconds`, `cost`, `requests`, `identical_calls`, `tool_errors` …
        value: The limit that was set.
        run: The partial `RunResult`.
    """

    facts = ("limit", "value")

    def __init__(self, message: str = "", *, limit: str = "", value: float | None = None, run: Any = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.value = value
        self.run = run


class JournalError(LMAgentError):
    """A journal or session store cannot be used: locked, foreign, newer version, full disk."""
