"""Properties of the dialects of 2023: random answers raise only provider errors, any history can be sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmagent.core.events import ReplyBuilder
from lmagent.core.json_text import dumps
from lmagent.core.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from lmagent.errors import ProviderError
from lmagent.providers.baichuan import BaichuanCodec
from lmagent.providers.base import Codec
from lmagent.providers.minimax import MinimaxCodec, MinimaxProCodec
from lmagent.providers.wenxin import WenxinCodec
from tests.providers import rules_baichuan, rules_minimax, rules_wenxin
from tests.providers.wire_cn import GET_WEATHER, chat

CODECS: list[tuple[Codec, Callable[[Any], None]]] = [
    (WenxinCodec("ERNIE-Bot"), rules_wenxin.check),
    (WenxinCodec("ERNIE-Speed-8K"), rules_wenxin.check),
    (MinimaxCodec("abab5.5-chat", group_id="1"), rules_minimax.check),
    (MinimaxProCodec("abab5.5-chat", group_id="1"), rules_minimax.check_pro),
    (BaichuanCodec("Baichuan2-53B"), rules_baichuan.check),
]
IDS = ["wenxin", "wenxin-no-functions", "minimax", "minimax_pro", "baichuan"]

WORDS = """
    result function_call name arguments thoughts usage finish_reason need_clear_history is_end error_code error_msg code
    msg error choices messages text delta reply base_resp status_code status_msg data content sender_type total_tokens
    id request_id
"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = (
    st.none() | st.booleans() | st.integers(-1, 20000) | st.floats(0, 1) | st.sampled_from(["", "stop", "x", "{}"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=12
)
TEXTS = st.sampled_from(["", " ", "hi", "天气", '{"a": 1}', "[1]", "\ud800"])
NAMES = st.sampled_from(["get_weather", "add", "", "a b", "plugin_x", "x" * 70])
CALL_IDS = st.sampled_from(["a", "b", "", "call_1_0"])
CALLS = st.builds(
    lambda call_id, name, arguments: ToolCall(id=call_id, name=name, arguments=arguments), CALL_IDS, NAMES, TEXTS
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(SystemMessage, TEXTS),
    st.builds(UserMessage, TEXTS),
    st.builds(AssistantMessage, TEXTS, st.lists(CALLS, max_size=3).map(tuple)),
    st.builds(
        lambda text, call_id, is_error: ToolMessage(text, call_id, is_error=is_error), TEXTS, CALL_IDS, st.booleans()
    ),
)


@pytest.mark.parametrize("codec", [codec for codec, _ in CODECS], ids=IDS)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(body=VALUES)
def test_random_answers_raise_only_provider_errors(codec: Codec, body: Any):
    codec.parse_error(200, {}, body)
    codec.parse_error(500, {}, body)
    with suppress(ProviderError):
        codec.parse_reply(body)
    builder, state = ReplyBuilder(), codec.new_state()
    with suppress(ProviderError):
        for delta in (*codec.parse_event(state, dumps(body)), *codec.finish(state)):
            builder.add(delta)
    builder.message()


@pytest.mark.parametrize(("codec", "check"), CODECS, ids=IDS)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(history=st.lists(MESSAGES, min_size=1, max_size=7))
def test_any_history_can_be_sent(codec: Codec, check: Callable[[Any], None], history: list[Message]):
    if not any(message.content.strip() or getattr(message, "tool_calls", ()) for message in history):
        history = [*history, UserMessage("hi")]  # a history that says nothing is refused, which another test holds
    requests = [codec.build_request(chat(*history))]
    if codec.features.tools:
        requests.append(codec.build_request(chat(*history, tools=(GET_WEATHER,))))
    for request in requests:
        check(json.loads(request.content))
