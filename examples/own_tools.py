"""A method as a tool, with values from the program that the model does not see."""

from lmagent import Agent, RunContext, function
from lmagent.testing import ScriptedModel, calls


class Shop:
    def __init__(self) -> None:
        self.stock = {"apple": 3}

    @function
    def buy(self, item: str, customer: RunContext[str], count: int = 1) -> str:
        """Buy an item.

        Args:
            item: What to buy.
            count: How many.
        """
        self.stock[item] -= count
        return f"{customer.deps} has {count} {item}"


shop = Shop()
agent = Agent(ScriptedModel([calls(("buy", {"item": "apple", "count": 2})), "Done."]), tools=[shop.buy])
print(agent.tools.get("buy").json_schema["parameters"]["properties"])
print(agent.run("Two apples, please.", deps="Ann").messages[2].content)
