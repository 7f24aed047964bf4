"""Turns the name and arguments that a model wrote into a call of a known tool, or into a failure. Pure.

Knows the tools, their schemas, and the JSON envelopes that name a call; knows nothing of marker words. Over 400 lines
because envelopes, tagged values, Python calls and plain text share one way of naming, repairing and checking.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lmagent.core.json_text import dumps_text
from lmagent.prompting.scanner_events import CallFailed, CallFound, FailureReason
from lmagent.toolkit.loose_json import JSONReadError, read_calls, read_json
from lmagent.toolkit.repair import coerce, raw_value, read_arguments, unwrap
from lmagent.toolkit.schema import CheckedSchema, canonical, closest, problems

__all__ = [
    "ARGUMENT_KEYS",
    "ENVELOPE_KEYS",
    "MAX_CALLS",
    "NAME_KEYS",
    "Envelope",
    "Outcome",
    "RawField",
    "Tools",
    "clean_name",
    "is_placeholder",
    "is_schema",
    "read_envelopes",
]

NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "action")
ARGUMENT_KEYS = ("arguments", "parameters", "params", "args", "input", "tool_input", "action_input")
_WRAPPERS = ("function", "tool_call", "tool_calls", "function_call", "calls")
_METADATA_KEYS = (
    "id", "type", "call_id", "tool_call_id", "index", "thought", "thoughts", "reasoning", "reason", "explanation",
)  # fmt: skip
ENVELOPE_KEYS = frozenset((*NAME_KEYS, *ARGUMENT_KEYS, *_WRAPPERS, *_METADATA_KEYS))
"""All keys of an object that names a call."""

_PLACEHOLDER = re.compile(r"[<{\[$].*|.*[>}\]]|\.{3}|…|", re.DOTALL)
MAX_CALLS = 64
"""Most calls that are read from one reply."""


@dataclass(slots=True)
class Envelope:
    """One call as an object spelled it; `arguments` is unchecked (an object, text, null)."""

    name: str
    arguments: Any
    has_arguments: bool
    schema: bool
    """Whether the arguments describe parameters instead of giving values."""
    extra: tuple[str, ...]
    """Keys that do not belong to an envelope."""
    standard_keys: bool
    """Whether the keys are `name` and `arguments`, without an alias."""
    unambiguous: bool
    """Whether the keys are certainly those of a call: a name and an object of arguments that is no schema."""


def clean_name(name: str) -> str:
    """Return the name without white space and without the prefix `functions.` or `default_api.` of some families."""
    return name.strip().removeprefix("functions.").removeprefix("default_api.").strip()


def is_placeholder(name: str) -> bool:
    """Return whether the name is a placeholder of a template: `<function-name>`, `...`."""
    return _PLACEHOLDER.fullmatch(name.strip()) is not None


def read_envelopes(value: Any, depth: int = 4) -> list[Envelope] | None:
    """Return the calls in `value` in order; None when it holds anything else."""
    if depth == 0:
        return None
    if isinstance(value, list):
        calls: list[Envelope] = []
        for item in cast("list[Any]", value):
            inner = read_envelopes(item, depth - 1)
            if inner is None or len(calls) + len(inner) > MAX_CALLS:
                return None
            calls.extend(inner)
        return calls
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, Any]", value)
    for word in _WRAPPERS:
        inside = fields.get(word)
        if isinstance(inside, (dict, list)) and not (word == "function" and _name_under(fields, ("function",))):
            return read_envelopes(inside, depth - 1)
    return _one_envelope(fields)


def _name_under(fields: Mapping[str, Any], skip: tuple[str, ...] = ()) -> str | None:
    for word in NAME_KEYS:
        if word not in skip and isinstance(fields.get(word), str):
            return cast("str", fields[word])
    return None


def _one_envelope(fields: dict[str, Any]) -> list[Envelope] | None:
    name = _name_under(fields)
    if name is None or any(isinstance(fields.get(word), str) and fields[word] != name for word in NAME_KEYS):
        return None  # no name, or two that differ
    holders = [word for word in ARGUMENT_KEYS if word in fields]
    arguments = fields[holders[0]] if holders else None
    if len(holders) > 1 and any(fields[word] != arguments for word in holders):
        return None
    extra = tuple(word for word in fields if word not in ENVELOPE_KEYS)
    if extra and not holders:
        return None
    schema = isinstance(arguments, dict) and is_schema(cast("dict[str, Any]", arguments))
    standard_keys = "name" in fields and holders in (["arguments"], [])
    unambiguous = isinstance(arguments, dict) and not schema and not extra
    return [Envelope(name, arguments, bool(holders), schema, extra, standard_keys, unambiguous)]


def is_schema(arguments: Mapping[str, Any]) -> bool:
    """Return whether the arguments describe parameters (`type` and `properties`), so that there is no call."""
    return isinstance(arguments.get("properties"), dict) and arguments.get("type") == "object"


Outcome = CallFound | CallFailed
RawField = tuple[str, str, str]
"""Key, raw text, and how to read it: `schema`, `text` or `json`."""

_PLACEHOLDER_TEXT = re.compile(r"<[A-Za-z_][\w .-]*>|\{[a-z_ .…]+\}")
_MAX_RAW = 2000


class Tools:
    """The tools of one request by name; turns the text of a call into a call of one of them.

    The `from_...` methods return None where the text is a template or data, and therefore plain text.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, Any]], *, native: bool, repair: bool) -> None:
        self.schemas = dict(tools)
        self.native = native
        self.repair = repair

    def knows(self, name: str) -> bool:
        """Return whether `name` (cleaned) is a tool."""
        return self.clean(name) in self.schemas

    def clean(self, name: str) -> str:
        """Return the tool's name: without white space, and without a prefix of `clean_name` unless the tool has it."""
        trimmed = name.strip()
        return trimmed if trimmed in self.schemas else clean_name(trimmed)

    def takes_arguments(self, name: str) -> bool:
        """Return whether the tool has any parameter."""
        return bool(self.schemas.get(self.clean(name), {}).get("properties"))

    def failed(self, raw: str, reason: FailureReason, message: str, name: str | None = None) -> CallFailed:
        """Return a failure. Long raw text is shortened in the middle."""
        if len(raw) > _MAX_RAW:
            raw = f"{raw[: _MAX_RAW // 2]} … {raw[-_MAX_RAW // 2 :]}"
        return CallFailed(-1, name, raw, reason, message)

    def unfinished(self, raw: str, *, truncated: bool, name: str | None = None) -> CallFailed:
        """Return the failure of a call whose end is missing."""
        if truncated:
            return self.failed(raw, "truncated", "the reply was cut by the length limit inside this call", name)
        return self.failed(raw, "malformed", "the reply ends inside this call: its end is missing", name)

    def from_envelopes(
        self, raw: str, spans: Sequence[tuple[str, str]] = (), *, closed: bool = False, marked: bool = True
    ) -> list[Outcome] | None:
        """Read JSON that names its calls itself.

        Args:
            raw: The JSON text.
            spans: Key and text of the values at the top, in order, so that unchanged arguments keep their spelling.
            closed: Whether a closing delimiter followed, so that missing brackets may be added.
            marked: Whether markup says that this is a call. Without markup, only JSON that is certainly a call counts.
        """
        try:
            reading = read_json(raw, repair=self.repair, closed=closed)
            repairs = list(reading.repairs)
            value = reading.value
            for _ in range(2):
                if isinstance(value, str) and self.repair:
                    reading = read_json(value)
                    repairs.extend(("encoded as a string", *reading.repairs))
                    value = reading.value
        except JSONReadError as error:
            return self._unreadable(raw, error, marked)
        envelopes = read_envelopes(value)
        if not envelopes and marked:
            envelopes = self._keyed(value)
        if not envelopes:
            return self._no_call(raw, value, marked)
        texts = [text for key, text in spans if key in ("arguments", "parameters", "params", "args", "input")]
        if len(texts) != len(envelopes):
            texts = [""] * len(envelopes)
        if any(is_placeholder(item.name) or (self.native and not self.knows(item.name)) for item in envelopes):
            return None
        if not marked and not self._clearly_calls(envelopes):
            return None
        return [self._call(item, raw, repairs, text) for item, text in zip(envelopes, texts, strict=True)]

    def _keyed(self, value: Any) -> list[Envelope] | None:
        """Return calls written as `{"name": {...}}`, one or a list of them, as Apertus does; only of known tools."""
        items = cast("list[Any]", value) if isinstance(value, list) else [value]
        calls: list[Envelope] = []
        for item in items[: MAX_CALLS + 1]:
            if not isinstance(item, dict) or len(cast("dict[str, Any]", item)) != 1:
                return None
            [(name, arguments)] = cast("dict[str, Any]", item).items()
            if not self.knows(name) or not isinstance(arguments, dict):
                return None
            calls.append(Envelope(name, arguments, True, False, (), True, True))
        return calls if len(calls) <= MAX_CALLS else None

    def final_answer(self, raw: str, names: tuple[str, ...]) -> str | None:
        """Return the text of an envelope whose tool is the final answer; None for any other."""
        try:
            envelopes = read_envelopes(read_json(raw).value)
        except JSONReadError:
            return None
        if not envelopes or self.knows(envelopes[0].name):
            return None
        if envelopes[0].name.strip().lower().replace("_", " ").replace("-", " ") not in (
            name.replace("_", " ").replace("-", " ") for name in names
        ):
            return None
        answer = envelopes[0].arguments
        if isinstance(answer, dict):
            fields = cast("dict[str, Any]", answer)
            answer = next(iter(fields.values())) if len(fields) == 1 else ""
            if len(fields) > 1:
                return canonical(fields)
        return answer if isinstance(answer, str) else "" if answer is None else canonical(answer)

    def whole_reply(self, raw: str) -> tuple[str, list[Outcome]] | None:
        """Return text and calls of `{"thought": ..., "tool_calls": [...], "response": ...}`; None for anything else."""
        try:
            value = read_json(raw).value
        except JSONReadError:
            return None
        if not isinstance(value, dict):
            return None
        fields = cast("dict[str, Any]", value)
        calls: Any = fields.get("tool_calls") or []
        answer: Any = fields.get("response")
        if not set(fields) <= {"thought", "tool_calls", "response"} or not isinstance(answer, str | None):
            return None
        outcomes = self.from_envelopes(canonical(calls), marked=False) if calls else []
        return None if outcomes is None or (answer is None and not outcomes) else (answer or "", outcomes)

    def _clearly_calls(self, envelopes: list[Envelope]) -> bool:
        """Return whether JSON without markup is certainly a call: of known tools, or with the keys of a call only."""
        if self.native and not all(self.knows(item.name) and item.has_arguments for item in envelopes):
            return False
        return all(self._plausible(item) for item in envelopes)

    def _plausible(self, item: Envelope) -> bool:
        if not self.knows(item.name):
            return item.unambiguous
        needs = self.schemas[self.clean(item.name)].get("required")
        return not item.schema and (item.has_arguments or not (needs or item.extra))

    def _unreadable(self, raw: str, error: JSONReadError, marked: bool) -> list[Outcome] | None:
        name = self._known_name_in(raw)
        if _PLACEHOLDER_TEXT.search(raw[:_MAX_RAW]) and not name:
            return None
        if (not marked or self.native) and not name:
            return None
        if not any(quote in raw for quote in "\"'“”＂") and not any(known in raw for known in self.schemas):
            return None
        return [self.failed(raw, "malformed", str(error), name)]

    def _no_call(self, raw: str, value: Any, marked: bool) -> list[Outcome] | None:
        if not marked or self.native or value in ([], {}):
            return [] if marked and value == [] else None
        return [self.failed(raw, "malformed", 'expected {"name": ..., "arguments": {...}}, got other JSON')]

    def _known_name_in(self, raw: str) -> str | None:
        """Return the tool that broken JSON seems to call, if it is known (for messages only)."""
        found = _NAME_VALUE.search(raw[:_MAX_RAW])
        return found.group(1) if found and found.group(1) in self.schemas else None

    def may_become_call(self, raw: str, *, cut: bool) -> bool:
        """Return whether unfinished JSON names a known tool, or was cut before it could name one."""
        if self._known_name_in(raw) is not None:
            return True
        if not cut or self.native:
            return False
        found = _NAME_BEGUN.search(raw[:_MAX_RAW])
        if not found:
            return not _NAME_VALUE.search(raw[:_MAX_RAW])
        return any(name.startswith(found.group(1)) for name in self.schemas)

    def _call(self, item: Envelope, raw: str, repairs: list[str], text: str) -> Outcome:
        name = self.clean(item.name)
        schema = self.schemas.get(name)
        if schema is None:
            return self.unknown(name, raw)
        properties = cast("Mapping[str, Any]", schema.get("properties") or {})
        outside = [key for key in item.extra if key in properties]
        if outside:
            message = f"{outside[0]!r} stands beside the arguments; all arguments belong inside them"
            return self.failed(raw, "malformed", message, name)
        notes = list(repairs)
        if name != item.name:
            notes.append("name trimmed")
        if not item.standard_keys:
            notes.append("other key names")
        if item.extra:
            notes.append("keys beside the call ignored")
        try:
            arguments = unwrap(item.arguments, notes) if self.repair else item.arguments
        except JSONReadError as error:
            return self.failed(raw, "malformed", f"arguments: {error}", name)
        if isinstance(arguments, str):
            arguments = self._plain_text(arguments, schema, notes)
        return self._fit_schema(name, arguments, schema, raw, notes, text, repairs)

    def _plain_text(self, text: str, schema: Mapping[str, Any], notes: list[str]) -> Any:
        """Return plain text as the argument of a tool with exactly one parameter, which takes text."""
        properties = cast("Mapping[str, Any]", schema.get("properties") or {})
        if len(properties) == 1:
            [(key, parameter)] = properties.items()
            if not problems(text, parameter, schema):
                notes.append("plain text as the only argument")
                return {key: text}
        return text

    def _fit_schema(
        self,
        name: str,
        arguments: Any,
        schema: Mapping[str, Any],
        raw: str,
        notes: list[str],
        text: str,
        read: list[str],
    ) -> Outcome:
        if not isinstance(arguments, dict):
            return self.failed(
                raw, "malformed", f"expected an object of arguments, got {canonical(arguments)[:80]}", name
            )
        before = len(notes)
        fields = cast("dict[str, Any]", arguments)
        fitted = coerce(fields, schema, notes) if self.repair else fields
        wrong = problems(fitted, schema)
        if wrong and isinstance(schema, CheckedSchema):  # the tool's own validator decides, as for native calls
            for accepted in filter(schema.accepts, map(canonical, (fitted, fields))):
                return CallFound(-1, name, accepted, tuple(dict.fromkeys(notes)))
        if wrong:
            failure = self.failed(raw, "invalid_arguments", "; ".join(wrong[:8]), name)
            failure.arguments = dumps_text(fields)
            return failure
        untouched = len(notes) == before and not read and self._same_value(text, fitted)
        return CallFound(-1, name, text.strip() if untouched else canonical(fitted), tuple(dict.fromkeys(notes)))

    @staticmethod
    def _same_value(text: str, value: Any) -> bool:
        if not text.strip():
            return False
        try:
            return canonical(read_json(text.strip(), repair=False).value) == canonical(value)
        except JSONReadError:
            return False

    def unknown(self, name: str, raw: str) -> CallFailed:
        """Return the failure for an unknown tool, with similar names."""
        known = ", ".join(list(self.schemas)[:20]) or "none"
        return self.failed(
            raw,
            "unknown_tool",
            f"there is no tool {name[:64]!r}{closest(name, list(self.schemas))}; tools: {known}",
            name[:64],
        )

    def _unknown_or_template(self, name: str, raw: str) -> CallFailed | None:
        """Return the failure for an unknown tool; None for a placeholder (`<tool name>`) and in native text."""
        if self.native or (is_placeholder(name) and not self.knows(name.strip("[]<>"))):
            return None
        return self.unknown(name, raw)

    def from_arguments(self, name: str, text: str, raw: str, *, closed: bool = False) -> Outcome | None:
        """Read the arguments of a call whose name stood outside the JSON."""
        cleaned = self.clean(name)
        schema = self.schemas.get(cleaned)
        if schema is None:
            return self._unknown_or_template(cleaned, raw)
        notes: list[str] = []
        try:
            arguments = read_arguments(text, notes, repair=self.repair, closed=closed)
        except JSONReadError as error:
            return self.failed(raw, "malformed", f"arguments: {error}", cleaned)
        if isinstance(arguments, str):
            arguments = self._plain_text(arguments, schema, notes)
        return self._fit_schema(cleaned, arguments, schema, raw, notes, text, list(notes))

    def from_text(self, name: str, text: str, raw: str) -> Outcome | None:
        """Read plain text as the input of a tool (ReAct)."""
        cleaned = self.clean(name)
        schema = self.schemas.get(cleaned)
        if schema is None:
            return self._unknown_or_template(cleaned, raw)
        notes: list[str] = []
        empty = text.strip() in ("", "None", "null", "N/A", "none")
        arguments: Any = {} if empty else self._plain_text(text.strip(), schema, notes)
        return self._fit_schema(cleaned, arguments, schema, raw, notes, "", ["plain"])

    def from_fields(self, name: str, fields: Sequence[RawField], raw: str) -> Outcome | None:
        """Read a call whose values stood between tags. Their types come from the schema."""
        cleaned = self.clean(name)
        schema = self.schemas.get(cleaned)
        if schema is None:
            return self._unknown_or_template(cleaned, raw)
        arguments: dict[str, Any] = {}
        notes: list[str] = []
        properties = cast("Mapping[str, Any]", schema.get("properties") or {})
        for key, text, mode in fields:
            if key in arguments:
                return self.failed(raw, "malformed", f"the argument {key!r} stands there twice", cleaned)
            if any(f"<parameter={other}>" in text or f'<parameter name="{other}">' in text for other in properties):
                return self.failed(raw, "malformed", f"the end of the argument {key!r} is missing", cleaned)
            try:
                arguments[key] = self._field(text, mode, properties.get(key, {}), schema, notes)
            except JSONReadError as error:
                return self.failed(raw, "malformed", f"{key}: {error}", cleaned)
        return self._fit_schema(cleaned, arguments, schema, raw, [], "", ["tags"])

    def _field(self, text: str, mode: str, parameter: Any, schema: Mapping[str, Any], notes: list[str]) -> Any:
        if mode == "text":
            return text
        if mode == "json":
            return read_json(text.strip(), repair=self.repair).value
        return raw_value(text, parameter, schema, notes)

    def from_python(self, text: str, *, marked: bool) -> list[Outcome] | None:
        """Read `[name(key=value), ...]`. Without markup (`marked`), only calls of known tools count."""
        try:
            calls = read_calls(text)
        except JSONReadError as error:
            known = any(name in self.schemas for name in _CALL_NAME.findall(text[:_MAX_RAW]))
            if self.native or not known:
                return None
            return [self.failed(text, "malformed", str(error))]
        known = all(self.knows(name) for name, _ in calls)
        if not calls or (not known and (self.native or not marked)):
            return None
        outcomes: list[Outcome] = []
        for name, arguments in calls:
            schema = self.schemas.get(self.clean(name))
            if schema is None:
                outcomes.append(self.unknown(self.clean(name), text))
            else:
                outcomes.append(self._fit_schema(self.clean(name), arguments, schema, text, [], "", ["python"]))
        return outcomes


_NAME_KEY = rf"""["'“”]?(?:{"|".join(NAME_KEYS)})["'“”\\]{{0,3}}\s{{0,9}}[:：]\s{{0,9}}[\\"'“”]{{1,3}}"""
_NAME_VALUE = re.compile(_NAME_KEY + r"""([\w.-]{1,64})["'“”\\]""")
_NAME_BEGUN = re.compile(_NAME_KEY + r"([\w.-]{0,64})\Z")
_CALL_NAME = re.compile(r"([^\W\d][\w.-]{0,63})[ \t]{0,9}\(")
