"""Many prompts with a journal: an item that has an answer is not asked, or paid for, again."""

import tempfile
from pathlib import Path

from lmagent import CompletionEngine
from lmagent.testing import ScriptedModel

prompts = [f"What is {n} squared?" for n in range(5)]
with tempfile.TemporaryDirectory() as folder:
    journal = Path(folder) / "run.db"
    first = ScriptedModel([lambda messages: "answer to: " + messages[-1].content] * 5)
    for completion in CompletionEngine(first, async_capacity=2, journal=journal).run(prompts):
        print(completion.reply)
    print("asked:", len(first.asked))

    second = ScriptedModel([])  # fails on any request
    replies = [completion.reply for completion in CompletionEngine(second, journal=journal).run(prompts)]
    print("from the journal:", len(replies), "asked:", len(second.asked))
