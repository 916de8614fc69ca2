"""Prerequisites: every missing file, gated model and absent token of all arms, at once.

The network is not asked here: a hub name is fine when the lock file knows its revision or the cache holds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ablab.audit.findings import finding, listed
from ablab.audit.training import lineage
from ablab.audit.view import AuditView
from ablab.contract.failure import AblabError
from ablab.contract.finding import Finding
from ablab.contract.task import DataReference
from ablab.store.hub import cached_revision, is_offline, lock_name, lock_path, read_lock

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def references(view: AuditView) -> dict[DataReference, list[str]]:
    """Return every reference to data outside the store, with the experiments that read it; planned arms left out."""
    found: dict[DataReference, list[str]] = {}
    for experiment in view.study.experiments.values():
        if experiment.planned:
            continue
        for _, stage in lineage(view.study, experiment):
            if stage.spec.references is None:
                continue
            for reference in stage.spec.references(stage.sections, stage.parameters):
                users = found.setdefault(reference, [])
                if experiment.name not in users:
                    users.append(experiment.name)
    return found


def missing_files(view: AuditView) -> Iterable[Finding]:
    """Errors: files and folders that are not there."""
    folder = Path(view.study.path).resolve().parent if view.study.path else Path.cwd()
    for reference, users in references(view).items():
        path = folder / Path(reference.name).expanduser()
        if reference.kind not in ("file", "folder") or path.exists():
            continue
        yield finding(
            view,
            "missing-file",
            "error",
            _where(reference, users),
            f"{reference.path or 'a reference'}: the {reference.kind} {reference.name} does not exist "
            f"(read by {listed(users)})",
            remedy=f"put it at {path}, or correct the path",
            evidence={"path": str(path)},
            subjects=tuple(users),
        )


def missing_bundled(view: AuditView) -> Iterable[Finding]:
    """Errors: names of bundled data that do not ship with this package."""
    from ablab.store.hub import resolve

    for reference, users in references(view).items():
        if reference.kind != "bundled":
            continue
        try:
            resolve(reference, {})
        except AblabError as error:
            yield finding(
                view,
                "missing-bundled",
                "error",
                _where(reference, users),
                f"{error} (read by {listed(users)})",
                subjects=tuple(users),
            )


def hub(view: AuditView) -> Iterable[Finding]:
    """Errors: gated names without a token, names that cannot be had offline; warnings: names not resolved yet."""
    lock = _lock(view)
    token = any(os.environ.get(name) for name in _TOKENS) or _saved_token()
    for reference, users in references(view).items():
        if reference.kind != "hub":
            continue
        cached = cached_revision(reference) is not None
        if reference.gated and not token and not cached:
            yield finding(
                view,
                "gated-without-token",
                "error",
                _where(reference, users),
                f"{reference.name} is gated and no token is set (read by {listed(users)})",
                remedy="accept its licence on the hub and set HF_TOKEN",
                subjects=tuple(users),
            )
        if cached:
            continue
        known = lock_name(reference) in lock
        if is_offline():
            yield finding(
                view,
                "hub-offline",
                "error",
                _where(reference, users),
                f"{reference.name} is not in the cache and HF_HUB_OFFLINE forbids asking the hub "
                f"(read by {listed(users)})",
                remedy="unset HF_HUB_OFFLINE, or copy the cache of a machine that has it",
                subjects=tuple(users),
            )
        elif not known:
            yield finding(
                view,
                "hub-unresolved",
                "warning",
                _where(reference, users),
                f"{reference.name} is not in the cache and its revision is not locked: it will be fetched by "
                f"{listed(users)}, which needs the network",
                remedy="run where the hub can be reached once; the lock file then pins the revision",
                evidence={"name": reference.name, "lock": str(lock_path(view.study.path)) if view.study.path else ""},
                subjects=tuple(users),
            )


def _lock(view: AuditView) -> dict[str, str]:
    if not view.study.path:
        return {}
    try:
        return read_lock(lock_path(view.study.path))
    except AblabError:
        return {}


def _saved_token() -> bool:
    """Whether a login left a token file where huggingface_hub looks for it; the token itself is not read."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    path = os.environ.get("HF_TOKEN_PATH") or str(Path(home) / "token")
    return Path(path).expanduser().is_file()


def _where(reference: DataReference, users: list[str]) -> str:
    return f"experiments.{users[0]}.{reference.path}" if reference.path else f"experiments.{users[0]}"


CHECKS = (missing_files, missing_bundled, hub)
