"""Properties of Hunyuan, Zhipu and Bailian: random answers raise only provider errors, any history can be sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmagent.core.events import ReplyBuilder
from lmagent.core.json_text import dumps, loads
from lmagent.core.messages import Message, UserMessage
from lmagent.errors import ProviderError
from lmagent.providers.bailian import BailianCodec
from lmagent.providers.bailian_app import BailianAppCodec
from lmagent.providers.base import Codec
from lmagent.providers.hunyuan import HunyuanCodec, HyllmCodec
from lmagent.providers.openai.variants import CharacterV4Codec, HunyuanCompatibleCodec, ZhipuV4Codec
from lmagent.providers.zhipu import CharacterCodec, ZhipuCodec
from tests.providers import rules_bailian, rules_hunyuan, rules_zhipu
from tests.providers.test_old_dialects_fuzzed import MESSAGES
from tests.providers.wire_cn import GET_WEATHER, chat, load

CODECS: dict[str, tuple[Codec, Callable[[Any], None], str, str]] = {
    # codec, rules, a whole answer, a stream
    "tc3": (HunyuanCodec("hunyuan-t1"), rules_hunyuan.check, "hunyuan/21-tc3-tools", "hunyuan/24-tc3-stream-tools"),
    "tc3-lite": (HunyuanCodec("hunyuan-lite"), rules_hunyuan.check, "hunyuan/20-tc3-plain", "hunyuan/23-tc3-stream"),
    "hyllm": (HyllmCodec(), rules_hunyuan.check, "hunyuan/01-hyllm-plain", "hunyuan/02-hyllm-stream"),
    "hunyuan": (
        HunyuanCompatibleCodec("hunyuan-t1"),
        rules_hunyuan.check,
        "hunyuan/41-openai-tools",
        "hunyuan/44-openai-stream-tools",
    ),
    "v3": (
        ZhipuCodec("chatglm_turbo"),
        rules_zhipu.check,
        "zhipu/10-v3-chatglm_turbo-invoke",
        "zhipu/11-v3-chatglm_turbo-sse",
    ),
    "characterglm": (
        CharacterCodec(),
        rules_zhipu.check,
        "zhipu/12-v3-characterglm-invoke",
        "zhipu/13-v3-characterglm-sse",
    ),
    "v4": (ZhipuV4Codec("glm-4"), rules_zhipu.check, "zhipu/31-v4-tools", "zhipu/34-v4-stream-tools"),
    "charglm": (CharacterV4Codec("charglm-4"), rules_zhipu.check, "zhipu/30-v4-plain", "zhipu/33-v4-stream"),
    "native": (
        BailianCodec("qwen-plus"),
        rules_bailian.check,
        "bailian/02-native-tools",
        "bailian/06-native-stream-tools-incremental",
    ),
    "cumulative": (
        BailianCodec("qwen-plus", incremental=False),
        rules_bailian.check,
        "bailian/08-native-plain-text-format",
        "bailian/07-native-stream-tools-cumulative",
    ),
    "multimodal": (
        BailianCodec("qwen-vl-max"),
        rules_bailian.check,
        "bailian/01-native-plain",
        "bailian/04-native-stream-incremental",
    ),
    "app": (BailianAppCodec("a"), rules_bailian.check, "bailian/40-app-plain", "bailian/41-app-stream-cumulative"),
}
ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1e30,
        1302,
        "",
        "x",
        "null",
        "stop",
        "\ud800",
        [],
        {},
        [None],
        [[]],
        {"x": 1},
        [{}],
        [{"x": []}],
    ]
)


def spoilt(body: Any, data: st.DataObject) -> Any:
    """Return the body with one to three values replaced by wrong ones, anywhere."""
    body = deepcopy(body)
    for _ in range(data.draw(st.integers(1, 3))):
        at: Any = body
        while True:
            if not isinstance(at, dict | list) or not at:
                break
            key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
            if not isinstance(at[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
                at[key] = deepcopy(data.draw(ODD))
                break
            at = at[key]
    return body


def case(name: str) -> Any:
    platform, _, rest = name.partition("/")
    return load(platform, rest)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_broken_answers_raise_only_provider_errors(name: str, data: st.DataObject):
    codec, _, plain, stream = CODECS[name]
    body = deepcopy(data.draw(ODD)) if data.draw(st.integers(0, 9)) == 0 else spoilt(case(plain).json, data)
    for status in (200, 500):
        codec.parse_error(status, {}, body)
    with suppress(ProviderError):
        codec.parse_reply(body)
    framing, state, builder = codec.framing(), codec.new_state(), ReplyBuilder()
    frames = [*framing.feed(case(stream).body), *framing.close()]
    with suppress(ProviderError):
        for frame in frames:
            content = frame.data
            if content.startswith(b"{") and data.draw(st.integers(0, 2)) == 0:
                content = dumps(spoilt(loads(content), data))
            for delta in codec.parse_event(state, content, frame.event):
                builder.add(delta)
        for delta in codec.finish(state):
            builder.add(delta)
    builder.message()


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(history=st.lists(MESSAGES, min_size=1, max_size=7))
def test_any_history_can_be_sent(name: str, history: list[Message]):
    codec, check, _, _ = CODECS[name]
    if not any(message.content.strip() or getattr(message, "tool_calls", ()) for message in history):
        history = [*history, UserMessage("hi")]  # a history that says nothing is refused, which other tests hold
    requests = [codec.build_request(chat(*history))]
    if codec.features.tools:
        requests.append(codec.build_request(chat(*history, tools=(GET_WEATHER,))))
    for request in requests:
        check(json.loads(request.content))
