"""An order holds all its worker needs, and what a resumed run keeps of its first attempt."""

from __future__ import annotations

import pytest
from lab_of_tests import Lab, experiment, stage

from ablab.contract.order import Numerics, Order, Resources
from ablab.launch.orders import Common, Kept, build_order, kept, next_resources
from ablab.store.files import write_json


def test_an_order_is_complete_and_survives_its_file(lab: Lab) -> None:
    plan = lab.ask(experiment("A", stage("prepare"), stage("train", "prepare", batch=4)), seeds=(7,))
    run = plan.run_of("A", 7, "train")
    assert run is not None
    common = Common(source="/frozen", study_folder="/study", deadline=12.5, track=("wandb",))
    order = build_order(
        run, plan=plan, store=lab.store, common=common, resources=Resources(threads=2, micro_batch=2), attempt=3
    )
    assert Order.model_validate_json(order.model_dump_json()) == order
    assert (order.key, order.stage, order.kind, order.seed, order.attempt) == (run.key, "train", "train", 7, 3)
    assert order.parameters["batch"] == 4 and order.parameters["steps"] == 3
    assert order.folder == str(lab.store.run(run.name).path)
    (given,) = order.inputs
    prepare = plan.run_of("A", 7, "prepare")
    assert prepare is not None
    assert (given.key, given.reference, given.path) == (
        prepare.key,
        "prepare",
        str(lab.store.run(prepare.name).path),
    )
    assert (order.source, order.study_folder, order.deadline, order.track) == ("/frozen", "/study", 12.5, ("wandb",))


@pytest.mark.parametrize(
    ("wanted", "numerics", "threads", "keeps"),
    [
        (Resources(threads=2), None, 2, False),
        (Resources(threads=2), Numerics(threads=4), 4, True),
        (Resources(threads=2), Numerics(threads=99), 8, True),
        (Resources(threads=2, devices=(0,)), Numerics(threads=4), 2, False),
        (Resources(threads=2, devices=(0,)), Numerics(threads=4, device="cuda"), 4, True),
        (Resources(threads=2), Numerics(threads=4, device="cuda"), 2, False),
    ],
)
def test_numerics_are_kept_on_the_same_kind_of_device(
    wanted: Resources, numerics: Numerics | None, threads: int, keeps: bool
) -> None:
    resources, found = next_resources(wanted, Kept(numerics=numerics), machine=8)
    assert resources.threads == threads
    assert (found is not None) is keeps
    if found is not None:
        assert found.threads == threads


def test_saved_memory_is_kept_on_the_same_kind_of_device() -> None:
    before = Resources(micro_batch=2, evaluation_batch=3, loss_chunk=4, threads=7)
    same, _ = next_resources(Resources(threads=2), Kept(resources=before), machine=8)
    assert same == Resources(threads=2, micro_batch=2, evaluation_batch=3, loss_chunk=4)
    other, _ = next_resources(Resources(devices=(1,)), Kept(resources=before), machine=8)
    assert other == Resources(devices=(1,))


def test_the_first_record_that_can_be_read_is_the_one(lab: Lab) -> None:
    folder = lab.store.run("train-1").create()
    assert kept(folder) == Kept()
    for number, threads in ((1, None), (2, 5), (3, 6)):
        attempt = folder.attempt(number).create()
        if threads is None:
            (attempt.path / "numerics.json").write_text("{")
        else:
            write_json(attempt.path / "numerics.json", {"format": 1, **Numerics(threads=threads).model_dump()})
    # Without a checkpoint nothing is resumed.
    assert kept(folder).numerics is None
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    found = kept(folder).numerics
    assert found is not None and found.threads == 5
    folder.order_path.write_text("{")
    assert kept(folder).resources is None
