"""Hooks and observers of runs, trace files, OpenTelemetry; and probing, which tests what a model can do."""

from __future__ import annotations
