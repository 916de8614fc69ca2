from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import matplotlib
import pytest
from PIL import Image
from pydantic import ValidationError

from ablab.contract.failure import ConfigError
from ablab.data.rendering import fonts as fonts_module
from ablab.data.rendering.fonts import default_fonts, missing, usable_fonts
from ablab.data.rendering.sets import Place, places, row_of, write_rendered
from ablab.data.rendering.settings import KINDS, Rendered, references

LATIN = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
CHEAP = {"line": 0.6, "table": 0.4}


def written(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "images.tar").read_bytes(), (folder / "rendered.jsonl").read_bytes()


def test_a_set_is_in_llavas_format_with_its_pictures(tmp_path: Path) -> None:
    facts = write_rendered(tmp_path, Rendered(rows=12, kinds=CHEAP))
    rows = [json.loads(line) for line in (tmp_path / "rendered.jsonl").open(encoding="utf-8")]
    with tarfile.open(tmp_path / "images.tar") as archive:
        names = archive.getnames()
        for name in names:
            stream = archive.extractfile(name)
            assert stream is not None
            Image.open(io.BytesIO(stream.read())).verify()
    assert [row["image"] for row in rows] == names and len({row["id"] for row in rows}) == 12
    for row in rows:
        turns = row["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert turns[0]["value"].startswith("<image>\n")
        assert sum(turn["value"].count("<image>") for turn in turns) == 1
        assert all(turn["value"].strip() for turn in turns) and row["texts"]
    assert facts["pictures"] == 12 and facts["pictures.ko"] in (5, 6, 7)
    assert facts["questions"] == sum(len(row["conversations"]) // 2 for row in rows)


def test_equal_settings_write_equal_bytes_and_larger_sets_begin_alike(tmp_path: Path) -> None:
    settings = Rendered(rows=6, kinds=CHEAP, augmentation="strong")
    for name in ("a", "b"):
        write_rendered(tmp_path / name, settings)
    assert written(tmp_path / "a") == written(tmp_path / "b")
    write_rendered(tmp_path / "c", settings.model_copy(update={"rows": 9}))
    short, long = written(tmp_path / "a")[1], written(tmp_path / "c")[1]
    assert long.startswith(short) and len(long) > len(short)


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    settings = Rendered(rows=4, kinds={"line": 1})
    write_rendered(tmp_path / "a", settings)
    write_rendered(tmp_path / "b", settings.model_copy(update={"workers": 2}))
    assert written(tmp_path / "a") == written(tmp_path / "b")


@pytest.mark.parametrize("korean", [0.0, 0.3, 0.5, 1.0])
def test_shares_are_met_at_every_length(korean: float) -> None:
    settings = Rendered(rows=1000, korean=korean, kinds={"line": 4, "document": 3, "table": 2, "chart": 1})
    seen: Counter[str] = Counter()
    for count, place in enumerate(places(settings), 1):
        seen[place.kind] += 1
        seen[place.language] += 1
        for kind, share in zip(KINDS, (0.4, 0.3, 0.2, 0.1), strict=True):
            assert abs(seen[kind] - share * count) <= 1.01
        assert abs(seen["ko"] - korean * count) <= 0.76 * len(KINDS)
    assert [seen[kind] for kind in KINDS] == [400, 300, 200, 100] and seen["ko"] == pytest.approx(1000 * korean, abs=2)


def test_a_place_is_asked_once() -> None:
    found = list(places(Rendered(rows=300)))
    assert len(set(found)) == 300


def test_a_stop_between_pictures_is_obeyed(tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        assert total == 10
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rendered(tmp_path, Rendered(rows=10, kinds={"line": 1}), progress=progress)


def test_short_answers_are_asked_for_and_lines_are_not(fonts: tuple[Path, ...]) -> None:
    from ablab.data.rendering.sets import make

    place = Place(number=0, kind="table", language="ko")
    row = row_of(place, make(place, Rendered(rows=1), fonts), "x")
    assert row["conversations"][0]["value"].endswith("한 단어나 짧은 구로 답하세요.")
    place = Place(number=0, kind="line", language="en")
    row = row_of(place, make(place, Rendered(rows=1), fonts), "x")
    assert "single word" not in row["conversations"][0]["value"]


@pytest.mark.parametrize("kinds", [{}, {"line": 0}, {"line": -1, "chart": 2}, {"poem": 1}])
def test_kinds_that_are_none_are_refused(kinds: dict) -> None:
    with pytest.raises(ValidationError):
        Rendered(kinds=kinds)


def test_fonts_are_found_and_can_write_korean_and_latin() -> None:
    assert default_fonts() == usable_fonts()
    assert missing("한글 and Latin 123", default_fonts()[0]) == ""


def test_without_a_font_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fonts_module, "PACKAGE", "no_such_package_of_fonts")
    monkeypatch.setattr(fonts_module, "_FOLDERS", (str(tmp_path),))
    assert default_fonts() == ()
    with pytest.raises(ConfigError, match="koreanize-matplotlib"):
        usable_fonts()
    (reference,) = references(Rendered(), path="data.rendered")
    assert not Path(reference.name).exists()  # plans as unresolved, and never runs so
    (tmp_path / "NanumTest.ttf").write_bytes(b"")
    assert [path.name for path in default_fonts()] == ["NanumTest.ttf"]


def test_a_font_that_cannot_write_korean_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DejaVuSans\.ttf: the font lacks .*가"):
        usable_fonts([LATIN])
    with pytest.raises(ConfigError, match="no such font"):
        usable_fonts([tmp_path / "none.ttf"])
    (tmp_path / "bad.ttf").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="not a readable font"):
        usable_fonts([tmp_path / "bad.ttf"])


def test_the_fonts_are_in_the_key_by_content() -> None:
    found = references(Rendered(), path="data.rendered.ocr")
    assert [one.path for one in found] == [f"data.rendered.ocr.fonts[{i}]" for i in range(len(found))]
    assert all(one.kind == "file" and Path(one.name).is_file() for one in found)
    assert [one.name for one in references(Rendered(fonts=("mine.ttf",)), path="x")] == ["mine.ttf"]
