"""Awaiting from synchronous code, also inside a running event loop: a coroutine gets a loop on a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable
from typing import Any

__all__ = ["await_blocking"]


def await_blocking(awaitable: Awaitable[Any]) -> Any:
    """Return what `awaitable` gives, or raise what it raises.

    Runs in place when this thread has no running loop, else on a short-lived thread that is joined. An interrupt
    (Ctrl-C) cancels the coroutine before it leaves.
    """

    async def main() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    outcome: dict[str, Any] = {}
    context = contextvars.copy_context()

    def target() -> None:
        try:
            outcome["value"] = context.run(asyncio.run, main())
        except BaseException as error:  # handed to the caller's thread, whatever it is
            outcome["error"] = error

    thread = threading.Thread(target=target, name="lmagent-await", daemon=True)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
