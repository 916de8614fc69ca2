from __future__ import annotations

import lzma
import shutil
from pathlib import Path

import pytest

from ablab import bundled
from ablab.contract.failure import ConfigError, DataError


@pytest.mark.parametrize("name", bundled.names())
def test_every_set_is_whole_and_says_where_it_comes_from(name: str) -> None:
    bundle = bundled.verify(name)
    assert bundle.source and bundle.licence
    assert "LICENCE.txt" in bundle.files
    beside = {path.name for path in bundled.path(name).iterdir()} - {"SOURCE.json"}
    assert beside == set(bundle.files)


def test_the_sets_are_those_the_studies_name() -> None:
    assert {"austen", "wordnet", "gpt2"} <= set(bundled.names())


def test_a_changed_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundled.path("austen"), tmp_path / "austen")
    monkeypatch.setattr(bundled, "_HERE", tmp_path)
    bundled.verify("austen")
    (tmp_path / "austen" / "emma.txt.xz").write_bytes(lzma.compress(b"Emma Woodhouse, plain"))
    with pytest.raises(DataError, match=r"emma\.txt\.xz: sha256 .* expected f542ee094693"):
        bundled.verify("austen")
    (tmp_path / "austen" / "emma.txt.xz").unlink()
    with pytest.raises(DataError, match=r"emma\.txt\.xz: missing"):
        bundled.verify("austen")


def test_an_unknown_set_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="no bundled data set 'dickens'; there are austen"):
        bundled.path("dickens")


def test_a_damaged_description_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "SOURCE.json").write_text('{"source": "here"}')
    monkeypatch.setattr(bundled, "_HERE", tmp_path)
    with pytest.raises(DataError, match=r"SOURCE\.json: damaged"):
        bundled.describe("mine")
