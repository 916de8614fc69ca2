"""lmms-eval as a second back end: its tasks, prompts and scores, with our model behind its interface.

lmms-eval reads its own data sets from the hub and scores with its own rules, so its numbers stand under names of their
own (`lmms-eval/<task>/<metric>`), never in place of ours. It is no dependency: where it is missing the error says how
to install it.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.tasks.vision_language.benchmarks.protocol import Generate, Picture, Question

if TYPE_CHECKING:
    from ablab.tasks.vision_language.benchmarks.config import LmmsEval

_INSTALL = "pip install lmms-eval (an environment of its own is best: it asks for torchvision and many more)"


def evaluate_with_lmms_eval(
    generate: Generate, settings: LmmsEval, *, chunk: int, study_folder: str | Path | None = None
) -> Outcome:
    """Run tasks of lmms-eval with our model.

    Args:
        generate: the model's answers to questions.
        settings: which tasks, where tasks of one's own lie, how many questions of each.
        chunk: questions generated at once.
        study_folder: where relative paths start.

    Raises:
        ConfigError: lmms-eval is not installed, or knows no such task.
        DataError: it fails while it runs (a data set out of reach).
    """
    evaluator, base, manager = _library()
    folder = None if settings.folder is None else str(Path(study_folder or ".", settings.folder).absolute())
    tasks = manager(verbosity="ERROR", include_path=folder)
    unknown = [name for name in settings.tasks if name not in tasks.all_tasks]
    if unknown:
        raise ConfigError(f"lmms-eval has no task {', '.join(map(repr, unknown))}; see its `--tasks list`")
    model = _model(base, generate, chunk)
    try:
        found = evaluator(
            model=model,
            tasks=list(settings.tasks),
            task_manager=tasks,
            limit=settings.limit,
            batch_size=1,
            log_samples=False,
            bootstrap_iters=0,
            verbosity="ERROR",
        )
    except Exception as error:
        if isinstance(error, DataError | ConfigError):
            raise
        raise DataError(f"lmms-eval failed: {type(error).__name__}: {error}") from error
    return outcome(found or {})


def outcome(found: dict[str, Any]) -> Outcome:
    """Return the numbers of a result of lmms-eval, by task and metric; its standard errors are left out."""
    metrics: dict[str, float] = {}
    for task, values in found.get("results", {}).items():
        for name, value in values.items():
            metric, _, kept = name.partition(",")
            # Its submission files are metrics to it too; bool is a number to Python.
            if isinstance(value, int | float) and not isinstance(value, bool) and "_stderr" not in metric:
                suffix = f"/{kept}" if kept not in ("", "none") else ""
                metrics[f"lmms-eval/{task}/{metric}{suffix}"] = float(value)
    rows = tuple(sorted(metrics.items()))
    version = str(found.get("lmms_eval_version", ""))
    return Outcome(
        metrics=metrics,
        facts={"lmms-eval.version": version} if version and not version.startswith("unknown") else {},
        evaluations=(
            Evaluation(name="lmms-eval", tables=(Table(name="scores", columns=("metric", "value"), rows=rows),)),
        ),
    )


def _library() -> tuple[Any, Any, Any]:
    """Return simple_evaluate, the base class of models, and the manager of tasks."""
    try:
        evaluator = importlib.import_module("lmms_eval.evaluator")
        model = importlib.import_module("lmms_eval.api.model")
        tasks = importlib.import_module("lmms_eval.tasks")
    except ImportError as error:
        missing = error.name or str(error)
        raise ConfigError(
            f"benchmarks through lmms-eval need it installed ({missing} is missing): {_INSTALL}"
        ) from error
    return evaluator.simple_evaluate, model.lmms, tasks.TaskManager


def _model(base: Any, generate: Generate, chunk: int) -> Any:
    """Return our model as lmms-eval sees one: requests in, texts out, in their order."""

    class Model(base):  # type: ignore[misc]
        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            texts: list[str] = []
            for start in range(0, len(requests), chunk):
                part = requests[start : start + chunk]
                questions = [_question(self.task_dict, one.args, start + i) for i, one in enumerate(part)]
                answers = list(generate(questions))
                if len(answers) != len(questions):
                    raise ConfigError(f"lmms-eval: {len(questions)} questions gave {len(answers)} answers")
                texts += [_cut(text, one.args[1]) for text, one in zip(answers, part, strict=True)]
            return texts

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            raise ConfigError("tasks of lmms-eval that talk in rounds cannot be asked here")

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            raise ConfigError(
                "tasks of lmms-eval that rank by likelihood cannot be asked here; take one that generates"
            )

    return Model()


def _question(data: Any, arguments: tuple[Any, ...], number: int) -> Question:
    context, _, to_images, row, task, split = arguments
    shown = to_images(data[task][split][row]) if to_images is not None else []
    images = [shown] if not isinstance(shown, list | tuple) else shown
    pictures = tuple(_picture(image, f"{task}/{split}, row {row}") for image in images if image is not None)
    return Question(id=f"{task}-{row}-{number}", prompt=str(context).replace("<image>", "").strip(), images=pictures)


def _picture(image: Any, name: str) -> Picture:
    if isinstance(image, str):
        return Picture(name=name, data=Path(image).read_bytes())
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return Picture(name=name, data=stream.getvalue())


def _cut(text: str, arguments: Any) -> str:
    """Return an answer up to the first of the task's stop texts."""
    stops = arguments.get("until", ()) if isinstance(arguments, dict) else ()
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop:
            text = text.split(stop)[0]
    return text.strip()
