"""`launch`: one `ablab run`, from the disk check and the frozen folder to the summary.

Puts the parts together; the loop itself is `ablab.launch.scheduler`'s.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ablab.launch.board import wanted_runs
from ablab.launch.control import Control
from ablab.launch.crew import Crew
from ablab.launch.desk import Desk, Outcome
from ablab.launch.detach import detach
from ablab.launch.devices import DevicePool, Nvml, choose_gpus
from ablab.launch.executors.base import Executor, Program
from ablab.launch.executors.choice import make_executor
from ablab.launch.freeze import Frozen, check_disk, freeze
from ablab.launch.leases import Leases
from ablab.launch.living import CLAIM, STOP, stop
from ablab.launch.options import LaunchSummary, Notice, OnEvent, Options
from ablab.launch.orders import Common
from ablab.launch.places import QUEUE, Places
from ablab.launch.rehearsals import Rehearsals, plan_probes, plan_rehearsals
from ablab.launch.scheduler import Rehearse, Scheduler
from ablab.launch.slots import Slots, plan_threads
from ablab.plan.configurations import steps
from ablab.plan.graph import Plan
from ablab.store.claims import acquire
from ablab.store.layout import Store
from ablab.store.processes import cores
from ablab.study.schema import Study

__all__ = ["LaunchSummary", "Notice", "Options", "launch", "launch_probes", "stop"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a launch runs on; given by tests, found otherwise.

    Args:
        cores: processors; None counts them.
        nvml: GPUs; None asks the driver.
        leases: GPU leases; None takes the machine's.
        program: what is started on an order.
        executor: what starts it; None takes the study's.
    """

    cores: int | None = None
    nvml: Nvml | None = None
    leases: Leases | None = None
    program: Program | None = None
    executor: Executor | None = None


def launch(
    study: Study,
    plan: Plan,
    store: Store,
    options: Options | None = None,
    report: Callable[[str], None] | None = None,
    *,
    on_event: OnEvent | None = None,
    replan: Callable[[], Plan] | None = None,
    machine: Machine | None = None,
    behind: OnEvent | None = None,
) -> LaunchSummary:
    """Run what is left of a plan; return when all is done, failed, blocked or stopped.

    Args:
        study: the study.
        plan: its plan, as the store stands now.
        store: the store.
        options: what the launch is told.
        report: called with each line a person would want to read.
        on_event: called with everything that happens, and with a tick about once a second, in this process.
        replan: makes the plan anew; needed where a sweep chooses parameters.
        machine: what to run on.
        behind: the same of a detached launch, in its background process; the last notice is of kind "ended".

    Raises:
        DiskFullError: the results would not fit on the disk; nothing was started.
        ConfigError: devices or an executor that this machine has not; nothing was started.
    """
    options, machine = options or Options(), machine or Machine()
    notify = _speaker(report, on_event)
    wanted = wanted_runs(plan, only=options.only, seeds=options.seeds)
    check_disk(plan, store)
    places = _places(study, plan, options, machine)
    frozen = freeze(study, plan, store, wanted=wanted, options=options)
    _announce(frozen, notify)

    def rehearse(plan: Plan, wanted: list[str]) -> Rehearsals:
        if not (options.rehearse and study.compute.rehearse):
            return Rehearsals(plan)
        return plan_rehearsals(plan, wanted, store, device=_device(places))

    def work(places: Places, notify: OnEvent) -> LaunchSummary:
        return _work(
            plan, wanted, store, options, machine, places, frozen, notify=notify, rehearse=rehearse, replan=replan
        )

    if not options.detach:
        return work(places, notify)

    def work_behind() -> int:
        # NVML does not survive a fork: the background process asks for itself.
        notify = _speaker(_print_line, behind)
        code = work(_places(study, plan, options, machine), notify).exit_code
        notify(Notice(kind="ended"))
        return code

    log = frozen.folder / "launcher.log"
    pid = detach(work_behind, log=log)
    notify(Notice(kind="launch", text=f"goes on in the background as process {pid}; log: {log}"))
    return LaunchSummary(launch=frozen.id, reused=frozen.reused, pid=pid, log=str(log))


def launch_probes(
    study: Study,
    plan: Plan,
    store: Store,
    *,
    say: Callable[[str], None] | None = None,
    machine: Machine | None = None,
    **options: Any,
) -> LaunchSummary:
    """Probe the distinct configurations of a plan (see `ablab.launch.rehearsal.probe`)."""
    chosen, machine = Options(**options), machine or Machine()
    notify = _speaker(say, None)
    places = _places(study, plan, chosen, machine)
    asked = [key for key in wanted_runs(plan, only=chosen.only, seeds=chosen.seeds) if _probed(plan, key)]
    probes = plan_probes(plan, asked, store, device=_device(places))
    pending = [entry.key for entry in probes.entries.values() if entry.status == "pending"]
    if not pending:
        notify(Notice(kind="launch", text="every configuration has been probed"))
        return LaunchSummary(launch="")
    wanted = _needed_first(plan, pending)
    frozen = freeze(study, plan, store, wanted=wanted, options=chosen)
    notify(Notice(kind="launch", text=f"probing {len(pending)} configurations; {len(wanted)} runs come before them"))
    return _work(plan, wanted, store, chosen, machine, places, frozen, notify=notify, rehearse=lambda *_: probes)


def _probed(plan: Plan, key: str) -> bool:
    return steps(plan.runs[key]) and plan.runs[key].status != "planned"


def _needed_first(plan: Plan, keys: list[str]) -> list[str]:
    """Return the runs without steps that these runs read, directly or not: a probe needs their real output."""
    found: set[str] = set()
    stack = list(keys)
    while stack:
        for given in plan.runs[stack.pop()].inputs:
            if given.key not in found:
                found.add(given.key)
                stack.append(given.key)
    return [key for key in plan.runs if key in found and not steps(plan.runs[key])]


def _work(
    plan: Plan,
    wanted: list[str],
    store: Store,
    options: Options,
    machine: Machine,
    places: Places,
    frozen: Frozen,
    *,
    notify: OnEvent,
    rehearse: Rehearse,
    replan: Callable[[], Plan] | None = None,
) -> LaunchSummary:
    """Do the work of a launch whose folder stands."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(acquire(frozen.folder / CLAIM))
        control = Control(stop_file=frozen.folder / STOP, until=options.until, grace=options.grace)
        stack.callback(control.close)
        stack.enter_context(control.signals())
        program = machine.program or Program().preloading(plan.study.task.preload)
        executor = machine.executor or make_executor(plan.study.compute, frozen.folder, program=program)
        desk = Desk(plan=plan, wanted=wanted, store=store, places=places, options=options, notify=notify)
        scheduler = Scheduler(
            desk,
            wanted,
            crew=Crew(executor, env=_environment(frozen)),
            control=control,
            common=Common(
                source=str(frozen.source),
                study_folder=str(frozen.study_folder),
                deadline=options.until,
                track=options.track,
            ),
            rehearse=rehearse,
            replan=replan,
        )
        outcome = scheduler.run()
    summary = _summary(frozen, outcome, seconds=time.monotonic() - began)
    notify(Notice(kind="launch", text=_closing_words(summary), detail={"summary": summary}))
    return summary


def _places(study: Study, plan: Plan, options: Options, machine: Machine) -> Places:
    """Return where the runs of this launch may go."""
    compute = study.compute
    count = machine.cores or cores()
    whole = _whole_plan(study, plan, options)
    limit = min((n for n in (options.slots, compute.slots) if n is not None), default=None)
    if compute.executor != "local" and (machine.executor is None or not machine.executor.local):
        gpus = 0 if options.devices == "cpu" else _cluster_gpus(compute.slurm)
        threads = plan_threads(whole, machine=count, gpus=0, compute=compute)
        return Places(
            threads=threads,
            slots=Slots(machine=count),
            compute=compute,
            queue=limit or QUEUE,
            cluster_gpus=gpus,
            address_space=options.address_space,
        )
    nvml = machine.nvml or Nvml()
    gpus_here = choose_gpus([] if options.devices == "cpu" else nvml.gpus(), options.devices)
    pool = None
    if gpus_here:
        leases = machine.leases or Leases()
        pool = DevicePool(gpus_here, leases=leases, nvml=nvml, share=compute.share, cooldown=compute.cooldown)
    side_by_side = len(gpus_here) * compute.share
    return Places(
        threads=plan_threads(whole, machine=count, gpus=side_by_side, compute=compute),
        slots=Slots(machine=count, limit=limit),
        compute=compute,
        pool=pool,
        address_space=options.address_space,
    )


def _whole_plan(study: Study, plan: Plan, options: Options) -> Plan:
    """Return the plan that threads are computed from: all of the study, so that --only changes no numerics."""
    if options.only is None and options.seeds is None:
        return plan
    from ablab.plan.planning import make_plan

    return make_plan(study, None)


def _cluster_gpus(parameters: dict[str, Any]) -> int:
    """Return the GPUs that each job of a cluster is given, from the study's parameters for it."""
    for name in ("gpus_per_node", "slurm_gpus_per_node", "gpus_per_task", "num_gpus"):
        value = parameters.get(name)
        if value:
            return int(str(value).rpartition(":")[2])
    return 0


def _device(places: Places) -> str:
    return "cuda" if places.on_gpu else "cpu"


def _environment(frozen: Frozen) -> dict[str, str]:
    """Return the variables of every worker: the frozen source comes before anything else on the import path."""
    path = [str(frozen.source), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "OMP_WAIT_POLICY": "passive"}


def _speaker(report: Callable[[str], None] | None, on_event: OnEvent | None) -> OnEvent:
    """Return what tells both listeners; a terminal that has gone away is no reason to end a launch."""

    def notify(notice: Notice) -> None:
        with contextlib.suppress(OSError):
            if report is not None and notice.text:
                report(notice.text)
            if on_event is not None:
                on_event(notice)

    return notify


def _print_line(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)


def _announce(frozen: Frozen, notify: OnEvent) -> None:
    """Say what is new, reused and superseded."""
    counts = f"{len(frozen.new)} runs to do, {len(frozen.reused)} reused, {len(frozen.superseded)} superseded"
    notify(Notice(kind="launch", text=f"launch {frozen.id}: {counts}"))
    for name in frozen.superseded[:20]:
        notify(Notice(kind="launch", text=f"superseded: {name} (kept, but this study does not ask for it any more)"))
    if len(frozen.superseded) > 20:
        notify(Notice(kind="launch", text=f"superseded: {len(frozen.superseded) - 20} more, in launch.json"))


def _summary(frozen: Frozen, outcome: Outcome, *, seconds: float) -> LaunchSummary:
    return LaunchSummary(
        launch=frozen.id,
        done=tuple(outcome.done),
        reused=tuple(outcome.reused),
        failed=outcome.failed,
        blocked=outcome.blocked,
        stopped=tuple(outcome.stopped),
        left=outcome.left,
        seconds=seconds,
    )


def _closing_words(summary: LaunchSummary) -> str:
    counts = {
        "done": len(summary.done),
        "reused": len(summary.reused),
        "failed": len(summary.failed),
        "blocked": len(summary.blocked),
        "stopped": len(summary.stopped),
        "not started": len(summary.left),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing to do"
    return f"{told}, in {summary.seconds:.1f} s"
