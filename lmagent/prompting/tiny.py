"""Tools for very small models (about 0.1B to 1B), with prompts that such models can follow.

A tiny model cannot choose tools and cannot write calls in free text. So the tool is chosen by the words it shares with
the request, the model fills in the arguments of that one tool under a grammar, and ungrounded required values are
rejected: those that do not occur in the conversation. Measured gain over one schema-constrained request on a 135M
model: correct calls 38 % instead of 32 %, false calls 17 % instead of 80 %, in half the time. Never used silently for
capable models.

One request per round, as everywhere. All that the codec needs it reads from the conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmagent.core.events import Delta, Done, ReplyBuilder, TextDelta, ToolCallDelta
from lmagent.core.json_text import JSON
from lmagent.core.messages import Message, Reply, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.prompting.formats import WholeReply
from lmagent.prompting.markers import neutralise
from lmagent.prompting.prompted import Prompted, bound_lengths
from lmagent.providers.base import ChatCall, Codec, NamedTool
from lmagent.toolkit.schema import OutputSchema, ToolSpec, inline_refs

__all__ = ["TinyPrompted", "choose_tool", "content_words", "ungrounded"]

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_CJK = re.compile(r"[\u3400-\u9fff]+")
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are at be by can could do does for from get give has have how i in is it its let me my of on or "
        "please show tell that the this to us use want was we what when where which who will with would you your"
    )
)
_ARITHMETIC = re.compile(r"\d\s*[-+*/×÷%^]\s*\d")


def content_words(text: str) -> set[str]:
    """Return the content words of `text`, in lower case and lightly stemmed; Chinese as pairs of characters."""
    words: set[str] = set()
    for run in _CJK.findall(text):
        words.update(run[index : index + 2] for index in range(max(len(run) - 1, 1)))
    spaced = _CAMEL.sub(" ", _CJK.sub(" ", text))
    for word in _WORD.findall(spaced.lower()):
        if word not in _STOP_WORDS:
            words.add(_stem(word))
    if _ARITHMETIC.search(text):
        words.update(("calculate", "arithmetic"))  # a request shows a sum in signs; a calculator is described in words
    return {_stem(word) for word in words}


_ENDINGS = ("ations", "ation", "ators", "ator", "ings", "ing", "ates", "ated", "ate", "ies", "ed", "es", "s", "e")


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _tool_words(tool: ToolSpec) -> set[str]:
    cached = tool.encoded.get("words")
    if cached is None:
        properties: Mapping[str, Any] = tool.parameters.get("properties", {})
        enums = [str(value) for schema in properties.values() for value in schema.get("enum", ())]
        first = tool.description.split("\n", 1)[0]
        cached = tool.encoded["words"] = content_words(" ".join([tool.name, first, *properties, *enums]))
    return cached


def choose_tool(request: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """Return the tool that shares most content words with the request; None when no tool shares any."""
    wanted = content_words(request)
    best = max(tools, key=lambda tool: len(wanted & _tool_words(tool)), default=None)
    return best if best is not None and wanted & _tool_words(best) else None


@dataclass(slots=True)
class _Task:
    """The request to the model in one round."""

    tool: ToolSpec | None = None
    request: str = ""
    conversation: str = ""
    """The conversation so far, which required values must come from."""


@dataclass(slots=True)
class _TinyState:
    inner: Any
    pieces: list[str] = field(default_factory=list[str])


class TinyPrompted(Prompted):
    """`Prompted` for tiny models with constrained decoding.

    Args:
        codec: A dialect whose `features.constrained` is set.
        grounded: Whether a required number or text must occur in the conversation. If one does not, the call does not
            run and the answer names the missing value.
    """

    def __init__(self, codec: Codec, *, grounded: bool = True) -> None:
        super().__init__(codec, format=WholeReply())
        self.features = replace(self.features, parallel_calls=False)
        self.grounded = grounded
        self._task = _Task()

    def _bind(self, call: ChatCall) -> None:
        super()._bind(call)
        self._task = self._task_of(call)

    def _task_of(self, call: ChatCall) -> _Task:
        if not call.tools or call.tool_choice == "none" or not isinstance(call.messages[-1], UserMessage):
            return _Task()
        request = call.messages[-1].text
        if isinstance(call.tool_choice, NamedTool):
            named = call.tool_choice.name
            tool = next(tool for tool in call.tools if tool.name == named)
        else:
            tool = choose_tool(request, call.tools)
            if tool is None and call.tool_choice == "required":
                tool = call.tools[0]
        conversation = "\n".join(m.content if isinstance(m.content, str) else "" for m in call.messages)
        return _Task(tool, request, conversation)

    def render(self, call: ChatCall) -> ChatCall:
        """Return the short prompt of this round: fill in arguments, put a result into words, or plain conversation."""
        task = self._task_of(call)
        plain = replace(call, tools=(), tool_choice="auto")
        if task.tool is not None:
            schema = bound_lengths(_requested_parameters(task.tool, task.request))
            parameters = {"max_tokens": 128, **call.parameters}
            messages = _argument_prompt(task.tool, schema, task.request)
            return replace(
                plain,
                messages=messages,
                parameters=parameters,
                output_schema=OutputSchema(name="arguments", schema=schema),
            )
        if isinstance(call.messages[-1], ToolMessage):
            return replace(plain, messages=tuple(_answer_prompt(call.messages)))
        return replace(plain, messages=tuple(_without_calls(call.messages)))

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        reply = self.inner.parse_reply(body, prefix=prefix)
        if self._task.tool is None:
            return reply
        builder = ReplyBuilder(prefix)
        for delta in self._call_of(reply.reply, reply.finish_reason):
            builder.add(delta)
        builder.add(Done(finish_reason=reply.finish_reason, usage=reply.usage, raw=reply.raw))
        return builder.reply(reply.model_id)

    def new_state(self) -> Any:
        return _TinyState(self.inner.new_state())

    def parse_event(self, state: Any, data: bytes, event: str = "") -> Iterable[Delta]:
        return self._collect(state, self.inner.parse_event(state.inner, data, event))

    def finish(self, state: Any) -> Iterable[Delta]:
        return self._collect(state, self.inner.finish(state.inner))

    def _collect(self, state: _TinyState, deltas: Iterable[Delta]) -> Iterable[Delta]:
        """Collect the arguments until they are complete; only then they can become a call."""
        if self._task.tool is None:
            return deltas
        read: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, TextDelta):
                state.pieces.append(delta.text)
                continue
            if isinstance(delta, Done):
                read.extend(self._call_of("".join(state.pieces), delta.finish_reason))
            read.append(delta)
        return read

    def _call_of(self, text: str, finish_reason: str) -> Iterator[Delta]:
        tool = self._task.tool
        assert tool is not None
        call = ToolCall(id="", name=tool.name, arguments=text)
        try:
            values = json.loads(text)
        except ValueError:
            reason = f"The arguments were cut ({finish_reason})." if finish_reason == "length" else "No JSON came."
            yield ToolCallDelta(0, whole=replace(call, problem=reason))
            return
        missing = ungrounded(values, tool, self._task.conversation) if self.grounded else []
        if missing:
            yield TextDelta(f"To use {tool.name} I need: {', '.join(missing)}.")
        else:
            yield ToolCallDelta(0, whole=call)


def _requested_parameters(tool: ToolSpec, request: str) -> dict[str, Any]:
    """Return the schema of the required parameters and of the optional ones that the request names."""
    schema = dict(inline_refs(tool.parameters))
    properties: dict[str, Any] = schema.get("properties", {})
    required: list[str] = list(schema.get("required", ()))
    words = content_words(request)
    kept = {
        name: inner
        for name, inner in properties.items()
        if name in required or words & content_words(" ".join([name, *map(str, inner.get("enum", ()))]))
    }
    return {"type": "object", "properties": kept, "required": list(kept), "additionalProperties": False}


def _argument_prompt(tool: ToolSpec, schema: Mapping[str, Any], request: str) -> tuple[Message, ...]:
    lines: list[str] = []
    for name in schema["properties"]:
        inner: Mapping[str, Any] = tool.parameters["properties"][name]
        kind = str(inner.get("type", "value"))
        choices = "".join(f" one of {', '.join(map(json.dumps, inner['enum']))}" for _ in [0] if "enum" in inner)
        description = f": {inner['description']}" if inner.get("description") else ""
        lines.append(f"- {name} (type {kind}{choices}){description}")
    first = tool.description.split("\n", 1)[0]
    return (
        SystemMessage("You extract function arguments from requests. Copy values from the request."),
        UserMessage(
            f"Function: {tool.name} - {first}\nParameters:\n" + "\n".join(lines) + f"\n\nRequest: {neutralise(request)}"
            "\n\nGive the arguments as JSON."
        ),
    )


def _answer_prompt(messages: Sequence[Message]) -> Iterator[Message]:
    question = next((m.text for m in reversed(messages) if isinstance(m, UserMessage)), "")
    results: list[str] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.insert(0, message.content)
    yield SystemMessage("Rewrite the result as an answer.")
    yield UserMessage(f"Question: {neutralise(question)}\nResult of the tool: {neutralise(' '.join(results))}\nAnswer:")


def _without_calls(messages: Iterable[Message]) -> Iterator[Message]:
    """Return the conversation without calls and results, which confuse a tiny model."""
    for message in messages:
        if isinstance(message, ToolMessage) or (message.role == "assistant" and not message.content):
            continue
        yield replace(message, tool_calls=()) if message.role == "assistant" and message.tool_calls else message  # type: ignore[call-arg, union-attr]


_NUMBERS = {
    word: float(value)
    for value, word in enumerate(
        _WORD.findall(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty"
        )
    )
}


def ungrounded(values: Mapping[str, Any], tool: ToolSpec, conversation: str) -> list[str]:
    """Return the required parameters whose number or text is not in the conversation. Enums and booleans are exempt."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    lowered = conversation.replace(",", "").lower()
    numbers = {float(text) for text in re.findall(r"\d+(?:\.\d+)?", lowered)}
    numbers |= {_NUMBERS[word] for word in _WORD.findall(lowered) if word in _NUMBERS}
    words = content_words(conversation)
    missing: list[str] = []
    for name in tool.parameters.get("required", ()):
        value = values.get(name)
        if isinstance(value, bool) or "enum" in properties.get(name, {}):
            continue
        if isinstance(value, int | float):
            if not numbers & {abs(float(value)), abs(float(value)) * 100}:
                missing.append(name)
        elif isinstance(value, str):
            needed = content_words(value)
            if value.strip().lower() not in lowered and (not needed or len(needed & words) * 2 < len(needed)):
                missing.append(name)
    return missing
