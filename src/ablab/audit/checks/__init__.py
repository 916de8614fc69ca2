"""The general checks, one module a family; each module lists its own under CHECKS."""

from __future__ import annotations

from ablab.audit.checks import (
    arms,
    budget,
    commands,
    controls,
    criterion,
    data,
    duplicates,
    environment,
    estimates,
    isolation,
    machine,
    parameters,
    power,
    prerequisites,
    rates,
    references,
    scale,
    seeds,
    selection,
    storage,
)

CHECKS = (
    *prerequisites.CHECKS,
    *commands.CHECKS,
    *isolation.CHECKS,
    *seeds.CHECKS,
    *rates.CHECKS,
    *budget.CHECKS,
    *data.CHECKS,
    *scale.CHECKS,
    *parameters.CHECKS,
    *selection.CHECKS,
    *criterion.CHECKS,
    *controls.CHECKS,
    *power.CHECKS,
    *references.CHECKS,
    *storage.CHECKS,
    *estimates.CHECKS,
    *arms.CHECKS,
    *duplicates.CHECKS,
    *machine.CHECKS,
    *environment.CHECKS,
)
