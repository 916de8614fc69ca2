import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from ablab.contract.failure import DataError
from ablab.training import checkpoint
from ablab.training.checkpoint import damage, latest_valid, load, load_model, name_of, save
from ablab.training.retention import Index, find, prune, read_index, strip, write_index
from ablab.training.weights import load_weights, save_weights


@pytest.fixture
def model(tiny):
    return tiny.Regression(tiny.Model(), seed=5)


def write(folder, model, *steps):
    for step in steps:
        save(folder / name_of(step), model=model, optimizer={"a::step": torch.tensor(1.0 * step)}, state={"step": step})


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_a_checkpoint_reads_back_bit_for_bit(tmp_path, tiny, model):
    write(tmp_path, model, 7)
    other = tiny.Regression(tiny.Model(), seed=6)
    tensors, state = load(tmp_path / name_of(7), other)
    assert state == {"step": 7} and tensors["a::step"].item() == 7
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_equal_weights_are_equal_files(tmp_path, model):
    """The order in which the library writes metadata is drawn anew each time."""
    contents = set()
    for number in range(12):
        path = tmp_path / f"{number}.safetensors"
        save_weights(path, model)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with safe_open(path, framework="pt") as file:
        assert list(file.metadata()) and file.metadata()["format"] == "pt"


def test_tied_weights_are_stored_once(tmp_path, tiny):
    model = tiny.Characters(tiny.Model(kind="characters"), seed=1)
    save_weights(tmp_path / "w.safetensors", model)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert sorted({"embedding.weight", "head.weight"} & set(file.keys())) == ["embedding.weight"]
    other = tiny.Characters(tiny.Model(kind="characters"), seed=2)
    load_weights(tmp_path / "w.safetensors", other)
    assert torch.equal(other.head.weight, model.head.weight) and other.head.weight is other.embedding.weight


def test_regenerable_matrices_are_left_out_and_made_again(tmp_path, tiny):
    model = tiny.Regression(tiny.Model(regenerable=True), seed=5)
    save_weights(tmp_path / "w.safetensors", model)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert "frozen.weight" not in file.keys()  # noqa: SIM118
    other = tiny.Regression(tiny.Model(regenerable=True), seed=6)
    load_weights(tmp_path / "w.safetensors", other)
    assert torch.equal(other.frozen.weight, model.frozen.weight)


def test_a_matrix_that_comes_out_different_is_an_error(tmp_path, tiny, monkeypatch):
    model = tiny.Regression(tiny.Model(regenerable=True), seed=5)
    save_weights(tmp_path / "w.safetensors", model)
    monkeypatch.setattr(model, "regenerate", lambda name, recipe: torch.zeros(16, 16))
    with pytest.raises(DataError, match=r"frozen\.weight made again"):
        load_weights(tmp_path / "w.safetensors", model)


def test_a_recipe_is_not_believed_for_a_tensor_that_trains(tmp_path, tiny):
    model = tiny.Regression(tiny.Model(regenerable=True), seed=5)
    model.frozen.weight.requires_grad_(True)
    save_weights(tmp_path / "w.safetensors", model)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert "frozen.weight" in file.keys()  # noqa: SIM118


def test_views_and_transposes_are_stored_by_value(tmp_path):
    base = torch.arange(12.0)
    model = nn.Module()
    model.register_buffer("slice", base[3:7])
    model.register_buffer("turned", base.view(3, 4).t())
    save_weights(tmp_path / "w.safetensors", model)
    other = nn.Module()
    other.register_buffer("slice", torch.zeros(4))
    other.register_buffer("turned", torch.zeros(4, 3))
    load_weights(tmp_path / "w.safetensors", other)
    assert other.slice.tolist() == [3, 4, 5, 6] and torch.equal(other.turned, base.view(3, 4).t())


def test_weights_of_another_model_are_refused_by_name(tmp_path, tiny, model):
    write(tmp_path, model, 1)
    with pytest.raises(DataError, match="has shape"):
        load_model(tmp_path / name_of(1), tiny.Regression(tiny.Model(width=8), seed=1))
    with pytest.raises(DataError, match=r"missing 0\.bias, 0\.weight"):
        load_model(tmp_path / name_of(1), nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["truncate", "flip", "remove"])
def test_any_damage_is_seen_and_the_checkpoint_before_is_taken(tmp_path, model, file, how):
    write(tmp_path, model, 1, 2)
    path = tmp_path / name_of(2) / file
    data = path.read_bytes()
    if how == "remove":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(bytes([*data[:-9], data[-9] ^ 1, *data[-8:]]))
    told = []
    assert latest_valid(tmp_path, report=told.append) == tmp_path / name_of(1)
    assert len(told) == 1 and name_of(2) in told[0]
    with pytest.raises(DataError, match="damaged"):
        load_model(tmp_path / name_of(2), model)


def test_half_written_checkpoints_do_not_count_and_are_swept(tmp_path, model, monkeypatch):
    write(tmp_path, model, 1)
    monkeypatch.setattr(checkpoint, "write_manifest", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, model, 2)
    (tmp_path / ".tmp-step-00000003-1-aa").mkdir()
    assert latest_valid(tmp_path) == tmp_path / name_of(1)
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == [name_of(1)]


def test_writing_a_step_again_replaces_a_damaged_one(tmp_path, model):
    write(tmp_path, model, 4)
    (tmp_path / name_of(4) / "model.safetensors").write_bytes(b"")
    write(tmp_path, model, 4)
    assert damage(tmp_path / name_of(4)) == []


def test_retention_keeps_last_spare_best_and_kept(tmp_path, model):
    write(tmp_path, model, 1, 2, 3, 4, 5)
    index = Index(last=name_of(5), keep=[name_of(2)])
    index.rank(1, 0.5, mode="min", count=1)
    prune(tmp_path, index)
    assert names(tmp_path) == [name_of(step) for step in (1, 2, 4, 5)]
    stripped = tmp_path / name_of(1)
    assert not (stripped / "optimizer.safetensors").exists() and damage(stripped) == []
    assert (tmp_path / name_of(4) / "optimizer.safetensors").exists()
    prune(tmp_path, index, spare=0)
    assert names(tmp_path) == [name_of(step) for step in (1, 2, 5)]


def test_a_damaged_checkpoint_is_no_spare(tmp_path, model):
    write(tmp_path, model, 1, 2, 3)
    prune(tmp_path, Index(last=name_of(3)), discard=[name_of(2)])
    assert names(tmp_path) == [name_of(1), name_of(3)]


def test_a_stripped_checkpoint_cannot_be_resumed_from(tmp_path, model):
    write(tmp_path, model, 1, 2)
    strip(tmp_path / name_of(2))
    assert latest_valid(tmp_path) == tmp_path / name_of(1)
    load_model(tmp_path / name_of(2), model)


def test_ranking_keeps_the_best_of_either_direction_and_the_earlier_of_equals():
    lower, higher = Index(), Index()
    for step, value in enumerate([3.0, 1.0, 2.0, 1.0, 5.0]):
        lower.rank(step, value, mode="min", count=2)
        higher.rank(step, value, mode="max", count=2)
    assert [(e.step, e.value) for e in lower.best] == [(1, 1.0), (3, 1.0)]
    assert [(e.step, e.value) for e in higher.best] == [(4, 5.0), (0, 3.0)]
    assert not lower.rank(9, 1.0, mode="min", count=2)


def test_last_and_best_are_found_by_the_index(tmp_path, model):
    write(tmp_path, model, 1, 2)
    index = Index(last=name_of(2))
    index.rank(1, 0.5, mode="min", count=1)
    write_index(tmp_path, index)
    assert read_index(tmp_path) == index
    assert find(tmp_path, "last").name == name_of(2) and find(tmp_path, "best").name == name_of(1)
    content = json.loads((tmp_path / "index.json").read_text())
    assert content["best"] == [{"name": name_of(1), "value": 0.5, "step": 1}]
    (tmp_path / name_of(1) / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        find(tmp_path, "best")
    with pytest.raises(DataError, match="no last checkpoint"):
        find(tmp_path / "nowhere", "last")
