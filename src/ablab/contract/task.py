"""What a task and a stage kind declare to the control plane, without torch.

A task's `config.py` builds one `TaskSpec`; the compute plane finds its code by the dotted names given here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ablab.contract.base import Strict

Sections = Mapping[str, Strict]


@dataclass(frozen=True, kw_only=True)
class DataReference:
    """Data a stage reads from outside the store; its content enters the key.

    Args:
        kind: file or folder (a path), bundled (a name in ablab.bundled), hub (a data set or model of the hub).
        name: path, bundled name, or hub id.
        path: where in the study it stands, for messages (data.source).
        revision: wanted hub revision; None takes the lock file's or the newest.
        gated: the hub asks for a licence and a token.
        repository: for hub: dataset or model.
    """

    kind: Literal["file", "folder", "bundled", "hub"]
    name: str
    path: str = ""
    revision: str | None = None
    gated: bool = False
    repository: Literal["dataset", "model"] = "dataset"


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """What is wrong with a stage's parameters that their types cannot say.

    Args:
        path: where, below the stage (`command`, `resume.file`), or `<section>.<name>` of an open section.
        message: what was found and what was expected.
        suggestion: the nearest valid name.
    """

    path: str
    message: str
    suggestion: str | None = None


@dataclass(frozen=True, kw_only=True)
class Before:
    """A run that another reads, as the plan knows it.

    Args:
        kind: stage kind.
        stage: name of the stage, with its experiment where it is another's, as the reader names it.
        parameters: of the stage.
        facts: of its result; empty before it is done.
    """

    kind: str
    stage: str
    parameters: Strict
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A stage kind: its typed parameters, what it reads, what code computes it.

    Args:
        kind: name used in a pipeline (`kind: train`; a stage named like a kind needs no `kind`).
        parameters: pydantic model of the stage's own parameters.
        sections: task sections it reads; only their fields marked for this kind enter its key.
        version: raised when a change of code changes results (pinned by a golden test).
        seeded: whether it draws from the seed; True, False or a function of (sections, parameters).
        run: "module:function" in the compute plane, called with (order, context).
        inputs: stage kinds it takes inputs from; what it needs when the study does not say.
        accelerator: whether it wants a GPU when one is there.
        references: data it reads from outside the store.
        couples: whether its loss couples samples, so that the split of a batch changes the result.
        steps: total steps where the parameters tell, for forecasts.
        effective_batch: samples a step, where it has steps.
        samples: samples by split that it prepares, where its sections tell: an epoch over them can be forecast from an
            epoch over others before they are there.
        files: code files beside Ablab's that compute it (hashed into the key).
        makes_checkpoints: whether @last and @best may be asked of it.
        metrics: metric name patterns it yields.
        reads: names it takes of open sections (`ablab.contract.base.Open`), by its parameters; only these enter its
            key. None takes all.
        check: complaints about (sections, parameters, stages it needs as the study names them; None: not known).
        yields: metric names it yields, by its parameters, instead of `metrics`; None means any name.
        code: "module:Class" of the compute-plane half for this kind, where it is another than the task's.
        leaves: bytes of one checkpoint, or of what it writes, where the sections tell: disk of a run nobody has tried.
        leaves_after: the same, where the runs that it reads have a say in it.
    """

    kind: str
    parameters: type[Strict]
    run: str
    sections: tuple[str, ...] = ()
    version: int = 1
    seeded: bool | Callable[[Sections, Any], bool] = True
    inputs: tuple[str, ...] = ()
    accelerator: bool = True
    references: Callable[[Sections, Any], list[DataReference]] | None = None
    couples: Callable[[Sections, Any], bool] | None = None
    steps: Callable[[Sections, Any], int | None] | None = None
    effective_batch: Callable[[Sections, Any], int | None] | None = None
    samples: Callable[[Sections, Any], Mapping[str, int]] | None = None
    files: Callable[[Sections, Any], list[str]] | None = None
    makes_checkpoints: bool = False
    metrics: tuple[str, ...] = ()
    summary: str = ""
    reads: Callable[[Any], frozenset[str]] | None = None
    check: Callable[[Sections, Any, tuple[str, ...] | None], list[Complaint]] | None = None
    yields: Callable[[Any], tuple[str, ...] | None] | None = None
    code: str | None = None
    leaves: Callable[[Sections, Any], int | None] | None = None
    leaves_after: Callable[[Sections, Any, Sequence[Before]], int | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric's definition: shown beside its numbers, and its direction used for best values and gaps."""

    name: str
    direction: Literal["lower", "higher"]
    description: str
    unit: str = ""
    log_scale: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task as the control plane sees it.

    Args:
        name: name in the study file.
        sections: blocks of an experiment beside `pipeline` (model, data).
        stages: stage kinds a pipeline of this task may hold.
        pipeline: stages (name to raw parameters) an experiment has when the study says nothing.
        metrics: by name or fnmatch pattern ("*/perplexity").
        audits: "module:attribute" of a tuple of audit functions (see ablab.audit.engine), imported on check.
        code: "module:Class" of the compute-plane task.
        files: code files of the task outside Ablab.
        scaffold: "package:file" of a study that runs as it is, written by `ablab new`; {name} is replaced.
        preload: modules that its workers import anyway and that take seconds: the template imports them once. What
            they do on import must not start threads.
    """

    name: str
    title: str
    sections: Mapping[str, type[Strict]]
    stages: Mapping[str, StageSpec]
    pipeline: Mapping[str, Mapping[str, Any]]
    metrics: tuple[Metric, ...] = ()
    audits: str | None = None
    code: str | None = None
    files: tuple[str, ...] = field(default=())
    scaffold: str | None = None
    preload: tuple[str, ...] = ()

    def metric(self, name: str) -> Metric:
        """Return the definition of `name`; the direction of a metric that the task does not define is its name's.

        Of those, names of scores (accuracy, f1, bleu, ...) count as higher-is-better, all others as lower.
        """
        from fnmatch import fnmatchcase

        for metric in self.metrics:
            if metric.name == name or fnmatchcase(name, metric.name):
                return metric
        return Metric(name=name, direction=usual_direction(name), description="")


#: Words of metric names by which more is better.
_SCORES = re.compile(
    r"(?:^|[/_.@ -])(?:acc|accuracy|auc|auroc|auprc|bleu\d*|dice|em|exact_match|f1|iou|map|meteor|mrr|ndcg|precision|"
    r"psnr|r2|recall|return|reward|rouge\w*|score|ssim|success|throughput|win_?rate)(?:$|[/_.@ -])",
    re.IGNORECASE,
)


def usual_direction(name: str) -> Literal["lower", "higher"]:
    """Return which way a metric of this name is better, as its name says."""
    return "higher" if _SCORES.search(name) else "lower"
