import pytest
import torch
from pydantic import ValidationError

from ablab.contract.failure import ConfigError
from ablab.contract.models import part_groups
from ablab.contract.training import Optimizer, ParameterGroup, Trainability
from ablab.models.parts import apply_trainability, part_table


@pytest.fixture
def pair(build):
    model = torch.nn.Module()
    model.tower = build("clip_vision")
    model.llm = build("llama", kind="causal")
    model.connector = torch.nn.Linear(32, 32)
    return model


def trained(model, prefix=""):
    return {name for name, p in model.named_parameters() if p.requires_grad and name.startswith(prefix)}


def test_unlocked_from_a_layer_trains_it_and_those_above_and_nothing_else(pair):
    apply_trainability(pair, {"tower": Trainability(mode="unlocked", from_layer=1)})
    names = {name for name, _ in pair.tower.named_parameters()}
    above = {f"tower.{name}" for name in names if name.startswith(("encoder.layers.1.", "encoder.layers.2."))}
    assert trained(pair, "tower.") == above and len(above) == 2 * 16
    with pytest.raises(
        ConfigError, match=r"parts.tower.from_layer 3 unlocks nothing: tower.encoder.layers has layers 0 to 2"
    ):
        apply_trainability(pair, {"tower": Trainability(mode="unlocked", from_layer=3)})


def test_a_part_that_is_not_there_names_those_that_are(pair):
    with pytest.raises(ConfigError, match=r"no part 'vision'; it has tower, llm, connector"):
        apply_trainability(pair, {"vision": Trainability(mode="frozen")})


def test_the_table_counts_every_parameter_once(pair):
    parts = {
        "tower": Trainability(mode="frozen"),
        "llm": Trainability(mode="lora", rank=4, targets=("q_proj", "v_proj"), learning_rate=2e-4),
    }
    rows = {row.part: row for row in apply_trainability(pair, parts)}
    total = sum(p.numel() for p in pair.parameters())
    assert sum(row.total for row in rows.values()) == total
    assert rows["tower"].trained == 0 and rows["(no part)"].trained == 32 * 32 + 32
    # rank x (in + out) for q (32 to 32) and v (32 to 16) in three layers
    assert rows["llm"].trained == 3 * 4 * ((32 + 32) + (32 + 16)) and rows["llm"].adapted == 6
    assert [row.part for row in part_table(pair, parts)] == ["tower", "llm", "(no part)"]
    assert all(".lora_" in name for name in trained(pair, "llm."))


def test_a_quantised_part_counts_numbers_not_bytes(pair):
    whole = sum(p.numel() for p in pair.llm.parameters())
    (row, *_) = apply_trainability(pair, {"llm": Trainability(mode="qlora", rank=2)})
    assert row.frozen == whole and row.trained > 0


def test_the_whole_model_can_be_a_part_and_an_encoder_decoder_needs_one_list_of_layers(build):
    model = build("t5", kind="seq2seq")
    (row,) = apply_trainability(model, {"all": Trainability(mode="lora", rank=2, targets=("wi_0",))})
    assert row.trained == 2 * 2 * 2 * (32 + 64)
    other = build("t5", kind="seq2seq")
    with pytest.raises(ConfigError, match=r"one list of layers; all has 2: all.encoder.block, all.decoder.block"):
        apply_trainability(other, {"all": Trainability(mode="unlocked", from_layer=1)})
    apply_trainability(other, {"encoder": Trainability(mode="unlocked", from_layer=1)})
    assert trained(other, "encoder.") and not any("block.0" in name for name in trained(other, "encoder."))


def test_rates_of_parts_become_rules_after_the_studys_own():
    optimizer = Optimizer(learning_rate=1e-3, groups=(ParameterGroup(pattern="*.bias", weight_decay=0.0),))
    parts = {"llm": Trainability(learning_rate=2e-5), "tower": Trainability(mode="frozen"), "connector": Trainability()}
    rules = part_groups(parts, optimizer)
    assert [rule.pattern for rule in rules] == ["*.bias", "llm.*"]
    assert rules[1].learning_rate == pytest.approx(0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "unlocked"},
        {"mode": "full", "from_layer": 3},
        {"mode": "frozen", "learning_rate": 1e-3},
        {"mode": "full", "targets": ["q_proj"]},
    ],
)
def test_options_that_do_not_belong_to_a_mode_are_refused(wrong):
    with pytest.raises(ValidationError):
        Trainability.model_validate(wrong)
