from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.failure import ConfigError
from ablab.metrics.judging import Endpoint

TOKEN = "sk-not-a-real-token-0123456789abcdef"
Answer = tuple[int, Any]


class Server:
    """A fake endpoint: answers requests from a function of (number of the request, its body)."""

    def __init__(self) -> None:
        self.reply: Callable[[int, dict[str, Any]], Answer] = lambda _, __: (200, says("0.5"))
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        owner, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    owner.requests.append(body)
                    owner.headers.append(dict(self.headers))
                    owner.paths.append(self.path)
                    code, content = owner.reply(len(owner.requests), body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def ask(judge: Endpoint, text: str = "how good?") -> float | None:
    return judge.ask([{"role": "user", "content": text}], read=number)


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def endpoint(server: Server, **more: Any) -> Endpoint:
    return Endpoint(url=server.url, model="judge-1", token=TOKEN, pause=0.0, **more)


def test_it_asks_in_the_chat_format_with_the_token(server: Server) -> None:
    assert ask(endpoint(server)) == 0.5
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    assert server.requests[0]["model"] == "judge-1" and server.requests[0]["temperature"] == 0.0
    assert server.requests[0]["messages"] == [{"role": "user", "content": "how good?"}]


def test_a_full_address_is_taken_as_it_is(server: Server) -> None:
    judge = Endpoint(url=f"{server.url}/chat/completions", model="judge-1", pause=0.0)
    assert ask(judge) == 0.5
    assert "Authorization" not in server.headers[0]


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.reply = lambda n, _: (429, {"error": "slow down"}) if n < 3 else (200, says("0.7"))
    assert ask(endpoint(server)) == 0.7
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "tries", "reason"),
    [
        ((503, {}), 3, "HTTP 503"),
        ((401, {"error": f"bad key {TOKEN}"}), 1, "HTTP 401 (check the token)"),
        ((404, {}), 1, "HTTP 404 (check url and model)"),
        ((200, b"<html>"), 3, "its answer is no JSON"),
        ((200, {"choices": []}), 3, "its answer holds no words"),
        ((200, says("  ")), 3, "its answer holds no words"),
        ((200, says("splendid")), 3, "what it said is no judgement"),
    ],
)
def test_a_failed_judgement_is_missing_with_a_reason(server: Server, reply: Answer, tries: int, reason: str) -> None:
    server.reply = lambda _, __: reply
    judge = endpoint(server, attempts=3)
    assert ask(judge) is None
    assert len(server.requests) == tries
    assert dict(judge.failures) == {reason: 1}


def test_an_endpoint_out_of_reach_is_a_missing_judgement() -> None:
    judge = Endpoint(url="http://127.0.0.1:9/v1", model="judge-1", attempts=2, pause=0.0)
    assert ask(judge) is None
    assert next(iter(judge.failures)).startswith("out of reach")


def test_judgements_are_kept_and_not_asked_twice_failures_are(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "judgements.jsonl"
    server.reply = lambda _, body: (200, says("1")) if "good" in body["messages"][0]["content"] else (500, {})
    first = endpoint(server, cache=cache, attempts=1)
    assert ask(first, "good") == 1.0 and ask(first, "bad") is None
    server.reply = lambda _, __: (200, says("0.25"))
    again = endpoint(server, cache=cache)
    assert ask(again, "good") == 1.0 and ask(again, "bad") == 0.25
    assert ask(endpoint(server, cache=cache, temperature=1.0), "good") == 0.25
    assert TOKEN not in cache.read_text()
    assert TOKEN not in repr(again)


def test_many_threads_may_ask_at_once(server: Server, tmp_path: Path) -> None:
    server.reply = lambda _, body: (200, says(body["messages"][0]["content"]))
    judge = endpoint(server, cache=tmp_path / "judgements.jsonl")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: ask(judge, str(i)), range(40))) == [float(i) for i in range(40)]
    assert len((tmp_path / "judgements.jsonl").read_text().splitlines()) == 41  # with the header


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="http://"):
        Endpoint(url="localhost:8000", model="judge-1")
