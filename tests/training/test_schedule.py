import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import optimization

from ablab.contract.training import Schedule
from ablab.training.schedule import factor

STEPS, WARMUP = 100, 10


def reference(make, **options):
    """The factors of a transformers schedule, through a real optimizer."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, num_warmup_steps=WARMUP, **options)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


CASES = {
    "constant": (optimization.get_constant_schedule_with_warmup, {}, {}),
    "linear": (optimization.get_linear_schedule_with_warmup, {"num_training_steps": STEPS}, {}),
    "cosine": (optimization.get_cosine_schedule_with_warmup, {"num_training_steps": STEPS}, {}),
    "cosine-restarts": (
        optimization.get_cosine_with_hard_restarts_schedule_with_warmup,
        {"num_training_steps": STEPS, "num_cycles": 3},
        {"cycles": 3},
    ),
    "warmup-stable-decay": (
        optimization.get_wsd_schedule,
        {"num_training_steps": STEPS, "num_decay_steps": 20, "decay_type": "linear"},
        {"decay_ratio": 0.2},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_schedules_are_those_of_transformers(name):
    make, theirs, ours = CASES[name]
    schedule = Schedule(name=name, warmup=WARMUP, **ours)
    assert [factor(schedule, step, STEPS) for step in range(STEPS)] == pytest.approx(reference(make, **theirs))


def test_cosine_is_torchs_annealing_down_to_the_final_share():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=0.1)
    for step in range(STEPS):
        expected = optimizer.param_groups[0]["lr"]
        assert factor(Schedule(name="cosine", final=0.1), step, STEPS) == pytest.approx(expected)
        optimizer.step()
        annealing.step()


@given(
    name=st.sampled_from(sorted(CASES)),
    steps=st.integers(1, 300),
    ratio=st.floats(0, 1),
    final=st.floats(0, 1),
    decay=st.floats(0.01, 1),
)
def test_factors_stay_within_zero_and_one(name, steps, ratio, final, decay):
    schedule = Schedule(name=name, warmup_ratio=ratio, final=final, decay_ratio=decay, cycles=2)
    assert all(0.0 <= factor(schedule, step, steps) <= 1.0 + 1e-12 for step in range(steps + 1))
