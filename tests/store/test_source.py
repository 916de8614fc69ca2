"""Frozen source: whole, shared by equal launches, untouched by later edits, and importable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablab.contract.failure import ConfigError
from ablab.store import source
from ablab.store.manifest import check_manifest
from ablab.store.source import freeze_source, frozen_place


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package that stands for Ablab's own."""
    root = tmp_path / "package"
    (root / "sub").mkdir(parents=True)
    (root / "__pycache__").mkdir()
    for name, text in {
        "__init__.py": "",
        "sub/a.py": "x = 1\n",
        "sub/d.json": "{}",
        "__pycache__/a.pyc": "junk",
    }.items():
        (root / name).write_text(text)
    monkeypatch.setattr(source, "package_folder", lambda: root)
    return root


def names(folder: str) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def test_equal_source_is_stored_once_and_an_edit_makes_another(package: Path, tmp_path: Path) -> None:
    first = freeze_source(tmp_path / "sources")
    assert names(first["path"]) == ["ablab/__init__.py", "ablab/sub/a.py", "ablab/sub/d.json", "manifest.json"]
    assert freeze_source(tmp_path / "sources") == first and first["files"] == 3
    (package / "sub" / "a.py").write_text("x = 2\n")
    second = freeze_source(tmp_path / "sources")
    assert second["digest"] != first["digest"]
    assert Path(first["path"], "ablab/sub/a.py").read_text() == "x = 1\n"
    assert sorted(p.name for p in (tmp_path / "sources").iterdir()) == sorted([first["digest"], second["digest"]])


def test_the_studys_own_code_is_frozen_beside_it(package: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / "lib").mkdir(parents=True)
    (study / "train.py").write_text("1")
    (study / "lib" / "b.py").write_text("2")
    (study / "lib" / "settings.json").write_text("{}")
    (study / "lib" / "__pycache__").mkdir()
    (study / "lib" / "__pycache__" / "b.pyc").write_text("junk")
    outside = tmp_path / "outside.py"
    outside.write_text("3")
    frozen = freeze_source(tmp_path / "sources", study_folder=study, files=["train.py", "lib", str(outside)])
    found = names(frozen["study"])
    assert found[1:] == ["lib/b.py", "lib/settings.json", "train.py"], "what is hashed of a folder is frozen"
    assert found[0].startswith("_outside/") and found[0].endswith("outside.py")
    assert (Path(frozen["path"]) / frozen_place(outside, study)).read_text() == "3"
    assert Path(frozen["study"], "train.py").read_text() == "1"
    with pytest.raises(ConfigError, match=r"gone\.py: no such code file"):
        freeze_source(tmp_path / "sources", study_folder=study, files=["gone.py"])


def test_a_damaged_copy_is_made_again(package: Path, tmp_path: Path) -> None:
    first = freeze_source(tmp_path / "sources")
    Path(first["path"], "ablab/sub/a.py").write_text("tampered")
    assert freeze_source(tmp_path / "sources") == first and check_manifest(first["path"]) == []


def test_an_edit_during_the_copy_never_stands_under_a_wrong_digest(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = iter(["x = 7\n", "x = 8\n"])
    real = source.shutil.copyfile

    def copy(a: Path, b: Path) -> None:
        if a.name == "a.py" and (text := next(edits, None)):
            a.write_text(text)
        real(a, b)

    monkeypatch.setattr(source.shutil, "copyfile", copy)
    frozen = freeze_source(tmp_path / "sources")
    monkeypatch.undo()
    assert Path(frozen["path"], "ablab/sub/a.py").read_text() == "x = 8\n"
    monkeypatch.setattr(source, "package_folder", lambda: package)
    assert freeze_source(tmp_path / "sources") == frozen and len(list((tmp_path / "sources").iterdir())) == 1


def test_launches_at_once_freeze_the_same(package: Path, tmp_path: Path) -> None:
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            frozen = freeze_source(tmp_path / "sources")
            os._exit(0 if check_manifest(frozen["path"]) == [] else 1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert len(list((tmp_path / "sources").iterdir())) == 1


def test_a_worker_imports_the_frozen_ablab(tmp_path: Path) -> None:
    frozen = freeze_source(tmp_path / "sources")
    code = f"import sys; sys.path.insert(0, {frozen['path']!r}); import ablab.store.files as f; print(f.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(frozen["path"]) and check_manifest(frozen["path"]) == []
