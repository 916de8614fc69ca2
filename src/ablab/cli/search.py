"""`ablab search`: what a trained retriever finds for a query of one's own, computed by a worker now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablab.cli.common import JsonOption, StoreOption, device_indices, print_json, print_table, say
from ablab.cli.show import RunArgument
from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.contract.order import Input, Order
    from ablab.store.layout import RunFolder, Store

#: Characters of a passage in the table; --json has them whole.
_CHARACTERS = 100


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("search")(search)


def search(
    run: RunArgument,
    text: Annotated[str | None, typer.Argument(help="Text of the query.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="Image file of the query.")] = None,
    instruction: Annotated[
        str | None, typer.Option("--instruction", help="Instruction before the text; the data's own otherwise.")
    ] = None,
    top: Annotated[int, typer.Option("--top", "-k", help="Passages shown.", min=1)] = 10,
    split: Annotated[str | None, typer.Option("--split", help="Pool: train, val or test.", show_default="test")] = None,
    devices: Annotated[str | None, typer.Option("--devices", help="GPU indices (0); the CPU otherwise.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the pool of a run with a query of your own: a text, an image, or both.

    RUN is a run of a train stage, whose pool is encoded first, or of an index stage, whose vectors are there.
    """
    text = (text or "").strip() or None
    if text is None and image is None:
        raise ConfigError('nothing to search for; give a text, --image FILE, or both: ablab search RUN "what is this?"')
    if image is not None and not image.is_file():
        raise ConfigError(f"{image}: no such image file")
    if split not in (None, "train", "val", "test"):
        raise ConfigError(f"--split {split!r}; expected train, val or test")
    folder, order, inputs, indexed = _inputs(store, run)
    if indexed is not None and split not in (None, indexed):
        raise ConfigError(f"{folder.name} indexed the pool of {indexed}; leave out --split, or name the train run")
    parameters: dict[str, Any] = {
        "text": text,
        "image": None if image is None else str(image.resolve()),
        "instruction": instruction,
        "top": top,
        "split": split or indexed or "test",
    }
    facts = _compute(order, inputs, parameters, devices)
    if as_json:
        print_json({"run": folder.name, **{name.removeprefix("search."): value for name, value in facts.items()}})
        return
    rows = [
        (each["rank"], f"{each['score']:.3f}", each["id"], _short(each["text"]), each["image"] or "—")
        for each in facts["search.found"]
    ]
    print_table(("rank", "score", "passage", "text", "image"), rows)
    say(f"{len(rows)} of {facts['search.pool']} passages" + ("" if facts["search.indexed"] else ", encoded for this"))


def _short(text: str | None) -> str:
    words = " ".join((text or "—").split())
    return words if len(words) <= _CHARACTERS else f"{words[: _CHARACTERS - 1]}…"


def _inputs(store: str | None, text: str) -> tuple[RunFolder, Order, tuple[Input, ...], str | None]:
    """Return the run that is meant, its order, what a search reads, and the split it indexed where it did."""
    from ablab.report.find import find_run
    from ablab.store.layout import open_store

    opened = open_store(store)
    folder = find_run(opened, text)
    order = folder.read_order()
    if order is None or not folder.done:
        raise ConfigError(f"{folder.name} is not finished; `ablab status` says where it stands")
    if order.task != "retrieval":
        raise ConfigError(f"{folder.name} is of the task {order.task}; search a run of a retrieval study")
    given = {each.kind: each for each in (*_moved(order, opened), _as_input(folder, order))}
    if "train" not in given:
        raise ConfigError(f"{folder.name} has no trained model behind it; name a train or an index run")
    behind = _read(given["train"])
    given = {each.kind: each for each in _moved(behind, opened)} | given if behind is not None else given
    indexed = str(order.parameters.get("split", "test")) if order.kind == "index" else None
    wanted = ("prepare", "train", "index") if indexed is not None else ("prepare", "train")
    return folder, behind or order, tuple(given[kind] for kind in wanted if kind in given), indexed


def _read(given: Input) -> Order | None:
    from ablab.store.layout import RunFolder

    return RunFolder(given.path).read_order()


def _as_input(folder: RunFolder, order: Order) -> Input:
    from ablab.contract.order import Input

    return Input(
        reference=order.stage, stage=order.stage, kind=order.kind, key=order.key, path=str(folder.path.resolve())
    )


def _moved(order: Order, store: Store) -> list[Input]:
    """Return the inputs of an order where they are now: a store may have been copied from elsewhere."""
    return [
        given
        if Path(given.path).is_dir()
        else given.model_copy(update={"path": str(store.run(Path(given.path).name).path)})
        for given in order.inputs
    ]


def _compute(
    order: Order, inputs: tuple[Input, ...], parameters: dict[str, Any], devices: str | None
) -> dict[str, Any]:
    from ablab.launch.on_demand import on_demand

    with on_demand(
        task=order.task,
        kind="search",
        parameters=parameters,
        sections={name: section for name, section in order.sections.items() if name in ("towers", "model")},
        inputs=inputs,
        study_folder=order.study_folder,
        devices=device_indices(devices),
        revisions=order.revisions,
    ) as answer:
        return dict(answer.result.facts)
