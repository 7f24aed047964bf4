"""The contract of a dialect: the values of one call, the `Codec` that translates them, the `Auth` that signs requests.

A codec is pure: no socket, clock, environment or file. It is shared between conversations and threads, so the state of
one stream lives in the object that `new_state` returns. An `Auth` receives the time as an argument.

Over 400 lines because these abstract classes and the values in their signatures are one contract, and every dialect,
transport and driver reads it as a whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, cast

from lmagent import errors
from lmagent.core.events import Delta, ReplyBuilder
from lmagent.core.fast_dataclass import fast_dataclass
from lmagent.core.json_text import JSON, Framing, JSONError, SSEDecoder, loads
from lmagent.core.messages import Message, Reply, Usage
from lmagent.core.redaction import Secret
from lmagent.errors import InvalidResponse, MessageError, ParameterError, ProviderError
from lmagent.providers.fields import ParameterRule, failure, mapping
from lmagent.toolkit.schema import OutputSchema, ToolSpec

__all__ = [
    "Auth", "AuthFlow", "BearerAuth", "ChatCall", "Codec", "EventCodec", "Fault", "Features", "HeaderAuth", "Meter",
    "NamedTool", "ParameterRule", "ReplyState", "Request", "SigningAuth", "TokenAuth", "ToolChoice", "error_for_status",
]  # fmt: skip


@fast_dataclass(frozen=True)
class NamedTool:
    """A tool choice: this tool must be called."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "required", "none"] | NamedTool
"""`auto`: the model decides. `required`: some tool must be called. `none`: no call. `NamedTool`: that tool."""


class Meter(Protocol):
    """Counts what a call costs; a budget is one."""

    def before_request(self, model_id: str) -> None:
        """Called before each request, retries included. Raises to forbid it."""
        ...

    def after_reply(self, reply: Reply) -> None:
        """Called with each complete reply."""
        ...


@fast_dataclass(frozen=True, kw_only=True)
class ChatCall:
    """One complete question to a model."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The parameters that were set, validated, by their neutral names."""
    tool_choice: ToolChoice = "auto"
    output_schema: OutputSchema | None = None
    stream: bool = False
    meter: Meter | None = field(default=None, compare=False, repr=False)
    """Called for every request that is sent for this call."""
    position: int | None = field(default=None, compare=False, repr=False)
    """Number of messages in the conversation, also if a hook sends fewer. Minted call ids depend on it, so that two
    replies never mint the same ones."""
    repair: bool = field(default=True, compare=False)
    """Whether broken JSON of calls that are read from text is repaired, where the repair loses nothing."""


@fast_dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. The bytes are final: a signature covers exactly what is sent."""

    url: str
    content: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    params: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Query parameters besides those in `url`; secrets go here, not into `url`."""

    def with_headers(self, **headers: str) -> Request:
        """Return the request with these headers added (underscores become hyphens)."""
        return replace(self, headers={**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def with_params(self, **params: str) -> Request:
        """Return the request with these query parameters added."""
        return replace(self, params={**self.params, **params})


@fast_dataclass(frozen=True, kw_only=True)
class Features:
    """What a dialect can do, as data that the docs' table, `lmagent models` and prompt mode read."""

    tools: bool = True
    """Native function calls."""
    parallel_calls: bool = True
    stream: bool = True
    stream_tools: bool = True
    tool_choice: frozenset[Literal["auto", "required", "none", "named"]] = frozenset(
        {"auto", "required", "none", "named"}
    )
    """The values of `ToolChoice` that the dialect can express."""
    images: bool = True
    json_schema: Literal["schema", "object", "none"] = "schema"
    """Structured output: by schema, only as some JSON object, or not at all."""
    system: bool = True
    """False: the dialect has no system prompt; its text is put in front of the first user message."""
    stop: bool = True
    """Stop sequences."""
    reasoning: bool = False
    constrained: Literal["", "json_schema", "grammar"] = ""
    """How prompt mode can constrain decoding: by response format, by grammar, or not at all."""


class Codec(ABC):
    """A dialect bound to a model name and a base URL."""

    provider: ClassVar[str]
    """First part of the model id."""
    features: Features = Features()
    reads_text: ClassVar[bool] = False
    """True if the codec itself reads calls out of the text of a reply."""
    framing: Callable[[], Framing] = SSEDecoder
    """Makes the decoder that cuts a streamed body into frames."""
    model: str

    @property
    def model_id(self) -> str:
        """`provider/model`."""
        return f"{self.provider}/{self.model}"

    def for_call(self, call: ChatCall) -> Codec:
        """Return the codec that reads the answer to `call`: itself, unless reading depends on the question."""
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
        """Read a complete answer.

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
        """Translate one frame to any number of deltas. `Done` comes last, when the reply is complete.

        Raises:
            ProviderError: The frame is an error of the provider.
        """

    def finish(self, state: Any) -> Iterable[Delta]:
        """Return the final deltas at the end of the body: `Done` if the dialect has no end mark and the reply is
        complete."""
        return ()

    @abstractmethod
    def parse_error(self, status: int, headers: Mapping[str, str], body: JSON, text: str = "") -> ProviderError | None:
        """Return the error in an answer, also one in a body of status 200; None if the answer is no error.

        Args:
            status: HTTP status.
            headers: Lower-case names.
            body: The decoded body, or None if it is not JSON.
            text: The start of the body as text, for messages.
        """

    def check(self, body: JSON) -> None:
        """Raise the error in a body of status 200, if there is one."""
        error = self.parse_error(200, {}, body)
        if error is not None:
            raise error

    def reply_of(self, body: JSON, deltas: Iterable[Delta], *, prefix: str, request_id: str | None = None) -> Reply:
        """Return the reply that `deltas` make.

        Args:
            body: The decoded body, for errors.
            deltas: Read from `body`, lazily: what is wrong with a field becomes `InvalidResponse`.
            prefix: For minted call ids.
            request_id: The service's id of the request, if the body has one.
        """
        builder = ReplyBuilder(prefix)
        with self.reading(body):
            for delta in deltas:
                builder.add(delta)
            return builder.reply(self.model_id, request_id=request_id)

    def failure(self, kind: type[ProviderError], message: object, **facts: Any) -> ProviderError:
        """Return an error of this provider and model; the arguments are those of `fields.failure`."""
        return failure(kind, message, provider=self.provider, model=self.model, **facts)

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

    def object_of(self, data: bytes) -> dict[str, Any]:
        """Return the JSON object in one frame of a stream.

        Raises:
            InvalidResponse: The frame holds something else.
        """
        cause: JSONError | None = None
        try:
            value: JSON = loads(data)
        except JSONError as error:
            value, cause = None, error
        if isinstance(value, dict):
            return cast("dict[str, Any]", value)
        shown = data[:200].decode("utf-8", "replace")
        raise InvalidResponse(
            f"A frame of the stream is not a JSON object: {shown!r}", provider=self.provider, model=self.model
        ) from cause

    def render_parameters(self, given: Mapping[str, Any], rules: Mapping[str, ParameterRule]) -> dict[str, Any]:
        """Translate validated parameters to the dialect's names.

        Args:
            given: Neutral name -> value; `extra_body` (a dict) is merged last, `extra_headers` is left to the caller.
            rules: Neutral name -> the wire name, or a function from the value to a dict of wire members.

        Raises:
            ParameterError: The dialect has no such parameter, or refuses the value. Nothing is dropped silently.
        """
        body: dict[str, Any] = {}
        for name, value in given.items():
            if name in ("extra_body", "extra_headers"):
                continue
            rule = rules.get(name)
            if rule is None:
                raise ParameterError(
                    f"{self.provider} has no parameter {name!r} (given {value!r}). It takes {sorted(rules)}; "
                    "send other keys through extra_body={...}."
                )
            try:
                body.update({rule: value} if isinstance(rule, str) else rule(value))
            except ParameterError as error:
                raise ParameterError(f"{self.provider}: {error}") from error
        return body | dict(given.get("extra_body") or {})

    def choice_of(self, call: ChatCall) -> ToolChoice:
        """Return the tool choice as the dialect can express it: `required` with one tool may become that tool by name.

        Raises:
            ParameterError: The dialect cannot express it, or no tool has that name.
        """
        choice, known = call.tool_choice, self.features.tool_choice
        if choice == "auto":
            return "auto"
        names = [tool.name for tool in call.tools]
        if choice == "required" and "required" not in known and len(names) == 1:
            choice = NamedTool(names[0])
        word = "named" if isinstance(choice, NamedTool) else choice
        if word not in known:
            raise ParameterError(
                f"{self.provider} has no tool_choice={call.tool_choice!r}; it takes {sorted(known)}. "
                "With tool_mode='prompt' every choice works."
            )
        if (isinstance(choice, NamedTool) and choice.name not in names) or (choice == "required" and not names):
            raise ParameterError(f"tool_choice={choice!r} needs that tool among the tools, which are {names}.")
        return choice

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
        """Return the error for something that this dialect cannot express."""
        return MessageError(f"{self.provider} cannot express {what}.")

    def refuse_empty(self) -> MessageError:
        """Return the error for a history without content."""
        return self.refuse("a history in which no message has any content")

    def refuse_tools(self, call: ChatCall) -> None:
        """Raise `MessageError` if a model without function calls may call tools."""
        if call.tools and call.tool_choice != "none":
            raise self.refuse(f"function calls with {self.model!r}; use tool_mode='prompt'")

    def refuse_longer(self, count: int, most: int | None) -> None:
        """Raise `MessageError` if a history of `count` messages is longer than the API takes."""
        if most is not None and count > most:
            raise self.refuse(f"{count} messages; it takes at most {most} (shorten the history)")


class Fault(NamedTuple):
    """An error as a dialect reads it from an answer."""

    kind: type[ProviderError]
    message: object
    code: object = None
    """The provider's error code; 0 and the empty text mean none."""
    request_ids: tuple[object, ...] = ()
    """Where the request id may be, best place first."""
    suffix: str = ""
    """Put after the message."""


@fast_dataclass()
class ReplyState:
    """The state of one reply: what most dialects keep."""

    ended: bool = False
    usage: Usage | None = None
    last: JSON = None
    """The last event that `Done` may be made from."""


class EventCodec(Codec):
    """A dialect whose answers and stream events are JSON objects of much the same shape: one `read` for both."""

    state_class: ClassVar[type[Any]] = ReplyState

    @abstractmethod
    def read(self, state: Any, body: JSON, *, whole: bool = False) -> Iterable[Delta]:
        """Yield the deltas of one event, or of a complete answer (`whole`)."""

    @abstractmethod
    def fault(self, status: int, headers: Mapping[str, str], body: dict[str, Any], text: str) -> Fault | None:
        """Return the error in an answer, or None; the arguments are those of `parse_error`."""

    def request_id_of(self, body: dict[str, Any]) -> Any:
        """Return the id of the request in a complete answer, if the service puts it there."""
        return None

    def new_state(self) -> Any:
        return self.state_class()

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        deltas, request_id = self.read(self.new_state(), body, whole=True), self.request_id_of(mapping(body))
        return self.reply_of(body, deltas, prefix=prefix, request_id=request_id)

    def parse_event(self, state: Any, data: bytes, event: str = "") -> Iterable[Delta]:
        if state.ended or data.strip() == b"[DONE]":
            return ()
        body = self.object_of(data)
        self.check(body)
        with self.reading(body):
            return list(self.read(state, body))

    def parse_error(self, status: int, headers: Mapping[str, str], body: JSON, text: str = "") -> ProviderError | None:
        found = self.fault(status, headers, mapping(body), text)
        if found is None:
            return None
        kind, message, code, ids, suffix = found
        facts = {"text": text, "suffix": suffix, "code": code, "request_ids": ids}
        return self.failure(kind, message, status=status, headers=headers, body=body, **facts)


_BY_STATUS: dict[int, type[ProviderError]] = {
    400: errors.BadRequest,
    401: errors.AuthenticationFailed,
    402: errors.QuotaExceeded,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    408: errors.RequestTimeout,
    413: errors.BadRequest,
    422: errors.BadRequest,
    429: errors.RateLimited,
    503: errors.Overloaded,
    529: errors.Overloaded,
}


def error_for_status(status: int) -> type[ProviderError]:
    """Return the error class of an HTTP status; codecs refine it by the provider's code."""
    return _BY_STATUS.get(status) or (
        errors.ServerFailed if status >= 500 else errors.BadRequest if status >= 400 else InvalidResponse
    )


AuthFlow: TypeAlias = "Generator[Request, JSON, Request]"
"""Yields token requests, receives their decoded bodies, returns the request ready to send."""


class Auth(ABC):
    """Puts credentials on a request. The transport guards its state (a cached token): one renewal at a time."""

    @abstractmethod
    def flow(self, request: Request, now: float) -> AuthFlow:
        """Sign `request`.

        Args:
            request: The request to send.
            now: Wall clock, seconds since 1970.

        Raises:
            AuthenticationFailed: The token endpoint refused.
        """

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        """Drop a cached token after `error`; True if a new one may help, so that the call is repeated once.

        Args:
            error: What the provider answered.
            sent: The request with the refused credentials. A token that another call has renewed meanwhile is kept.
        """
        return False

    @property
    def needs_exchange(self) -> bool:
        """Whether the next `flow` will request a token; such flows run one at a time."""
        return False


class SigningAuth(Auth):
    """Credentials that need no exchange with a server."""

    @abstractmethod
    def signed(self, request: Request, now: float) -> Request:
        """Return `request` with its credentials; `now` is in seconds since 1970."""

    def flow(self, request: Request, now: float) -> AuthFlow:
        return self.signed(request, now)
        yield request  # makes this function a generator; no token is requested


_BEARER = "Bearer "


class HeaderAuth(SigningAuth):
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

    def signed(self, request: Request, now: float) -> Request:
        return request.with_headers(**{self.header: self.prefix + self.secret.reveal()})


class BearerAuth(HeaderAuth):
    """`Authorization: Bearer <key>`."""

    def __init__(self, secret: Secret) -> None:
        super().__init__(secret, "authorization", _BEARER)


class TokenAuth(Auth):
    """A token obtained with keys: cached, renewed by one call before it expires, dropped if the provider refuses it.

    Subclasses define the token request and read its answer. The token is sent as a bearer unless they override that.
    """

    _RENEWING_S: ClassVar[float] = 60.0
    """How long one call has to renew the token; meanwhile other calls use the old one."""

    def __init__(self) -> None:
        self._token: Secret | None = None
        self._renew_at = 0.0

    @abstractmethod
    def asking(self, now: float) -> Request:
        """Return the token request."""

    @abstractmethod
    def bought(self, answer: JSON, now: float) -> tuple[Secret, float]:
        """Return the token and the time from which it must be renewed.

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
        """Whether the error means that the token is no longer valid."""
        return isinstance(error, errors.AuthenticationFailed)

    def flow(self, request: Request, now: float) -> AuthFlow:
        token = self._token
        if token is None or now >= self._renew_at:
            self._renew_at = now + self._RENEWING_S  # concurrent calls go on with the old token, which is still valid
            answer = yield self.asking(now)
            token, self._renew_at = self.bought(answer, now)
            self._token = token
        return self.carrying(request, token)

    def forget(self, error: ProviderError, sent: Request | None = None) -> bool:
        kept = self._token.reveal() if self._token else None
        refused = kept if sent is None else self.carried_by(sent)
        if refused is None or not self.is_stale(error):
            return False  # also if the keys were refused: a new token would not help
        if refused == kept:
            self._token = None
        return True

    @property
    def needs_exchange(self) -> bool:
        return self._token is None
