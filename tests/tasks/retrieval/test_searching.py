"""Search over a pool as it is encoded, chance, mining and probing, against brute force."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ablab.contract.failure import ConfigError
from ablab.contract.order import Input
from ablab.data.pairs import Pairs
from ablab.metrics.ranking import hit, relevance
from ablab.models.maxsim import maxsim
from ablab.tasks.retrieval.config import Bm25, Evaluate, Index, Mine, Probe
from ablab.tasks.retrieval.evaluation import Questions
from ablab.tasks.retrieval.mining import FILE, choose, read_negatives
from ablab.tasks.retrieval.preparation import prepare
from ablab.tasks.retrieval.probing import without
from ablab.tasks.retrieval.searching import encode_pool, encode_queries, search_exactly
from ablab.tasks.retrieval.sections import Data
from ablab.tasks.retrieval.task import Retrieval


def test_search_as_the_pool_is_encoded_is_brute_force(make_task: Callable, pairs: Pairs, contexts, tmp_path) -> None:
    code, context = make_task(), contexts(tmp_path)
    model = code.model(seed=1).eval()
    questions = Questions(pairs, "test")
    queries = encode_queries(model, code.items, questions.rows[:20], batch=7, context=context)
    passages = torch.cat(list(encode_pool(model, code.items, questions.pool[:300], batch=64, context=context)))
    found = search_exactly(queries, iter(passages.split(64)), k=10)
    with torch.no_grad():
        scores = maxsim(queries, passages)
    expected = scores.sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(found.scores, expected.values[:, :10], atol=1e-5, rtol=1e-5)
    clear = (expected.values[:, :9] - expected.values[:, 1:10]).min(1).values > 1e-5
    assert torch.equal(found.ids[clear], expected.indices[clear, :10])


def test_chance_is_that_of_random_orders(pairs: Pairs) -> None:
    questions = Questions(pairs, "test")
    generator = np.random.default_rng(0)
    size = len(questions.pool)
    rates = [
        hit(relevance(np.stack([generator.permutation(size)[:50] for _ in questions.rows]), questions.positives), 50)
        for _ in range(40)
    ]
    assert questions.chance(50) == pytest.approx(float(np.mean(rates)), abs=0.01)


def test_evaluation_by_index_and_by_encoding_agree(
    make_task: Callable, prepared: Input, contexts, tmp_path: Path
) -> None:
    code = make_task()
    model = code.model(seed=1).eval()
    whole = code.evaluate(model, Evaluate(batch=64), contexts(tmp_path / "a"))
    made = code.evaluate(model, Index(batch=64), contexts(tmp_path / "index"))
    assert made.facts["index.passages"] == whole.facts["evaluation.pool"]
    given = Input(reference="index", stage="index", kind="index", key="i", path=str(tmp_path / "index"))
    indexed = code.evaluate(model, Evaluate(batch=64), contexts(tmp_path / "b", inputs=(given,)))
    assert indexed.metrics == pytest.approx(whole.metrics)
    names = {f"test/{name}" for name in ("hit_at_1", "hit_at_5", "hit_at_10", "mrr_at_10", "ndcg_at_10")}
    assert names < whole.metrics.keys() and "test/pseudo_recall_at_5" in whole.metrics
    assert len(whole.evaluations[0].examples) == 4


def test_an_index_in_bf16_is_smaller_and_states_what_it_loses(make_task: Callable, contexts, tmp_path: Path) -> None:
    code = make_task()
    model = code.model(seed=1).eval()
    full = code.evaluate(model, Index(batch=64), contexts(tmp_path / "a"))
    half = code.evaluate(model, Index(batch=64, precision="bf16"), contexts(tmp_path / "b"))
    assert "index.overlap@10" not in full.facts
    # Two bytes a number, and a byte more for the codes that bound the scores.
    assert 0.5 < half.facts["index.bytes"] / full.facts["index.bytes"] < 1
    assert 0.5 < half.facts["index.overlap@10"] <= 1 and 0 < half.facts["index.score_error"] < 0.05
    ((row,),) = (half.evaluations[0].tables[0].rows,)
    assert row[0] == "exact, bf16" and row[3] == half.facts["index.overlap@10"]
    coded = code.evaluate(model, Index(batch=64, precision="bf16", form="8-bit"), contexts(tmp_path / "c"))
    names = [row[0] for row in coded.evaluations[0].tables[0].rows]
    assert names == ["exact, bf16", "8-bit"] and coded.facts["index.bytes"] < half.facts["index.bytes"]


def test_mined_negatives_are_the_hardest_that_are_none(
    make_task: Callable, pairs: Pairs, prepared: Input, contexts, tmp_path: Path
) -> None:
    code = make_task()
    model = code.model(seed=1).eval()
    outcome = code.evaluate(model, Mine(batch=64, negatives=3, answers=False), contexts(tmp_path))
    assert outcome.artifacts == {"negatives": f"artifacts/{FILE}"}
    given = Input(reference="mine", stage="mine", kind="mine", key="m", path=str(tmp_path))
    found = read_negatives(given)
    questions = Questions(pairs, "train")
    queries = encode_queries(model, code.items, questions.rows, batch=64, context=contexts(tmp_path))
    passages = torch.cat(list(encode_pool(model, code.items, questions.pool, batch=64, context=contexts(tmp_path))))
    with torch.no_grad():
        scores = maxsim(queries, passages)
    for row, positives in enumerate(questions.positives):
        scores[row, positives] = -torch.inf
        hardest = scores[row].topk(3).values
        places = np.searchsorted(questions.pool, found[row])
        torch.testing.assert_close(scores[row, places], hardest, atol=1e-5, rtol=1e-5)
    train = make_task(inputs=(given,), negatives=2)
    batch = train.data("train").batch(np.arange(8), seed=1, step=0)
    assert batch["negatives"].tolist() == found[:8, :2].tolist() and batch["negative.ids"].shape[:2] == (8, 2)
    total = train.losses(train.model(seed=1), batch).total
    alone = train.losses(train.model(seed=1), {k: v for k, v in batch.items() if not k.startswith("negative")}).total
    assert total > alone


def test_passages_that_hold_an_answer_are_left_out() -> None:
    texts = ["a red fox", "a hare", "Fox again", "an owl", "a bee"]
    places = np.array([2, 0, 1, 4, 3, -1])
    assert choose(places, {4}, ["fox "], texts, Mine(negatives=2)) == [1, 3]
    assert choose(places, set(), [], texts, Mine(negatives=2, skip=1)) == [0, 1]
    assert choose(places, {0, 1, 2, 3}, [], texts, Mine(negatives=2)) == [4]


def test_a_probe_takes_away_what_it_says(make_task: Callable, contexts, tmp_path: Path) -> None:
    assert without("image")({"text": "a", "image": 3}) == {"text": "a", "image": None}
    code = make_task()
    outcome = code.evaluate(code.model(seed=1).eval(), Probe(batch=64), contexts(tmp_path))
    whole = code.evaluate(code.model(seed=1).eval(), Evaluate(batch=64), contexts(tmp_path))
    assert outcome.metrics["probe/whole/hit_at_5"] == pytest.approx(whole.metrics["test/hit_at_5"])
    assert len(outcome.metrics) == 6


def test_bm25_ranks_by_words_and_says_what_it_cannot(prepared: Input, contexts, tmp_path: Path) -> None:
    from ablab.tasks.retrieval.baseline import run

    context = contexts(tmp_path, kind="bm25", inputs=(prepared,), parameters=Bm25().model_dump(mode="json"))
    found = run(context.order, context).metrics
    # Only the picture tells what a visual question is about.
    assert found["test/textual/hit_at_5"] > 0.3 if "test/textual/hit_at_5" in found else found["test/hit_at_5"] > 0.1


def test_bm25_takes_the_saturation_it_is_given(prepared: Input, pairs: Pairs, contexts, tmp_path: Path) -> None:
    from ablab.metrics.ranking import means, query_scores
    from ablab.models.bm25 import BM25
    from ablab.tasks.retrieval.baseline import run

    questions = Questions(pairs, "test")
    asked = [row["question"] or "" for row in questions.rows]
    found = {}
    for k1, b in ((1.5, 0.75), (0.1, 0.0)):
        parameters = Bm25(k1=k1, b=b).model_dump(mode="json")
        context = contexts(tmp_path / str(k1), kind="bm25", inputs=(prepared,), parameters=parameters)
        found[k1] = run(context.order, context).metrics["test/mrr_at_10"]
        ranking, _ = BM25(questions.texts(pairs), k1=k1, b=b).search(asked, 10)
        assert found[k1] == pytest.approx(means(query_scores(ranking, questions.positives))["mrr@10"])
    assert found[1.5] != found[0.1]


def test_negatives_of_other_queries_or_too_few_of_them_are_refused(
    make_task: Callable, pairs: Pairs, tmp_path: Path
) -> None:
    def mined(queries: int, negatives: int) -> Input:
        folder = tmp_path / f"{queries}-{negatives}" / "artifacts"
        folder.mkdir(parents=True)
        np.save(folder / FILE, np.zeros((queries, negatives), dtype=np.int64))
        return Input(reference="mine", stage="mine", kind="mine", key="m", path=str(folder.parent))

    queries = len(pairs.queries("train"))
    with pytest.raises(ConfigError, match="negatives 3: mine mined 2 a query"):
        make_task(inputs=(mined(queries, 2),), negatives=3).data("train")
    with pytest.raises(ConfigError, match="mine from the data that is trained on"):
        make_task(inputs=(mined(queries + 1, 2),), negatives=1).data("train")
    with pytest.raises(ConfigError, match="of val: mine from the data"):
        make_task(inputs=(mined(queries, 3),), negatives=1, split="val").data("train")


def test_what_says_the_same_under_another_id_is_no_negative(tmp_path: Path, contexts, towers, model) -> None:
    rows = [
        {"data_id": str(n), "question": f"what is {n}?", "passage_id": f"p{n}", "passage_text": f"It is {n // 2}."}
        for n in range(8)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Data(
        source="files", queries={"train": (str(tmp_path / "rows.jsonl"),)}, image_size=16, validation=0,
        tokenizer={"name": "bytes"},
    )  # fmt: skip
    prepare(data, contexts(tmp_path / "run"))
    given = Input(reference="prepare", stage="prepare", kind="prepare", key="1", path=str(tmp_path / "run"))
    code = Retrieval({"towers": towers, "model": model}, inputs=(given,), parameters=Mine())
    code.evaluate(code.model(seed=1).eval(), Mine(batch=8, negatives=7), contexts(tmp_path / "mined"))
    found = np.load(tmp_path / "mined" / "artifacts" / FILE)
    for query, negatives in enumerate(found):
        texts = {code.pairs.passages[int(row)]["text"] for row in negatives if row >= 0}
        # Six of the other seven passages: the seventh is the positive again, by another id.
        assert (negatives >= 0).sum() == 6 and f"It is {query // 2}." not in texts
