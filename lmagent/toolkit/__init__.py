"""Functions as tools: describing them, reading the arguments of a call, running it, and the registry that holds them."""

from __future__ import annotations
