"""A stored conversation: a second engine continues where the first one stopped."""

import tempfile
from pathlib import Path

from lmagent import ChatEngine
from lmagent.sessions import SQLiteSessions
from lmagent.testing import ScriptedModel

with tempfile.TemporaryDirectory() as folder:
    store = SQLiteSessions(Path(folder) / "sessions.db")
    ChatEngine(ScriptedModel(["Hello Ann!"]), session="ann", store=store).chat("My name is Ann.")
    ChatEngine(ScriptedModel(["You are Ann."]), session="ann", store=store).chat("Who am I?")
    print(len(store.load("ann")), "messages are stored")
    store.close()
