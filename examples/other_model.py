"""A conversation with tool calls continues with another model: histories are independent of the provider."""

from lmagent import Agent, History, function
from lmagent.testing import ScriptedModel, calls


@function
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny, 20 degrees"


history = History()
native = ScriptedModel([calls(("get_weather", {"city": "Rome"})), "Sunny."])
Agent(native, tools=[get_weather]).run("What is the weather in Rome?", history=history)

no_calls = ScriptedModel([calls(("get_weather", {"city": "Oslo"})), "Sunny there, too."], tool_mode="prompt")
Agent(no_calls, tools=[get_weather]).run("And in Oslo?", history=history)

print("the second model read the first one's call as text:")
print(no_calls.asked[0][2].content)
print([message.role for message in history.messages])
