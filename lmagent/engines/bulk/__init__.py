"""The parts of a bulk run: work source, gate, journal, results. `CompletionEngine` is the public API."""

from __future__ import annotations
