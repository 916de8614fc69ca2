"""The live report over real HTTP: who is let in, what is answered, and that it follows the store."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import unescape
from typing import Any

import pytest

from ablab.contract.failure import ConfigError
from ablab.report.server import LiveReport, ReportServer, live

PAGE = (
    '<!doctype html><html><head><meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'sha256-a'; script-src 'sha256-b'; img-src data:\"></head><body>report {n}</body></html>"
)


class Source:
    """What stands for a store: a number that tests change."""

    def __init__(self) -> None:
        self.number, self.made, self.broken = 1, 0, False

    def render(self) -> tuple[str, str]:
        if self.broken:
            raise ConfigError("the study file is half saved") if self.number < 5 else ZeroDivisionError("of our own")
        self.made += 1
        return PAGE.replace("{n}", str(self.number)), f"# report {self.number}\n"


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def server(source: Source) -> Iterator[ReportServer]:
    report = LiveReport(source.render, lambda: (source.number, source.broken), pause=0.0)
    made = ReportServer(report)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def ask(server: ReportServer, path: str, *, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def known(server: ReportServer) -> dict[str, str]:
    return {"Cookie": f"{server.cookie}={server.token}"}


def test_the_printed_address_lets_a_browser_in_and_hides_the_token(server: ReportServer) -> None:
    address = server.url.partition(str(server.port))[2]
    status, headers, body = ask(server, address)
    assert (status, headers["location"], body) == (303, "/", b"")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    status, headers, body = ask(server, "/", Cookie=cookie.partition(";")[0])
    assert status == 200
    assert b"report 1" in body
    assert server.token.encode() not in body
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"


def test_without_the_token_nothing_is_told(server: ReportServer) -> None:
    for path in (
        "/",
        "/report.md",
        "/version",
        "/nothing",
        "/?token=",
        "/?token=wrong",
        f"/version?token={server.token}",
    ):
        status, _, body = ask(server, path)
        assert status == 403
        assert b"report 1" not in body
    wrong = {"Cookie": f"{server.cookie}={server.token[:-1]}"}
    assert ask(server, "/", **wrong)[0] == 403
    assert ask(server, "/", Cookie="=; \x7f=")[0] == 403
    assert ask(server, "/", Authorization="Bearer wrong")[0] == 403
    assert ask(server, "/", Authorization=f"Bearer {server.token}")[0] == 200


def test_a_foreign_name_that_points_here_is_refused(server: ReportServer) -> None:
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", f"127.0.0.1:{server.port + 1}", ""):
        status, _, body = ask(server, "/", Host=host, **known(server))
        assert status == 421
        assert b"report" not in body
    assert ask(server, "/", Host=f"LOCALHOST:{server.port}", **known(server))[0] == 200


def test_it_listens_on_this_machine_alone(server: ReportServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        if not str(address).startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((str(address), server.port), timeout=2).close()


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/report.md/..", "/report.html", "/version/",
     "/..%5c..%5cetc", "http://evil.example/", b"/\x00".decode("latin-1").replace("\x00", "%00")],
)  # fmt: skip
def test_a_path_never_becomes_a_file(server: ReportServer, path: str) -> None:
    status, _, body = ask(server, path, **known(server))
    assert status in (404, 421)
    assert b"root:" not in body
    assert b"report" not in body or status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_only_reading_is_allowed(server: ReportServer, method: str) -> None:
    status, headers, _ = ask(server, "/", method=method, **known(server))
    assert status in (405, 501)
    if status == 405:
        assert headers["allow"] == "GET, HEAD"


def test_head_tells_the_same_without_the_body(server: ReportServer) -> None:
    _, got, body = ask(server, "/", **known(server))
    status, headers, nothing = ask(server, "/", method="HEAD", **known(server))
    assert (status, nothing) == (200, b"")
    assert headers["content-length"] == got["content-length"] == str(len(body))
    assert headers["etag"] == got["etag"]


def test_the_report_follows_the_store_and_is_made_once_a_change(server: ReportServer, source: Source) -> None:
    before = json.loads(ask(server, "/version", **known(server))[2])["version"]
    for _ in range(3):
        ask(server, "/", **known(server))
    assert source.made == 1
    source.number = 2
    after = json.loads(ask(server, "/version", **known(server))[2])["version"]
    assert after != before
    assert b"report 2" in ask(server, "/", **known(server))[2]
    assert ask(server, "/report.md", **known(server))[2] == b"# report 2\n"
    assert source.made == 2


def test_a_report_that_cannot_be_made_leaves_the_last_one(server: ReportServer, source: Source) -> None:
    source.broken = True
    found = json.loads(ask(server, "/version", **known(server))[2])
    assert "half saved" in found["problem"]
    assert b"report 1" in ask(server, "/", **known(server))[2]
    source.number = 5
    assert "of our own" in json.loads(ask(server, "/version", **known(server))[2])["problem"]
    source.broken, source.number = False, 3
    assert b"report 3" in ask(server, "/", **known(server))[2]
    assert json.loads(ask(server, "/version", **known(server))[2])["problem"] == ""


def test_many_ask_at_once_and_all_get_a_whole_report(server: ReportServer, source: Source) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(ask(server, "/", **known(server)))) for _ in range(16)]
    for thread in threads:
        thread.start()
        source.number += 1
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in found] == [200] * 16
    assert all(int(headers["content-length"]) == len(body) for _, headers, body in found)


def test_a_request_that_is_none_ends_quietly(server: ReportServer) -> None:
    for data in (b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe\x00 / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    assert ask(server, "/", **known(server))[0] == 200


def test_the_policy_is_widened_by_exactly_what_was_added() -> None:
    page = live(PAGE, "v")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.strip().partition(" ")[::2] for rule in unescape(policy[1]).split(";"))
    script = page.rpartition("<script>")[2].partition("</script></body>")[0]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-b' 'sha256-{digest}'"
    assert rules["connect-src"] == "'self'"
    assert rules["default-src"] == "'none'"


def test_the_real_report_keeps_its_own_policy_beside_ours() -> None:
    from ablab.report import html
    from ablab.report.document import Document

    plain = html.render(Document(title="t", subtitle="", sections=()))
    page = live(plain, "v")
    before, after = (re.search(r'Content-Security-Policy" content="([^"]*)"', text) for text in (plain, page))
    assert before is not None and after is not None
    own = re.findall(r"'sha256-[^']+'", unescape(before[1]))
    assert len(own) == 2
    widened = re.findall(r"'sha256-[^']+'", unescape(after[1]))
    assert set(own) < set(widened)
    assert len(widened) == 4
    assert "connect-src 'self'" in unescape(after[1])
    assert page.count("</body>") == 1
