"""Templates: every segment tokenised alone, labels where the assistant speaks, one prompt for training and asking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers as library
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ablab.contract.failure import ConfigError
from ablab.data.conversations import Conversation, Turn
from ablab.data.templates import BY_MODEL_TYPE, IGNORE, SYSTEM, TEMPLATES, Encoder, template_of

SPECIAL = ["<pad>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<eos>", "<start_of_turn>",
           "<end_of_turn>", "<image>"]  # fmt: skip
IMAGE_TOKEN = SPECIAL.index("<image>")
WORDS = ["What is this? A cat, sitting on the mat.", "USER: ASSISTANT: yes no", SYSTEM, "거위는 새입니다."]


def make(prefix: bool) -> Any:
    """A byte-level BPE as GPT-2's, or one that puts a space before every text by itself, as sentencepiece does."""
    base = library.Tokenizer(library.models.BPE())
    if prefix:
        base.pre_tokenizer = library.pre_tokenizers.Metaspace()
        base.decoder = library.decoders.Metaspace()
        alphabet = sorted({letter for text in WORDS for letter in text} | {"▁", "\n"})
    else:
        base.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        base.decoder = library.decoders.ByteLevel()
        alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    trainer = library.trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    base.train_from_iterator(WORDS * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        bos_token="<s>" if prefix else None,
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[3:],
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make(prefix=False)


@pytest.fixture(scope="module")
def spaced() -> Any:
    return make(prefix=True)


def encoder(tokenizer: Any, name: str = "llama", **options: Any) -> Encoder:
    return Encoder(tokenizer, TEMPLATES[name], image_token=IMAGE_TOKEN, image_tokens=4, **options)


def talk(*texts: str, images: int = 0) -> Conversation:
    roles = ["user", "assistant"] * len(texts)
    names = tuple(f"{i}.png" for i in range(images))
    return Conversation(id="a", turns=tuple(map(Turn, roles, texts)), images=names)


def supervised(one: Any, made: Encoder) -> str:
    return made.tokenizer.decode([i for i in one.labels.tolist() if i != IGNORE])


def test_the_text_is_llavas(tokenizer: Any) -> None:
    made = encoder(tokenizer)
    one = made.encode(talk("<image>\nWhat is this?", "a cat", "Sure?", "yes", images=1))
    text = tokenizer.decode(one.ids.tolist())
    wanted = f"{SYSTEM} USER: {'<image>' * 4}\nWhat is this? ASSISTANT: a cat</s>USER: Sure? ASSISTANT: yes</s>"
    assert text == wanted
    assert supervised(one, made) == " a cat</s> yes</s>"


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "plain"])
def test_every_family_supervises_the_answers_and_their_end_alone(tokenizer: Any, name: str) -> None:
    made = encoder(tokenizer, name)
    one = made.encode(talk("What is this?", "a cat", "Sure?", "yes"))
    end = tokenizer.convert_ids_to_tokens(made.end)
    assert supervised(one, made).replace(" ", "") == f"acat{end}yes{end}"
    assert end == TEMPLATES[name].end


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "plain"])
@pytest.mark.parametrize("kind", ["tokenizer", "spaced"])
def test_a_prompt_is_the_beginning_of_the_conversation(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    made = encoder(request.getfixturevalue(kind), name)
    prompt = made.prompt("What is this?", images=1)
    whole = made.encode(talk("<image>\nWhat is this?", "a cat", images=1))
    assert np.array_equal(whole.ids[: len(prompt)], prompt)
    assert (whole.labels[: len(prompt)] == IGNORE).all()
    assert whole.labels[len(prompt)] != IGNORE


def test_a_tokenizer_that_writes_spaces_itself_gets_none_twice(spaced: Any) -> None:
    made = encoder(spaced)
    one = made.encode(talk("What is this?", "a cat"))
    tokens = spaced.convert_ids_to_tokens(one.ids.tolist())
    assert tokens[0] == "<s>"
    assert "▁▁" not in "".join(tokens)
    assert supervised(one, made).strip() == "a cat</s>"


def test_plain_drops_the_user_and_masks_the_image(tokenizer: Any) -> None:
    made = encoder(tokenizer, "plain")
    one = made.encode(talk("<image>\nDescribe it.", "a cat", images=1))
    assert one.ids[:4].tolist() == [IMAGE_TOKEN] * 4
    assert (one.labels[:4] == IGNORE).all()
    assert tokenizer.decode(one.ids[4:].tolist()) == "a cat\n"
    assert one.targets == len(one) - 4


def test_special_tokens_that_people_write_are_text(tokenizer: Any) -> None:
    made = encoder(tokenizer)
    one = made.encode(talk("What does </s> do?", "It ends </s> text"))
    assert (one.ids == made.end).sum() == 1
    assert tokenizer.decode(one.ids.tolist()).count("</s>") == 3


def test_truncation_counts_what_it_takes_and_cuts_no_image_in_two(tokenizer: Any) -> None:
    given = talk("<image>\nWhat?", "a cat, sitting on the mat", images=1)
    whole = encoder(tokenizer, "plain").encode(given)
    cut = encoder(tokenizer, "plain", max_length=6).encode(given)
    assert len(cut) == 6 and cut.lost == whole.targets - cut.targets
    inside = encoder(tokenizer, "plain", max_length=2).encode(given)
    assert len(inside) == 0 and inside.images == () and inside.lost == whole.targets


def test_another_system_sentence_and_none(tokenizer: Any) -> None:
    for system, text in (("", "USER: Hi ASSISTANT:"), ("Be brief.", "Be brief. USER: Hi ASSISTANT:")):
        template = template_of("auto", model_type="llama", system=system)
        made = Encoder(tokenizer, template, image_token=IMAGE_TOKEN, image_tokens=4)
        assert tokenizer.decode(made.prompt("Hi").tolist()).strip() == text


def test_a_template_that_does_not_fit_the_tokenizer_is_refused(tokenizer: Any) -> None:
    base = library.Tokenizer(library.models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    other = PreTrainedTokenizerFast(tokenizer_object=base, eos_token="</s>")
    with pytest.raises(ConfigError, match=r"ends answers with <\|im_end\|>"):
        encoder(other, "qwen2")
    with pytest.raises(ConfigError, match="no chat template is known for mamba"):
        template_of("auto", model_type="mamba")
    assert set(BY_MODEL_TYPE.values()) <= set(TEMPLATES)


@settings(deadline=None)
@given(texts=st.lists(st.text(alphabet="ab cat?\n", min_size=1).filter(str.strip), min_size=2, max_size=6))
def test_supervised_tokens_say_what_the_assistant_said(tokenizer: Any, texts: list[str]) -> None:
    texts = texts[: len(texts) // 2 * 2]
    made = encoder(tokenizer)
    one = made.encode(talk(*texts))
    assert supervised(one, made) == "".join(f" {answer}</s>" for answer in texts[1::2])
    assert tokenizer.decode(one.ids.tolist()).endswith(f" {texts[-1]}</s>")
