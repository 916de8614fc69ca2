"""Batched generation gives every row what generating it alone gives, whatever the architecture."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ablab.contract.decoding import Decoding
from ablab.contract.failure import ConfigError, OutOfMemoryError
from ablab.generation.decoding import collate, generate

VOCABULARY, PAD, END, START = 24, 0, 1, 2
PLAIN = Decoding(max_new_tokens=12)


@cache
def model_of(kind: str) -> Any:
    """Return a tiny model with random weights large enough that rows differ in what and how much they say."""
    import transformers as t

    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": END}
    torch.manual_seed(3)
    if kind == "t5":
        shape |= {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": PAD}
        model: Any = t.T5ForConditionalGeneration(t.T5Config(**shape))
    elif kind == "bart":
        layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        shape |= {"d_model": 16, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "bos_token_id": START}
        shape |= {"decoder_start_token_id": END, "max_position_embeddings": 64, "forced_eos_token_id": END}
        model = t.BartForConditionalGeneration(t.BartConfig(**shape, **layers))
    elif kind == "gpt2":
        shape |= {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": START}
        model = t.GPT2LMHeadModel(t.GPT2Config(**shape))
    else:
        shape |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = t.LlamaForCausalLM(t.LlamaConfig(**shape, num_key_value_heads=1, bos_token_id=START))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.7 if "embed" in name or "shared" in name or "lm_head" in name else 0.4)
    return model.eval()


def rows_of(count: int, *, seed: int = 0, longest: int = 17) -> list[dict[str, torch.Tensor]]:
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=drawn).tolist()
    return [{"input_ids": torch.randint(3, VOCABULARY, (n,), generator=drawn)} for n in lengths]


def alone(model: Any, row: dict[str, torch.Tensor], **settings: Any) -> list[int]:
    """Generate one row with transformers alone: no padding, no mask."""
    made = model.generate(**{name: value[None] for name, value in row.items()}, do_sample=False, **settings)[0]
    if model.config.is_encoder_decoder:
        made = made[1:]
    elif "input_ids" in row:
        made = made[len(row["input_ids"]) :]
    tokens = made.tolist()
    return tokens[: tokens.index(END)] if END in tokens else tokens


SETTINGS = [
    (PLAIN, {"max_new_tokens": 12}),
    (
        Decoding(beams=3, length_penalty=0.4, max_new_tokens=9, early_stopping=True),
        {"num_beams": 3, "length_penalty": 0.4, "max_new_tokens": 9, "early_stopping": True},
    ),
    (
        Decoding(beams=2, min_length=5, max_new_tokens=8, early_stopping="never"),
        {"num_beams": 2, "min_new_tokens": 5, "max_new_tokens": 8, "early_stopping": "never"},
    ),
]


@pytest.mark.parametrize("kind", ["t5", "bart", "llama", "gpt2"])
@pytest.mark.parametrize(("decoding", "settings"), SETTINGS)
def test_a_batch_says_what_each_row_says_alone(kind: str, decoding: Decoding, settings: dict[str, Any]) -> None:
    model, rows = model_of(kind), rows_of(13)
    expected = [alone(model, row, **settings) for row in rows]
    assert len({tuple(tokens) for tokens in expected}) > 4, "rows too alike to tell their order"
    for budget in ({"batch_size": 4}, {"batch_tokens": 90}, {}):
        assert generate(model, rows, decoding=decoding, **budget) == expected


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_blocked_ngrams_equal_transformers_own_for_encoder_decoders(kind: str) -> None:
    model, rows = model_of(kind), rows_of(7, seed=5)
    settings = {"max_new_tokens": 20, "min_new_tokens": 20, "num_beams": 2}
    found = generate(model, rows, decoding=Decoding(beams=2, no_repeat_ngram=2, min_length=20, max_new_tokens=20))
    assert found == [alone(model, row, no_repeat_ngram_size=2, **settings) for row in rows]
    for tokens in found:
        pairs = list(itertools.pairwise(tokens))
        assert len(set(pairs)) == len(pairs)
    free = generate(model, rows, decoding=Decoding(beams=2, min_length=20, max_new_tokens=20))
    assert free != found


def test_a_decoder_only_model_may_quote_its_prompt_but_not_itself() -> None:
    model = model_of("llama")
    rows = rows_of(9, seed=1)
    found = generate(model, rows, decoding=Decoding(no_repeat_ngram=1, min_length=10, max_new_tokens=10))
    assert all(len(set(tokens)) == len(tokens) for tokens in found)
    quoted = [set(tokens) & set(row["input_ids"].tolist()) for tokens, row in zip(found, rows, strict=True)]
    assert any(quoted)


def test_embeddings_stand_for_their_tokens() -> None:
    model, rows = model_of("llama"), rows_of(6, seed=2)
    embeddings = model.get_input_embeddings()
    embedded = [{"inputs_embeds": embeddings(row["input_ids"]).detach()} for row in rows]
    for decoding, _ in SETTINGS:
        ours = generate(model, embedded, decoding=decoding, batch_size=4)
        assert ours == generate(model, rows, decoding=decoding)


def test_an_adapter_around_the_model_generates_too() -> None:
    import copy

    import peft

    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(model_of("llama")), config)
    rows = rows_of(5)
    found = generate(adapted, rows, decoding=PLAIN, batch_size=2)
    assert found == [alone(adapted.eval(), row, max_new_tokens=12) for row in rows]


def test_what_a_models_files_say_of_decoding_is_not_used() -> None:
    import copy

    model = copy.deepcopy(model_of("t5"))
    model.generation_config.update(
        num_beams=4, no_repeat_ngram_size=2, min_length=7, max_length=3, do_sample=True, length_penalty=0.1
    )
    assert generate(model, rows_of(6), decoding=PLAIN) == generate(model_of("t5"), rows_of(6), decoding=PLAIN)


class Tight:
    """Stands before a model and has memory for so many rows only."""

    def __init__(self, model: Any, room: int, says: Exception) -> None:
        self.inner, self.room, self.says = model, room, says
        self.tried: list[int] = []

    def __enter__(self) -> Any:
        generate_inner = self.inner.generate

        def limited(**given: Any) -> Any:
            self.tried.append(len(given["input_ids"]))
            if len(given["input_ids"]) > self.room:
                raise self.says
            return generate_inner(**given)

        self.inner.generate = limited
        return self

    def __exit__(self, *_: Any) -> None:
        del self.inner.generate


@pytest.mark.parametrize("says", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_a_batch_that_does_not_fit_is_halved_and_stays_halved(says: Exception) -> None:
    model, rows = model_of("t5"), rows_of(20, longest=1)
    expected = generate(model, rows, decoding=PLAIN)
    seen: list[tuple[int, int]] = []
    with Tight(model, 5, says) as tight:
        found = generate(model, rows, decoding=PLAIN, between=lambda done, total: seen.append((done, total)))
    assert found == expected
    assert tight.tried == [20, 10, 5, 5, 5, 5]
    assert seen == [(0, 20), (5, 20), (10, 20), (15, 20), (20, 20)]


def test_a_single_row_that_does_not_fit_is_named() -> None:
    with (
        Tight(model_of("t5"), 0, MemoryError()) as tight,
        pytest.raises(OutOfMemoryError, match="single row") as caught,
    ):
        generate(tight.inner, rows_of(4), decoding=PLAIN)
    assert caught.value.detail["evaluation_batch"] == 1
    assert tight.tried == [4, 2, 1]


def test_other_errors_pass_and_training_mode_returns() -> None:
    model = model_of("t5")
    model.train()
    with Tight(model, 0, RuntimeError("shapes differ")), pytest.raises(RuntimeError, match="shapes differ"):
        generate(model, rows_of(3), decoding=PLAIN)
    assert model.training
    model.eval()


def test_rows_are_checked() -> None:
    model = model_of("t5")
    with pytest.raises(ConfigError, match="row 1 has neither"):
        generate(model, [*rows_of(1), {"labels": torch.ones(2)}], decoding=PLAIN)
    with pytest.raises(ConfigError, match="row 0 is empty"):
        generate(model, [{"input_ids": torch.zeros(0, dtype=torch.int64)}], decoding=PLAIN)
    assert generate(model, [], decoding=PLAIN) == []


def test_collate_pads_what_has_the_rows_length_and_stacks_the_rest() -> None:
    rows = [
        {"input_ids": torch.tensor([5, 6, 7]), "pixels": torch.full((2, 2), 1.0)},
        {"input_ids": torch.tensor([8]), "pixels": torch.full((2, 2), 2.0)},
    ]
    right, left = (collate(rows, pad_token_id=9, left=side) for side in (False, True))
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert left["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert right["pixels"].shape == (2, 2, 2)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_length 9 exceeds"):
        Decoding(min_length=9, max_new_tokens=8)


def test_beams_gather_only_what_differs_between_them() -> None:
    from ablab.generation.cache import beam_cache

    cache = beam_cache(model_of("llama"), prompt=3)
    assert cache is not None
    states = torch.randn(4, 1, 5, 8)
    cache.update(states.clone(), -states, 0)
    beams = torch.tensor([1, 1, 0, 2])
    cache.reorder_cache(beams)
    keys, values = cache.layers[0].keys, cache.layers[0].values
    assert torch.equal(keys[:, :, :3], states[:, :, :3])
    assert torch.equal(keys[:, :, 3:], states[beams][:, :, 3:])
    assert torch.equal(values, -keys)
    crossed = beam_cache(model_of("bart"), prompt=0)
    assert crossed is not None
    for part in (crossed.self_attention_cache, crossed.cross_attention_cache):
        part.update(states, states, 0)
    crossed.reorder_cache(beams)
    assert torch.equal(crossed.self_attention_cache.layers[0].keys, states[beams])
    assert crossed.cross_attention_cache.layers[0].keys is states or torch.equal(
        crossed.cross_attention_cache.layers[0].keys, states
    )


def test_a_sliding_window_keeps_its_own_cache() -> None:
    import transformers as t

    from ablab.generation.cache import beam_cache

    shape = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 6, "pad_token_id": PAD}
    torch.manual_seed(0)
    model = t.MistralForCausalLM(t.MistralConfig(**shape, **heads, eos_token_id=END)).eval()
    assert beam_cache(model, prompt=4) is None
    rows = rows_of(5)
    found = generate(model, rows, decoding=Decoding(beams=2, max_new_tokens=5), batch_size=3)
    assert found == [alone(model, row, num_beams=2, max_new_tokens=5) for row in rows]
