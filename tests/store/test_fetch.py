"""Fetching from a hub of one's own: downloaded once, verified, repaired, and what cannot be had is named."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

ONE = "1" * 40
CONTENT = {"data.bin": b"x" * 3000, "README.md": b"hello"}


class Hub(BaseHTTPRequestHandler):
    """One data set with two files, one gated model, nothing else."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/meta/gated"):
            self.answer(403, b'{"error": "gated"}', error="GatedRepo")
        elif path.startswith("/api/datasets/one/set/tree"):
            rows = [{"type": "file", "path": n, "size": len(c), "oid": sha1(c)} for n, c in CONTENT.items()]
            self.answer(200, json.dumps(rows).encode())
        elif path.startswith("/api/datasets/one/set"):
            siblings = [{"rfilename": name, "size": len(data), "blobId": sha1(data)} for name, data in CONTENT.items()]
            siblings[0]["lfs"] = {"sha256": sha256(CONTENT["data.bin"]), "size": 3000, "pointerSize": 1}
            self.answer(200, json.dumps({"id": "one/set", "sha": ONE, "tags": [], "siblings": siblings}).encode())
        elif path.startswith("/datasets/one/set/resolve/"):
            data = CONTENT[path.rpartition("/")[2]]
            self.answer(200, data, etag=sha256(data) if len(data) > 100 else sha1(data))
        else:
            self.answer(404, b"{}", error="RepoNotFound")

    def answer(self, status: int, data: bytes, *, error: str = "", etag: str = "") -> None:
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", ONE)
        self.send_header("Content-Type", "application/octet-stream" if etag else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Hub.asked = []
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


STUDY = """
name: reads
task: command
experiments:
  base:
    pipeline:
      train:
        kind: command
        command: cat {study}/here.txt {bundled.austen}/LICENCE.txt
        data: [here.txt, absent.txt]
        hub: ["dataset:one/set", "model:meta/gated", "dataset:no/one"]
"""


def fetch(folder: Path, server: ThreadingHTTPServer) -> tuple[int, dict[str, dict[str, object]]]:
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(folder / "hf")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ablab.cli.main", "fetch", "study.yaml", "--json", "--store", "lab"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, {item["name"]: item for item in json.loads(done.stdout)["items"]}


def test_a_study_is_fetched_verified_repaired_and_what_lacks_is_named(tmp_path: Path, server: ThreadingHTTPServer):
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "here.txt").write_text("here")
    code, first = fetch(tmp_path, server)
    statuses = {name: item["status"] for name, item in first.items()}
    assert code == 1 and statuses == {
        "here.txt": "present", "absent.txt": "missing", "austen": "present",
        "one/set": "fetched", "meta/gated": "gated", "no/one": "missing",
    }, first  # fmt: skip
    assert "HF_TOKEN" in str(first["meta/gated"]["remedy"]) and "no token is set" in str(first["meta/gated"]["found"])
    assert "2 files, 3,005 bytes" in str(first["one/set"]["expected"])
    assert json.loads((tmp_path / "study.lock.json").read_text())["revisions"] == {"dataset:one/set": ONE}
    blob = next(path for path in tmp_path.rglob("data.bin"))
    assert blob.read_bytes() == CONTENT["data.bin"]
    before = sum("resolve" in line and line.startswith("GET") for line in Hub.asked)
    assert fetch(tmp_path, server)[1]["one/set"]["status"] == "present"
    assert sum("resolve" in line and line.startswith("GET") for line in Hub.asked) == before, "nothing twice"
    blob.resolve().write_bytes(b"y" * 3000)
    assert fetch(tmp_path, server)[1]["one/set"]["status"] == "fetched" and blob.read_bytes() == CONTENT["data.bin"]
