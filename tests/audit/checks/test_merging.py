"""Merges and experts that cannot mean what they say, and sound ones that stay silent."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ablab.audit.checks import experts
from ablab.audit.view import Fact
from ablab.contract.base import Strict
from ablab.contract.experts import ExpertSettings
from ablab.contract.models import ModelReference
from ablab.contract.stages import TRAIN

STUDY = """
experiments:
  A: {}
  B: {like: A, model: {dropout: 0.0}}
  C: {like: A, pipeline: {train: {steps: 50}}}
  same: {like: A}
  M:
    pipeline:
      train: null
      merge: MERGE
"""
IDS = ("task-vector-zero", "merge-base-no-parent", "trim-changes-nothing")


def merge_findings(bench: Callable[..., Any], merge: str) -> dict[str, list[str]]:
    made = bench(STUDY.replace("MERGE", merge))
    found: dict[str, list[str]] = {}
    for each in made.findings():
        if each.id in IDS:
            found.setdefault(each.id, []).append(each.where)
    return found


def test_a_model_that_is_the_base_by_another_name(bench: Callable[..., Any]) -> None:
    found = merge_findings(
        bench,
        "{method: task-arithmetic, base: A.train, models: [{model: B.train}, {model: same.train}], "
        "needs: [A.train, B.train, same.train]}",
    )
    assert found["task-vector-zero"] == ["experiments.M.pipeline.merge.models[1]"]


def test_a_base_that_is_no_parent(bench: Callable[..., Any]) -> None:
    found = merge_findings(
        bench,
        "{method: ties, base: A.train, models: [{model: B.train, density: 0.2}, {model: C.train, density: 0.2}], "
        "needs: [A.train, B.train, C.train]}",
    )
    assert found == {"merge-base-no-parent": [f"experiments.M.pipeline.merge.models[{n}]" for n in range(2)]}


def test_weights_alone_need_no_parent(bench: Callable[..., Any]) -> None:
    merge = "{method: linear, models: [{model: A.train}, {model: B.train}], needs: [A.train, B.train]}"
    assert merge_findings(bench, merge) == {}


@pytest.mark.parametrize(("trim", "silent"), [(0.2, False), (0.1, False), (0.05, True)])
def test_a_trim_after_the_drop(bench: Callable[..., Any], trim: float, silent: bool) -> None:
    found = merge_findings(
        bench,
        f"{{method: dare-ties, base: A.train, models: [{{model: B.train, density: 0.1, trim: {trim}}}], "
        "needs: [A.train, B.train]}",
    )
    assert ("trim-changes-nothing" not in found) is silent


class Section(Strict):
    llm: ModelReference
    experts: ExpertSettings | None = None


def expert_findings(layers: tuple[int, ...], facts: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Findings on one arm; the tasks of these tests have no experts, so the view is made of plain objects."""
    section = Section(
        llm=ModelReference(config={"model_type": "llama", "num_hidden_layers": 4}),
        experts=ExpertSettings(layers=layers, **settings),
    )
    stage = SimpleNamespace(name="train", kind="train", spec=TRAIN, parameters=section, sections={}, needs=())
    arm = SimpleNamespace(name="F4", stages=(stage,))
    view: Any = SimpleNamespace(
        study=SimpleNamespace(experiments={"F4": arm}),
        fact=lambda _, name: Fact(value=facts[name], source="probe") if name in facts else None,
        line=lambda where, comparison=None: None,
    )
    return {each.id: each for check in experts.CHECKS for each in check(view)}


def test_experts_beyond_the_model() -> None:
    facts = {"experts.auxiliary_gradient": 0.1}
    assert expert_findings((1, 3), facts) == {}
    found = expert_findings((3, 4), facts)["expert-layer-beyond-model"]
    assert found.severity == "error" and "layer 4" in found.message and "0 to 3" in found.message


def test_auxiliary_losses_without_gradient() -> None:
    found = expert_findings((1,), {"experts.auxiliary_gradient": 0.0})
    assert found["auxiliary-loss-without-gradient"].severity == "error"
    assert not expert_findings((1,), {})["auxiliary-loss-without-gradient"].checked
    assert expert_findings((1,), {}, balance=0.0, z=0.0) == {}
