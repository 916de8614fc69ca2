"""The lab from Python: load a study, check it, plan it, run it, read its results as a table.

The command line is a thin skin over this class; a notebook uses it directly:

    from ablab import load
    lab = load("studies/gpt-oelm.yaml", profile="smoke")
    lab.check(); lab.run(); lab.table()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.store.dotenv import load_env
from ablab.store.layout import Store, open_store
from ablab.study.loading import load as load_study
from ablab.study.schema import Study

if TYPE_CHECKING:
    from ablab.analysis.judgement import ComparisonVerdict
    from ablab.analysis.results import Results, RunRecord
    from ablab.contract.finding import Finding
    from ablab.launch.options import LaunchSummary, OnEvent
    from ablab.plan.graph import Plan
    from ablab.report.view import View
    from ablab.store.fetch import Item


def load(
    path: str | Path,
    *,
    profile: str = "full",
    overrides: Sequence[str] = (),
    store: str | Path | None = None,
    quick: bool = False,
) -> Lab:
    """Load a study file and open its store; a `.env` beside the study is read into the environment.

    Args:
        path: the YAML file.
        profile: named overlay of the study.
        overrides: `key=value` strings, as on the command line.
        store: folder of results; None takes $ABLAB_STORE or ./lab.
        quick: one epoch each, any study.

    Raises:
        StudyError: naming every problem of the file with its line.
    """
    load_env(Path(path).resolve().parent)
    study = load_study(str(path), profile=profile, overrides=tuple(overrides), quick=quick)
    return Lab(study, open_store(None if store is None else str(store)))


class Lab:
    """One study in one store.

    Args:
        study: the resolved study.
        store: where its runs are.
    """

    def __init__(self, study: Study, store: Store) -> None:
        self.study = study
        self.store = store
        self._finished: dict[str, RunRecord] = {}

    def plan(self, *, only: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> Plan:
        """Return the graph of runs as the store stands now: done, left, and what it will cost."""
        from ablab.plan.planning import make_plan

        return make_plan(self.study, self.store, only=only, seeds=seeds)

    def fetch(self, *, say: Callable[[str], None] | None = None, download: bool = True) -> list[Item]:
        """Download and verify what the study reads from outside the store; one item a file, set or model.

        What its checklist expects is held against what is found. Without `download` only what is here is looked at.
        """
        from ablab.audit.checks.prerequisites import references
        from ablab.audit.view import AuditView
        from ablab.store.fetch import fetch, write_checklist
        from ablab.store.hub import lock_path

        path = Path(self.study.path).resolve()
        found = references(AuditView(self.study))
        items = fetch(
            found,
            lock=lock_path(path),
            study_folder=path.parent,
            say=say,
            expected=self.study.checklist,
            download=download,
        )
        write_checklist(self.store.checklist(self.study.name, self.study.profile), items)
        return items

    def resolve(self, *, say: Callable[[str], None] | None = None) -> bool:
        """Pin hub names that the lock file lacks, as the cache on this machine or the hub has them.

        A name out of reach stays as it is; `say` hears of those that the hub refuses.

        Returns:
            Whether the lock file holds more than before.
        """
        from ablab.audit.checks.prerequisites import references
        from ablab.audit.view import AuditView
        from ablab.store.hub import extend_lock, lock_path, read_lock

        path, problems = lock_path(Path(self.study.path).resolve()), list[str]()
        before = read_lock(path)
        after = extend_lock(path, references(AuditView(self.study)), problems=problems)
        if say is not None:
            for problem in problems:
                say(problem)
        return after != before

    def check(self, *, probe: bool = False, say: Callable[[str], None] | None = None) -> list[Finding]:
        """Audit the study; with `probe`, first build each distinct configuration and run two steps of it."""
        from ablab.audit.engine import audit

        plan = self.plan()
        if probe:
            from ablab.launch.rehearsal import probe as run_probes

            run_probes(self.study, plan, self.store, say=say)
            plan = self.plan()
        return audit(self.study, plan=plan, store=self.store)

    def run(
        self,
        *,
        say: Callable[[str], None] | None = None,
        on_event: OnEvent | None = None,
        rewrite: float | None = 15.0,
        language: str = "en",
        **options: Any,
    ) -> LaunchSummary:
        """Run what is left of the study; its report is rewritten meanwhile.

        Args:
            say: called with each line a person would want to read.
            on_event: called with everything that happens, as data.
            rewrite: seconds between two writings of the report, at least; None writes none.
            language: of that report.
            **options: fields of `ablab.launch.options.Options` (only, seeds, devices, until, track, ...).
        """
        from ablab.analysis.history import keep_verdicts, path_of
        from ablab.launch.launcher import Options, launch
        from ablab.launch.notify import heard_by, listener, to_log
        from ablab.report.rewriting import Rewriter

        chosen = Options(**options)
        tell = say or (lambda _: None)
        warn = to_log if chosen.detach else tell
        notifier = listener(self.study, history=path_of(self.study, self.store), say=warn)

        if self.study.checklist and not self.store.checklist(self.study.name, self.study.profile).exists():
            self.fetch(download=False)

        def replan() -> Plan:
            return self.plan(only=chosen.only, seeds=chosen.seeds)

        plan = replan()
        if any(run.unresolved for run in plan.runs.values()) and self.resolve(say=tell):
            plan = replan()
        own = Lab(self.study, self.store)

        def write() -> None:
            own.forget()
            own.report(language=language)

        writer = Rewriter(write, every=rewrite)
        try:
            summary = launch(
                self.study,
                plan,
                self.store,
                chosen,
                report=tell,
                on_event=writer.beside(on_event if chosen.detach else heard_by(on_event, notifier)),
                behind=heard_by(writer.behind, notifier),
                replan=replan,
            )
        finally:
            writer.close()
        self.forget()
        if notifier is not None and not chosen.detach:
            keep_verdicts(self.store, self.study, self.verdicts)
            notifier.end()
        return summary

    @cached_property
    def results(self) -> Results:
        """Values, curves, times and facts of every arm and seed, from the store alone."""
        from ablab.analysis.collect import collect

        return collect(self.study, self.plan(), self.store, known=self._finished)

    @cached_property
    def verdicts(self) -> list[ComparisonVerdict]:
        """The verdict on each comparison."""
        from ablab.analysis.verdicts import judge

        return judge(self.study, self.results)

    def forget(self) -> None:
        """Read results and verdicts anew when they are asked for next; finished runs, which never change, stay read."""
        for name in ("results", "verdicts"):
            self.__dict__.pop(name, None)

    def table(self) -> list[dict[str, Any]]:
        """Return one row per experiment, seed and metric: for `pandas.DataFrame(lab.table())`."""
        return list(self.results.rows())

    def view(self, *, language: str = "en") -> View:
        """Gather everything a report is made from."""
        from ablab.analysis.history import read_history
        from ablab.audit.engine import audit
        from ablab.report.language import Translator
        from ablab.report.references import references_of
        from ablab.report.view import View, gather_launches, gather_notes

        plan = self.plan()
        return View(
            study=self.study,
            plan=plan,
            store=self.store,
            results=self.results,
            verdicts=self.verdicts,
            findings=audit(self.study, plan=plan, store=self.store),
            launches=gather_launches(self.store, self.study),
            written=time.time(),
            t=Translator(language),
            notes=gather_notes(self.store, self.study),
            history=read_history(self.study, self.store),
            references=references_of(self.study, self.store, problems=[]),
        )

    def report(self, path: str | Path | None = None, *, language: str = "en") -> Path:
        """Write the report as Markdown and HTML and return the path of the file a person opens.

        Each verdict that is new or has changed is kept with its date and seeds in verdicts.jsonl beside it.

        Args:
            path: where; None takes report.md and report.html of the study's folder in the store, and summary.json,
                summary.txt and logs/<experiment>.log beside them.
            language: en, ko or zh.
        """
        from ablab.analysis.history import keep_verdicts
        from ablab.report.writing import write, write_summary

        keep_verdicts(self.store, self.study, self.verdicts)
        view = self.view(language=language)
        if path is not None:
            return write(view, Path(path))
        folder = self.store.study_folder(self.study.name, self.study.profile)
        write_summary(view, folder)
        return write(view, folder / "report.html")
