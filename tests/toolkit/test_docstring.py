"""All docstring styles, in English and Chinese."""

from __future__ import annotations

import inspect

import docstring_parser.google
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmagent.toolkit.docstring import _parser, parse_docstring  # pyright: ignore[reportPrivateUsage]

WANTED = {"city": "Where to look.", "days": "How many."}

STYLES = {
    "google": """Forecast the weather.

    Args:
        city: Where to look.
        days (int, optional): How many.

    Returns:
        A text.

    Raises:
        KeyError: No such city.
    """,
    "google arguments": """Forecast the weather.

    Arguments:
        city (str): Where to look.
        days (dict[str, tuple(int, int)]): How many.

    Example:
        >>> forecast("Rome")
    """,
    "numpy": """Forecast the weather.

    Parameters
    ----------
    city : str
        Where to look.
    days : int, optional
        How many.

    Returns
    -------
    str
        A text.

    Examples
    --------
    >>> forecast("Rome")
    """,
    "rest": """Forecast the weather.

    :param city: Where to look.
    :type city: str
    :param int days: How many.
    :returns: A text.
    :raises KeyError: No such city.
    """,
    "rest full-width": """Forecast the weather.

    :param city： Where to look.
    ：param int days：How many.
    ：return：A text.
    """,
    "epydoc": """Forecast the weather.

    @param city: Where to look.
    @type city: str
    @param days: How many.
    @return: A text.
    """,
    "chinese": """Forecast the weather.

    参数：
        city：Where to look.
        days（int，可选）：How many.

    返回值：
        A text.

    示例：
        forecast("Rome")
    """,
    "chinese at the margin": """Forecast the weather.

    参数:
    city: Where to look.
    days: How many.

    返回:
    A text.
    异常：
    KeyError：没有
    """,
    "chinese numpy": """Forecast the weather.

    参数
    ----
    city : str
        Where to look.
    days ：int
        How many.

    返回
    ----
    str
    """,
}


@pytest.mark.parametrize("style", STYLES)
def test_each_style_gives_description_and_parameters_only(style: str):
    for text in (STYLES[style], inspect.cleandoc(STYLES[style])):
        found = parse_docstring(text)
        assert found.description == "Forecast the weather."
        assert {name: found.parameters.get(name) for name in WANTED} == WANTED


def test_description_is_summary_and_long_description_with_a_blank_line():
    found = parse_docstring("One.\n\n    Two\n    lines.\n\n\n    Three.\n\n    Args:\n        a: x\n    ")
    assert found.description == "One.\n\nTwo\nlines.\n\nThree."
    assert found.summary == "One."


@pytest.mark.parametrize("first", ["Args:", "参数：", "Parameters:"])
def test_parameters_of_a_docstring_that_begins_with_its_section_survive_getdoc(first: str):
    text = f"{first}\n        a: one\n        b (int): two\n            more\n    "
    for given_text in (text, inspect.cleandoc(text)):
        found = parse_docstring(given_text)
        assert found.parameters == {"a": "one", "b": "two\nmore"}
        assert found.description == ""


def test_a_summary_with_a_colon_is_prose():
    assert parse_docstring("Example: how it works.").description == "Example: how it works."
    assert parse_docstring("Returns: the sum.\n\nMore: text.").description == "Returns: the sum.\n\nMore: text."
    assert parse_docstring("发送：一封信。").description == "发送：一封信。"


def test_multi_line_texts_and_lists_are_kept_whole():
    found = parse_docstring(
        """Do.

        Args:
            mode: One of
                - fast
                - slow

                Default is fast.
            other: x
        """
    )
    assert found.parameters["mode"] == "One of\n- fast\n- slow\n\nDefault is fast."
    assert found.parameters["other"] == "x"


def test_numpy_names_share_a_text_and_lose_their_stars():
    found = parse_docstring(
        """Do.

        Parameters
        ----------
        a, b : int
            Both.

            Second paragraph.
        *rest
            The rest.
        **options : dict
            Options.
        """
    )
    assert found.parameters == {
        "a": "Both.\n\nSecond paragraph.",
        "b": "Both.\n\nSecond paragraph.",
        "rest": "The rest.",
        "options": "Options.",
    }


def test_google_stars_are_dropped():
    found = parse_docstring("Do.\n\nArgs:\n    *words: Words.\n    **labels (int): Labels.\n")
    assert found.parameters == {"words": "Words.", "labels": "Labels."}


def test_rest_continuation_lines_belong_to_the_field():
    found = parse_docstring("Do.\n\n:param a: one\n    two\n    three\n:param b: x\n")
    assert found.parameters == {"a": "one\ntwo\nthree", "b": "x"}


def test_a_role_at_the_start_of_a_line_is_prose():
    assert parse_docstring("Do.\n\n:func:`other` does more.").description == "Do.\n\n:func:`other` does more."


def test_prose_after_a_section_is_description_and_a_note_is_kept():
    found = parse_docstring("Do.\n\nArgs:\n    a: x\n\nAmounts are in cents.\n\nNote:\n    Slow.\n")
    assert found.description == "Do.\n\nAmounts are in cents.\n\nNote:\n    Slow."


@pytest.mark.parametrize("text", [None, "", "   \n  "])
def test_nothing_gives_nothing(text: str | None):
    found = parse_docstring(text)
    assert (found.description, found.parameters, found.has_sections) == ("", {}, False)


@given(
    st.lists(
        st.sampled_from([*"abc :：-@()（\n", "Args:", "    ", "param", "Parameters\n----\n", "参数："]), max_size=40
    )
)
def test_any_text_is_read_without_an_error(pieces: list[str]):
    found = parse_docstring("".join(pieces))
    assert all(name == name.strip("*") for name in found.parameters)


@given(st.text(alphabet="abc XYZ.,", min_size=1))
def test_plain_prose_is_kept(text: str):
    assert parse_docstring(text).description == inspect.cleandoc(text).strip()


def test_reading_is_linear():
    def lines(count: int) -> str:
        return "Do.\n\nArgs:\n" + "".join(f"    a{i}: text ({i}\n" for i in range(count))

    assert len(parse_docstring(lines(5000)).parameters) == 5000


def test_names_in_backticks():
    found = parse_docstring("Sum.\n\nArgs:\n    `a`: A.\n    `b` (int): B.\n    *rest: R.")
    assert found.parameters == {"a": "A.", "b": "B.", "rest": "R."}


def test_a_docstring_that_the_library_refuses_is_kept_whole(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: object, text: str) -> None:
        raise docstring_parser.ParseError(text)

    monkeypatch.setattr(docstring_parser.google.GoogleParser, "parse", refuse)
    _parser.cache_clear()
    found = parse_docstring("Do.\n\nArgs:\n    a: x\n")
    _parser.cache_clear()
    assert found.description == "Do.\n\nArgs:\n    a: x"
    assert (found.parameters, found.has_sections) == ({}, False)
