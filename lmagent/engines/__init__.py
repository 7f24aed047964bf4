"""Engines: `ChatEngine` for one conversation, `CompletionEngine` for many prompts, `Printer` for terminals."""

from __future__ import annotations
