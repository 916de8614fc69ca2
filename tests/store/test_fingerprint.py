"""Content decides, nothing else; the cache only saves time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from ablab.contract.failure import DataError
from ablab.store import fingerprint as module
from ablab.store.fingerprint import bundled_fingerprint, bundled_folder, cache_folder, fingerprint, source_digest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was really read."""
    names: list[str] = []
    real = module.sha256

    def spy(path: Path) -> tuple[int, str]:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(module, "sha256", spy)
    return names


def old(path: Path, text: str) -> Path:
    """A file that was last changed long enough ago to be cached."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - 100,) * 2)
    return path


def test_a_file_is_the_hash_of_its_content(tmp_path: Path) -> None:
    path = old(tmp_path / "a.txt", "hello")
    assert fingerprint(path) == hashlib.sha256(b"hello").hexdigest() == fingerprint(path)


def test_content_is_read_once_until_size_time_or_inode_change(tmp_path: Path, hashed: list[str]) -> None:
    path = old(tmp_path / "a.txt", "hello")
    first = fingerprint(path)
    assert fingerprint(path) == first and hashed == ["a.txt"]
    stat = path.stat()
    path.write_text("world")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert fingerprint(path) == hashlib.sha256(b"world").hexdigest() and len(hashed) == 2
    other = old(tmp_path / "b.txt", "earth")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    other.replace(path)
    assert fingerprint(path) == hashlib.sha256(b"earth").hexdigest() and len(hashed) == 3


def test_a_file_that_has_just_changed_is_not_cached(tmp_path: Path, hashed: list[str]) -> None:
    path = tmp_path / "a.txt"
    for text in ("one", "two", "six"):
        path.write_text(text)
        os.utime(path, ns=(1, time.time_ns()))
        assert fingerprint(path) == hashlib.sha256(text.encode()).hexdigest()
    assert len(hashed) == 3


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 9, "identity": [], "sha256": "x"}'])
def test_a_damaged_cache_costs_only_time(tmp_path: Path, damage: str) -> None:
    path = old(tmp_path / "a.txt", "hello")
    first = fingerprint(path)
    (entry,) = cache_folder().rglob("*.json")
    entry.write_text(damage)
    assert fingerprint(path) == first
    assert json.loads(entry.read_text())["sha256"] == first
    shutil.rmtree(cache_folder())
    assert fingerprint(path) == first


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = old(tmp_path / "a.txt", "hello")
    assert fingerprint(path) == hashlib.sha256(b"hello").hexdigest()


def test_a_folder_is_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    for root in ("one", "two"):
        old(tmp_path / root / "a.txt", "1")
        old(tmp_path / root / "sub" / "b.txt", "2")
    old(tmp_path / "two" / "__pycache__" / "a.pyc", "x")
    old(tmp_path / "two" / ".git" / "HEAD", "x")
    first = fingerprint(tmp_path / "one")
    assert first == fingerprint(tmp_path / "two")
    (tmp_path / "two" / "sub" / "b.txt").rename(tmp_path / "two" / "b.txt")
    assert fingerprint(tmp_path / "two") != first
    old(tmp_path / "one" / "sub" / "b.txt", "3")
    assert fingerprint(tmp_path / "one") != first


def test_links_count_as_what_they_lead_to(tmp_path: Path) -> None:
    path = old(tmp_path / "real.txt", "hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.txt").symlink_to(path)
    before = fingerprint(tmp_path / "folder")
    (tmp_path / "folder" / "link.txt").unlink()
    old(tmp_path / "folder" / "link.txt", "hello")
    assert fingerprint(tmp_path / "folder") == before


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.txt: no such file or folder"):
        fingerprint(tmp_path / "absent.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "broken").symlink_to(tmp_path / "absent")
    with pytest.raises(DataError, match="broken"):
        fingerprint(tmp_path / "folder")


def test_source_does_not_depend_on_order_or_place_but_on_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for root in ("here", "deep/er"):
        files = [old(tmp_path / root / "a.py", "x = 1"), old(tmp_path / root / "lib" / "b.py", "y = 2")]
        digests |= {source_digest(files), source_digest(reversed(files)), source_digest([*files, files[0]])}
    assert len(digests) == 1
    old(tmp_path / "here" / "a.py", "y = 2")
    old(tmp_path / "here" / "lib" / "b.py", "x = 1")
    swapped = source_digest([tmp_path / "here" / "a.py", tmp_path / "here" / "lib" / "b.py"])
    assert swapped not in digests
    with pytest.raises(DataError, match=r"c\.py"):
        source_digest([tmp_path / "c.py"])
    assert len(source_digest([])) == 64


def test_bundled_data_are_what_their_checksums_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bundled_fingerprint("austen")
    shutil.copytree(bundled_folder("austen"), tmp_path / "austen")
    monkeypatch.setattr(module, "bundled_folder", lambda name: tmp_path / name)
    (tmp_path / "austen" / "NOTES.txt").write_text("beside the data")
    assert bundled_fingerprint("austen") == first
    name = next(iter(json.loads((tmp_path / "austen" / "SOURCE.json").read_text())["files"]))
    with (tmp_path / "austen" / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=rf"{name}: its content is not what SOURCE\.json says"):
        bundled_fingerprint("austen")


@pytest.mark.parametrize("name", ["austin", "", "../bundled/austen", "."])
def test_an_unknown_bundled_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(DataError, match=r"there are: .*austen"):
        bundled_fingerprint(name)


def test_many_processes_share_the_cache(tmp_path: Path) -> None:
    paths = [old(tmp_path / f"{n}.txt", str(n)) for n in range(20)]
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            right = all(fingerprint(p) == hashlib.sha256(p.stem.encode()).hexdigest() for _ in range(5) for p in paths)
            os._exit(0 if right else 1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert not list(cache_folder().rglob(".tmp-*"))
