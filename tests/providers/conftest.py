"""The made-up provider of the example: a server on loopback that counts what really happened."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dispatchkit import providers
from dispatchkit.provider import register
from tests.providers.example_provider import SMS


class SmsServer:
    """Starts campaigns for requests with the token ``t``."""

    def __init__(self) -> None:
        self.starts = Counter[int]()
        self.lost_answers = 0
        """How many starts act, and are not answered."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                number = int(self.path.split("/")[2])
                self._answer(200, {"state": "started" if server.starts[number] else "new"})

            def do_POST(self) -> None:
                if self.headers["Authorization"] != "Bearer t":
                    self._answer(401, {"error": f"wrong token {self.headers['Authorization']}"})
                    return
                server.starts[int(self.path.split("/")[2])] += 1
                if server.lost_answers:
                    server.lost_answers -= 1
                    self.close_connection = True
                    return
                self._answer(200, {"state": "started"})

            def _answer(self, status: int, fields: dict[str, str]) -> None:
                body = json.dumps(fields).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def sms() -> Iterator[SmsServer]:
    server = SmsServer()
    yield server
    server.close()


@pytest.fixture
def sms_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_registered", {})
    register(SMS)
