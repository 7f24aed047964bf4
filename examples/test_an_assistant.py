"""Tests of an assistant, with pytest or as a program: no model, no network, a few milliseconds."""

from lmagent import Agent, ChatModel, RunResult, ToolError, function
from lmagent.testing import ScriptedModel, block_requests, calls


@function
def book(room: str, people: int) -> str:
    """Book a room.

    Args:
        room: Its name.
        people: How many will come.
    """
    if people > 4:
        raise ToolError(f"{room} has 4 chairs.")
    return f"{room} is booked for {people}"


def ask(model: ChatModel, question: str) -> RunResult:
    """The assistant under test."""
    return Agent(model, tools=[book], system_prompt="You book rooms.").run(question)


def test_a_room_is_booked() -> None:
    with block_requests(), ScriptedModel([calls(("book", {"room": "Blue", "people": 3})), "Booked."]) as model:
        result = ask(model, "The blue room for three.")
    assert result.messages[2].content == "Blue is booked for 3"
    assert model.asked[0][0].content == "You book rooms."


def test_an_error_of_the_tool_goes_to_the_model() -> None:
    with ScriptedModel([calls(("book", {"room": "Blue", "people": 9})), "It is too small."]) as model:
        result = ask(model, "The blue room for nine.")
    assert (result.messages[2].is_error, result.messages[2].content) == (True, "Blue has 4 chairs.")


def test_wrong_arguments_do_not_reach_the_function() -> None:
    with ScriptedModel([calls(("book", {"room": "Blue", "people": "many"})), "How many?"]) as model:
        result = ask(model, "The blue room for many.")
    assert "people" in result.messages[2].content


if __name__ == "__main__":
    test_a_room_is_booked()
    test_an_error_of_the_tool_goes_to_the_model()
    test_wrong_arguments_do_not_reach_the_function()
    print("3 tests passed")
