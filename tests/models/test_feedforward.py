"""The feed-forward layer in blocks is that of transformers, forward and backward, whatever is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ablab.models import feedforward
from ablab.models.feedforward import FeedForward, use_blocks


def clip_layer(*, bias: bool = True) -> tuple[nn.Module, FeedForward]:
    """Return transformers' layer, and ours with the same modules."""
    from transformers import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPMLP

    torch.manual_seed(0)
    plain = CLIPMLP(CLIPVisionConfig(hidden_size=12, intermediate_size=20))
    if not bias:
        plain.fc1.bias = plain.fc2.bias = None
    return plain, FeedForward(**dict(plain.named_children()))


def results(layer: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], x: Tensor) -> list[Tensor]:
    """Return what a layer gives, and the gradients of its input and parameters."""
    x = x.clone().requires_grad_()
    out = layer(x)
    weights = torch.linspace(-1, 2, out.numel()).view_as(out)
    wanted = [x, *(parameter for parameter in parameters if parameter.requires_grad)]
    return [out, *torch.autograd.grad((out * weights).sum(), wanted)]


@pytest.mark.parametrize("block", [1, 20 * 4, 1 << 17])
@pytest.mark.parametrize("bias", [True, False])
def test_blocks_give_what_the_layer_gives(monkeypatch: pytest.MonkeyPatch, block: int, bias: bool) -> None:
    monkeypatch.setattr(feedforward, "BLOCK", block)
    plain, blocks = clip_layer(bias=bias)
    x = torch.randn(3, 7, 12)
    parameters = list(plain.parameters())
    assert len(parameters) == (4 if bias else 2)
    for found, expected in zip(results(blocks, parameters, x), results(plain, parameters, x), strict=True):
        torch.testing.assert_close(found, expected)


def test_frozen_weights_pass_the_gradient_on() -> None:
    plain, blocks = clip_layer()
    plain.fc1.requires_grad_(False)
    parameters, x = list(plain.parameters()), torch.randn(2, 5, 12)
    for found, expected in zip(results(blocks, parameters, x), results(plain, parameters, x), strict=True):
        torch.testing.assert_close(found, expected)
    plain.requires_grad_(False)
    assert not blocks(x).requires_grad
    torch.testing.assert_close(blocks(x), plain(x))


def test_under_autocast_the_modules_run_as_they_are() -> None:
    plain, blocks = clip_layer()
    x = torch.randn(2, 3, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(blocks(x), plain(x)) and blocks(x).dtype == torch.bfloat16


def test_a_tower_keeps_names_weights_and_results() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                              image_size=8, patch_size=4)  # fmt: skip
    tower = CLIPVisionModel(config).eval()
    pixels = torch.randn(2, 3, 8, 8)
    before, weights = tower(pixel_values=pixels).last_hidden_state, dict(tower.state_dict())
    use_blocks(tower)
    assert sum(isinstance(module, FeedForward) for module in tower.modules()) == 2
    assert tower.state_dict().keys() == weights.keys()
    torch.testing.assert_close(tower(pixel_values=pixels).last_hidden_state, before)
    # An adapter's layer in the place of a linear one is called as it is.
    for module in tower.modules():
        if isinstance(module, FeedForward):
            module.fc1 = nn.Sequential(module.fc1)
    torch.testing.assert_close(tower(pixel_values=pixels).last_hidden_state, before)


def test_other_activations_are_left_alone() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                              image_size=8, patch_size=4, hidden_act="gelu")  # fmt: skip
    tower = use_blocks(CLIPVisionModel(config))
    assert not any(isinstance(module, FeedForward) for module in tower.modules())
