"""Bulk: work, rate limits, the journal, progress. `CompletionEngine` is the public face."""

from __future__ import annotations
