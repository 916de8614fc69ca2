"""How a study asks for benchmarks: their files or hub names, the judge, and the metrics they yield; no torch.

`BenchmarkSettings` is the base of an evaluate stage's parameters; `references` says what of it enters the key.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.registry import is_file_reference
from ablab.contract.task import DataReference, Metric
from ablab.tasks.vision_language.benchmarks.catalogue import ENTRIES, check_name


class BenchmarkSource(Strict):
    """Where a benchmark's official files are, and how much of it is asked. The key it stands under is its name."""

    benchmark: str | None = setting(
        None, "Benchmark, where the key is another name for it; file.py:Name of one of your own is accepted."
    )
    questions: str | None = setting(
        None, "Official file (or folder) of questions; its content enters the key.", keyed=False
    )
    answers: str | None = setting(None, "Official file of answers, where it is a separate one.", keyed=False)
    images: str | None = setting(None, "Folder that the image names start in.", keyed=False)
    hub: str | None = setting(None, "Data set of the hub instead of files, as owner/name.")
    subset: str | None = setting(None, "Configuration of the hub data set.")
    split: str | None = setting(None, "Split, where files or hub hold several.")
    limit: int | None = setting(None, "Ask only this many questions, spread evenly over the benchmark.", ge=1)
    max_new_tokens: int | None = setting(None, "Longest answer; null takes the stage's.", ge=1, unit="tokens")
    options: dict[str, bool | int | float | str] = setting(
        default_factory=dict, description="Settings of this benchmark alone, by name (ocr_tokens: true)."
    )

    @model_validator(mode="after")
    def _one_source(self) -> BenchmarkSource:
        if (self.questions is None) == (self.hub is None):
            raise ValueError("give either `questions` (the official file) or `hub` (owner/name)")
        if self.hub is None and self.subset is not None:
            raise ValueError("subset belongs to `hub`")
        return self


class JudgeSettings(Strict):
    """A language model that judges answers, behind any OpenAI-compatible endpoint."""

    url: str = setting("https://api.openai.com/v1", "Base address; /chat/completions is added.", keyed=False)
    model: str = setting(..., "Model that judges; part of what the score means.")
    token_variable: str = setting(
        "OPENAI_API_KEY", "Environment variable (a .env beside the study will do) that holds the token.", keyed=False
    )
    temperature: float = setting(0.0, "Sampling temperature of the judge.", ge=0)
    max_tokens: int = setting(512, "Longest judgement.", ge=1, unit="tokens")
    attempts: int = setting(4, "Tries of one judgement before it counts as missing.", ge=1, keyed=False)
    timeout: float = setting(60.0, "Seconds one try may take.", gt=0, keyed=False, unit="seconds")
    parallel: int = setting(4, "Judgements asked at once.", ge=1, keyed=False)


class LmmsEval(Strict):
    """Tasks that lmms-eval asks and scores, if it is installed; its numbers stand under lmms-eval/."""

    tasks: tuple[str, ...] = setting(..., "Its tasks by name (textvqa_val, mmbench_ko_dev, ...).", min_length=1)
    folder: str | None = setting(None, "Folder of tasks of one's own, in its YAML.")
    limit: int | None = setting(None, "Ask only the first questions of each task.", ge=1)


class BenchmarkSettings(Strict):
    """Parameters of an evaluation on benchmarks."""

    benchmarks: dict[str, BenchmarkSource] = setting(
        default_factory=dict, description="Benchmarks by name: gqa, textvqa, pope, mmbench-ko, ..."
    )
    judge: JudgeSettings | None = setting(
        None, "Judge of the judged benchmarks; without one their numbers are missing."
    )
    lmms_eval: LmmsEval | None = setting(None, "A second back end beside Ablab's own scores.")
    chunk: int = setting(256, "Questions generated between two savings of the answers.", ge=1, keyed=False)
    shown: int = setting(3, "Examples of each benchmark shown in the report.", ge=0)

    @model_validator(mode="after")
    def _known(self) -> BenchmarkSettings:
        for key, source in self.benchmarks.items():
            problem = check_name(source.benchmark or key)
            if problem is not None:
                raise ValueError(problem)
        return self


def references(settings: BenchmarkSettings, *, path: str = "evaluate.benchmarks") -> list[DataReference]:
    """Return what an evaluation reads from outside the store."""
    found = []
    for key, source in settings.benchmarks.items():
        if source.hub is not None:
            found.append(DataReference(kind="hub", name=source.hub, path=f"{path}.{key}.hub"))
        for field in ("questions", "answers", "images"):
            name = getattr(source, field)
            if name is not None:
                kind: Literal["file", "folder"] = "file" if "." in name.rsplit("/", 1)[-1] else "folder"
                found.append(DataReference(kind=kind, name=name, path=f"{path}.{key}.{field}"))
    return found


def files(settings: BenchmarkSettings) -> list[str]:
    """Return the code files of benchmarks of the user's own."""
    names = [source.benchmark or key for key, source in settings.benchmarks.items()]
    return [name.rpartition(":")[0] for name in names if is_file_reference(name)]


def titles(settings: BenchmarkSettings) -> dict[str, str]:
    """Return by key the title of each asked benchmark of the catalogue: its own, or the key that renames it."""
    named = {key: source.benchmark for key, source in settings.benchmarks.items()}
    return {
        key: ENTRIES[key].title if other is None else key for key, other in named.items() if (other or key) in ENTRIES
    }


def yields(settings: Any) -> tuple[str, ...] | None:
    """Return the metric names (patterns) an evaluation yields; None (any) with benchmarks of one's own."""
    found = titles(settings)
    if len(found) < len(settings.benchmarks):
        return None
    own = [pattern for title in found.values() for pattern in (title, f"{title}/*")]
    second = ["lmms-eval/*"] if settings.lmms_eval is not None else []
    return tuple(dict.fromkeys([*own, "average/*", *second]))


#: Definitions of every metric, for a task's `TaskSpec.metrics`.
METRICS: tuple[Metric, ...] = (
    Metric(name="POPE/*/yes_ratio", direction="lower", description="Share of questions answered yes; half are right."),
    *(
        Metric(name=name, direction="higher", unit="%" if name.startswith("MMBench") else "", description=text)
        for name, text in (
            ("POPE/f1", "Mean F1 of the answer yes over the three splits."),
            ("POPE/*/f1", "F1 of the answer yes in one split."),
            ("POPE/*/precision", "Of the answers yes in one split, the share that is right."),
            ("POPE/*/recall", "Of the questions of one split whose answer is yes, the share answered so."),
            ("POPE/*/accuracy", "Share of right answers in one split."),
            ("MMBench-*/first", "Percentage right in the first order of the options alone."),
        )
    ),
    *(
        Metric(name=name, direction="higher", unit="" if entry.title == "POPE" else "%", description=entry.metric)
        for entry in ENTRIES.values()
        for name in (entry.title, f"{entry.title}/*")
    ),
    Metric(name="lmms-eval/*", direction="higher", description="A task and metric of lmms-eval, as it defines them."),
    *(
        Metric(name=f"average/{part}", direction="higher", unit="%", description=f"Mean of the {text} benchmarks.")
        for part, text in (
            ("korean", "Korean"), ("english", "English"), ("structured", "structured-content"), ("overall", "asked"),
        )
    ),
)  # fmt: skip
