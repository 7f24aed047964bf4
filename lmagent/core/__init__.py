"""Values and small mechanisms that every other layer uses: messages, events, history, JSON text, redaction."""

from __future__ import annotations
