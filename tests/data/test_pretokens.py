from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from ablab.data.pretokens import gpt2_pretokens, pieces

LIBRARY = pre_tokenizers.ByteLevel(add_prefix_space=False)


def library_words(text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in LIBRARY.pre_tokenize_str(text)]


def test_every_known_character_is_classed_as_the_library_classes_it() -> None:
    patterns = gpt2_pretokens()
    points = [point for point in range(sys.maxunicode + 1) if not 0xD800 <= point <= 0xDFFF]
    known = [c for c in map(chr, points) if patterns.known(c)]
    # Every script in common use is known; what Unicode 3.2 lacked goes to the library.
    assert len(known) > 95_000
    for start in range(0, len(known), 4000):
        text = "".join(f"a{c}1{c}!{c} {c}\n" for c in known[start : start + 4000])
        assert patterns.words.findall(text) == library_words(text)


def test_common_scripts_are_known_and_new_characters_are_not() -> None:
    known = gpt2_pretokens().known
    assert known("“Curly” – dash… naïve Ελληνικά кириллица 한국어 漢字 العربية हिन्दी €")
    assert not known("new: \U0001f600")


@given(st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\t'stredvlm1a!\x1c\xa0\u2003"))))
def test_words_are_the_librarys(text: str) -> None:
    patterns = gpt2_pretokens()
    words = patterns.words.findall(text)
    assert "".join(words) == text
    if patterns.known(text):
        assert words == library_words(text)


@given(st.text(alphabet="a1 \n'!s.\r\té", max_size=300), st.integers(0, 20))
def test_pieces_cut_only_between_words(text: str, size: int) -> None:
    parts = list(pieces(text, size))
    assert "".join(parts) == text
    assert [word for part in parts for word in library_words(part)] == library_words(text)


def test_pieces_are_of_the_asked_size() -> None:
    parts = list(pieces("some words here\n" * 1000, 100))
    assert max(map(len, parts)) <= 100 + 16 and len(parts) > 100
