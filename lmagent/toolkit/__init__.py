"""Functions as tools: describing them, reading the arguments of a call, running it, and the tool registry."""

from __future__ import annotations
