"""The merge stage: finds the models that the study names, merges them, and leaves a checkpoint or a folder.

Merged checkpoints become a checkpoint, which later stages take as that of a train stage; merged models of the hub
become a model in transformers' format, the artifact `model`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.merge import LOADED, Merge, is_folder, is_hub
from ablab.contract.order import Input, Order
from ablab.contract.registry import find_component
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.merging.merge import Named, Options, Report, merge_models
from ablab.merging.recipes import Own
from ablab.merging.shards import Shards
from ablab.store.files import TEMPORARY, atomic_folder, write_json
from ablab.store.layout import RunFolder
from ablab.store.manifest import write_manifest
from ablab.training import checkpoint, retention
from ablab.training.inherit import adapted, continue_from, training_parts
from ablab.training.weights import save_weights
from ablab.worker.code import build_code, parameters_of

#: Artifact that holds a model in transformers' format; `ablab.models.hub` looks for it.
ARTIFACT = "model"
#: Marks in a checkpoint's metadata that leave tensors out of its file.
_LEFT_OUT = ("ablab.regenerable", "ablab.referenced")
_TIED = "ablab.tied"


def run(order: Order, context: Context) -> Outcome:
    """Merge the models of the order."""
    context.event("start", step=0)
    settings = parameters_of(order)
    assert isinstance(settings, Merge)
    with _located(settings, order, context) as found:
        named = [Named(label=name, folder=found[name]) for name in settings.sources]
        base, models = (None, named) if settings.base is None else (named[0], named[1:])
        metadata = _metadata([each.folder for each in named])
        options = Options(
            threads=max(1, order.resources.threads),
            device=torch.device(context.numerics.device),
            progress=lambda done, total: context.progress(done, total, unit="parameters"),
            stop=context.stop_requested,
            metadata=metadata or {},
            single=metadata is not None,
        )
        target = _target(context, is_checkpoint=metadata is not None)
        with atomic_folder(target, replace=True, sync=False) as temporary:
            seed, own = order.seed or 0, _own(settings, order)
            report = merge_models(
                settings, base=base, models=models, target=temporary, seed=seed, own=own, options=options
            )
            if metadata is not None:
                with context.time("checkpoint"):
                    write_json(temporary / checkpoint.STATE, {"format": checkpoint.FORMAT, "step": 0}, sync=False)
                    write_manifest(temporary)
    if metadata is None:
        return _outcome(settings, report, artifacts={ARTIFACT: f"artifacts/{ARTIFACT}"})
    retention.write_index(context.checkpoints, retention.Index(last=target.name))
    return _outcome(settings, report, artifacts={})


def _target(context: Context, *, is_checkpoint: bool) -> Path:
    """Return the folder of the result; what an earlier attempt left unfinished is removed."""
    parent, name = (context.checkpoints, checkpoint.name_of(0)) if is_checkpoint else (context.artifacts, ARTIFACT)
    for left in parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)
    return parent / name


@contextmanager
def _located(settings: Merge, order: Order, context: Context) -> Iterator[dict[str, Path]]:
    """Yield the folder of each model by name; checkpoints that leave tensors out are written whole for the while."""
    given = {each.reference: each for each in order.inputs}
    found = {name: _folder(name, given, order) for name in settings.sources if name != LOADED}
    stages = [name for name in settings.sources if name in given and _is_checkpoint(found[name])]
    whole = context.folder / f"{TEMPORARY}whole"
    shutil.rmtree(whole, ignore_errors=True)
    try:
        if any(_is_partial(given[name], found[name]) for name in stages):
            for number, name in enumerate(stages):
                found[name] = _write_whole(order, given[name], whole / str(number))
        if LOADED in settings.sources:
            found[LOADED] = _write_model(
                order, build_code(order).model(seed=order.seed or 0).requires_grad_(True), whole / LOADED
            )
        yield found
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def _folder(name: str, given: dict[str, Input], order: Order) -> Path:
    """Return where the files of a model are."""
    if name in given:
        return _of_stage(given[name])
    if is_folder(name):
        return Path(order.study_folder or ".", Path(name).expanduser())
    if is_hub(name):
        return _of_hub(name, order.revisions.get(f"model:{name}"))
    raise ConfigError(f"{name!r} is none of the stages this one needs: {', '.join(given) or 'none'}")


def _of_stage(given: Input) -> Path:
    run = RunFolder(given.path)
    if (run.checkpoints / retention.INDEX).is_file():
        return retention.find(run.checkpoints, given.checkpoint)
    result = run.read_result()
    for artifact in () if result is None else result.artifacts.values():
        path = Path(given.path, artifact.path)
        if path.name == checkpoint.MODEL:
            return path.parent
    if (run.artifacts / ARTIFACT).is_dir():
        return run.artifacts / ARTIFACT
    raise DataError(f"{given.reference} ({given.path}) leaves no weights that could be merged")


def _of_hub(name: str, revision: str | None) -> Path:
    """Return the folder of a model of the hub, downloaded where it is not here yet."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ConfigError(f"{name}: models of the hub need huggingface_hub: pip install 'ablab[hub]'") from error
    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=["*.bin", "*.pt", "*.pth", "*.gguf"]))
    except Exception as error:  # the library lets through errors of whichever HTTP client it uses
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: cannot be had from the hub ({told}); `ablab fetch` says what to do") from error


def _is_checkpoint(folder: Path) -> bool:
    return (folder / checkpoint.STATE).is_file() and (folder / checkpoint.MODEL).is_file()


def _is_partial(given: Input, folder: Path) -> bool:
    """Tell whether a checkpoint's file is not the whole plain model: adapters, or tensors left out."""
    with Shards([folder / checkpoint.MODEL]) as shards:
        left_out = any(json.loads(shards.metadata.get(mark, "{}")) for mark in _LEFT_OUT)
    return left_out or bool(adapted(training_parts(given.path)))


def _write_whole(order: Order, given: Input, folder: Path) -> Path:
    """Write a checkpoint's model whole, its adapters merged."""
    if not order.sections:
        raise ConfigError(
            f"{given.reference} keeps only what it trained, and this task's merge stage reads no sections to build the "
            "rest from: give its StageSpec the sections of its train stage"
        )
    return _write_model(order, continue_from(build_code(order).model(seed=order.seed or 0), given), folder)


def _write_model(order: Order, model: nn.Module, folder: Path) -> Path:
    """Write a model as a checkpoint's weights, nothing left out."""
    if not order.sections:
        raise ConfigError(f"stage {order.stage}: this task's merge stage reads no sections to build a model from")
    folder.mkdir(parents=True)
    save_weights(folder / checkpoint.MODEL, model)
    write_json(folder / checkpoint.STATE, {"format": checkpoint.FORMAT, "step": 0}, sync=False)
    return folder


def _metadata(folders: list[Path]) -> dict[str, str] | None:
    """Return the metadata of merged checkpoints; None where the first is no checkpoint.

    Raises:
        ConfigError: some are checkpoints and some are not, or they tie other tensors.
    """
    checkpoints = [_is_checkpoint(folder) for folder in folders]
    if not any(checkpoints):
        return None
    if not all(checkpoints):
        raise ConfigError("checkpoints of stages and models of the hub have other names of tensors: merge one kind")
    ties = []
    for folder in folders:
        with Shards([folder / checkpoint.MODEL]) as shards:
            ties.append(shards.metadata.get(_TIED, "{}"))
    if len({json.dumps(json.loads(each), sort_keys=True) for each in ties}) > 1:
        raise DataError("the models tie different tensors, so their files do not hold the same ones")
    return {_TIED: ties[0], "ablab.regenerable": "{}"}


def _own(settings: Merge, order: Order) -> Own | None:
    if not settings.own:
        return None
    found: Own = find_component(settings.method, folder=order.study_folder, like=own_method)
    return found


def own_method(base: torch.Tensor, models: list[torch.Tensor], *, weights: list[float], seed: int) -> torch.Tensor:
    """Stand for the signature of a merge method of one's own: fp32 tensors of one name become one."""
    raise TypeError("only its signature is used")


def _outcome(settings: Merge, report: Report, *, artifacts: dict[str, str]) -> Outcome:
    rows = [(each.model, each.weight, each.density, report.deltas.get(each.model)) for each in settings.models]
    table = Table(
        name=f"{settings.method}{'' if settings.base is None else f' upon {settings.base}'}",
        columns=("model", "weight", "density", "norm of its task vector"),
        rows=tuple(rows),
    )
    facts = {
        "merge.method": settings.method,
        "merge.tensors": report.merged,
        "merge.copied": report.copied,
        "parameters.total": report.parameters,
        "merge.bytes": report.bytes,
    }
    if report.deltas:
        facts |= {"merge.deltas": report.deltas, "merge.moved": report.moved}
    if report.errors:
        facts |= {"merge.rank_error": max(report.errors.values())}
    return Outcome(facts=facts, artifacts=artifacts, evaluations=(Evaluation(name="merge", tables=(table,)),))
