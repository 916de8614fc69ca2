"""Batches draw positives reproducibly; the sampler keeps equal positives apart; groups know no other batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.data.pairs import Pairs
from ablab.tasks.retrieval.batches import Groups, TrainPairs, padded, spread_positives
from ablab.tasks.retrieval.task import Retrieval


def test_positives_are_drawn_anew_and_reproducibly(make_task: Callable[..., Retrieval], pairs: Pairs) -> None:
    data = make_task().data("train")
    assert isinstance(data, TrainPairs)
    ids = data.order(7, 0)[:16]
    first = data.batch(ids, seed=7, step=3)
    assert torch.equal(first["own"], data.batch(ids, seed=7, step=3)["own"])
    assert not torch.equal(first["own"], data.batch(ids, seed=7, step=4)["own"])
    assert not torch.equal(first["own"], data.batch(ids, seed=8, step=3)["own"])
    # A query's positive does not depend on its place in the batch, nor on the others.
    back = data.batch(ids[::-1].copy(), seed=7, step=3)
    assert torch.equal(back["own"].flip(0), first["own"])
    rows = pairs.queries("train")
    drawn = {int(data.batch(ids[:1], seed=7, step=step)["own"]) for step in range(40)}
    assert drawn == set(rows[int(ids[0])]["positives"])


def test_a_batch_holds_what_its_rows_hold(make_task: Callable[..., Retrieval], pairs: Pairs) -> None:
    data = make_task().data("train")
    ids = np.arange(40)
    batch = data.batch(ids, seed=1, step=0)
    rows = [pairs.queries("train")[int(i)] for i in ids]
    assert batch["query.image"].tolist() == [float(row["image"] is not None) for row in rows]
    assert 0 < batch["query.image"].sum() < 40 and batch["passage.image"].min() == 0
    missing = batch["query.image"] == 0
    assert not batch["query.pixels"][missing].any() and batch["query.pixels"][~missing].any()
    for place, row in enumerate(rows):
        ids_, mask = batch["query.ids"][place], batch["query.mask"][place]
        assert bytes(ids_[mask][:-1].tolist()) == row["text"].encode()[:23] and mask.sum() <= 24
        passage = pairs.passages[int(batch["own"][place])]
        assert batch["passage.image"][place] == float(passage["image"] is not None)


@settings(deadline=None, max_examples=60)
@given(
    positives=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=60),
    batch=st.integers(1, 9),
    first=st.integers(0, 8),
)
def test_the_sampler_keeps_every_query_and_repeats_only_where_it_must(positives, batch, first) -> None:
    first %= batch
    order = spread_positives(np.arange(len(positives)), positives, batch=batch, first=first)
    assert sorted(order.tolist()) == list(range(len(positives)))
    cuts = [0, *range(first or batch, len(positives), batch), len(positives)]
    for low, high in pairwise(cuts):
        chosen = [set(positives[i]) for i in order[low:high]]
        for place, each in enumerate(chosen):
            before = set().union(*chosen[:place])
            if each & before:
                # Then all that was left repeated too.
                assert all(set(positives[i]) & before for i in order[low + place :])


def test_batches_of_the_stream_repeat_no_positive(make_task: Callable[..., Retrieval], pairs: Pairs) -> None:
    from ablab.training.batches import Stream

    data = make_task(sampler="distinct").data("train")
    assert isinstance(data, TrainPairs)
    stream = Stream(data, seed=3, batch=8)
    positives = pairs.positives("train")
    for step in range(2 * data.samples // 8):
        start, stop = step * 8, step * 8 + 8
        if start // data.samples != (stop - 1) // data.samples:
            continue
        used = [positive for i in stream.ids(step) for positive in positives[int(i)]]
        assert len(used) == len(set(used)), step


def test_groups_are_the_same_however_many_are_taken_at_once(make_task: Callable[..., Retrieval]) -> None:
    code = make_task(batch=8)
    groups = code.data("val")
    assert isinstance(groups, Groups) and groups.samples > 1
    model = code.model(seed=1).eval()
    with torch.no_grad():
        whole = code.losses(model, groups.batch(np.arange(groups.samples), seed=1, step=0))
        parts = [code.losses(model, groups.batch(np.array([i]), seed=1, step=i)) for i in range(groups.samples)]
    assert whole.weight == sum(part.weight for part in parts)
    torch.testing.assert_close(whole.total, torch.stack([part.total for part in parts]).sum())
    hits = torch.stack([part.terms["r_at_1"] for part in parts]).sum()
    torch.testing.assert_close(whole.terms["r_at_1"], hits)


def test_a_query_alone_is_left_out_of_validation(make_task: Callable[..., Retrieval]) -> None:
    pairs = make_task().data("train")
    assert isinstance(pairs, TrainPairs)
    groups = Groups(pairs, group=pairs.samples - 1, most=None)
    assert (groups.samples, groups.left_out) == (1, True)
    whole = Groups(pairs, group=pairs.samples - 2, most=None)
    assert (whole.samples, whole.left_out) == (2, False)
    assert whole.batch(np.array([1]), seed=1, step=0)["groups"] == [2]
    assert Groups(pairs, group=4, most=3).samples == 3


def test_lists_are_filled_up() -> None:
    assert padded([[3], [1, 2]]).tolist() == [[3, -1], [1, 2]]
    assert padded([[]]).tolist() == [[-1]]


def test_queries_without_a_positive_are_asked_but_not_trained_on(tmp_path, contexts, towers, model) -> None:
    """Only the train split is prepared without them: an evaluation counts them, a loss has nothing to draw."""
    from ablab.contract.order import Input
    from ablab.tasks.retrieval.config import RetrievalTrain
    from ablab.tasks.retrieval.evaluation import Questions
    from ablab.tasks.retrieval.preparation import prepare
    from ablab.tasks.retrieval.sections import Data, Loss

    rows = [
        {"data_id": str(n), "question": f"what is {n}?", "passage_id": f"p{n}"}
        | ({"passage_text": f"It is {n}."} if n % 3 else {})
        for n in range(9)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {split: (str(source),) for split in ("train", "val", "test")}
    data = Data(source="files", queries=named, image_size=16, tokenizer={"name": "bytes"})
    prepare(data, contexts(tmp_path / "run"))
    given = Input(reference="prepare", stage="prepare", kind="prepare", key="1", path=str(tmp_path / "run"))

    def task(**train: object) -> Retrieval:
        parameters = RetrievalTrain(**{"steps": 1, "batch": 6, **train})
        return Retrieval({"towers": towers, "model": model, "loss": Loss()}, inputs=(given,), parameters=parameters)

    for split, sampler in (("val", "random"), ("test", "distinct")):
        part = task(split=split, sampler=sampler).data("train")
        assert part.samples == 6 and sorted(part.order(1, 0).tolist()) == list(range(6))
        owned = part.batch(np.arange(6), seed=1, step=0)["own"]
        texts = [task().pairs.passages[int(own)]["text"] for own in owned]
        assert texts == [f"It is {n}." for n in (1, 2, 4, 5, 7, 8)]
    groups = task().data("val")
    assert groups.samples == 1 and groups.batch(np.array([0]), seed=1, step=0)["groups"] == [6]
    assert len(Questions(task().pairs, "test").rows) == 9
