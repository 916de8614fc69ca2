import pytest
import torch
from torch import nn

from ablab.contract.failure import ConfigError
from ablab.contract.training import Optimizer, ParameterGroup
from ablab.training.optimizer import (
    build_optimizer,
    freeze,
    load_state_tensors,
    set_rate,
    state_tensors,
    trained_parameters,
)

CPU = torch.device("cpu")


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def groups_of(optimizer, net):
    """(scale, decay) by parameter name."""
    names = {id(p): name for name, p in net.named_parameters()}
    return {names[id(p)]: (g["scale"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_a_pattern_that_matches_nothing_names_the_nearest_parameters():
    with pytest.raises(ConfigError, match=r"groups\[1\].*'0.weigth'.*0\.weight") as caught:
        freeze(model(), [ParameterGroup(pattern="2.*"), ParameterGroup(pattern="0.weigth")])
    assert "0.weight" in caught.value.detail["nearest"]


def test_the_first_matching_rule_wins_and_matrices_alone_decay():
    net = model()
    rules = (ParameterGroup(pattern="0.*", learning_rate=0.5), ParameterGroup(pattern="*.weight", weight_decay=0.3))
    settings = Optimizer(weight_decay=0.1, groups=rules)
    optimizer = build_optimizer(dict(net.named_parameters()), settings, device=CPU)
    assert groups_of(optimizer, net) == {
        "0.weight": (0.5, 0.1),
        "0.bias": (0.5, 0.0),
        "1.weight": (1.0, 0.3),
        "1.bias": (1.0, 0.0),
        "2.weight": (1.0, 0.3),
        "2.bias": (1.0, 0.0),
    }


def test_decay_all_decays_every_parameter():
    net = model()
    optimizer = build_optimizer(dict(net.named_parameters()), Optimizer(weight_decay=0.1, decay="all"), device=CPU)
    assert set(groups_of(optimizer, net).values()) == {(1.0, 0.1)}


def test_frozen_parameters_are_left_out_and_freezing_all_is_an_error():
    net = model()
    freeze(net, [ParameterGroup(pattern="0.*", frozen=True)])
    assert set(trained_parameters(net)) == {"1.weight", "1.bias", "2.weight", "2.bias"}
    freeze(net, [ParameterGroup(pattern="*", frozen=True)])
    with pytest.raises(ConfigError, match="nothing to train"):
        trained_parameters(net)


def step(net, optimizer, seed):
    torch.manual_seed(seed)
    net(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("settings", [Optimizer(), Optimizer(name="sgd", momentum=0.9)])
def test_an_update_is_torchs_own_with_the_rates_of_each_group(settings):
    settings = settings.model_copy(update={"groups": (ParameterGroup(pattern="2.*", learning_rate=0.1),)})
    ours, theirs = model(), model()
    optimizer = build_optimizer(dict(ours.named_parameters()), settings, device=CPU)
    rate, decay = 0.02, settings.weight_decay
    wanted = [
        {"params": [theirs[0].weight], "lr": rate, "weight_decay": decay},
        {"params": [theirs[0].bias, *theirs[1].parameters()], "lr": rate, "weight_decay": 0.0},
        {"params": [theirs[2].weight], "lr": rate * 0.1, "weight_decay": decay},
        {"params": [theirs[2].bias], "lr": rate * 0.1, "weight_decay": 0.0},
    ]
    make = torch.optim.AdamW if settings.name == "adamw" else lambda g: torch.optim.SGD(g, lr=1.0, momentum=0.9)
    reference = make(wanted)
    for seed in range(3):
        set_rate(optimizer, rate)
        step(ours, optimizer, seed)
        step(theirs, reference, seed)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_state_survives_as_named_tensors_bit_for_bit():
    first, second = model(), model()
    one = build_optimizer(dict(first.named_parameters()), Optimizer(), device=CPU)
    step(first, one, 0)
    two = build_optimizer(dict(second.named_parameters()), Optimizer(), device=CPU)
    second.load_state_dict(first.state_dict())
    load_state_tensors(two, dict(second.named_parameters()), state_tensors(one, dict(first.named_parameters())))
    step(first, one, 1)
    step(second, two, 1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_state_of_a_parameter_that_is_not_trained_is_refused():
    net = model()
    optimizer = build_optimizer(dict(net.named_parameters()), Optimizer(), device=CPU)
    with pytest.raises(ConfigError, match="'other'"):
        load_state_tensors(optimizer, dict(net.named_parameters()), {"other::exp_avg": torch.zeros(1)})
