import sys
import types

import pytest

from ablab.contract.failure import ConfigError
from ablab.training import trackers
from ablab.training.trackers import Trackers, check_installed, flatten, open_trackers, scalars


class Recorder:
    def __init__(self, fail=False):
        self.seen, self.fail, self.closed = [], fail, False

    def log(self, values, step):
        if self.fail:
            raise ConnectionError("no server")
        self.seen.append((step, dict(values)))

    def close(self):
        self.closed = True


STEP = {"e": "step", "step": 10, "loss": 0.5, "lr": 1e-3, "tokens": 80.0}
VALIDATION = {"e": "validation", "step": 10, "values": {"val/loss": 0.4}, "seconds": 2.0}


def test_steps_and_validations_are_mirrored_by_name():
    recorder = Recorder()
    mirror = Trackers({"one": recorder})
    for event in (STEP, VALIDATION, {"e": "resource", "rss": 7}, {"e": "end", "kind": "done"}):
        mirror(event)
    assert recorder.seen == [
        (10, {"train/loss": 0.5, "train/lr": 1e-3, "train/tokens": 80.0}),
        (10, {"val/loss": 0.4}),
    ]
    assert recorder.closed


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(capsys):
    bad, good = Recorder(fail=True), Recorder()
    mirror = Trackers({"bad": bad, "good": good})
    mirror(STEP)
    mirror(VALIDATION)
    assert len(good.seen) == 2
    assert capsys.readouterr().err.count("tracker bad failed") == 1


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ablab\[wandb\]'"):
        check_installed(("wandb",))
    with pytest.raises(ConfigError, match="unknown tracker 'wndb'"):
        check_installed(("wndb",))


def test_a_tracker_that_cannot_be_opened_stops_nothing(context, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "json")
    monkeypatch.setitem(trackers.MAKERS, "wandb", lambda order, folder: 1 / 0)
    mirror = open_trackers(context.order.model_copy(update={"track": ("wandb",)}), tmp_path)
    mirror(STEP)
    assert "wandb could not be opened" in capsys.readouterr().err


def test_wandb_resumes_the_run_of_the_key(context, tmp_path, monkeypatch):
    """The calls that W&B documents, against a module that records them."""
    run, asked = Recorder(), {}
    run.finish = run.close
    run.log = lambda values, step: run.seen.append((step, values))
    fake = types.SimpleNamespace(init=lambda **options: asked.update(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = trackers.WandB(context.order, tmp_path)
    tracker.log(scalars(STEP), 10)
    tracker.close()
    assert asked["id"] == "train-k" and asked["resume"] == "allow" and asked["project"] == "s"
    assert run.seen[0][0] == 10 and run.closed


def test_nested_settings_get_dotted_names():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
