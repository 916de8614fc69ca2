"""Data sets of the hub through the `datasets` library, downloaded once or streamed; the same code reads local folders.

A name is a hub id ("roneneldan/TinyStories") or a local folder of JSONL, parquet or arrow files in the hub's layout
(`train.jsonl`, `validation.parquet`, ...). Where HF_HUB_OFFLINE is set, the copy that `ablab fetch` left in the hub's
cache is read; the library itself would only find what it had read before.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ablab.contract.failure import ConfigError
from ablab.contract.task import DataReference
from ablab.data.documents import Document, check_text, corrupt, nearest_fields
from ablab.store.hub import cached_revision, hub_cache, is_offline

_ROWS = 1024
_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})(\..*)")
_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """A data set of the hub.

    Args:
        name: hub id or local folder.
        subset: its configuration; None takes the only one.
        revision: commit of the repository; None takes the newest.
        cache: folder for downloads; None takes the library's own.
    """

    name: str
    subset: str | None = None
    revision: str | None = None
    cache: str | None = None

    def splits(self) -> tuple[str, ...]:
        """Return the names of its own splits.

        Raises:
            DataError: the hub cannot be reached, or knows no such data set.
            ConfigError: the `datasets` library is not installed.
        """
        library = _library()
        with self._explained():
            names: list[str] = self._asked(
                lambda place: library.get_dataset_split_names(place, self.subset, revision=self.revision)
            )
        return tuple(names)

    def read(self, split: str, *, field: str = "text", streaming: bool = False) -> Iterator[Document]:
        """Yield the texts of one split; rows count from 1.

        Args:
            split: one of its own splits.
            field: column that holds the text.
            streaming: read over the network without keeping a copy, for those who need the first rows only.

        Raises:
            DataError: the hub cannot be reached, the column is missing, a value is null or no string.
            ConfigError: the `datasets` library is not installed.
        """
        place = f"{self.name}/{split}"
        for row, values in self.rows(split, streaming=streaming):
            if field not in values:
                corrupt(place, None, f"no column {field!r}; {nearest_fields(field, values)}", "set text_field")
            yield Document(check_text(values[field], file=place, row=row, field=field, unit="row"), place, row)

    def rows(
        self,
        split: str,
        *,
        streaming: bool = False,
        images: Literal["decoded", "encoded", "none"] = "decoded",
        batch: int = _ROWS,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (number from 1, row) of one split, all columns.

        Args:
            split: one of its own splits.
            streaming: read over the network without keeping a copy.
            images: columns of images as PIL images, as {"bytes", "path"}, or left out.
            batch: rows read at once.

        Raises:
            DataError: the hub cannot be reached.
            ConfigError: the `datasets` library is not installed.
        """
        library = _library()
        with self._explained(split=split):
            rows = self._asked(
                lambda place: library.load_dataset(
                    place,
                    self.subset,
                    split=split,
                    revision=self.revision,
                    streaming=streaming,
                    cache_dir=self.cache,
                )
            )
            rows = _with_images(rows, images)
        row = 0
        batches = iter(rows.iter(batch_size=batch))
        while True:
            with self._explained(split=split, row=row):
                columns: dict[str, list[Any]] | None = next(batches, None)
            if columns is None:
                return
            for values in zip(*columns.values(), strict=True):
                row += 1
                yield row, dict(zip(columns, values, strict=True))

    def _asked(self, ask: Callable[[str], _Found]) -> _Found:
        """Return what the library says of the name, or of its snapshot where the hub may not be asked."""
        snapshot = self._snapshot() if is_offline() else None
        if snapshot is not None:
            # A snapshot without its tables is one of a set that was read online, of which the library has a copy.
            with contextlib.suppress(FileNotFoundError):
                return ask(str(snapshot))
        return ask(self.name)

    def _snapshot(self) -> Path | None:
        """Return the folder of this revision in the hub's cache, or None.

        Raises:
            DataError: some shards of a table are missing: fewer rows would be read, and nobody told.
        """
        reference = DataReference(kind="hub", name=self.name, revision=self.revision)
        revision = cached_revision(reference) or self.revision
        folder = hub_cache() / f"datasets--{self.name.replace('/', '--')}" / "snapshots" / (revision or "")
        if revision is None or not folder.is_dir():
            return None
        shards: dict[tuple[str, str, str], int] = {}
        for path in folder.rglob("*-of-*"):
            if path.is_file() and (parts := _SHARD.fullmatch(path.relative_to(folder).as_posix())) is not None:
                name, count, suffix = parts.groups()
                shards[name, count, suffix] = shards.get((name, count, suffix), 0) + 1
        for (name, count, suffix), found in sorted(shards.items()):
            if found < int(count):
                message = f"the hub's cache holds {found} of {int(count)} files of {name}{suffix}"
                corrupt(self.name, None, message, "run `ablab fetch` where there is a network")
        return folder

    @contextlib.contextmanager
    def _explained(self, *, split: str | None = None, row: int = 0) -> Iterator[None]:
        """Turn what the library raises into one line that says what to do."""
        from datasets.exceptions import DatasetNotFoundError, DatasetsError

        place = self.name if split is None else f"{self.name}/{split}"
        try:
            yield
        except DatasetNotFoundError as error:
            corrupt(
                place,
                None,
                f"the hub shows no such data set ({_first_line(error)})",
                "check the name; for a private or gated one accept its terms and set HF_TOKEN",
            )
        except ConnectionError as error:
            corrupt(
                place,
                None,
                f"the hub cannot be reached ({_first_line(error)})",
                "run the prepare stage once where there is a network, or `ablab fetch` there and set HF_HUB_OFFLINE=1 "
                "(HF_HOME says where the copy lies, HF_ENDPOINT names a mirror), or read local copies with source: "
                "files",
            )
        except FileNotFoundError as error:
            corrupt(place, None, _first_line(error), "check the name")
        except (DatasetsError, ValueError, OSError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            after = f" after row {row}" if row else ""
            corrupt(place, None, f"cannot be read{after} ({_first_line(cause)})", "check the data set")


def _with_images(rows: Any, images: str) -> Any:
    """Return the rows with their columns of images, or of lists of images, decoded, encoded or left out."""
    if images == "decoded":
        return rows
    import datasets

    for name, kind in list((rows.features or {}).items()):
        several = isinstance(kind, datasets.List) and isinstance(kind.feature, datasets.Image)
        if not several and not isinstance(kind, datasets.Image):
            continue
        if images == "none":
            rows = rows.remove_columns(name)
        else:
            encoded = datasets.Image(decode=False)
            rows = rows.cast_column(name, datasets.List(encoded) if several else encoded)
    return rows


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "reading a hub data set needs the `datasets` library: pip install 'ablab[hub]'", missing="datasets"
        ) from error
    datasets.disable_progress_bars()
    return datasets


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
