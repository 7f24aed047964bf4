"""Writes calls the way each family of models writes them (test data only)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Call = tuple[str, dict[str, Any]]


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def envelope(call: Call, key: str = "arguments", name: str = "name") -> str:
    return dumps({name: call[0], key: call[1]})


def each(template: Callable[[Call], str], joiner: str = "\n") -> Callable[[list[Call]], str]:
    return lambda calls: joiner.join(template(call) for call in calls)


def raw(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


def qwen_xml(call: Call) -> str:
    values = "".join(f"<parameter={key}>\n{raw(value)}\n</parameter>\n" for key, value in call[1].items())
    return f"<tool_call>\n<function={call[0]}>\n{values}</function>\n</tool_call>"


def glm(call: Call) -> str:
    values = "".join(f"<arg_key>{k}</arg_key>\n<arg_value>{raw(v)}</arg_value>\n" for k, v in call[1].items())
    return f"<tool_call>{call[0]}\n{values}</tool_call>"


def glm47(call: Call) -> str:
    values = "".join(f"<arg_key>{k}</arg_key><arg_value>{raw(v)}</arg_value>" for k, v in call[1].items())
    return f"<tool_call>{call[0]}{values}</tool_call>"


def invoke(call: Call) -> str:
    values = "".join(f'<parameter name="{k}">{raw(v)}</parameter>\n' for k, v in call[1].items())
    return f'<invoke name="{call[0]}">\n{values}</invoke>\n'


def dsml(call: Call) -> str:
    values = "".join(
        f'<｜DSML｜parameter name="{k}" string="{str(isinstance(v, str)).lower()}">{raw(v)}</｜DSML｜parameter>\n'
        for k, v in call[1].items()
    )
    return f'<｜DSML｜invoke name="{call[0]}">\n{values}</｜DSML｜invoke>\n'


def python(call: Call) -> str:
    return f"{call[0]}({', '.join(f'{key}={value!r}' for key, value in call[1].items())})"


def deepseek_v3(calls: list[Call]) -> str:
    inner = "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{n}\n```json\n{dumps(a)}\n```<｜tool▁call▁end｜>" for n, a in calls
    )
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def deepseek_v31(calls: list[Call]) -> str:
    inner = "".join(f"<｜tool▁call▁begin｜>{n}<｜tool▁sep｜>{dumps(a)}<｜tool▁call▁end｜>" for n, a in calls)
    return f"<｜tool▁calls▁begin｜>{inner}<｜tool▁calls▁end｜>"


def kimi(calls: list[Call]) -> str:
    inner = "".join(
        f"<|tool_call_begin|>functions.{n}:{i}<|tool_call_argument_begin|>{dumps(a)}<|tool_call_end|>"
        for i, (n, a) in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inner}<|tool_calls_section_end|>"


def listed(calls: list[Call], key: str = "arguments", name: str = "name") -> str:
    return dumps([{name: n, key: a} for n, a in calls])


RENDER: dict[str, Callable[[list[Call]], str]] = {
    "hermes": each(lambda c: f"<tool_call>\n{envelope(c)}\n</tool_call>"),
    "json_fence": each(
        lambda c: f"```json\n{json.dumps({'name': c[0], 'arguments': c[1]}, ensure_ascii=False, indent=2)}\n```"
    ),
    "json_fence_array": lambda calls: f"```json\n{listed(calls)}\n```",
    "react": each(lambda c: f"Thought: next\nAction: {c[0]}\nAction Input: {dumps(c[1])}"),
    "structured_chat": each(lambda c: f"Action:\n```\n{envelope(c, 'action_input', 'action')}\n```"),
    "smolagents": each(lambda c: f"Action:\n{envelope(c)}"),
    "qwen_star": each(lambda c: f"✿FUNCTION✿: {c[0]}\n✿ARGS✿: {dumps(c[1])}"),
    "qwen3_coder": each(qwen_xml),
    "llama_json": each(lambda c: envelope(c, "parameters"), "; "),
    "llama_python_tag": lambda calls: (
        "<|python_tag|>" + "; ".join(envelope(c, "parameters") for c in calls) + "<|eom_id|>"
    ),
    "functionary_v31": each(lambda c: f"<function={c[0]}>{dumps(c[1])}</function>", ""),
    "pythonic": lambda calls: f"[{', '.join(map(python, calls))}]",
    "llama4": lambda calls: f"<|python_start|>[{', '.join(map(python, calls))}]<|python_end|>",
    "tool_code": lambda calls: "```tool_code\n" + "\n".join(map(python, calls)) + "\n```",
    "mistral": lambda calls: f"[TOOL_CALLS] {listed(calls)}",
    "mistral_compact": each(lambda c: f"[TOOL_CALLS]{c[0]}[ARGS]{dumps(c[1])}", ""),
    "mistral_call_id": each(lambda c: f"[TOOL_CALLS]{c[0]}[CALL_ID]abcDEF123[ARGS]{dumps(c[1])}", ""),
    "deepseek_v3": deepseek_v3,
    "deepseek_v31": deepseek_v31,
    "dsml": lambda calls: f"<｜DSML｜function_calls>\n{''.join(map(dsml, calls))}</｜DSML｜function_calls>",
    "dsml_v4": lambda calls: f"<｜DSML｜tool_calls>\n{''.join(map(dsml, calls))}</｜DSML｜tool_calls>",
    "glm45": each(glm),
    "glm47": each(glm47, ""),
    "kimi_k2": kimi,
    "minimax_m1": lambda calls: "<tool_calls>\n" + "\n".join(map(envelope, calls)) + "\n</tool_calls>",
    "minimax_m2": lambda calls: f"<minimax:tool_call>\n{''.join(map(invoke, calls))}</minimax:tool_call>",
    "functionary_v32": each(lambda c: f">>>{c[0]}\n{dumps(c[1])}", ""),
    "command_r": lambda calls: f"Action: ```json\n{listed(calls, 'parameters', 'tool_name')}\n```",
    "command_a": lambda calls: f"<|START_ACTION|>{listed(calls, 'parameters', 'tool_name')}<|END_ACTION|>",
    "granite": lambda calls: f"<|tool_call|>{listed(calls)}",
    "granite_31": lambda calls: f"<tool_call>{listed(calls)}",
    "granite_20b": each(lambda c: f"<function_call> {envelope(c)}"),
    "phi4": lambda calls: f"functools{listed(calls)}",
    "harmony": each(
        lambda c: (
            f"<|start|>assistant<|channel|>commentary to=functions.{c[0]} "
            f"<|constrain|>json<|message|>{dumps(c[1])}<|call|>"
        ),
        "",
    ),
    "internlm2": each(lambda c: f"<|action_start|><|plugin|>\n{envelope(c, 'parameters')}<|action_end|>"),
}
"""Family: how it writes a list of calls."""

PROSE_BEFORE = frozenset(RENDER) - {"llama_json", "pythonic", "llama4", "functionary_v32"}
"""Families that allow text before a call."""

NO_END = frozenset(
    {
        "react",
        "smolagents",
        "qwen_star",
        "llama_json",
        "mistral",
        "mistral_compact",
        "mistral_call_id",
        "functionary_v32",
    }
)
"""Families whose call ends with its JSON: nothing closes it."""
