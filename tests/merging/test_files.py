"""Merging over files: shards, types, copies, what stands beside the weights, and every mistake by its message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ablab.contract.failure import AblabError, DataError, DiskFullError, StopRequested
from ablab.contract.merge import Merge
from ablab.merging import engine, helpers
from ablab.merging import merge as merging
from ablab.merging.merge import Named, Options, merge_models
from ablab.merging.shards import Shards
from ablab.merging.writing import Planned, split
from tests.merging.conftest import Merging, Tensors, random_tensors, read_model, write_model

TIES: dict[str, Any] = {
    "method": "ties", "base": "base", "models": [{"model": "a", "density": 0.3}, {"model": "b", "density": 0.3}]
}  # fmt: skip
DARE: dict[str, Any] = {**TIES, "method": "dare-ties"}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("settings", [TIES, DARE], ids=["ties", "dare"])
def test_sharded_is_whole(
    merge: Merging, originals: dict[str, Tensors], tmp_path: Path, settings: dict[str, Any]
) -> None:
    for name, files in (("base", 3), ("a", 2), ("b", 4)):
        write_model(tmp_path / "sharded" / name, originals[name], files=files)
    whole, _ = merge(**settings)
    assert same(whole, merge(tmp_path / "sharded", **settings)[0])
    assert same(whole, merge(**settings, shard_bytes=5000)[0])


def test_a_sharded_result_reads_by_its_index(family: Path, tmp_path: Path) -> None:
    settings = Merge.model_validate({**TIES, "shard_bytes": 5000})
    named = [Named(label=name, folder=family / name) for name in settings.sources]
    target = tmp_path / "out"
    target.mkdir()
    merge_models(settings, base=named[0], models=named[1:], target=target, seed=0)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    tensors = read_model(target)
    assert index["weight_map"].keys() == tensors.keys()
    for name, file in index["weight_map"].items():
        assert name in load_file(target / file)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in tensors.values())
    assert not (target / "README.md").exists()
    assert json.loads((target / "config.json").read_text())["model_type"] == "tiny"
    assert json.loads((target / "merge.json").read_text())["method"] == "ties"


def test_the_result_depends_on_the_seed_alone(merge: Merging) -> None:
    assert same(merge(**DARE, seed=1)[0], merge(**DARE, seed=1)[0])
    assert not same(merge(**DARE, seed=1)[0], merge(**DARE, seed=2)[0])
    assert same(merge(**TIES, seed=1)[0], merge(**TIES, seed=2)[0])


def test_helper_processes_change_nothing(merge: Merging, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**DARE, "models": [{"model": "a", "density": 0.5, "trim": 0.2}, {"model": "b", "density": 0.3}]}
    alone, report = merge(**settings)
    monkeypatch.setattr(merging, "WORTH", 0)
    monkeypatch.setattr(engine, "UNIT", 1 << 16)
    helped, other = merge(**settings, options=Options(threads=2))
    assert same(alone, helped)
    assert other.deltas == pytest.approx(report.deltas, rel=1e-12)


def test_a_lost_helper_ends_the_merge(merge: Merging, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        count = 1

        def submit(self, unit: object) -> object:
            raise helpers.BrokenProcessPool("gone")

    monkeypatch.setattr(merging, "WORTH", 0)
    monkeypatch.setattr(helpers, "Pool", lambda executor, count: Broken())
    with pytest.raises(helpers.HelperLost, match="was killed"):
        merge(**TIES, options=Options(threads=2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32_and_rounded_once(
    merge: Merging, originals: dict[str, Tensors], tmp_path: Path, dtype: torch.dtype
) -> None:
    for name in ("base", "a", "b"):
        write_model(tmp_path / "half" / name, originals[name], dtype=dtype)
    settings = {"method": "task-arithmetic", "base": "base", "models": [{"model": "a"}, {"model": "b", "weight": 0.5}]}
    found, _ = merge(tmp_path / "half", **settings)
    base, a, b = (originals[m]["layer.weight"].to(dtype).float() for m in ("base", "a", "b"))
    assert torch.equal(found["layer.weight"], (base + ((a - base) + (b - base) * 0.5)).to(dtype))


def test_another_type_on_request(merge: Merging, family: Path, tmp_path: Path) -> None:
    found, _ = merge(**TIES, dtype="bf16")
    plain, _ = merge(**TIES)
    assert torch.equal(found["embed.weight"], plain["embed.weight"].bfloat16())
    assert found["positions"].dtype == torch.int64


def test_only_merges_what_it_names(merge: Merging, originals: dict[str, Tensors]) -> None:
    found, report = merge(**TIES, only=("layer.*",))
    assert torch.equal(found["embed.weight"], originals["base"]["embed.weight"])
    assert not torch.equal(found["layer.weight"], originals["base"]["layer.weight"])
    assert (report.merged, report.copied) == (2, 3)
    with pytest.raises(AblabError, match=r"'layr\.\*' matches none"):
        merge(**TIES, only=("layr.*",))


def test_a_method_of_ones_own(family: Path, tmp_path: Path, originals: dict[str, Tensors]) -> None:
    def largest(base: torch.Tensor, models: list[torch.Tensor], *, weights: list[float], seed: int) -> torch.Tensor:
        return torch.stack(models).amax(0)

    def short(base: torch.Tensor, models: list[torch.Tensor], *, weights: list[float], seed: int) -> torch.Tensor:
        return base[:1]

    settings = Merge.model_validate(
        {"method": "own.py:largest", "base": "base", "models": [{"model": m} for m in "ab"]}
    )
    named = [Named(label=name, folder=family / name) for name in settings.sources]
    target = tmp_path / "own"
    target.mkdir()
    merge_models(settings, base=named[0], models=named[1:], target=target, seed=0, own=largest)
    a, b = (originals[m]["embed.weight"] for m in "ab")
    assert torch.equal(read_model(target)["embed.weight"], torch.maximum(a, b))
    shutil.rmtree(target)
    target.mkdir()
    with pytest.raises(AblabError, match=r"returned \(1,.*expected a tensor of shape"):
        merge_models(settings, base=named[0], models=named[1:], target=target, seed=0, own=short)


def test_a_stop_ends_the_merge(merge: Merging) -> None:
    with pytest.raises(StopRequested):
        merge(**TIES, options=Options(stop=lambda: True))


def test_progress_reaches_the_whole(merge: Merging) -> None:
    told: list[tuple[int, int]] = []
    _, report = merge(**TIES, options=Options(progress=lambda done, total: told.append((done, total))))
    assert told[-1] == (report.parameters, report.parameters)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def renamed(tensors: Tensors) -> Tensors:
    return {("other.weight" if name == "norm.weight" else name): value for name, value in tensors.items()}


def reshaped(name: str, shape: tuple[int, ...]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "lacks 1 of 5 tensors of base: norm.weight"),
        (lambda tensors: {**tensors, "more.weight": torch.zeros(2)}, "has 1 tensors that base has not: more.weight"),
        (reshaped("layer.weight", (30, 40)), r"layer.weight has shape \(30, 40\) in a and \(40, 30\) in base"),
        (reshaped("embed.weight", (603, 301)), "different vocabularies: embed.weight has 603 and 601 rows"),
        (lambda tensors: {**tensors, "positions": torch.arange(5) + 1}, "positions holds whole numbers that differ"),
        (
            lambda tensors: {**tensors, "layer.bias": torch.full((40,), float("nan"))},
            "layer.bias: the task vector of a",
        ),
        (lambda tensors: {**tensors, "layer.bias": torch.zeros(40).to(torch.float8_e4m3fn)}, "layer.bias is F8_E4M3"),
    ],
    ids=["renamed", "extra", "shape", "vocabulary", "whole-numbers", "nan", "eight-bit"],
)
def test_models_that_do_not_fit(
    merge: Merging,
    originals: dict[str, Tensors],
    tmp_path: Path,
    change: Callable[[Tensors], Tensors],
    message: str,
) -> None:
    root = tmp_path / "unfit"
    write_model(root / "a", change(originals["a"]))
    for name in ("base", "b"):
        write_model(root / name, originals[name])
    with pytest.raises(DataError, match=message):
        merge(root, **TIES)


def test_a_task_vector_of_zero_is_an_error(merge: Merging, originals: dict[str, Tensors], tmp_path: Path) -> None:
    root = tmp_path / "zero"
    for name, own in (("base", "base"), ("a", "a"), ("b", "base")):
        write_model(root / name, originals[own], files=2 if name == "b" else 1)
    with pytest.raises(DataError, match=r"b equals the base base in all 4 tensors .* task vector is zero"):
        merge(root, **TIES)
    assert merge(root, **{**TIES, "models": TIES["models"][:1]})[1].deltas["a"] > 0


def test_other_architectures_and_tokens(merge: Merging, originals: dict[str, Tensors], tmp_path: Path) -> None:
    root = tmp_path / "other"
    for name in ("base", "a", "b"):
        write_model(root / name, originals[name])
    tokens = root / "a" / "tokenizer.json"
    tokens.write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1, "c": 2}}, "added_tokens": []}))
    merge(root, **TIES)
    tokens.write_text(json.dumps({"model": {"vocab": {"b": 0, "a": 1}}, "added_tokens": []}))
    with pytest.raises(DataError, match="different vocabularies: token 0 is 'b' and 'a'"):
        merge(root, **TIES)
    (root / "b" / "config.json").write_text(json.dumps({"model_type": "huge"}))
    with pytest.raises(DataError, match="b is a huge and base a tiny"):
        merge(root, **{**TIES, "models": TIES["models"][1:]})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "copy or download it again"),
        (lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "pointer of Git LFS"),
        (lambda file: file.write_bytes(b""), "is no safetensors file"),
        (lambda file: file.rename(file.with_name("pytorch_model.bin")), "save the model again with save_pretrained"),
    ],
    ids=["cut", "pointer", "empty", "pickled"],
)
def test_damaged_files(
    merge: Merging, originals: dict[str, Tensors], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    root = tmp_path / "damaged"
    for name in ("base", "a", "b"):
        write_model(root / name, originals[name])
    damage(root / "a" / "model.safetensors")
    with pytest.raises(DataError, match=message):
        merge(root, **TIES)


def test_a_full_disk_is_known_before(merge: Merging, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(merging.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskFullError, match=r"the result takes 0\.0 GB"):
        merge(**TIES)


def test_slices_are_what_the_library_reads(tmp_path: Path) -> None:
    tensors = random_tensors(4)
    tensors |= {"half": torch.randn(9, 3).bfloat16(), "flags": torch.tensor([True, False]), "none": torch.zeros(0, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    with Shards([tmp_path / "model.safetensors"]) as shards:
        for name, value in tensors.items():
            assert torch.equal(shards.read(name).view(value.shape), value)
            if len(value):
                assert torch.equal(shards.read(name, 1, 2), value.flatten()[1:2])


def test_shards_hold_no_more_than_allowed() -> None:
    planned = [Planned(name=str(n), dtype="F32", shape=(n,)) for n in (10, 50, 20, 20, 5)]
    shards = split(planned, 200)
    assert [sorted(each.name for each in shard) for shard in shards] == [["10"], ["50"], ["20", "20", "5"]]
