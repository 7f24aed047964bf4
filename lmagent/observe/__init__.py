"""What watches a run: hooks, spans, trace files, OpenTelemetry; and probing, which finds out what a model can do."""

from __future__ import annotations
