"""The evaluate stage: a trained model answers the questions of benchmarks, batched and with cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ablab.contract.context import Context
from ablab.contract.decoding import Decoding
from ablab.contract.result import Outcome
from ablab.data.images import normalise
from ablab.generation.decoding import generate
from ablab.models.vision_language import VisionLanguageModel
from ablab.store.inputs import reachable
from ablab.tasks.vision_language.batches import framed
from ablab.tasks.vision_language.benchmarks.catalogue import find_benchmark
from ablab.tasks.vision_language.benchmarks.config import BenchmarkSource
from ablab.tasks.vision_language.benchmarks.engine import evaluate_benchmarks, locate
from ablab.tasks.vision_language.benchmarks.protocol import Question
from ablab.tasks.vision_language.config import Evaluate
from ablab.tasks.vision_language.overlap import Seen, overlaps, training_sets
from ablab.tasks.vision_language.sections import PREPARED
from ablab.tasks.vision_language.sets import QUESTIONS, open_sets

if TYPE_CHECKING:
    from ablab.tasks.vision_language.task import VisionLanguage


def evaluate(
    code: VisionLanguage, model: nn.Module, parameters: Evaluate, context: Context, *, study_folder: str | None
) -> Outcome:
    """Ask every benchmark of the parameters and mark the answers.

    Raises:
        DataError, ConfigError, StopRequested: as `evaluate_benchmarks`.
    """
    assert isinstance(model, VisionLanguageModel)
    answerer = Answerer(code, model, parameters)
    sources = {name: _found(source, code.artifacts) for name, source in parameters.benchmarks.items()}
    asked = parameters.model_copy(update={"benchmarks": sources})
    outcome = evaluate_benchmarks(answerer, asked, context, study_folder=study_folder)
    if not parameters.overlap:
        return outcome
    facts = in_training(code, asked, context, study_folder=study_folder)
    return outcome.model_copy(update={"facts": outcome.facts | facts})


def in_training(
    code: VisionLanguage, parameters: Evaluate, context: Context, *, study_folder: str | None
) -> dict[str, object]:
    """Return how many pictures and questions of each benchmark the sets hold that the model was trained on."""
    phases = [Path(given.path) for given in reachable(context.order.inputs) if given.kind == "train"]
    sets = open_sets(code.artifacts, training_sets(phases), study_folder=study_folder)
    seen = Seen()
    for name, source in parameters.benchmarks.items():
        benchmark = find_benchmark(source.benchmark or name, folder=study_folder)
        seen.add(name, benchmark.read(locate(source, study_folder, context.order.revisions)))
    return dict(overlaps(seen, list(sets.values())))


def _found(source: BenchmarkSource, artifacts: Path) -> BenchmarkSource:
    """Return a source whose files are where the prepare stage wrote them."""
    found = {
        field: str(artifacts / QUESTIONS / value.removeprefix(PREPARED))
        for field in ("questions", "answers", "images")
        if (value := getattr(source, field)) is not None and value.startswith(PREPARED)
    }
    return source.model_copy(update=found)


class Answerer:
    """Answers questions in batches: images through the tower once, then generation with cache.

    Args:
        code: the task, for tokens and pixels.
        model: on its device.
        parameters: of the evaluate stage.
    """

    def __init__(self, code: VisionLanguage, model: VisionLanguageModel, parameters: Evaluate) -> None:
        self._code, self._model, self._parameters = code, model, parameters
        self._encoder = code.encoder()
        self._device = next(model.parameters()).device

    def __call__(self, questions: Sequence[Question]) -> list[str]:
        """Return one text a question, in order."""
        rows = self._embedded(questions)
        made = generate(
            self._model,
            rows,
            decoding=self._decoding(questions),
            batch_size=self._parameters.batch,
            pad_token_id=self._code.assembly.pad,
            eos_token_id=self._encoder.end,
            device=self._device,
        )
        return [self._encoder.decode(ids) for ids in made]

    def _decoding(self, questions: Sequence[Question]) -> Decoding:
        """Return how these questions are answered: the stage's decoding, unless the benchmark limits its answers."""
        longest = questions[0].max_new_tokens if questions else None
        if longest is None:
            return self._parameters.decoding
        return self._parameters.decoding.model_copy(update={"max_new_tokens": longest})

    def _embedded(self, questions: Sequence[Question]) -> list[dict[str, Tensor]]:
        """Return the inputs of the language model (T, D) for each question, and where images stand in them (T,)."""
        size, found = self._parameters.batch, []
        for low in range(0, len(questions), size):
            part = questions[low : low + size]
            frames = [[self._frames(picture) for picture in question.images] for question in part]
            seen = self._seen([squares for own in frames for squares in own])
            start = 0
            for question, own in zip(part, frames, strict=True):
                tiles = [len(squares) for squares in own]
                prompt = self._encoder.prompt(question.prompt, images=len(own), tiles=tiles)
                ids = torch.from_numpy(prompt).to(self._device)
                images = None if seen is None or not own else seen[start : start + sum(tiles)]
                embedded = self._model.embed(ids[None], seen=images)[0]
                row = {"inputs_embeds": embedded, "image_places": ids == self._encoder.image_token}
                spoken = self._code.assembly.languages([question.language])
                found.append(row if spoken is None else row | {"languages": spoken[0]})
                start += sum(tiles)
        return found

    def _frames(self, picture: Any) -> np.ndarray:
        """Return a picture's squares (tiles, 3, S, S)."""
        framing, tiling = self._code.framing, self._code.tiling
        frames = framed(picture.open(), framing, tiling)
        return np.stack([framing.blank()] * len(frames)) if self._code.blind else frames

    def _seen(self, frames: Sequence[np.ndarray]) -> Tensor | None:
        """Return what the language model is given of pictures (N, Q, D)."""
        if not frames:
            return None
        pixels = torch.from_numpy(np.concatenate(frames)).to(self._device)
        return self._model.see(normalise(pixels, self._code.framing))
