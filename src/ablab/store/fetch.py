"""Brings what a study reads to this machine before any run, and says of each piece what was expected and found.

Files and bundled sets are checked where they are; names of the hub are resolved, locked and downloaded by
huggingface_hub, which resumes a broken download; then every file's size, and its checksum where the hub tells one, is
compared with what lies on disk.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ablab.contract.checklist import Expected
from ablab.contract.failure import AblabError, DataError
from ablab.contract.task import DataReference
from ablab.store.files import read_json, write_json
from ablab.store.fingerprint import bundled_fingerprint, bundled_folder, fingerprint
from ablab.store.hub import cached_revision, extend_lock, hub_cache, is_offline, lock_name, read_lock
from ablab.store.rows import count_rows

Status = Literal["present", "fetched", "other size", "missing", "gated", "damaged", "out of reach"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of data on the checklist.

    Args:
        kind: file, folder, bundled, dataset or model.
        expected: what the study or the hub says it is.
        found: what lies on this machine.
        remedy: what to do, where something is wrong.
        rows: rows of its tables, where they were counted.
        purpose: what it is for, as the checklist says.
        files: the files found; not for printing.
    """

    name: str
    kind: str
    status: Status
    expected: str = ""
    found: str = ""
    bytes: int = 0
    remedy: str = ""
    rows: int | None = None
    purpose: str = ""
    files: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Whether a run can read it."""
        return self.status in ("present", "fetched")


def fetch(
    references: Iterable[DataReference],
    *,
    lock: str | os.PathLike[str],
    study_folder: str | os.PathLike[str],
    say: Callable[[str], None] | None = None,
    expected: Iterable[Expected] = (),
    download: bool = True,
) -> list[Item]:
    """Fetch and verify data; one item a reference, problems among them rather than raised.

    Args:
        references: what is read.
        lock: the study's lock file; revisions that were not known are added.
        study_folder: where relative paths start.
        say: told of each download that begins.
        expected: the study's checklist; what of it no reference names is fetched too.
        download: False looks at what is here, and brings nothing.
    """
    entries = {(entry.kind, entry.name): entry for entry in expected}
    wanted = {(_kind(reference), reference.name): reference for reference in references}
    wanted = {**wanted, **{place: _reference(entry) for place, entry in entries.items() if place not in wanted}}
    found = []
    for place, reference in wanted.items():
        if reference.kind == "hub":
            item = _hub(reference, lock, say or (lambda _: None)) if download else _cached(reference, lock)
        elif reference.kind == "bundled":
            item = _bundled(reference)
        else:
            item = _file(reference, Path(study_folder))
        found.append(_compared(item, entries[place]) if place in entries else item)
    return found


def write_checklist(path: Path, items: Iterable[Item]) -> None:
    """Write what was expected and found, for the report; beside it when it was looked at."""
    rows = [{key: value for key, value in asdict(item).items() if key != "files"} | {"ok": item.ok} for item in items]
    write_json(path, {"format": 1, "time": time.time(), "items": rows})


def _kind(reference: DataReference) -> str:
    return reference.repository if reference.kind == "hub" else reference.kind


def _reference(entry: Expected) -> DataReference:
    """Return what a checklist entry names as a reference."""
    if entry.kind == "dataset" or entry.kind == "model":
        return DataReference(
            kind="hub",
            name=entry.name,
            path="checklist",
            revision=entry.revision,
            gated=entry.gated,
            repository=entry.kind,
        )
    return DataReference(kind=entry.kind, name=entry.name, path="checklist")


def _compared(item: Item, entry: Expected) -> Item:
    """Return an item beside what the checklist expects of it; another size is a status of its own."""
    expected = [item.expected] if item.expected else []
    expected += [f"{entry.rows:,} rows"] if entry.rows is not None else []
    expected += [f"{entry.bytes:,} bytes"] if entry.bytes is not None else []
    item = replace(item, expected=", ".join(expected), purpose=entry.purpose)
    if not item.ok:
        return item
    try:
        rows = count_rows(item.files) if entry.rows is not None else None
    except DataError as error:
        return replace(item, status="damaged", found=str(error), remedy="fetch again")
    found = [item.found] + ([f"{rows:,} rows"] if rows is not None else [])
    item = replace(item, rows=rows, found=", ".join(filter(None, found)))
    sizes = (("rows", entry.rows, rows), ("bytes", entry.bytes, item.bytes or None))
    wrong = [
        f"{name}: {got:,} instead of {want:,}"
        for name, want, got in sizes
        if want is not None and got is not None and abs(got - want) > entry.tolerance * want
    ]
    if not wrong:
        return item
    remedy = f"{'; '.join(wrong)}: is it the set that is meant? Correct the name or the checklist"
    return replace(item, status="other size", remedy=remedy)


def _file(reference: DataReference, folder: Path) -> Item:
    path = Path(folder, Path(reference.name).expanduser())
    try:
        digest = fingerprint(path)
    except DataError as error:
        remedy = f"put it at {path}, or correct the path"
        return Item(name=reference.name, kind=reference.kind, status="missing", found=str(error), remedy=remedy)
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    size = sum(one.stat().st_size for one in files)
    found = f"sha256:{digest[:16]}"
    return Item(
        name=reference.name, kind=reference.kind, status="present", found=found, bytes=size, files=tuple(sorted(files))
    )


def _bundled(reference: DataReference) -> Item:
    try:
        digest = bundled_fingerprint(reference.name)
    except AblabError as error:
        return Item(name=reference.name, kind="bundled", status="damaged", found=str(error), remedy="reinstall ablab")
    listed = read_json(bundled_folder(reference.name) / "SOURCE.json").get("files", {})
    files = tuple(bundled_folder(reference.name) / name for name in sorted(listed))
    size = sum(file.stat().st_size for file in files)
    found = f"sha256:{digest[:16]}"
    return Item(name=reference.name, kind="bundled", status="present", found=found, bytes=size, files=files)


def _hub(reference: DataReference, lock: str | os.PathLike[str], say: Callable[[str], None]) -> Item:
    problems: list[str] = []
    known = extend_lock(lock, [reference], problems=problems)
    revision = known.get(lock_name(reference)) or cached_revision(reference) or reference.revision
    if problems or revision is None:
        return _refused(reference, problems)
    try:
        return _download(reference, revision, say)
    except ImportError:
        remedy = "pip install ablab[hub]"
        return _item(reference, "out of reach", expected=revision, found="huggingface_hub is missing", remedy=remedy)
    except DataError as error:
        return _item(reference, "damaged", expected=revision, found=str(error), remedy="fetch again")
    except Exception as error:  # the library lets through errors of whichever HTTP client it uses
        gated = type(error).__name__ == "GatedRepoError"
        remedy = _TOKEN if gated else "what was fetched stays: fetch again when the hub can be reached"
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        return _item(reference, "gated" if gated else "out of reach", expected=revision, found=found, remedy=remedy)


def _cached(reference: DataReference, lock: str | os.PathLike[str]) -> Item:
    """Return what the hub's cache on this machine holds of a reference; nobody is asked."""
    revision = read_lock(lock).get(lock_name(reference)) or cached_revision(reference) or reference.revision
    folder = hub_cache() / f"{reference.repository}s--{reference.name.replace('/', '--')}" / "snapshots"
    if revision is None or not (folder / revision).is_dir():
        return _item(reference, "missing", expected=revision or "", found="not in the cache", remedy="ablab fetch")
    item = _item(reference, "present", expected=revision[:12], found="in the cache, not verified")
    return _with_files(item, folder / revision)


def _with_files(item: Item, folder: Path) -> Item:
    files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
    return replace(item, files=files, bytes=item.bytes or sum(path.stat().st_size for path in files))


_TOKEN = "accept its licence on the hub, and set HF_TOKEN (a file .env beside the study will do)"


def _refused(reference: DataReference, problems: list[str]) -> Item:
    found = problems[0] if problems else "its revision is not known here, and the hub cannot be reached"
    if "gated" in found:
        token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "no token is set"
        return _item(reference, "gated", found=f"{found} ({token})", remedy=_TOKEN)
    if problems:
        return _item(reference, "missing", found=found, remedy="correct the name, or set HF_TOKEN for a private one")
    remedy = "unset HF_HUB_OFFLINE" if is_offline() else "fetch again when the hub can be reached"
    return _item(reference, "out of reach", found=found, remedy=remedy)


def _item(
    reference: DataReference, status: Status, *, expected: str = "", found: str = "", size: int = 0, remedy: str = ""
) -> Item:
    return Item(
        name=reference.name,
        kind=reference.repository,
        status=status,
        expected=expected,
        found=found,
        bytes=size,
        remedy=remedy,
    )


def _download(reference: DataReference, revision: str, say: Callable[[str], None]) -> Item:
    """Download a snapshot, resuming what is there, and compare each file with what the hub says of it."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        local = snapshot_download(
            reference.name, repo_type=reference.repository, revision=revision, local_files_only=True
        )
    except LocalEntryNotFoundError:
        local = None
    if is_offline():
        if local is None:
            raise FileNotFoundError("not in the cache, and HF_HUB_OFFLINE forbids asking the hub")
        found = "in the cache, not verified: HF_HUB_OFFLINE is set"
        return _with_files(_item(reference, "present", expected=revision, found=found), Path(local))
    info = HfApi().repo_info(reference.name, repo_type=reference.repository, revision=revision, files_metadata=True)
    siblings = list(getattr(info, "siblings", None) or [])
    wanted = sum(int(sibling.size or 0) for sibling in siblings)
    expected = f"{revision[:12]}, {len(siblings)} files, {wanted:,} bytes"
    wrong = list(_wrong(Path(local), siblings)) if local is not None else ["nothing"]
    if wrong:
        say(f"fetching {reference.repository} {reference.name}: {expected}")
        # A file that is whole by its size and wrong by its sum would be taken as it is.
        damaged = local is not None and any("sha256" in text for text in wrong)
        local = snapshot_download(
            reference.name, repo_type=reference.repository, revision=revision, force_download=damaged
        )
        wrong_now = list(_wrong(Path(local), siblings))
        if wrong_now:
            raise DataError("; ".join(wrong_now[:3]), name=reference.name)
    status: Status = "fetched" if wrong else "present"
    found = f"{len(siblings)} files, {wanted:,} bytes, verified"
    return _with_files(_item(reference, status, expected=expected, found=found, size=wanted), Path(str(local)))


def _wrong(folder: Path, siblings: Iterable[Any]) -> Iterator[str]:
    """Yield what of a snapshot is missing or other than the hub says."""
    for sibling in siblings:
        path = folder / sibling.rfilename
        if not path.is_file():
            yield f"{sibling.rfilename} is missing"
        elif sibling.size is not None and path.stat().st_size != sibling.size:
            yield f"{sibling.rfilename} has {path.stat().st_size:,} bytes, expected {sibling.size:,}"
        elif (wanted := _sha256(sibling)) is not None and _sum(path) != wanted:
            yield f"{sibling.rfilename} has another sha256 than {wanted[:12]}"


def _sha256(sibling: Any) -> str | None:
    lfs = sibling.lfs
    found = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return found if isinstance(found, str) else None


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
