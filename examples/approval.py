"""A run pauses for approval, is stored as JSON, and is resumed later, possibly in another process."""

import json

from lmagent import Agent, RunResult, function
from lmagent.testing import ScriptedModel, calls


@function(requires_approval=True)
def pay(amount: int, to: str) -> str:
    """Pay an amount to somebody."""
    return f"paid {amount} to {to}"


agent = Agent(ScriptedModel([calls(("pay", {"amount": 5, "to": "Ann"})), "Ann has her money."]), tools=[pay])
paused = agent.run("Give Ann 5.")
print("waiting for:", [(call.name, call.arguments) for call in paused.pending])

stored = RunResult.from_dict(json.loads(json.dumps(paused.to_dict())))
print(agent.run(stored.decide(True)).reply)
