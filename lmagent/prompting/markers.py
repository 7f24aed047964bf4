"""The marker words of all model families, and `neutralise`, which makes them harmless in text from outside.

The tables are data for the scanner: words that begin and end calls, thinking, invented results and a reply. Neutralised
text from a tool or a user can open or close nothing in a prompt. Only marker words are changed; ordinary `<`, HTML and
code stay as they are.
"""

from __future__ import annotations

import re

__all__ = [
    "CLOSERS",
    "ELEMENTS",
    "END_WORDS",
    "MARKERS",
    "OPENERS",
    "RESULTS",
    "THINKING",
    "THINK_CLOSERS",
    "WRAPPERS",
    "neutralise",
]

THINKING = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<scratch_pad>": "</scratch_pad>",
    "[THINKING]": "[/THINKING]",
    "[REASONING]": "[/REASONING]",
    "◁think▷": "◁/think▷",
    "<|channel>thought": "<channel|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|open|>think<|sep|>": "<|close|>think<|sep|>",
}
"""Opening word of thinking -> its closing word. Other spellings of tags are patterns (`thinking_tags`)."""

THINK_CLOSERS = tuple(THINKING.values())

RESULTS = (
    "<tool_response>", "<tool_response ", "<tool_result>", "<tool_results>", "<tool_output>", "<tool_outputs>",
    "<function_results>", "<function_result>", "<function_response>", "✿RESULT✿", "✿RETURN✿", "[TOOL_RESULTS]",
    "<｜tool▁outputs▁begin｜>", "<｜tool▁output▁begin｜>", "<｜DSML｜function_results>", "<｜User｜>",
    "<|START_TOOL_RESULT|>", "<|tool_response|>", "<|observation|>", "<|user|>", "<|im_start|>",
    "<|start_header_id|>", "<|header_start|>", "<|start_of_role|>", "<start_of_turn>", "]~b]",
)  # fmt: skip
"""Words that begin a tool result or the turn of another role. A model that writes one invents what follows."""

END_WORDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>", "<|return|>", "<|endoftext|>",
    "<|end_of_text|>", "<|end▁of▁sentence|>", "<｜end▁of▁sentence｜>", "<|START_RESPONSE|>", "<|END_RESPONSE|>",
    "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "</s>", "</tool_response>", "[/TOOL_RESULTS]",
)  # fmt: skip
"""Tokens of chat templates that have no meaning inside a reply."""

WRAPPERS: dict[str, tuple[str, ...]] = {
    "<tool_call>": ("</tool_call>",),
    "<tool_calls>": ("</tool_calls>", "</tool_call>"),
    "<function_call>": ("</function_call>",),
    "<function_calls>": ("</function_calls>",),
    "<TOOLCALL>": ("</TOOLCALL>",),
    "<toolcall>": ("</toolcall>",),
    "<tool_use>": ("</tool_use>",),
    "<minimax:tool_call>": ("</minimax:tool_call>",),
    "<seed:tool_call>": ("</seed:tool_call>",),
    "<｜DSML｜function_calls>": ("</｜DSML｜function_calls>",),
    "<｜DSML｜tool_calls>": ("</｜DSML｜tool_calls>",),
    "<|tool_call|>": ("<|/tool_call|>", "</tool_call>"),
    "<|tool_call_start|>": ("<|tool_call_end|>",),
    "<|START_ACTION|>": ("<|END_ACTION|>",),
    "<|action_start|>": ("<|action_end|>",),
    "<|python_tag|>": ("<|eom_id|>", "<|eot_id|>"),
    "<|python_start|>": ("<|python_end|>",),
    "<｜tool▁calls▁begin｜>": ("<｜tool▁calls▁end｜>",),
    "<|tool_calls_section_begin|>": ("<|tool_calls_section_end|>",),
    "[TOOL_CALLS]": ("[/TOOL_CALLS]",),
    "functools[": (),
}
"""Opening word of a wrapper around calls -> its closing words."""

ELEMENTS = ("<function=", "<invoke", "<｜DSML｜invoke", "<｜tool▁call▁begin｜>", "<|tool_call_begin|>")
"""Markers that begin a call with or without a wrapper."""

_INNER_CLOSERS = (
    "</function>", "</invoke>", "</｜DSML｜invoke>", "<｜tool▁call▁end｜>", "<|tool_call_end|>", "<|call|>",
)  # fmt: skip
CLOSERS = tuple(dict.fromkeys((*(word for words in WRAPPERS.values() for word in words), *_INNER_CLOSERS)))
OPENERS = (*WRAPPERS, *ELEMENTS, "✿FUNCTION✿", "<|start|>", "<|channel|>")
"""Words that begin a call."""

MARKERS = tuple(dict.fromkeys((*THINKING, *THINK_CLOSERS, *RESULTS, *END_WORDS, *OPENERS, *CLOSERS)))


_ZERO_WIDTH = "\u200b"

_INNER = (
    "✿ARGS✿", "[ARGS]", "[CALL_ID]", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<parameter",
    "</parameter>", "<tools>", "</tools>", "<response>", "</response>",
)  # fmt: skip
"""Words inside calls and lists of tools."""
_TEMPLATE = (
    "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]", "[gMASK]", "<sop>", "<s>", "<bos>", "<eos>", "]~!b[", "[e~[", "<reserved_",
)  # fmt: skip
"""Other tokens of chat templates than those between `<|` and `|>`."""


def _pattern() -> str:
    """Return the pattern of all words, grouped by first character: the search then skips to candidates."""
    think = r"/?(?=[\w.:-]{0,100}(?:think|thought|reason))[\w.:-]{1,100}(?=[\s>])"
    rests: dict[str, list[str]] = {"<": [r"[|｜](?=[\w/])", think]}
    for word in sorted({*MARKERS, *_INNER, *_TEMPLATE}):
        rests.setdefault(word[0], []).append(re.escape(word[1:]))
    return "|".join(f"{re.escape(first)}(?i:{'|'.join(rest)})" for first, rest in rests.items())


_WITHOUT_FENCES = re.compile(_pattern())
_WITH_FENCES = re.compile(_pattern() + "|`{3,}")


def neutralise(text: str, *, fences: bool = True) -> str:
    """Return `text` with its markers made harmless; it reads the same.

    Args:
        text: From a tool, or from the user.
        fences: Whether code fences are markup as well. In a user's own text they are just code.

    A zero-width space is inserted after the first character of each marker, and between backticks. Line markers such as
    `Observation:` need no change: results enter the prompt as JSON, which has no line breaks.
    """
    return (_WITH_FENCES if fences else _WITHOUT_FENCES).sub(_split, text)


def _split(found: re.Match[str]) -> str:
    word = found.group()
    return _ZERO_WIDTH.join(word) if word[0] == "`" else word[0] + _ZERO_WIDTH + word[1:]
