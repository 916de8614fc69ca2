"""Profiles: named overlays of a study, merged over its text before anything is resolved.

Mappings merge, lists replace. An experiment set to null is removed, with its references.
"""

from __future__ import annotations

from ablab.study.document import NOT_IN_PROFILE, StudyFile
from ablab.study.merging import Merger, replaced, without
from ablab.study.problems import Mark, Problems, listed, nearest, shown
from ablab.study.yaml12 import Block

FULL = "full"


def with_profile(
    document: Block, profile: str, root: Mark, *, merger: Merger, problems: Problems
) -> tuple[Block, tuple[str, ...]]:
    """Return the document with a profile on top, and the names of all profiles; problems are noted."""
    place = document.marks.get("profiles", root)
    profiles = document.get("profiles")
    if profiles is None:
        profiles = Block()
    if not isinstance(profiles, Block):
        problems.add(place, f"expected a mapping of profiles by name, found {shown(profiles)}")
        return document, (FULL,)
    names = tuple(dict.fromkeys((FULL, *profiles)))
    for name, overlay in profiles.items():
        _check(name, overlay, profiles.marks[name], problems)
    if profile not in names:
        problems.add(place, f"no profile is called {profile!r}; profiles: {listed(names)}", nearest(profile, names))
    overlay = profiles.get(profile)
    if not isinstance(overlay, Block):
        return document, names
    return _merged(document, without(overlay, NOT_IN_PROFILE), merger), names


def _check(name: str, overlay: object, mark: Mark, problems: Problems) -> None:
    """Check the keys of a profile, whether or not it is the one in use."""
    if overlay is None:
        return
    if not isinstance(overlay, Block):
        problems.add(mark, f"expected a mapping, shaped like the study, found {shown(overlay)}")
        return
    valid = [key for key in StudyFile.model_fields if key not in NOT_IN_PROFILE]
    for key in overlay:
        if key in NOT_IN_PROFILE:
            problems.add(overlay.marks[key], f"a profile cannot change {key!r}")
        elif key not in valid:
            known = f"known here: {listed(valid, limit=30)}"
            problems.add(overlay.marks[key], f"unknown key {key!r}; {known}", nearest(key, valid))


def _merged(document: Block, overlay: Block, merger: Merger) -> Block:
    """Merge a profile, and take out the experiments it sets to null."""
    experiments, changes = document.get("experiments"), overlay.get("experiments")
    merged = merger.merge(document, overlay)
    if not isinstance(experiments, Block) or not isinstance(changes, Block):
        return merged
    removed = frozenset(name for name, entry in changes.items() if entry is None and name in experiments)
    if not removed:
        return merged
    for key in ("experiments", "references"):
        entries = merged.get(key)
        if isinstance(entries, Block):
            merged = replaced(merged, key, without(entries, removed), merged.marks[key])
    return merged
