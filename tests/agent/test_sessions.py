"""Stored conversations: whole after any kill, repaired on load, forked and rewound."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from lmagent import Agent, ChatEngine, function
from lmagent.agent.sessions import JSONLSessions, MemorySessions, SQLiteSessions, StoredHistory
from lmagent.core.history import history_problems
from lmagent.core.messages import AssistantMessage, ToolCall, ToolMessage, UserMessage
from lmagent.errors import JournalError
from lmagent.testing import ScriptedModel, calls
from tests.engines.bulk.small_disk import small_disk


@function
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def stores(tmp_path):
    return {
        "memory": MemorySessions(),
        "jsonl": JSONLSessions(tmp_path / "sessions"),
        "sqlite": SQLiteSessions(tmp_path / "sessions.db"),
    }


@pytest.fixture(params=["memory", "jsonl", "sqlite"])
def store(request, tmp_path):
    made = stores(tmp_path)
    yield made[request.param]
    made["sqlite"].close()


def chat(store, *lines, session="s"):
    return ChatEngine(ScriptedModel(lines), [add], store=store, session=session, print_message=False)


def test_a_conversation_goes_on_where_it_stopped(store):
    chat(store, calls(("add", {"a": 1, "b": 2})), "three").chat("1 + 2?")
    again = chat(store, "yes")
    assert [m.role for m in again.history] == ["user", "assistant", "tool", "assistant"]
    again.chat("sure?")
    assert store.load("s") == again.history
    assert store.sessions() == ["s"]


def test_fork_rewind_and_reset(store):
    engine = chat(store, "a", "b", "c")
    engine.chat("one")
    engine.chat("two")
    fork = engine.fork("t")
    fork.rewind()
    fork.chat("other two")
    assert [m.content for m in store.load("s")] == ["one", "a", "two", "b"]
    assert [m.content for m in store.load("t")] == ["one", "a", "other two", "c"]
    with pytest.raises(JournalError, match="exists already"):
        engine.fork("t")
    engine.reset()
    assert store.load("s") == ()
    store.delete("t")
    assert store.load("t") == ()


def test_what_a_kill_left_open_is_repaired_on_load(store):
    asked = AssistantMessage("", tool_calls=(ToolCall(id="c", name="add", arguments="{}"),))
    store.append("s", [UserMessage("hi"), asked])
    history = StoredHistory(store, "s")
    assert history_problems(history.messages) == []
    assert store.load("s") == history.messages
    store.append("t", [UserMessage("hi"), ToolMessage("stray", tool_call_id="x"), AssistantMessage("ok")])
    assert [m.role for m in StoredHistory(store, "t").messages] == ["user", "assistant"]
    assert [m.role for m in store.load("t")] == ["user", "assistant"]


def test_a_failed_answer_leaves_the_store_as_it_was(store):
    from lmagent.errors import ServerFailed

    engine = chat(store, "a", ServerFailed("down"))
    engine.chat("one")
    with pytest.raises(ServerFailed):
        engine.chat("two")
    assert [m.content for m in store.load("s")] == ["one", "a"]


def test_awkward_texts_and_ids_survive(store):
    id = "../结 束/%2e\x00.jsonl"[:12]
    store.append(id, [UserMessage('quotes " \n \u2028 天 \ud83d')])
    assert store.load(id)[0].content.startswith('quotes " \n \u2028 天')
    assert store.sessions() == [id]


def test_a_torn_last_line_is_ignored_and_cut(tmp_path):
    store = JSONLSessions(tmp_path)
    store.append("s", [UserMessage("one")])
    path = tmp_path / "s.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"role": "user", "con')
    assert [m.content for m in store.load("s")] == ["one"]
    store.append("s", [UserMessage("two")])
    assert [m.content for m in store.load("s")] == ["one", "two"]


def test_foreign_and_newer_files_are_refused(tmp_path):
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("create table theirs (x)")
    db.close()
    with pytest.raises(JournalError, match="another program"):
        SQLiteSessions(foreign)
    newer = tmp_path / "newer.db"
    SQLiteSessions(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="newer version"):
        SQLiteSessions(newer)
    (tmp_path / "x.db").write_text("this is no database at all, but long enough to look like one")
    with pytest.raises(JournalError):
        SQLiteSessions(tmp_path / "x.db")
    (tmp_path / "y.jsonl").write_text('{"version": 9}\n')
    with pytest.raises(JournalError, match="another version"):
        JSONLSessions(tmp_path).load("y")


PROGRAM = """
import sys
from lmagent import ChatEngine, function
from lmagent.core.messages import UserMessage
from lmagent.agent.sessions import JSONLSessions, SQLiteSessions
from lmagent.testing import ScriptedModel, calls
from tests.engines.bulk.small_disk import small_disk

@function
def add(a: int, b: int) -> int:
    "Add."
    return a + b

def answer(messages):
    return "ok" if messages[-1].role == "tool" else calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}))

kind, path, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = SQLiteSessions(path) if kind == "sqlite" else JSONLSessions(path)
engine = ChatEngine(ScriptedModel([answer] * 10_000), [add], store=store, session="s", print_message=False)
print("ready", flush=True)
while True:
    done = [int(m.content) for m in engine.history if isinstance(m, UserMessage)]
    if engine.history and engine.history[-1].content != "ok":
        engine.rewind()  # the answer was cut off: ask again
        continue
    if len(done) >= turns:
        break
    engine.chat(str(len(done)))
"""


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_a_killed_chat_loses_at_most_the_round_in_flight(kind, tmp_path):
    path, turns = tmp_path / ("s.db" if kind == "sqlite" else "sessions"), 250
    chance = random.Random(7)
    kills = 0
    for _ in range(90):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, kind, str(path), str(turns)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        if kills < 20:
            time.sleep(chance.uniform(0.001, 0.12))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        else:
            assert process.wait(60) == 0
        process.stdout.close()
        store = SQLiteSessions(path) if kind == "sqlite" else JSONLSessions(path)
        stored = store.load("s")
        asked = [int(m.content) for m in stored if isinstance(m, UserMessage)]
        assert asked == list(range(len(asked)))
        complete = [m for m in stored if isinstance(m, AssistantMessage) and m.content == "ok"]
        assert len(complete) >= len(asked) - 1
        if kind == "sqlite":
            store.close()
        if kills >= 20 and len(complete) == turns:
            break
    assert kills >= 20
    assert len(complete) == turns
    assert history_problems(stored) == []


def test_agents_write_through_too(tmp_path):
    with_store = StoredHistory(JSONLSessions(tmp_path), "s")
    Agent(ScriptedModel([calls(("add", {"a": 1, "b": 2})), "3"]), [add]).run("go", history=with_store)
    assert len(JSONLSessions(tmp_path).load("s")) == 4


def test_full_disk_under_a_sqlite_store_is_named_and_loses_nothing(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        store = SQLiteSessions(disk.path / "s.db")
        store.append("a", [UserMessage("kept")])
        disk.fill()
        for size in (20_000, 200_000, 2_000_000):
            with pytest.raises(JournalError, match="disk is full"):
                store.append("a", [UserMessage("x" * size)])
            assert [message.content for message in store.load("a")] == ["kept"]
        disk.empty()
        store.append("a", [UserMessage("small")])
        assert len(store.load("a")) == 2
        store.close()
