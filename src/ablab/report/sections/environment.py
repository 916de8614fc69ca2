"""On what it ran: environment snapshot, git state, and the set-up that another machine would need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ablab.contract.units import size
from ablab.report.document import Block, Bullets, Facts, Folded, Section, Text
from ablab.report.settings import plain
from ablab.report.words import FINDINGS, word

if TYPE_CHECKING:
    from ablab.report.view import View

#: Findings that say what a machine lacks.
_PREREQUISITES = frozenset(
    {
        "missing-file",
        "missing-bundled",
        "hub-unresolved",
        "hub-offline",
        "gated-without-token",
        "checkpoints-exceed-disk",
    }
)
#: Facts of a snapshot that have a place of their own, or none.
_TOLD = frozenset(
    {
        "format", "time", "host", "os", "kernel", "python", "executable", "cpu", "memory", "disk", "gpus", "driver",
        "cuda", "cudnn", "libraries",
    }
)  # fmt: skip
_MISSING = ("not installed", "none", None)


def section(view: View) -> Section:
    """Return the environment of the newest launch and what the study needs of a machine."""
    t = view.t
    blocks: list[Block] = []
    if view.launches:
        newest = view.launches[-1]
        facts = tuple(environment_facts(view, newest.environment))
        if facts:
            blocks.append(Folded(title=t("Environment snapshot"), blocks=(Facts(items=facts),)))
        git = tuple(git_facts(view, newest.git))
        if git:
            blocks.append(Folded(title=t("Git state"), blocks=(Facts(items=git),)))
        others = len({plain({k: v for k, v in each.environment.items() if k != "time"}) for each in view.launches}) - 1
        if others > 0:
            blocks.append(
                Text(
                    text=t.n("{n} earlier launch ran elsewhere", "{n} earlier launches ran elsewhere", others),
                    small=True,
                )
            )
    needs = tuple(setup(view))
    if needs:
        blocks.append(Folded(title=t("Set-up that is needed"), blocks=(Bullets(items=needs),)))
    return Section(id="environment", title=t("Environment"), blocks=tuple(blocks))


def environment_facts(view: View, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield host, system, processors, memory, disk, GPUs, driver, CUDA and libraries as a reader looks for them."""
    t = view.t
    cpu = found.get("cpu") or {}
    disk = found.get("disk") or {}
    named = {
        t("time"): t.when(found["time"]) if isinstance(found.get("time"), int | float) else None,
        t("host"): found.get("host"),
        t("system"): ", ".join(str(found[key]) for key in ("os", "kernel") if found.get(key)),
        "Python": found.get("python"),
        t("processor"): _cpu(view, cpu) if isinstance(cpu, Mapping) else plain(cpu),
        t("memory"): size(found["memory"]) if isinstance(found.get("memory"), int | float) else None,
        t("disk"): t("{free} free of {total}", free=size(disk.get("free")), total=size(disk.get("total")))
        if disk
        else None,
        "GPU": _gpus(view, found.get("gpus")),
        t("driver"): found.get("driver"),
        "CUDA": found.get("cuda"),
        "cuDNN": found.get("cudnn"),
    }
    for name, value in named.items():
        yield name, t("not installed") if value in _MISSING else str(value)
    libraries = found.get("libraries") or {}
    for name, version in libraries.items() if isinstance(libraries, Mapping) else ():
        yield str(name), t("not installed") if version in _MISSING else str(version)
    for name, value in found.items():
        if name not in _TOLD and value:
            yield str(name), plain(value)


def _cpu(view: View, cpu: Mapping[str, Any]) -> str:
    cores = view.t.n("{n} core", "{n} cores", int(cpu.get("cores") or 0))
    return f"{cpu.get('name') or cpu.get('machine') or ''}, {cores}"


def _gpus(view: View, gpus: Any) -> str:
    if not gpus:
        return view.t("none")
    if isinstance(gpus, list):
        return "; ".join(_gpu(gpu) for gpu in gpus)
    return plain(gpus)


def _gpu(gpu: Any) -> str:
    if not isinstance(gpu, Mapping):
        return plain(gpu)
    memory = gpu.get("memory") or gpu.get("memory_total")
    rest = {k: v for k, v in gpu.items() if k not in ("name", "memory", "memory_total")}
    parts = [str(gpu.get("name", "")), size(memory) if isinstance(memory, int | float) else "", plain(rest)]
    return ", ".join(part for part in parts if part)


def git_facts(view: View, git: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield branch, commit, whether anything is not committed, and what."""
    t = view.t
    names = {
        "state": t("state"), "repository": t("repository"), "remote": t("remote"), "branch": t("branch"),
        "commit": t("commit"), "changed": t("changed files"), "diff": t("changes"),
    }  # fmt: skip
    for key, name in names.items():
        value = git.get(key)
        if value:
            yield name, plain(value)


def setup(view: View) -> Iterator[str]:
    """Yield what a machine needs before the study can run: packages, data, models, tokens, and what lacks here."""
    t = view.t
    executor = view.study.compute.executor
    extras: list[str] = [executor] if executor != "local" else []
    hub: dict[str, bool] = {}
    files: dict[str, None] = {}
    seen: set[tuple[int, int]] = set()
    for run in view.plan.runs.values():
        stage = run.stage
        if stage.spec.references is None or (id(stage.sections), id(stage.parameters)) in seen:
            continue
        seen.add((id(stage.sections), id(stage.parameters)))
        for reference in stage.spec.references(stage.sections, stage.parameters):
            if reference.kind == "hub":
                hub[reference.name] = reference.gated
            elif reference.kind in ("file", "folder"):
                files[reference.name] = None
    if hub:
        extras.insert(0, "hub")
    package = f"ablab[{','.join(extras)}]" if extras else "ablab"
    yield t("Python 3.11 or newer, and `pip install {package}`", package=package)
    for name, gated in hub.items():
        said = t("from the hub: {name}", name=name)
        yield f"{said} ({t('gated: needs a licence and a token')})" if gated else said
    if files:
        yield t("files: {names}", names=t.list(list(files)))
    for finding in view.findings:
        if finding.id in _PREREQUISITES and finding.accepted is None:
            yield f"{word(t, FINDINGS, finding.id)}: {finding.message}"
