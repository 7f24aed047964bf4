"""Bailian's app completions of 2023: an app made in the console, asked with a prompt and a history of pairs.

The bearer token is made from an access key by a cloud call: `bailian_token.py`. No tools, no system role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from lmagent.core.events import Delta, Done, ReplyBuilder, TextDelta
from lmagent.core.json_text import JSON, dumps
from lmagent.core.messages import Reply, Usage
from lmagent.errors import ProviderError
from lmagent.providers.bailian_errors import bailian_error_class
from lmagent.providers.base import ChatCall, ParameterRule, Request, error_for_status
from lmagent.providers.fields import mapping, object_of, objects, text
from lmagent.providers.text_only import TextOnlyCodec

__all__ = ["BASE_URL", "BailianAppCodec", "BailianAppState"]

BASE_URL = "https://bailian.aliyuncs.com"


@dataclass(slots=True)
class BailianAppState:
    """One stream: the text so far, because events repeat it, and the last event, because nothing marks the end."""

    shown: str = ""
    last: dict[str, Any] | None = None
    done: bool = False


class BailianAppCodec(TextOnlyCodec):
    """The app completions API.

    Args:
        app_id: Id of the app; stands for the model.
        base_url: Scheme and host.
        session_id: Names the session on the server; sent beside the history.
        new_request_id: Makes the id of one request, 32 hex digits.
    """

    provider = "bailian"
    features = replace(TextOnlyCodec.features, stop=True)

    def __init__(
        self,
        app_id: str,
        *,
        base_url: str = BASE_URL,
        session_id: str | None = None,
        new_request_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self.model = app_id
        self.base_url = base_url.rstrip("/")
        self.session_id = session_id
        self._new_request_id = new_request_id

    def build_request(self, call: ChatCall) -> Request:
        *texts, prompt = [turn["content"] for turn in self.turns(call)]
        pairs = [{"User": user, "Bot": bot} for user, bot in zip(texts[::2], texts[1::2], strict=True)]
        given = dict(call.parameters)
        extra: Mapping[str, Any] = given.pop("extra_body", None) or {}
        top = {name: value for name, value in given.items() if name in _TOP}
        inner = {name: value for name, value in given.items() if name not in _TOP}
        body: dict[str, Any] = {
            "RequestId": self._new_request_id(),
            "AppId": self.model,
            "Prompt": prompt,
            **({"History": pairs} if pairs else {}),
            "Stream": call.stream,
            "HasThoughts": False,
            **self.render_parameters(top, _TOP),
            "Parameters": self.render_parameters(inner, _INNER),
        }
        if self.session_id is not None:
            body["SessionId"] = self.session_id
        headers = {
            "content-type": "application/json;charset=UTF-8",
            "accept": "text/event-stream" if call.stream else "*/*",
        }
        return self.post(f"{self.base_url}/v2/app/completions", dumps({**body, **extra}), call, headers=headers)

    def parse_reply(self, body: JSON, *, prefix: str = "1") -> Reply:
        self.check(body)
        builder = ReplyBuilder(prefix)
        with self.reading(body):
            builder.add(TextDelta(text(body["Data"]["Text"])))
            builder.add(_done(body))
            return builder.reply(self.model_id, request_id=body.get("RequestId"))

    def new_state(self) -> BailianAppState:
        return BailianAppState()

    def parse_event(self, state: BailianAppState, data: bytes, event: str = "") -> Iterable[Delta]:
        if data.strip() == b"[DONE]":
            return self.finish(state)
        chunk = object_of(self, data)
        self.check(chunk)
        with self.reading(chunk):
            whole = text(mapping(chunk["Data"]).get("Text")).rstrip("\ufffd")
            state.last = chunk
        if len(whole) <= len(state.shown):
            return ()
        before, state.shown = state.shown, whole
        return [TextDelta(whole[len(before) :])]

    def finish(self, state: BailianAppState) -> Iterable[Delta]:
        """Nothing in the protocol marks the end: the body's end does, once an event has come."""
        if state.done or state.last is None:
            return ()
        state.done = True
        with self.reading(state.last):
            return [_done(state.last)]

    def parse_error(
        self, status: int, headers: Mapping[str, str], body: JSON | None, text: str = ""
    ) -> ProviderError | None:
        answer = mapping(body)
        if answer.get("Success") is not False and status < 400:
            return None
        code = str(answer.get("Code") or "")
        message = str(answer.get("Message") or text)
        return self.failure(
            bailian_error_class(code, message) or error_for_status(status),
            message,
            status=status,
            headers=headers,
            body=body,
            code=code,
            request_ids=(answer.get("RequestId"),),
        )


def _done(body: dict[str, Any]) -> Done:
    data = mapping(body.get("Data"))
    counts = objects(data.get("Usage"))
    given = sum(int(count.get("InputTokens") or 0) for count in counts)
    made = sum(int(count.get("OutputTokens") or 0) for count in counts)
    return Done(
        usage=Usage(input_tokens=given, output_tokens=made, total_tokens=given + made) if counts else None,
        response_id=data.get("ResponseId"),
        raw=body,
    )


_TOP: dict[str, ParameterRule] = {
    "top_p": "TopP",
    "has_thoughts": "HasThoughts",
    "biz_params": "BizParams",
    "doc_reference_type": "DocReferenceType",
    "doc_tag_codes": "DocTagCodes",
}
_INNER: dict[str, ParameterRule] = {
    "temperature": "Temperature",
    "top_k": "TopK",
    "seed": "Seed",
    "max_tokens": "MaxTokens",
    "stop": "Stop",
    "use_raw_prompt": "UseRawPrompt",
}
