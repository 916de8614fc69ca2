"""A webhook on this machine that answers as a test wants, and keeps what it was told."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hook:
    """The webhook.

    Attributes:
        answers: statuses to come, "reset" breaks the connection off; 200 when none is left.
        hold: while clear, requests are taken and not answered.
    """

    def __init__(self) -> None:
        self.answers: list[int | str] = []
        self.retry_after, self.location = "", ""
        self.hold = threading.Event()
        self.hold.set()
        self.raw: list[bytes] = []
        self.types: list[str] = []
        self.times: list[float] = []
        self.came = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.take(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/services/hush-hush"

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        with self.came:
            self.raw.append(body)
            self.types.append(request.headers["Content-Type"])
            self.times.append(time.monotonic())
            answer = self.answers.pop(0) if self.answers else 200
            self.came.notify_all()
        self.hold.wait(20)
        if answer == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
            request.close_connection = True
            return
        request.send_response(int(answer))
        if self.retry_after:
            request.send_header("Retry-After", self.retry_after)
        if self.location:
            request.send_header("Location", self.location)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def wait_for(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.raw) >= count, timeout=20)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.raw]

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
