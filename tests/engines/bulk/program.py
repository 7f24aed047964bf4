"""A bulk run in a separate process, to be killed: `program.py URL JOURNAL COUNT CAPACITY`; prints the summary."""

from __future__ import annotations

import json
import sys

from lmagent.engines.completion import CompletionEngine
from lmagent.models.model import ChatModel
from lmagent.providers.openai.chat import OpenAICodec


def main() -> None:
    url, journal, count, capacity = sys.argv[1:]
    model = ChatModel(OpenAICodec("m", base_url=url), max_retries=0)
    engine = CompletionEngine(model, int(capacity), journal=journal, track_in_doubt=True)
    prompts = (f"prompt {number}" for number in range(int(count)))
    wrong = [item.index for item in engine.run(prompts) if item.reply != f"re prompt {item.index}"]
    print(json.dumps({**engine.summary.to_dict(), "wrong": wrong}))


main()
