"""The engine: order, acceptance, duplicates, and facts from results, probes and derivations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from ablab.audit.engine import audit
from ablab.audit.view import AuditView


def test_a_sound_study_has_neither_errors_nor_warnings(bench: Callable) -> None:
    found = bench().findings()
    assert [each.id for each in found if each.severity != "note" and each.id != "epochs-exceed-data"] == []


def test_a_missing_fact_is_never_silence(bench: Callable) -> None:
    lab = bench()
    unchecked = {each.id for each in lab.findings() if not each.checked}
    assert {"parameters-moved", "results-not-checked", "epochs-exceed-data"} <= unchecked
    assert all(each.remedy and each.severity == "note" for each in lab.findings() if not each.checked)
    without_plan = audit(lab.study)
    assert "checkpoints-exceed-disk" in {each.id for each in without_plan if not each.checked}


def test_prepared_data_is_no_result_yet(bench: Callable) -> None:
    lab = bench()
    lab.finish("A", stage="prepare", facts={"tokens.train": 1_000_000})
    assert len(lab.findings("results-not-checked")) == 1 and lab.findings("arms-unfinished") == []
    lab.finish("A", metrics={"val/perplexity": 20.0})
    assert lab.findings("results-not-checked") == [] and len(lab.findings("arms-unfinished")) == 1


def test_findings_can_be_accepted_everywhere_or_in_one_place(bench: Callable, sound: str) -> None:
    two = sound.replace("seeds: [1, 2, 3]", "seeds: [1]") + (
        "  - {name: again, baseline: A, variants: [B], factor: model.dropout, metric: val/loss,\n"
        "     criterion: difference <= 0.1, controls: {fail: [blind]}}\n"
    )
    everywhere = bench(two + "accept: {single-seed: a pilot}\n").findings("single-seed")
    assert [each.accepted for each in everywhere] == ["a pilot", "a pilot"]
    here = bench(two + "accept: {'single-seed@comparisons[1]': a pilot}\n").findings("single-seed")
    assert {each.where: each.accepted for each in here} == {"comparisons[0]": None, "comparisons[1]": "a pilot"}


def test_errors_come_first_and_accepted_last(bench: Callable, sound: str) -> None:
    text = sound.replace("like: A, model: {dropout: 0.0}", "like: A, model: {layers: 2}")
    found = bench(text.replace("seeds: [1, 2, 3]", "seeds: [1]") + "accept: {single-seed: a pilot}\n").findings()
    ranks = [
        (each.accepted is not None, not each.checked, ["error", "warning", "note"].index(each.severity))
        for each in found
    ]
    assert ranks == sorted(ranks) and found[0].severity == "error" and found[-1].id == "single-seed"


def test_findings_name_their_line(bench: Callable, sound: str) -> None:
    lab = bench(sound.replace("seeds: [1, 2, 3]", "seeds: [1]"))
    found = lab.findings("single-seed")[0]
    assert found.line is not None
    assert "name: main" in lab.study.text.splitlines()[found.line - 1]


def test_facts_come_from_results_before_probes_before_derivations(bench: Callable) -> None:
    lab = bench()

    def fact() -> object:
        view = AuditView(lab.study, plan=lab.plan, store=lab.store, derivations={"logits.scale": lambda *_: 3.0})
        return view.fact("B", "logits.scale")

    assert (fact().value, fact().source) == (3.0, "derived")
    lab.probe("B", {"logits.scale": 2.0, "steps.done": 2})
    assert (fact().value, fact().source) == (2.0, "probe")
    view = AuditView(lab.study, plan=lab.plan, store=lab.store)
    assert view.facts("B", seed=3) == {"logits.scale": 2.0}, "a probe holds for every seed; its two steps do not count"
    assert view.facts("A") is None
    lab.finish("B", facts={"logits.scale": 1.0})
    assert (fact().value, fact().source) == (1.0, "result")


def test_auditing_imports_no_torch() -> None:
    modules = "ablab.audit.engine, ablab.tasks.language_modeling.audits"
    code = f"import sys, {modules}; print([m for m in ('torch', 'scipy', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
