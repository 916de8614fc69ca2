"""Tapped layers are what transformers says they are, of transformers and of convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ablab.contract.failure import ConfigError
from ablab.contract.models import ModelReference
from ablab.models.hub import load_model
from ablab.models.taps import TappedTower, layer_list, resolve_taps, spread
from ablab.models.towers import OpenClipText, TextInput, VisionInput

TEXT = {"model_type": "clip_text_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "max_position_embeddings": 12, "vocab_size": 50}  # fmt: skip
VISION = {"model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 4,
          "num_attention_heads": 2, "image_size": 16, "patch_size": 8}  # fmt: skip
PIXELS = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
WORDS = {"ids": torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0)),
         "mask": torch.tensor([[True] * 7, [True] * 4 + [False] * 3])}  # fmt: skip


def vision_input(model: nn.Module) -> VisionInput:
    return VisionInput(model, named=True, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


def test_layers_are_spread_evenly_and_end_with_the_last() -> None:
    assert spread(3, 12) == (3, 7, 11)
    assert spread(3, 9) == (2, 5, 8)
    assert spread(1, 9) == (8,) and spread(5, 5) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("wanted", ["last", "thirds", "all"])
def test_words_for_taps_come_in_pairs(wanted: str) -> None:
    text, vision = resolve_taps(wanted, text_depth=9, vision_depth=12)
    assert len(text) == len(vision) and text[-1] == 8 and vision[-1] == 11
    assert list(text) == sorted(set(text)) and list(vision) == sorted(set(vision))


def test_a_layer_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    """The text tower of TinyCLIP-61M has 9 layers; the first run tapped its layer 11."""
    with pytest.raises(
        ConfigError, match=r"9 layers, so there is no layer 11; valid taps are 0 to 8, for example 2, 5, 8"
    ):
        resolve_taps(((3, 7, 11), (3, 7, 11)), text_depth=9, vision_depth=12)
    with pytest.raises(ConfigError, match="rising"):
        resolve_taps(((5, 2), (3, 7)), text_depth=9, vision_depth=12)
    with pytest.raises(ConfigError, match="in pairs"):
        resolve_taps(((2, 5), (3, 7, 11)), text_depth=9, vision_depth=12)


def test_taps_of_a_transformer_are_its_hidden_states() -> None:
    text = load_model(ModelReference(config=TEXT), kind="text", seed=1)
    expected = text(
        input_ids=WORDS["ids"], attention_mask=WORDS["mask"].long(), output_hidden_states=True
    ).hidden_states
    tower = TappedTower(TextInput(text, masked=True), probe=WORDS)
    assert tower.depth == 3 and tower.widths == (16,) * 3
    for mine, theirs in zip(tower(**WORDS), expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs)

    vision = load_model(ModelReference(config=VISION), kind="vision", seed=1)
    pixels = (PIXELS.float() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    expected = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
    tower = TappedTower(vision_input(vision), probe={"pixels": PIXELS[:1]}).tap((1, 2))
    assert len(vision.encoder.layers) == 3
    found = tower(pixels=PIXELS)
    torch.testing.assert_close(found[0], expected[2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[3], atol=1e-5, rtol=1e-5)


def test_a_convolution_is_tapped_by_stage() -> None:
    config = {"model_type": "convnext", "patch_size": 4, "num_stages": 4, "hidden_sizes": [8, 12, 16, 20],
              "depths": [1, 1, 1, 1]}  # fmt: skip
    model = load_model(ModelReference(config=config), kind="vision", seed=1)
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).byte()
    tower = TappedTower(vision_input(model), probe={"pixels": pixels[:1]})
    assert (tower.depth, tower.widths, tower.tokens) == (4, (8, 12, 16, 20), (64, 16, 4, 1))
    values = (pixels.float() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    maps = model(pixel_values=values, output_hidden_states=True).hidden_states
    found = tower(pixels=pixels)
    torch.testing.assert_close(found[1], maps[2].flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_a_tower_of_open_clip_is_read_through_its_blocks() -> None:
    """A stand-in built as open_clip builds: blocks in `transformer.resblocks`, text in one module with vision."""

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.resblocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

        def forward(self, x, attn_mask=None):
            for block in self.resblocks:
                x = block(x)
            return x

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_embedding, self.transformer = nn.Embedding(50, 8), Transformer()
            self.positional_embedding = nn.Parameter(torch.randn(7, 8))
            self.attn_mask = torch.zeros(7, 7)

    model = Model()
    tower = TappedTower(TextInput(OpenClipText(model), masked=False), probe=WORDS).tap((0, 2))
    start = model.token_embedding(WORDS["ids"]) + model.positional_embedding
    torch.testing.assert_close(tower(**WORDS)[0], model.transformer.resblocks[0](start))


def test_a_module_without_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="no list of layers"):
        layer_list(nn.Linear(2, 2))


class ResNet(nn.Module):
    """Stages that are numbered, as torchvision and open_clip build them, each a list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.layer3 = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.head(x.mean((2, 3)))


def test_numbered_stages_are_tapped() -> None:
    model, pixels = ResNet(), torch.randn(2, 3, 16, 16)
    tower = TappedTower(model, probe={"x": pixels[:1]})
    assert tower.depth == 3 and tower.widths == (4, 8, 16) and tower.tokens == (64, 16, 4)
    tower.tap((0, 1)).freeze_unread()
    first, second = tower(x=pixels)
    one = model.layer1(model.stem(pixels))
    torch.testing.assert_close(first, one.flatten(2).transpose(1, 2))
    torch.testing.assert_close(second, model.layer2(one).flatten(2).transpose(1, 2))
    frozen = {name.split(".")[0] for name, each in model.named_parameters() if not each.requires_grad}
    assert frozen == {"layer3", "head"}, "what no tap reaches"
