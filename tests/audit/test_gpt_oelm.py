"""The log's own comparison: the audits must name what it got wrong, and must not name it where it is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ablab.audit.checks import storage

FILE = Path(__file__).parents[2] / "studies" / "gpt-oelm.yaml"
TINY, WEB, SOUND = "log-tinystories", "log-openwebtext", "sound"


@pytest.fixture
def log(bench: Callable) -> Callable:
    """Return a maker of benches of the study; `change` replaces text of it."""

    def make(*change: tuple[str, str]) -> object:
        text = FILE.read_text(encoding="utf-8")
        for old, new in change:
            assert old in text
            text = text.replace(old, new)
        return bench(text)

    return make


def about(lab: object, id: str, comparison: str) -> list:
    """Return the checked findings of one comparison."""
    index = [each.name for each in lab.study.comparisons].index(comparison)
    return [
        each for each in lab.findings(id) if each.checked and re.match(rf"comparisons\[{index}\](\.|$)", each.where)
    ]


def test_learning_rate_differs(log: Callable) -> None:
    lab = log()
    assert [each.subjects for each in about(lab, "learning-rate-differs", TINY)] == [
        ("GPT-01", "GPT-02"), ("GPT-01", "GPT-03"),
    ]  # fmt: skip
    assert len(about(lab, "learning-rate-differs", WEB)) == 1
    assert about(lab, "learning-rate-differs", SOUND) == [], "every arm sweeps the same rates"


def test_single_seed(log: Callable) -> None:
    lab = log()
    assert len(about(lab, "single-seed", TINY)) == len(about(lab, "single-seed", WEB)) == 1
    assert about(lab, "single-seed", SOUND) == []


def test_initial_logit_scale_differs_between_the_orthogonal_and_the_random_arm(log: Callable) -> None:
    found = about(log(), "initial-logit-scale-differs", TINY)[0]
    assert found.evidence["scales"]["GPT-02"] == pytest.approx(0.99, rel=0.03)
    assert found.evidence["scales"]["GPT-03"] == pytest.approx(0.21, rel=0.03)
    assert "between GPT-02 and GPT-03" in found.message
    # The scale-matched control of the note, N(0, 1/width), and a baseline that starts orthogonal.
    matched = log(
        ("{query_key: frozen-normal, scale: 0.02}", "{query_key: frozen-normal}"),
        (
            "    estimate: 4h31m27s\n",
            "    estimate: 4h31m27s\n    model: {attention: {query_key: trained-orthogonal}}\n",
        ),
    )
    assert about(matched, "initial-logit-scale-differs", TINY) == []


def test_a_probe_speaks_before_the_derivation(log: Callable) -> None:
    lab = log()
    for name, scale in (("GPT-01", 0.9), ("GPT-02", 1.0), ("GPT-03", 1.1)):
        lab.probe(name, {"logits.scale": scale})
    assert about(lab, "initial-logit-scale-differs", TINY) == []


def test_tokens_seen_exceed_tokens_held(log: Callable) -> None:
    found = {subject: each for each in log().findings("epochs-exceed-data") for subject in each.subjects}
    assert found["GPT-04"].evidence["epochs"] == pytest.approx(6.2, abs=0.01)
    assert {"GPT-04", "GPT-05"} <= set(found)
    assert not {"GPT-01", "GPT-02", "GPT-03"} & set(found), "410M of TinyStories' 474M tokens are one pass"
    whole = log((", max_tokens: 99100000", ""))
    assert not any("GPT-04" in each.subjects for each in whole.findings("epochs-exceed-data"))


def test_training_budgets_differ(log: Callable) -> None:
    equal = log()
    assert about(equal, "training-budget-differs", TINY) == about(equal, "training-budget-differs", WEB) == []
    across = log(("baseline: GPT-04", "baseline: GPT-01"))
    evidence = about(across, "training-budget-differs", WEB)[0].evidence
    assert evidence["steps"] == {"baseline": 100_000, "variant": 150_000}
    assert evidence["tokens"] == {"baseline": 409_600_000, "variant": 614_400_000}


def test_speed_compared_between_runs_that_shared_a_machine(log: Callable) -> None:
    # As the log ran them: GPT-01 and GPT-02 side by side, GPT-03 alone.
    lab = log()
    lab.finish("GPT-01", steps={"median": 0.0837}, span=(0, 16_287))
    lab.finish("GPT-02", steps={"median": 0.0835}, span=(0, 16_366))
    lab.finish("GPT-03", steps={"median": 0.0769}, span=(20_000, 35_318))
    found = about(lab, "speed-shared-machine", TINY)
    assert found[0].severity == "warning"
    assert found[0].evidence == {"shared": {"GPT-01": ["GPT-02"], "GPT-02": ["GPT-01"]}, "alone": ["GPT-03"]}


def test_runs_one_after_the_other_shared_nothing(log: Callable) -> None:
    lab = log()
    for position, name in enumerate(("GPT-01", "GPT-02", "GPT-03")):
        lab.finish(name, steps={"median": 0.0769}, span=(20_000 * position, 20_000 * position + 15_000))
    assert about(lab, "speed-shared-machine", TINY) == []


@pytest.mark.parametrize(("free", "severity"), [(20, "error"), (10_000, None)])
def test_checkpoint_bytes_against_free_disk(
    log: Callable, monkeypatch: pytest.MonkeyPatch, free: int, severity: str | None
) -> None:
    monkeypatch.setattr(storage, "disk_free", lambda _: free * 2**30)
    found = [each for each in log().findings("checkpoints-exceed-disk") if each.checked]
    assert [each.severity for each in found] == ([severity] if severity else [])


def test_a_later_phase_would_fill_the_disk(log: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than 100 checkpoints of half a gigabyte for one arm.
    monkeypatch.setattr(storage, "disk_free", lambda _: 2**60)
    sparse = storage.bytes_of(*_view_and_run(log(), "GPT-01"))
    dense = storage.bytes_of(
        *_view_and_run(log(("      clip: 1.0\n", "      clip: 1.0\n      checkpoints: {keep_every: 500}\n")), "GPT-01")
    )
    assert sparse == pytest.approx(2 * 513.8 * 2**20, rel=1e-3)
    assert dense == pytest.approx(202 * 513.8 * 2**20, rel=1e-3)


def _view_and_run(lab: object, experiment: str) -> tuple:
    from ablab.audit.view import AuditView

    view = AuditView(lab.study, plan=lab.plan, store=lab.store, derivations=lab.derivations)
    return view, lab.run(experiment)


def test_results_identical_to_the_last_digit_under_different_keys(log: Callable) -> None:
    lab = log()
    lab.finish("GPT-01", metrics={"val/loss": 1.4516138, "val/perplexity": 4.2699936})
    lab.finish("GPT-02", metrics={"val/loss": 1.5456021, "val/perplexity": 4.6908022})
    assert lab.findings("identical-results") == []
    lab.finish("GPT-03", metrics={"val/loss": 1.5456021, "val/perplexity": 4.6908022})
    assert [each.subjects for each in lab.findings("identical-results")] == [("GPT-02", "GPT-03")]


def test_equal_work_under_two_keys_is_no_copy(bench: Callable) -> None:
    """On the laptop both train the same model alike; only the one whose best value counts keys its validations."""
    lab = bench(FILE.read_text(encoding="utf-8"), profile="laptop")
    same = {"val/loss": 1.8526909946, "val/perplexity": 6.3767411}
    assert lab.finish("GPT-02", metrics=same).key != lab.finish("frozen-orthogonal", 42, metrics=same).key
    assert lab.findings("identical-results") == []
    lab.finish("frozen-normal", 42, metrics=same)
    found = lab.findings("identical-results")
    assert [each.subjects for each in found] == [("GPT-02", "frozen-orthogonal", "frozen-normal")]


def test_its_final_value_is_the_best_of_a_hundred_looks(log: Callable) -> None:
    lab = log()
    assert set(about(lab, "best-of-many-looks", TINY)[0].evidence["looks"].values()) == {100}
    assert about(lab, "best-of-many-looks", SOUND) == []


def test_what_else_the_log_left_out(log: Callable) -> None:
    lab = log()
    assert about(lab, "control-absent", TINY) and not about(lab, "control-absent", SOUND)
    assert about(lab, "headwise-without-global", TINY) and not about(lab, "headwise-without-global", SOUND)


def test_its_estimate_left_validation_out(log: Callable) -> None:
    lab = log(("9h10m18s", "6h30m"))
    lab.finish("GPT-04", stage="prepare", time={"other": 60.0})
    lab.finish("GPT-04", time={"forward-backward": 17_000.0, "validation": 16_000.0})
    lab.finish("GPT-04", stage="evaluate", time={"other": 60.0})
    assert "took 9 h 12 min" in lab.findings("estimate-off")[0].message


@pytest.mark.parametrize("profile", ["full", "laptop", "smoke"])
def test_the_study_has_no_errors(bench: Callable, profile: str) -> None:
    lab = bench(FILE.read_text(encoding="utf-8"), profile=profile)
    # How much disk is free is this machine's business.
    found = [each for each in lab.findings() if each.id != "checkpoints-exceed-disk"]
    assert [each for each in found if each.severity == "error"] == []
