"""Find a run by what a person would type: its folder name, its key or the beginning of it, or its arm."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.store.layout import RunFolder, Store


def find_run(store: Store, text: str) -> RunFolder:
    """Return the run meant by `text`.

    Args:
        store: where to look.
        text: a folder name (train-3f2a...), a key or its beginning, or EXPERIMENT[/seed[/stage]]; an arm without
            stage means its last stage that has begun.

    Raises:
        ConfigError: when nothing or more than one run matches, with what would.
    """
    folders = list(store.runs())
    exact = [folder for folder in folders if text in (folder.name, folder.key)]
    found = exact or [folder for folder in folders if folder.key.startswith(text) or folder.name.startswith(text)]
    if not found:
        found = _by_arm(folders, text)
    if len(found) == 1:
        return found[0]
    if not found:
        near = get_close_matches(text, [folder.name for folder in folders], n=3, cutoff=0.4)
        hint = f"; nearest: {', '.join(near)}" if near else "; `ablab status` lists what has begun"
        raise ConfigError(f"no run in {store.root} matches {text!r}{hint}")
    listed = ", ".join(folder.name for folder in found[:6])
    raise ConfigError(f"{text!r} matches {len(found)} runs: {listed}; name one")


def _by_arm(folders: list[RunFolder], text: str) -> list[RunFolder]:
    experiment, _, rest = text.partition("/")
    seed, _, stage = rest.partition("/")
    matches = []
    for folder in folders:
        order = folder.known_order()
        if order is None or order.experiment != experiment:
            continue
        if seed and str(order.seed) != seed.removeprefix("seed-"):
            continue
        if stage and order.stage != stage:
            continue
        matches.append(folder)
    return matches if stage or not matches else [max(matches, key=lambda folder: folder.path.stat().st_mtime)]
