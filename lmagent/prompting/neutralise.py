"""Text from outside, made harmless before it enters a prompt: no marker in it can open or close anything.

Only what some model family reads as markup is touched; ordinary `<`, HTML and code stay as they are.
"""

from __future__ import annotations

import re

__all__ = ["neutralise"]

_ZERO_WIDTH = "\u200b"

_TAG = re.compile(
    r"<(?=/?(?:tool_calls?|tool_response|tool_result|tool_output|tools|function_calls?|function=|invoke|parameter|"
    r"minimax:|arg_key|arg_value|think|scratch_pad|response>|/?s>|start_of_turn|end_of_turn|[|｜]))",
    re.IGNORECASE,
)
_MARKERS = (
    "|>", "｜>", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[INST]", "[/INST]",
    "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "✿FUNCTION✿", "✿ARGS✿", "✿RESULT✿", "✿RETURN✿", "<<SYS>>",
    "functools[", "```", "]~b]", "]~!b[", "[e~[",
)  # fmt: skip


def neutralise(text: str, *, fences: bool = True) -> str:
    """Return `text` unable to act as markup, and as readable as before.

    Args:
        text: From a tool, or from the user.
        fences: Whether code fences are markup as well; in a user's own text they are just code.

    A zero-width space is put behind the first character of each marker. Line markers such as `Observation:` are no
    danger here: results enter the prompt as JSON, in which no line begins.
    """
    if "<" in text:
        text = _TAG.sub("<" + _ZERO_WIDTH, text)
    for marker in _MARKERS:
        if marker in text and (fences or marker != "```"):
            text = text.replace(marker, marker[0] + _ZERO_WIDTH + marker[1:])
    return text
