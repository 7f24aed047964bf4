"""Ready-made tools with limits: the agent may read one folder, and nothing outside it."""

import tempfile
from pathlib import Path

from lmagent import Agent, ToolRegistry
from lmagent.testing import ScriptedModel, calls
from lmagent.tools.files import file_tools

with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "todo.txt").write_text("buy apples")
    tools = ToolRegistry(file_tools(root=folder))
    tools.load("calculator", "clock")
    print(", ".join(tools.names))

    asked = [
        ("read_file", {"path": "todo.txt"}),
        ("read_file", {"path": "../secret"}),
        ("calculator", {"expression": "2^10"}),
    ]
    result = Agent(ScriptedModel([calls(*asked), "Done."]), tools).run("What is to do?")
    for message in result.messages[2:5]:
        print("error:" if message.is_error else "result:", message.content)
