"""Keys against an independent slow implementation, and what changes them and what does not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ablab.contract.base import Strict, setting
from ablab.contract.task import DataReference
from ablab.contract.training import Train
from ablab.plan.keys import SCHEDULE, Identity, InputKey, Keyer, block_text, run_key
from ablab.plan.planning import make_plan
from ablab.plan.references import References

#: Another valid value for every field of a train stage, by path; the test below fails when a field is missing here.
OTHER: dict[str, Any] = {
    "steps": 101,
    "epochs": 2.0,
    "batch": 16,
    "micro_batch": 2,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 1e-3,
    "optimizer.betas": [0.9, 0.95],
    "optimizer.epsilon": 1e-7,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.1,
    "optimizer.decay": "all",
    "optimizer.groups": [{"pattern": "head.*"}],
    "parts": {"head": {"mode": "frozen"}},
    "schedule.name": "linear",
    "schedule.warmup": 10,
    "schedule.warmup_ratio": 0.1,
    "schedule.final": 0.1,
    "schedule.cycles": 2,
    "schedule.steps": 400,
    "schedule.decay_ratio": 0.3,
    "clip": None,
    "precision": "bf16",
    "compile": True,
    "gradient_checkpointing": True,
    "validation.every": 50,
    "validation.batches": 4,
    "validation.batch": 4,
    "early_stopping": {},
    "checkpoints.every": 10,
    "checkpoints.seconds": 5.0,
    "checkpoints.best": 3,
    "checkpoints.metric": "val/perplexity",
    "checkpoints.mode": "max",
    "checkpoints.keep_every": 7,
    "log_every": 3,
}
NEVER = {
    "micro_batch",
    "compile",
    "gradient_checkpointing",
    "validation.batch",
    "checkpoints.every",
    "checkpoints.seconds",
    "checkpoints.best",
    "checkpoints.keep_every",
    "log_every",
}


def train_with(path: str | None) -> dict[str, Any]:
    """Return raw parameters of a train stage with one field set to its other value."""
    raw: dict[str, Any] = {} if path == "epochs" else {"steps": 100}
    if path is not None:
        *parents, name = path.split(".")
        place = raw
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = OTHER[path]
    return raw


def leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted path of every field, inner blocks that always stand opened."""
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += leaves(inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def key_of(toy: Any, raw: dict[str, Any], **study: Any) -> str:
    plan = make_plan(toy.study({"A": toy.usual(**raw)}, seeds=(1,), **study), None)
    return plan.by_user["A", 1, "train"]


def test_every_field_of_a_train_stage_is_judged() -> None:
    assert sorted(leaves(Train)) == sorted(OTHER)


@pytest.mark.parametrize("path", sorted(OTHER))
def test_fields_enter_the_key_as_they_are_marked(toy: Any, path: str) -> None:
    changed = key_of(toy, train_with(path)) != key_of(toy, train_with(None))
    assert changed is (path not in NEVER | SCHEDULE)


@pytest.mark.parametrize("path", sorted(SCHEDULE))
def test_the_validation_schedule_counts_where_best_is_consumed(toy: Any, path: str) -> None:
    plain, other = train_with(None), train_with(path)
    best = {"best": True}
    assert key_of(toy, plain | best) != key_of(toy, other | best)
    compared = {"comparisons": (toy.comparison("A", "A", at="best"),)}
    assert key_of(toy, plain, **compared) != key_of(toy, other, **compared)
    written = {"comparisons": (dataclasses.replace(toy.comparison("A", "A"), metric="val/loss@best"),)}
    assert key_of(toy, plain, **written) != key_of(toy, other, **written)
    stopping = {"early_stopping": {}}
    assert key_of(toy, plain | stopping) != key_of(toy, other | stopping)
    last = {"comparisons": (toy.comparison("A", "A"),)}
    assert key_of(toy, plain, **last) == key_of(toy, other, **last)


def test_the_best_of_another_experiment_counts_too(toy: Any) -> None:
    def key(path: str | None) -> str:
        arms = {"A": toy.usual(**train_with(path)), "B": (toy.stage("evaluate", "A.train@best"),)}
        return make_plan(toy.study(arms, seeds=(1,)), None).by_user["A", 1, "train"]

    assert key(None) != key("validation.every")


def test_a_default_that_is_written_out_changes_nothing(toy: Any) -> None:
    full = Train(steps=100).model_dump(exclude={"epochs"})
    assert key_of(toy, full) == key_of(toy, {"steps": 100})


def test_which_checkpoint_is_read_enters_the_key(toy: Any) -> None:
    arms = {"A": toy.usual(), "B": toy.usual(best=True)}
    plan = make_plan(toy.study(arms, seeds=(1,)), None)
    assert plan.by_user["A", 1, "train"] == plan.by_user["B", 1, "train"]
    assert plan.by_user["A", 1, "evaluate"] != plan.by_user["B", 1, "evaluate"]


def test_marks_of_section_fields_count_by_stage_kind(toy: Any) -> None:
    arms = {"A": toy.usual(), "B": toy.usual(model={"dropout": 0.1}), "C": toy.usual(model={"note": "hello"})}
    plan = make_plan(toy.study(arms, seeds=(1,)), None)
    train = {name: plan.by_user[name, 1, "train"] for name in arms}
    assert train["A"] == train["C"] != train["B"]
    # Dropout is marked for train alone: on one and the same input, evaluations are the same work.
    evaluations = {
        "A": toy.usual(),
        "B": (toy.stage("evaluate", "A.prepare A.train", model={"dropout": 0.1}),),
        "C": (toy.stage("evaluate", "A.prepare A.train", model={"width": 16}),),
    }
    plan = make_plan(toy.study(evaluations, seeds=(1,)), None)
    assert plan.by_user["A", 1, "evaluate"] == plan.by_user["B", 1, "evaluate"] != plan.by_user["C", 1, "evaluate"]


def test_the_split_of_a_batch_counts_only_where_the_loss_couples_samples(toy: Any) -> None:
    spec = dataclasses.replace(toy.TRAIN, couples=lambda _, p: p.batch > 8)

    def key(**raw: Any) -> str:
        stages = tuple(
            dataclasses.replace(one, spec=spec) if one.kind == "train" else one for one in toy.usual(steps=5, **raw)
        )
        return make_plan(toy.study({"A": stages}, seeds=(1,)), None).by_user["A", 1, "train"]

    assert key(batch=16, micro_batch=2) != key(batch=16, micro_batch=4)
    assert key(batch=8, micro_batch=2) == key(batch=8, micro_batch=4)


def test_version_task_and_kind_enter_the_key(toy: Any) -> None:
    def key(spec: Any = toy.TRAIN, **study: Any) -> str:
        stages = (toy.stage("prepare"), dataclasses.replace(toy.stage("train", "prepare"), spec=spec, kind=spec.kind))
        return make_plan(toy.study({"A": stages}, seeds=(1,), **study), None).by_user["A", 1, "train"]

    other_task = dataclasses.replace(toy.TASK, name="other")
    keys = [
        key(),
        key(dataclasses.replace(toy.TRAIN, version=2)),
        key(dataclasses.replace(toy.TRAIN, kind="tune")),
        key(task=other_task),
    ]
    assert len(set(keys)) == len(keys)


def test_code_files_enter_by_content_not_by_place(toy: Any, tmp_path: Path) -> None:
    def key(folder: Path, content: str) -> str:
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text(content)
        spec = dataclasses.replace(toy.TRAIN, files=lambda *_: ["mine.py"])
        stages = (toy.stage("prepare"), dataclasses.replace(toy.stage("train", "prepare"), spec=spec))
        study = toy.study({"A": stages}, seeds=(1,), path=str(folder / "study.yaml"))
        return make_plan(study, None).by_user["A", 1, "train"]

    first = key(tmp_path / "a", "x = 1\n")
    assert first == key(tmp_path / "b", "x = 1\n")
    assert first != key(tmp_path / "b", "x = 2222\n")


def test_data_enters_by_content_not_by_name(toy: Any, tmp_path: Path) -> None:
    for name, text in (("a.txt", "same"), ("b.txt", "same"), ("c.txt", "other")):
        (tmp_path / name).write_text(text)

    def key(name: str) -> str:
        stages = toy.usual(data={"file": name})
        study = toy.study({"A": stages}, seeds=(1,), path=str(tmp_path / "s.yaml"))
        return make_plan(study, None).by_user["A", 1, "prepare"]

    assert key("a.txt") == key("b.txt") != key("c.txt")


def test_the_seed_enters_only_where_it_is_drawn_from(toy: Any) -> None:
    stages = (*toy.usual()[:2], toy.stage("evaluate", "prepare", sample=True))
    plan = make_plan(toy.study({"A": stages}, seeds=(1, 2)), None)
    keys = {name: {plan.by_user["A", seed, name] for seed in (1, 2)} for name in ("prepare", "train", "evaluate")}
    assert {name: len(found) for name, found in keys.items()} == {"prepare": 1, "train": 2, "evaluate": 2}
    assert plan.runs[plan.by_user["A", 1, "prepare"]].seed is None
    stages = (*toy.usual()[:2], toy.stage("evaluate", "prepare"))
    plan = make_plan(toy.study({"A": stages}, seeds=(1, 2)), None)
    assert plan.by_user["A", 1, "evaluate"] == plan.by_user["A", 2, "evaluate"]


def test_inputs_of_one_kind_are_told_apart(toy: Any) -> None:
    def merged(needs: str, ko: float, en: float) -> str:
        stages = (
            toy.stage("prepare"),
            toy.stage("ko", "prepare", kind="train", optimizer={"learning_rate": ko}),
            toy.stage("en", "prepare", kind="train", optimizer={"learning_rate": en}),
            toy.stage("merge", needs),
        )
        return make_plan(toy.study({"A": stages}, seeds=(1,)), None).by_user["A", 1, "merge"]

    # Parameters may name inputs, so weights for "ko" and "en" must not find each other's merge.
    keys = {merged("ko en", 0.1, 0.2), merged("en ko", 0.1, 0.2), merged("ko en", 0.2, 0.1), merged("en ko", 0.2, 0.1)}
    assert len(keys) == 4


def test_the_order_of_inputs_of_different_kinds_does_not_matter(toy: Any) -> None:
    def key(needs: str) -> str:
        plan = make_plan(toy.study({"A": (*toy.usual()[:2], toy.stage("evaluate", needs))}, seeds=(1,)), None)
        run = plan.runs[plan.by_user["A", 1, "evaluate"]]
        assert [given.reference for given in run.inputs] == needs.split()
        return run.key

    assert key("prepare train") == key("train prepare")


def test_names_do_not_enter(toy: Any) -> None:
    renamed = (
        toy.stage("corpus", kind="prepare"),
        toy.stage("phase1", "corpus", kind="train"),
        toy.stage("test", "corpus phase1", kind="evaluate"),
    )
    plan = make_plan(toy.study({"A": toy.usual(), "B": renamed}, seeds=(1,)), None)
    assert len(plan.runs) == 3


# --- against an independent implementation -------------------------------------------------------------------------


def digest_of(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def slow_block(block: BaseModel, kind: str, omit: frozenset[str], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(block).model_fields.items():
        marks = field.json_schema_extra or {}
        assert isinstance(marks, dict)
        stages = marks.get("stages")
        if marks.get("keyed") is False or (stages and kind not in stages) or prefix + name in omit:
            continue
        value, default = getattr(block, name), field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            inner = slow_block(value, kind, omit, f"{prefix}{name}.")
            if not isinstance(default, BaseModel) or inner != slow_block(default, kind, omit, f"{prefix}{name}."):
                found[name] = inner
        elif value != default:
            if isinstance(value, tuple):
                value = [slow_block(one, kind, omit) if isinstance(one, BaseModel) else one for one in value]
            found[name] = value
    return found


trains = st.builds(
    dict,
    steps=st.integers(1, 10**9),
    batch=st.integers(1, 4096),
    clip=st.none() | st.floats(1e-3, 1e3),
    precision=st.sampled_from(["auto", "fp32", "bf16"]),
    log_every=st.integers(1, 50),
    optimizer=st.fixed_dictionaries(
        {},
        optional={
            "learning_rate": st.floats(1e-12, 1e6),
            "betas": st.tuples(st.floats(0, 1), st.floats(0, 1)),
            "groups": st.lists(
                st.fixed_dictionaries({"pattern": st.text(max_size=8)}, optional={"frozen": st.booleans()}), max_size=2
            ),
        },
    ),
    validation=st.fixed_dictionaries({}, optional={"every": st.integers(1, 9), "batches": st.integers(1, 9)}),
    early_stopping=st.none() | st.fixed_dictionaries({}, optional={"patience": st.integers(1, 9)}),
)


@settings(max_examples=60, deadline=None)
@given(raw=trains, scheduled=st.booleans(), seed=st.integers(0, 2**40))
def test_a_key_is_the_hash_of_canonical_json(toy_keyer: Any, raw: dict[str, Any], scheduled: bool, seed: int) -> None:
    toy, keyer = toy_keyer
    stage = toy.stage("train", model={"width": 9}, **raw)
    identity = keyer.identity(stage, scheduled=scheduled)
    omit = frozenset() if scheduled or raw["early_stopping"] is not None else SCHEDULE
    what = {
        "code": "",
        "data": [],
        "kind": "train",
        "parameters": slow_block(stage.parameters, "train", omit),
        "sections": {"model": {"width": 9}},
        "task": "toy",
        "version": 1,
    }
    rows = [["prepare", "ab", "last"], ["train", "cd", "best", "ko %s"], ["train", "ef", "last", "en"]]
    content = [digest_of(what), {"inputs": rows, "seed": seed}]
    inputs = [
        InputKey("train", "cd", "best", "ko %s"),
        InputKey("prepare", "ab"),
        InputKey("train", "ef", "last", "en"),
    ]
    assert run_key(identity, inputs=inputs, seed=seed) == digest_of(content)[:20]


@pytest.fixture(scope="module")
def toy_keyer(request: pytest.FixtureRequest) -> Any:
    toy = request.getfixturevalue("toy_module")
    return toy, Keyer(task="toy", resolve=lambda _: ("", True), digest=lambda _: "")


# --- values of unusual types ---------------------------------------------------------------------------------------


class Small(Strict):
    kind: str = setting("small", "")
    size: int = setting(1, "")


class Large(Strict):
    kind: str = setting("large", "")
    size: int = setting(1, "")


class Odd(Strict):
    one_of: Small | Large = setting(default_factory=Small, description="")
    flag: bool | int = setting(1, "")
    rate: float = setting(1, "")
    table: dict[str, Any] = setting(default_factory=dict, description="")
    names: frozenset[str] = setting(frozenset(), "")
    path: Path | None = setting(None, "")


def text(**raw: Any) -> str:
    return block_text(Odd.model_validate(raw), "train")


def test_which_block_of_a_union_is_meant_enters_the_key() -> None:
    assert text(one_of=Large()) != text(one_of=Small()) == "{}"


def test_truth_values_are_not_numbers() -> None:
    assert text(flag=True) != text(flag=1) == "{}"


def test_a_float_that_equals_an_integer_default_is_the_default() -> None:
    assert text(rate=1.0) == text(rate=1) == "{}"


def test_mappings_and_sets_have_one_order() -> None:
    one = text(table={"b": 1, "a": [1.5, None, {"y": "ü", "x": True}]}, names={"q", "p"})
    assert one == text(table={"a": [1.5, None, {"x": True, "y": "ü"}], "b": 1}, names={"p", "q"})
    assert json.loads(one) == {"table": {"a": [1.5, None, {"x": True, "y": "ü"}], "b": 1}, "names": ["p", "q"]}


def test_a_type_that_cannot_be_keyed_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot enter a key"):
        text(table={"a": object()})


def test_a_hub_name_without_revision_is_unresolved() -> None:
    reference = DataReference(kind="hub", name="owner/name")
    assert References("").resolve(reference) == ("owner/name@unresolved", False)
    exact = dataclasses.replace(reference, revision="a" * 40)
    assert References("").resolve(exact) == (f"owner/name@{'a' * 40}", True)


# --- pinned --------------------------------------------------------------------------------------------------------


def test_pinned_keys(toy: Any) -> None:
    """A change here means that nobody's finished work is found any more: raise a version instead, or say why."""
    stages = toy.usual(
        model={"width": 16}, steps=200, batch=16, optimizer={"learning_rate": 3e-4, "betas": (0.9, 0.95)}
    )
    plan = make_plan(toy.study({"A": stages}, seeds=(42,)), None)
    assert {name: plan.by_user["A", 42, name] for name in ("prepare", "train", "evaluate")} == {
        "prepare": "c149f7d32ea3def35a41",
        "train": "9a6e364e45bf73615b73",
        "evaluate": "115ae7caf63177a5b3d8",
    }


def test_keys_are_the_same_in_another_process(toy: Any) -> None:
    code = (
        "from ablab.plan.keys import block_text; from ablab.contract.training import Train;"
        "print(block_text(Train(steps=7, optimizer={'learning_rate': 1e-5, 'groups': [{'pattern': 'a'}]}), 'train'))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    mine = Train.model_validate({"steps": 7, "optimizer": {"learning_rate": 1e-5, "groups": [{"pattern": "a"}]}})
    assert (
        out == block_text(mine, "train") == '{"optimizer":{"groups":[{"pattern":"a"}],"learning_rate":1e-05},"steps":7}'
    )


def test_an_identity_knows_its_configuration(toy: Any) -> None:
    keyer = Keyer(task="toy", resolve=lambda _: ("", True), digest=lambda _: "")
    one: Identity = keyer.identity(toy.stage("train"))
    assert one.config == keyer.identity(toy.stage("train")).config != keyer.identity(toy.stage("train", batch=3)).config
