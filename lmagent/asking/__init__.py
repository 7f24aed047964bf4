"""One question to a model, whatever transport carries it: sending, reading, retries, rate limits, response cache."""

from __future__ import annotations
