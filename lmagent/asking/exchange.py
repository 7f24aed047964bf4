"""One question to a model, in order: `Exchange` drives, `ExchangeFlow` decides, the steps do.

Theory of operation. An `Exchange` holds the settings of one model (credentials, rate limits, retries, cache) and
nothing of a single call, so threads, tasks and event loops may share it. Each call makes an `ExchangeFlow`, a generator
that takes every decision and yields steps, and an `OpenResponse`, which knows the response that is open. A driver
performs a step, blocking or awaiting, and sends the outcome back; an error goes back by `throw`, so that the flow
decides whether it ends the call. So sync, async, plain and streamed differ only in how a step is performed:

    ask, async_ask              perform the steps; return the reply
    stream, async_stream        the same, and hand the events of each `Emit` step to the consumer

The drivers are written out four times because sync and async code cannot share a loop body without a cost per event.
They contain no decision. When the call ends, when a step raises and when the consumer of a stream leaves early, the
driver closes the flow first and then the response, which frees the connection. The flow closes the response early only
where it goes on afterwards; it does no I/O and never sleeps. Its generators call each other from the outside in:

    steps          cache lookup, then `_with_retries`; stores a good answer in the cache
    _with_retries  sends until the policy or the deadline says no; tenacity is only imported after a failure
    _once          one attempt, and one more if the provider rejects a token that was cached
    _attempt       permit of the rate limiter, meter, signature, send, then `_whole` or `_streamed`
    _streamed      reads chunks, emits events, ends with the reply

Three rules hold everywhere:

- Each attempt takes its own permit and is counted by the meter, because the provider counts it as well. A request that
  failed may be billed twice when it is sent again, as the provider may have worked on it.
- A retry is possible until the consumer has seen an event (`emitted`); after that a failure is `StreamInterrupted`.
- Every `ProviderError` passes through `_complete` once per attempt, which adds what the codec cannot know: status,
  request id, the wait the server asks for, the number of attempts.

Over 400 lines because drivers, decisions and steps are read together.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

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
from lmagent.asking.retry import RetryPolicy, attempts_after, read_retry_after, read_should_retry
from lmagent.core.events import Event
from lmagent.core.json_text import JSON
from lmagent.core.messages import Reply, Usage
from lmagent.core.redaction import library_logger
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
from lmagent.http.base import (
    AsyncIncoming,
    Drains,
    Incoming,
    Timeouts,
    Transport,
    interruptible_sleep,
    is_done,
    out_of_time,
    poll_until,
)
from lmagent.providers.base import Auth, ChatCall, Codec, Request, error_for_status

if TYPE_CHECKING:
    from lmagent.asking.cache import CachedAnswer, ResponseCache
    from lmagent.asking.limits import Limiter, Permit

__all__ = [
    "AcquireLock", "Close", "DrainBody", "Emit", "Exchange", "ExchangeFlow", "ExchangeStep", "FairLock", "Open",
    "OpenResponse", "Read", "ReadChunk", "ReadStart", "Sleep",
]  # fmt: skip

MAX_BODY = 16 * 1024 * 1024
MAX_ERROR_BODY = 64 * 1024
_CONFLICT = 409
"""Besides 408 and 429 the only 4xx that is worth a retry: the provider could not get a lock of its own."""

Flow: TypeAlias = "Generator[ExchangeStep, Any, Reply]"


class Exchange:
    """Asks one model.

    Args:
        codec: The dialect.
        transport: Sends requests.
        auth: Signs them; None when the codec's requests need no credentials.
        retry: When a failed request is repeated.
        timeouts: The time limits of a call.
        limiter: The rate limits; shared by all exchanges that use the same key.
        cache: Answers questions that were asked before.
        max_response_bytes: Longest answer that is read as a whole.
        clock: Seconds; `time.monotonic`, or a test's clock.
        wall_clock: Seconds since 1970, for signatures and for a `Retry-After` that holds a date.
        sleep: How a sync call waits. The default is `time.sleep` in short intervals, so that Ctrl-C is noticed.
        async_sleep: How an async call waits; default `asyncio.sleep`.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        transport: Transport,
        auth: Auth | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        limiter: Limiter | None = None,
        cache: ResponseCache | None = None,
        max_response_bytes: int = MAX_BODY,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = interruptible_sleep,
        async_sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.codec = codec
        self.transport = transport
        self.auth = auth
        self.retry = retry or RetryPolicy()
        self.timeouts = timeouts or Timeouts()
        self.limiter = limiter
        self.cache = cache
        self.max_response_bytes = max_response_bytes
        self.clock = clock
        self.wall_clock = wall_clock
        self.sleep = sleep
        self.async_sleep = async_sleep
        self.token_lock = FairLock()
        """Held while a token is fetched."""

    def ask(self, call: ChatCall) -> Reply:
        """Return the whole reply.

        Raises:
            ProviderError: The request failed, and no retry is left or allowed; the subclass says why.
        """
        response = OpenResponse()
        flow = ExchangeFlow(self, call, response).steps()
        try:
            step = next(flow)
            while True:
                try:
                    outcome = step.run()
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value
        finally:
            flow.close()
            response.close()

    async def async_ask(self, call: ChatCall) -> Reply:
        """`ask`, asynchronous."""
        response = OpenResponse()
        flow = ExchangeFlow(self, call, response).steps()
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await step.async_run()
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value
        finally:
            flow.close()
            await response.aclose()

    def stream(self, call: ChatCall) -> Iterator[Event | Reply]:
        """Yield the events of the reply as they come, then the whole `Reply`. Closing it frees the connection.

        Raises:
            StreamInterrupted: The stream ended early; `.partial` is the message so far.
            ProviderError: As `ask`, before the first event.
        """
        response = OpenResponse()
        flow = ExchangeFlow(self, call, response).steps()
        try:
            step = next(flow)
            while True:
                if type(step) is Emit:
                    yield from step.events
                    step = flow.send(None)
                    continue
                try:
                    outcome = step.run()
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            reply: Reply = stop.value
        finally:
            flow.close()
            response.close()
        yield reply

    async def async_stream(self, call: ChatCall) -> AsyncIterator[Event | Reply]:
        """`stream`, asynchronous."""
        response = OpenResponse()
        flow = ExchangeFlow(self, call, response).steps()
        try:
            step = next(flow)
            while True:
                if type(step) is Emit:
                    for event in step.events:
                        yield event
                    step = flow.send(None)
                    continue
                try:
                    outcome = await step.async_run()
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            reply: Reply = stop.value
        finally:
            flow.close()
            await response.aclose()
        yield reply

    def close(self) -> None:
        """Free the connections of the sync verbs. The exchange stays usable."""
        self.transport.close()

    async def aclose(self) -> None:
        """Free the connections of this event loop. The exchange stays usable."""
        await self.transport.aclose()


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
                library_logger("transport").info(
                    "%s: attempt %d failed (%s), next one in %.2f s",
                    exchange.codec.model_id, self._attempts, latest, seconds,
                )  # fmt: skip
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
            return reader.reply()
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


class FairLock:
    """A first-come, first-served lock for threads and for the tasks of any event loop. Tasks wait without polling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._waiting: deque[Future[None]] = deque()

    def _enqueue(self) -> Future[None] | None:
        """Take the lock and return None, or return a future that is done once the lock is handed over."""
        with self._lock:
            if not self._held:
                self._held = True
                return None
            handed_over: Future[None] = Future()
            self._waiting.append(handed_over)
            return handed_over

    def acquire(self, seconds: float) -> bool:
        """Wait for the lock, at most `seconds`; return whether it was acquired."""
        handed_over = self._enqueue()
        if handed_over is None:
            return True
        try:
            return poll_until(lambda interval: is_done(handed_over, interval), seconds) or not handed_over.cancel()
        except BaseException:
            self._abandon(handed_over)
            raise

    async def async_acquire(self, seconds: float) -> bool:
        """`acquire`, awaiting."""
        handed_over = self._enqueue()
        if handed_over is None:
            return True
        import asyncio  # loaded already: an event loop is running

        try:
            # Shielded: cancelling this task must not cancel the future, or a lock that was just handed over is lost.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(handed_over)), seconds)
        except TimeoutError:
            return not handed_over.cancel()
        except BaseException:
            self._abandon(handed_over)
            raise
        return True

    def _abandon(self, handed_over: Future[None]) -> None:
        """Stop waiting; release the lock if it was handed over in the same moment."""
        if not handed_over.cancel():
            self.release()

    def release(self) -> None:
        """Hand the lock over to the longest waiting caller, or free it."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._held = False
                    return
                handed_over = self._waiting.popleft()
            try:
                handed_over.set_result(None)
            except InvalidStateError:  # this caller stopped waiting
                continue
            return


class OpenResponse:
    """The response that a call has open, if any. The driver of the flow closes it whatever happens."""

    __slots__ = ("chunks", "incoming")

    def __init__(self) -> None:
        self.incoming: Any = None
        self.chunks: Any = None

    def close(self) -> None:
        """Free the connection."""
        incoming, self.incoming, self.chunks = self.incoming, None, None
        if incoming is not None:
            cast("Incoming", incoming).close()

    async def aclose(self) -> None:
        """Free the connection."""
        incoming, chunks, self.incoming, self.chunks = self.incoming, self.chunks, None, None
        if incoming is not None:
            await cast("AsyncIncoming", incoming).aclose()
        if chunks is not None:
            await chunks.aclose()


class ExchangeStep(ABC):
    """One operation outside the flow."""

    __slots__ = ()

    @abstractmethod
    def run(self) -> Any:
        """Do it, blocking."""

    @abstractmethod
    async def async_run(self) -> Any:
        """Do it, awaiting."""


class _ResponseStep(ExchangeStep):
    """An operation on the open response."""

    __slots__ = ("_response",)

    def __init__(self, response: OpenResponse) -> None:
        self._response = response


class Emit(ExchangeStep):
    """Hand events to the consumer. Only the drivers of streams do it; for the others the step does nothing."""

    __slots__ = ("events",)

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events

    def run(self) -> None: ...

    async def async_run(self) -> None: ...


class Open(ExchangeStep):
    """Send a request; the outcome is the incoming response, which `response` keeps open."""

    __slots__ = ("_deadline", "_request", "_response", "_timeouts", "_transport")

    def __init__(
        self, response: OpenResponse, transport: Transport, request: Request, timeouts: Timeouts, deadline: float
    ) -> None:
        self._response = response
        self._transport = transport
        self._request = request
        self._timeouts = timeouts
        self._deadline = deadline

    def run(self) -> Incoming:
        incoming = self._response.incoming = self._transport.open(self._request, self._timeouts, self._deadline)
        return incoming

    async def async_run(self) -> AsyncIncoming:
        incoming = await self._transport.async_open(self._request, self._timeouts, self._deadline)
        self._response.incoming = incoming
        return incoming


class Read(_ResponseStep):
    """Read the whole body and close the response; the outcome is bytes."""

    __slots__ = ("_limit",)

    def __init__(self, response: OpenResponse, limit: int) -> None:
        super().__init__(response)
        self._limit = limit

    def run(self) -> bytes:
        body = cast("Incoming", self._response.incoming).read(self._limit)
        self._response.close()
        return body

    async def async_run(self) -> bytes:
        body = await cast("AsyncIncoming", self._response.incoming).read(self._limit)
        await self._response.aclose()
        return body


class ReadStart(Read):
    """Read at most `limit` bytes of the body and close the response; the outcome is `content`."""

    __slots__ = ("content",)

    def __init__(self, response: OpenResponse, limit: int) -> None:
        super().__init__(response, limit)
        self.content = b""
        """The bytes read so far, also if reading fails."""

    def _add(self, chunk: bytes) -> bool:
        self.content = (self.content + chunk)[: self._limit]
        return len(self.content) == self._limit

    def run(self) -> bytes:
        for chunk in cast("Incoming", self._response.incoming).chunks():
            if self._add(chunk):
                break
        self._response.close()
        return self.content

    async def async_run(self) -> bytes:
        self._response.chunks = chunks = cast("AsyncIncoming", self._response.incoming).chunks()
        async for chunk in chunks:
            if self._add(chunk):
                break
        await self._response.aclose()
        return self.content


class ReadChunk(_ResponseStep):
    """Wait for the next chunk of the body; the outcome is bytes, or None at its end."""

    __slots__ = ()

    def run(self) -> bytes | None:
        response = self._response
        if response.chunks is None:
            response.chunks = iter(cast("Incoming", response.incoming).chunks())
        return next(cast("Iterator[bytes]", response.chunks), None)

    async def async_run(self) -> bytes | None:
        response = self._response
        if response.chunks is None:
            response.chunks = cast("AsyncIncoming", response.incoming).chunks()
        return await anext(cast("AsyncIterator[bytes]", response.chunks), None)


class Close(_ResponseStep):
    """Close the open response, if there is one."""

    __slots__ = ()

    def run(self) -> None:
        self._response.close()

    async def async_run(self) -> None:
        await self._response.aclose()


class DrainBody(_ResponseStep):
    """Finish a body whose reply is complete: read its last bytes if they come soon, so the connection can be reused."""

    __slots__ = ()

    def run(self) -> None:
        response = self._response
        if isinstance(response.incoming, Drains):
            response.incoming.end_soon(_GRACE)
            with suppress(LMAgentError):
                for _ in response.chunks or ():
                    pass
        response.close()

    async def async_run(self) -> None:
        response = self._response
        if isinstance(response.incoming, Drains) and response.chunks is not None:
            response.incoming.end_soon(_GRACE)
            with suppress(LMAgentError):
                async for _ in response.chunks:
                    pass
        await response.aclose()


_GRACE = 0.02
"""Seconds to wait for the end of a body after its last event. A new connection takes longer."""


class Sleep(ExchangeStep):
    """Wait a number of seconds."""

    __slots__ = ("_async_sleep", "_seconds", "_sleep")

    def __init__(
        self, seconds: float, sleep: Callable[[float], None], async_sleep: Callable[[float], Awaitable[None]] | None
    ) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._async_sleep = async_sleep

    def run(self) -> None:
        self._sleep(self._seconds)

    async def async_run(self) -> None:
        sleep = self._async_sleep
        if sleep is None:
            from asyncio import sleep  # loaded already: an event loop is running

        await sleep(self._seconds)


class AcquireLock(ExchangeStep):
    """Acquire a lock; the outcome says whether that worked within `seconds`."""

    __slots__ = ("_lock", "_seconds")

    def __init__(self, lock: FairLock, seconds: float) -> None:
        self._lock = lock
        self._seconds = seconds

    def run(self) -> bool:
        return self._lock.acquire(self._seconds)

    async def async_run(self) -> bool:
        return await self._lock.async_acquire(self._seconds)
