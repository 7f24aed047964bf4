"""HTTP, and llama.cpp in this process: how the bytes of a request get to a model and those of its reply come back."""

from __future__ import annotations
