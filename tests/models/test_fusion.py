"""The fusion against its formula written with torch's own attention, and what a missing modality may change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablab.contract.failure import ConfigError
from ablab.models.fusion import Attention, Fusion, FusionShape, Seen, sinusoids

SHAPE = FusionShape(text=(6, 6), vision=(10, 8), width=16, heads=4, queries=5, output=7, dropout=0.0)


def seen(rows: int, tokens: int, widths: tuple[int, ...], present: list[float], *, masked: bool) -> Seen:
    valid = torch.ones(rows, tokens, dtype=torch.bool)
    if masked:
        valid[:, tokens // 2 :] = False
    states = [torch.randn(rows, tokens, width) for width in widths]
    return Seen(states=states, valid=valid if masked else None, present=torch.tensor(present))


def attend(layer: Attention, state: Tensor, tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Attention by torch's own module with the layer's weights."""
    width = state.size(2)
    other = nn.MultiheadAttention(width, layer.heads, bias=layer.query.bias is not None, batch_first=True)
    layers = (layer.query, layer.key, layer.value)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat([each.weight for each in layers]))
        other.out_proj.weight.copy_(layer.out.weight)
        if layer.query.bias is not None:
            other.in_proj_bias.copy_(torch.cat([each.bias for each in layers]))
            other.out_proj.bias.copy_(layer.out.bias)
    return other(state, tokens, tokens, key_padding_mask=None if valid is None else ~valid, need_weights=False)[0]


def by_formula(fusion: Fusion, text: Seen, image: Seen) -> Tensor:
    cell, state = fusion.cell, fusion.state.expand(len(text.present), -1, -1)
    has_text, has_image = text.present[:, None, None], image.present[:, None, None]
    assert text.states is not None and image.states is not None
    for words, patches, text_map, image_map in zip(
        text.states, image.states, fusion.text_maps, fusion.image_maps, strict=True
    ):
        q = state + sinusoids(*fusion.state.shape)
        n = cell.state_norm(q)
        res = q + attend(cell.own, n, n, None)
        t = attend(cell.text, n, cell.text_norm(text_map(words)), text.valid)
        v = attend(cell.image, n, cell.image_norm(image_map(patches)), image.valid)
        gate_t = torch.sigmoid(cell.text_gate(t)) * has_text
        gate_v = torch.sigmoid(cell.image_gate(v)) * has_image
        told = t @ cell.text_forget.weight.T * has_text
        forget = torch.sigmoid(told + v @ cell.image_forget.weight.T * has_image + cell.text_forget.bias)
        state = res * forget + t * gate_t + v * gate_v
        state = state + cell.mlp(cell.mlp_norm(state))
    return F.normalize(fusion.head(state), dim=-1)


def test_it_is_its_formula() -> None:
    torch.manual_seed(0)
    fusion = Fusion(SHAPE).eval()
    text = seen(3, 8, SHAPE.text, [1, 1, 0], masked=True)
    image = seen(3, 4, SHAPE.vision, [1, 0, 1], masked=False)
    found = fusion(text, image)
    assert found.shape == (3, 5, 7)
    torch.testing.assert_close(found, by_formula(fusion, text, image), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3, 5))


def test_the_released_cell_has_25_million_parameters() -> None:
    with torch.device("meta"):
        fusion = Fusion(FusionShape(text=(512,) * 3, vision=(640,) * 3))
    size = sum(parameter.numel() for parameter in fusion.cell.parameters()) + fusion.state.numel()
    assert abs(size - 25_222_144) < 4096


def test_what_stands_in_for_a_missing_modality_has_no_effect() -> None:
    torch.manual_seed(1)
    fusion = Fusion(SHAPE).eval()
    text = seen(2, 8, SHAPE.text, [0, 1], masked=True)
    other = seen(2, 8, SHAPE.text, [0, 1], masked=True)
    image = seen(2, 4, SHAPE.vision, [1, 0], masked=False)
    first, second = fusion(text, image), fusion(other, image)
    assert torch.equal(first[0], second[0]) and not torch.allclose(first[1], second[1])
    nothing = torch.zeros(2)
    blind = fusion(Seen(states=None, valid=None, present=nothing), Seen(states=None, valid=None, present=nothing))
    assert torch.equal(blind[0], blind[1])


def test_a_modality_that_no_item_has_may_be_left_out() -> None:
    torch.manual_seed(2)
    fusion = Fusion(SHAPE).eval()
    text = seen(2, 8, SHAPE.text, [1, 1], masked=True)
    black = seen(2, 4, SHAPE.vision, [0, 0], masked=False)
    without = Seen(states=None, valid=None, present=torch.zeros(2))
    torch.testing.assert_close(fusion(text, black), fusion(text, without))


def test_an_item_without_a_valid_token_is_a_number() -> None:
    fusion = Fusion(SHAPE)
    text = Seen(
        states=[torch.randn(2, 3, 6)] * 2, valid=torch.zeros(2, 3, dtype=torch.bool), present=torch.tensor([0.0, 1.0])
    )
    vectors = fusion(text, seen(2, 4, SHAPE.vision, [1, 1], masked=False))
    vectors.sum().backward()
    assert vectors.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


def test_the_mean_is_one_vector() -> None:
    from dataclasses import replace

    torch.manual_seed(3)
    pooled, whole = Fusion(replace(SHAPE, pooled=True)).eval(), Fusion(SHAPE).eval()
    whole.load_state_dict(pooled.state_dict())
    text, image = seen(2, 8, SHAPE.text, [1, 1], masked=True), seen(2, 4, SHAPE.vision, [1, 1], masked=False)
    raw: list[Tensor] = []
    whole.head.register_forward_hook(lambda _, __, out: raw.append(out))
    whole(text, image)
    torch.testing.assert_close(pooled(text, image)[:, 0], F.normalize(raw[0].mean(1), dim=-1))


def test_sizes_that_do_not_fit_are_named() -> None:
    from dataclasses import replace

    import pytest

    with pytest.raises(ConfigError, match="not divisible"):
        Fusion(replace(SHAPE, heads=3))
    with pytest.raises(ConfigError, match="pairs"):
        Fusion(replace(SHAPE, text=(6,)))
