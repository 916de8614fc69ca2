"""Sending workers out: what an attempt gets, its order, and adopting workers that others sent.

When that happens is the scheduler's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ablab.contract.order import Numerics, Resources
from ablab.launch.crew import Crew, Job, is_here, living_holder
from ablab.launch.desk import Desk
from ablab.launch.orders import Common, build_order, kept, kept_of_finished, next_resources
from ablab.plan.graph import Run
from ablab.store.claims import Holder
from ablab.store.files import naming_full_disk, write_json
from ablab.store.layout import RunFolder

#: What earlier failures made us save, and later attempts keep.
_SAVED = ("micro_batch", "evaluation_batch", "loss_chunk", "parameters")


class Sender:
    """Sends workers out.

    Args:
        desk: the runs.
        crew: the workers.
        common: what all orders share.
    """

    def __init__(self, desk: Desk, crew: Crew, common: Common) -> None:
        self._desk = desk
        self._crew = crew
        self._common = common
        self._saved: dict[str, Resources] = {}

    def save(self, name: str, resources: Resources) -> None:
        """Keep the memory savings of a run, or of a configuration, for its next attempts."""
        self._saved[name] = resources

    def resources(self, run: Run, folder: RunFolder, *, digest: str = "") -> tuple[Resources, Numerics | None]:
        """Return what the next attempt at a run gets: as in its first attempt, as far as there was one.

        Args:
            run: the run.
            folder: where it runs.
            digest: its configuration, whose rehearsal may have saved memory.
        """
        wanted = self._with_savings(self._desk.places.wanted(run), digest)
        machine = self._desk.places.slots.machine
        earlier = kept_of_finished(self._desk.store.run(run.name)) if run.again else kept(folder)
        resources, numerics = next_resources(wanted, earlier, machine=machine)
        return self._with_savings(resources, run.name), numerics

    def rehearsal_resources(self, run: Run, digest: str) -> Resources:
        """Return what the next rehearsal of a configuration gets."""
        return self._with_savings(self._desk.places.wanted(run), digest)

    def send(
        self,
        job: Job,
        title: str,
        *,
        numerics: Numerics | None = None,
        mode: str = "run",
        inputs: Mapping[str, Path] | None = None,
    ) -> None:
        """Write the order of a job and start a worker on it.

        Raises:
            DiskFullError: the order could not be written.
            OSError: no process could be started.
        """
        with naming_full_disk(job.folder.path):
            job.attempt = job.folder.new_attempt().number
            job.deadline = self._common.deadline
            order = build_order(
                self._desk.run(job.key),
                plan=self._desk.plan,
                store=self._desk.store,
                common=self._common,
                resources=job.resources,
                attempt=job.attempt,
                numerics=numerics,
                mode=mode,
                folder=job.folder.path,
                inputs=inputs,
            )
            # Not synced: after a power cut an order is simply written again.
            write_json(job.folder.order_path, order, sync=False)
            self._crew.start(job)
        self.place(job)
        again = "" if job.attempt == 1 or mode != "run" else f" (attempt {job.attempt})"
        self._desk.say("started", f"{title} started{again}{_where(job.resources)}", job.name)

    def place(self, job: Job) -> None:
        """Tell the places which process a job is, as soon as that is known."""
        if not job.placed and job.pid is not None:
            job.placed = True
            self._desk.places.began(job.name, job.pid)

    def adopt(self, key: str, holder: Holder) -> None:
        """Look after a living worker that no launcher looks after."""
        desk = self._desk
        run, folder = desk.run(key), desk.folder(key)
        order = folder.known_order()
        job = Job(
            name=run.name,
            key=key,
            folder=folder,
            attempt=order.attempt if order is not None else max(folder.attempts(), default=1),
            resources=order.resources if order is not None else desk.places.wanted(run),
            deadline=order.deadline if order is not None else None,
        )
        desk.engaged.add(key)
        self.occupy(key, holder)
        self._crew.adopt(job, holder)
        desk.say("adopted", f"{desk.title(run)}: adopted ({holder})", run.name)

    def occupy(self, key: str, holder: Holder | None) -> None:
        """Account the cores of a worker that is not ours, if it is on this machine as far as we know."""
        run = self._desk.run(key)
        if holder is None or is_here(holder):
            order = self._desk.folder(key).known_order()
            resources = order.resources if order is not None else self._desk.places.wanted(run)
            self._desk.places.occupy(run.name, resources)

    def adopt_living(self, key: str) -> bool:
        """Adopt the worker that is alive on a run; False when there is none."""
        holder = living_holder(self._desk.folder(key))
        if holder is not None:
            self.adopt(key, holder)
        return holder is not None

    def _with_savings(self, resources: Resources, name: str) -> Resources:
        saved = self._saved.get(name)
        if saved is None:
            return resources
        return resources.model_copy(update={one: getattr(saved, one) or getattr(resources, one) for one in _SAVED})


def _where(resources: Resources) -> str:
    if resources.devices:
        return f" on GPU {', '.join(map(str, resources.devices))}"
    threads = resources.threads * resources.world_size
    return f" on {threads} {'core' if threads == 1 else 'cores'}"
