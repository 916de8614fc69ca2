"""Prerequisites, disk, estimates, failures, identical results, shared machines, environments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablab.audit.checks import storage
from ablab.audit.engine import audit
from ablab.contract.order import Numerics

FILES = """
experiments:
  A: {data: {source: files, files: [here.txt]}}
  B: {data: {source: files, files: [gone.txt, also-gone.txt]}}
  later: {planned: true, data: {source: files, files: [not-needed-yet.txt]}}
"""


def test_every_missing_file_of_all_arms_at_once(bench: Callable, tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("text")
    found = bench(FILES).findings("missing-file")
    assert sorted(each.evidence["path"].rpartition("/")[2] for each in found) == ["also-gone.txt", "gone.txt"]
    assert all(each.severity == "error" and each.subjects == ("B",) for each in found)


HUB = "experiments:\n  A: {data: {source: tinystories}}\n"


def test_hub_names_that_are_neither_cached_nor_locked(
    bench: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert [each.severity for each in bench(HUB).findings("hub-unresolved")] == ["warning"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert [each.severity for each in bench(HUB).findings("hub-offline")] == ["error"]
    refs = tmp_path / "cache" / "datasets--roneneldan--TinyStories" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    lab = bench(HUB)
    assert lab.findings("hub-offline") == lab.findings("hub-unresolved") == []


def test_a_gated_name_needs_a_token(bench: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from ablab.contract.task import DataReference

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    lab = bench(HUB)
    arm = lab.study.experiments["A"]
    gated = [DataReference(kind="hub", name="owner/model", gated=True, repository="model", path="model.name")]
    stages = tuple(replace(s, spec=replace(s.spec, references=lambda *_: gated)) for s in arm.stages)
    study = replace(lab.study, experiments={"A": replace(arm, stages=stages)})
    assert "gated-without-token" in {each.id for each in audit(study)}
    monkeypatch.setenv("HF_TOKEN", "not-a-real-one")
    assert "gated-without-token" not in {each.id for each in audit(study)}


def test_checkpoints_against_the_free_disk(bench: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = bench()
    plan = lab.plan
    trains = [run for run in plan.runs.values() if run.stage.kind == "train"]
    for run in trains:
        run.bytes = 20 * 2**30

    def found(free: int) -> dict[str, str]:
        monkeypatch.setattr(storage, "disk_free", lambda _: free * 2**30)
        return {each.id: each.severity for each in audit(lab.study, plan=plan, store=lab.store) if each.checked}

    assert len(trains) == 9
    assert found(100)["checkpoints-exceed-disk"] == "error"
    assert found(200)["disk-tight"] == "warning"
    assert not {"checkpoints-exceed-disk", "disk-tight"} & set(found(2000))


def test_a_checkpoint_every_few_steps_counts(bench: Callable, monkeypatch: pytest.MonkeyPatch, sound: str) -> None:
    # One log filled its disk with more than 100 checkpoints, about 200 GB, of a model of half a gigabyte.
    often = sound.replace("batch: 4", "batch: 4, checkpoints: {keep_every: 1}")

    def need(text: str) -> int:
        monkeypatch.setattr(storage, "disk_free", lambda _: 1)
        return bench(text).findings("checkpoints-exceed-disk")[0].evidence["bytes"]

    # Last, best, and every of 100 steps, against last and best.
    assert need(often) / need(sound) == pytest.approx(102 / 2)


def test_an_estimate_that_does_not_add_up(bench: Callable, sound: str) -> None:
    lab = bench(
        sound.replace("B: {like: A,", "B: {like: A, estimate: 6h 30m,").replace("train: {", "evaluate: null, train: {")
    )
    lab.finish("B", stage="prepare", time={"other": 60.0})
    lab.finish("B", time={"forward-backward": 17_000.0, "validation": 16_000.0})
    found = lab.findings("estimate-off")
    assert len(found) == 1 and "6 h 30 min and took 9 h 11 min" in found[0].message
    close = bench(
        sound.replace("B: {like: A,", "B: {like: A, estimate: 9h,").replace("train: {", "evaluate: null, train: {")
    )
    assert close.findings("estimate-off") == []


def test_failed_and_unfinished_arms(bench: Callable) -> None:
    lab = bench()
    assert lab.findings("arm-failed") == lab.findings("arms-unfinished") == []
    lab.fail("B", 2, "not-finite")
    lab.finish("A", 1, metrics={"val/perplexity": 20.0})
    found = lab.findings("arm-failed")
    assert found[0].evidence == {"train, seed 2": "not-finite"}
    assert set(lab.findings("arms-unfinished")[0].subjects) == {"A", "B", "blind"}


def test_a_planned_arm_in_a_comparison(bench: Callable, sound: str) -> None:
    assert bench(sound).findings("planned-arm") == []
    lab = bench(sound.replace("B: {like: A,", "B: {like: A, planned: true,"))
    assert [each.severity for each in lab.findings("planned-arm")] == ["note"]


def test_results_identical_to_the_last_digit_under_different_keys(bench: Callable) -> None:
    lab = bench()
    lab.finish("A", 1, metrics={"val/perplexity": 20.123456789})
    lab.finish("B", 1, metrics={"val/perplexity": 20.123456788})
    assert lab.findings("identical-results") == []
    lab.finish("B", 2, metrics={"val/perplexity": 20.123456789})
    found = lab.findings("identical-results")
    assert [each.severity for each in found] == ["error"] and found[0].subjects == ("A", "B")


def test_round_values_may_be_equal_by_chance(bench: Callable) -> None:
    lab = bench()
    for name in ("A", "B"):
        lab.finish(name, metrics={"val/accuracy": 0.5, "val/recall": 1.0})
    assert lab.findings("identical-results") == []


def test_seeds_that_give_the_same_result_are_seeds_that_are_not_used(bench: Callable) -> None:
    lab = bench()
    for seed in (1, 2, 3):
        lab.finish("A", seed, metrics={"val/perplexity": 17.238461538})
    assert lab.findings("identical-results")[0].subjects == ("A",)


def test_speed_of_runs_that_shared_a_machine(bench: Callable) -> None:
    lab = bench()
    lab.finish("A", steps={"median": 0.0837}, span=(0.0, 16_287.0))
    lab.finish("B", steps={"median": 0.0769}, span=(20_000.0, 35_318.0))
    assert lab.findings("speed-shared-machine") == []
    lab.finish("blind", steps={"median": 0.0835}, span=(0.0, 16_366.0))
    found = lab.findings("speed-shared-machine")
    assert [each.severity for each in found] == ["warning"]
    assert found[0].evidence == {"shared": {"A": ["blind"]}, "alone": ["B"]}


def test_two_machines_are_not_shared(bench: Callable) -> None:
    lab = bench()
    lab.finish("A", steps={"median": 0.08}, span=(0.0, 100.0), host="gpu1")
    lab.finish("B", steps={"median": 0.08}, span=(0.0, 100.0), host="gpu2")
    assert lab.findings("speed-shared-machine") == []


def test_numerics_and_versions_that_differ(bench: Callable) -> None:
    lab = bench()
    lab.finish("A", numerics=Numerics(precision="bf16", versions={"torch": "2.13.0"}))
    lab.finish("B", numerics=Numerics(precision="bf16", versions={"torch": "2.13.0"}))
    assert lab.findings("numerics-differ") == lab.findings("versions-differ") == []
    lab.finish("B", 2, numerics=Numerics(precision="fp32", threads=4, versions={"torch": "2.14.0"}))
    found = {each.severity: each for each in lab.findings("numerics-differ")}
    assert found["warning"].evidence == {"precision": {"A": ["bf16"], "B": ["bf16", "fp32"]}}
    assert list(found["note"].evidence) == ["threads"]
    assert lab.findings("versions-differ")[0].evidence == {"torch": {"2.13.0": ["A", "B"], "2.14.0": ["B"]}}
