import pytest
import torch

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.models import ModelReference
from ablab.contract.training import Trainability
from ablab.models.hub import load_model
from ablab.models.parts import apply_trainability
from ablab.models.vision.tower import Tower

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
GRID = {"image_size": 28, "patch_size": 7}
#: model type: (configuration, tokens before the patches as the architecture's paper says)
TOWERS = {
    "clip_vision_model": ({**SHAPE, **GRID}, 1),
    "siglip_vision_model": ({**SHAPE, **GRID}, 0),
    "siglip2_vision_model": ({**SHAPE, "num_patches": 16, "patch_size": 7}, 0),
    "dinov2": ({**SHAPE, **GRID}, 1),
    "dinov2_with_registers": ({**SHAPE, **GRID, "num_register_tokens": 3}, 4),
    "vit": ({**SHAPE, **GRID}, 1),
}


def vision(name, seed=1):
    config = {k: v for k, v in TOWERS[name][0].items() if not (name.startswith("dino") and k == "intermediate_size")}
    return load_model(ModelReference(config={"model_type": name, **config}), kind="vision", seed=seed)


def inputs(name, pixels):
    if name != "siglip2_vision_model":
        return {"pixel_values": pixels}
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    patches = [torch.from_numpy(convert_image_to_patches(image.numpy(), 7)) for image in pixels]
    return {
        "pixel_values": torch.stack(patches),
        "pixel_attention_mask": torch.ones(len(pixels), 16, dtype=torch.int32),
        "spatial_shapes": torch.full((len(pixels), 2), 4),
    }


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("layer", [-1, -2, 1])
@pytest.mark.parametrize("name", TOWERS)
def test_features_are_the_hidden_states_of_the_patches_all_of_them(name, layer, pixels):
    whole, before = vision(name), TOWERS[name][1]
    states = whole(**inputs(name, pixels), output_hidden_states=True).hidden_states
    assert len(states) == 4 and states[0].size(1) == 16 + before
    tower = Tower(vision(name), layer=layer).eval()
    assert (tower.prefix, tower.tokens, tower.width) == (before, 16, 32)
    torch.testing.assert_close(tower(pixels), states[layer][:, before:], rtol=1e-5, atol=1e-6)
    kept = Tower(vision(name), layer=layer, cls="keep").eval()
    assert kept.tokens == 16 + before
    torch.testing.assert_close(kept(pixels), states[layer], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TOWERS)
def test_the_whole_tower_comes_back_as_it_was(name, pixels):
    plain = vision(name)
    tower = Tower(vision(name), layer=1)
    assert len(tower.unused) >= 2
    again = tower.whole().eval()
    assert again.state_dict().keys() == plain.state_dict().keys()
    given = inputs(name, pixels)
    torch.testing.assert_close(again(**given).last_hidden_state, plain(**given).last_hidden_state, rtol=0, atol=0)


def test_several_layers_stand_side_by_side(pixels):
    states = vision("clip_vision_model")(pixels, output_hidden_states=True).hidden_states
    tower = Tower(vision("clip_vision_model"), layer=(1, 3))
    assert tower.width == 64
    torch.testing.assert_close(tower(pixels), torch.cat([states[1][:, 1:], states[3][:, 1:]], dim=-1))


@pytest.mark.parametrize("name", TOWERS)
def test_every_parameter_that_trains_gets_a_gradient(name, pixels):
    model = torch.nn.Module()
    model.tower = Tower(vision(name), layer=-2)
    apply_trainability(model, {"tower": Trainability()})
    model.tower(pixels).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert all(name.startswith("tower.unused.") or name.endswith("mask_token") for name in frozen)


def test_a_frozen_tower_runs_without_graph_and_stays_in_evaluation(pixels):
    tower = Tower(vision("dinov2"), layer=-2)
    tower.requires_grad_(False)
    assert not tower(pixels.clone().requires_grad_()).requires_grad
    assert not tower.train().training
    apply_trainability(tower, {"all": Trainability(mode="unlocked", from_layer=1)})
    assert tower.train().training and tower(pixels).requires_grad


def test_layers_that_are_never_run_cannot_be_unlocked():
    model = torch.nn.Module()
    model.tower = Tower(vision("clip_vision_model"), layer=-2)
    with pytest.raises(ConfigError, match=r"from_layer 2 unlocks nothing: .* layers 0 to 1"):
        apply_trainability(model, {"tower": Trainability(mode="unlocked", from_layer=2)})


@pytest.mark.parametrize("layer", [4, -4, 0])
def test_a_layer_that_does_not_exist_is_refused(layer):
    with pytest.raises(ConfigError, match=f"feature layer {layer} of tower does not exist: it has 3 layers"):
        Tower(vision("clip_vision_model"), layer=layer)


def test_images_of_another_size_are_refused(pixels):
    with pytest.raises(DataError, match=r"takes images of \(3, 28, 28\), found \(3, 28, 14\)"):
        Tower(vision("clip_vision_model"))(pixels[..., :14])
