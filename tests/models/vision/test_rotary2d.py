"""2D rotary positions by their invariants, on towers of four architectures, and across saving and loading."""

from __future__ import annotations

import copy

import pytest
import torch

from ablab.contract.failure import ConfigError
from ablab.models.hub import load_model
from ablab.models.vision.rotary2d import Turner, add_rotary_2d, grid_angles

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
TOWERS = {
    "clip": {"model_type": "clip_vision_model", "image_size": 32, **SIZE},
    "siglip": {"model_type": "siglip_vision_model", "image_size": 32, **SIZE},
    "dinov2": {
        "model_type": "dinov2",
        "image_size": 32,
        "mlp_ratio": 2,
        **{k: v for k, v in SIZE.items() if k[0] != "i"},
    },
    "internvl": {"model_type": "internvl_vision", "image_size": [32, 32], **SIZE, "patch_size": [8, 8]},
}


class Grid:
    def __init__(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)


def turned(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return Turner(Grid(rows, columns), theta=10000.0)(x, x)[0]


def test_a_score_depends_on_the_distance_alone_in_each_direction():
    torch.manual_seed(0)
    q, k = torch.randn(16), torch.randn(16)
    rows, columns = 5, 7
    every = [
        turned(v.expand(1, 1, rows * columns, 16), rows, columns)[0, 0].unflatten(0, (rows, columns)) for v in (q, k)
    ]
    scores = torch.einsum("abd,ced->abce", *every)
    for down in range(-4, 5):
        for right in range(-6, 7):
            same = [
                scores[a, b, a + down, b + right]
                for a in range(rows)
                for b in range(columns)
                if 0 <= a + down < rows and 0 <= b + right < columns
            ]
            torch.testing.assert_close(torch.stack(same), same[0].expand(len(same)), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores[0, 0, 0, 1], scores[0, 0, 1, 0])


def test_norms_stay_and_the_first_patch_and_what_precedes_it_do_not_turn():
    x = torch.randn(2, 3, 2 + 12, 16)
    y = turned(x, 3, 4)
    torch.testing.assert_close(x.norm(dim=-1), y.norm(dim=-1))
    assert torch.equal(x[:, :, :3], y[:, :, :3])
    assert not torch.allclose(x[:, :, 3:], y[:, :, 3:])


def test_angles_are_those_of_the_definition():
    angles = grid_angles(3, 5, 64)
    row, column, k = 2, 4, 7
    at = angles[row * 5 + column]
    f = 10000.0 ** (-2 * k / 32)
    assert at[k].item() == pytest.approx(row * f) and at[16 + k].item() == pytest.approx(column * f)
    assert torch.equal(at[:32], at[32:]) and (angles[0] == 0).all()


@pytest.mark.parametrize("name", TOWERS)
def test_towers_turn_and_with_one_patch_are_as_before(name):
    tower = load_model(_reference(name), kind="vision", seed=1)
    plain = copy.deepcopy(tower)
    hooks = add_rotary_2d(tower)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before, after = plain(pixel_values=pixels).last_hidden_state, tower(pixel_values=pixels).last_hidden_state
        assert before.shape == after.shape and not torch.allclose(before, after, atol=1e-5)
        hooks.turn = None
        torch.testing.assert_close(tower(pixel_values=pixels).last_hidden_state, before)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_both_implementations_agree(implementation):
    tower = load_model(_reference("clip"), kind="vision", seed=1)
    tower.set_attn_implementation(implementation)
    add_rotary_2d(tower)
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    other = load_model(_reference("clip"), kind="vision", seed=1)
    add_rotary_2d(other)
    with torch.no_grad():
        found = tower(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(found, other(pixel_values=pixels).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_a_saved_tower_is_turned_again_when_it_is_loaded(tmp_path):
    tower = load_model(_reference("siglip"), kind="vision", seed=1)
    add_rotary_2d(tower, theta=100.0)
    tower.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), kind="vision")
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found, expected = again(pixel_values=pixels).last_hidden_state, tower(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(found, expected)


def test_a_copy_turns_by_its_own_grid():
    tower = load_model(_reference("clip"), kind="vision", seed=1)
    add_rotary_2d(tower)
    other = copy.deepcopy(tower)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = tower(pixel_values=pixels).last_hidden_state
        other(pixel_values=torch.randn(1, 3, 16, 64), interpolate_pos_encoding=True)
        torch.testing.assert_close(tower(pixel_values=pixels).last_hidden_state, expected)
        torch.testing.assert_close(other(pixel_values=pixels).last_hidden_state, expected)


def test_gradients_flow_through():
    tower = load_model(_reference("dinov2"), kind="vision", seed=1)
    add_rotary_2d(tower)
    tower(pixel_values=torch.randn(1, 3, 32, 32)).last_hidden_state.sum().backward()
    assert all(p.grad is not None for n, p in tower.named_parameters() if "attention" in n)


def test_heads_that_do_not_fit_are_an_error():
    reference = _reference("clip", hidden_size=36, num_attention_heads=2)
    with pytest.raises(ConfigError, match="found 18"):
        add_rotary_2d(load_model(reference, kind="vision", seed=1))


def _reference(name: str, **changes: object):
    from ablab.contract.models import ModelReference

    return ModelReference(config=TOWERS[name] | changes)
