import json

import pytest

from ablab.contract.failure import EXIT_DONE, EXIT_FAILED
from ablab.contract.order import Input
from ablab.contract.result import Best, Result

SWEEP = {"pipeline.train.optimizer.learning_rate": [0.1, 0.2], "model.width": [8, 16]}


@pytest.fixture
def make_trial(make_run):
    """A finished trial with given values, without training."""

    def make(rate, width, last, best, seed):
        run = make_run(
            f"train-{rate}x{width}x{seed}",
            parameters={"optimizer": {"learning_rate": rate}},
            model={"width": width},
            seed=seed,
        )
        values = {"val/loss": last}
        run.write_result(Result(key=run.key, metrics=values, best={"val/loss": Best(value=best, step=1)}))
        swept = {"model.width": width, "pipeline.train.optimizer.learning_rate": rate}
        return Input(reference=json.dumps(swept), stage="train", kind="train", key=run.key, path=str(run.path))

    return make


def choose(template, make_run, trials, **parameters):
    run = make_run("select-s", kind="select", parameters={"sweep": SWEEP, **parameters}, inputs=tuple(trials))
    return template.run(run), run


def test_the_best_mean_over_seeds_is_chosen(template, make_run, make_trial):
    trials = [
        make_trial(0.1, 8, 1.0, 0.9, 1), make_trial(0.1, 8, 3.0, 0.9, 2),
        make_trial(0.2, 8, 1.9, 1.8, 1), make_trial(0.2, 8, 1.9, 1.8, 2),
        make_trial(0.2, 16, 9.0, 0.1, 1), make_trial(0.2, 16, 9.0, 3.0, 2),
    ]  # fmt: skip
    code, run = choose(template, make_run, trials)
    assert code == EXIT_DONE
    facts = run.read_result().facts
    assert facts["chosen"] == {"pipeline.train.optimizer.learning_rate": 0.2, "model.width": 8}
    assert [trial["mean"] for trial in facts["tried"]] == pytest.approx([2.0, 1.9, 9.0])
    assert facts["tried"][0]["scores"] == [1.0, 3.0]
    table = (run.path / run.read_result().evaluations[0]).read_text()
    assert "learning_rate" in table


@pytest.mark.parametrize(("at", "mode", "width"), [("best", "min", 8), ("last", "max", 16), ("last", "min", 8)])
def test_direction_and_value_are_the_studys(template, make_run, make_trial, at, mode, width):
    trials = [make_trial(0.1, 8, 1.0, 0.1, 1), make_trial(0.1, 16, 2.0, 0.9, 1)]
    _, run = choose(template, make_run, trials, at=at, mode=mode)
    assert run.read_result().facts["chosen"]["model.width"] == width


def test_a_path_may_lead_to_a_stage_that_the_trial_reads(template, make_run):
    """What was swept is not among the trials' own parameters."""
    trials = []
    for size, loss in ((100, 2.0), (200, 1.0)):
        run = make_run(f"train-{size}")
        run.write_result(Result(key=run.key, metrics={"val/loss": loss}))
        reference = json.dumps({"pipeline.prepare.vocabulary": size})
        trials.append(Input(reference=reference, stage="train", kind="train", key=run.key, path=str(run.path)))
    code, run = choose(template, make_run, trials, sweep={"pipeline.prepare.vocabulary": [100, 200]})
    assert code == EXIT_DONE and run.read_result().facts["chosen"] == {"pipeline.prepare.vocabulary": 200}


def test_a_trial_of_other_values_is_named(template, make_run, make_trial):
    code, run = choose(template, make_run, [make_trial(0.1, 8, 1.0, 0.1, 1)], sweep={"model.depth": [1]})
    assert code == EXIT_FAILED and "expected its values of model.depth" in run.read_state().message


def test_a_metric_that_no_trial_has_is_named(template, make_run, make_trial):
    code, run = choose(template, make_run, [make_trial(0.1, 8, 1.0, 0.1, 1)], metric="val/ppl")
    assert code == EXIT_FAILED
    assert "val/ppl" in run.read_state().message and "val/loss" in run.read_state().message


def test_a_trial_that_is_not_finished_is_named(template, make_run):
    trial = make_run("train-open")
    given = Input(reference="trial 7", stage="train", kind="train", key="open", path=str(trial.path))
    code, run = choose(template, make_run, [given])
    assert code == EXIT_FAILED and "trial 7 is not finished" in run.read_state().message
