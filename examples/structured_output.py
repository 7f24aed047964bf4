"""Structured output: if the answer does not match the type, the model gets the errors and tries again."""

from dataclasses import dataclass

from lmagent import Agent
from lmagent.testing import ScriptedModel


@dataclass
class City:
    name: str
    people: int


model = ScriptedModel(['{"name": "Rome", "people": "many"}', '{"name": "Rome", "people": 2746639}'])
print(Agent(model, output_type=City).run("Tell me about Rome.").output)
