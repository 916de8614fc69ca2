"""Whole or not there: files, lines and folders under kills, full disks and corruption."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import DiskFullError
from ablab.contract.result import Result
from ablab.store import files
from ablab.store.lines import HEADER

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), VALUES, max_size=5)


def same(a: object, b: object) -> bool:
    """Equality under which NaN equals NaN."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@settings(deadline=None)
@given(value=VALUES)
def test_json_reads_back_as_written(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("json") / "deep" / "x.json"
    files.write_json(path, value, sync=False)
    assert same(files.read_json(path), value)
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


def test_models_paths_arrays_and_lone_surrogates_are_written(tmp_path: Path) -> None:
    import numpy as np

    content = {
        "p": Path("a/b"),
        "s": {2, 1},
        "n": np.float32(0.5),
        "a": np.arange(3),
        "t": "\ud800",
        "r": Result(key="k"),
    }
    files.write_json(tmp_path / "x.json", content)
    files.append_line(tmp_path / "x.jsonl", content)
    for found in (files.read_json(tmp_path / "x.json"), files.read_lines(tmp_path / "x.jsonl")[0]):
        assert found["p"] == "a/b" and found["s"] == [1, 2] and found["n"] == 0.5 and found["a"] == [0, 1, 2]
        assert found["t"] == "\ud800" and found["r"]["key"] == "k"


def test_what_json_cannot_hold_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        files.write_json(tmp_path / "x.json", {"x": object()})
    with pytest.raises(TypeError, match="object"):
        files.append_line(tmp_path / "x.jsonl", {"x": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "row"), [(b"", 1), (b'{"a": 1,\n "b": ', 2), (b'{"a": 1}\nx', 2), (b'{\n"a": "\xff"}', 2)]
)
def test_a_corrupt_file_is_named_with_its_line(tmp_path: Path, data: bytes, row: int) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(data)
    with pytest.raises(files.CorruptFile, match=rf"state\.json, line {row}:") as error:
        files.read_json(path)
    assert error.value.detail == {"file": str(path), "row": row}


@pytest.mark.parametrize(
    ("content", "says"), [([1], "format number"), ({}, "format number"), ({"format": True}, "number")]
)
def test_content_without_a_format_is_corrupt(content: object, says: str) -> None:
    with pytest.raises(files.CorruptFile, match=says):
        files.check_format(content, "plan.json")


@pytest.mark.parametrize(
    ("found", "says"), [(1, "an older version.*reads format 2, 3"), (4, "a newer version.*upgrade")]
)
def test_another_format_is_refused_by_name(found: int, says: str) -> None:
    assert files.check_format({"format": 2}, "plan.json", reads=(2, 3)) == 2
    with pytest.raises(files.UnreadableFormat, match=rf"plan\.json: format {found} .*{says}"):
        files.check_format({"format": found}, "plan.json", reads=(2, 3))


@settings(max_examples=60, deadline=None)
@given(objects=st.lists(OBJECTS, max_size=6), data=st.data())
def test_every_prefix_of_a_file_of_lines_reads_as_its_complete_objects(
    objects: list[dict[str, object]], data: st.DataObject
) -> None:
    lines = [HEADER, *(files.encode_line(o) for o in objects)]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [sum(map(len, lines[: i + 2])) for i in range(len(objects))]
    # An object is complete when its closing brace is there; the newline after it may be missing.
    complete = sum(cut >= end - 1 for end in ends)
    assert same(files.parse_lines(whole[:cut], "x"), objects[:complete])


@settings(max_examples=60, deadline=None)
@given(objects=st.lists(OBJECTS, min_size=1, max_size=4), cut=st.integers(0, 400), extra=OBJECTS)
def test_appending_after_a_torn_line_loses_only_the_torn_line(
    objects: list[dict[str, object]], cut: int, extra: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    for one in objects:
        files.append_line(path, one)
    os.truncate(path, max(0, path.stat().st_size - cut))
    kept = files.read_lines(path)
    files.append_line(path, extra)
    assert same(files.read_lines(path), [*kept, extra])
    assert path.read_bytes().endswith(b"\n")


def test_a_very_long_torn_line_is_cut_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    files.append_line(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b'{"b": "' + b"x" * 300_000)
    files.append_line(path, {"c": 3})
    assert files.read_lines(path) == [{"a": 1}, {"c": 3}]


def test_a_corrupt_line_in_the_middle_is_named_or_skipped_with_a_word(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": \x00\n[3]\n\n{"c": 3}\n')
    with pytest.raises(files.CorruptFile, match=r"x\.jsonl, line 2"):
        files.read_lines(path)
    problems: list[str] = []
    assert files.read_lines(path, problems=problems) == [{"a": 1}, {"c": 3}]
    assert len(problems) == 2 and "line 3" in problems[1]


def test_lines_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"format": 2}\n{"a": 1}\n')
    with pytest.raises(files.UnreadableFormat, match="format 2"):
        files.read_lines(path)


def test_a_missing_file_of_lines_has_none(tmp_path: Path) -> None:
    assert files.read_lines(tmp_path / "x.jsonl") == []


def test_many_processes_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            for i in range(200):
                files.append_line(path, {"child": child, "i": i, "pad": "x" * (i % 50)})
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    found = files.read_lines(path)
    for child in range(4):
        assert [line["i"] for line in found if line["child"] == child] == list(range(200))


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "step-1"
    with pytest.raises(RuntimeError), files.atomic_folder(target) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with files.atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "1"
    with pytest.raises(FileExistsError), files.atomic_folder(target):
        pass
    with files.atomic_folder(target, replace=True) as folder:
        (folder / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["b"] and [p.name for p in target.parent.iterdir()] == ["step-1"]


def test_where_names_cannot_be_exchanged_a_folder_is_still_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda folder, target: False)
    for text in ("1", "2"):
        with files.atomic_folder(tmp_path / "x", replace=True) as folder:
            (folder / text).write_text(text)
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["2"] and len(list(tmp_path.iterdir())) == 1


def test_two_writers_of_one_folder_give_one_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with pytest.raises(FileExistsError), files.atomic_folder(target) as mine:
        (mine / "who").write_text("late")
        with files.atomic_folder(target) as other:
            (other / "who").write_text("first")
    assert (target / "who").read_text() == "first" and len(list(tmp_path.iterdir())) == 1


def test_only_one_publishes(tmp_path: Path) -> None:
    files.publish_json(tmp_path / "result.json", {"a": 1})
    with pytest.raises(FileExistsError):
        files.publish_json(tmp_path / "result.json", {"a": 2})
    assert files.read_json(tmp_path / "result.json") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


WRITER = """
import sys
from pathlib import Path
from ablab.store import files
from ablab.store.lines import HEADER
from ablab.store.manifest import write_manifest
root = Path(sys.argv[1])
n = int(sys.argv[2])
print("ready", flush=True)
while True:
    n += 1
    files.write_json(root / "state.json", {"n": n, "pad": [n] * 3000})
    files.append_line(root / "events.jsonl", {"n": n, "pad": [n] * 3000})
    with files.atomic_folder(root / "checkpoints" / f"step-{n:08d}") as folder:
        for name in "ab":
            (folder / name).write_bytes(bytes([n % 251]) * 40_000)
        write_manifest(folder, step=n)
    with files.atomic_folder(root / "newest", replace=True) as folder:
        (folder / "a").write_bytes(bytes([n % 251]) * 40_000)
        write_manifest(folder, step=n)
    print(n, flush=True)
"""


def test_killed_at_random_moments_nothing_half_written_is_read_as_valid(tmp_path: Path) -> None:
    from ablab.store.manifest import check_manifest, read_manifest

    random.seed(7)
    told: set[int] = set()
    start = 0
    for _ in range(15):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        told |= {int(writer.stdout.readline()) for _ in range(random.randint(0, 2))}
        time.sleep(random.uniform(0, 0.02))
        writer.send_signal(signal.SIGKILL)
        told |= {int(line) for line in writer.communicate()[0].splitlines()}
        if (tmp_path / "state.json").exists():
            state = files.read_json(tmp_path / "state.json")
            assert state["pad"] == [state["n"]] * 3000
            assert all(state["n"] >= n for n in told)
            start = state["n"]
        lines = files.read_lines(tmp_path / "events.jsonl")
        assert all(line["pad"] == [line["n"]] * 3000 for line in lines)
        numbers = [line["n"] for line in lines]
        assert numbers == sorted(set(numbers)) and told <= set(numbers)
        if told:
            # A folder that is replaced is there at every moment.
            assert check_manifest(tmp_path / "newest") == []
            assert read_manifest(tmp_path / "newest")["step"] >= max(told)
        folders = {int(folder.name[5:]): folder for folder in (tmp_path / "checkpoints").glob("step-*")}
        assert told <= set(folders)
        for n, folder in folders.items():
            assert check_manifest(folder) == []
            content = bytes([n % 251]) * 40_000
            assert (folder / "a").read_bytes() == (folder / "b").read_bytes() == content
    assert len(told) > 5


FULL = """
import errno, json, os, sys
from pathlib import Path
from ablab.contract.failure import DiskFullError
from ablab.store import files
from ablab.store.lines import HEADER
from ablab.store.events import EventWriter, read_attempt_events
from ablab.store.manifest import check_manifest, write_manifest
root = Path(sys.argv[1])
files.write_json(root / "state.json", {"old": True})
files.append_line(root / "issues.jsonl", {"n": 0})
writer = EventWriter(root / "events.jsonl")
writer.log("start", step=0)
said = []
def full(what, work):
    try:
        work()
    except DiskFullError as error:
        said.append(what)
        assert str(root) in str(error), error
ballast = os.open(root / "ballast", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(ballast, b"x" * 4096)
except OSError as error:
    assert error.errno == errno.ENOSPC
big = {"pad": "y" * 20_000}
full("json", lambda: files.write_json(root / "state.json", big))
full("line", lambda: files.append_line(root / "issues.jsonl", big))
full("event", lambda: writer.log("message", text="z" * 20_000))
def folder():
    with files.atomic_folder(root / "step-1") as temporary:
        (temporary / "a").write_bytes(b"x" * 20_000)
        write_manifest(temporary)
full("folder", folder)
state = files.read_json(root / "state.json")
lines = files.read_lines(root / "issues.jsonl")
events = read_attempt_events(root / "events.jsonl")
left = sorted(p.name for p in root.iterdir())
os.close(ballast)
(root / "ballast").unlink()
writer.log("message", text="space again")
writer.close()
after = [e.get("text", "")[:5] for e in read_attempt_events(root / "events.jsonl")]
files.append_line(root / "issues.jsonl", {"n": 1})
issues = len(files.read_lines(root / "issues.jsonl"))
print(json.dumps([said, state, lines, [e["e"] for e in events], left, after, issues]))
"""


def on_a_small_disk(code: str, folder: Path) -> str:
    """Run code with a tmpfs of 256 KiB as its argument; skip where a user may not mount one."""
    mount = f'mount -t tmpfs -o size=256k tmpfs {folder} && exec {sys.executable} -c "$CODE" {folder}'
    allowed = f"mount -t tmpfs -o size=256k tmpfs {folder}"
    try:
        probe = subprocess.run(["unshare", "-rm", "sh", "-c", allowed], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no full-disk test: unshare is not installed")
    if probe.returncode:
        pytest.skip(f"no full-disk test: unshare -rm may not mount a tmpfs here ({probe.stderr.strip()})")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CODE": code},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path) -> None:
    out = json.loads(on_a_small_disk(FULL, tmp_path))
    said, state, lines, events, left, after, issues = out
    assert said == ["json", "line", "event", "folder"]
    assert state == {"old": True} and lines == [{"n": 0}] and events == ["start"]
    assert left == ["ballast", "events.jsonl", "issues.jsonl", "state.json"]
    assert after == ["", "zzzzz", "space"] and issues == 2


def test_other_faults_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        files.write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(DiskFullError, match="no space left"), files.naming_full_disk("lab"):
        raise OSError(28, "No space left on device")


def test_values_that_are_not_finite_read_back(tmp_path: Path) -> None:
    content = {"a": math.inf, "b": -math.inf, "c": math.nan}
    files.write_json(tmp_path / "x.json", content)
    files.append_line(tmp_path / "x.jsonl", content)
    assert same(files.read_json(tmp_path / "x.json"), content)
    assert same(files.read_lines(tmp_path / "x.jsonl"), [content])
