"""The decisions of one question to a model: when to send, wait, retry and fetch a token, and how to read a stream.

Theory of operation. `ExchangeFlow.steps` is a generator. It yields steps (`steps.py`), a driver in `exchange.py`
performs each one, blocking or awaiting, and sends back the outcome or throws the error. So every decision stands here
once, and sync, async, plain and streamed differ only in how a step is performed. Nothing here does I/O or sleeps.

The generators call each other from the outside in:

    steps          cache lookup, then `_with_retries`; stores a good answer in the cache
    _with_retries  sends until the policy or the deadline says no; tenacity is only imported after a failure
    _once          one attempt, and one more if the provider rejects a token that was cached
    _attempt       permit of the rate limiter, meter, signature, send, then `_whole` or `_streamed`
    _streamed      reads chunks, emits events, ends with the reply

Over 400 lines because all decisions of a call share its state. Three rules hold everywhere:

- Each attempt takes its own permit and is counted by the meter, because the provider counts it as well.
- A retry is possible until the consumer has seen an event (`emitted`); after that a failure is `StreamInterrupted`.
- Every `ProviderError` passes through `_complete` once per attempt, which adds what the codec cannot know: status,
  request id, the wait the server asks for, the number of attempts.

The open response belongs to the driver (`OpenResponse`), which closes it whatever happens. The flow closes it early
only where it goes on afterwards.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from lmagent.asking.reading import (
    StreamFailure,
    StreamReader,
    as_invalid,
    decoded,
    described,
    guarded,
    is_whole_body,
    read_whole,
    replayed,
    request_id_of,
)
from lmagent.asking.retry import attempts_after, read_retry_after, read_should_retry
from lmagent.asking.steps import (
    AcquireLock,
    Close,
    DrainBody,
    Emit,
    ExchangeStep,
    Open,
    OpenResponse,
    Read,
    ReadChunk,
    ReadStart,
    Sleep,
)
from lmagent.core.json_text import JSON
from lmagent.core.messages import Reply, Usage
from lmagent.errors import (
    ConnectionFailed,
    InvalidResponse,
    LMAgentError,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    StreamInterrupted,
)
from lmagent.http.base import Incoming, Transport, out_of_time
from lmagent.providers.base import Auth, ChatCall, Request, error_for_status

if TYPE_CHECKING:
    from lmagent.asking.cache import CachedAnswer
    from lmagent.asking.exchange import Exchange
    from lmagent.asking.limits import Permit

__all__ = ["ExchangeFlow"]

MAX_ERROR_BODY = 64 * 1024
_CONFLICT = 409
"""Besides 408 and 429 the only 4xx that is worth a retry: the provider could not get a lock of its own."""

Flow: TypeAlias = "Generator[ExchangeStep, Any, Reply]"


class ExchangeFlow:
    """One call of an exchange: its state, and the generator of its steps.

    Args:
        exchange: The settings: codec, transport, credentials, limits, clocks.
        call: The question.
        response: Holds the response that is open; the driver closes it.
    """

    __slots__ = (
        "_attempts",
        "_call",
        "_chunks",
        "_codec",
        "_deadline",
        "_emitted",
        "_exchange",
        "_headers",
        "_prefix",
        "_request",
        "_response",
        "_signed",
        "_start",
        "_status",
        "_token_dropped",
    )

    def __init__(self, exchange: Exchange, call: ChatCall, response: OpenResponse) -> None:
        self._exchange = exchange
        self._call = call
        self._response = response
        self._codec = exchange.codec.for_call(call)
        self._deadline = exchange.clock() + exchange.timeouts.total
        self._prefix = str(call.position or len(call.messages))
        self._request = self._codec.build_request(call)
        self._signed = self._request
        """With the credentials of the latest attempt."""
        self._attempts = 0
        self._status: int | None = None
        self._headers: Mapping[str, str] = {}
        self._start = b""
        """The first bytes of a streamed body, while it is not known to be a stream."""
        self._chunks: list[bytes] = []
        """The body, if a cache is to store it."""
        self._emitted = False
        """Whether the consumer has seen an event; after that nothing is retried."""
        self._token_dropped = False
        """Whether a cached token was dropped and the request repeated for it."""

    def steps(self) -> Flow:
        """Yield the steps of the call; return the reply."""
        cache = self._exchange.cache
        if cache is None:
            return (yield from self._with_retries())
        key = cache.key_of(self._exchange.codec.model_id, self._request)
        cached = cache.get(key)
        if cached is not None:
            try:
                return (yield from self._cached(cached))
            except ProviderError:  # the stored answer cannot be read (any more): ask the model
                yield Close(self._response)
                cache.forget(key)
                if self._emitted:
                    raise
        reply = yield from self._with_retries()
        cache.put(key, self._headers, self._chunks, reply.reply)
        return reply

    def _cached(self, answer: CachedAnswer) -> Flow:
        """Read an answer from the cache. It costs nothing, so neither limiter nor meter counts it."""
        yield from self._open(answer, self._request)
        reply = yield from (self._streamed() if self._call.stream else self._whole())
        model_id = reply.model_id or self._exchange.codec.model_id
        return replace(reply, model_id=model_id, usage=Usage(), attempts=0, cached=True)

    def _with_retries(self) -> Flow:
        """Send the request until it is answered, as often as the policy allows."""
        exchange = self._exchange
        try:
            return (yield from self._once())
        except ProviderError as error:
            if self._emitted or not exchange.retry.max_retries or not exchange.retry.applies_to(error):
                raise
            latest, first = error, True
        waits: list[float] = []
        for attempt in attempts_after(exchange.retry, self._deadline, clock=exchange.clock, sleep=waits.append):
            if waits:
                seconds = waits.pop()
                self._log_retry(latest, seconds)
                yield Sleep(seconds, exchange.sleep, exchange.async_sleep)
            with attempt:
                if first:  # tenacity has to count the request that was made before tenacity was imported
                    first = False
                    raise latest
                try:
                    return (yield from self._once())
                except ProviderError as error:
                    latest = error
                    raise
        raise AssertionError("tenacity returns or raises")

    def _log_retry(self, error: ProviderError, seconds: float) -> None:
        from lmagent.core.redaction import library_logger

        library_logger("transport").info(
            "%s: attempt %d failed (%s), next one in %.2f s",
            self._exchange.codec.model_id,
            self._attempts,
            error,
            seconds,
        )

    def _once(self) -> Flow:
        """Send the request once; twice if the first answer says that a cached token is no longer valid."""
        auth, model_id = self._exchange.auth, self._exchange.codec.model_id
        while True:
            self._attempts += 1
            self._status, self._headers, self._chunks = None, {}, []
            try:
                reply = yield from self._attempt()
            except ProviderError as error:
                yield Close(self._response)
                self._complete(error)
                if not self._emitted and auth and not self._token_dropped and auth.forget(error, self._signed):
                    self._token_dropped = True
                    continue
                raise
            reply = replace(
                reply,
                model_id=reply.model_id or model_id,
                request_id=reply.request_id or request_id_of(self._headers),
                attempts=self._attempts,
            )
            if self._call.meter:
                self._call.meter.after_reply(reply)
            return reply

    def _complete(self, error: ProviderError) -> None:
        """Add the facts that codec and transport could not know."""
        exchange = self._exchange
        error.provider = error.provider or exchange.codec.provider
        error.model = error.model or exchange.codec.model
        error.status = error.status if error.status is not None else self._status
        error.request_id = error.request_id or request_id_of(self._headers)
        error.attempts = self._attempts
        if error.retry_after is None:
            error.retry_after = read_retry_after(self._headers, exchange.wall_clock())
        if error.status == _CONFLICT:
            error.retryable = True
        should_retry = read_should_retry(self._headers)
        if should_retry is not None and not isinstance(error, StreamInterrupted | QuotaExceeded):
            error.retryable = should_retry
        if exchange.limiter:
            exchange.limiter.failed(error, exchange.retry.max_wait)

    def _attempt(self) -> Flow:
        exchange = self._exchange
        permit = yield from self._permit()
        if self._call.meter:
            self._call.meter.before_request(exchange.codec.model_id)
        self._signed = yield from self._with_credentials()
        status = yield from self._open(exchange.transport, self._signed)
        if not 200 <= status < 300:
            raise (yield from self._refusal())
        if exchange.limiter:
            exchange.limiter.answered(self._headers, exchange.wall_clock())
        reply = yield from (self._streamed() if self._call.stream else self._whole())
        if permit:
            permit.settle(reply.usage)
        return reply

    def _open(self, transport: Transport | CachedAnswer, request: Request) -> Generator[ExchangeStep, Any, int]:
        incoming: Incoming = yield Open(self._response, transport, request, self._exchange.timeouts, self._deadline)
        self._status, self._headers = incoming.status, incoming.headers
        return incoming.status

    def _permit(self) -> Generator[ExchangeStep, Any, Permit | None]:
        """Wait for the rate limiter; each attempt takes its own permit."""
        exchange = self._exchange
        if exchange.limiter is None:
            return None
        while True:
            permit = exchange.limiter.permit(exchange.clock(), self._request.content, self._call.parameters)
            if permit.wait <= 0:
                return permit
            kept = False
            try:
                if exchange.clock() + permit.wait >= self._deadline:
                    self._attempts -= 1  # this one is never sent
                    raise RateLimited(
                        f"The rate limiter allows the next request in {permit.wait:.1f} s, after the deadline of this "
                        "call. Raise timeout=..., or the limit.",
                        retry_after=permit.wait,
                        retryable=False,
                    )
                yield Sleep(permit.wait, exchange.sleep, exchange.async_sleep)
                kept = not permit.revoked
            finally:
                if not kept:
                    permit.refund()
            if kept:
                permit.started(exchange.clock())
                return permit

    def _with_credentials(self) -> Generator[ExchangeStep, Any, Request]:
        exchange = self._exchange
        auth = exchange.auth
        if auth is None:
            return self._request
        if not auth.needs_exchange:
            return (yield from self._run_auth(auth))
        # One token request at a time: the calls that wait here find the token in the cache of `auth`.
        if not (yield AcquireLock(exchange.token_lock, max(self._deadline - exchange.clock(), 0))):
            raise out_of_time()
        try:
            return (yield from self._run_auth(auth))
        finally:
            exchange.token_lock.release()

    def _run_auth(self, auth: Auth) -> Generator[ExchangeStep, Any, Request]:
        flow = auth.flow(self._request, self._exchange.wall_clock())
        try:
            token_request = next(flow)
            while True:
                token_request = flow.send((yield from self._token(token_request)))
        except StopIteration as stop:
            self._status, self._headers = None, {}  # those of a token endpoint; the model's answer has its own
            return stop.value
        except LMAgentError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise as_invalid(error) from error
        finally:
            flow.close()

    def _token(self, request: Request) -> Generator[ExchangeStep, Any, JSON]:
        """Send the request of an auth flow. Below status 500, 429 aside, the flow judges the JSON that comes back."""
        status = yield from self._open(self._exchange.transport, request)
        content = yield ReadStart(self._response, MAX_ERROR_BODY)
        body = decoded(content)
        if body is None or status >= 500 or status == 429:
            kind = error_for_status(status) if status >= 400 else InvalidResponse
            raise kind(f"The token endpoint answered {described(content)}.", status=status)
        return body

    def _refusal(self) -> Generator[ExchangeStep, Any, ProviderError]:
        """Return the error for a status other than 2xx."""
        assert self._status is not None
        start = ReadStart(self._response, MAX_ERROR_BODY)
        try:
            yield start
        except (ConnectionFailed, RequestTimeout, InvalidResponse):
            yield Close(self._response)  # the status is enough to know what happened; the body only explains it
        content = start.content
        return self._failure(content) or error_for_status(self._status)(
            f"The server answered {described(content)} with status {self._status}."
        )

    def _failure(self, content: bytes, body: JSON | None = None) -> ProviderError | None:
        """Let the codec decide whether an answer is a failure, including one with status 200."""
        assert self._status is not None
        body = decoded(content) if body is None else body
        text = "" if body is not None else content[:1000].decode("utf-8", "replace")
        with guarded():
            return self._exchange.codec.parse_error(self._status, self._headers, body, text)

    def _whole(self) -> Flow:
        content: bytes = yield Read(self._response, self._exchange.max_response_bytes)
        if self._exchange.cache is not None:
            self._chunks.append(content)
        return self._read(content)

    def _read(self, content: bytes) -> Reply:
        body = decoded(content)
        error = self._failure(content, body)
        if error is not None:
            raise error
        return read_whole(self._codec, content, body, self._prefix)

    def _streamed(self) -> Flow:
        exchange, response = self._exchange, self._response
        reader = StreamReader(self._codec, self._prefix)
        try:
            start = yield from self._first_bytes(reader)
            if start is None:
                return (yield from self._not_streamed())
            last_event = exchange.clock()
            chunk: bytes | None = start
            while chunk is not None and not reader.whole:
                if exchange.cache is not None:
                    self._chunks.append(chunk)
                events, frames = reader.feed(chunk)
                now = exchange.clock()
                if frames:
                    last_event = now
                elif now - last_event > exchange.timeouts.idle:
                    raise _only_pings(exchange.timeouts.idle)
                if events:
                    self._emitted = True
                    yield Emit(events)
                if reader.whole:
                    break
                chunk = yield ReadChunk(response)
            if not reader.whole:
                events = reader.close()
                if events:
                    self._emitted = True
                    yield Emit(events)
            else:
                yield DrainBody(response)
            return reader.reply(None, 1)
        except StreamFailure as failure:
            if failure.events:
                self._emitted = True
                yield Emit(failure.events)
            error: LMAgentError = failure.error
            cause = failure.__cause__
        except ProviderError as raised:
            error, cause = raised, raised.__cause__
        if isinstance(error, StreamInterrupted):
            error.retryable = not self._emitted
            raise error from cause
        if not self._emitted:
            raise error from cause
        raise _interrupted(error, reader) from error

    def _first_bytes(self, reader: StreamReader) -> Generator[ExchangeStep, Any, bytes | None]:
        """Return the first bytes of a stream; None if the body is no stream (see `_not_streamed`)."""
        begun = self._exchange.clock()
        self._start = b""
        while True:
            chunk: bytes | None = yield ReadChunk(self._response)
            if not reader.may_be_whole_body:
                return chunk or b""
            # Servers send blank lines to keep a connection alive.
            self._start = (self._start + (chunk or b"")).lstrip()
            whole = chunk is None or is_whole_body(self._start)
            if whole is not None:
                return None if whole else self._start
            if self._exchange.clock() - begun > self._exchange.timeouts.idle:
                raise _only_pings(self._exchange.timeouts.idle)

    def _not_streamed(self) -> Flow:
        """Read a whole answer that came in place of the requested stream, and emit its events."""
        chunks = [self._start]
        while (chunk := (yield ReadChunk(self._response))) is not None:
            chunks.append(chunk)
        reply = self._read(b"".join(chunks))
        if self._exchange.cache is not None:
            self._chunks.extend(chunks)
        self._emitted = True
        yield Emit(replayed(reply, self._prefix))
        return reply


def _interrupted(error: LMAgentError, reader: StreamReader) -> StreamInterrupted:
    facts: dict[str, Any] = {}
    if isinstance(error, ProviderError):
        facts = {"status": error.status, "code": error.code, "request_id": error.request_id, "body": error.body}
    return StreamInterrupted(f"The stream was interrupted: {error.message}", partial=reader.partial, **facts)


def _only_pings(idle: float) -> RequestTimeout:
    text = f"No event came for {idle:g} s, only pings or incomplete events. Allow more with Timeouts(idle=...)."
    return RequestTimeout(text, which="read")
