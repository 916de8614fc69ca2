"""Names of the hub become revisions once, offline they stay unresolved, and refusals are said."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ablab.contract.failure import DataError
from ablab.contract.task import DataReference
from ablab.store import hub
from ablab.store.files import CorruptFile
from ablab.store.hub import cached_revision, extend_lock, lock_name, lock_path, read_lock, resolve, write_lock

ONE, TWO = "1" * 40, "2" * 40
STORIES = DataReference(kind="hub", name="roneneldan/TinyStories", path="data.source")


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put_in_cache(root: Path, folder: str, ref: str, revision: str) -> None:
    path = root / folder / "refs" / ref
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(revision)


def test_the_lock_stands_beside_the_study_and_reads_back(tmp_path: Path) -> None:
    path = lock_path(tmp_path / "gpt-oelm.yaml")
    assert path == tmp_path / "gpt-oelm.lock.json" and read_lock(path) == {}
    write_lock(path, {"b": TWO, "a": ONE})
    assert list(read_lock(path).items()) == [("a", ONE), ("b", TWO)]
    stamp = path.stat().st_mtime_ns
    write_lock(path, {"a": ONE, "b": TWO})
    assert path.stat().st_mtime_ns == stamp
    path.write_text('{"format": 1, "revisions": ["a"]}')
    with pytest.raises(CorruptFile, match=r"gpt-oelm\.lock\.json"):
        read_lock(path)


def test_references_become_contents(tmp_path: Path) -> None:
    assert resolve(STORIES, {}) == "roneneldan/TinyStories@unresolved"
    assert resolve(STORIES, {"dataset:roneneldan/TinyStories": ONE}) == f"roneneldan/TinyStories@{ONE}"
    exact = DataReference(kind="hub", name="a/b", revision=TWO)
    assert resolve(exact, {}) == f"a/b@{TWO}"
    branch = DataReference(kind="hub", name="a/b", revision="v2", repository="model")
    assert resolve(branch, {"model:a/b": ONE}) == "a/b@unresolved"
    assert resolve(branch, {"model:a/b@v2": ONE}) == f"a/b@{ONE}" and lock_name(branch) == "model:a/b@v2"
    (tmp_path / "x.txt").write_text("hello")
    file = resolve(DataReference(kind="file", name="x.txt"), {}, study_folder=tmp_path)
    (tmp_path / "y.txt").write_text("hello")
    assert file == resolve(DataReference(kind="file", name=str(tmp_path / "y.txt")), {}, study_folder="/nowhere")
    assert file.startswith("file.txt@sha256:")
    assert resolve(DataReference(kind="bundled", name="austen"), {}).startswith("austen@sha256:")
    with pytest.raises(DataError, match=r"absent\.txt"):
        resolve(DataReference(kind="file", name="absent.txt"), {}, study_folder=tmp_path)


def test_a_downloaded_copy_resolves_without_network(tmp_path: Path) -> None:
    put_in_cache(tmp_path / "hub", "datasets--roneneldan--TinyStories", "main", ONE)
    put_in_cache(tmp_path / "hub", "models--gpt2", "v2", TWO)
    gpt2 = DataReference(kind="hub", name="gpt2", revision="v2", repository="model")
    unknown = DataReference(kind="hub", name="no/one")
    assert cached_revision(STORIES) == ONE and cached_revision(gpt2) == TWO and cached_revision(unknown) is None
    path = tmp_path / "s.lock.json"
    bundled = DataReference(kind="bundled", name="austen")
    lock = extend_lock(path, [STORIES, gpt2, unknown, bundled])
    assert lock == read_lock(path) == {"dataset:roneneldan/TinyStories": ONE, "model:gpt2@v2": TWO}


def test_what_is_locked_stays_locked(tmp_path: Path) -> None:
    put_in_cache(tmp_path / "hub", "datasets--roneneldan--TinyStories", "main", TWO)
    write_lock(tmp_path / "s.lock.json", {lock_name(STORIES): ONE})
    assert extend_lock(tmp_path / "s.lock.json", [STORIES])[lock_name(STORIES)] == ONE


def test_a_damaged_cache_is_no_revision(tmp_path: Path) -> None:
    put_in_cache(tmp_path / "hub", "datasets--roneneldan--TinyStories", "main", "not a commit")
    assert cached_revision(STORIES) is None


@pytest.mark.parametrize(("variable", "below"), [("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")])
def test_the_cache_is_where_the_library_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, below: str
) -> None:
    pytest.importorskip("huggingface_hub")
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hub.hub_cache() == tmp_path / below == Path(theirs)


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub's API does: one data set, one gated model, nothing else."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        error, body = "RepoNotFound", {"error": "Repository not found"}
        status = 404
        if self.path.startswith("/api/datasets/roneneldan/TinyStories"):
            status, body = 200, {"id": "roneneldan/TinyStories", "sha": ONE, "tags": [], "downloads": 0}
            if "/revision/" in self.path:
                status, error, body = 404, "RevisionNotFound", {"error": "Invalid rev id"}
        elif self.path.startswith("/api/models/meta/gated"):
            status, error, body = 403, "GatedRepo", {"error": "Access is restricted"}
        data = json.dumps(body).encode()
        self.send_response(status)
        if status != 200:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


ASK = """
import json, sys
from ablab.contract.task import DataReference
from ablab.store.hub import extend_lock
problems = []
references = [DataReference(**r) for r in json.loads(sys.argv[2])]
lock = extend_lock(sys.argv[1], references, timeout=3, problems=problems)
print(json.dumps([lock, problems]))
"""


def ask(endpoint: str, path: Path, references: list[dict[str, str]]) -> tuple[dict[str, str], list[str]]:
    pytest.importorskip("huggingface_hub")
    variables = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(path), json.dumps(references)],
        capture_output=True,
        text=True,
        env={**variables, "HF_ENDPOINT": endpoint},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lock, problems = json.loads(done.stdout)
    return lock, problems


def test_the_hub_is_asked_through_its_own_library(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    references = [
        {"kind": "hub", "name": "roneneldan/TinyStories", "path": "data.source"},
        {"kind": "hub", "name": "roneneldan/TinyStories", "revision": "v9"},
        {"kind": "hub", "name": "meta/gated", "repository": "model"},
        {"kind": "hub", "name": "no/one"},
    ]
    lock, problems = ask(f"http://127.0.0.1:{server.server_port}", tmp_path / "s.lock.json", references)
    assert lock == {"dataset:roneneldan/TinyStories": ONE} == read_lock(tmp_path / "s.lock.json")
    assert [("revision 'v9'" in p, "gated" in p, "'no/one' is no dataset" in p) for p in problems] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_out_of_reach_is_unresolved_and_not_asked_again(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    references = [{"kind": "hub", "name": f"a/{n}"} for n in range(3)]
    assert ask(f"http://127.0.0.1:{port}", tmp_path / "s.lock.json", references) == ({}, [])


def test_offline_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert extend_lock(tmp_path / "s.lock.json", [STORIES]) == {}
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert hub.online_revision(STORIES) == (None, False)
