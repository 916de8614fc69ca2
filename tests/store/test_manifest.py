"""A folder with a manifest is whole, or it is said what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablab.store.files import CorruptFile
from ablab.store.manifest import check_manifest, is_valid, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "step-1" / "shards").mkdir(parents=True)
    (tmp_path / "step-1" / "model.safetensors").write_bytes(os.urandom(3000))
    (tmp_path / "step-1" / "shards" / "ü.bin").write_bytes(b"")
    (tmp_path / "step-1" / ".tmp-left-1").write_bytes(b"half")
    write_manifest(tmp_path / "step-1", step=1)
    return tmp_path / "step-1"


def test_a_manifest_holds_sizes_and_checksums(folder: Path) -> None:
    manifest = read_manifest(folder)
    data = (folder / "model.safetensors").read_bytes()
    assert manifest["step"] == 1 and list(manifest["files"]) == ["model.safetensors", "shards/ü.bin"]
    assert manifest["files"]["model.safetensors"] == {"bytes": 3000, "sha256": hashlib.sha256(data).hexdigest()}
    assert check_manifest(folder) == [] and is_valid(folder)


def test_the_manifest_does_not_list_itself_when_written_again(folder: Path) -> None:
    write_manifest(folder)
    assert "manifest.json" not in read_manifest(folder)["files"] and is_valid(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(at=st.integers(0, 2999), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(folder: Path, at: int, bit: int) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    assert any("model.safetensors" in problem and "content" in problem for problem in check_manifest(folder))
    assert check_manifest(folder, deep=False) == []
    path.write_bytes(whole)
    assert is_valid(folder)


@pytest.mark.parametrize("deep", [True, False])
def test_missing_and_truncated_files_are_named(folder: Path, deep: bool) -> None:
    os.truncate(folder / "model.safetensors", 2999)
    (folder / "shards" / "ü.bin").unlink()
    problems = check_manifest(folder, deep=deep)
    assert len(problems) == 2 and "2999 bytes, the manifest says 3000" in problems[0] and "missing" in problems[1]


def test_without_its_manifest_a_folder_was_never_finished(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert "never finished" in check_manifest(folder)[0]
    with pytest.raises(CorruptFile, match="never finished"):
        read_manifest(folder)
    assert not is_valid(folder / "absent")


@pytest.mark.parametrize(
    "content",
    [
        '{"format": 1}',
        '{"format": 1, "files": {"../../passwd": {"bytes": 1, "sha256": ""}}}',
        '{"format": 1, "files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}}',
        '{"format": 1, "files": {"a": {"bytes": "1"}}}',
        '{"format": 1, "files": {"a": {"by',
        '{"format": 7, "files": {}}',
        "[]",
        "",
    ],
)
def test_a_damaged_manifest_makes_the_folder_invalid(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    problems = check_manifest(folder)
    assert len(problems) == 1 and "manifest.json" in problems[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(data=st.data())
def test_a_truncated_manifest_is_never_valid(folder: Path, data: st.DataObject) -> None:
    path = folder / "manifest.json"
    whole = path.read_bytes()
    # The very last bytes are the newline and closing brace; without the newline the JSON is complete.
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    assert not is_valid(folder)
    path.write_bytes(whole)
    assert json.loads(whole) and is_valid(folder)
