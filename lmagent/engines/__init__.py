"""Engines: a conversation (`ChatEngine`), many prompts (`CompletionEngine`), and how a run is shown to people."""

from __future__ import annotations
