"""The neutral parameters and how they are checked. A codec translates them; nothing here knows a wire name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lmagent.errors import ParameterError

__all__ = ["ChatParameters"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ChatParameters(BaseModel):
    """Parameters that every model takes under these names; what a provider can't express is a clear error.

    All are optional: what is not set is not sent. Subclasses add a provider's own.

    Raises:
        ParameterError: An unknown name, a wrong type, or a value out of range; the message names field and range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Randomness; 0 is as deterministic as the provider can be."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Nucleus sampling."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Sample among the k likeliest tokens only."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens (reasoning included where the provider counts it)."""
    stop: Annotated[list[str], BeforeValidator(_as_list)] | None = None
    """The answer ends before any of these texts."""
    seed: int | None = None
    """For repeatable answers, where the provider knows it."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Positive: new subjects are likelier."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Positive: repetition is less likely."""
    user: str | None = None
    """Your end user's id, for the provider's abuse detection."""
    parallel_tool_calls: bool | None = None
    """Whether one answer may hold several tool calls."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How long a reasoning model thinks."""
    extra_body: dict[str, Any] | None = None
    """Members merged into the request body as they are, last: the door for what lmagent does not know."""
    extra_headers: dict[str, str] | None = None
    """Headers added to the request."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParameterError(_explain(type(self), error)) from None

    def given(self) -> dict[str, Any]:
        """Return the parameters that were set, by name."""
        return {name: value for name, value in self if value is not None}


def _explain(kind: type[ChatParameters], error: ValidationError) -> str:
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "?"
        if problem["type"] == "extra_forbidden":
            known = sorted(kind.model_fields.keys() - {"extra_body", "extra_headers"})
            lines.append(
                f"{name} is no parameter of {kind.__name__}; it takes {known}, "
                f"and extra_body={{{name!r}: ...}} sends what lmagent does not know"
            )
            continue
        bounds = _range_of(kind, name)
        lines.append(f"{name}={problem['input']!r}: {problem['msg']}" + (f" ({name} is {bounds})" if bounds else ""))
    return f"{kind.__name__}: " + "; ".join(lines) + "."


def _range_of(kind: type[ChatParameters], name: str) -> str:
    schema = kind.model_json_schema()["properties"].get(name, {})
    words = {
        "minimum": "at least {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "less than {}",
    }
    bounds = schema if "anyOf" not in schema else schema["anyOf"][0]
    return " and ".join(text.format(bounds[key]) for key, text in words.items() if key in bounds)
