"""A calculator: exact arithmetic on expressions as people type them, without running code.

The text is split into tokens and parsed by `ast`. Only allowed kinds of nodes are evaluated, and the size of numbers,
powers, factorials and the nesting depth are limited. Integers and decimals are exact fractions (0.1 + 0.2 is 0.3);
roots, logarithms and angles are floats, shown with 15 digits. There are no variables, comparisons or units.

Conventions: `^` is power (not Python's XOR), `5!` a factorial, `30°` degrees. `%` before a number, name or bracket is
the remainder (`7 % 3`), otherwise per cent: `200 * 15%`, `15% of 200`. `log` is the natural logarithm, `round` rounds
halves away from zero. `×`, `÷`, `−`, `√9`, `5²` and full-width signs are read like their ASCII forms.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

from lmagent import ToolError, function

__all__ = ["calculator"]

MAX_LENGTH = 500
MAX_DEPTH = 60
MAX_BITS = 10_000
"""Largest numerator or denominator: about 3000 decimal digits."""
MAX_FACTORIAL = 1_000
MAX_EXACT_DIGITS = 30
"""A terminating decimal longer than this is shown with 15 significant digits."""

Number = Fraction | float


@function
def calculator(expression: str) -> str:
    """Calculate an arithmetic expression.

    Signs: + - * / // % ^ ! and brackets. Names: pi, e, sqrt, log, sin, round, max.

    Args:
        expression: Arithmetic in numbers and signs.
    """
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"The expression has {len(expression)} characters; at most {MAX_LENGTH} are allowed.")
    source = _python_text(expression)
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolError(f"Cannot read {expression!r}. Write one expression such as (2 + 3) * 4 or sqrt(16).") from None
    try:
        return _show(_value(tree.body, source, 0))
    except ZeroDivisionError:
        raise ToolError("Division by zero.") from None
    except OverflowError:
        raise _too_large() from None
    except ValueError:
        raise ToolError("The value is outside the function's domain, such as sqrt(-1) or log(0).") from None


_LOOKALIKES = str.maketrans(
    {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
    | {"\u3000": " ", "\u00a0": " ", "【": "(", "】": ")"}
    | dict.fromkeys("×✕✖·⋅∙", "*")
    | dict.fromkeys("÷∕⁄", "/")
    | dict.fromkeys("−–—", "-")
    | {"π": " pi ", "τ": " tau "}
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?)?")
_PIECE = re.compile(
    r"\s*(?:(?P<number>(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<op>\*\*|//|[-+*/%^!°().,\[\]]))",
    re.ASCII,
)
_SPELLINGS = {"^": "**", "mod": "%", "%": ".percent", "!": ".factorial", "°": ".degrees"}
"""A postfix sign becomes an attribute, which binds tighter than every operator: 200 / 10% is 200 / (10 .percent)."""


def _python_text(expression: str) -> str:
    """Return the expression as one line of ASCII Python; reject all other characters."""
    text = _ROOT.sub(lambda found: f"sqrt({found[1]})" if found[1] else "sqrt", expression)
    text = _SUPERSCRIPT_RUN.sub(lambda run: f"**({run[0].translate(_SUPERSCRIPTS)})", text)
    text = text.translate(_LOOKALIKES).strip().rstrip("=? ")
    pieces: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        found = _PIECE.match(text, position)
        if not found or not found.lastgroup:
            if not text[position:].strip():
                break
            raise _unexpected(text[position:].lstrip()[0])
        kind, piece = found.lastgroup, found[found.lastgroup]
        if piece == "mod":
            kind = "op"
        if kind == "name" and pieces and pieces[-1][0] == "number":
            raise ToolError(f"Put an operator between {pieces[-1][1]} and {piece}, such as * for multiplication.")
        pieces.append((kind, piece))
        position = found.end()
    written: list[str] = []
    for index, (_, piece) in enumerate(pieces):
        after_kind, after = pieces[index + 1] if index + 1 < len(pieces) else ("end", "")
        if piece == after == "!":
            raise ToolError("5!! is ambiguous: write factorial(factorial(5)), or 5 * 3 * 1 for the double factorial.")
        if piece == "%" and (after_kind == "number" or after == "(" or (after_kind == "name" and after != "of")):
            written.append("%")
        elif piece == "of" and index and pieces[index - 1][1] == "%":
            written.append("*")
        else:
            written.append(_SPELLINGS.get(piece, piece))
    return " ".join(written).replace(" . ", ".")


def _unexpected(character: str) -> ToolError:
    return ToolError(
        f"Unexpected {character!r}. Allowed are numbers, + - * / // % ^ ( ), the constants {', '.join(_CONSTANTS)} "
        f"and the functions {', '.join(_FUNCTIONS)}."
    )


def _value(node: ast.expr, source: str, depth: int) -> Number:
    if depth > MAX_DEPTH:
        raise ToolError(f"The expression is nested more than {MAX_DEPTH} levels deep.")
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            result = _literal(source[node.col_offset : node.end_col_offset])
        case ast.UnaryOp(op=ast.UAdd() | ast.USub()):
            operand = _value(node.operand, source, depth + 1)
            result = -operand if isinstance(node.op, ast.USub) else operand
        case ast.BinOp() if type(node.op) in _OPERATORS:
            left, right = (_value(side, source, depth + 1) for side in (node.left, node.right))
            result = _OPERATORS[type(node.op)](left, right)
        case ast.Attribute(attr=sign) if sign in _SIGNS:
            result = _SIGNS[sign](_value(node.value, source, depth + 1))
        case ast.Call(keywords=[]) if name := _name(node.func):
            result = _call(name, [_value(argument, source, depth + 1) for argument in _flat(node.args)])
        case ast.Name() | ast.Attribute() if name := _name(node):
            if name not in _CONSTANTS:
                raise ToolError(f"Unknown name {name!r}. The constants are {', '.join(_CONSTANTS)}.")
            result = _CONSTANTS[name]
        case ast.Call():
            raise ToolError("Only named functions can be called, without keywords; write 2 * (3 + 4), not 2(3 + 4).")
        case ast.Tuple():
            raise ToolError("Write one expression, and numbers without thousands commas: 1000, not 1,000.")
        case _:
            raise ToolError("Only arithmetic is allowed: numbers, + - * / // % ^ and functions such as sqrt(2).")
    return _bounded(result)


def _name(node: ast.expr) -> str:
    """Return `sqrt` for `sqrt` and `math.sqrt`, and an empty text for any other node."""
    match node:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="math"), attr=name):
            return name
        case _:
            return ""


def _flat(arguments: list[ast.expr]) -> list[ast.expr]:
    """Return the items of a single list argument: models write `sum([1, 2])` as often as `sum(1, 2)`."""
    match arguments:
        case [ast.List(elts=items) | ast.Tuple(elts=items)]:
            return items
        case _:
            return arguments


def _literal(text: str) -> Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > 5 or abs(int(exponent or 0)) > MAX_BITS // 4:
        raise _too_large()
    if len(mantissa) > 1 and mantissa.startswith("00"):
        raise ToolError(f"Write numbers without thousands commas or leading zeros, not {text!r}.")
    return Fraction(text.replace("_", ""))


def _bounded(value: Number) -> Number:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise _too_large()
    elif not math.isfinite(value):
        raise _too_large()
    return value


def _too_large() -> ToolError:
    return ToolError("The numbers get too large to calculate.")


def _power(base: Number, exponent: Number) -> Number:
    if not isinstance(base, Fraction) or not isinstance(exponent, Fraction) or exponent.denominator != 1:
        result = float(base) ** float(exponent)
        if isinstance(result, complex):
            raise ToolError("A negative number has no real power if the exponent is a fraction.")
        return result
    bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    # Powers of 0, 1 and -1 stay small; for all other bases the size of the result is known beforehand.
    if abs(base) not in (0, 1) and (bits - 1) * abs(exponent) > MAX_BITS:
        raise _too_large()
    if abs(base) == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    return Fraction(base**exponent.numerator)


_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(math.floor(a / b)),
    ast.Mod: lambda a, b: a % b,
    ast.Pow: _power,
}


def _whole(value: Number) -> int:
    if value != math.floor(value):
        raise ToolError(f"A whole number is required here, not {_show(value)}.")
    return math.floor(value)


def _count(value: Number) -> int:
    number = _whole(value)
    if not 0 <= number <= MAX_FACTORIAL:
        raise ToolError(f"factorial, comb and perm take whole numbers from 0 to {MAX_FACTORIAL}.")
    return number


def _sqrt(value: Number) -> Number:
    if isinstance(value, Fraction) and value >= 0:
        above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if above * above == value.numerator and below * below == value.denominator:
            return Fraction(above, below)
    return math.sqrt(value)


def _round(value: Number, digits: Number = Fraction(0)) -> Number:
    places = _whole(digits)
    if abs(places) > 100:
        raise ToolError("round takes at most 100 digits.")
    # A float means the decimal that it is shown as: round(sqrt(2) * 0 + 2.675, 2) is 2.68.
    exact = value if isinstance(value, Fraction) else Fraction(repr(value))
    scale = Fraction(10) ** places
    rounded = math.floor(abs(exact) * scale + Fraction(1, 2)) / scale
    return rounded if exact >= 0 else -rounded


def _log(value: Number, base: Number | None = None) -> Number:
    if base is None:
        return math.log(value)
    if base in (2, 10):
        return math.log2(value) if base == 2 else math.log10(value)
    return math.log(value) / math.log(base)


def _angle(function_of: Callable[[float], float]) -> Callable[[Number], Number]:
    """Return `function_of` with results below the rounding error of the argument as 0: sin(pi) is 0, not 1.2e-16."""

    def of(value: Number) -> Number:
        result = function_of(float(value))
        return Fraction(0) if abs(result) < abs(value) * 2.3e-16 else result

    return of


_sin, _cos = _angle(math.sin), _angle(math.cos)


_SIGNS: dict[str, Callable[[Number], Number]] = {
    "percent": lambda value: value / 100,
    "factorial": lambda value: Fraction(math.factorial(_count(value))),
    "degrees": lambda value: math.radians(value),
}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_ONE: dict[str, Callable[[Number], Number]] = {
    "sqrt": _sqrt,
    "cbrt": math.cbrt,
    "abs": lambda value: abs(value),
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "exp": math.exp,
    "ln": _log,
    "log2": lambda value: _log(value, Fraction(2)),
    "log10": lambda value: _log(value, Fraction(10)),
    "sin": _sin,
    "cos": _cos,
    "tan": lambda value: _sin(value) / _cos(value),
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "degrees": math.degrees,
    "radians": math.radians,
    "factorial": _SIGNS["factorial"],
}
_TWO: dict[str, Callable[[Number, Number], Number]] = {
    "pow": _power,
    "comb": lambda n, k: Fraction(math.comb(_count(n), _count(k))),
    "perm": lambda n, k: Fraction(math.perm(_count(n), _count(k))),
}
_ONE_OR_TWO: dict[str, Callable[..., Number]] = {"round": _round, "log": _log}
_MANY: dict[str, Callable[[list[Number]], Number]] = {
    "min": min,
    "max": max,
    "sum": lambda values: sum(values, Fraction(0)),
    "mean": lambda values: sum(values, Fraction(0)) / len(values),
    "gcd": lambda values: Fraction(math.gcd(*map(_whole, values))),
    "lcm": lambda values: Fraction(math.lcm(*map(_whole, values))),
}
_FUNCTIONS: dict[str, tuple[Callable[..., Number], tuple[int, ...]]] = {
    **{name: (called, (1,)) for name, called in _ONE.items()},
    **{name: (called, (1, 2)) for name, called in _ONE_OR_TWO.items()},
    **{name: (called, (2,)) for name, called in _TWO.items()},
    **{name: (called, ()) for name, called in _MANY.items()},
}
"""Name -> callable and the allowed numbers of arguments; () means one list of at least one argument."""


def _call(name: str, arguments: list[Number]) -> Number:
    if name not in _FUNCTIONS:
        raise ToolError(f"Unknown function {name!r}. The functions are {', '.join(_FUNCTIONS)}.")
    called, counts = _FUNCTIONS[name]
    if not arguments or (counts and len(arguments) not in counts):
        wanted = " or ".join(map(str, counts)) or "at least 1"
        raise ToolError(f"{name} takes {wanted} argument(s), not {len(arguments)}.")
    return called(*arguments) if counts else called(arguments)


def _show(value: Number) -> str:
    if isinstance(value, float):
        return f"{value:.15g}" if value else "0"
    if value.denominator == 1:
        return str(value.numerator)
    exact = _terminating(value)
    if exact is not None:
        return exact
    with localcontext() as context:
        context.prec = 15
        return f"{Decimal(value.numerator) / Decimal(value.denominator):.15g}"


def _terminating(value: Fraction) -> str | None:
    """Return the exact decimal if it is finite and short, else None."""
    places = 0
    rest = value.denominator
    for prime in (2, 5):
        count = 0
        while rest % prime == 0 and count <= MAX_EXACT_DIGITS:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest != 1 or places > MAX_EXACT_DIGITS:
        return None
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
