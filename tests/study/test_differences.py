"""Differences are between resolved values, and a comparison says which of them it declared."""

from __future__ import annotations

from ablab.study.differences import differences, undeclared

HEAD = """\
name: toy
task: task.py:SPEC
defaults: {data: {source: books}, pipeline: {train: {steps: 1}}}
experiments:
  one: {}
"""


def differ(study_of, settings, **options):
    study = study_of(f"{HEAD}  two: {{{settings}}}\n")
    return differences(study.experiments["one"], study.experiments["two"], **options)


def test_what_differs_is_named_by_study_path(study_of):
    assert differ(study_of, "model: {layers: 3, heads: {frozen: true}}, pipeline: {train: {steps: 9}}") == {
        "model.layers": (2, 3), "model.heads.frozen": (False, True), "pipeline.train.steps": (1, 9),
    }  # fmt: skip


def test_writing_a_default_down_is_no_difference(study_of):
    assert differ(study_of, "model: {layers: 2, heads: {count: 4}, scale: auto}, pipeline: {train: {clip: 1.0}}") == {}


def test_what_cannot_change_a_result_is_left_out_unless_asked_for(study_of):
    settings = "pipeline: {train: {log_every: 3}}, data: {files: [a]}"
    assert differ(study_of, settings) == {}
    assert differ(study_of, settings, keyed=False) == {
        "data.files": ([], ["a"]), "pipeline.train.log_every": (10, 3),
    }  # fmt: skip


def test_a_field_of_some_stage_kinds_counts_where_one_of_them_reads_it(study_of):
    assert differ(study_of, "data: {limit: 3}") == {"data.limit": (None, 3)}
    assert differ(study_of, "pipeline: {train: {data: {limit: 3}}}") == {}


def test_stages_needs_and_kinds(study_of):
    found = differ(
        study_of, "pipeline: {evaluate: null, extra: {kind: train, steps: 2}, train: {needs: [prepare, one.train]}}"
    )
    assert found == {
        "pipeline.evaluate": ("evaluate", None), "pipeline.extra": (None, "train"),
        "pipeline.train.needs": (["prepare"], ["one.train", "prepare"]),
    }  # fmt: skip


def test_a_stage_of_its_own_section_is_named_by_stage(study_of):
    assert differ(study_of, "pipeline: {train: {model: {layers: 3}}}") == {"pipeline.train.model.layers": (2, 3)}


def test_members_of_a_union_and_lists(study_of):
    assert differ(study_of, "model: {connector: {kind: deep}}") == {
        "model.connector.kind": ("linear", "deep"), "model.connector.gain": (1.0, None),
        "model.connector.depth": (None, 2),
    }  # fmt: skip
    found = differ(study_of, "pipeline: {train: {optimizer: {groups: [{pattern: '*', frozen: true}]}}}")
    assert list(found) == ["pipeline.train.optimizer.groups"]


def test_undeclared_is_what_neither_factor_nor_also_covers(study_of):
    study = study_of(
        HEAD
        + "  two: {model: {layers: 3, width: 16}, pipeline: {train: {steps: 9, model: {heads: {frozen: true}}}}}\n"
        + "comparisons:\n  - {baseline: one, variants: [two], factor: [model.layers, model.heads],\n"
        + "     also: pipeline.train.steps, metric: val/loss, criterion: ratio < 1}\n"
    )
    found = undeclared(study, study.comparisons[0], "two")
    # The stage's own `model` differs in layers and width as well; `model.layers` covers it there too.
    assert set(found) == {"pipeline.train.model.width", "model.width"}
