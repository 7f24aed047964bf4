"""The official SDKs as counterparts: for the same conversation both send the same requests.

Both talk to a loopback server that answers with the recordings. Additional members of the SDK are documented in each
comparison. A test is skipped if its SDK is not installed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lmagent.core.messages import ImagePart, Message, Reply, SystemMessage, TextPart, ToolMessage, UserMessage
from lmagent.models.anthropic import AnthropicChat
from lmagent.models.gemini import GeminiChat
from lmagent.models.model import ChatModel
from lmagent.models.openai import OpenAIResponsesChat
from tests.loopback import LoopbackServer, Received, answer
from tests.providers.wire_intl import GET_TIME, GET_WEATHER, PNG, load

KEY = "key-12345678"
SYSTEM = "You are a terse assistant."
QUESTION = "Weather and local time in Paris?"
RESULTS = {"get_weather": '{"temp_c": 18}', "get_time": "14:05"}
TOOLS = (GET_WEATHER, GET_TIME)
PLAIN = {tool.name: dict(tool.parameters) for tool in TOOLS}


def script(platform: str, *cases: str) -> Callable[[Received], Any]:
    """Answer each side's requests with these recordings, in turn; the first part of the path is the side."""
    counts: dict[str, int] = {}

    def reply(request: Received) -> Any:
        side = request.path.split("/")[1]
        case = load(platform, cases[counts.setdefault(side, 0)])
        counts[side] += 1
        return answer(case.content, case.status, {"content-type": case.headers["content-type"]})

    return reply


def bodies(server: LoopbackServer, side: str) -> list[Any]:
    return [request.json for request in server.requests if request.path.startswith(f"/{side}/")]


def paths(server: LoopbackServer, side: str) -> list[str]:
    return [r.target.removeprefix(f"/{side}") for r in server.requests if r.path.startswith(f"/{side}/")]


def converse(model: ChatModel, *, stream: bool = False, **parameters: Any) -> Reply:
    """Hold our side of the conversation: a question, the results of its calls, the answer."""
    history: list[Message] = [SystemMessage(SYSTEM), UserMessage(QUESTION)]
    with model:
        for _ in range(2):
            if stream:
                *_, reply = model.stream_chat_completion(history, tools=TOOLS, **parameters)
            else:
                reply = model.chat_completion(history, tools=TOOLS, **parameters)
            assert isinstance(reply, Reply)
            history.append(reply.message)
            history += [ToolMessage(RESULTS[c.name], c.id, c.name) for c in reply.tool_calls]
    return reply  # type: ignore[return-value]


def without(value: Any, drop: Mapping[str, Any]) -> Any:
    """Return JSON without members that have the value given for their name (`...`: any value)."""
    if isinstance(value, list):
        return [without(item, drop) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: without(v, drop) for k, v in value.items() if not (k in drop and (drop[k] is ... or drop[k] == v))}


# Anthropic


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", ["04-parallel-calls", "12-stream-thinking"])
def test_anthropic(first: str, stream: bool):
    sdk = pytest.importorskip("anthropic", reason="the Anthropic SDK is not installed")
    if stream != first.startswith("12"):
        first = "07-stream-tool-calls" if stream else "10-thinking-tool-call"
    last = "06-stream-text" if stream else "05-parallel-results"
    thinking = {"type": "enabled", "budget_tokens": 2048}
    parameters = {"max_tokens": 4096, "stop": ["END"], "thinking": thinking}
    with LoopbackServer(script("anthropic", first, last)) as server:
        model = AnthropicChat("claude-sonnet-4-6", api_key=KEY, base_url=f"{server.url}/ours", version="2026-10-21")
        ours = converse(model, stream=stream, **parameters)
        with sdk.Anthropic(api_key=KEY, base_url=f"{server.url}/sdk", max_retries=0) as client:
            messages: list[Any] = [{"role": "user", "content": QUESTION}]
            for _ in range(2):
                asked: dict[str, Any] = {
                    "model": "claude-sonnet-4-6",
                    "max_tokens": 4096,
                    "system": SYSTEM,
                    "messages": messages,
                    "stop_sequences": ["END"],
                    "thinking": thinking,
                    "tools": [
                        {"name": t.name, "description": t.description, "input_schema": PLAIN[t.name]} for t in TOOLS
                    ],
                }
                if stream:
                    with client.messages.stream(**asked) as events:
                        theirs = events.get_final_message()
                else:
                    theirs = client.messages.create(**asked)
                results = [
                    {"type": "tool_result", "tool_use_id": block.id, "content": RESULTS[block.name]}
                    for block in theirs.content
                    if block.type == "tool_use"
                ]
                messages = [*messages, {"role": "assistant", "content": theirs.content}]
                messages += [{"role": "user", "content": results}] if results else []
        # The SDK echoes members that are null, and an empty `citations`.
        drop = {"citations": None, "caller": None}
        assert without(bodies(server, "ours"), drop) == without(bodies(server, "sdk"), drop)
        assert paths(server, "ours") == paths(server, "sdk") == ["/v1/messages"] * 2
        mine, other = server.requests[0].headers, server.requests[-1].headers
        assert mine["anthropic-version"] == other["anthropic-version"]
        # SDK 2.x sends a key as a bearer token; both forms are documented for a key.
        assert (mine["x-api-key"], other.get("x-api-key", other.get("authorization"))) == (KEY, f"Bearer {KEY}")
        assert ours.reply == "".join(block.text for block in theirs.content if block.type == "text")
        assert ours.raw_finish_reason == theirs.stop_reason
        assert ours.usage is not None
        assert ours.usage.output_tokens == theirs.usage.output_tokens


def test_anthropic_images():
    sdk = pytest.importorskip("anthropic", reason="the Anthropic SDK is not installed")
    url = "https://example.com/cat.jpg"
    with LoopbackServer(script("anthropic", "08-image")) as server:
        with AnthropicChat("m", api_key=KEY, base_url=f"{server.url}/ours") as model:
            parts = (TextPart("Describe."), ImagePart(data=PNG), ImagePart(url=url))
            model.chat_completion(UserMessage(parts), max_tokens=9)
        with sdk.Anthropic(api_key=KEY, base_url=f"{server.url}/sdk", max_retries=0) as client:
            content = [
                {"type": "text", "text": "Describe."},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "image", "source": {"type": "url", "url": url}},
            ]
            client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": content}])
        assert bodies(server, "ours") == bodies(server, "sdk")


# Gemini


_CAMEL = {
    "parameters_json_schema": "parametersJsonSchema",
    "mime_type": "mimeType",
    "file_uri": "fileUri",
    "include_thoughts": "includeThoughts",
    "thinking_level": "thinkingLevel",
}


def camel(value: Any) -> Any:
    """The SDK mixes snake case into its bodies; the service accepts both."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    return {_CAMEL.get(k, k): camel(v) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("stream", [False, True])
def test_gemini(stream: bool):
    genai = pytest.importorskip("google.genai", reason="the Google Gen AI SDK is not installed")
    types = genai.types
    first, last = ("07-stream-tool-calls", "06-stream-text") if stream else ("04-parallel-calls", "05-parallel-results")
    name = "gemini-3.1-pro-preview"
    with LoopbackServer(script("gemini", first, last)) as server:
        ours = converse(
            GeminiChat(name, api_key=KEY, base_url=f"{server.url}/ours", version="v1"),
            stream=stream,
            temperature=0.5,
            include_thoughts=True,
        )
        client = genai.Client(api_key=KEY, http_options={"base_url": f"{server.url}/sdk", "api_version": "v1"})
        contents: list[Any] = [types.Content(role="user", parts=[types.Part.from_text(text=QUESTION)])]
        config = types.GenerateContentConfig(
            system_instruction=SYSTEM,
            temperature=0.5,
            thinking_config=types.ThinkingConfig(include_thoughts=True),
            tools=[
                types.Tool(
                    function_declarations=[
                        types.FunctionDeclaration(
                            name=t.name, description=t.description, parameters_json_schema=PLAIN[t.name]
                        )
                        for t in TOOLS
                    ]
                )
            ],
        )
        for _ in range(2):
            if stream:
                chunks = list(client.models.generate_content_stream(model=name, contents=contents, config=config))
                parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
                theirs = chunks[-1]
            else:
                theirs = client.models.generate_content(model=name, contents=contents, config=config)
                parts = theirs.candidates[0].content.parts
            # Thoughts need not go back, an empty text must not.
            parts = [part for part in parts if not part.thought and (part.function_call or part.text)]
            contents.append(types.Content(role="model", parts=parts))
            responses = [
                types.Part(
                    function_response=types.FunctionResponse(
                        id=part.function_call.id,
                        name=part.function_call.name,
                        response={"output": _value(RESULTS[part.function_call.name])},
                    )
                )
                for part in parts
                if part.function_call
            ]
            if responses:
                contents.append(types.Content(role="user", parts=responses))
        client.close()
        sdk_bodies = [camel(body) for body in bodies(server, "sdk")]
        for body in sdk_bodies:
            del body["systemInstruction"]["role"]
        assert bodies(server, "ours") == sdk_bodies
        assert paths(server, "ours") == paths(server, "sdk")
        assert server.requests[0].headers["x-goog-api-key"] == server.requests[-1].headers["x-goog-api-key"] == KEY
        assert ours.reply == "".join(part.text or "" for part in parts)
        assert ours.raw_finish_reason == theirs.candidates[0].finish_reason.value
        assert ours.usage is not None
        assert ours.usage.total_tokens == theirs.usage_metadata.total_token_count


def _value(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def test_gemini_images_and_structured_answers():
    genai = pytest.importorskip("google.genai", reason="the Google Gen AI SDK is not installed")
    types = genai.types
    from lmagent.toolkit.schema import OutputSchema

    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    with LoopbackServer(script("gemini", "08-image")) as server:
        with GeminiChat("gemini-3-x", api_key=KEY, base_url=f"{server.url}/ours", version="v1") as model:
            parts = (TextPart("Describe."), ImagePart(data=PNG))
            model.chat_completion(UserMessage(parts), output_schema=OutputSchema(name="A", schema=schema))
        client = genai.Client(api_key=KEY, http_options={"base_url": f"{server.url}/sdk", "api_version": "v1"})
        image = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
        client.models.generate_content(
            model="gemini-3-x",
            contents=[types.Content(role="user", parts=[types.Part.from_text(text="Describe."), image])],
            config=types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=schema),
        )
        client.close()
        (theirs,) = map(camel, bodies(server, "sdk"))
        inline = theirs["contents"][0]["parts"][1]["inlineData"]
        inline["data"] = inline["data"].replace("-", "+").replace("_", "/")  # URL-safe base64; the service takes both
        assert bodies(server, "ours") == [theirs]


# OpenAI Responses


@pytest.mark.parametrize("stream", [False, True])
def test_responses(stream: bool):
    sdk = pytest.importorskip("openai", reason="the OpenAI SDK is not installed")
    first, last = ("07-stream-tool-calls", "06-stream-text") if stream else ("04-parallel-calls", "05-parallel-results")
    with LoopbackServer(script("openai-responses", first, last)) as server:
        model = OpenAIResponsesChat("gpt-5.4", api_key=KEY, base_url=f"{server.url}/ours/v1")
        ours = converse(model, stream=stream, reasoning_effort="low", max_tokens=500)
        with sdk.OpenAI(api_key=KEY, base_url=f"{server.url}/sdk/v1", max_retries=0) as client:
            items: list[Any] = [{"role": "user", "content": QUESTION}]
            for _ in range(2):
                asked: dict[str, Any] = {
                    "model": "gpt-5.4",
                    "instructions": SYSTEM,
                    "input": items,
                    "reasoning": {"effort": "low"},
                    "max_output_tokens": 500,
                    "store": False,
                    "include": ["reasoning.encrypted_content"],
                    "tools": [
                        {
                            "type": "function",
                            "name": t.name,
                            "description": t.description,
                            "parameters": PLAIN[t.name],
                            "strict": False,
                        }
                        for t in TOOLS
                    ],
                }
                if stream:
                    with client.responses.stream(**asked) as events:
                        theirs = events.get_final_response()
                else:
                    theirs = client.responses.create(**asked)
                items = [*items, *theirs.output]
                items += [
                    {"type": "function_call_output", "call_id": item.call_id, "output": RESULTS[item.name]}
                    for item in theirs.output
                    if item.type == "function_call"
                ]
        # The stream reader of the SDK adds what it has parsed to the items it gives back.
        drop = {"parsed": ..., "parsed_arguments": ...}
        assert bodies(server, "ours") == without(bodies(server, "sdk"), drop)
        assert paths(server, "ours") == paths(server, "sdk") == ["/v1/responses"] * 2
        assert server.requests[0].headers["authorization"] == server.requests[-1].headers["authorization"]
        assert ours.reply == theirs.output_text
        assert ours.usage is not None
        assert ours.usage.total_tokens == theirs.usage.total_tokens
