"""Events of a run as they happen, with a tool, from the local model."""

from lmagent import Agent, LocalChat, function
from lmagent.events import TextDelta, ToolEnd, ToolStart


@function
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny, 20 degrees"


for event in Agent(LocalChat(), tools=[get_weather]).stream_run("What is the weather in Rome?"):
    match event:
        case ToolStart(call):
            print("calling", call.name, call.arguments)
        case ToolEnd():
            print("result", event.message.content)
        case TextDelta(text):
            print(text, end="", flush=True)
print()
