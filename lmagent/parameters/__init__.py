"""Checked parameters: one neutral set, and a class a provider for what is its own. Loaded only when one is given."""

from __future__ import annotations

from lmagent.parameters.base import ChatParameters

__all__ = ["ChatParameters"]
