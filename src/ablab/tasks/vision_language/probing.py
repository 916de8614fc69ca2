"""The probe stage: the loss of answers with the right image, with another's, and with one colour alone.

A model that does not look loses nothing; one that reads the question only loses nothing either. The differences are
metrics, so that an arm that learnt to answer blindly shows without any benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ablab.contract.context import Context
from ablab.contract.failure import DataError, StopRequested
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.data.templates import IGNORE
from ablab.models.vision_language import VisionLanguageModel
from ablab.tasks.vision_language.batches import Sample
from ablab.tasks.vision_language.config import Probe
from ablab.tasks.vision_language.sets import Mixture

if TYPE_CHECKING:
    from ablab.tasks.vision_language.task import VisionLanguage


def probe(
    code: VisionLanguage, model: VisionLanguageModel, mixture: Mixture, parameters: Probe, context: Context
) -> Outcome:
    """Return the losses a supervised token, and what another image and none add to them.

    Args:
        code: the task, for tokens and pixels.
        model: on its device.
        mixture: rows to measure; those without image are left out.
        parameters: of the stage.
        context: the worker.

    Raises:
        DataError: fewer than two rows have images.
    """
    data = code.conversations(mixture)
    chosen = np.flatnonzero(mixture.images > 0)[: parameters.rows]
    samples = [one for number in chosen if (one := data.sample(int(number))).pixels is not None]
    if len(samples) < 2:
        raise DataError(f"a probe needs at least two rows with images, found {len(samples)}; name another set")
    blank = code.framing.blank()
    shown = {
        "right": samples,
        "another": exchanged(samples),
        "none": [replace(one, pixels=np.broadcast_to(blank, _pixels(one).shape).copy()) for one in samples],
    }
    losses = {name: _loss(code, model, given, parameters.batch, context) for name, given in shown.items()}
    rows = tuple((name, loss, loss - losses["right"]) for name, loss in losses.items())
    table = Table(name="images", columns=("image", "loss", "more than with the right one"), rows=rows)
    metrics = {f"probe/{name}": loss - losses["right"] for name, loss in losses.items() if name != "right"}
    return Outcome(
        metrics=metrics,
        facts={"probe.rows": len(samples), "probe.loss": losses["right"]},
        evaluations=(Evaluation(name="probe", tables=(table,)),),
    )


def _pixels(one: Sample) -> np.ndarray:
    assert one.pixels is not None
    return one.pixels


def exchanged(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with each other's pictures: those with as many pictures, in a ring."""
    rings: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(samples):
        rings.setdefault(_pixels(one).shape, []).append(place)
    given = {place: ring[(i + 1) % len(ring)] for ring in rings.values() for i, place in enumerate(ring)}
    return [replace(one, pixels=samples[given[place]].pixels) for place, one in enumerate(samples)]


@torch.no_grad()
def _loss(
    code: VisionLanguage, model: VisionLanguageModel, samples: Sequence[Sample], batch: int, context: Context
) -> float:
    device = next(model.parameters()).device
    total, weight = 0.0, 0
    for low in range(0, len(samples), batch):
        if context.stop_requested():
            raise StopRequested("stopped during a probe")
        rows = code.rows(list(samples[low : low + batch]), device)
        total += float(code.assembly.nats(model, rows, code.framing))
        weight += int((rows.packed.labels != IGNORE).sum())
    return total / max(1, weight)
