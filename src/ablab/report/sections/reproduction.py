"""How to do it again and how to follow it: exact commands, the frozen study, checkpoint policy, outputs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ablab.contract.units import duration
from ablab.report.document import Block, Bullets, Code, Facts, Folded, Heading, Section

if TYPE_CHECKING:
    from ablab.report.view import View


def section(view: View) -> Section:
    """Return what was typed, what to type, what is kept and where everything lies."""
    t = view.t
    blocks: list[Block] = []
    typed = [
        f"# {t.when(launch.started, with_seconds=True)}\n{launch.command}" for launch in view.launches if launch.command
    ]
    if typed:
        blocks += [Heading(text=t("What was typed")), Code(text="\n".join(typed), language="sh")]
    blocks += [Heading(text=t("To go on, to follow, to see")), Code(text="\n".join(hints(view)), language="sh")]
    policy = tuple(checkpoint_policy(view))
    blocks += [Heading(text=t("Checkpoint policy")), Bullets(items=policy)]
    blocks += [Heading(text=t("Outputs")), Facts(items=tuple(outputs(view)))]
    if view.study.text:
        blocks.append(Folded(title=t("The study file"), blocks=(Code(text=view.study.text, language="yaml"),)))
    if view.study.overrides:
        blocks.append(Bullets(items=tuple(view.study.overrides)))
    return Section(id="commands", title=t("Commands and outputs"), blocks=tuple(blocks))


def hints(view: View) -> Iterator[str]:
    """Yield the commands that go on with the study and watch it."""
    t = view.t
    tail = f"{shlex.quote(view.study.path or view.study.name)} --profile {shlex.quote(view.study.profile)}"
    tail += f" --store {shlex.quote(str(view.store.root))}"
    overrides = "".join(f" {shlex.quote(override)}" for override in view.study.overrides)
    says = {
        f"ablab run {tail}{overrides}": t("goes on with what is left"),
        f"ablab status {tail}{overrides}": t("one row a run"),
        f"ablab watch {tail}{overrides}": t("the same, live"),
        f"ablab report {tail}{overrides}": t("writes this report anew"),
    }
    for command, meaning in says.items():
        yield f"{command}  # {meaning}"
    going = next((run for run in view.plan.runs.values() if run.status == "running"), None)
    if going is not None:
        yield f"ablab logs {shlex.quote(going.name)} --follow --store {shlex.quote(str(view.store.root))}"


def checkpoint_policy(view: View) -> Iterator[str]:
    """Yield what the study keeps, and how often its stages write."""
    t = view.t
    kept = view.study.retention
    if kept.last:
        yield t("the last checkpoint of a finished stage stays")
    yield t.n("the best {n} stays", "the best {n} stay", kept.best) if kept.best else t("no best checkpoint is kept")
    if kept.every:
        yield t.n("one every {n} step stays", "one every {n} steps stays", kept.every)
    yield (
        t("weights of intermediate stages stay")
        if kept.intermediate
        else t("weights of intermediate stages go when every consumer is done")
    )
    seen = set()
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            written = getattr(stage.parameters, "checkpoints", None)
            steps, seconds = getattr(written, "every", None), getattr(written, "seconds", None)
            if written is None or (stage.name, steps, seconds) in seen:
                continue
            seen.add((stage.name, steps, seconds))
            when = [t.n("every {n} step", "every {n} steps", steps)] if steps else []
            when += [t("every {time}", time=duration(seconds))] if seconds else []
            if when:
                yield t("{stage} writes one {when}", stage=stage.name, when=t.list(when))


def outputs(view: View) -> Iterator[tuple[str, str]]:
    """Yield where results, reports and frozen sources are."""
    t = view.t
    folder = view.store.study_folder(view.study.name, view.study.profile)
    yield t("runs by name"), f"`{folder / 'by-name'}`"
    yield t("runs"), f"`{view.path('runs')}`"
    yield t("this report"), f"`{folder / 'report.html'}`, `{folder / 'report.md'}`"
    yield t("summary for machines"), f"`{folder / 'summary.json'}`, `{folder / 'summary.txt'}`"
    yield t("every verdict with its date"), f"`{folder / 'verdicts.jsonl'}`"
    yield t("frozen studies, plans and sources"), f"`{view.path('launches')}`"
