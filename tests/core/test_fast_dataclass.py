"""`@fast_dataclass` makes what `dataclasses.dataclass(slots=True)` makes, faster."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, field, fields, is_dataclass, replace
from typing import Any, ClassVar

import pytest

from lmagent.core.fast_dataclass import fast_dataclass


@fast_dataclass(frozen=True)
class Point:
    """Frozen, with defaults of both kinds, one field that is never passed and one that is not compared."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list[str], compare=False)
    cache: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False, compare=False)
    kind: ClassVar[str] = "point"


@fast_dataclass(kw_only=True)
class Named:
    name: str
    other: Point | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


@fast_dataclass()
class Empty:
    """Nothing."""


def test_fast_dataclass_makes_a_dataclass_with_slots():
    point = Point(1)
    assert is_dataclass(point)
    assert [item.name for item in fields(point)] == ["x", "y", "tags", "cache"]
    assert not hasattr(point, "__dict__")
    assert replace(point, y=5) == Point(1, 5)
    assert asdict(Named(name="n", other=point))["other"]["y"] == 2
    assert Point.__match_args__ == ("x", "y", "tags")


def test_init_takes_the_fields_as_arguments():
    assert (Point(1, 3, ["a"]).tags, Point(x=1).tags) == (["a"], [])
    assert Point(1).tags is not Point(1).tags
    for wrong in (lambda: Point(), lambda: Point(1, cache={}), lambda: Named("n"), lambda: Point(1, z=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="no name"):
        Named(name="")


def test_equality_and_hash_use_the_compared_fields():
    assert Point(1, 2, ["a"]) == Point(1, 2, ["b"])
    assert Point(1) != Point(2)
    assert Point(1) != (1, 2)
    assert Empty() == Empty()
    assert Empty() != Point(1)
    assert len({Point(1), Point(1, 2), Point(2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Named(name="n"))


def test_repr_shows_the_fields():
    assert repr(Named(name="n", other=Point(1))) == "Named(name='n', other=Point(x=1, y=2, tags=[]))"


def test_a_frozen_instance_cannot_be_changed_and_can_be_copied_and_pickled():
    point = Point(1, tags=["a"])
    with pytest.raises(FrozenInstanceError, match=r"Point\.x"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    for twin in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert twin == point
        assert twin.tags == ["a"]
    named = Named(name="a")
    named.name = "b"
    assert copy.copy(named).name == "b"
