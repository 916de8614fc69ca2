"""Distinct configurations: runs that differ only in their seed are one, and are rehearsed and probed once.

Says what makes a configuration and where its rehearsal and its probe lie in the store; `ablab.launch` runs them,
audits and forecasts read them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ablab.contract.kinds import trains
from ablab.plan.graph import Plan, Run
from ablab.store.layout import RunFolder, Store


def steps(run: Run) -> bool:
    """Whether a run goes step by step, so that a few steps of it say something."""
    return trains(run.stage.spec) or run.stage.spec.steps is not None


class Configurations:
    """The configurations of a plan.

    Args:
        plan: the plan; runs it gets later are no trouble.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stages: dict[int, str] = {}
        self._digests: dict[str, str] = {}

    def of(self, key: str) -> str:
        """Return the digest of a run's configuration: all its parameters and those of what it reads, without seeds."""
        known = self._digests.get(key)
        if known is None:
            run = self._plan.runs[key]
            given = sorted(f"{one.reference}@{one.checkpoint}:{self.of(one.key)}" for one in run.inputs)
            text = "\n".join([run.config, self._stage(run), *given])
            known = self._digests[key] = hashlib.sha256(text.encode()).hexdigest()[:20]
        return known

    def _stage(self, run: Run) -> str:
        stage = run.stage
        known = self._stages.get(id(stage))
        if known is None:
            blocks: Mapping[str, object] = {name: stage.sections[name] for name in stage.spec.sections}
            parts = [stage.kind, str(stage.spec.version), stage.parameters.model_dump_json()]
            parts += [f"{name}={stage.sections[name].model_dump_json()}" for name in sorted(blocks)]
            known = self._stages[id(stage)] = "\n".join(parts)
        return known


def probe_folder(store: Store, run: Run, digest: str) -> RunFolder:
    """Return the folder of the probe of a configuration; `done` when it was probed."""
    return RunFolder(store.root / "probes" / f"{run.stage.name}-{digest}")


def rehearsal_folder(store: Store, run: Run, digest: str) -> RunFolder:
    """Return the folder of the rehearsal of a configuration; `done` when it passed."""
    return RunFolder(store.root / "rehearsals" / f"{run.stage.name}-{digest}")
