"""What every dialect is: a `Codec`, five pure functions between our values and one HTTP exchange.

Nothing here opens a socket, reads a clock, the environment or a file. A codec is a value: it is shared between
conversations and threads, and what belongs to one stream lives in the state that `new_state` makes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from lmagent.core.events import Delta
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.json_text import JSON, Framing, SSEDecoder, dumps
from lmagent.core.messages import Message, Reply
from lmagent.core.redaction import Secret
from lmagent.errors import (
    AuthenticationFailed,
    BadRequest,
    InvalidResponse,
    MessageError,
    NotFound,
    Overloaded,
    ParameterError,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServerFailed,
)
from lmagent.toolkit.schema import OutputSchema, ToolSpec

__all__ = [
    "Auth",
    "AuthFlow",
    "BearerAuth",
    "ChatCall",
    "Codec",
    "Features",
    "HeaderAuth",
    "Meter",
    "NamedTool",
    "ParameterRule",
    "Request",
    "TokenAuth",
    "ToolChoice",
    "class_of",
    "error_for_status",
    "joined",
    "quoted",
    "retry_after",
    "seconds",
]

_MAX_QUOTE = 200


def class_of(code: str, table: Mapping[str, type[ProviderError]]) -> type[ProviderError] | None:
    """Return the class of a dotted code: what the table has for `A.B.C`, else for `A.B`, else for `A`."""
    while code and code not in table:
        code = code.rpartition(".")[0]
    return table.get(code)


def quoted(words: object, otherwise: str = "") -> str:
    """Return what may be shown of a text from outside: short, no control characters, an HTML page only named."""
    text = words.strip() if isinstance(words, str) else ""
    if not text:
        return otherwise
    if text.startswith("<"):
        return "an HTML or XML page, not an answer of the API"
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:_MAX_QUOTE])
    return shown + "…" * (len(text) > _MAX_QUOTE)


def seconds(value: JSON) -> float | None:
    """Return a wait as seconds: a number, its text, or a text with the unit s (`"27s"`); None for all else."""
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("s"))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait that the headers give in numbers.

    A date needs a clock, so it is left to the transport, as is `x-should-retry`, which is about any answer.
    """
    thousandths = seconds(headers.get("retry-after-ms"))
    return thousandths / 1000 if thousandths is not None else seconds(headers.get("retry-after"))


@fast_dataclass(frozen=True)
class NamedTool:
    """A tool choice: this tool must be called."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "required", "none"] | NamedTool
"""`auto`: the model decides. `required`: some tool must be called. `none`: no call. `NamedTool`: that tool."""


class Meter(Protocol):
    """Counts what a call costs; a budget is one."""

    def before_request(self, model_id: str) -> None:
        """Called before each request, repeats included. Raises to forbid it."""
        ...

    def after_reply(self, reply: Reply) -> None:
        """Called with each whole reply."""
        ...


@fast_dataclass(frozen=True, kw_only=True)
class ChatCall:
    """One whole question to a model."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Checked parameters that were set, by their neutral names."""
    tool_choice: ToolChoice = "auto"
    output_schema: OutputSchema | None = None
    stream: bool = False
    meter: Meter | None = field(default=None, compare=False, repr=False)
    """Told of every request that is sent for it."""
    position: int | None = field(default=None, compare=False, repr=False)
    """How many messages the conversation has, where a hook may send fewer: two replies must not mint the same ids."""
    repair: bool = field(default=True, compare=False)
    """Whether broken JSON in calls that are read from text is mended, where that loses nothing."""


@fast_dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. The bytes are final: a signer signs exactly what is sent."""

    url: str
    content: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    params: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Query parameters beside those in `url`; secrets go here, not into `url`."""

    def with_headers(self, **headers: str) -> Request:
        """Return the request with these headers (underscores become hyphens)."""
        return replace(self, headers={**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def with_params(self, **params: str) -> Request:
        """Return the request with these query parameters."""
        return replace(self, params={**self.params, **params})


AuthFlow: TypeAlias = "Generator[Request, JSON, Request]"
"""Yields token requests, receives their decoded bodies, returns the request ready to send."""


class Auth(ABC):
    """Puts credentials on a request. State (a cached token) is guarded by the transport: one refresh at a time."""

    @abstractmethod
    def flow(self, request: Request, now: float) -> AuthFlow:
        """Sign `request`.

        Args:
            request: What is to be sent.
            now: Wall clock, seconds since 1970.

        Raises:
            AuthenticationFailed: The token endpoint refused.
        """

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        """Drop a cached token after `error`; True when a new one may help, so the call is repeated once.

        Args:
            error: What the provider answered.
            sent: The request with the credentials it was refused with: a token that another call has renewed
                meanwhile is kept.
        """
        return False

    @property
    def needs_exchange(self) -> bool:
        """Whether the next `flow` will ask for a token (then flows are run one at a time)."""
        return False


@fast_dataclass(frozen=True, kw_only=True)
class Features:
    """What a dialect can do: data that the docs' table, `lmagent models` and prompt mode read."""

    tools: bool = True
    """Native function calls."""
    parallel_calls: bool = True
    stream: bool = True
    stream_tools: bool = True
    tool_choice: frozenset[Literal["auto", "required", "none", "named"]] = frozenset(
        {"auto", "required", "none", "named"}
    )
    """What of `ToolChoice` the dialect has words for."""
    images: bool = True
    json_schema: Literal["schema", "object", "none"] = "schema"
    """Structured output: by schema, only as some JSON object, or not at all."""
    system: bool = True
    """False: no place for a system prompt; it is put in front of the first user message."""
    stop: bool = True
    """Stop sequences."""
    reasoning: bool = False
    constrained: Literal["", "json_schema", "grammar"] = ""
    """How decoding can be constrained in prompt mode: by response format, by grammar, or not."""


ParameterRule: TypeAlias = "str | Callable[[Any], dict[str, Any]]"
"""A wire name, or a function that renders the value (ranges, nearest values, nesting)."""


class Codec(ABC):
    """A dialect bound to a model name and a base URL."""

    provider: ClassVar[str]
    """The first part of the model id."""
    features: Features = Features()
    reads_text: ClassVar[bool] = False
    """Whether it lifts calls out of the text of a reply itself."""
    framing: Callable[[], Framing] = SSEDecoder
    """Makes the decoder that cuts a streamed body into frames."""
    model: str

    @property
    def model_id(self) -> str:
        """`provider/model`."""
        return f"{self.provider}/{self.model}"

    def for_call(self, call: ChatCall) -> Codec:
        """Return the codec that reads the answer to `call`: itself, unless reading needs to know the question."""
        return self

    @abstractmethod
    def build_request(self, call: ChatCall) -> Request:
        """Render `call` as one request.

        Raises:
            MessageError: The dialect cannot express a message.
            ParameterError: The dialect cannot express a parameter.
        """

    @abstractmethod
    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        """Read a whole answer.

        Args:
            body: The decoded JSON body.
            prefix: For minted call ids, as in `ReplyBuilder`.

        Raises:
            InvalidResponse: The shape is unknown.
        """

    @abstractmethod
    def new_state(self) -> Any:
        """Return the state of ONE stream."""

    @abstractmethod
    def parse_event(self, state: Any, data: bytes, event: str = "") -> Iterable[Delta]:
        """Translate one frame. May give nothing or several deltas; `Done` comes last, when the reply is whole.

        Raises:
            ProviderError: The frame is an error of the provider.
        """

    def finish(self, state: Any) -> Iterable[Delta]:
        """Say what is left when the body ended: `Done` if the dialect has no end mark and the reply is whole."""
        return ()

    @abstractmethod
    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        """Sort a failure, also one hidden in a 200 body; None means all is well.

        Args:
            status: HTTP status.
            headers: Lower-case names.
            body: The decoded body, or None when it is no JSON.
            text: The start of the body as text, for messages.
        """

    def check(self, body: JSON) -> None:
        """Raise the failure that hides in a body of status 200, if there is one."""
        error = self.parse_error(200, {}, body)
        if error is not None:
            raise error

    def failure(
        self,
        kind: type[ProviderError],
        message: object,
        *,
        status: int,
        headers: Mapping[str, str],
        body: JSON | None,
        text: str = "",
        code: object = None,
        request_ids: Iterable[object] = (),
    ) -> ProviderError:
        """Return an error of this provider, with as much of its words as may be shown.

        Args:
            kind: Its class.
            message: The provider's words.
            status: HTTP status.
            headers: Lower-case names; they may ask for a wait.
            body: The decoded body.
            text: The start of the body, shown where there are no words.
            code: The provider's own; 0 and the empty text are none.
            request_ids: Where the id of the request may stand, the best place first.
        """
        return kind(
            quoted(message) or quoted(text, f"HTTP status {status} without a message"),
            provider=self.provider,
            model=self.model,
            status=status,
            code=str(code) if code not in (None, 0, "") else None,
            request_id=next((str(one) for one in request_ids if one), None),
            retry_after=retry_after(headers),
            body=body,
        )

    @contextmanager
    def reading(self, body: JSON) -> Generator[None]:
        """Turn a missing or mistyped required field into `InvalidResponse`."""
        try:
            yield
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ProviderError):
                raise
            raise InvalidResponse(
                f"The answer has an unknown shape ({type(error).__name__}: {error}).",
                provider=self.provider,
                model=self.model,
                body=body,
            ) from error

    def render_parameters(self, given: Mapping[str, Any], rules: Mapping[str, ParameterRule]) -> dict[str, Any]:
        """Translate checked parameters to the dialect's names.

        Args:
            given: Neutral name -> value; `extra_body` (a dict) is merged last, `extra_headers` is left to the caller.
            rules: Neutral name -> the wire name, or a function from the value to a dict of wire members.

        Raises:
            ParameterError: The dialect has no word for a parameter, or refuses its value. Nothing is dropped silently.
        """
        body: dict[str, Any] = {}
        for name, value in given.items():
            if name in ("extra_body", "extra_headers"):
                continue
            rule = rules.get(name)
            if rule is None:
                raise ParameterError(
                    f"{self.provider} has no parameter {name!r} (given {value!r}). It takes {sorted(rules)}; "
                    "send a key of its own through extra_body={...}."
                )
            try:
                body.update({rule: value} if isinstance(rule, str) else rule(value))
            except ParameterError as error:
                raise ParameterError(f"{self.provider}: {error}") from error
        return body | dict(given.get("extra_body") or {})

    def post(
        self,
        url: str,
        content: bytes,
        call: ChatCall,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Request:
        """Return a POST of JSON, with the headers that the user adds to `call`."""
        given: Mapping[str, str] = call.parameters.get("extra_headers") or {}
        return Request(
            url=url,
            content=content,
            headers={"content-type": "application/json", **(headers or {}), **given},
            params=params or {},
        )

    def refuse(self, what: str) -> MessageError:
        """Return the error for something this dialect cannot express."""
        return MessageError(f"{self.provider} cannot express {what}.")

    def refuse_tools(self, call: ChatCall) -> None:
        """Raise `MessageError` when a model without function calls may call tools."""
        if call.tools and call.tool_choice != "none":
            raise self.refuse(f"function calls with {self.model!r}; use tool_mode='prompt'")


def joined(head: Mapping[str, Any], parts: Mapping[str, list[bytes]]) -> bytes:
    """Encode a JSON object whose long arrays are encoded already.

    Args:
        head: Ordinary members.
        parts: Members that are arrays, given as the bytes of their items.
    """
    # Everything is separated by commas, the members as well as the items: one join copies a long body once, not six
    # times (0.2 us less for each message of 300 characters).
    pieces: list[bytes] = []
    for name, items in parts.items():
        first = len(pieces)
        pieces += items or [b""]
        pieces[first] = b'"' + name.encode() + b'":[' + pieces[first]
        pieces[-1] += b"]"
    if head or not pieces:
        pieces.append(dumps(dict(head))[1:-1])
    pieces[0] = b"{" + pieces[0]
    pieces[-1] += b"}"
    return b",".join(pieces)


_BY_STATUS: dict[int, type[ProviderError]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    402: QuotaExceeded,
    403: PermissionDenied,
    404: NotFound,
    408: RequestTimeout,
    413: BadRequest,
    422: BadRequest,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}


def error_for_status(status: int) -> type[ProviderError]:
    """Return the class that an HTTP status alone speaks for; codecs refine it by the provider's code."""
    return _BY_STATUS.get(status) or (
        ServerFailed if status >= 500 else BadRequest if status >= 400 else InvalidResponse
    )


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
