"""`ablab export` and `ablab ask`: take a trained model out, and try it; a worker does the work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablab.cli.common import JsonOption, StoreOption, device_indices, print_json, say
from ablab.cli.show import RunArgument
from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.contract.order import Input, Order
    from ablab.store.layout import RunFolder, Store

DevicesOption = Annotated[str | None, typer.Option("--devices", help="GPU indices (0,1); the CPU otherwise.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("export")(export)
    app.command("ask")(ask)


def export(
    run: RunArgument,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to write; ./exports/RUN otherwise.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint instead of the last.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's model in the format that others load, and print how."""
    folder, given = _trained(store, run, "export", best=best)
    target = (to or Path("exports") / folder.name).expanduser().resolve()
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty; name another folder with --to")
    facts = _compute("export", folder, given, {"folder": str(target)}, devices=None)
    if as_json:
        print_json({name.removeprefix("export."): value for name, value in facts.items()})
        return
    say(f"{target}: {facts['export.format']} format")
    for reason in facts["export.why"]:
        say(f"  not transformers' own class: {reason}")
    say("load it with")
    for line in facts["export.load"]:
        say(f"  {line}")


def ask(
    run: RunArgument,
    image: Annotated[Path, typer.Argument(help="An image file.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint instead of the last.")] = False,
    length: Annotated[int, typer.Option("--max-new-tokens", help="Longest answer.", min=1)] = 128,
    beams: Annotated[int, typer.Option("--beams", help="Beams; 1 is greedy.", min=1)] = 1,
    devices: DevicesOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a run's model one question about an image."""
    if not image.is_file():
        raise ConfigError(f"{image}: no such image file")
    folder, given = _trained(store, run, "ask", best=best)
    order = folder.read_order()
    assert order is not None
    parameters = {
        "question": question,
        "images": [str(image.resolve())],
        "template": order.parameters.get("template", "auto"),
        "decoding": {"max_new_tokens": length, "beams": beams},
    }
    if parameters["template"] == "plain":
        parameters["template"] = "auto"
    facts = _compute("ask", folder, given, parameters, devices=devices)
    if as_json:
        print_json({"run": folder.name, "question": question, "answer": facts["answer"]})
    else:
        say(facts["answer"])


def _trained(store: str | None, text: str, kind: str, *, best: bool) -> tuple[RunFolder, Input]:
    """Return the run that has the weights: the one that is meant, or the one it was made from."""
    from ablab.contract.order import Input
    from ablab.report.find import find_run
    from ablab.store.layout import RunFolder, open_store

    opened = open_store(store)
    folder = find_run(opened, text)
    order = folder.read_order()
    inputs = [] if order is None else _moved(order, opened)
    if order is not None and not any(folder.checkpoints.glob("step-*")):
        behind = {key for given in inputs for key in _inputs_of(RunFolder(Path(given.path)))}
        made = [
            given for given in inputs if given.key not in behind and any(Path(given.path).glob("checkpoints/step-*"))
        ]
        if len(made) != 1:
            raise ConfigError(f"{folder.name} has no weights; name the run of a training stage")
        folder = RunFolder(Path(made[0].path))
        order = folder.read_order()
    if order is None or not folder.done:
        raise ConfigError(f"{folder.name} is not finished; `ablab status` says where it stands")
    _check_offered(order, kind, folder.name)
    given = Input(
        reference=order.stage,
        stage=order.stage,
        kind=order.kind,
        key=order.key,
        path=str(folder.path.resolve()),
        checkpoint="best" if best else "last",
    )
    return folder, given


def _check_offered(order: Order, kind: str, run: str) -> None:
    """Raise ConfigError where the run's task does not offer this, or not for a stage of its kind."""
    from ablab.contract.registry import find_task

    spec = find_task(order.task, folder=order.study_folder).stages.get(kind)
    if spec is None:
        raise ConfigError(f"`ablab {kind}` is not offered by the task {order.task}")
    if order.kind not in spec.inputs:
        raise ConfigError(
            f"{run} is of stage kind {order.kind}; `ablab {kind}` takes a run of {' or '.join(spec.inputs)}"
        )


def _inputs_of(folder: RunFolder) -> list[str]:
    order = folder.read_order()
    return [] if order is None else [given.key for given in order.inputs]


def _moved(order: Order, store: Store) -> list[Input]:
    """Return the inputs of an order where they are now: a store may have been copied from elsewhere."""
    return [
        given
        if Path(given.path).is_dir()
        else given.model_copy(update={"path": str(store.run(Path(given.path).name).path)})
        for given in order.inputs
    ]


def _compute(
    kind: str, folder: RunFolder, given: Input, parameters: dict[str, Any], *, devices: str | None
) -> dict[str, Any]:
    """Have a worker do a stage kind on a trained run, and return its facts."""
    from ablab.launch.on_demand import on_demand
    from ablab.store.layout import Store

    order = folder.read_order()
    assert order is not None
    with on_demand(
        task=order.task,
        kind=kind,
        parameters=parameters,
        sections=order.sections,
        inputs=(given, *_moved(order, Store(folder.path.parent.parent))),
        study_folder=order.study_folder,
        seed=order.seed,
        devices=device_indices(devices),
        revisions=order.revisions,
    ) as answer:
        return dict(answer.result.facts)
