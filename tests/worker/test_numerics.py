"""What a stage without a precision of its own computes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ablab.contract.order import Input, Numerics, Order
from ablab.contract.result import Result
from ablab.store.layout import RunFolder, Store
from ablab.worker.numerics import decide


def order_of(run: RunFolder, kind: str, *inputs: RunFolder, **parameters: Any) -> Order:
    given = tuple(Input(reference=i.stage, stage=i.stage, kind=i.stage, key=i.key, path=str(i.path)) for i in inputs)
    return Order(
        key=run.key, stage=run.stage, kind=kind, folder=str(run.path), task="t", study="s", profile="full",
        experiment="A", parameters=parameters, inputs=given,
    )  # fmt: skip


def done(store: Store, name: str, *inputs: RunFolder, ran: str, device: str = "cpu", asked: str | None = None) -> Any:
    """A finished run: the precision it ran in, and the one its parameters name, if any."""
    run = store.run(name).create()
    run.write_order(order_of(run, run.stage, *inputs, **({} if asked is None else {"precision": asked})))
    run.write_result(Result(key=run.key, numerics=Numerics(device=device, precision=ran)))
    return run


def decided(store: Store, *inputs: RunFolder, **parameters: Any) -> str | None:
    order = order_of(store.run("evaluate-1"), "evaluate", *inputs, **parameters)
    return decide(order, torch.device("cpu")).precision


@pytest.mark.parametrize("trained", ["bf16", "fp32"])
def test_an_evaluation_computes_as_training_did_whatever_prepared_the_data(tmp_path: Path, trained: str) -> None:
    store = Store(tmp_path / "lab")
    prepare = done(store, "prepare-1", ran="fp32")
    train = done(store, "train-1", prepare, ran=trained, asked=trained)
    assert decided(store, prepare, train) == decided(store, train, prepare) == trained
    # What lies between has no precision of its own either, and computed as the run it read.
    between = done(store, "index-1", prepare, train, ran=trained)
    assert decided(store, prepare, between) == trained
    other = done(store, "mine-1", prepare, ran="fp32")
    assert decided(store, prepare, other, train) == trained


def test_a_precision_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    store = Store(tmp_path / "lab")
    train = done(store, "train-1", ran="bf16", asked="auto")
    assert decided(store, train, precision="fp32") == "fp32"


def test_nothing_that_speaks_is_the_default_of_the_device(tmp_path: Path) -> None:
    store = Store(tmp_path / "lab")
    prepare = done(store, "prepare-1", ran="bf16")
    elsewhere = done(store, "train-1", prepare, ran="bf16", asked="bf16", device="cuda")
    assert decided(store, prepare, elsewhere) == "fp32"
