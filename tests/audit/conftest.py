"""Studies from real YAML, planned in a real store, with finished runs written as a worker would leave them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ablab.audit.engine import audit
from ablab.contract.finding import Finding
from ablab.contract.order import Numerics
from ablab.contract.result import Best, Result
from ablab.contract.state import State
from ablab.plan.configurations import Configurations, probe_folder
from ablab.plan.graph import Run
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load_text

HEAD = """
name: toy
question: Does it matter?
task: language-modeling
seeds: [1, 2, 3]
defaults:
  model: {width: 32, layers: 1, heads: 2, context: 32}
  data: {source: austen, tokenizer: {name: bytes}}
  pipeline: {prepare: {}, train: {steps: 100, batch: 4}}
"""
#: Two arms that differ in the factor alone, with a control.
SOUND = (
    HEAD
    + """
experiments:
  A: {}
  B: {like: A, model: {dropout: 0.0}}
  blind: {like: A, model: {attention: {output: zero}}}
comparisons:
  - {name: main, baseline: A, variants: [B], factor: model.dropout, metric: val/perplexity,
     criterion: ratio <= 1.05, controls: {fail: [blind]}}
"""
)


class Bench:
    """One study in one store."""

    def __init__(self, text: str, folder: Path, profile: str = "full") -> None:
        self.study = load_text(text, path=folder / "study.yaml", profile=profile)
        self.store = Store(folder / "lab")

    @property
    def plan(self) -> Any:
        return make_plan(self.study, self.store)

    def findings(self, id: str | None = None) -> list[Finding]:
        found = audit(self.study, plan=self.plan, store=self.store)
        return [each for each in found if id is None or each.id == id]

    @property
    def derivations(self) -> Any:
        module, _, _ = self.study.task.audits.partition(":")
        return import_module(module).DERIVED

    def run(self, experiment: str, seed: int | None = None, stage: str = "train") -> Run:
        run = self.plan.run_of(experiment, self.study.seeds[0] if seed is None else seed, stage)
        assert run is not None
        return run

    def finish(
        self,
        experiment: str,
        seed: int | None = None,
        stage: str = "train",
        *,
        metrics: dict[str, float] | None = None,
        best: dict[str, tuple[float, int]] | None = None,
        facts: dict[str, Any] | None = None,
        steps: dict[str, float] | None = None,
        time: dict[str, float] | None = None,
        span: tuple[float, float] = (0.0, 1.0),
        host: str = "gpu1",
        numerics: Numerics | None = None,
        shared: bool = False,
    ) -> Run:
        """Leave a finished run with events and a result."""
        run = self.run(experiment, seed, stage)
        folder = self.store.run(run.name).create()
        attempt = folder.attempt(1).create()
        lines = [
            {"e": "start", "t": span[0], "step": 0, "pid": 1, "host": host},
            {"e": "end", "t": span[1], "kind": "done"},
        ]
        attempt.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
        folder.write_result(
            Result(
                key=run.key,
                metrics=metrics or {},
                best={name: Best(value=value, step=step) for name, (value, step) in (best or {}).items()},
                facts=facts or {},
                steps=steps or {},
                time=time or {},
                numerics=numerics or Numerics(),
                shared=shared,
            )
        )
        folder.write_state(State(status="done", updated=span[1], started=span[0], finished=span[1]))
        return run

    def fail(self, experiment: str, seed: int, kind: str, stage: str = "train") -> None:
        """Leave a failed run."""
        folder = self.store.run(self.run(experiment, seed, stage).name).create()
        folder.write_state(State(status="failed", updated=1.0, kind=kind, message="as the test says"))

    def probe(self, experiment: str, facts: dict[str, Any], stage: str = "train") -> None:
        """Leave the probe of an arm's configuration."""
        run = self.run(experiment, None, stage)
        folder = probe_folder(self.store, run, Configurations(self.plan).of(run.key)).create()
        folder.write_result(Result(key=run.key, facts=facts))


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    """Return a maker of benches; a text without a head gets the toy one."""

    def make(text: str = SOUND, **options: Any) -> Bench:
        return Bench(text if "task:" in text else HEAD + text, tmp_path, **options)

    return make


@pytest.fixture
def sound() -> str:
    return SOUND
