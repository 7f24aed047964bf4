"""Structured answers: the schema of a Python type, and the value read from a reply.

The schema is sent as the provider's JSON schema if it has one, else as a tool that must be called, else in the prompt.
The type may be any type of a tool parameter: a pydantic model, dataclass, TypedDict, Literal, union or list.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal, cast, is_typeddict

from lmagent.core.json_text import JSONError, dumps_text, loads
from lmagent.core.messages import Reply, ToolCall
from lmagent.errors import InvalidArguments
from lmagent.providers.base import Features
from lmagent.toolkit.schema import OutputSchema, ToolSpec, inline_refs
from lmagent.toolkit.tool import Tool, function

__all__ = ["OutputMode", "TypedOutput"]

OutputMode = Literal["auto", "native", "tool", "prompt"]

_TOOL_NAME = "final_answer"
_FENCED = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*)```", re.DOTALL)


class TypedOutput:
    """Describes one answer type to the model and reads the answer.

    Args:
        output_type: The type of the answer.
        features: Of the model's codec; they decide the mode if `mode` is `auto`.
        mode: How the model is asked: `native`, `tool`, `prompt`, or `auto`.
        repair: Whether text that is nearly JSON is repaired, as `Tool.validate` takes it.

    Raises:
        FunctionDefinitionError: The type cannot be described as JSON.
    """

    def __init__(
        self, output_type: Any, features: Features, *, mode: OutputMode = "auto", repair: bool = False
    ) -> None:
        self._tool, self._is_wrapped = _maker(output_type)
        self._tool.check()
        self._repair = repair
        self.mode = _choose(features) if mode == "auto" else mode
        spec = self._tool.spec
        name = getattr(output_type, "__name__", "answer")
        self.schema = (
            OutputSchema(name=name if name.isidentifier() and name.isascii() else "answer", schema=spec.parameters)
            if self.mode == "native" or (self.mode == "prompt" and features.json_schema == "object")
            else None
        )
        self.tool: ToolSpec | None = spec if self.mode == "tool" else None
        """A tool whose call is the answer."""

    @property
    def instruction(self) -> str:
        """Text added to the system prompt in prompt mode; empty in the other modes."""
        if self.mode != "prompt":
            return ""
        schema = dumps_text(inline_refs(self._tool.spec.parameters))
        return f"Give your final answer as one JSON object and nothing else. It must fit this JSON Schema:\n{schema}"

    def is_output(self, call: ToolCall) -> bool:
        """Whether this call is the answer."""
        return self.tool is not None and call.name == self.tool.name

    def read(self, reply: Reply) -> tuple[Any, tuple[str, ...]]:
        """Return the value, and what is wrong with the answer, one line each."""
        answer = next((call for call in reply.tool_calls if self.is_output(call)), None)
        if answer is not None and answer.problem:
            return None, (answer.problem,)
        if reply.finish_reason in ("content_filter", "refusal"):
            return None, (f"The model gave no answer ({reply.finish_reason}): {reply.reply:.200}",)
        text = answer.arguments if answer else self._text_of(reply.reply)
        try:
            value = self._tool.run(self._tool.validate(text, repair=self._repair))
        except InvalidArguments as error:
            return None, error.problems if answer or not self.tool else (f"Call {self.tool.name} to answer.",)
        return (value["value"] if self._is_wrapped else value), ()

    def _text_of(self, text: str) -> str:
        """Return the JSON in an answer, put under `value` where the model gave it bare: `42`, `[1, 2]`, `yes`."""
        text = _json_of(text)
        if not self._is_wrapped:
            return text
        try:
            value = loads(text)
        except JSONError:
            wanted = inline_refs(self._tool.spec.parameters)["properties"]["value"]
            if text not in wanted.get("enum", ()):
                return text
            value = text
        return text if isinstance(value, dict) and "value" in value else dumps_text({"value": value})


def _choose(features: Features) -> Literal["native", "tool", "prompt"]:
    if features.json_schema == "schema":
        return "native"
    return "tool" if features.tools and "required" in features.tool_choice else "prompt"


def _maker(output_type: Any) -> tuple[Tool[..., Any], bool]:
    """Return a tool whose arguments are the answer; a type that is no object is put under `value`."""
    is_model = isinstance(output_type, type) and getattr(output_type, "__pydantic_root_model__", None) is False
    if is_model or (isinstance(output_type, type) and dataclasses.is_dataclass(output_type)):
        return function(output_type, name=_TOOL_NAME, description=_doc(output_type)), False

    def answer(**members: Any) -> dict[str, Any]:
        return members

    if is_typeddict(cast("Any", output_type)):
        from typing import Unpack

        answer.__annotations__ = {"members": Unpack[output_type]}
        return function(answer, name=_TOOL_NAME, description=_doc(cast("type", output_type))), False

    def wrapped(value: Any) -> dict[str, Any]:
        return {"value": value}

    wrapped.__annotations__ = {"value": output_type}
    return function(wrapped, name=_TOOL_NAME, description="Give the final answer."), True


def _doc(output_type: type) -> str:
    own = output_type.__dict__.get("__doc__") or ""
    generated = own.startswith(f"{output_type.__name__}(")
    return "Give the final answer." + (f" {own.strip().splitlines()[0]}" if own.strip() and not generated else "")


def _json_of(text: str) -> str:
    """Return the JSON in an answer: the whole text, or what one code fence in it or its outermost braces hold."""
    text = text.strip()
    if text.startswith("["):
        return text
    fenced = None if text.startswith("{") else _FENCED.search(text)
    if fenced:
        return fenced[1].strip()
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text
