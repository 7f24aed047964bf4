"""The words that mean something to the scanner, in tables."""

from __future__ import annotations

from lmagent.prompting.families.tags import CLOSERS, ELEMENTS, WRAPPERS

__all__ = ["END_WORDS", "MARKERS", "OPENERS", "RESULTS", "THINKING", "THINK_CLOSERS"]

THINKING = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<scratch_pad>": "</scratch_pad>",
}
"""Opening word of thinking: its closing word."""

THINK_CLOSERS = tuple(THINKING.values())

RESULTS = (
    "<tool_response>",
    "<tool_response ",
    "<tool_result>",
    "<tool_results>",
    "<tool_output>",
    "<tool_outputs>",
    "<function_results>",
    "<function_result>",
    "<function_response>",
    "✿RESULT✿",
    "✿RETURN✿",
    "[TOOL_RESULTS]",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁output▁begin｜>",
    "<｜DSML｜function_results>",
    "<｜User｜>",
    "<|START_TOOL_RESULT|>",
    "<|tool_response|>",
    "<|observation|>",
    "<|user|>",
    "<|im_start|>",
    "<|start_header_id|>",
    "<|header_start|>",
    "<|start_of_role|>",
    "<start_of_turn>",
    "]~b]",
)
"""Words that begin a tool result or another role's turn; a model that writes one invents what follows."""

END_WORDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end|>",
    "<|return|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end▁of▁sentence|>",
    "<｜end▁of▁sentence｜>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "</s>",
    "</tool_response>",
    "[/TOOL_RESULTS]",
)
"""Tokens of chat templates that mean nothing inside a reply."""

OPENERS = (*WRAPPERS, *ELEMENTS, "✿FUNCTION✿", "<|start|>", "<|channel|>")
"""Words that begin a call."""

MARKERS = tuple(
    dict.fromkeys(
        (
            *THINKING,
            *THINK_CLOSERS,
            *RESULTS,
            *END_WORDS,
            *OPENERS,
            *CLOSERS,
        )
    )
)
