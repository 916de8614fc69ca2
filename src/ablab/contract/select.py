"""The generic stage kind `select`: tries values on the stage that needs it, and chooses the best by a metric.

Only the declaration stands here; the plan expands a sweep into trials, and the worker compares them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ablab.contract.base import Strict, setting
from ablab.contract.task import StageSpec


class Select(Strict):
    """Parameters of a select stage: the stage that needs it runs once for each combination of values.

    The combination with the best mean of the metric over the seeds is the one that the needing stage then runs with,
    for all its seeds.
    """

    sweep: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = setting(
        ...,
        "Values to try by study path of the needing stage, for example pipeline.train.optimizer.learning_rate.",
        min_length=1,
    )
    metric: str = setting("val/loss", "Metric of the needing stage that decides.")
    mode: Literal["min", "max"] = setting("min", "Whether a lower or a higher value is better.")
    at: Literal["last", "best"] = setting("last", "Value of the metric that counts.")
    seeds: tuple[int, ...] | None = setting(
        None, "Seeds of the trials; null takes the study's first.", min_length=1, keyed=False
    )


SELECT = StageSpec(
    kind="select",
    parameters=Select,
    run="ablab.worker.stages.select:run",
    seeded=False,
    accelerator=False,
    summary="try values on the stage that needs it and choose the best by a metric",
)
