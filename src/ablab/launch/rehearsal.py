"""Probing a study before it runs: `ablab check --probe`. Which configurations that means is `rehearsals`' business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ablab.launch.launcher import launch_probes
from ablab.launch.options import LaunchSummary
from ablab.plan.graph import Plan
from ablab.store.layout import Store
from ablab.study.schema import Study


def probe(
    study: Study,
    plan: Plan,
    store: Store,
    *,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> LaunchSummary:
    """Run two steps of each distinct configuration, for what only running can tell; results lie in `lab/probes`.

    What a configuration reads that takes no steps (its prepared data) is made for good first, as a run would; what
    was probed before on this kind of device is not probed again.

    Args:
        study: the study.
        plan: its plan.
        store: the store.
        say: called with each line a person would want to read.
        **options: fields of `Options` (devices, only, seeds), and arguments of `launch`.

    Returns:
        A summary whose `failed` names the configurations that failed, with the reason.
    """
    return launch_probes(study, plan, store, say=say, **options)
