"""One merge over folders of files: check, merge tensor by tensor, write the result with what belongs to it.

Where the folders come from (stages, the hub, a command line), and that the result appears whole or not at all, belong
to the caller.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch

from ablab.contract.failure import ConfigError, DataError, DiskFullError
from ablab.contract.merge import Merge
from ablab.contract.registry import nearest
from ablab.merging import checking
from ablab.merging.companions import copy_companions, record
from ablab.merging.engine import Bench, Done, Job, Writer, run
from ablab.merging.factoring import Collector, adapter_config
from ablab.merging.helpers import WORTH, Pool, helping
from ablab.merging.recipes import Own, recipe_for, takes_looks
from ablab.merging.shards import ADAPTER, FLOATS
from ablab.merging.sources import ADAPTER_CONFIG, Adapter, FullModel, is_adapter, shapes_of
from ablab.merging.writing import Layout, Planned, ShardWriter, lay_out
from ablab.store.files import write_json

_Names = tuple["Named | None", Sequence["Named"]]
_TYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}

#: Told how many of all entries are done.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model by the name the user gave it, and where its files are."""

    label: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a merge runs, which changes nothing of its result.

    Args:
        threads: processes that work at once, on the CPU.
        device: where they are computed.
        progress: told the entries done, of all.
        stop: asked now and then; True ends the merge with StopRequested.
        metadata: kept in the weight files (a checkpoint's ties and recipes).
        single: write one file whatever its size, without what surrounds a model of the hub.
    """

    threads: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = lambda done, total: None
    stop: Callable[[], bool] = lambda: False
    metadata: Mapping[str, str] = field(default_factory=dict)
    single: bool = False


@dataclass(kw_only=True)
class Report:
    """What a merge did.

    Args:
        merged: tensors that were merged; `copied` are the base's.
        parameters: entries of the result.
        bytes: size of the result's weights.
        deltas: norm of each model's task vector, by label; empty for methods that have none.
        moved: norm of the merged task vector.
        errors: of an adapter, by weight: norm of what its rank could not hold, of all.
    """

    merged: int = 0
    copied: int = 0
    parameters: int = 0
    bytes: int = 0
    deltas: dict[str, float] = field(default_factory=dict)
    moved: float | None = None
    errors: dict[str, float] = field(default_factory=dict)


def merge_models(
    settings: Merge,
    *,
    base: Named | None,
    models: Sequence[Named],
    target: Path,
    seed: int,
    own: Own | None = None,
    options: Options | None = None,
) -> Report:
    """Merge models into `target`, an empty folder.

    Args:
        settings: method, weights, densities.
        base: what task vectors are taken from.
        models: in the order of the settings.
        target: where the result goes.
        seed: what random drops draw from.
        own: the function of a method of the user's.
        options: how to run.

    Raises:
        ConfigError: settings that do not fit these models.
        DataError: models that cannot be merged (tensors, shapes, vocabularies), a task vector of zero, damaged files.
        DiskFullError: the result does not fit.
        StopRequested: stopped on request.
    """
    options = options or Options()
    with ExitStack() as stack:
        inputs = _Inputs(settings, base, models, device=options.device, stack=stack)
        if settings.output == "adapter":
            return _to_adapter(settings, inputs, target, seed=seed, options=options)
        return _to_model(settings, inputs, target, seed=seed, own=own, options=options, named=(base, models))


class _Inputs:
    """The opened inputs of a merge."""

    def __init__(
        self, settings: Merge, base: Named | None, models: Sequence[Named], *, device: torch.device, stack: ExitStack
    ) -> None:
        self._settings = settings
        self.base: FullModel | None = None
        if base is not None:
            if is_adapter(base.folder):
                raise ConfigError(f"base {base.label} is an adapter; name the model that it was trained on")
            self.base = FullModel(base.label, base.folder, device=device)
            stack.callback(self.base.close)
        shapes = {} if self.base is None else shapes_of(self.base.shards.entries)
        self.models: list[FullModel | Adapter] = []
        for each in models:
            opened = (
                Adapter(each.label, each.folder, shapes=shapes, device=device)
                if is_adapter(each.folder)
                else FullModel(each.label, each.folder, device=device)
            )
            stack.callback(opened.close)
            self.models.append(opened)
        self.adapters = [each for each in self.models if isinstance(each, Adapter)]
        self.full = [each for each in self.models if isinstance(each, FullModel)]
        if settings.output == "adapter" and self.full:
            raise ConfigError(f"output: adapter merges adapters, and {self.full[0].label} is a full model")
        if settings.output == "full" and self.adapters and self.base is None:
            raise ConfigError(f"{self.adapters[0].label} is an adapter: name its base, or output: adapter")

    @property
    def reference(self) -> FullModel:
        """The model whose tensors the result has."""
        return self.full[0] if self.base is None else self.base

    @property
    def floats(self) -> list[str]:
        """Names of the tensors that are merged into a full model; the others are copied."""
        entries = self.reference.shards.entries
        return [name for name in _chosen(self._settings, list(entries)) if entries[name].dtype in FLOATS]

    def check(self) -> None:
        """Refuse models that cannot be merged, and those whose task vector is zero."""
        reference = self.reference
        for one in self.full:
            if one is not reference:
                checking.check_fit(reference, one)
        for adapter in self.adapters:
            checking.check_changes(adapter)
        floats = self.floats
        chosen = _chosen(self._settings, list(reference.shards.entries))
        for model in (reference, *self.full):
            checking.check_types(model.shards, model.label, chosen)
        merged = set(floats)
        checking.check_copied(reference, self.full, [name for name in chosen if name not in merged])
        if self.base is not None:
            for model in self.full:
                checking.check_differs(self.base, model, floats)

    def bench(self, writer: Writer, *, seed: int, own: Own | None) -> Bench:
        """Return the work of a merge into a full model."""
        shapes = shapes_of(self.reference.shards.entries)
        jobs = _jobs(self._settings, shapes, self.floats, seed=seed, own=own)
        return Bench(
            jobs=jobs,
            base=self.base,
            models=self.models,
            copied_from=self.reference,
            writer=writer,
            device=self.reference.device,
        )


def _open_bench(
    settings: Merge, base: Named | None, models: Sequence[Named], layout: Layout, seed: int, device: str
) -> Bench:
    """Open everything in a helper process, which closes it by ending."""
    inputs = _Inputs(settings, base, models, device=torch.device(device), stack=ExitStack())
    return inputs.bench(ShardWriter(layout), seed=seed, own=None)


def _to_model(
    settings: Merge, inputs: _Inputs, target: Path, *, seed: int, own: Own | None, options: Options, named: _Names
) -> Report:
    inputs.check()
    reference, merged = inputs.reference, set(inputs.floats)
    dtype = _TYPES.get(settings.dtype or "")
    planned = [
        Planned(name=name, dtype=dtype if dtype and name in merged else entry.dtype, shape=entry.shape)
        for name, entry in reference.shards.entries.items()
    ]
    _check_room(target, sum(each.bytes for each in planned))
    limit = 1 << 62 if options.single else settings.shard_bytes
    layout = lay_out(target, planned, shard_bytes=limit, metadata=options.metadata)
    writer = ShardWriter(layout)
    bench = inputs.bench(writer, seed=seed, own=own)
    alone = own is not None or options.device.type != "cpu" or sum(job.count for job in bench.jobs) < WORTH
    opens = partial(_open_bench, settings, *named, layout, seed, str(options.device))
    try:
        with helping(opens, 0 if alone else options.threads - 1) as helpers:
            report = _run(bench, inputs, options=options, helpers=helpers)
    finally:
        writer.close()
    layout.finish()
    report.bytes = layout.total
    if not options.single:
        copy_companions(reference.folder, target, dtype=settings.dtype)
        record(target, settings, seed=seed)
    return report


def _to_adapter(settings: Merge, inputs: _Inputs, target: Path, *, seed: int, options: Options) -> Report:
    adapters = inputs.adapters
    shapes: dict[str, tuple[int, ...]] = {}
    for each in adapters:
        checking.check_changes(each)
        if each.full:
            raise ConfigError(
                f"{each.label} holds whole tensors besides its low-rank ones ({next(iter(each.full))}); merge it into "
                "a full model"
            )
        for name in each.products:
            if shapes.setdefault(name, each.shape(name)) != each.shape(name):
                raise DataError(f"{name} has shape {each.shape(name)} in {each.label} and {shapes[name]} in another")
    chosen = _chosen(settings, list(shapes))
    shapes = {name: shapes[name] for name in chosen}
    assert settings.rank is not None
    collector = Collector(shapes, adapters, rank=settings.rank, seed=seed, device=options.device)
    bench = Bench(
        jobs=_jobs(settings, shapes, chosen, seed=seed, own=None),
        base=None,
        models=inputs.models,
        copied_from=None,
        writer=collector,
        device=options.device,
    )
    report = _run(bench, inputs, options=options)
    report.errors = collector.errors
    from safetensors.torch import save_file

    save_file(dict(sorted(collector.tensors.items())), target / ADAPTER, metadata={"format": "pt"})
    config = adapter_config(adapters[0].config, rank=settings.rank, weights=chosen)
    write_json(target / ADAPTER_CONFIG, config, sync=False)
    record(target, settings, seed=seed)
    report.bytes = (target / ADAPTER).stat().st_size
    return report


def _chosen(settings: Merge, names: Sequence[str]) -> list[str]:
    """Return the tensors to merge; a pattern that matches none is an error."""
    if not settings.only:
        return list(names)
    for pattern in settings.only:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = nearest(pattern, names)
            hint = f"; the nearest name is {near}" if near else ""
            raise ConfigError(f"only: {pattern!r} matches none of {len(names)} tensors{hint}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in settings.only)]


def _jobs(
    settings: Merge, shapes: Mapping[str, tuple[int, ...]], merged: Sequence[str], *, seed: int, own: Own | None
) -> list[Job]:
    wanted = set(merged)
    whole = "all" if own is not None else "rows" if settings.method.startswith("della") else ""
    # An adapter is factored when a tensor is whole, so its tensors are not divided either.
    looks = takes_looks(settings) or settings.output == "adapter"
    full = settings.output == "full"
    return [
        Job(
            name=name,
            shape=shape,
            whole=whole,
            looks=looks,
            recipe=partial(recipe_for, settings, name=name, shape=shape, seed=seed, own=own, full=full)
            if name in wanted
            else None,
        )
        for name, shape in shapes.items()
    ]


def _run(bench: Bench, inputs: _Inputs, *, options: Options, helpers: Pool | None = None) -> Report:
    jobs = bench.jobs
    report = Report(merged=sum(job.recipe is not None for job in jobs), parameters=sum(job.count for job in jobs))
    report.copied = len(jobs) - report.merged
    found: list[Done] = []
    counted = 0

    def done(one: Done) -> None:
        nonlocal counted
        found.append(one)
        counted += one.unit.entries
        if isinstance(bench.writer, Collector):
            bench.writer.close_tensor(jobs[one.unit.job].name)
        options.progress(counted, report.parameters)

    run(bench, helpers=helpers, done=done, stop=options.stop)
    # Added up in the order of the tensors, so that the sums do not depend on who was done first.
    vectors = sorted((one for one in found if one.deltas), key=lambda one: (one.unit.job, one.unit.first))
    if vectors:
        norms = [sum(one.deltas[i] for one in vectors) for i in range(len(inputs.models))]
        report.deltas = {model.label: math.sqrt(norm) for model, norm in zip(inputs.models, norms, strict=True)}
        report.moved = math.sqrt(sum(one.moved for one in vectors))
    return report


def _check_room(target: Path, needed: int) -> None:
    """Refuse a result that the disk cannot take before anything is computed."""
    free = shutil.disk_usage(target).free
    if needed > free:
        raise DiskFullError(
            f"{target}: the result takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free", file=str(target)
        )
