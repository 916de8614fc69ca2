"""What an audit says."""

from __future__ import annotations

from typing import Any, Literal

from ablab.contract.base import Strict, setting

Severity = Literal["error", "warning", "note"]


class Finding(Strict):
    """One statement of an audit about a study, a comparison or a run.

    A finding with `checked=False` says that a fact was missing ("not checked; run check --probe"); it is never left
    out, so that silence means soundness.
    """

    id: str = setting(..., "Stable name in kebab case, for example learning-rate-differs.")
    severity: Severity = setting(..., "error stops a launch; warning and note are carried by the report.")
    where: str = setting(..., "Study path or run the finding is about, for example comparisons[0].variants[1].")
    message: str = setting(..., "One sentence: what was found and what was expected.")
    evidence: dict[str, Any] = setting(default_factory=dict, description="The values behind the message.")
    remedy: str = setting("", "What to do about it.")
    subjects: tuple[str, ...] = setting((), "Experiments or comparisons concerned.")
    checked: bool = setting(True, "False when a needed fact was missing.")
    accepted: str | None = setting(None, "Reason given in the study's `accept:` when the author accepts the finding.")
    line: int | None = setting(None, "Line of the study file, where known.")
