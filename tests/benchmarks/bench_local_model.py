"""How well the local model calls tools, three ways, on a fixed sample of the Berkeley function-calling cases.

Run `pip install --no-deps bfcl-eval`, then `python tests/benchmarks/bench_local_model.py [MODEL.gguf] [--cases 60]`.
Without a path the embedded model is asked. One thread, temperature 0, seed 0: the figures repeat on one machine.

    free      a Hermes prompt and free text, as most frameworks do it
    object    one request, the whole reply constrained by a JSON schema
    tiny      the recipe for tiny models: choose by words, fill in under a grammar, believe only what was said

`exact`: the right tool with allowed arguments, of the cases that need a call. `false`: a call where no tool fits.
`ran wrong`: a call that ran with a wrong tool or wrong values. The sample is every so-manieth case of three files,
with at most four tools and one short request.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from lmagent.core.messages import Reply
from lmagent.models.local import LocalChat
from lmagent.models.model import ChatModel
from lmagent.toolkit.schema import ToolSpec

KINDS = {"dict": "object", "float": "number", "tuple": "array", "any": None, "double": "number", "long": "integer"}
MAX_TOKENS = 128


@dataclass(frozen=True)
class Case:
    id: str
    request: str
    tools: tuple[ToolSpec, ...]
    allowed: Mapping[str, Mapping[str, list[Any]]] | None
    """Allowed values by tool and argument; None: no tool fits."""


def schema_of(node: Any) -> Any:
    """Return a schema in JSON Schema's own type names."""
    if not isinstance(node, dict):
        return node
    kept = ("required", "enum", "description")
    schema: dict[str, Any] = {key: node[key] for key in kept if key in node}
    kind = node.get("type")
    kind = KINDS.get(kind, kind) if isinstance(kind, str) else kind
    if kind:
        schema["type"] = kind
    if "properties" in node:
        schema["properties"] = {key: schema_of(inner) for key, inner in node["properties"].items()}
    if "items" in node:
        schema["items"] = schema_of(node["items"])
    return schema


def rows(folder: str, name: str) -> list[dict[str, Any]]:
    spec = find_spec("bfcl_eval")
    if spec is None or spec.origin is None:
        sys.exit("The cases are missing: pip install --no-deps bfcl-eval")
    path = Path(spec.origin).parent / "data" / folder / f"BFCL_v4_{name}.json"
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def sample(name: str, count: int) -> Iterator[Case]:
    """Yield every so-manieth case with one short user turn and at most four tools."""
    fits = [
        row
        for row in rows("", name)
        if len(row["function"]) <= 4
        and len(row["question"]) == 1
        and len(row["question"][0]) == 1
        and len(row["question"][0][0]["content"]) < 300
    ]
    needs_call = "irrelevance" not in name
    truths = {row["id"]: row["ground_truth"] for row in rows("possible_answer", name)} if needs_call else {}
    for row in fits[:: max(len(fits) // count, 1)][:count]:
        tools = tuple(
            ToolSpec(name=tool["name"], description=tool["description"], parameters=schema_of(tool["parameters"]))
            for tool in row["function"]
        )
        allowed = truths[row["id"]][0] if needs_call else None
        yield Case(row["id"], row["question"][0][0]["content"], tools, allowed)


def same(value: Any, allowed: Any) -> bool:
    """Compare as the Berkeley checker does: texts without case, blanks and punctuation; 1 and 1.0 are equal."""
    if isinstance(value, str) and isinstance(allowed, str):
        return plain(value) == plain(allowed)
    if isinstance(value, bool) or isinstance(allowed, bool):
        return value is allowed
    if isinstance(value, list) and isinstance(allowed, list):
        return len(value) == len(allowed) and all(map(same, value, allowed))
    if isinstance(value, dict) and isinstance(allowed, dict):
        return all(any(same(item, option) for option in allowed.get(key, ())) for key, item in value.items())
    return value == allowed


def plain(text: str) -> str:
    return "".join(char for char in text.lower() if char not in " ,./-_*^'\"")


def is_exact(reply: Reply, case: Case) -> bool:
    assert case.allowed is not None
    ran = [call for call in reply.tool_calls if not call.problem]
    if len(ran) != 1:
        return False
    [(name, allowed)] = case.allowed.items()
    given: Any = json.loads(ran[0].arguments)
    if ran[0].name != name or not isinstance(given, dict) or set(given) - set(allowed):
        return False
    missing = [key for key in allowed if key not in given and "" not in allowed[key]]
    return not missing and all(any(same(value, option) for option in allowed[key]) for key, value in given.items())


def measure(model: ChatModel, cases: list[Case]) -> dict[str, Any]:
    exact = false = wrong = needed = 0
    started = perf_counter()
    for case in cases:
        reply = model.chat_completion(case.request, tools=case.tools, max_tokens=MAX_TOKENS)
        ran = any(not call.problem for call in reply.tool_calls)
        if case.allowed is None:
            false += ran
            continue
        needed += 1
        right = is_exact(reply, case)
        exact += right
        wrong += ran and not right
    return {
        "exact": exact,
        "needed": needed,
        "false": false,
        "unneeded": len(cases) - needed,
        "wrong": wrong,
        "seconds": (perf_counter() - started) / max(len(cases), 1),
    }


def ways(path: str | None, only: list[str]) -> Iterator[tuple[str, ChatModel]]:
    made = {
        "free": {"tiny": False, "prompt_format": "hermes"},
        "object": {"tiny": False, "prompt_format": "object"},
        "tiny": {"tiny": True},
    }
    for name, options in made.items():
        if name in only:
            yield name, LocalChat(path, threads=1, timeout=600.0, **options)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="path of a GGUF file; default: the embedded model")
    parser.add_argument("--cases", type=int, default=60, help="how many cases, a third of each sort")
    parser.add_argument("--ways", default="free,object,tiny")
    given = parser.parse_args()
    share = given.cases // 3
    cases = [case for name in ("simple_python", "multiple", "irrelevance") for case in sample(name, share)]
    print(f"python tests/benchmarks/bench_local_model.py {' '.join(sys.argv[1:])}".strip())
    print(f"{len(cases)} cases: {share} with one tool, {share} with several, {share} where none fits\n")
    print(f"{'way':<8} {'exact':>14} {'false calls':>14} {'ran wrong':>10} {'s a case':>9}")
    for name, model in ways(given.model, given.ways.split(",")):
        got = measure(model, cases)
        exact = f"{got['exact']}/{got['needed']} ({100 * got['exact'] / max(got['needed'], 1):.0f} %)"
        false = f"{got['false']}/{got['unneeded']} ({100 * got['false'] / max(got['unneeded'], 1):.0f} %)"
        print(f"{name:<8} {exact:>14} {false:>14} {got['wrong']:>10} {got['seconds']:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
