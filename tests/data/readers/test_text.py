from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.data.readers.text import Rule, read_text

BOOK = (
    "\n\nA NOVEL\n\n\nVOLUME I\n\nCHAPTER I\n\n"
    + "It was a fine day. " * 20
    + "\n\nStill chapter one.\n\n\n  Chapter 2.\n\n"
    + "It rained. " * 40
    + "\n\n\nVOLUME II\n\n\nCHAPTER I\n\n"
    + "The end is near. " * 20
    + "\n\n\nFINIS"
)


def texts(path: Path, rule: Rule) -> list[str]:
    return [document.text for document in read_text(path, documents=rule)]


def test_a_chapter_runs_from_its_heading_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(BOOK)
    found = list(read_text(path, documents="chapters"))
    # The title page and the line of the first volume are too short to be documents of their own.
    assert [document.text.split("\n")[0].strip() for document in found] == ["A NOVEL", "Chapter 2.", "VOLUME II"]
    assert found[0].text.endswith("Still chapter one.")
    assert found[2].text.endswith("FINIS")
    lines = BOOK.split("\n")
    assert [lines[document.row - 1] for document in found] == ["A NOVEL", "  Chapter 2.", "VOLUME II"]


def test_words_that_only_begin_like_a_heading_are_text(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(
        "x" * 300 + "\nchapter one was long\nletter from home\nPart of it\nChapter 3 ends here\n" + "y" * 300
    )
    assert len(texts(path, "chapters")) == 1


def test_paragraphs_lines_and_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\none\none more\n\n \ntwo\r\n\nthree")
    assert texts(path, "paragraphs") == ["one\none more", "two", "three"]
    assert texts(path, "lines") == ["one", "one more", "two", "three"]
    assert texts(path, "file") == ["one\none more\n\n \ntwo\r\n\nthree"]
    assert [document.row for document in read_text(path, documents="paragraphs")] == [2, 6, 8]


def test_a_file_without_text_has_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n  \n\t\n")
    for rule in ("file", "chapters", "paragraphs", "lines"):
        assert texts(path, rule) == []


@pytest.mark.parametrize("rule", ["file", "chapters", "paragraphs", "lines"])
@given(parts=st.lists(st.sampled_from(["CHAPTER I", "word " * 50, "", " ", "\tx", "a b", "é\u2028"]), max_size=12))
def test_no_visible_character_is_lost_or_added(
    tmp_path_factory: pytest.TempPathFactory, rule: Rule, parts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    text = "\n".join(parts)
    path.write_text(text, encoding="utf-8")
    assert [word for document in texts(path, rule) for word in document.split()] == text.split()
