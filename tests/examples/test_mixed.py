"""A pipeline that mixes kinds, and one question asked twice, by a script and by the built-in task: equal numbers."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ablab.lab import load

#: A plain loop over the lab's own data and model pieces, without its loop, its worker or its checkpoints.
SCRIPT = """
    import argparse, pathlib, torch
    from ablab.data.corpora import Prepared
    from ablab.models.gpt import GPT, Shape
    from ablab.tasks.language_modeling.windows import TrainWindows, WholeSplit
    from ablab.data.packing import TokenWindows
    from ablab.models.loss import IGNORE
    from safetensors.torch import save_file

    p = argparse.ArgumentParser()
    p.add_argument("--corpus"); p.add_argument("--width", type=int); p.add_argument("--steps", type=int)
    p.add_argument("--seed", type=int); p.add_argument("--out", type=pathlib.Path)
    a = p.parse_args()
    corpus = Prepared(pathlib.Path(a.corpus))
    shape = Shape(vocabulary=corpus.vocabulary, width=a.width, layers=1, heads=2, hidden=4 * a.width, context=16,
                  dropout=0.0, bias=True, attention_bias=False, tied_head=True, initial_std=0.02, query_key="trained",
                  query_key_scale=None, unfrozen_layers=0, attention_output="trained")
    model = GPT(shape, seed=a.seed, store_frozen="weights")
    train = TrainWindows(corpus.tokens("train"), context=16)
    order = train.order(a.seed, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    for step in range(a.steps):
        batch = train.batch(order[8 * step : 8 * step + 8], seed=a.seed, step=step)
        loss = model(batch["inputs"], batch["targets"]) / batch["targets"].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.8f}")
    model.eval()
    val = WholeSplit(corpus.tokens("val"), context=16, end_of_text=corpus.end_of_text)
    with torch.no_grad():
        batch = val.batch(val.order(0, 0), seed=0, step=0)
        nats, count = model(batch["inputs"], batch["targets"]).item(), (batch["targets"] != IGNORE).sum().item()
    print(f"val loss {nats / count:.8f}")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, a.out / "model.safetensors")
"""

STUDY = """
    name: twice
    task: language-modeling
    seeds: [3]
    defaults:
      data: {source: austen, tokenizer: {name: bytes}, max_documents: 6, splits: {validation: 0.2, test: 0.2}}
      model: {width: 16, layers: 1, heads: 2, context: 16, dropout: 0}
      pipeline:
        prepare: {}
        evaluate: {split: test, examples: 0, needs: [prepare, train]}
    experiments:
      built-in:
        pipeline:
          train:
            steps: 6
            batch: 8
            clip: null
            precision: fp32
            optimizer: {learning_rate: 1e-3, weight_decay: 0, betas: [0.9, 0.999], epsilon: 1e-8}
            schedule: {name: constant}
            log_every: 1
      script:
        pipeline:
          train: null
          loop:
            kind: command
            needs: [prepare]
            command: >-
              python loop.py --corpus {input.prepare}/corpus --width {width} --steps 6 --seed {seed} --out {output}
            parameters: {width: 16}
            code: [loop.py]
            outputs: [model.safetensors]
            metrics:
              - {line: "step {step}: loss {train/loss}"}
              - {line: "val loss {val/loss}"}
          evaluate: {needs: [prepare, loop]}
"""


def test_the_same_question_by_script_and_by_built_in_task_has_the_same_numbers(tmp_path: Path):
    (tmp_path / "loop.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "study.yaml").write_text(textwrap.dedent(STUDY))
    lab = load(tmp_path / "study.yaml", store=tmp_path / "lab")
    summary = lab.run()
    assert not summary.failed and not summary.blocked, summary
    for metric in ("train/loss", "val/loss", "test/loss", "test/perplexity"):
        mine, theirs = (lab.results.value(arm, 3, metric).last for arm in ("script", "built-in"))
        assert mine == pytest.approx(theirs, rel=1e-5), metric
