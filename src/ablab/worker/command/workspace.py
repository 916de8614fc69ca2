"""The folder a program runs in: `work/` of its run, with a copy of its frozen code and links to its data.

A folder of its own keeps what a program writes beside its script from every other run, and an edit of the script from
the one that is running. What is declared as output moves to `artifacts/` at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from ablab.contract.command import Command
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Order
from ablab.store.fingerprint import folder_files
from ablab.store.source import frozen_place

NAME = "work"
_PROGRAMS = (b"#!", b"\x7fELF")


class Workspace:
    """The working folder of a run and its artifacts.

    Args:
        order: the run's order.
        parameters: of its stage.
        run: the run folder.
        artifacts: {output}.
        fill: fills in the placeholders of a text.
    """

    def __init__(
        self, order: Order, parameters: Command, *, run: Path, artifacts: Path, fill: Callable[[str], str]
    ) -> None:
        self._order, self._parameters, self._fill = order, parameters, fill
        self._run = run
        self.output = artifacts
        self.folder = run / NAME

    @property
    def study(self) -> Path:
        """Folder of the study file."""
        return Path(self._order.study_folder or ".")

    def clear(self) -> None:
        """Remove what an earlier attempt wrote: a program that starts at zero must find nothing of it."""
        for folder in (self.folder, self.output):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)

    def lay_out(self) -> None:
        """Put the code and links to the data where the program looks for them.

        Raises:
            ConfigError: a code file is not in the frozen source.
            DataError: declared data are not there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self._parameters.code:
            self._copy(path)
        for path in self._parameters.data:
            self._link(path)

    def find(self, path: str) -> list[Path]:
        """Return the files a declared path means (it may hold *), those in {output} first."""
        text = self._fill(path)
        if Path(text).is_absolute():
            root, pattern = Path("/"), os.path.relpath(text, "/")
            return sorted(root.glob(pattern)) if "*" in text else [p for p in [Path(text)] if p.exists()]
        found: list[Path] = []
        for base in (self.output, self.folder):
            found += sorted(base.glob(text)) if "*" in text else [p for p in [base / text] if p.exists()]
        return found

    def newest(self, path: str) -> Path | None:
        """Return the newest file or folder a declared path means."""
        return max(self.find(path), key=lambda found: found.stat().st_mtime_ns, default=None)

    def collect(self, outputs: Iterable[str]) -> dict[str, str]:
        """Return the declared outputs by name, as paths below the run folder, all of them in {output}.

        Raises:
            DataError: outputs that are not there, all named.
        """
        found: dict[str, str] = {}
        missing = []
        for path in outputs:
            places = self.find(path)
            if not places:
                missing.append(path)
            for place in places:
                kept = self._moved(place)
                if kept.is_relative_to(self._run):
                    found[path if len(places) == 1 else kept.name] = kept.relative_to(self._run).as_posix()
        if missing:
            there = sorted(p.relative_to(self.output).as_posix() for p in self.output.rglob("*") if p.is_file())
            raise DataError(
                f"the program ended well but did not write {', '.join(missing)}, which the study declares as output; "
                f"in {{output}} there is: {', '.join(there[:10]) or 'nothing'}",
                missing=missing,
            )
        return found

    def tidy(self) -> None:
        """Remove the copies and links; what the program wrote beside them stays."""
        for path in (*self._parameters.code, *self._parameters.data):
            place = self.folder / path
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
        for folder in sorted((p for p in self.folder.rglob("*") if p.is_dir()), reverse=True):
            if folder.name == "__pycache__":
                shutil.rmtree(folder, ignore_errors=True)
            elif not any(folder.iterdir()):
                folder.rmdir()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _copy(self, path: str) -> None:
        own = Path(self.study, self._parameters.folder, path)
        source = own
        if self._order.source is not None:
            source = Path(self._order.source) / frozen_place(Path(self._parameters.folder, path), self.study)
        if not source.exists():
            raise ConfigError(f"{path}: no such code file in the frozen source ({source}); the study names it")
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            for file in folder_files(source):
                _copy_file(file, target / file.relative_to(source))
        else:
            _copy_file(source, target)

    def _link(self, path: str) -> None:
        source = Path(self.study, self._parameters.folder, path).resolve()
        if not source.exists():
            raise DataError(f"{path}: there is no {source}; the study names it as data", file=str(source))
        place = self.folder / path
        if Path(path).is_absolute() or place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(source)

    def _moved(self, place: Path) -> Path:
        """Return where an output is kept; one that stands in the working folder moves to {output}."""
        if not place.is_relative_to(self.folder):
            return place
        kept = self.output / place.relative_to(self.folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(place, kept)
        return kept


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # An earlier attempt's copy may have been changed by the program.
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    with source.open("rb") as file:
        if file.read(4).startswith(_PROGRAMS):
            target.chmod(0o755)
