"""Pyramids, abstractors, pixel shuffle and dropping inside a whole vision-language model."""

from __future__ import annotations

import pytest
import torch

from ablab.contract.experts import ExpertSettings
from ablab.contract.failure import ConfigError
from ablab.contract.models import LanguageDropSettings, ModelReference, PyramidSettings
from ablab.models.experts import add_experts, expert_layers, note_use
from ablab.models.pyramid import pixel_shuffle
from ablab.models.vision_language import build_vision_language

IMAGE = 99
LLM = {"model_type": "llama", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4,
       "num_attention_heads": 2, "vocab_size": 80, "max_position_embeddings": 256, "pad_token_id": 0}  # fmt: skip
TOWER = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
         "num_attention_heads": 2, "image_size": 64, "patch_size": 8}  # fmt: skip
PYRAMID = {"layers": (1, 2, 3), "scales": (0.25, 0.5, 1.0)}


def made(connector: str, **options):
    return build_vision_language(
        llm=ModelReference(config=LLM), tower=ModelReference(config=TOWER), connector=connector, layer=-1,
        image_token=IMAGE, seed=3, **options,
    )  # fmt: skip


def loss(model, *, seed: int = 0):
    torch.manual_seed(seed)
    pixels = torch.randn(2, 3, 64, 64)
    ids = torch.randint(1, 80, (2, model.image_tokens + 9))
    ids[:, 2 : 2 + model.image_tokens] = IMAGE
    labels = ids.masked_fill(ids == IMAGE, -100)
    return model(ids, pixels=pixels, labels=labels)


@pytest.mark.parametrize(
    ("connector", "options", "tokens"),
    [
        ("pixel_shuffle", {}, 16),
        ("c_abstractor", {"connector_options": {"queries": 9, "layers": 1}}, 9),
        ("pixel_shuffle", {"pyramid": PyramidSettings(**PYRAMID)}, 16),
        ("mlp2x_gelu", {"pyramid": PyramidSettings(**PYRAMID, fusion="attention")}, 64),
        ("pyramid_c_abstractor",
         {"pyramid": PyramidSettings(**PYRAMID), "connector_options": {"queries": 16, "layers": 1}}, 16),
        ("pyramid_c_abstractor",
         {"pyramid": PyramidSettings(**PYRAMID, dropping={"least": 4}), "rotary_2d": True,
          "connector_options": {"queries": 16, "layers": 1}}, 16),
        ("c_abstractor",
         {"pyramid": PyramidSettings(**PYRAMID, dropping={"least": 4, "by": "uniform"}),
          "connector_options": {"queries": 16, "layers": 1}}, 16),
    ],
)  # fmt: skip
def test_images_become_tokens_and_every_part_learns(connector, options, tokens):
    model = made(connector, **options).train()
    assert model.image_tokens == tokens
    loss(model).backward()
    for name, parameter in model.connector.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    read = [p for n, p in model.tower.model.named_parameters() if "layers.0" in n or "patch_embedding" in n]
    assert read and all(p.grad is not None for p in read)


def test_pixel_shuffle_is_norm_linear_gelu_linear_of_blocks():
    model = made("pixel_shuffle")
    features = torch.randn(2, 64, 16)
    c = model.connector
    expected = c.linear_2(torch.nn.functional.gelu(c.linear_1(c.norm(pixel_shuffle(features, (8, 8))[0]))))
    assert torch.equal(c(features), expected)


def test_the_tower_tells_the_attention_each_patch_received():
    model = made("pixel_shuffle", pyramid=PyramidSettings(**PYRAMID, dropping={"least": 4}))
    plain = made("pixel_shuffle", pyramid=PyramidSettings(**PYRAMID))
    plain.tower.model.set_attn_implementation("eager")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model.tower(pixels)
        looked = plain.tower.model(pixel_values=pixels, output_attentions=True).attentions
    for heard, attention in zip(model.tower.received, looked, strict=True):
        torch.testing.assert_close(heard, attention.mean((1, 2)), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(heard.sum(1), torch.ones(2))


def test_dropping_is_warmed_up_in_training_and_whole_in_evaluation():
    model = made("pixel_shuffle", pyramid=PyramidSettings(**PYRAMID, dropping={"least": 1, "rates": (0.5, 0.5, 0.5)}))
    whole = made("pixel_shuffle", pyramid=PyramidSettings(**PYRAMID))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model.train().connector.warm = 0.0
        torch.testing.assert_close(model.see(pixels), whole.see(pixels))
        model.connector.warm = 1.0
        dropped = model.see(pixels)
        assert not torch.allclose(dropped, whole.see(pixels))
        model.eval().connector.warm = 0.0
        torch.testing.assert_close(model.see(pixels), dropped)


def test_random_dropping_is_the_run_s_in_training_and_the_same_for_every_answer():
    dropping = {"least": 1, "rates": (0.5, 0.5, 0.5), "by": "random"}
    model = made("pixel_shuffle", pyramid=PyramidSettings(**PYRAMID, dropping=dropping))
    pixels = torch.randn(3, 3, 64, 64)

    def seen(seed: int, images: torch.Tensor = pixels) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return model.see(images)

    model.train()
    assert torch.equal(seen(1), seen(1)) and not torch.allclose(seen(1), seen(2))
    # Neither what was drawn before nor the images beside it change what an answer is made of.
    model.eval()
    assert torch.equal(seen(1), seen(2))
    torch.testing.assert_close(seen(1)[2:], seen(3, pixels[2:]))


def test_dropping_by_attention_needs_the_images():
    model = made("pixel_shuffle", pyramid=PyramidSettings(**PYRAMID, dropping={"least": 4}))
    with pytest.raises(ConfigError, match="cached"):
        model.see(None, features=torch.randn(1, 64, 48))


def test_language_drop_is_told_where_images_are():
    model = made("mlp2x_gelu", language_drop=LanguageDropSettings(before=(2,), keep=0.25))
    plain = made("mlp2x_gelu")
    assert not torch.allclose(loss(model), loss(plain))
    ids = torch.randint(1, 80, (2, 12))
    torch.testing.assert_close(model(ids), plain(ids))
    ids = torch.full((2, 70), 5)
    ids[:, 2:66] = IMAGE
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    tokens = model.generate(ids, pixels=torch.randn(2, 3, 64, 64), attention_mask=torch.ones_like(ids), **options)
    assert tokens.shape == (2, 4)


def test_the_use_of_experts_counts_no_padding():
    model = made("mlp2x_gelu").eval()
    add_experts(model.llm, ExpertSettings(layers=(1,), hidden=8), seed=1)
    ids, mask = torch.randint(1, 80, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    note_use(model.llm)
    options = {"max_new_tokens": 1, "min_new_tokens": 1, "do_sample": False}
    model.generate(ids, attention_mask=mask, languages=torch.tensor([0, 1]), **options)
    _, layer = next(expert_layers(model.llm))
    assert layer.used.sum(1).tolist() == pytest.approx([5.0, 9.0, 0.0])
