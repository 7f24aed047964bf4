"""The rules of MiniMax's `chatcompletion_pro` under the name that the contract test looks for."""

from __future__ import annotations

from tests.providers.rules_minimax import check_pro as check

__all__ = ["check"]
