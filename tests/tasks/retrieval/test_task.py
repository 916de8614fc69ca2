"""The task as the loop sees it: cached = uncached, resumed = uninterrupted, negatives kept, towers taken over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ablab.contract.failure import ConfigError, OutOfMemoryError
from ablab.contract.order import Input, Resources
from ablab.contract.training import Trainability
from ablab.launch.shrink import shrink
from ablab.models.retriever import Retriever, Temperature
from ablab.study.schema import Stage
from ablab.tasks.retrieval.config import SPEC, Pretrain, RetrievalTrain
from ablab.tasks.retrieval.pretraining import TowerPretraining
from ablab.tasks.retrieval.sections import Loss, Model, Taps, Towers
from ablab.tasks.retrieval.task import Retrieval
from ablab.tasks.retrieval.texts import OpenClipTexts, TowerTexts
from ablab.testing import check_task
from ablab.training.loop import prepare_model


def gradients(code: Retrieval, model: Retriever, batch) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    found = code.losses(model, batch)
    found.total.backward()
    return found.total.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_smaller_chunk_changes_neither_loss_nor_gradient(
    make_task: Callable[..., Retrieval], symmetric: bool
) -> None:
    loss = Loss(temperature=0.1, learnable=True, score="mean", symmetric=symmetric)
    code = make_task(loss=loss, batch=8)
    model = code.model(seed=1)
    batch = code.data("train").batch(np.arange(8), seed=1, step=0)
    whole = gradients(code, model, batch)
    for made in (
        make_task(loss=loss, batch=8, chunk=3),
        make_task(loss=loss, batch=8, resources=Resources(loss_chunk=2)),
    ):
        assert made.chunk < 8
        value, found = gradients(made, model, batch)
        assert value == pytest.approx(whole[0], rel=1e-5)
        assert found.keys() == whole[1].keys() and "scale.inverse" in found
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, whole[1][name], atol=1e-5, rtol=1e-3)


def test_memory_that_runs_out_shrinks_the_chunk_and_keeps_the_negatives(make_task: Callable[..., Retrieval]) -> None:
    code = make_task(batch=8, chunk=4)
    model = code.model(seed=1)
    batch = code.data("train").batch(np.arange(8), seed=1, step=0)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.encode = full  # type: ignore[method-assign]
    with pytest.raises(OutOfMemoryError) as caught:
        code.losses(model, batch)
    assert caught.value.detail == {"loss_chunk": 4}
    parameters = RetrievalTrain(steps=1, batch=8, chunk=4)
    stage = Stage(name="train", kind="train", spec=SPEC.stages["train"], parameters=parameters, sections={}, needs=())
    shrunk = shrink(stage, Resources(), caught.value.detail)
    assert shrunk.resources is not None and shrunk.resources.loss_chunk == 2 and shrunk.resources.micro_batch is None
    assert make_task(batch=8, chunk=4, resources=shrunk.resources).chunk == 2


def test_a_micro_batch_is_refused() -> None:
    check = SPEC.stages["train"].check
    assert check is not None
    (complaint,) = check({}, RetrievalTrain(steps=1, batch=64, micro_batch=16), None)
    assert "15 negatives instead of 63" in complaint.message and complaint.suggestion == "chunk"
    assert not check({}, RetrievalTrain(steps=1, batch=64, micro_batch=64), None)


@pytest.mark.parametrize("query", ["both", "text", "image", "none"])
def test_what_a_side_does_not_see_has_no_effect_and_no_gradient(
    make_task: Callable[..., Retrieval], query: str
) -> None:
    code = make_task(model=Model(width=16, heads=2, queries=4, output=8, dropout=0, query=query, cells="separate"))
    model = code.model(seed=1)
    batch = code.data("train").batch(np.arange(6), seed=1, step=0)
    assert ("query.pixels" in batch) is (query in ("both", "image"))
    assert ("query.ids" in batch) is (query in ("both", "text"))
    code.losses(model, batch).total.backward()
    for name, parameter in model.named_parameters():
        # What trains has a gradient, what cannot be reached is frozen.
        assert (parameter.grad is not None) is parameter.requires_grad, name
    if query == "none":
        items = {key.removeprefix("query."): value for key, value in batch.items() if key.startswith("query.")}
        vectors = model.encode("query", items)
        assert torch.equal(vectors[0], vectors[1])


def test_taps_are_validated_when_built(make_task: Callable[..., Retrieval]) -> None:
    code = make_task(model=Model(width=16, heads=2, taps=Taps(text=(0, 5), vision=(0, 2))))
    with pytest.raises(ConfigError, match="text tower has 3 layers, so there is no layer 5; valid taps are 0 to 2"):
        code.model(seed=1)


def test_negatives_need_a_stage_that_mined_them(make_task: Callable[..., Retrieval]) -> None:
    with pytest.raises(ConfigError, match="mine stage"):
        make_task(negatives=2).data("train")


def test_facts_tell_scale_truncation_and_the_rest_of_an_epoch(make_task: Callable[..., Retrieval]) -> None:
    code = make_task(batch=8)
    model = code.model(seed=1).eval()
    data = code.data("train")
    with torch.no_grad():
        facts = code.facts(model, data.batch(np.arange(8), seed=1, step=0))
    assert facts["epoch.rest"] == data.samples % 8 and facts["loss.chance"] == pytest.approx(np.log(8))
    assert facts["taps.text"] == [0, 1, 2] and facts["logits.scale"] > 0
    alone = make_task(batch=1)
    with torch.no_grad():
        assert alone.facts(model, data.batch(np.arange(1), seed=1, step=0))["logits.scale"] == 0.0, "a number, not nan"
    lengths = np.array([len(row["text"].encode()) + 1 for row in code.pairs.queries("train")])
    assert facts["truncated.query.tokens"] == pytest.approx(np.maximum(lengths - 24, 0).sum() / lengths.sum(), abs=0.02)


def test_resume_equals_uninterrupted_and_a_batch_is_learnt(data, towers, model) -> None:
    """Through the real worker: prepare, train, kill, resume; bit for bit."""
    found = check_task(
        "retrieval",
        sections={
            "data": data.model_dump(mode="json"),
            "towers": towers.model_dump(mode="json"),
            "model": model.model_dump(mode="json"),
            "loss": {"temperature": 0.1, "score": "mean", "symmetric": True, "learnable": True},
        },
        stages={"pretrain": None, "train": None, "mine": None},
        steps=4,
        batch=6,
        overfit_steps=60,
        learning_rate=3e-3,
    )
    assert found.overfit[1] < found.overfit[0] and {"val/loss", "val/r_at_1"} <= found.metrics.keys()


RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
          "layer_type": "basic"}  # fmt: skip


def test_batch_norms_of_a_tower_keep_their_statistics(
    make_task: Callable[..., Retrieval], towers: Towers, model: Model
) -> None:
    """A frozen tower stays what it is, and a chunk has the states that it has in the batch."""
    towers = Towers(text=towers.text, vision={"config": RESNET}, tokens=24)
    model = model.model_copy(update={"taps": "thirds"})

    def task(**train: object) -> Retrieval:
        code = make_task(model=model, **train)
        code._sections = {**code._sections, "towers": towers}
        return code

    code = task(batch=8)
    built = code.model(seed=1)
    fresh = {name: each.clone() for name, each in built.vision.named_buffers() if "running" in name}
    assert fresh and all(torch.equal(each, each[:1].expand_as(each)) for each in fresh.values()), "as a norm starts"
    built.train()
    batch = code.data("train").batch(np.arange(8), seed=1, step=0)
    whole = gradients(code, built, batch)
    chunked = gradients(task(batch=8, chunk=3), built, batch)
    assert chunked[0] == pytest.approx(whole[0], rel=1e-5)
    for name, gradient in chunked[1].items():
        torch.testing.assert_close(gradient, whole[1][name], atol=1e-5, rtol=1e-3)
    for name, each in built.vision.named_buffers():
        assert "running" not in name or torch.equal(each, fresh[name]), name
    # Training layers of a tower still train: it is the statistics alone that stay.
    assert any("normalization.weight" in name for name in whole[1])


def test_pretraining_with_batch_norms_takes_no_chunks(prepared: Input, towers: Towers) -> None:
    towers = Towers(text=towers.text, vision={"config": RESNET}, tokens=24)

    def build(**more: object) -> TowerPretraining:
        parameters = Pretrain(**{"steps": 1, "batch": 8, **more})
        return TowerPretraining({"towers": towers}, inputs=(prepared,), parameters=parameters)

    assert build().model(seed=1).vision.batch_norms()[0].training
    with pytest.raises(ConfigError, match="see a chunk of 4 where they should see the batch of 8"):
        build(chunk=4).model(seed=1)


def test_what_nothing_reads_stays_frozen_in_a_part_that_trains(make_task: Callable[..., Retrieval]) -> None:
    full = Trainability(mode="full")
    code = make_task(parts={"text": full, "vision": full})
    model = prepare_model(code, code._parameters, seed=1, device=torch.device("cpu"))
    batch = code.data("train").batch(np.arange(8), seed=1, step=0)
    code.losses(model, batch).total.backward()
    still = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    assert not still


def test_groups_that_are_measured_know_no_other_process(
    make_task: Callable[..., Retrieval], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes have groups of their own, and not equally many: gathering them would mix or stall."""
    from ablab.tasks.retrieval import objective

    asked: list[int] = []
    monkeypatch.setattr(objective, "gather", lambda rows: (asked.append(len(rows)), (rows, 0))[1])
    code = make_task(batch=8, loss=Loss(symmetric=True))
    model = code.model(seed=1).eval()
    with torch.no_grad():
        code.losses(model, code.data("val").batch(np.array([0]), seed=1, step=0))
        assert not asked
        code.losses(model, code.data("train").batch(np.arange(8), seed=1, step=0))
        assert asked


@pytest.mark.parametrize("learnable", [False, True])
def test_a_temperature_is_what_it_says(learnable: bool) -> None:
    scores = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(Temperature(0.02, learnable=learnable)(scores), scores * 50)
    torch.testing.assert_close(Temperature(0.005, learnable=False)(scores), scores * 200)
    with pytest.raises(ValueError, match=r"stays above 0\.01"):
        Loss(temperature=0.005, learnable=True)


def test_a_learnt_temperature_comes_back_from_its_bound() -> None:
    scale = Temperature(0.01, learnable=True)
    with torch.no_grad():
        scale.inverse += 1.0
    value = scale(torch.tensor(1.0))
    assert value.item() == pytest.approx(100.0, rel=1e-5)
    value.backward()
    assert scale.inverse.grad is not None and scale.inverse.grad.item() == pytest.approx(100.0, rel=1e-5)


def test_texts_of_open_clip_have_the_length_that_is_asked_for() -> None:
    """As open_clip's tokenizers are called: ids cut at `context_length`, the end kept, zeros behind it."""

    class Tokenizer:
        context_length, vocab_size = 77, 100

        def __call__(self, texts: list[str], context_length: int | None = None) -> torch.Tensor:
            found = torch.zeros(len(texts), context_length or self.context_length, dtype=torch.int64)
            for row, words in zip(found, texts, strict=True):
                ids = [1, *(10 + len(word) for word in words.split())][: len(row) - 1]
                row[: len(ids) + 1] = torch.tensor([*ids, 2])
            return found

        def encode(self, text: str) -> list[int]:
            return [10 + len(word) for word in text.split()]

    texts = OpenClipTexts(Tokenizer(), limit=4)
    ids, mask = texts(["a bb ccc dddd", None])
    assert ids.tolist() == [[1, 11, 12, 2], [1, 2, 0, 0]] and mask.sum(1).tolist() == [4, 2]
    assert texts.lengths(["a bb ccc dddd"]) == [6]
    with pytest.raises(ConfigError, match="takes at most 77 tokens"):
        OpenClipTexts(Tokenizer(), limit=100)


def test_padding_of_a_tokenizer_that_tells_no_mask_does_not_count() -> None:
    class Tokenizer:
        model_max_length = 8

        def __len__(self) -> int:
            return 10

        def __call__(self, texts: list[str], *, return_attention_mask: bool | None = None, **_: object) -> dict:
            rows = [[len(word) for word in text.split()] for text in texts]
            width = max(map(len, rows))
            made = {"input_ids": torch.tensor([row + [9] * (width - len(row)) for row in rows])}
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            return made | ({"attention_mask": mask} if return_attention_mask else {})

    ids, mask = TowerTexts(Tokenizer(), limit=8)(["a bb", "a"])
    assert ids.tolist() == [[1, 2], [1, 9]] and mask.tolist() == [[True, True], [True, False]]
