"""Callables and helpers that several tests of the toolkit use."""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    Literal,
    Optional,
)

import pytest
from pydantic import BaseModel, Field, field_validator

from lmagent.errors import InvalidArguments
from lmagent.toolkit.context import RunContext
from lmagent.toolkit.tool import Tool, function


def problems(tool: Tool[..., Any], text: str) -> list[str]:
    with pytest.raises(InvalidArguments) as caught:
        tool.call(text)
    assert str(caught.value).splitlines()[0] == f"{tool.name}: invalid arguments"
    assert str(caught.value).splitlines()[1:] == "\n".join(caught.value.problems).splitlines()
    return list(caught.value.problems)


def properties(tool: Tool[..., Any]) -> dict[str, Any]:
    return tool.parameters["properties"]


@function
def transfer(account: str, amount: float, memo: Optional[str] = None):  # noqa: UP045
    """Move money to an account.

    The transfer is booked on the next working day.

    Args:
        account: IBAN of the receiver.
        amount: How much, in euro.
        memo (str, optional): Shown on the statement.
    """
    return account, amount, memo


class Priority(enum.Enum):
    LOW = "low"
    HIGH = "high"


@function
def file_ticket(title: str, type: Literal["bug", "wish"] = "bug", priority: Priority = Priority.LOW):
    return title, type, priority


class Stop(BaseModel):
    """A place on the route."""

    city: str = Field(description="City name")
    nights: int = Field(1, ge=0)


@function
def plan_trip(start: Stop, via: list[Stop] = [], *, budget: Annotated[float, Field(gt=0, description="Most to spend")]):
    """Plan a trip.

    Parameters
    ----------
    start : Stop
        Where it begins.
    budget : float
        Not this text.
    """
    return start, via, budget


@function
def log_event(ctx: RunContext, level: Annotated[str, "Severity word"], /, *words: str, **labels: int):
    return ctx, level, words, labels


SENTINEL = object()


class Greeter:
    greeting = "Hello"

    @function
    def greet(self, who: str, mode: Mode = "plain") -> str:
        """Greet somebody."""
        return f"{self.greeting} {who} {mode}"

    @function
    @classmethod
    def kind(cls, n: int):
        """Tell the kind."""
        return cls, n

    @function
    @staticmethod
    def add(a: int, b: int):
        return a + b

    def plain(self, tags: list[str]) -> list[str]:
        """Plain method."""
        return tags

    def list(self): ...

    Mode = Literal["plain", "loud"]


class Loud(Greeter):
    greeting = "HELLO"

    def plain(self, tags):
        return tags


@dataclass
class Order:
    """An order.

    Attributes:
        item: What.
    """

    item: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


class OrderModel(BaseModel):
    """An order.

    Attributes:
        item: What.
    """

    item: str
    count: int = Field(1, ge=1, alias="n")

    @field_validator("item")
    @classmethod
    def known(cls, value: str) -> str:
        if value == "spam":
            raise ValueError("no spam, please")
        return value


class Movie(typing.TypedDict):
    name: str
    year: typing.NotRequired[int]
