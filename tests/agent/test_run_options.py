"""The keywords of a run: one definition for agent and engine, checked by name."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest

from lmagent import Agent, ChatEngine
from lmagent.agent.run import RUN_KEYWORDS, ChatOptions, CommonParameters, RunOptions
from lmagent.errors import ParameterError, UnknownParameter
from lmagent.models.parameters import ChatParameters
from lmagent.testing import ScriptedModel
from tests.four_ways import AGENT_VERBS

KEYWORDS = {"history", "deps", "limits", "tool_choice", "output_type", "budget", "approve"}


def test_run_keywords_are_those_of_a_chat_and_the_history():
    assert KEYWORDS == RUN_KEYWORDS
    assert RunOptions.__annotations__.keys() - ChatOptions.__annotations__.keys() == {"history"}


def test_common_parameters_are_the_fields_of_chat_parameters():
    assert CommonParameters.__annotations__.keys() == {*ChatParameters.model_fields, "parameters"}


@pytest.mark.parametrize(("wrong", "meant"), [("limit", "limits"), ("buget", "budget"), ("tool_choise", "tool_choice")])
def test_misspelled_run_keyword_is_a_type_error_that_names_the_right_one(wrong: str, meant: str):
    agent = Agent(ScriptedModel([]))
    bot = ChatEngine(agent, print_message=False)
    given: dict[str, Any] = {wrong: 1}
    for ask in (*(partial(verb, agent) for verb in AGENT_VERBS), bot.chat):
        with pytest.raises(TypeError, match=f"Did you mean {meant}=") as caught:
            ask("Hi.", **given)
        assert isinstance(caught.value, ParameterError)


def test_misspelled_keyword_of_the_agent_is_a_type_error_that_names_the_right_one():
    with pytest.raises(TypeError, match=r"no keyword 'system_promt'\. Did you mean system_prompt="):
        Agent(ScriptedModel([]), system_promt="Be brief.")


def test_misspelled_parameter_is_a_type_error_that_names_the_right_one():
    with pytest.raises(TypeError, match=r"temprature is no parameter of .*did you mean temperature\?"):
        Agent(ScriptedModel([])).run("Hi.", temprature=0)


def test_unknown_keyword_without_a_close_one_is_named():
    with pytest.raises(UnknownParameter, match="xyzzy is no parameter") as caught:
        Agent(ScriptedModel([])).run("Hi.", xyzzy=1)
    assert caught.value.names == ("xyzzy",)


def test_unknown_parameter_survives_pickling_and_copying():
    error = UnknownParameter("There is no keyword 'a'.", names=["a"])
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(same), same.names) == (str(error), ("a",))
