"""Models: codec + transport = four verbs. One class for each maker; `load_from_model_id` finds them by name."""

from __future__ import annotations
