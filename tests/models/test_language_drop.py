"""Dropping image tokens between layers, against the whole model with those tokens' columns masked layer by layer."""

from __future__ import annotations

import pytest
import torch

from ablab.contract.failure import ConfigError
from ablab.contract.models import ModelReference
from ablab.models.hub import load_model
from ablab.models.language_drop import attach_language_drop

LAYERS = 5
CONFIGS = {
    "llama": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
              "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 61, "max_position_embeddings": 64},
    "phi": {"model_type": "phi", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
            "num_attention_heads": 4, "vocab_size": 61, "max_position_embeddings": 64},
    "qwen2": {"model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
              "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 61, "max_position_embeddings": 64},
}  # fmt: skip


def model_of(name: str):
    model = load_model(ModelReference(config=CONFIGS[name] | {"pad_token_id": 0}), kind="causal", seed=2)
    for parameter in model.parameters():
        parameter.data.mul_(4.0 if parameter.dim() > 1 else 1.0)
    return model


def prompt(batch: int = 2, *, images: int = 8):
    torch.manual_seed(0)
    embedded = torch.randn(batch, 16, 32)
    places = torch.zeros(batch, 16, dtype=torch.bool)
    places[:, 3 : 3 + images] = True
    return embedded, places


def masked(model, embedded, kept_by_layer, padding=None):
    """Logits with the columns of dropped tokens masked from their layer on; kept_by_layer[l] is bool (B, T)."""
    model.set_attn_implementation("eager")
    count = embedded.size(1)
    causal = torch.ones(count, count, dtype=torch.bool).tril()

    def give(layer):
        def hook(module, positional, named):
            seen = causal & kept_by_layer[layer][:, None, None, :]
            if padding is not None:
                seen = seen & padding[:, None, None, :]
            seen = seen | torch.eye(count, dtype=torch.bool)
            mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
            return positional, named | {"attention_mask": mask}

        return hook

    layers = model.model.layers
    handles = [layers[n].register_forward_pre_hook(give(n), with_kwargs=True) for n in range(LAYERS)]
    with torch.no_grad():
        logits = model(inputs_embeds=embedded).logits
    for handle in handles:
        handle.remove()
    return logits


def kept_of(drop, batch, count):
    found = []
    for kept in drop._kept:
        mask = torch.ones(batch, count, dtype=torch.bool)
        if kept is not None:
            mask = torch.zeros(batch, count, dtype=torch.bool).scatter_(1, kept[0], kept[1])
        found.append(mask)
    return found


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("uneven", [False, True])
def test_dropping_is_masking_from_that_layer_on(name, uneven):
    model = model_of(name)
    embedded, places = prompt()
    if uneven:
        places[1, 6:] = False
    drop = attach_language_drop(model, before=(2, 4), keep=0.5)
    drop.mark(places)
    with torch.no_grad():
        found = model(inputs_embeds=embedded, attention_mask=torch.ones(2, 16)).logits
    kept = kept_of(drop, 2, 16)
    left = places.sum(1)
    assert torch.equal((kept[2] & places).sum(1), (left / 2).ceil().long())
    assert torch.equal((kept[4] & places).sum(1), ((left / 2).ceil() / 2).ceil().long())
    assert all((mask | places).all() for mask in kept)
    expected = masked(model_of(name), embedded, kept)
    text = ~places
    torch.testing.assert_close(found[text], expected[text], rtol=1e-3, atol=1e-3)


def test_what_the_last_token_looks_at_most_goes_on():
    model = model_of("llama")
    embedded, places = prompt(1)
    drop = attach_language_drop(model, before=(1,), keep=0.25)
    drop.mark(places)
    with torch.no_grad():
        model(inputs_embeds=embedded)
    plain = model_of("llama")
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        looked = plain(inputs_embeds=embedded, output_attentions=True).attentions[0][0, :, -1].mean(0)
    best = looked.masked_fill(~places[0], -1).topk(2).indices
    assert set(kept_of(drop, 1, 16)[1][0].logical_and(places[0]).nonzero().flatten().tolist()) == set(best.tolist())


def test_keeping_all_or_marking_nothing_changes_nothing():
    embedded, places = prompt()
    with torch.no_grad():
        expected = model_of("llama")(inputs_embeds=embedded).logits
        for keep, marked in ((1.0, places), (0.5, None)):
            model = model_of("llama")
            attach_language_drop(model, before=(2,), keep=keep).mark(marked)
            torch.testing.assert_close(model(inputs_embeds=embedded).logits, expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_cache_continues_what_each_layer_saw(beams):
    model = model_of("llama")
    embedded, places = prompt()
    padding = torch.ones(2, 16, dtype=torch.long)
    padding[1, :2] = 0
    drop = attach_language_drop(model, before=(2, 4), keep=0.5)
    drop.mark(places)
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": beams}
    tokens = model.generate(inputs_embeds=embedded, attention_mask=padding, **options)
    # Step by step without cache: the whole sequence again, its instruction ending where the prompt did.
    if beams == 1:
        for step in range(5):
            more = model.get_input_embeddings()(tokens[:, :step])
            whole = torch.cat([embedded, more], dim=1)
            longer = torch.cat([places, torch.zeros(2, step, dtype=torch.bool)], dim=1)
            drop.mark(longer, last=torch.tensor([15, 15]))
            seen = torch.cat([padding, torch.ones(2, step, dtype=torch.long)], dim=1)
            with torch.no_grad():
                logits = model(inputs_embeds=whole, attention_mask=seen).logits[:, -1]
            logits[:, model.generation_config.eos_token_id] = -torch.inf
            assert torch.equal(logits.argmax(-1), tokens[:, step]), step


def test_gradients_reach_what_went_on():
    model = model_of("qwen2").train()
    embedded, places = prompt()
    embedded.requires_grad_(True)
    attach_language_drop(model, before=(1,), keep=0.5).mark(places)
    model(inputs_embeds=embedded).logits[:, -1].sum().backward()
    assert embedded.grad.isfinite().all() and (embedded.grad.abs().sum(-1) > 0).all()


def test_layers_that_do_not_exist_are_named():
    with pytest.raises(ConfigError, match="before layer 8"):
        attach_language_drop(model_of("llama"), before=(8,))
    with pytest.raises(ConfigError, match="share"):
        attach_language_drop(model_of("llama"), before=(2,), keep=0.0)
