"""`Exchange`: one question to a model, from the codec's request to the reply, with credentials, limits and repeats.

Every decision is made once, in a generator of steps that knows no colour; `ask`, `async_ask`, `stream` and
`async_stream` are thin drivers of it. A request that failed may be sent again although the provider has worked on the
first one: it may then be paid twice.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from lmagent.asking.reading import (
    Cut,
    StreamReader,
    as_invalid,
    decoded,
    described,
    guarded,
    looks_whole,
    read_whole,
    replayed,
    request_id_of,
)
from lmagent.asking.retry import RetryPolicy, attempts_after, read_retry_after, read_should_retry
from lmagent.asking.steps import (
    AcquireLock,
    Close,
    DrainBody,
    Emit,
    ExchangeStep,
    FairLock,
    Open,
    OpenResponse,
    Read,
    ReadChunk,
    ReadStart,
    Sleep,
)
from lmagent.core.events import Event
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
from lmagent.http.base import Incoming, Timeouts, Transport
from lmagent.http.clocks import out_of_time, sleep_in_naps
from lmagent.providers.base import Auth, ChatCall, Codec, Request, error_for_status

if TYPE_CHECKING:
    from lmagent.asking.cache import KeptAnswer, ResponseCache
    from lmagent.asking.limits import Limiter, Permit

__all__ = ["Exchange"]

MAX_BODY = 16 * 1024 * 1024
MAX_ERROR_BODY = 64 * 1024
_CONFLICT = 409
"""The one 4xx beside 408 and 429 that is worth a second try: a lock of the provider's own."""

Flow: TypeAlias = "Generator[ExchangeStep, Any, Reply]"


class _Ask:
    """What belongs to one call."""

    __slots__ = (
        "attempts",
        "call",
        "codec",
        "deadline",
        "handed",
        "headers",
        "hold",
        "pieces",
        "prefix",
        "refreshed",
        "request",
        "sent",
        "start",
        "status",
    )

    def __init__(self, codec: Codec, call: ChatCall, hold: OpenResponse, deadline: float) -> None:
        self.codec = codec.for_call(call)
        self.call = call
        self.hold = hold
        self.deadline = deadline
        self.prefix = str(call.position or len(call.messages))
        self.request = Request(url="")
        self.sent = self.request
        """With the credentials of the latest attempt."""
        self.attempts = 0
        self.start = b""
        self.pieces: list[bytes] = []
        """The body, where a cache is to keep it."""
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.handed = False
        """Whether the consumer has seen an event: then nothing is repeated."""
        self.refreshed = False
        """Whether a token was dropped and the request repeated for it."""


class Exchange:
    """Asks one model.

    Args:
        codec: The dialect.
        transport: What sends requests.
        auth: What signs them; None when the codec's requests need nothing.
        retry: When a failed request is repeated.
        timeouts: The clocks of a call.
        limiter: Shared by all exchanges that use the same key.
        cache: Answers questions that were asked before.
        max_response_bytes: Longest whole answer.
        clock: Seconds; `time.monotonic` or what a test injects.
        wall_clock: Seconds since 1970, for signatures and for `Retry-After` given as a date.
        sleep: How a sync call waits; default `time.sleep`, in naps.
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
        sleep: Callable[[float], None] = sleep_in_naps,
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
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._async_sleep = async_sleep
        self._turns = FairLock()

    # The four drivers: they perform steps and close what is open, nothing else.

    def ask(self, call: ChatCall) -> Reply:
        """Return the whole reply.

        Raises:
            ProviderError: The request failed for good; the subclass says how.
        """
        hold = OpenResponse()
        flow = self._flow(call, hold)
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
            hold.close()

    async def async_ask(self, call: ChatCall) -> Reply:
        """`ask`, asynchronous."""
        hold = OpenResponse()
        flow = self._flow(call, hold)
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
            await hold.aclose()

    def stream(self, call: ChatCall) -> Iterator[Event | Reply]:
        """Yield the events of the reply as they come, and last the whole `Reply`. Closing it frees the connection.

        Raises:
            StreamInterrupted: It ended early; `.partial` is what came.
            ProviderError: As `ask`, before the first event.
        """
        hold = OpenResponse()
        flow = self._flow(call, hold)
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
            hold.close()
        yield reply

    async def async_stream(self, call: ChatCall) -> AsyncIterator[Event | Reply]:
        """`stream`, asynchronous."""
        hold = OpenResponse()
        flow = self._flow(call, hold)
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
            await hold.aclose()
        yield reply

    def close(self) -> None:
        """Free the connections of the sync verbs. The exchange stays usable."""
        self.transport.close()

    async def aclose(self) -> None:
        """Free the connections of this event loop. The exchange stays usable."""
        await self.transport.aclose()

    # The decisions.

    def _flow(self, call: ChatCall, hold: OpenResponse) -> Flow:
        ask = _Ask(self.codec, call, hold, self._clock() + self.timeouts.total)
        ask.request = ask.codec.build_request(call)
        if self.cache is None:
            return (yield from self._repeated(ask))
        key = self.cache.key_of(self.codec.model_id, ask.request)
        kept = self.cache.get(key)
        if kept is not None:
            try:
                return (yield from self._kept(ask, kept))
            except ProviderError:  # what is kept cannot be read (any more): ask
                yield Close(ask.hold)
                self.cache.forget(key)
                if ask.handed:
                    raise
        reply = yield from self._repeated(ask)
        self.cache.put(key, ask.headers, ask.pieces, reply.reply)
        return reply

    def _kept(self, ask: _Ask, kept: KeptAnswer) -> Flow:
        """Read an answer that was kept: it costs nothing, and neither limiter nor meter is told."""
        incoming: Incoming = yield Open(ask.hold, kept, ask.request, self.timeouts, ask.deadline)
        ask.status, ask.headers = incoming.status, incoming.headers
        reply = yield from (self._streamed(ask) if ask.call.stream else self._whole(ask))
        model_id = reply.model_id or self.codec.model_id
        return replace(reply, model_id=model_id, usage=Usage(), attempts=0, cached=True)

    def _repeated(self, ask: _Ask) -> Flow:
        """Send the request until it is answered, as often as the policy says."""
        try:
            return (yield from self._once(ask))
        except ProviderError as error:
            if ask.handed or not self.retry.max_retries or not self.retry.applies_to(error):
                raise
            latest, fresh = error, True
        waits: list[float] = []
        for attempt in attempts_after(self.retry, ask.deadline, clock=self._clock, sleep=waits.append):
            if waits:
                seconds = waits.pop()
                _log_repeat(self.codec, ask, latest, seconds)
                yield Sleep(seconds, self._sleep, self._async_sleep)
            with attempt:
                if fresh:  # tenacity counts the request that was made before it was there
                    fresh = False
                    raise latest
                try:
                    return (yield from self._once(ask))
                except ProviderError as error:
                    latest = error
                    raise
        raise AssertionError("tenacity returns or raises")

    def _once(self, ask: _Ask) -> Flow:
        """Send the request once; twice when the first answer says that a cached token is no longer good."""
        while True:
            ask.attempts += 1
            ask.status, ask.headers, ask.pieces = None, {}, []
            try:
                reply = yield from self._attempt(ask)
            except ProviderError as error:
                yield Close(ask.hold)
                self._complete(error, ask)
                if not ask.handed and self.auth and not ask.refreshed and self.auth.forget(error, ask.sent):
                    ask.refreshed = True
                    continue
                raise
            reply = replace(
                reply,
                model_id=reply.model_id or self.codec.model_id,
                request_id=reply.request_id or request_id_of(ask.headers),
                attempts=ask.attempts,
            )
            if ask.call.meter:
                ask.call.meter.after_reply(reply)
            return reply

    def _complete(self, error: ProviderError, ask: _Ask) -> None:
        """Fill what the codec or the transport could not know."""
        error.provider = error.provider or self.codec.provider
        error.model = error.model or self.codec.model
        error.status = error.status if error.status is not None else ask.status
        error.request_id = error.request_id or request_id_of(ask.headers)
        error.attempts = ask.attempts
        if error.retry_after is None:
            error.retry_after = read_retry_after(ask.headers, self._wall_clock())
        if error.status == _CONFLICT:
            error.retryable = True
        wish = read_should_retry(ask.headers)
        if wish is not None and not isinstance(error, StreamInterrupted | QuotaExceeded):
            error.retryable = wish
        if self.limiter:
            self.limiter.failed(error, self.retry.max_wait)

    def _attempt(self, ask: _Ask) -> Flow:
        permit = yield from self._permit(ask)
        if ask.call.meter:
            ask.call.meter.before_request(self.codec.model_id)
        request = ask.sent = yield from self._signed(ask)
        incoming: Incoming = yield Open(ask.hold, self.transport, request, self.timeouts, ask.deadline)
        ask.status, ask.headers = incoming.status, incoming.headers
        if not 200 <= incoming.status < 300:
            raise (yield from self._refusal(ask))
        if self.limiter:
            self.limiter.answered(incoming.headers, self._wall_clock())
        reply = yield from (self._streamed(ask) if ask.call.stream else self._whole(ask))
        if permit:
            permit.settle(reply.usage)
        return reply

    def _permit(self, ask: _Ask) -> Generator[ExchangeStep, Any, Permit | None]:
        """Wait for the rate limiter; each attempt takes its own permit."""
        if self.limiter is None:
            return None
        while True:
            permit = self.limiter.permit(self._clock(), ask.request.content, ask.call.parameters)
            if permit.wait <= 0:
                return permit
            kept = False
            try:
                if self._clock() + permit.wait >= ask.deadline:
                    ask.attempts -= 1  # this one is never sent
                    raise RateLimited(
                        f"The rate limiter has no room for {permit.wait:.1f} s, longer than the call may still take.",
                        retry_after=permit.wait,
                        retryable=False,
                    )
                yield Sleep(permit.wait, self._sleep, self._async_sleep)
                kept = not permit.revoked
            finally:
                if not kept:
                    permit.refund()
            if kept:
                permit.started(self._clock())
                return permit

    def _signed(self, ask: _Ask) -> Generator[ExchangeStep, Any, Request]:
        auth = self.auth
        if auth is None:
            return ask.request
        if not auth.needs_exchange:
            return (yield from self._run_auth(auth, ask))
        if not (yield AcquireLock(self._turns, max(ask.deadline - self._clock(), 0))):
            raise out_of_time()
        try:
            return (yield from self._run_auth(auth, ask))
        finally:
            self._turns.give()

    def _run_auth(self, auth: Auth, ask: _Ask) -> Generator[ExchangeStep, Any, Request]:
        flow = auth.flow(ask.request, self._wall_clock())
        try:
            wanted = next(flow)
            while True:
                wanted = flow.send((yield from self._token(wanted, ask)))
        except StopIteration as stop:
            ask.status, ask.headers = None, {}  # a token endpoint's; the answer to the question has its own
            return stop.value
        except LMAgentError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise as_invalid(error) from error
        finally:
            flow.close()

    def _token(self, request: Request, ask: _Ask) -> Generator[ExchangeStep, Any, JSON]:
        """Fetch what an auth flow asks for. A JSON answer is the flow's to judge, whatever its status below 500."""
        incoming: Incoming = yield Open(ask.hold, self.transport, request, self.timeouts, ask.deadline)
        ask.status, ask.headers = incoming.status, incoming.headers
        content = yield ReadStart(ask.hold, MAX_ERROR_BODY)
        body = decoded(content)
        status = incoming.status
        if body is None or status >= 500 or status == 429:
            kind = error_for_status(status) if status >= 400 else InvalidResponse
            raise kind(f"The token endpoint answered {described(content)}.", status=status)
        return body

    def _refusal(self, ask: _Ask) -> Generator[ExchangeStep, Any, ProviderError]:
        """Return the error that an answer of another status than 2xx is."""
        assert ask.status is not None
        start = ReadStart(ask.hold, MAX_ERROR_BODY)
        try:
            yield start
        except (ConnectionFailed, RequestTimeout, InvalidResponse):
            yield Close(ask.hold)  # the status says what went wrong, whatever became of the explanation
        content = start.content
        return self._failure(ask, content) or error_for_status(ask.status)(
            f"The server answered {described(content)} with status {ask.status}."
        )

    def _failure(self, ask: _Ask, content: bytes, body: JSON | None = None) -> ProviderError | None:
        """Ask the codec whether an answer is a failure, also one hidden in a 200."""
        assert ask.status is not None
        body = decoded(content) if body is None else body
        with guarded():
            return self.codec.parse_error(ask.status, ask.headers, body, "" if body is not None else _text_of(content))

    def _whole(self, ask: _Ask) -> Flow:
        content: bytes = yield Read(ask.hold, self.max_response_bytes)
        if self.cache is not None:
            ask.pieces.append(content)
        return self._read(ask, content)

    def _read(self, ask: _Ask, content: bytes) -> Reply:
        body = decoded(content)
        error = self._failure(ask, content, body)
        if error is not None:
            raise error
        return read_whole(ask.codec, content, body, ask.prefix)

    def _streamed(self, ask: _Ask) -> Flow:
        reader = StreamReader(ask.codec, ask.prefix)
        try:
            start = yield from self._start(ask, reader)
            if start is None:
                return (yield from self._replayed(ask))
            useful = self._clock()
            chunk: bytes | None = start
            while chunk is not None and not reader.whole:
                if self.cache is not None:
                    ask.pieces.append(chunk)
                events, frames = reader.feed(chunk)
                now = self._clock()
                if frames:
                    useful = now
                elif now - useful > self.timeouts.idle:
                    raise _pings_only(self.timeouts.idle)
                if events:
                    ask.handed = True
                    yield Emit(events)
                if reader.whole:
                    break
                chunk = yield ReadChunk(ask.hold)
            if not reader.whole:
                events = reader.close()
                if events:
                    ask.handed = True
                    yield Emit(events)
            else:
                yield DrainBody(ask.hold)
            return reader.reply(None, 1)
        except Cut as cut:
            if cut.events:
                ask.handed = True
                yield Emit(cut.events)
            error: LMAgentError = cut.error
            cause = cut.__cause__
        except ProviderError as failure:
            error, cause = failure, failure.__cause__
        if isinstance(error, StreamInterrupted):
            error.retryable = not ask.handed
            raise error from cause
        if not ask.handed:
            raise error from cause
        raise self._interrupted(error, reader) from error

    def _start(self, ask: _Ask, reader: StreamReader) -> Generator[ExchangeStep, Any, bytes | None]:
        """Return the first bytes of a stream, or None when the body turned out to be no stream; see `_replayed`."""
        begun = self._clock()
        ask.start = b""
        while True:
            chunk: bytes | None = yield ReadChunk(ask.hold)
            if not reader.sniffs:
                return chunk or b""
            ask.start = (ask.start + (chunk or b"")).lstrip()  # servers send blank lines to keep a connection alive
            whole = chunk is None or looks_whole(ask.start)
            if whole is not None:
                return None if whole else ask.start
            if self._clock() - begun > self.timeouts.idle:
                raise _pings_only(self.timeouts.idle)

    def _replayed(self, ask: _Ask) -> Flow:
        """Read an answer that came whole though a stream was asked for, and hand out its events."""
        pieces = [ask.start]
        while (chunk := (yield ReadChunk(ask.hold))) is not None:
            pieces.append(chunk)
        reply = self._read(ask, b"".join(pieces))
        if self.cache is not None:
            ask.pieces.extend(pieces)
        ask.handed = True
        yield Emit(replayed(reply, ask.prefix))
        return reply

    def _interrupted(self, error: LMAgentError, reader: StreamReader) -> StreamInterrupted:
        facts: dict[str, Any] = {}
        if isinstance(error, ProviderError):
            facts = {"status": error.status, "code": error.code, "request_id": error.request_id, "body": error.body}
        return StreamInterrupted(f"The stream broke off: {error.message}", partial=reader.partial, **facts)


def _text_of(content: bytes) -> str:
    return content[:1000].decode("utf-8", "replace")


def _pings_only(idle: float) -> RequestTimeout:
    text = f"No event came for {idle:g} s, only pings or pieces of one; Timeouts(idle=...) allows more."
    return RequestTimeout(text, which="read")


def _log_repeat(codec: Codec, ask: _Ask, error: BaseException | None, seconds: float) -> None:
    """Say at level INFO that a request is repeated; called on the failing path only."""
    from lmagent.core.redaction import library_logger

    library_logger("transport").info(
        "%s: attempt %d failed (%s), next one in %.2f s", codec.model_id, ask.attempts, error, seconds
    )
