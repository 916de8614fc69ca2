"""The sections of the log, each on a store that has what it tells of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ablab.analysis.results import Curve
from ablab.analysis.timing import Epoch
from ablab.lab import Lab
from ablab.report import document as d
from ablab.report.references import Reference
from ablab.report.sections import (
    curves,
    data,
    decomposition,
    environment,
    evidence,
    experiments,
    findings,
    issues,
    matrix,
    next_steps,
    notes,
    parameters,
    plan,
    progress,
    reproduction,
    results,
    timing,
    verdicts,
)
from ablab.report.settings import short, split
from ablab.report.view import View
from ablab.store.layout import Store
from ablab.store.notes import append_note
from ablab.store.references import Imported, append_references
from ablab.study.loading import load
from tests.report.filled import FACTORS, fill, frozen_launch, smoke

CHAIN = """
name: chain
question: Which part does it?
task: language-modeling
seeds: [1, 2, 3]
defaults:
  data: {source: austen, tokenizer: {name: bytes}, max_documents: 10}
  model: {width: 32, layers: 4, heads: 2, feedforward: 32, context: 16}
  pipeline: {train: {steps: 20, batch: 4}, evaluate: null}
experiments:
  A: {label: plain}
  B: {like: A, model: {attention: {query_key: frozen-orthogonal}}}
  C: {like: B, model: {attention: {unfrozen_layers: 2}}}
comparisons:
  - {name: parts, baseline: A, variants: [B, C], factor: model.attention, metric: val/perplexity,
     criterion: ratio <= 1.05}
"""


def texts(blocks: tuple[d.Block, ...] | list[d.Block]) -> Iterator[str]:
    """Yield all that blocks say."""
    for block in blocks:
        if isinstance(block, d.Folded):
            yield block.title
            yield from texts(block.blocks)
        elif isinstance(block, d.Table):
            yield from block.columns
            yield from (f"{cell.text} {cell.note}" for row in block.rows for cell in row)
            yield from block.footnotes
        elif isinstance(block, d.Bullets):
            yield from block.items
        elif isinstance(block, d.Facts):
            yield from (f"{name}: {value}" for name, value in block.items)
        elif isinstance(block, d.Text | d.Heading | d.Code):
            yield block.text


def said(section: d.Section) -> str:
    return "\n".join(texts(section.blocks))


def tables(blocks: tuple[d.Block, ...] | list[d.Block]) -> list[d.Table]:
    found = []
    for block in blocks:
        if isinstance(block, d.Table):
            found.append(block)
        elif isinstance(block, d.Folded):
            found += tables(block.blocks)
    return found


def column(table: d.Table, name: str) -> list[str]:
    place = table.columns.index(name)
    return [row[place].text for row in table.rows]


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """The smoke profile, all done, launched once, with notes and an import."""
    store, study = Store(tmp_path_factory.mktemp("store")), smoke()
    frozen_launch(store, study, Lab(study, store).plan())
    fill(store, study)
    folder = store.study_folder(study.name, study.profile)
    append_note(folder, "the last validation looks odd", experiment="trained", metric="test/perplexity", now=2e9)
    append_note(folder, "try a longer context", kind="next", experiment="blind", now=2e9 + 1)
    append_note(folder, "the fan was loud", kind="issue", now=2e9 + 2, status={"done": 7})
    append_note(folder, "perplexity of bytes", metric="test/perplexity", now=2e9 + 3)
    entry = Imported(experiment="trained", metric="test/perplexity", value=9.5, source="")
    append_references(folder, [entry], source="an older log", file="log.md")
    return Lab(study, store).view()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Three arms, each a part of the next, of which the second does all the harm."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "chain.yaml").write_text(CHAIN)
    study, store = load(folder / "chain.yaml"), Store(folder / "lab")
    fill(store, study, numbers=lambda arm, seed: {"A": 2.0, "B": 2.4, "C": 2.5}[arm] + 0.001 * seed * len(arm))
    return Lab(study, store).view()


def test_the_card_says_what_was_asked_and_what_came_out(view: View) -> None:
    block = verdicts.section(view).blocks[0]
    assert isinstance(block, d.Cards)
    card = next(each for each in block.cards if each.name == "question")
    assert card.asked == "test/perplexity ≤ 1.05 × trained, at the last checkpoint"
    assert card.link == view.comparison_anchor("question") and card.holds == "below" and card.margin == 1.05
    arm, control = card.answers
    assert (arm.arm, control.arm, control.role) == ("frozen-orthogonal", "blind", "control, must fail")
    ours, theirs = (
        view.results.values("frozen-orthogonal", "test/perplexity"),
        view.results.values("trained", "test/perplexity"),
    )
    assert sorted(arm.values) == pytest.approx(sorted(ours[seed] / theirs[seed] for seed in ours))
    assert control.word == "fails, as it must" and control.tone == "good"
    assert re.search(r"higher than that of trained, worse \(95 % interval .* to .*, 2 seeds\)", control.sentence)


def test_every_comparison_has_its_evidence_down_to_the_runs(view: View) -> None:
    section = evidence.section(view)
    anchors = [block.id for block in section.blocks if isinstance(block, d.Heading) and block.id]
    assert anchors == [view.comparison_anchor(each.name) for each in view.study.comparisons]
    every = [table for table in tables(section.blocks) if "run of the arm" in table.columns]
    names = {record.name for record in view.results.runs.values()}
    found = [
        name for table in every for name in (*column(table, "run of the arm"), *column(table, "run of the baseline"))
    ]
    assert found and set(found) <= names
    for table in every:
        for row in table.rows:
            cells = dict(zip(table.columns, (cell.text for cell in row), strict=True))
            ratio = float(cells["arm's value"]) / float(cells["baseline's value"])
            assert float(cells["effect"]) == pytest.approx(ratio, rel=2e-3)


def test_gaps_are_drawn_over_steps_both_arms_have(view: View) -> None:
    comparison = next(each for each in view.study.comparisons if each.name == "question")
    (chart,) = curves.gap_charts(view, comparison)
    assert chart.metric == "val/perplexity" and chart.rule == 1.05 and chart.better == "lower"
    assert {line.arm for line in chart.lines} == {"frozen-orthogonal", "blind"}
    assert all([x for x, _ in line.points] == [5, 10, 15, 20] for line in chart.lines)
    assert all(line.run.startswith("train-") for line in chart.lines)


def test_results_stand_beside_references_and_carry_notes_as_footnotes(view: View) -> None:
    table = next(table for table in tables(results.section(view).blocks))
    trained = next(row for row in table.rows if row[0].text == "trained")
    values = view.results.values("trained", "test/perplexity")
    place = next(i for i, name in enumerate(table.columns) if name.startswith("test/perplexity"))
    assert table.columns[place].startswith("test/perplexity ↓"), "with its direction"
    mean = float(trained[place].text.split(" ± ")[0])
    assert mean == pytest.approx(sum(values.values()) / len(values), rel=1e-3) and trained[place].note == "n = 2"
    assert len(trained[place].run.split()) == 2, "and the runs behind it"
    assert trained[place + 1].text == "9.5", "the import beside it"
    notes_of = [table.footnotes[mark - 1] for mark in (*trained[place].marks, *trained[place + 1].marks)]
    assert "the last validation looks odd" in notes_of[0] and "an older log" in notes_of[-1]
    assert table.columns[place].endswith("¹") and "perplexity of bytes" in table.footnotes[0], "on the whole column"


def test_a_target_band_says_where_ours_stands(view: View) -> None:
    values = view.results.values("trained", "test/perplexity").values()
    mean = sum(values) / len(values)
    for low, high, word in ((0.5, 0.9, "above"), (0.9, 1.1, "within"), (1.1, 2.0, "below")):
        band = (round(low * mean, 3), round(high * mean, 3))
        target = Reference(value=sum(band) / 2, band=band, source="the plan")
        seen = replace(view, references={"trained": {"test/perplexity": (target,)}})
        table = tables(results.section(seen).blocks)[0]
        place = next(i for i, name in enumerate(table.columns) if name.startswith("test/perplexity"))
        cell = next(row for row in table.rows if row[0].text == "trained")[place + 1]
        assert cell.text == f"{view.t.figure(band[0])}–{view.t.figure(band[1])} (ours {word})"


def test_curves_of_every_metric_lead_to_their_runs(view: View) -> None:
    block = next(b for b in curves.section(view).blocks if isinstance(b, d.Curves))
    assert block.charts[0].metric == "val/perplexity" and "train/loss" in {chart.metric for chart in block.charts}
    names = {record.name for record in view.results.runs.values()}
    for chart in block.charts:
        assert {line.run for line in chart.lines} <= names and len(chart.lines) == 6
    loss = next(chart for chart in block.charts if chart.metric == "val/loss")
    assert loss.better == "lower" and "nats" in loss.y_label


def test_phases_of_an_arm_are_no_seeds_of_it(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = curves._curves_of(view, "train/loss")
    (_, record, curve) = next(each for each in whole if each[0] == "trained")
    phases = [*whole, ("trained", replace(record, stage="pretrain", name="pretrain-1"), curve)]
    monkeypatch.setattr(curves, "_curves_of", lambda view, metric: phases if metric == "train/loss" else [])
    block = next(b for b in curves.section(view).blocks if isinstance(b, d.Curves))
    assert [chart.metric for chart in block.charts] == ["train/loss (train)", "train/loss (pretrain)"]
    assert [len(chart.lines) for chart in block.charts] == [len(whole), 1]


def test_curves_that_do_not_fit_are_named(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "POINTS", 6 * 45)
    section = curves.section(view)
    block = next(b for b in section.blocks if isinstance(b, d.Curves))
    assert sum(len(line.points) for chart in block.charts for line in chart.lines) <= 6 * 45
    assert "Not drawn, to keep the file small:" in said(section)


def test_thinning_keeps_what_stands_out() -> None:
    ys = [1.0] * 5000
    ys[1234], ys[4321], ys[2500] = 9.0, -9.0, float("nan")
    kept = curves.pairs(range(5000), ys, 60)
    assert len(kept) <= 60 and kept[0][0] == 0 and kept[-1][0] == 4999
    assert (1234, 9.0) in kept and (4321, -9.0) in kept and (2500, None) in kept


def test_a_way_over_nested_arms_is_divided(chain: View) -> None:
    comparison = chain.study.comparisons[0]
    (way,) = decomposition.ways(chain, comparison)
    assert way.path == ("A", "B", "C")
    assert [part.share for part in way.parts] == pytest.approx([0.8, 0.2], rel=1e-3)
    table = next(t for t in tables(evidence.section(chain).blocks) if "share of the way" in t.columns)
    assert column(table, "share of the way") == ["100 %", "80 %", "20 %"]
    assert column(table, "way") == ["A → B → C", "A → B", "B → C"]


def test_settings_are_told_once_and_what_varies_in_a_table(chain: View) -> None:
    found = split(chain.study)
    assert set(found.paths) == {"model.attention.query_key", "model.attention.unfrozen_layers"}
    assert found.fixed["model.layers"] == 4 and found.fixed["pipeline.train.steps"] == 20
    assert not set(found.fixed) & set(found.paths)
    table = next(t for t in tables(matrix.settings(chain)) if "model.attention.query_key" in t.columns)
    assert column(table, "model.attention.query_key") == ["trained", "frozen-orthogonal", "frozen-orthogonal"]
    assert short({"a": [1.0, True, None]}) == "{a: [1, true, null]}" and len(short("x" * 1000)) == 200


def test_the_matrix_tells_forecast_beside_actual(view: View) -> None:
    table = tables(matrix.section(view).blocks)[0]
    trained = dict(zip(table.columns, (cell.text for cell in table.rows[column(table, "experiment").index("trained")]),
                       strict=True))  # fmt: skip
    assert trained["status"] == "done" and trained["seeds"] == "2/2" and trained["what differs"] == "baseline"
    asked = view.launches[-1].forecasts
    assert not asked, "a first launch knows nothing"
    launch = replace(view.launches[-1], forecasts={record.name: 30.0 for record in view.records("trained")})
    forecast = matrix.forecast(replace(view, launches=[launch]), "trained")
    assert forecast == 30.0 * len(view.own("trained"))


def test_next_steps_are_derived(view: View) -> None:
    steps = list(next_steps.steps(view))
    assert any(step.startswith("Planned, never started:") and "GPT-01" in step for step in steps)
    assert "blind: try a longer context" in steps
    assert any("Open warning" in step for step in steps)


def test_what_failed_comes_first_and_stands_among_the_issues(tmp_path: Path) -> None:
    store, study = Store(tmp_path), smoke()
    fill(store, study, status={("trained", 42, "train"): "failed", ("trained", 42, "evaluate"): "pending"})
    view = Lab(study, store).view()
    assert next(next_steps.steps(view)) == "Mend what failed and run again: trained."
    (table,) = tables(issues.section(view).blocks)
    assert column(table, "issue") == ["loss is not finite at step 7"] and column(table, "kind") == ["loss not finite"]
    assert column(table, "resolution") == ["stopped"]
    going = tables(progress.section(view).blocks)[0]
    assert column(going, "status") == ["failed"] and column(going, "%") == ["50 %"]


def test_notes_are_shown_in_place(view: View) -> None:
    (table,) = tables(notes.section(view).blocks)
    assert column(table, "kind") == ["observation", "next", "issue", "observation"]
    assert column(table, "about")[:3] == ["trained", "blind", "study"] and "7 done" in column(table, "status then")
    assert "the fan was loud" in said(issues.section(view))
    folded = next(
        b for b in experiments.section(view).blocks if isinstance(b, d.Folded) and b.id == view.anchor("trained")
    )
    assert "the last validation looks odd" in "\n".join(texts(folded.blocks))


def test_progress_tells_first_final_and_best_with_the_run(view: View) -> None:
    (table,) = tables(progress.section(view).blocks)
    record = next(r for r in view.results.runs.values() if r.users[0][0] == "trained" and "train/loss" in r.curves)
    row = dict(zip(table.columns, table.rows[column(table, "run").index(record.name)], strict=True))
    curve = record.curves["train/loss"]
    assert float(row["first loss"].text) == pytest.approx(curve.values[0], rel=1e-3)
    assert float(row["final loss"].text) == pytest.approx(curve.values[-1], rel=1e-3)
    assert row["best value"].text.endswith("@20") and row["exit"].text == "done" and row["step"].text == "20"


def test_time_sums_to_the_wall_clock(view: View) -> None:
    bars = next(b for b in timing.section(view).blocks if isinstance(b, d.Bars))
    assert bars.parts == ("forward and backward", "other")
    for name, parts, total in bars.rows:
        records = [record for record in view.own(name) if record.time]
        assert sum(parts) == pytest.approx(sum(sum(record.time.values()) for record in records)) and total
    assert {name for name, *_ in bars.rows} == {"trained", *FACTORS}


def test_an_epoch_stands_in_the_table_of_times(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = next(arm for arm in view.results.arms if "train" in arm.runs and arm.runs["train"] in view.results.runs)
    epoch = Epoch(
        experiment=arm.experiment, seed=arm.seed, stage="train", samples=339_137, steps=5300, epochs=1.0, net=481.39,
        gross=520.0, whole=600.0, per_second=704.0, excluded=100, rss=3 << 30, gpu=None, ended="0", shared=True,
    )  # fmt: skip
    monkeypatch.setattr("ablab.analysis.timing.epochs", lambda _: [epoch])
    (table,) = (table for table in tables(timing.section(view).blocks) if "one epoch" in table.columns)
    row = dict(zip(table.columns, [cell.text for cell in table.rows[0]], strict=True))
    assert row["samples"] == "339,137" and row["steps"] == "5,300" and row["one epoch"] == "8m01s"
    assert row["with loading and warm-up"] == "8m40s" and row["samples a second"] == "704" and row["exit"] == "0"
    assert row["peak memory"] == "3.0 GiB" and row["timing"] == "shared" and "GPU memory" not in row


def test_the_recall_of_training_stands_beside_an_epoch(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the result has it, else as it was last logged."""
    arm = next(arm for arm in view.results.arms if "train" in arm.runs and arm.runs["train"] in view.results.runs)
    key = arm.runs["train"]
    record = view.results.runs[key]
    epoch = Epoch(
        experiment=arm.experiment, seed=arm.seed, stage="train", samples=10, steps=5, epochs=1.0, net=1.0, gross=1.0,
        whole=1.0, per_second=1.0, excluded=0, rss=1, gpu=None, ended="0", shared=False,
    )  # fmt: skip
    monkeypatch.setattr("ablab.analysis.timing.epochs", lambda _: [epoch])
    logged = Curve(name="train/r_at_1", steps=(10, 20), values=(0.1, 0.25))
    for metrics, shown in (({}, "0.25"), ({"train/r_at_1": 0.5}, "0.5")):
        told = replace(record, metrics=metrics, curves={**record.curves, "train/r_at_1": logged})
        monkeypatch.setitem(view.results.runs, key, told)
        (table,) = (table for table in tables(timing.section(view).blocks) if "one epoch" in table.columns)
        row = dict(zip(table.columns, [cell.text for cell in table.rows[0]], strict=True))
        assert row["train/r_at_1"] == shown


def test_samples_are_not_called_tokens(view: View) -> None:
    record = next(record for record in view.results.runs.values() if progress.is_training(record))
    speed = {"tokens_per_second": 352.0, "samples_per_second": 352.0}
    for tokens, shown in ((64.0, ("", "352 samples/s")), (128.0, ("128", "352 tokens/s"))):
        facts = {"tokens.seen": tokens, "samples.seen": 64, "steps.done": 2}
        table = progress.training_table(view, [replace(record, facts=facts, step_times=speed)])
        row = dict(zip(table.columns, [cell.text for cell in table.rows[0]], strict=True))
        assert (row.get("tokens", ""), row["throughput"]) == shown


def test_parameters_and_memory(view: View) -> None:
    (table,) = tables(parameters.section(view).blocks)
    place = column(table, "experiment").index("frozen-orthogonal")
    assert column(table, "trained share")[place] == "80.0 %" and column(table, "peak memory")[place] == "1.0 GiB"


def test_numbers_of_parts_stand_behind_those_of_the_whole(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["GQA", "GQA/kind", "GQA/count", "POPE/random/f1", "POPE/f1", "average/english", "train/loss"]
    monkeypatch.setattr(type(view.results), "metrics", lambda self: names)
    told = [name for name, _ in results.telling_metrics(view, most=20) if name in names]
    assert told == ["GQA", "POPE/f1", "average/english", "POPE/random/f1", "GQA/kind", "GQA/count"]


def test_of_several_phases_the_last_tells_what_trained(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(record for record in view.records("frozen-orthogonal") if record.stage == "train")
    tuned = replace(first, stage="tune", facts={"parameters.total": 1000, "parameters.trained": 50})
    merged = replace(first, stage="merge", facts={"parameters.total": 1000})
    monkeypatch.setattr(type(view), "records", lambda self, name: [first, tuned, merged])
    (table,) = tables(parameters.section(view).blocks)
    assert set(column(table, "stage")) == {"tune"} and set(column(table, "trained share")) == {"5.0 %"}


def test_data_is_ticked_when_it_was_read(view: View, tmp_path: Path) -> None:
    (table,) = tables(data.section(view).blocks)
    ticked = {row[0].text: row[-1].tone for row in table.rows}
    assert ticked["austen"] == "good" and "open" in ticked.values(), "what only planned arms read is open"
    nothing = Lab(view.study, Store(tmp_path)).view()
    assert all(row[-1].tone == "open" for table in tables(data.section(nothing).blocks) for row in table.rows)


def test_the_plan_tells_what_each_run_waits_for(view: View) -> None:
    section = plan.section(view)
    table = tables(section.blocks)[0]
    row = next(r for r in table.rows if r[1].text == "trained" and r[2].text == "evaluate")
    waits = dict(zip(table.columns, row, strict=True))["waits for"].text
    assert re.fullmatch(r"\S+\.prepare, trained\.train/\d+", waits)
    assert f"{len(view.plan.runs)} runs of" in said(section)


def test_environment_commands_and_policy_are_there(view: View) -> None:
    text = said(environment.section(view))
    assert "Python: 3." in text and "cuDNN: not installed" in text and "branch:" in text and "pip install ablab" in text
    text = said(reproduction.section(view))
    assert f"--store {view.store.root}" in text and "ablab status" in text and "the last checkpoint" in text
    assert view.study.text in text and "by-name" in text
    assert view.launches[0].command in text


def test_findings_accepted_stand_apart_with_their_reason(view: View) -> None:
    first = next(item for item in view.findings if item.checked and item.severity == "warning")
    accepted = first.model_copy(update={"accepted": "a pilot"})
    section = findings.section(replace(view, findings=[first, accepted]))
    open_, settled = tables(section.blocks)
    assert column(open_, "remedy") == [first.remedy] and column(settled, "reason") == ["a pilot"]


def test_each_experiment_is_told_with_its_purpose_result_gap_and_commands(view: View) -> None:
    folded = next(
        b
        for b in experiments.section(view).blocks
        if isinstance(b, d.Folded) and b.id == view.anchor("frozen-orthogonal")
    )
    text = "\n".join(texts(folded.blocks))
    assert "purpose: the question" in text and "result: test/perplexity" in text
    assert "question: undecided." in text or "question: met." in text
    assert "python -m ablab.worker" in text and "order.json" in text
    for name in re.findall(r"ablab\.worker (\S+)", text):
        assert json.loads(Path(name).read_text())["experiment"]
