"""Rate-limit headers: how long until a provider has room again. Pure; knows two families of headers, no provider.

`x-ratelimit-remaining-requests: 0`, `x-ratelimit-reset-requests: 6m0s` (OpenAI and those who follow it) and
`anthropic-ratelimit-requests-remaining: 0`, `…-reset: 2026-11-23T10:00:00Z`; the same for tokens. `reset` is when the
whole bucket is full again, so the next request fits after the limit's part of it.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["seconds_to_room"]

_KINDS = (
    (
        "x-ratelimit-remaining-requests",
        "x-ratelimit-limit-requests",
        "x-ratelimit-reset-requests",
        1.0,
    ),
    (
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-reset-tokens",
        1000.0,
    ),
    (
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-reset",
        1.0,
    ),
    (
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-reset",
        1000.0,
    ),
)
"""Names of what is left, of the limit, of the time to a full bucket, and how much a request needs."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_to_room(headers: Mapping[str, str], now: float) -> float:
    """Return the seconds until another request fits; 0.0 when there is room or nothing is said.

    Args:
        headers: Lower-case names.
        now: Wall clock, seconds since 1970, for times given as dates.
    """
    longest = 0.0
    for remaining, limit, reset, need in _KINDS:
        if headers.get(remaining, "").strip() != "0":
            continue
        seconds = _duration(headers.get(reset, "").strip(), now)
        if seconds is None or seconds <= 0:
            continue
        size = headers.get(limit, "").strip()
        share = min(need / int(size), 1.0) if size.isascii() and size.isdigit() and int(size) else 1.0
        longest = max(longest, seconds * share)
    return longest


def _duration(text: str, now: float) -> float | None:
    """Read `6m0s`, `20ms`, `1.5`, or an ISO date."""
    if "T" in text:
        from datetime import datetime  # only for the few answers that say that nothing is left

        try:
            return datetime.fromisoformat(text).timestamp() - now
        except (ValueError, OverflowError):
            return None
    total, number, position = 0.0, "", 0
    while position < len(text):
        char = text[position]
        if char.isdigit() or char == ".":
            number += char
            position += 1
            continue
        unit = "ms" if text.startswith("ms", position) else char
        if unit not in _UNITS or not number:
            return None
        value = _number(number)
        if value is None:
            return None
        total, number = total + value * _UNITS[unit], ""
        position += len(unit)
    rest = _number(number) if number else 0.0
    return None if rest is None or not text else total + rest


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
