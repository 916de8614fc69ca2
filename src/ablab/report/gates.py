"""Where the gates of a study stand, in the reader's language."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ablab.report.view import View


def gates(view: View, *, only: str = "") -> list[str]:
    """Return where each gate stands, or only those of one status."""
    t = view.t
    says = {
        "open": t("gate {arm}: no reference for {metric} here, so it holds nothing"),
        "waiting": t("gate {arm}: all else waits until {metric} is known; expected {expected} within {within} %"),
        "passed": t("gate {arm} passed: {metric} is {found}, expected {expected} within {within} %"),
        "held": t("gate {arm} missed, all else is held: {metric} is {found}, expected {expected} within {within} %"),
    }
    return [
        says[gate.status].format(
            arm=gate.experiment,
            metric=gate.metric,
            found="—" if gate.found is None else t.figure(gate.found),
            expected="—" if gate.expected is None else t.figure(gate.expected),
            within=f"{100 * gate.within:g}",
        )
        for gate in view.plan.gates
        if only in ("", gate.status)
    ]
