"""Values and mechanisms that all other layers use: messages, events, history, budget, JSON text, redaction."""

from __future__ import annotations
