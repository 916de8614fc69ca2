"""Saving memory keeps the effective batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lab_of_tests import stage

from ablab.contract.order import Resources
from ablab.launch.shrink import shrink


@settings(deadline=None)
@given(batch=st.integers(1, 512), world=st.sampled_from([1, 2, 4]), first=st.none() | st.integers(1, 64))
def test_micro_batches_fall_by_half_or_more_and_divide_the_batch(batch: int, world: int, first: int | None) -> None:
    batch *= world
    train = stage("train", batch=batch)
    resources, sizes = Resources(world_size=world), []
    detail: dict[str, Any] = {} if first is None else {"micro_batch": first}
    while True:
        found = shrink(train, resources, detail)
        if found.resources is None:
            break
        resources, detail = found.resources, {}
        assert resources.micro_batch is not None
        sizes.append(resources.micro_batch)
        assert f"effective batch {batch} kept" in found.says
    share = batch // world
    assert all(share % size == 0 for size in sizes)
    assert all(later <= earlier // 2 for earlier, later in pairwise([first or share, *sizes]))
    # Nothing is given up before a micro-batch of one was tried.
    assert sizes[-1:] == ([1] if (first or share) > 1 else [])


def test_a_loss_that_couples_samples_keeps_its_batch() -> None:
    found = shrink(stage("contrast", batch=24), Resources(), {"micro_batch": 24})
    assert found.resources is not None
    assert (found.resources.loss_chunk, found.resources.micro_batch) == (12, None)
    assert shrink(stage("contrast", batch=24), Resources(loss_chunk=1), {}).resources is None


def test_evaluation_halves_its_own_batch() -> None:
    found = shrink(stage("evaluate", batch=8), Resources(), {})
    assert found.resources is not None and found.resources.evaluation_batch == 4
    told = shrink(stage("evaluate", batch=8), Resources(), {"evaluation_batch": 100})
    assert told.resources is not None and told.resources.evaluation_batch == 50
    assert shrink(stage("evaluate", batch=8), Resources(evaluation_batch=1), {}).resources is None


def test_memory_that_runs_out_in_validation_spares_the_micro_batch() -> None:
    found = shrink(stage("train", batch=8), Resources(micro_batch=8), {"evaluation_batch": 8, "phase": "validation"})
    assert found.resources == Resources(micro_batch=8, evaluation_batch=4)
