"""`Exchange`: sends one question to a model, with credentials, rate limits, retries and a response cache.

Theory of operation. An exchange holds the settings of one model and nothing of a single call, so threads, tasks and
event loops may share it. Each call makes an `ExchangeFlow` (`flow.py`), a generator that takes every decision and
yields steps, and an `OpenResponse`, which knows the response that is open. The four verbs here are drivers:

    ask, async_ask              perform the steps; return the reply
    stream, async_stream        the same, and hand the events of each `Emit` step to the consumer

A driver performs a step and sends the outcome back into the flow; an error goes back by `throw`, so that the flow
decides whether it ends the call. When the call ends, when a step raises and when the consumer of a stream leaves early,
the driver closes the flow first and then the response, which frees the connection.

The drivers are written out four times because sync and async code cannot share a loop body without a cost per event.
They contain no decision: a new rule belongs in `flow.py`, a new operation in `steps.py`.

A request that failed may be sent again although the provider has worked on the first one. It may then be billed twice.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from lmagent.asking.flow import ExchangeFlow
from lmagent.asking.retry import RetryPolicy
from lmagent.asking.steps import Emit, FairLock, OpenResponse
from lmagent.core.events import Event
from lmagent.core.messages import Reply
from lmagent.http.base import Timeouts, Transport, interruptible_sleep
from lmagent.providers.base import Auth, ChatCall, Codec

if TYPE_CHECKING:
    from lmagent.asking.cache import ResponseCache
    from lmagent.asking.limits import Limiter

__all__ = ["Exchange"]

MAX_BODY = 16 * 1024 * 1024


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
