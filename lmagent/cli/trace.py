"""`lmagent trace show`: display a trace file in the terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmagent.cli.options import fail
from lmagent.engines.printer import printable
from lmagent.observe.trace_file import TraceFile, read_trace

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["ContentOption", "TraceOption", "show", "trace_app", "trace_file"]

trace_app = typer.Typer(no_args_is_help=True, help="Show traces of runs.")

TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", help="Write a trace of the run to this file; show it with `lmagent trace show`."),
]
ContentOption = Annotated[
    bool, typer.Option("--trace-content", help="Include prompts, answers, arguments and results in the trace.")
]

_WIDTH = 200
"""Maximum number of characters of a text without --full."""


def trace_file(path: Path | None, content: bool) -> Any:
    """Return the hooks for `--trace`, or None."""
    return TraceFile(path, content=content).hooks if path is not None else None


@dataclass(slots=True)
class _Node:
    label: str
    failed: bool = False
    children: list[_Node] = field(default_factory=list["_Node"])


@trace_app.command()
def show(
    file: Annotated[Path, typer.Argument(help="Trace file, written by --trace or TraceFile.")],
    run: Annotated[str, typer.Option(help="Show only runs whose id starts with this.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Show full texts.")] = False,
) -> None:
    """Show the runs of a trace: model requests, tool calls and nested runs, with times, tokens and errors."""
    try:
        events, unread = read_trace(file)
    except OSError as error:
        fail(f"{file}: {error.strerror or 'cannot be read'}.")
    roots = [root for root, run_id in _runs(events, whole=full) if run_id.startswith(run)]
    if not roots:
        fail(f"{file} has no run{f' whose id starts with {run!r}' if run else ''}.")
    if sys.stdout.isatty():
        from rich.console import Console  # slow import, needed for terminals only

        console = Console(highlight=False)
        for root in roots:
            console.print(_tree(root), soft_wrap=True)
    else:
        for root in roots:
            _write_plain(root, "")
    if unread:
        sys.stderr.write(f"({unread} {'line' if unread == 1 else 'lines'} could not be read)\n")


def _runs(events: list[dict[str, Any]], *, whole: bool) -> list[tuple[_Node, str]]:
    """Return the outer runs with their ids; nested runs are children of the call that started them."""
    roots: list[tuple[_Node, str]] = []
    runs: dict[Any, _Node] = {}
    open_asks: dict[Any, _Node] = {}
    open_calls: dict[tuple[Any, Any], _Node] = {}
    for event in events:
        kind, run_id = event["event"], str(event.get("run"))
        if kind == "run_start":
            node = runs[run_id] = _Node(f"run {run_id}  {event.get('agent', '')}  {event.get('model', '')} …")
            parent = open_calls.get((str(event.get("parent")), event.get("parent_call")))
            if parent is None:
                roots.append((node, run_id))
            else:
                parent.children.append(node)
            _add_texts(node, event, ("system", "prompt"), whole)
            continue
        owner = runs.get(run_id)
        if owner is None:
            owner = runs[run_id] = _Node(f"run {run_id} (its start is missing)")
            roots.append((owner, run_id))
        match kind:
            case "model_start":
                open_asks[run_id] = _added(owner, f"ask {event.get('model', '')} …")
            case "model_end":
                node = open_asks.pop(run_id, None) or _added(owner)
                _end(node, f"ask {event.get('model', '')}", event)
                _add_texts(node, event, ("reasoning", "reply", "message"), whole)
            case "tool_start":
                open_calls[run_id, event.get("call")] = node = _added(owner, f"call {event.get('tool', '')} …")
                _add_texts(node, event, ("arguments",), whole)
            case "tool_end":
                node = open_calls.get((run_id, event.get("call"))) or _added(owner)
                _end(node, f"call {event.get('tool', '')}", event)
                _add_texts(node, event, ("result", "message"), whole)
            case "decision":
                word = event.get("decision", "")
                by = f" by {event['by']} ({event.get('rule', '')})" if event.get("by") else ""
                _added(owner, f"decision on {event.get('tool', '')}: {word}{by}").failed = word == "deny"
            case "run_end":
                _end(owner, owner.label.removesuffix(" …"), event)
                _add_texts(owner, event, ("message",), whole)
            case _:  # written by a later version
                _added(owner, str(kind))
    return roots


def _added(owner: _Node, label: str = "") -> _Node:
    node = _Node(label)
    owner.children.append(node)
    return node


def _end(node: _Node, title: str, event: dict[str, Any]) -> None:
    """Add the facts of the end event to the title; a node without an end keeps its `…`."""
    parts = [title]
    seconds = event.get("seconds")
    if isinstance(seconds, int | float):
        parts.append(f"{seconds:.2f} s")
    tokens = event.get("tokens")
    if isinstance(tokens, dict) and tokens:
        parts.append(f"{tokens.get('input', 0)} + {tokens.get('output', 0)} tokens")  # pyright: ignore[reportUnknownMemberType]
    attempts = event.get("attempts")
    if isinstance(attempts, int) and attempts > 1:
        parts.append(f"{attempts} attempts")
    if event.get("cached") is True:
        parts.append("cached")
    for name in ("finish", "outcome"):
        if event.get(name):
            parts.append(str(event[name]))
    asked = event.get("calls")
    if isinstance(asked, list) and asked:
        parts.append("→ " + ", ".join(str(name) for name in asked))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if event.get("pending"):
        parts.append(f"waiting for {event['pending']}")
    facts = [str(event[name]) for name in ("error", "status", "code", "limit") if event.get(name)]
    if facts:
        parts.append("failed: " + " ".join(facts))
    node.label = "  ".join(parts)
    node.failed = bool(facts) or event.get("outcome", "ok") != "ok"


def _add_texts(node: _Node, event: dict[str, Any], names: tuple[str, ...], whole: bool) -> None:
    for name in names:
        value = event.get(name)
        if value:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if not whole and len(text) > _WIDTH:
                text = f"{text[:_WIDTH]}… ({len(text)} characters; --full shows all)"
            _added(node, f"{name}: {text}")


def _one_line(text: str) -> str:
    """Escape line breaks, so that text from a model cannot imitate a line of this program."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _write_plain(node: _Node, indent: str) -> None:
    sys.stdout.write(f"{indent}{_one_line(node.label)}\n")
    for child in node.children:
        _write_plain(child, indent + "  ")


def _tree(node: _Node) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(_one_line(node.label), style="red" if node.failed else ""), guide_style="dim")
    for child in node.children:
        tree.children.append(_tree(child))
    return tree
