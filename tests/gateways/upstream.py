"""A model service as small as can be: /v1/messages and /v1/chat/completions, at once or as events, with the usage it is told."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Event = tuple[str, dict[str, Any]]


@dataclass
class Upstream:
    """What the service will answer, and what it was asked. With `hold_back` it says nothing until that is set."""

    input_tokens: int = 30
    output_tokens: int = 12
    status: int = 200
    hold_back: threading.Event | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request that came through."""
    port: int = 0

    def messages(self, model: str) -> dict[str, Any]:
        usage = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        content = [{"type": "text", "text": "Hello."}]
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
        }  # fmt: skip

    def messages_events(self, model: str) -> Iterator[Event]:
        begun = self.messages(model) | {"content": [], "stop_reason": None}
        begun["usage"] = {"input_tokens": self.input_tokens, "output_tokens": 1}
        block = {"type": "text", "text": ""}
        yield "message_start", {"message": begun}
        yield "content_block_start", {"index": 0, "content_block": block}
        yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Hello."}}
        yield "content_block_stop", {"index": 0}
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        yield "message_delta", {"delta": delta, "usage": {"output_tokens": self.output_tokens}}
        yield "message_stop", {}

    def completions(self, model: str) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
        return {
            "id": "c-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice],
            "usage": self._completions_usage(),
        }  # fmt: skip

    def completions_events(self, model: str) -> Iterator[Event]:
        chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model, "usage": None}
        yield "", chunk | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello."}}]}
        yield "", chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield "", chunk | {"choices": [], "usage": self._completions_usage()}

    def _completions_usage(self) -> dict[str, int]:
        total = self.input_tokens + self.output_tokens
        return {"prompt_tokens": self.input_tokens, "completion_tokens": self.output_tokens, "total_tokens": total}


@contextmanager
def serving(upstream: Upstream, port: int = 0) -> Iterator[Upstream]:
    """Serve on a port, 0 = any free one; `port` of the upstream then tells which."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are written apart

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            upstream.asked.append({name.lower(): value for name, value in self.headers.items()})
            if upstream.hold_back is not None:
                upstream.hold_back.wait(30)
            anthropic = self.path == "/v1/messages"
            if upstream.status != 200:
                self._answer({"error": {"type": "api_error", "message": "out of order"}})
            elif not asked.get("stream"):
                self._answer((upstream.messages if anthropic else upstream.completions)(asked["model"]))
            elif anthropic:
                self._stream(upstream.messages_events(asked["model"]), b"")
            else:
                self._stream(upstream.completions_events(asked["model"]), b"data: [DONE]\n\n")

        def _answer(self, body: dict[str, Any]) -> None:
            encoded = json.dumps(body).encode()
            self.send_response(upstream.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def _stream(self, events: Iterator[Event], last: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for name, data in events:
                told = ({"type": name} if name else {}) | data
                self._chunk((f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(told)}\n\n".encode())
            if last:
                self._chunk(last)
            self.wfile.write(b"0\r\n\r\n")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: what was asked is in `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    upstream.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield upstream
    finally:
        if upstream.hold_back is not None:
            upstream.hold_back.set()
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":  # docs/operate.md has it stand in for a model service
    with serving(Upstream(), int(sys.argv[1])):
        threading.Event().wait()
