"""A hundred concurrent runs on one event loop, over real HTTP, against a server with OpenAI's API."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lmagent import Agent, OpenAIChat


class Server(BaseHTTPRequestHandler):
    """A stand-in for vLLM, llama.cpp or Ollama that answers after 0.1 seconds."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(0.1)
        said = {"role": "assistant", "content": asked["messages"][-1]["content"].upper()}
        body = json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 200


async def main(url: str) -> None:
    started = time.monotonic()
    async with OpenAIChat("any-model", base_url=url) as model:
        agent = Agent(model)  # has no state of a run: all runs share it
        results = await asyncio.gather(*(agent.async_run(f"number {n}") for n in range(100)))
    print(results[0].reply, "...", results[-1].reply)
    print("faster than one after the other:", time.monotonic() - started < 100 * 0.1)


with QuietServer(("127.0.0.1", 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(main(f"http://127.0.0.1:{server.server_port}/v1"))
    server.shutdown()
