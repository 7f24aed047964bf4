"""An agent calls another agent. Both use one budget, which limits the whole run."""

from lmagent import Agent, Budget, function
from lmagent.errors import LimitExceeded
from lmagent.testing import ScriptedModel, calls


@function
def look(page: int) -> str:
    """Look at a page."""
    return f"page {page} says: see the next page"


reader = Agent(ScriptedModel([calls(("look", {"page": n})) for n in range(100)]), tools=[look], name="reader")
chief = Agent(ScriptedModel([calls(("reader", {"prompt": "Find the end."}))] * 10), tools=[reader.as_function()])
budget = Budget(requests=8)
try:
    chief.run("What is at the end?", budget=budget)
except LimitExceeded as error:
    print(error)
    print("spent:", budget.spent.requests, "requests;", len(error.run.messages), "messages are kept")
