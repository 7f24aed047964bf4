"""A model that runs in this process calls a Python function: no API key, no server."""

from lmagent import Agent, LocalChat, function


@function
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny, 20 degrees"


result = Agent(LocalChat(), tools=[get_weather]).run("What is the weather in Rome?")
for call in result.tool_calls:
    print("called", call.name, call.arguments)
print(result.reply)
