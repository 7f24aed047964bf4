"""One question to a model, whatever carries it: send, read, retry, rate limits, the response cache."""

from __future__ import annotations
