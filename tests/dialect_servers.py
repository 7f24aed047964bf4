"""Local servers for the dialect of each provider, with a scripted model.

    with DialectServer(DIALECTS["wenxin"], calls_then(("add", {"a": 1, "b": 2}))) as server:
        Agent(server.model(), tools=[add]).run("Add.")       # over real HTTP

A brain is a function from a request (`Asked`) to a reply (`Said`); `answers("hi")` and `calls_then(...)` return the
usual ones. The same brain works for APIs with and without function calls: if the tools of a request are in the prompt,
the server reads them there and writes its calls as text, as a model would. Every request is checked against the rules
of its dialect; a broken rule is a 400 that names it. The first responses are `faults`: `"limited"` (too many requests,
in the words of the provider), `"broken"` (a 502), `"expired"` (the access token has expired).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from lmagent import (
    AnthropicChat,
    AzureChat,
    BaichuanChat,
    BailianChat,
    ChatModel,
    GeminiChat,
    HunyuanChat,
    MinimaxChat,
    MinimaxProChat,
    OpenAIChat,
    OpenAICompatibleChat,
    OpenAIResponsesChat,
    WenxinChat,
    ZhiPuCharacterChat,
    ZhiPuChat,
)
from lmagent.asking.retry import RetryPolicy
from lmagent.providers.openai import vendor_profiles as compatible
from lmagent.providers.openai.chat import AZURE
from lmagent.providers.openai.profile import OPENAI, Profile
from tests.dialects import (
    AnthropicShape,
    Asked,
    Call,
    GeminiShape,
    LegacyShape,
    MinimaxV2Shape,
    OpenAIShape,
    ResponsesShape,
    Said,
    Shape,
    Turn,
    compact,
)
from tests.dialects_cn import (
    BaichuanShape,
    BailianAppShape,
    BailianShape,
    HunyuanShape,
    HyllmShape,
    MinimaxProShape,
    MinimaxShape,
    WenxinShape,
    ZhipuV3Shape,
)
from tests.loopback import Answer, LoopbackServer, Received, answer, chunk, head, json_answer, raw
from tests.providers import (
    rules_anthropic,
    rules_baichuan,
    rules_bailian,
    rules_gemini,
    rules_hunyuan,
    rules_minimax,
    rules_openai,
    rules_responses,
    rules_wenxin,
    rules_zhipu,
)

QUICK = RetryPolicy(max_retries=2, initial=0.005, maximum=0.01)
"""Retries that do not slow a test down."""

Brain = Callable[[Asked], Said]


@dataclass(frozen=True)
class Dialect:
    """One API of one provider."""

    name: str
    make: Callable[..., ChatModel]
    """Builds a model from `base_url=` and other options, without environment variables."""
    shape: Shape
    rules: Callable[[Any], None]
    tool_free: bool = False
    """Whether the API has no function calls."""
    mark: str = "authorization"
    """The header that carries the credentials."""

    def model(self, url: str = "http://127.0.0.1:9", **options: Any) -> ChatModel:
        """Return a model that uses the server at `url`."""
        return self.make(base_url=url, **{"max_retries": QUICK, **options})


def _openai_rules(profile: Profile) -> Callable[[Any], None]:
    return lambda body: rules_openai.check(body, profile)


_KEY = {"api_key": "fake-key"}
_ZHIPU = {"api_key": "fakeid.fakesecret"}
_PAIR = {"secret_id": "AKIDfake", "secret_key": "fakesecret"}
_MINIMAX = {**_KEY, "group_id": "17"}

_APIS = (
    Dialect("openai", lambda **k: OpenAIChat("gpt-4o", **_KEY, **k), OpenAIShape(), _openai_rules(OPENAI)),
    Dialect(
        "openai-functions",
        lambda **k: OpenAIChat("gpt-3.5-turbo", legacy_functions=True, **_KEY, **k),
        LegacyShape(),
        _openai_rules(OPENAI),
    ),
    Dialect(
        "openai-responses",
        lambda **k: OpenAIResponsesChat("gpt-4o", **_KEY, **k),
        ResponsesShape(),
        rules_responses.check,
    ),
    Dialect(
        "azure",
        lambda base_url, **k: AzureChat("deploy", endpoint=base_url, api_version="2024-10-21", **_KEY, **k),
        OpenAIShape(),
        _openai_rules(AZURE),
        mark="api-key",
    ),
    Dialect(
        "azure-v1",
        lambda base_url, **k: AzureChat("deploy", endpoint=base_url, **_KEY, **k),
        OpenAIShape(),
        _openai_rules(AZURE),
        mark="api-key",
    ),
    Dialect(
        "anthropic",
        lambda **k: AnthropicChat(**_KEY, **k),
        AnthropicShape(),
        rules_anthropic.check,
        mark="x-api-key",
    ),
    Dialect("gemini", lambda **k: GeminiChat(**_KEY, **k), GeminiShape(), rules_gemini.check, mark="x-goog-api-key"),
    Dialect(
        "wenxin",
        lambda **k: WenxinChat("ERNIE-Bot", secret_key="fake-secret", **_KEY, **k),
        WenxinShape(),
        rules_wenxin.check,
        mark="",
    ),
    Dialect("wenxin-v2", lambda **k: WenxinChat("ernie-4.5", **_KEY, **k), OpenAIShape(), rules_wenxin.check_v2),
    Dialect(
        "minimax",
        lambda **k: MinimaxChat("abab5.5-chat", **_MINIMAX, **k),
        MinimaxShape(),
        rules_minimax.check,
        tool_free=True,
    ),
    Dialect(
        "minimax-v2",
        lambda **k: MinimaxChat("abab6.5s-chat", **_KEY, **k),
        MinimaxV2Shape(),
        _openai_rules(compatible.MINIMAX_V2),
    ),
    Dialect(
        "minimax-current",
        lambda **k: MinimaxChat(**_KEY, **k),
        OpenAIShape(base_resp={"status_code": 0, "status_msg": ""}),
        _openai_rules(compatible.MINIMAX),
    ),
    Dialect("minimax_pro", lambda **k: MinimaxProChat(**_MINIMAX, **k), MinimaxProShape(), rules_minimax.check_pro),
    Dialect(
        "baichuan",
        lambda **k: BaichuanChat("Baichuan2-53B", secret_key="fake-secret", **_KEY, **k),
        BaichuanShape(),
        rules_baichuan.check,
        tool_free=True,
    ),
    Dialect(
        "baichuan-current", lambda **k: BaichuanChat(**_KEY, **k), OpenAIShape(), _openai_rules(compatible.BAICHUAN)
    ),
    Dialect("zhipu", lambda **k: ZhiPuChat(**_ZHIPU, **k), OpenAIShape(), rules_zhipu.check_v4),
    Dialect(
        "zhipu-v3",
        lambda **k: ZhiPuChat("chatglm_turbo", **_ZHIPU, **k),
        ZhipuV3Shape(),
        rules_zhipu.check_v3,
        tool_free=True,
    ),
    Dialect(
        "zhipu-character",
        lambda **k: ZhiPuCharacterChat("characterglm", **_ZHIPU, **k),
        ZhipuV3Shape(),
        rules_zhipu.check_v3,
        tool_free=True,
    ),
    Dialect(
        "zhipu-character-v4",
        lambda **k: ZhiPuCharacterChat(**_ZHIPU, **k),
        OpenAIShape(),
        rules_zhipu.check_v4,
        tool_free=True,
    ),
    Dialect("hunyuan", lambda **k: HunyuanChat(**_KEY, **k), OpenAIShape(), rules_hunyuan.check_compatible),
    Dialect("hunyuan-tc3", lambda **k: HunyuanChat(**_PAIR, **k), HunyuanShape(), rules_hunyuan.check_tc3),
    Dialect(
        "hunyuan-v1",
        lambda **k: HunyuanChat("v1", app_id=1300000000, **_PAIR, **k),
        HyllmShape(),
        rules_hunyuan.check_hyllm,
        tool_free=True,
    ),
    Dialect("bailian", lambda **k: BailianChat(**_KEY, **k), BailianShape(), rules_bailian.check_native),
    Dialect(
        "bailian-compatible",
        lambda **k: BailianChat(api="compatible", **_KEY, **k),
        OpenAIShape(),
        _openai_rules(compatible.BAILIAN),
    ),
    Dialect(
        "bailian-app",
        lambda **k: BailianChat("fake-app-id", api="app", **_KEY, **k),
        BailianAppShape(),
        rules_bailian.check_app,
        tool_free=True,
    ),
)


def _vendor(profile: Profile) -> Dialect:
    def make(**options: Any) -> ChatModel:
        return OpenAICompatibleChat(profile.default_model or "some-model", vendor=profile, **_KEY, **options)

    return Dialect(profile.provider, make, OpenAIShape(), _openai_rules(profile))


VENDORS = {profile.provider: _vendor(profile) for profile in compatible.PROFILES.values()}
"""The table of OpenAI-compatible vendors."""

DIALECTS = {dialect.name: dialect for dialect in _APIS}
"""APIs with their own codec."""

ALL = {**DIALECTS, **VENDORS}


def answers(text: str) -> Brain:
    """Return a brain that always gives this text."""
    return lambda asked: Said(text)


def calls_then(*calls: Call, text: str = "", final: str = "结果: {}") -> Brain:
    """Return a brain that makes these calls, all at once if the dialect can, and then repeats their results.

    Args:
        calls: Calls of tools by name; tools that the request does not offer are skipped.
        text: Text of the message that has the calls.
        final: Text of the last reply; `{}` becomes the results.
    """

    def brain(asked: Asked) -> Said:
        left = [call for call in calls if call[0] in asked.tools][len(asked.results) :]
        if left:
            return Said(text, tuple(left))
        return Said(final.format("; ".join(asked.results)) if asked.results else "No tools here.")

    return brain


_TOOL_LINE = re.compile(r'^\{"name": ?"([^"]+)", ?"description".*$', re.MULTILINE)
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)


def prompted(asked: Asked) -> Asked:
    """Return a request with the tools that its prompt describes; the request itself if there are none."""
    tools = tuple(dict.fromkeys(_TOOL_LINE.findall(asked.everything)))
    if asked.tools or not tools:
        return asked
    turns: list[Turn] = []
    for turn in asked.turns:
        results = _RESULT.findall(turn.text) if turn.role == "user" else []
        turns += [Turn("tool", json.loads(result)["content"]) for result in results] or [turn]
    turns = [Turn(turn.role, turn.text if isinstance(turn.text, str) else compact(turn.text)) for turn in turns]
    return Asked(tuple(turns), tools, asked.stream, asked.body)


def as_text(said: Said, asked: Asked) -> Said:
    """Return a reply with its calls written as text, in the format that the prompt describes."""
    if '{"tool_calls": [' in asked.everything:
        calls = ", ".join(compact({"name": name, "arguments": arguments}) for name, arguments in said.calls)
        return Said(f'{{"tool_calls": [{calls}]}}' if calls else compact({"response": said.text}))
    opening, closing = ("<tool_call>", "</tool_call>") if "<tool_call>" in asked.everything else ("```json", "```")
    calls = [f"{opening}\n{compact({'name': n, 'arguments': a})}\n{closing}" for n, a in said.calls]
    return Said("\n".join([*([said.text] if said.text else []), *calls]))


class DialectServer:
    """Serve one dialect on loopback; see the docstring of the module.

    Args:
        dialect: API of the server.
        brain: Model behind the server.
        faults: Failures instead of the first replies.
    """

    def __init__(self, dialect: Dialect, brain: Brain, faults: Iterable[str] = ()) -> None:
        self.dialect = dialect
        self.brain = brain
        self.faults = list(faults)
        self.asked: list[Asked] = []
        """Requests that were answered."""
        self.complaints: list[str] = []
        """Rules that requests broke; none are allowed."""
        self.tokens = 0
        self._ids = 0
        self._models: list[ChatModel] = []
        self._http = LoopbackServer(self._answer)

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def requests(self) -> list[Received]:
        return self._http.requests

    def model(self, **options: Any) -> ChatModel:
        """Return a model that uses this server; it is closed with the server."""
        self._models.append(self.dialect.model(self.url, **options))
        return self._models[-1]

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for model in self._models:
            model.close()
        self._http.__exit__(*error)
        if not any(error):
            assert not self.complaints, self.complaints

    def _answer(self, request: Received) -> Answer:
        if request.path == "/oauth/2.0/token":
            self.tokens += 1
            return json_answer({"access_token": f"24.fake-{self.tokens}", "expires_in": 2592000})
        try:
            return self._said(request)
        except Exception as error:
            self.complaints.append(f"{self.dialect.name}: {type(error).__name__}: {error}")
            return json_answer({"error": {"message": self.complaints[-1]}}, status=400)

    def _said(self, request: Received) -> Answer:
        self._check_credentials(request)
        self.dialect.rules(request.json)
        match self.faults.pop(0) if self.faults else "":
            case "limited":
                status, body = self.dialect.shape.limited()
                return json_answer(body, status)
            case "broken":
                return answer("<html>Bad Gateway</html>", 502, {"content-type": "text/html"})
            case "expired":
                self.tokens += 1  # only a newer token is accepted from now on
        if self.dialect.mark == "" and self._token(request) != f"24.fake-{self.tokens}":
            self.tokens -= 1
            code = 110 + self.tokens % 2
            return json_answer({"error_code": code, "error_msg": "Access token invalid or no longer valid"})
        asked = self.dialect.shape.read(request)
        understood = prompted(asked)
        said = self.brain(understood)
        if not self.dialect.shape.parallel and not self.dialect.tool_free:
            said = Said(said.text, said.calls[:1])
        if understood is not asked:
            said = as_text(said, asked)
        self.asked.append(understood)
        ids = [f"call_srv{self._ids + number}" for number in range(len(said.calls))]
        self._ids += len(ids)
        shape = self.dialect.shape
        if not asked.stream:
            return json_answer(shape.whole(said, ids))
        start = head(200, {"content-type": shape.stream_type, "transfer-encoding": "chunked"})
        content = shape.streamed(said, ids)
        return raw(start + b"".join(chunk(content[at : at + 97]) for at in range(0, len(content), 97)) + chunk(b""))

    def _token(self, request: Received) -> str:
        return parse_qs(urlsplit(request.target).query).get("access_token", [""])[0]

    def _check_credentials(self, request: Received) -> None:
        if self.dialect.mark:
            assert request.headers[self.dialect.mark]
        else:
            assert self._token(request).startswith("24.fake-")
