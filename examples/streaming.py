"""The events of a streamed run: text, a tool call with its arguments, its result, the end."""

from lmagent import Agent, function
from lmagent.events import RoundStart, RunEnd, TextDelta, ToolCallDelta, ToolCallStart, ToolEnd
from lmagent.testing import ScriptedModel, calls


@function
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny, 20 degrees"


model = ScriptedModel([calls(("get_weather", {"city": "Rome"}), content="Let me look."), "It is sunny in Rome."])
for event in Agent(model, tools=[get_weather]).stream_run("What is the weather in Rome?"):
    match event:
        case RoundStart(number):
            print(f"--- round {number}")
        case TextDelta(text):
            print(text, end="|", flush=True)
        case ToolCallStart(name=name):
            print(f"\n{name} ", end="")
        case ToolCallDelta(arguments=piece):
            print(piece, end="|", flush=True)
        case ToolEnd(message=message):
            print(f"\n-> {message.content}")
        case RunEnd(result):
            print(f"\n--- {result.rounds} rounds, {len(result.tool_calls)} call")
