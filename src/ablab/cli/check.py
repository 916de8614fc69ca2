"""`ablab check`: is the study sound, before it costs anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablab.cli.common import (
    JsonOption,
    OverrideArgument,
    ProfileOption,
    QuickOption,
    StoreOption,
    StudyArgument,
    open_lab,
    print_json,
    say,
)

if TYPE_CHECKING:
    from ablab.contract.finding import Finding
    from ablab.study.schema import Study


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("check")(check)


def check(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Build each distinct configuration and run two steps of it.")
    ] = False,
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Audit a study: schema, isolation of each comparison, missing data, and what only running can tell (--probe).

    Exit code 1 when a finding is an error, 2 when the study file itself is wrong.
    """
    lab = open_lab(study, overrides, profile=profile, store=store, quick=quick)
    findings = lab.check(probe=probe, say=None if as_json else say)
    differences = list(comparison_differences(lab.study))
    errors = [finding for finding in findings if finding.severity == "error" and not finding.accepted]
    if as_json:
        print_json({"study": lab.study.name, "profile": profile, "findings": findings, "differences": differences})
    else:
        _print_differences(differences)
        print_findings(findings)
    raise typer.Exit(1 if errors else 0)


def comparison_differences(study: Study) -> list[dict[str, Any]]:
    """Return, for every variant of every comparison, in what its configuration differs from its baseline."""
    from ablab.study.differences import covers, differences

    rows = []
    for comparison in study.comparisons:
        baseline = study.experiments[comparison.baseline]
        for name in comparison.arms[1:]:
            found = differences(baseline, study.experiments[name])
            rows.append(
                {
                    "comparison": comparison.name,
                    "baseline": comparison.baseline,
                    "variant": name,
                    "control": name in (*comparison.fail_controls, *comparison.pass_controls),
                    "differences": [
                        {
                            "path": path,
                            "baseline": ours,
                            "variant": theirs,
                            "declared": "factor"
                            if covers(study, comparison.factor, path)
                            else "also"
                            if covers(study, comparison.also, path)
                            else None,
                        }
                        for path, (ours, theirs) in found.items()
                    ],
                }
            )
    return rows


def _print_differences(rows: Sequence[dict[str, Any]]) -> None:
    marks = {"factor": "  (under test)", "also": "  (declared)"}
    for row in rows:
        # A control may differ in what it likes: it is not judged against the baseline, it shows that judging works.
        control = "control " if row["control"] else ""
        unmarked = "" if row["control"] else "  (NOT DECLARED)"
        say(f"{row['comparison']}: {control}{row['variant']} against {row['baseline']}")
        if not row["differences"]:
            say("    no difference")
        for item in row["differences"]:
            say(f"    {item['path']}: {item['baseline']} -> {item['variant']}{marks.get(item['declared'], unmarked)}")


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings, the worst first, with remedy."""
    order = {"error": 0, "warning": 1, "note": 2}
    for finding in sorted(findings, key=lambda item: (item.accepted is not None, order[item.severity])):
        unchecked = f"not checked; {finding.remedy}"
        label = "accepted" if finding.accepted else finding.severity if finding.checked else unchecked
        place = f" (line {finding.line})" if finding.line else ""
        say(f"{label}: {finding.id}: {finding.message} [{finding.where}{place}]")
        if finding.accepted:
            say(f"    accepted: {finding.accepted}")
        elif finding.remedy and finding.checked:
            say(f"    {finding.remedy}")
    levels = Counter(f.severity if f.checked else "unchecked" for f in findings if not f.accepted)
    told = [f"{levels[level]} {level}{'' if levels[level] == 1 else 's'}" for level in order]
    say(", ".join([*told, *([f"{levels['unchecked']} not checked"] if levels["unchecked"] else [])]))
