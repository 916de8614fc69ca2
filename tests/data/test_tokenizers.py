from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import DataError
from ablab.data.tokenizers import (
    END_OF_TEXT,
    BytePairTokenizer,
    ByteTokenizer,
    Tokenizer,
    byte_characters,
    gpt2_tokenizer,
    load_tokenizer,
    tokenizer_from_json,
    train_tokenizer,
)

TEXTS = [
    "the cat sat on the mat",
    "the dog sat on the log \u2014 naïve 한국어",
    "cats and dogs",
    "logs, mats & hats",
] * 20

TEXT = st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n'sthe<|>\U0001f600")), max_size=200)


@pytest.fixture(scope="module")
def gpt2() -> BytePairTokenizer:
    return gpt2_tokenizer()


@pytest.fixture(scope="module")
def trained() -> BytePairTokenizer:
    return train_tokenizer(TEXTS, vocabulary=300)


def test_gpt2_is_exact(gpt2: BytePairTokenizer) -> None:
    assert gpt2.encode("Hello world").tolist() == [15496, 995]
    # Published examples of GPT-2's tokenizer: contractions, runs of spaces, several bytes a character.
    assert gpt2.encode("I'm  here\n\n").tolist() == [40, 1101, 220, 994, 628]
    assert gpt2.encode("😀").tolist() == [47249, 222]
    assert (gpt2.vocabulary, gpt2.end_of_text) == (50257, 50256)


@settings(max_examples=200)
@given(TEXT)
def test_gpt2_is_the_libraries_gpt2(gpt2: BytePairTokenizer, text: str) -> None:
    assert gpt2.encode(text).tolist() == gpt2._base.encode(text, add_special_tokens=False).ids


def test_gpt2_agrees_with_transformers(gpt2: BytePairTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    file = tmp_path / "tokenizer.json"
    file.write_text(gpt2.to_json())
    other = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=END_OF_TEXT)
    text = "It is a truth universally acknowledged — don't 42nd\n\n  \tx"
    assert other(text)["input_ids"] == gpt2.encode(text).tolist()
    assert other.eos_token_id == gpt2.end_of_text


@pytest.mark.parametrize("name", ["gpt2", "trained", "bytes"])
@given(text=TEXT)
def test_text_round_trips_and_bytes_add_up(
    gpt2: BytePairTokenizer, trained: BytePairTokenizer, name: str, text: str
) -> None:
    tokenizer: Tokenizer = {"gpt2": gpt2, "trained": trained, "bytes": ByteTokenizer()}[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


@pytest.mark.parametrize("name", ["gpt2", "trained", "bytes"])
def test_a_literal_special_token_is_ordinary_text(
    gpt2: BytePairTokenizer, trained: BytePairTokenizer, name: str
) -> None:
    tokenizer: Tokenizer = {"gpt2": gpt2, "trained": trained, "bytes": ByteTokenizer()}[name]
    for text in (END_OF_TEXT, f"a{END_OF_TEXT}b", f"\U0001f600 {END_OF_TEXT}", f"{END_OF_TEXT}\n"):
        ids = tokenizer.encode(text)
        assert tokenizer.end_of_text not in ids
        assert tokenizer.decode(ids) == text
        assert pickle.loads(pickle.dumps(tokenizer)).encode(text).tolist() == ids.tolist()


@pytest.mark.parametrize("name", ["gpt2", "trained", "bytes"])
def test_end_of_text_is_the_last_token_and_no_text(
    gpt2: BytePairTokenizer, trained: BytePairTokenizer, name: str
) -> None:
    tokenizer: Tokenizer = {"gpt2": gpt2, "trained": trained, "bytes": ByteTokenizer()}[name]
    assert tokenizer.end_of_text == tokenizer.vocabulary - 1
    table = tokenizer.token_bytes()
    assert table.shape == (tokenizer.vocabulary,)
    assert table[tokenizer.end_of_text] == 0
    assert (np.delete(table, tokenizer.end_of_text) > 0).all()
    assert tokenizer.decode([tokenizer.end_of_text]) == ""


def test_long_documents_are_encoded_piece_by_piece(gpt2: BytePairTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "A line of text, it's here.\nAnother\n\n  one \U0001f600 follows.\nEnd\n" * 50
    whole = gpt2._base.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr("ablab.data.tokenizers._PIECE", 200)
    monkeypatch.setattr("ablab.data.tokenizers._SLOW_PIECE", 10)
    assert gpt2.encode(text).tolist() == whole


def test_the_memory_of_words_is_bounded(trained: BytePairTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.data.tokenizers._WORDS", 10)
    text = " ".join(f"w{i}" for i in range(200)) + " " + "long" * 100
    assert trained.decode(trained.encode(text)) == text
    assert len(trained._words) <= 10
    assert all(len(word) <= 64 for word in trained._words)


def test_training_is_deterministic_across_processes_and_threads(trained: BytePairTokenizer) -> None:
    code = (
        "import sys, json; from ablab.data.tokenizers import train_tokenizer;"
        "print(train_tokenizer(json.loads(sys.argv[1]), vocabulary=300, threads=int(sys.argv[2])).to_json())"
    )
    for threads in ("1", "3"):
        run = subprocess.run(
            [sys.executable, "-c", code, json.dumps(TEXTS), threads], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == trained.to_json()


def test_training_stops_where_nothing_is_left_to_merge() -> None:
    small = train_tokenizer(["aa"], vocabulary=1000)
    assert small.vocabulary == 256 + 1 + 1
    assert small.encode("aa").size == 1
    empty = train_tokenizer([], vocabulary=300)
    assert empty.vocabulary == 257
    assert empty.decode(empty.encode("é")) == "é"


def test_files_load_again_and_damage_is_named(trained: BytePairTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(trained.to_json(), encoding="utf-8")
    again = load_tokenizer(path, name="bpe")
    assert (again.vocabulary, again.end_of_text) == (trained.vocabulary, trained.end_of_text)
    assert again.encode("the cat").tolist() == trained.encode("the cat").tolist()
    path.write_text(trained.to_json()[:-50], encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(path, name="bpe")
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path / "none.json", name="bpe")
    assert isinstance(tokenizer_from_json(ByteTokenizer().to_json(), name="bytes"), ByteTokenizer)


def test_byte_characters_are_the_librarys_alphabet() -> None:
    from tokenizers import pre_tokenizers

    assert len(set(byte_characters())) == 256
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
