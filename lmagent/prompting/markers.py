"""The marker words of all model families, and `neutralise`, which makes them harmless in text from outside.

The tables are data for the scanner: words that begin and end calls, thinking, invented results and a reply. Neutralised
text from a tool or a user can open or close nothing in a prompt. Only marker words are changed; ordinary `<`, HTML and
code stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "CLOSERS",
    "ELEMENTS",
    "ELEMENT_FORMS",
    "END_WORDS",
    "MARKERS",
    "OPENERS",
    "PLAIN_HARMONY",
    "RESULTS",
    "THINKING",
    "THINK_CLOSERS",
    "TOKEN_FORMS",
    "WRAPPERS",
    "ElementForm",
    "TokenForm",
    "neutralise",
]

_TAG_PREFIXES = ("｜DSML｜", "|DSML|", "‖DSML‖", "｜｜DSML｜｜", "｜GCML｜")
"""Words before each tag name: DeepSeek V3.2 and V4, also with the bars that proxies and models change (2026); GigaChat
3.5 (vLLM parser, 2026)."""

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
    "<｜tool▁outputs▁begin｜>", "<｜tool▁output▁begin｜>", "<｜User｜>",
    "<|START_TOOL_RESULT|>", "<|tool_response|>", "<|observation|>", "<|user|>", "<|im_start|>",
    "<|start_header_id|>", "<|header_start|>", "<|start_of_role|>", "<start_of_turn>", "]~b]",
    "<|tool_response>", "<start_function_response>", "<|turn>", "<|open|>message ", "function result<|role_sep|>",
    *(f"<{prefix}function_results>" for prefix in _TAG_PREFIXES),
)  # fmt: skip
"""Words that begin a tool result or the turn of another role. A model that writes one invents what follows."""

END_WORDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end|>", "<|return|>", "<|endoftext|>",
    "<|end_of_text|>", "<|end▁of▁sentence|>", "<｜end▁of▁sentence｜>", "<|START_RESPONSE|>", "<|END_RESPONSE|>",
    "<|END_OF_TURN_TOKEN|>", "<end_of_turn>", "</s>", "</tool_response>", "[/TOOL_RESULTS]", "<turn|>",
    "<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>", "<|end_of_msg|>",
    "<|message_sep|>", "<|assistant_end|>", "<|endofturn|>",
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
    **{
        f"<{prefix}{word}>": (f"</{prefix}{word}>",)
        for prefix in _TAG_PREFIXES
        for word in ("function_calls", "tool_calls")
    },
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
    # Forms of 2025 and 2026, each with where it was looked up.
    "<|tool_call>": ("<tool_call|>",),  # Gemma 4: its chat template, vLLM parser
    "<start_function_call>": ("<end_function_call>",),  # FunctionGemma: vLLM parser
    "<|open|>tools<|sep|>": ("<|close|>tools<|sep|>",),  # Kimi K3: its chat template, SGLang detector
    "<|tools_prefix|>": ("<|tools_suffix|>",),  # Apertus: SGLang detector
    "<｜tool_calls_begin｜>": ("<｜tool_calls_end｜>",),  # Step-3: vLLM parser
    "<longcat_tool_call>": ("</longcat_tool_call>",),  # LongCat: SGLang detector, Meituan's prompts
    "]<]minimax[>[<tool_call>": ("]<]minimax[>[</tool_call>",),  # MiniMax M3: SGLang detector
    "<|function_call|>": ("<|message_sep|>",),  # GigaChat 3: vLLM parser, its chat template
    "function call<|role_sep|>": ("<|message_sep|>",),
    "-> tool/function_call": ("<|im_end|>", "<|endofturn|>"),  # HyperCLOVA X SEED Think 14B: vLLM parser
    "<|im_start|>assistant -> tool/function_call": ("<|im_end|>", "<|endofturn|>"),
    "<tools>": ("</tools>", "</tool>"),  # Qwen2.5-Coder: vLLM issue 32926, kronk issue 944
    "[TOOL_REQUEST]": ("[END_TOOL_REQUEST]", "[TOOL_REQUEST_END]"),  # LM Studio: its default tool format
    "[Calling tool:": (),  # LFM2 and Qwen on MLX: vllm-mlx parser
}
"""Opening word of a wrapper around calls -> its closing words."""


class ElementForm(NamedTuple):
    """How a family writes a call as an element with attributes."""

    closer: str
    parameters: Mapping[str, str]
    """Opening of a parameter -> its closing word."""
    head_end: str = ">"
    name: str = "name"
    """Attribute that names the tool."""
    key: str = "name"
    """Attribute that names the parameter."""
    whole: str = ""
    """Opening of an element that holds all arguments as one JSON object."""


def _element(prefix: str, word: str, *parameters: str) -> ElementForm:
    return ElementForm(f"</{prefix}{word}>", {f"<{prefix}{name}": f"</{prefix}{name}>" for name in parameters})


ELEMENT_FORMS: dict[str, ElementForm] = {
    "<function=": _element("", "function", "parameter"),
    "<function name=": _element("", "function", "param", "parameter"),  # MiniCPM5: SGLang detector (2026)
    "<tool_call name=": _element("", "tool_call", "param", "parameter"),
    "<invoke": _element("", "invoke", "parameter"),
    **{f"<{prefix}invoke": _element(prefix, "invoke", "parameter") for prefix in _TAG_PREFIXES},
    "<steptml:invoke": _element("steptml:", "invoke", "parameter"),  # Step-3: vLLM parser (2025)
    "<|open|>call ": ElementForm(
        "<|close|>call<|sep|>",
        {"<|open|>argument": "<|close|>argument<|sep|>"},
        head_end="<|sep|>",
        name="tool",
        key="key",
        whole="<|open|>json",
    ),  # Kimi K3: its chat template, SGLang detector (2026)
}
"""Opening of a call as an element -> the rest of its form."""


class TokenForm(NamedTuple):
    """How a family writes a name and JSON arguments between special tokens."""

    separator: str
    closer: str
    section_closer: str


TOKEN_FORMS: dict[str, TokenForm] = {
    "<｜tool▁call▁begin｜>": TokenForm("<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    "<｜tool_call_begin｜>": TokenForm("<｜tool_sep｜>", "<｜tool_call_end｜>", "<｜tool_calls_end｜>"),
    "<|tool_call_begin|>": TokenForm("<|tool_call_argument_begin|>", "<|tool_call_end|>", "<|tool_calls_section_end|>"),
}
"""Opening token of a call -> the rest of its form."""

ELEMENTS = (
    *ELEMENT_FORMS, *TOKEN_FORMS, "]<]minimax[>[<invoke", "<tool_calls:", "<tool_call:",
)  # fmt: skip
"""Markers that begin a call with or without a wrapper."""

_INNER_CLOSERS = (
    *(form.closer for form in (*ELEMENT_FORMS.values(), *TOKEN_FORMS.values())), "<|close|>json<|sep|>",
    "]<]minimax[>[</invoke>", "<|call|>",
)  # fmt: skip
CLOSERS = tuple(dict.fromkeys((*(word for words in WRAPPERS.values() for word in words), *_INNER_CLOSERS)))
PLAIN_HARMONY = ("assistantcommentary to=functions.", "assistant to=functions.")
"""Harmony headers whose special tokens a server has removed (gpt-oss behind Ollama, LM Studio and vLLM, 2026)."""
OPENERS = (*WRAPPERS, *ELEMENTS, "✿FUNCTION✿", "<|start|>", "<|channel|>", *PLAIN_HARMONY)
"""Words that begin a call."""

MARKERS = tuple(dict.fromkeys((*THINKING, *THINK_CLOSERS, *RESULTS, *END_WORDS, *OPENERS, *CLOSERS)))


_ZERO_WIDTH = "\u200b"

_INNER = (
    "✿ARGS✿", "[ARGS]", "[CALL_ID]", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<parameter",
    "</parameter>", "<response>", "</response>", "<arg_key:", "</arg_key:", "<arg_value:", "</arg_value:", "<tool_sep",
    "</tool_call:", "</tool_calls:", "<longcat_arg_", "</longcat_arg_", "<param ", "</param>", "<escape>", '<|"|>',
    "]<]minimax[>[", *(word for form in ELEMENT_FORMS.values() for pair in form.parameters.items() for word in pair),
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
        if "<|" in word[1:]:
            continue  # the first branch breaks the token inside it
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
