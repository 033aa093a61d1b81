"""A server on loopback that speaks `/chat/completions`, by a rule or by a script."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler"], None]
Rule = Callable[[list[dict[str, Any]]], str]


class Handler(BaseHTTPRequestHandler):
    """Answers one question: by the next act of the script, or by the rule."""

    protocol_version = "HTTP/1.1"
    server: "ModelServer"

    def do_POST(self):
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked(self)
        act = self.server.next_act()
        act(self)

    def answer(self, text: str) -> None:
        if self.body.get("stream"):
            self.stream([*(text[at : at + 3] for at in range(0, len(text), 3))])
        else:
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self.send(200, json.dumps({"choices": [choice]}))

    def send(self, status: int, body: str, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, pieces: list[str], *, is_whole: bool = True) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces:
            event = {"choices": [{"delta": {"content": piece}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
            self.wfile.flush()
        if is_whole:
            self.wfile.write(b'data: {"choices": []}\n\n: a comment\n\ndata: [DONE]\n\n')
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests look at what was asked."""


class ModelServer(ThreadingHTTPServer):
    """A running server; `requests` are the bodies and headers of what was asked, in order."""

    daemon_threads = True

    def __init__(self, rule: Rule) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule = rule
        self.script: list[Act] = []
        self.requests: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def asked(self, handler: Handler) -> None:
        assert handler.path == "/v1/chat/completions"
        with self.changed:
            self.requests.append((handler.body, dict(handler.headers)))
            self.changed.notify_all()

    def next_act(self) -> Act:
        if self.script:
            return self.script.pop(0)
        return lambda handler: handler.answer(self.rule(handler.body["messages"]))

    def wait_for(self, count: int) -> None:
        """Wait until so many questions were asked."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, 60)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that is killed breaks its connection."""


@contextmanager
def serving(
    rule: Rule = lambda _: "Yes.",
) -> Iterator[ModelServer]:
    """Run a server for the length of a block."""
    server = ModelServer(rule)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
