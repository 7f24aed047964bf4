"""An agent with a model without function calling: the prompt that the model gets, and its reply."""

from lmagent import Agent, function
from lmagent.testing import ScriptedModel, calls


@function
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"{city}: sunny, 20 degrees"


model = ScriptedModel([calls(("get_weather", {"city": "Rome"})), "Sunny!"], tool_mode="prompt")
result = Agent(model, tools=[get_weather]).run("What is the weather in Rome?")
print(model.asked[0][0].content, end="\n\n---\n\n")
print(model.asked[1][-1].content, end="\n\n---\n\n")
print(result.reply)
