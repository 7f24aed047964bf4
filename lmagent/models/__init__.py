"""Models: codec + transport = four verbs. One class per maker; `load_from_model_id` finds them by name."""

from __future__ import annotations
