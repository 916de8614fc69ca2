"""The report live in a browser: made anew from the store when that has changed, read-only, for this machine alone.

What keeps others out: the server listens on 127.0.0.1; a request must name this host and port (a foreign name that
was pointed here is refused) and carry the token, compared in constant time; only GET and HEAD exist; a path is looked
up in a list of three and never becomes a file name; nothing may frame the page, and it may ask nobody but this server.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from html import escape, unescape
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ablab.contract.failure import AblabError

ADDRESS = "127.0.0.1"
#: Seconds between two looks at the store, however many pages ask.
PAUSE = 1.0
_HTML, _TEXT, _JSON = "text/html; charset=utf-8", "text/markdown; charset=utf-8", "application/json"
_POLICY = re.compile(r'(<meta http-equiv="Content-Security-Policy" content=")([^"]*)(">)')
#: Asks every few seconds whether there is a newer report and loads it, keeping place, open parts and chosen values.
_SCRIPT = """
(() => {
  const version = %s, key = 'ablab-live';
  const parts = () => [...document.querySelectorAll('details')];
  const fields = () => [...document.querySelectorAll('select, input')];
  const kept = JSON.parse(sessionStorage.getItem(key) || 'null');
  sessionStorage.removeItem(key);
  if (kept) {
    parts().forEach((part, n) => { if (n in kept.open) part.open = kept.open[n]; });
    fields().forEach((field, n) => {
      const was = kept.values[n];
      if (!was || was[0] !== field.id + field.name) return;
      if (field.type === 'checkbox' || field.type === 'radio') field.checked = was[1]; else field.value = was[1];
      field.dispatchEvent(new Event('input', { bubbles: true }));
      field.dispatchEvent(new Event('change', { bubbles: true }));
    });
    scrollTo(0, kept.y);
  }
  const badge = document.createElement('p');
  badge.id = 'ablab-live'; badge.setAttribute('role', 'status');
  document.body.append(badge);
  const say = (text) => { if (badge.textContent !== text) badge.textContent = text; };
  const value = (f) => [f.id + f.name, f.type === 'checkbox' || f.type === 'radio' ? f.checked : f.value];
  const renew = () => {
    const open = parts().map((part) => part.open), values = fields().map(value);
    sessionStorage.setItem(key, JSON.stringify({ y: scrollY, open, values }));
    location.reload();
  };
  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch('/version', { cache: 'no-store' });
      if (!answer.ok) throw new Error(answer.status);
      const now = await answer.json();
      if (now.version !== version && getSelection().isCollapsed) return renew();
      say(now.problem ? '\\u26a0 ' + now.problem : '\\u25cf ' + now.written);
    } catch { say('\\u25cb ablab serve'); }
  };
  document.addEventListener('visibilitychange', look);
  setInterval(look, 3000); look();
})();
"""
_STYLE = (
    "#ablab-live{position:fixed;right:.5rem;bottom:.5rem;margin:0;padding:.1rem .5rem;font:12px system-ui,sans-serif;"
    "background:Canvas;color:CanvasText;border:1px solid GrayText;border-radius:.5rem;opacity:.85}"
    "@media print{#ablab-live{display:none}}"
)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A report as it was made at one moment."""

    html: bytes
    markdown: bytes
    version: str
    written: float


class LiveReport:
    """The newest report, made when it is asked for and the store has changed; safe for several threads.

    Args:
        render: returns the report as (HTML, Markdown).
        stamp: returns a value that differs whenever the report would.
        pause: seconds between two looks at the store.

    Raises:
        AblabError: the first report cannot be made.
    """

    def __init__(
        self, render: Callable[[], tuple[str, str]], stamp: Callable[[], Hashable], *, pause: float = PAUSE
    ) -> None:
        self._render, self._stamp, self._pause = render, stamp, pause
        self._lock = threading.Lock()
        self._looked = 0.0
        self._seen: Hashable = None
        self.problem = ""
        self._page = self._make()

    def current(self) -> Rendered:
        """Return the report; while another thread makes a newer one, the one before."""
        if self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._looked >= self._pause:
                    self._renew()
            finally:
                self._lock.release()
        return self._page

    def _renew(self) -> None:
        try:
            if self._stamp() != self._seen:
                self._page = self._make()
            self.problem = ""
        except Exception as error:
            # A study file that is half saved, a damaged run, or a fault of ours: the last good report stays, and says
            # why. Nothing that happens to a report may end the server.
            told = str(error).splitlines() if isinstance(error, AblabError) else [f"{type(error).__name__}: {error}"]
            self.problem = told[0] if told else type(error).__name__
        self._looked = time.monotonic()

    def _make(self) -> Rendered:
        # Taken before reading: what changes meanwhile is seen at the next look.
        seen = self._stamp()
        html, markdown = self._render()
        self._seen, self._looked = seen, time.monotonic()
        version = hashlib.sha256(f"{secrets.token_hex(8)}{seen}".encode()).hexdigest()[:16]
        return Rendered(
            html=live(html, version).encode(), markdown=markdown.encode(), version=version, written=time.time()
        )


def live(html: str, version: str) -> str:
    """Return a page that renews itself; its content policy is widened by exactly that script, style and question."""
    script = _SCRIPT % json.dumps(version)
    page = _POLICY.sub(lambda match: match[1] + escape(_widened(unescape(match[2]), script)) + match[3], html, count=1)
    added = f"<style>{_STYLE}</style><script>{script}</script>"
    head, end, tail = page.rpartition("</body>")
    return f"{head}{added}{end}{tail}" if end else page + added


def _widened(policy: str, script: str) -> str:
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";") if rule.strip())
    for name, text in (("script-src", script), ("style-src", _STYLE)):
        rules[name] = f"{rules.get(name, '').removeprefix(chr(39) + 'none' + chr(39))} '{_hash(text)}'".strip()
    rules["connect-src"] = "'self'"
    return "; ".join(f"{name} {value}".strip() for name, value in rules.items())


def _hash(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()


class ReportServer(ThreadingHTTPServer):
    """Serves a live report to whoever on this machine has the token.

    Args:
        report: what to serve.
        port: to listen on; 0 takes a free one.
        token: None makes one.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, report: LiveReport, *, port: int = 0, token: str | None = None) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.report = report
        self.token = token or secrets.token_urlsafe(32)
        self.hosts = frozenset(f"{name}:{self.port}" for name in (ADDRESS, "localhost"))
        self.cookie = f"ablab-{self.port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        return f"http://{ADDRESS}:{self.port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no error of ours; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    protocol_version = "HTTP/1.1"
    server_version = "ablab"
    sys_version = ""
    timeout = 30.0

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer a request without the body."""
        self._answer()

    def _refuse_method(self) -> None:
        self.close_connection = True
        self._send(405, b"read-only: GET and HEAD\n", headers={"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method

    def _answer(self) -> None:
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self._send(421, b"this server answers under 127.0.0.1 only\n")
            return
        address = urlsplit(self.path)
        given = parse_qs(address.query).get("token", [""])[0]
        if address.path == "/" and self._is_token(given):
            # The token goes into a cookie and out of the address, so that no history or screenshot keeps it.
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Lax; Path=/"
            self._send(303, b"", headers={"Location": "/", "Set-Cookie": cookie})
        elif not self._is_known():
            self._send(403, b"open the address that `ablab serve` printed: it carries the token\n")
        else:
            self._send_page(address.path)

    def _send_page(self, path: str) -> None:
        if path not in ("/", "/report.md", "/version"):
            self._send(404, b"there is /, /report.md and /version\n")
            return
        page = self.server.report.current()
        if path == "/":
            self._send(200, page.html, kind=_HTML, headers={"ETag": f'"{page.version}"'})
        elif path == "/report.md":
            self._send(200, page.markdown, kind=_TEXT)
        else:
            written = time.strftime("%H:%M:%S", time.localtime(page.written))
            record = {"version": page.version, "written": written, "problem": self.server.report.problem}
            self._send(200, json.dumps(record).encode(), kind=_JSON)

    def _is_known(self) -> bool:
        scheme, _, bearer = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return False
        found = cookies.get(self.server.cookie)
        return found is not None and self._is_token(found.value)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self.server.token.encode())

    def _send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "text/plain; charset=utf-8",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        own = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in {**own, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a line would hold the token."""
