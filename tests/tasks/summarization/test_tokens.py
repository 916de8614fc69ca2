"""Ids: tags stay whole, ends are there, what is cut off is the dialogue's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablab.contract.failure import ConfigError
from ablab.data.dialogues import Dialogue
from ablab.data.generated_dialogues import generate_dialogues
from ablab.tasks.summarization.sections import TAGS
from ablab.tasks.summarization.tokens import Encoder, Lengths, add_tags, open_trained, train_tokenizer

TEXTS = [row["dialogue"] for row in generate_dialogues("train", rows=40)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, folder, name="bpe", vocabulary=500, tags=TAGS)
    return folder


def plain_tokenizer(**special: str) -> Any:
    """A tokenizer that adds nothing to a text, as KoBART's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<s>", "<unk>", "hello", "world", "again", "summary", ":", "a"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


@pytest.mark.parametrize("name", ["unigram", "bpe"])
def test_a_trained_tokenizer_gives_every_text_back(tmp_path: Path, name: Any) -> None:
    size = train_tokenizer(TEXTS, tmp_path, name=name, vocabulary=600, tags=TAGS)
    tokenizer = open_trained(tmp_path)
    assert len(tokenizer) == size <= 600
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tags_are_one_token_that_decoding_keeps(trained: Path) -> None:
    tokenizer = open_trained(trained)
    ids = tokenizer("#Person1#은 #PhoneNumber#를 적습니다.", add_special_tokens=False)["input_ids"]
    names = tokenizer.convert_ids_to_tokens(ids)
    assert "#Person1#" in names and "#PhoneNumber#" in names
    pieces = {piece for piece in tokenizer.get_vocab() if "Person" in piece or "PhoneN" in piece}
    assert pieces == {tag for tag in TAGS if "Person" in tag or "Phone" in tag}, "no piece of a tag is learnt"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "#Person1#은 #PhoneNumber#를 적습니다."


def test_new_tags_are_told_from_known_ones(trained: Path) -> None:
    assert add_tags(open_trained(trained), TAGS) == []
    tokenizer = plain_tokenizer(eos_token="</s>", bos_token="<s>")
    before = len(tokenizer)
    assert add_tags(tokenizer, TAGS[:3]) == [before, before + 1, before + 2]
    text = "hello #Person1# world"
    assert (
        tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).replace(" ", "")
        == "hello#Person1#world"
    )


def test_an_end_is_added_where_the_tokenizer_forgets_it() -> None:
    tokenizer = plain_tokenizer(eos_token="</s>", bos_token="<s>")
    encoder = Encoder(tokenizer, causal=False, prefix="", suffix=None, lengths=Lengths(source=9, target=9))
    (row,) = encoder.rows([Dialogue(id="1", dialogue="hello world", summaries=("again",))])
    assert row.source.tolist() == [2, 4, 5, 1]
    assert row.target.tolist() == [2, 6, 1]
    only = plain_tokenizer(eos_token="</s>")
    (row,) = Encoder(only, causal=False, prefix="", suffix=None, lengths=Lengths(source=9, target=9)).rows(
        [Dialogue(id="1", dialogue="hello world", summaries=("again",))]
    )
    assert row.source.tolist() == [4, 5, 1] and row.target.tolist() == [6, 1]


def test_what_is_cut_off_is_the_end_of_the_dialogue_never_the_suffix_or_the_end() -> None:
    tokenizer = plain_tokenizer(eos_token="</s>")
    rows = [Dialogue(id="1", dialogue="hello " * 20, summaries=("world " * 20,))]
    for causal, tail in ((False, [7, 8, 1]), (True, [7, 8])):
        lengths = Lengths(source=8, target=4)
        encoder = Encoder(tokenizer, causal=causal, prefix="again ", suffix="summary :", lengths=lengths)
        (row,) = encoder.rows(rows)
        assert len(row.source) == 8 and row.source[0] == 6
        assert row.source.tolist()[-len(tail) :] == tail
        assert row.target.tolist() == [5, 5, 5, 1]
        assert row.whole_source == 21 + len(tail) and row.whole_target == 21


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="no end token"):
        Encoder(plain_tokenizer(), causal=False, prefix="", suffix=None, lengths=Lengths(source=9, target=9))
    tokenizer = plain_tokenizer(eos_token="</s>")
    with pytest.raises(ConfigError, match=r"encoder_length 4 leaves no room"):
        Encoder(tokenizer, causal=False, prefix="again again again", suffix=None, lengths=Lengths(source=4, target=9))
