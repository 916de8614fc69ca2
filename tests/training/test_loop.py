import json
import math
import random

import numpy as np
import pytest
import torch

from ablab.contract.failure import ConfigError, DataError, NotFiniteError, OutOfMemoryError, StopRequested
from ablab.contract.order import Resources
from ablab.contract.seeds import stream_seed
from ablab.contract.training import ParameterGroup, Train
from ablab.training.checkpoint import name_of
from ablab.training.loop import train
from ablab.training.retention import find
from ablab.training.schedule import factor

PLAN = {
    "steps": 24,
    "batch": 8,
    "log_every": 5,
    "validation": {"every": 6},
    "checkpoints": {"every": 4},
    "schedule": {"name": "cosine", "warmup": 3},
    "optimizer": {"learning_rate": 0.01},
}


def weights(context):
    from ablab.training.weights import load_tensors

    return load_tensors(find(context.checkpoints, "last") / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def curve(*contexts):
    """Logged lines and validations of the attempts at one run, superseded ones dropped as the store does."""
    merged = []
    for context in contexts:
        start = context.lines("start")[-1]["step"]
        merged = [event for event in merged if event["step"] <= start]
        merged += [
            {key: value for key, value in event.items() if key != "seconds"}
            for event in context.events
            if event["e"] in ("step", "validation")
        ]
    return merged


@pytest.mark.parametrize("kind", ["regression", "characters"])
def test_the_loop_is_a_plain_loop_in_torch(kind, run_train, make_code):
    """The same updates written out by hand: order of data, dropout stream, weighting, clipping, schedule."""
    outcome, context = run_train(model={"kind": kind}, **PLAN)
    parameters = Train.model_validate(PLAN)
    code = make_code(kind=kind)
    model, data = code.model(seed=1), code.data("train")
    trained = [p for p in model.parameters() if p.requires_grad]
    decay = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01}]
    decay += [{"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decay, lr=1.0)
    stream = np.concatenate([data.order(1, epoch) for epoch in range(10)])
    losses = []
    for step in range(24):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * factor(parameters.schedule, step, 24)
        batch = data.batch(stream[step * 8 : step * 8 + 8], seed=1, step=step)
        torch.manual_seed(stream_seed(1, "dropout", step, 0))
        found = code.losses(model, batch)
        optimizer.zero_grad()
        (found.total / found.weight).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append((found.total.item(), found.weight))
    expected = dict(model.named_parameters())
    for name, tensor in weights(context).items():
        torch.testing.assert_close(tensor, expected[name].detach(), rtol=1e-5, atol=1e-6)
    line = context.lines("step")[0]
    assert line["loss"] == pytest.approx(sum(t for t, _ in losses[:5]) / sum(w for _, w in losses[:5]), rel=1e-5)
    assert line["tokens"] == sum(w for _, w in losses[:5])
    assert outcome.facts["tokens.seen"] == sum(w for _, w in losses)


def test_equal_runs_are_equal_to_the_last_bit(run_train):
    _, one = run_train("one", **PLAN)
    _, two = run_train("two", **PLAN)
    assert same(weights(one), weights(two)) and curve(one) == curve(two)


@pytest.mark.parametrize("kind", ["regression", "characters"])
def test_resumed_is_uninterrupted_bit_for_bit(kind, make_context, make_code, run_train):
    model = {"kind": kind, "dropout": 0.2}
    outcome, whole = run_train("whole", model=model, **PLAN)
    rng = random.Random(kind)
    attempts = []
    for _ in range(100):
        # A stop is asked between steps and inside validations; where it comes is drawn anew each time.
        context = make_context("cut", stop_at=rng.randint(2, 9))
        attempts.append(context)
        try:
            resumed = train(make_code(**model), Train.model_validate(PLAN), context)
            break
        except StopRequested:
            continue
    assert len(attempts) > 3
    assert same(weights(whole), weights(context))
    assert curve(whole) == curve(*attempts)
    assert resumed.metrics == outcome.metrics and resumed.best == outcome.best
    assert resumed.facts == outcome.facts
    assert json.loads((whole.checkpoints / "index.json").read_text()) == json.loads(
        (context.checkpoints / "index.json").read_text()
    )


def test_a_damaged_checkpoint_falls_back_and_ends_the_same(make_context, make_code, run_train):
    outcome, whole = run_train("whole", **PLAN)
    with pytest.raises(StopRequested):
        train(make_code(), Train.model_validate(PLAN), make_context("cut", stop_at=17))
    context = make_context("cut")
    newest = max(context.checkpoints.glob("step-*"))
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-1])
    resumed = train(make_code(), Train.model_validate(PLAN), context)
    assert 0 < context.lines("start")[0]["step"] < int(newest.name[5:])
    assert newest.name in context.lines("message")[0]["text"]
    assert same(weights(whole), weights(context)) and resumed.metrics == outcome.metrics


def test_cadence_of_logs_and_checkpoints_changes_no_result(run_train):
    base, one = run_train("one", **PLAN)
    other, two = run_train("two", **(PLAN | {"log_every": 1, "checkpoints": {"every": 1, "keep_every": 9, "best": 3}}))
    assert same(weights(one), weights(two))
    assert base.metrics["val/loss"] == other.metrics["val/loss"] and base.best == other.best
    values = {event["step"]: event["values"]["val/loss"] for event in two.lines("validation")}
    best = sorted(values, key=lambda step: values[step])[:3]
    assert {path.name for path in two.checkpoints.glob("step-*")} == {name_of(s) for s in (9, 18, 24, *best)}


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_accumulation_is_the_full_batch(micro, run_train):
    """Weights differ from sample to sample, so a mean of micro-batch means would be seen."""
    full, one = run_train("full", model={"dropout": 0.0}, **PLAN)
    parts, two = run_train("parts", model={"dropout": 0.0}, **(PLAN | {"micro_batch": micro}))
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, rtol=1e-4, atol=1e-5)
    assert parts.metrics["val/loss"] == pytest.approx(full.metrics["val/loss"], rel=1e-5)
    assert parts.facts["tokens.seen"] == full.facts["tokens.seen"]


def test_frozen_parameters_stay_and_trained_ones_move(run_train, make_code):
    groups = [{"pattern": "inner.*", "frozen": True}]
    _, context = run_train(**(PLAN | {"optimizer": {"groups": groups}}))
    before = make_code().model(seed=1).state_dict()
    moved = {name: not torch.equal(tensor, before[name]) for name, tensor in weights(context).items()}
    assert moved == {
        "inner.weight": False,
        "inner.bias": False,
        "frozen.weight": False,
        "norm.weight": True,
        "norm.bias": True,
        "head.weight": True,
        "head.bias": True,
    }


def test_a_loss_that_is_not_finite_names_step_batch_and_sample(make_context, make_code):
    context = make_context()
    code = make_code(poison=13)
    with pytest.raises(NotFiniteError) as caught:
        train(code, Train.model_validate(PLAN | {"micro_batch": 3}), context)
    order = code.data("train").order(1, 0)
    step = int(np.flatnonzero(order == 13)[0]) // 8
    assert caught.value.detail["step"] == step
    assert sorted(caught.value.detail["samples"]) == sorted(order[step * 8 : step * 8 + 8].tolist())
    assert caught.value.detail["culprits"] == [13]
    assert all(int(path.name[5:]) <= step for path in context.checkpoints.glob("step-*"))


def test_an_error_of_the_data_comes_through_as_it_is(make_context, make_code):
    with pytest.raises(DataError, match=r"rows\.csv, row 7"):
        train(make_code(poison=-2), Train.model_validate(PLAN), make_context())


def test_validation_is_a_sum_over_the_split_whatever_its_batch(run_train, make_code):
    outcome, context = run_train("a", **(PLAN | {"validation": {"batch": 3}}))
    other, _ = run_train("b", **(PLAN | {"validation": {"batch": 20}}))
    code = make_code()
    model = code.model(seed=1)
    model.load_state_dict(weights(context))
    data = code.data("val")
    whole = code.losses(model.eval(), data.batch(np.arange(data.samples), seed=0, step=0))
    assert outcome.metrics["val/loss"] == pytest.approx(whole.total.item() / whole.weight, rel=1e-5)
    assert other.metrics["val/loss"] == pytest.approx(outcome.metrics["val/loss"], rel=1e-6)


def test_a_part_of_the_split_is_counted_in_effective_batches(run_train, make_code):
    outcome, context = run_train(**(PLAN | {"validation": {"batches": 2, "batch": 5}}))
    code = make_code()
    model = code.model(seed=1)
    model.load_state_dict(weights(context))
    part = code.losses(model.eval(), code.data("val").batch(np.arange(16), seed=0, step=0))
    assert outcome.metrics["val/loss"] == pytest.approx(part.total.item() / part.weight, rel=1e-5)


def test_early_stopping_waits_for_patience_and_survives_a_stop(run_train, make_context, make_code):
    plan = PLAN | {
        "steps": 60,
        "validation": {"every": 2},
        "early_stopping": {"patience": 3, "minimum": 10.0},
        "checkpoints": {"every": 5},
    }
    outcome, context = run_train("whole", **plan)
    # No later value is better by ten, so the first counts and three more are waited for.
    assert [event["step"] for event in context.lines("validation")] == [2, 4, 6, 8]
    assert outcome.facts["stopped.early"] is True and outcome.facts["steps.done"] == 8
    assert context.lines("step")[-1]["step"] == 8
    with pytest.raises(StopRequested):
        train(make_code(), Train.model_validate(plan), make_context("cut", stop_at=11))
    resumed = train(make_code(), Train.model_validate(plan), make_context("cut"))
    assert resumed.metrics == outcome.metrics and resumed.facts == outcome.facts


def test_epochs_become_whole_steps(run_train):
    outcome, _ = run_train(steps=None, epochs=2)
    assert outcome.facts["steps.done"] == 2 * 50 // 8
    assert outcome.facts["epochs.seen"] == pytest.approx(12 * 8 / 50)


def test_a_metric_that_validation_does_not_yield_is_named(make_context, make_code):
    with pytest.raises(ConfigError, match=r"checkpoints\.metric is 'val/ppl'.*val/loss"):
        train(make_code(), Train.model_validate(PLAN | {"checkpoints": {"metric": "val/ppl"}}), make_context())


def test_best_follows_the_direction_of_each_metric(make_context, make_code):
    context = make_context()
    outcome = train(
        make_code(kind="characters"),
        Train.model_validate(PLAN),
        context,
        direction=lambda name: "higher" if name.endswith("accuracy") else "lower",
    )
    values = [event["values"] for event in context.lines("validation")]
    assert outcome.best["val/accuracy"].value == max(v["val/accuracy"] for v in values)
    assert outcome.best["val/loss"].value == min(v["val/loss"] for v in values)


def test_out_of_memory_says_with_how_many_samples(make_context, make_code):
    resources = Resources(micro_batch=4)
    with pytest.raises(OutOfMemoryError) as caught:
        train(make_code(hog=1 << 50), Train.model_validate(PLAN), make_context(resources=resources))
    assert caught.value.detail == {"micro_batch": 4}


def test_no_clipping_leaves_the_gradients_alone(run_train):
    _, free = run_train("free", **(PLAN | {"clip": None}))
    _, loose = run_train("loose", **(PLAN | {"clip": 1e9}))
    _, tight = run_train("tight", **(PLAN | {"clip": 1e-3, "optimizer": {"name": "sgd", "learning_rate": 0.01}}))
    assert same(weights(free), weights(loose))
    assert tight.lines("step")[0]["grad_norm"] > 1e-3


def test_bfloat16_computes_in_autocast_over_fp32_weights(run_train):
    full, context = run_train("full", **PLAN)
    half, other = run_train("half", **(PLAN | {"precision": "bf16"}))
    assert half.facts["precision"] == "bf16" and full.facts["precision"] == "fp32"
    assert all(tensor.dtype == torch.float32 for tensor in weights(other).values())
    assert not same(weights(context), weights(other))
    assert half.metrics["val/loss"] == pytest.approx(full.metrics["val/loss"], rel=0.05)


def test_a_device_that_cannot_is_told(run_train):
    with pytest.raises(ConfigError, match="fp16"):
        run_train(precision="fp16")


def test_gradient_checkpointing_needs_a_model_that_knows_it(run_train):
    with pytest.raises(ConfigError, match="gradient_checkpointing_enable"):
        run_train(gradient_checkpointing=True)


def test_step_statistics_say_what_they_leave_out(run_train):
    outcome, _ = run_train(**PLAN)
    assert outcome.steps["excluded"] + outcome.steps["counted"] == 24 and outcome.steps["excluded"] == 2
    assert 0 < outcome.steps["median"] <= outcome.steps["p95"]
    assert math.isclose(outcome.steps["per_second"], 1 / outcome.steps["median"])


def test_a_group_with_its_own_rate_moves_at_that_rate(run_train):
    """With SGD and no clipping, one step moves a parameter by rate x multiplier x gradient."""
    common = {"steps": 1, "clip": None, "schedule": {"name": "constant"}}
    groups = [ParameterGroup(pattern="head.*", learning_rate=0.25).model_dump()]
    sgd = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.0}
    _, plain = run_train("plain", **common, optimizer=sgd)
    _, scaled = run_train("scaled", **common, optimizer=sgd | {"groups": groups})
    _, still = run_train("still", **common, optimizer=sgd | {"groups": [{"pattern": "head.*", "frozen": True}]})
    whole = weights(plain)["head.weight"] - weights(still)["head.weight"]
    quarter = weights(scaled)["head.weight"] - weights(still)["head.weight"]
    torch.testing.assert_close(quarter, whole / 4, rtol=1e-4, atol=1e-7)
    assert torch.equal(weights(scaled)["inner.weight"], weights(plain)["inner.weight"])
