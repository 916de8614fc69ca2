"""Sets of conversations as the prepare stage leaves them: rows with an index, so that any row is read on its own.

artifacts/sets/<name>/ holds rows.jsonl (LLaVA's format), index.npy (int64 (rows + 1,) offsets), images.npy and
characters.npy (int32 (rows,)), and set.json. Rows that were left out are named in skipped.jsonl.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ablab.contract.failure import ConfigError, DataError
from ablab.contract.seeds import stream_seed
from ablab.data.conversations import Conversation, parse, read_rows
from ablab.data.images import ImageSource
from ablab.store.files import read_json, write_json

#: Folder of the sets and of the generated questions below a prepare run's artifacts.
SETS, QUESTIONS, TOKENIZER = "sets", "questions", "tokenizer"
#: The same rows are held out, or left out of a part of a set, whatever the seed of a run is.
_DIVISION = 2357


def write_set(
    folder: Path,
    files: Iterable[Path],
    *,
    images: ImageSource | None,
    place: str | None,
    max_skipped: int = 0,
    open_images: bool = False,
    limit: int | None = None,
    language: str = "",
    between: Callable[[int], None] = lambda rows: None,
) -> dict[str, int]:
    """Check the rows of files and write them with an index; return counts.

    Args:
        folder: of the set.
        files: in LLaVA's format.
        images: pictures that rows name; None where rows must not name any.
        place: how the set's readers find the pictures (relative to the artifacts, or to the study).
        max_skipped: damaged rows that are left out before it is an error.
        open_images: decode every picture now.
        limit: rows read.
        language: of rows that do not say theirs.
        between: called with the rows done, now and then; may raise to stop.

    Raises:
        DataError: more rows than `max_skipped` are damaged; the message is that of the first beyond.
    """
    folder.mkdir(parents=True, exist_ok=True)
    offsets, pictures, characters = [0], [], []
    languages: dict[str, int] = {}
    spoken: list[int] = []
    skipped: list[dict[str, Any]] = []
    with (folder / "rows.jsonl").open("wb") as file:
        for path, number, row in _rows(files, limit):
            try:
                conversation = parse(row, file=str(path), number=number)
                check_images(conversation, images, file=str(path), opened=open_images)
            except DataError as error:
                if len(skipped) >= max_skipped:
                    raise _too_many(error, skipped, max_skipped) from error
                skipped.append({"file": str(path), "row": number, "reason": str(error)})
                continue
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
            pictures.append(len(conversation.images))
            characters.append(sum(len(turn.text) for turn in conversation.turns))
            spoken.append(languages.setdefault(conversation.language or language, len(languages)))
            if len(pictures) % 1000 == 0:
                between(len(pictures))
    np.save(folder / "index.npy", np.array(offsets, np.int64))
    np.save(folder / "images.npy", np.array(pictures, np.int32))
    np.save(folder / "characters.npy", np.array(characters, np.int32))
    np.save(folder / "languages.npy", np.array(spoken, np.int16))
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in skipped)
    (folder / "skipped.jsonl").write_text(lines, encoding="utf-8")
    counts = {"rows": len(pictures), "images": int(sum(pictures)), "skipped": len(skipped)}
    write_json(folder / "set.json", {"format": 1, "pictures": place, "languages": list(languages), **counts})
    return counts


def _rows(files: Iterable[Path], limit: int | None) -> Iterator[tuple[Path, int, Any]]:
    done = 0
    for path in files:
        for number, row in read_rows(path):
            if limit is not None and done >= limit:
                return
            done += 1
            yield path, number, row


def _too_many(error: DataError, skipped: list[dict[str, Any]], limit: int) -> DataError:
    more = f" ({len(skipped)} rows were left out before it; data.max_skipped is {limit})" if skipped else ""
    hint = "" if skipped else "; correct the row, or allow some to be left out: data.max_skipped"
    return DataError(f"{error}{more}{hint}", **error.detail)


def check_images(conversation: Conversation, images: ImageSource | None, *, file: str, opened: bool) -> None:
    """Raise DataError, with file and row, for a picture of a conversation that is missing or broken."""
    for name in conversation.images:
        if images is None:
            reason = f"names the image {name!r}, but the set has no `images`"
        elif name not in images:
            reason = f"the image {name!r} is not in {images.root}"
        elif opened and (problem := _broken(images, name)):
            reason = problem
        else:
            continue
        raise DataError(f"{file} row {conversation.row}: {reason}", file=file, row=conversation.row, image=name)


def _broken(images: ImageSource, name: str) -> str:
    try:
        images.open(name)
    except DataError as error:
        return str(error)
    return ""


class RowSet:
    """A set that a prepare stage wrote.

    Args:
        folder: of the set.
        artifacts: of the prepare run; pictures of generated sets lie below.
        study_folder: where relative places of pictures of one's own start.
    """

    def __init__(self, folder: Path, *, artifacts: Path, study_folder: str | None) -> None:
        self.name, self._folder = folder.name, folder
        self._artifacts, self._study = artifacts, study_folder
        try:
            self._info: Mapping[str, Any] = read_json(folder / "set.json")
            self._offsets = np.load(folder / "index.npy", mmap_mode="r")
            self.images = np.load(folder / "images.npy")
            self.characters = np.load(folder / "characters.npy")
            self._spoken = np.load(folder / "languages.npy")
            self._file = io.FileIO(folder / "rows.jsonl")
        except OSError as error:
            raise DataError(
                f"{folder}: no prepared set ({error.strerror}); prepare it again", file=str(folder)
            ) from error

    def __len__(self) -> int:
        return len(self.images)

    def raw(self, row: int) -> dict[str, Any]:
        """Return a row as it was read."""
        start, stop = int(self._offsets[row]), int(self._offsets[row + 1])
        found: dict[str, Any] = json.loads(os.pread(self._file.fileno(), stop - start, start))
        return found

    def conversation(self, row: int) -> Conversation:
        """Return a row; its number counts from 1 in rows.jsonl."""
        return parse(self.raw(row), file=str(self._folder / "rows.jsonl"), number=row + 1)

    @cached_property
    def source(self) -> ImageSource:
        """The set's pictures."""
        place = self._info.get("pictures")
        if place is None:
            raise DataError(f"{self._folder}: the set has no images", file=str(self._folder))
        inside = self._artifacts / place
        return ImageSource(inside if inside.exists() else Path(self._study or ".", Path(place).expanduser()))

    def language(self, row: int) -> str:
        """Return the language of a row; empty where neither it nor its set says one."""
        return str(self._info["languages"][int(self._spoken[row])])

    def spoken(self, language: str) -> np.ndarray:
        """Return which rows are in a language, bool (rows,)."""
        names = list(self._info["languages"])
        number = names.index(language) if language in names else -1
        found: np.ndarray = self._spoken == number
        return found

    @property
    def skipped(self) -> int:
        """Rows that were left out as damaged."""
        return int(self._info["skipped"])


class Mixture:
    """Rows of several sets as one list: each as often as its share says, held-out rows left out or alone.

    Args:
        sets: by name.
        shares: how often each is in the list; a fraction takes a seeded part.
        held_out: rows kept apart.
        part: whether the list is what trains, or what is held out.
        languages: share of each language among what trains, met exactly by leaving rows out; none takes all rows.

    Raises:
        ConfigError: a language that no row has.
    """

    def __init__(
        self,
        sets: Mapping[str, RowSet],
        shares: Mapping[str, float],
        *,
        held_out: int = 0,
        part: str = "train",
        languages: Mapping[str, float] | None = None,
    ) -> None:
        self.sets = [sets[name] for name in shares]
        places = [_part(len(one), shares[one.name], one.name) for one in self.sets]
        self.which = np.concatenate([np.full(len(rows), i, np.int32) for i, rows in enumerate(places)])
        self.rows = np.concatenate(places).astype(np.int64)
        if held_out:
            apart = self._apart(held_out)
            kept = apart if part == "val" else ~apart
            self.which, self.rows = self.which[kept], self.rows[kept]
        if languages and part == "train":
            chosen = self._balanced(languages)
            self.which, self.rows = self.which[chosen], self.rows[chosen]
        self.images = self._gather([one.images for one in self.sets])
        self.characters = self._gather([one.characters for one in self.sets])

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, sample: int) -> tuple[RowSet, int]:
        """Return the set and the row of a sample."""
        return self.sets[int(self.which[sample])], int(self.rows[sample])

    def _apart(self, count: int) -> np.ndarray:
        """Tell which samples are held out: those of chosen rows, however often these are in the list."""
        generator = np.random.default_rng(stream_seed(_DIVISION, "split/held-out"))
        keys = np.unique(np.stack([self.which.astype(np.int64), self.rows], axis=1), axis=0)
        if count >= len(keys):
            raise ConfigError(f"data.held_out {count} leaves nothing of {len(keys)} rows to train on; lower it")
        chosen = keys[generator.permutation(len(keys))[:count]]
        known = {(int(which), int(row)) for which, row in chosen}
        return np.array([(int(w), int(r)) in known for w, r in zip(self.which, self.rows, strict=True)])

    def _balanced(self, languages: Mapping[str, float]) -> np.ndarray:
        """Return the places of the samples that stay: as many as can be with these shares, a seeded choice of each."""
        spoken = {name: np.flatnonzero(self._gather([one.spoken(name) for one in self.sets])) for name in languages}
        for name, found in spoken.items():
            if not len(found):
                sets = ", ".join(one.name for one in self.sets)
                raise ConfigError(
                    f"languages: no row of {sets} is in {name!r}; rows say `language`, or data.sets.NAME.language does"
                )
        total = min(len(spoken[name]) / share for name, share in languages.items())
        chosen = []
        for name, found in spoken.items():
            generator = np.random.default_rng(stream_seed(_DIVISION, f"split/language/{name}"))
            chosen.append(generator.permutation(found)[: round(total * languages[name])])
        return np.sort(np.concatenate(chosen))

    def _gather(self, values: list[np.ndarray]) -> np.ndarray:
        found = np.zeros(len(self.rows), np.int64)
        for index, array in enumerate(values):
            own = self.which == index
            found[own] = array[self.rows[own]]
        return found


def _part(rows: int, share: float, name: str) -> np.ndarray:
    """Return row numbers: all of them as often as the whole part of the share, and a seeded part of them."""
    whole, rest = int(share), share - int(share)
    order = np.random.default_rng(stream_seed(_DIVISION, f"split/part/{name}")).permutation(rows)
    return np.concatenate([*[np.arange(rows)] * whole, np.sort(order[: round(rest * rows)])])


def open_sets(artifacts: Path, names: Iterable[str], *, study_folder: str | None) -> dict[str, RowSet]:
    """Return sets by name."""
    return {name: RowSet(artifacts / SETS / name, artifacts=artifacts, study_folder=study_folder) for name in names}


def phase_mixture(
    sets: Callable[[Iterable[str]], dict[str, RowSet]],
    shares: Mapping[str, float],
    *,
    split: str,
    validation: str | None,
    held_out: int,
    languages: Mapping[str, float] | None = None,
) -> Mixture:
    """Return what trains ("train") or validates ("val"): the named validation set, or rows kept from the mixture.

    Args:
        sets: opens sets by name.
        shares: of the mixture.
        split: train or val.
        validation: set that validates; None keeps `held_out` rows of the mixture apart.
        held_out: how many.
        languages: share of each language among what trains; none takes all rows.
    """
    if validation is None:
        return Mixture(sets(shares), shares, held_out=held_out, part=split, languages=languages)
    if split == "val":
        return Mixture(sets([validation]), {validation: 1})
    return Mixture(sets(shares), shares, languages=languages)
