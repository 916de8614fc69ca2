"""`ablab merge`: models or adapters into one, computed by a worker now."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ablab.cli.common import JsonOption, print_json, print_table, say
from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.contract.merge import Merge
    from ablab.contract.result import Result

ModelOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="A folder or hub name with its weight and density: ./ko=0.4:0.1. Repeat it for each model.",
        metavar="MODEL[=WEIGHT[:DENSITY]]",
    ),
]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Pattern of the tensors to merge.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("merge")(merge)


def merge(
    method: Annotated[
        str,
        typer.Argument(
            help="linear, slerp, task-arithmetic, ties, dare-linear, dare-ties, della, della-linear, or file.py:Name."
        ),
    ],
    models: ModelOption,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the result; must not exist.")],
    base: Annotated[str | None, typer.Option("--base", "-b", help="The model the others were tuned from.")] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="Share of entries that stay, of models without their own.")
    ] = None,
    trim: Annotated[
        float | None, typer.Option("--trim", help="Share that stays by magnitude after DARE's drop.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option("--epsilon", help="DELLA's epsilon.")] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--no-normalize", help="Divide by the weights that took part.")
    ] = None,
    scale: Annotated[float, typer.Option("--scale", help="Factor of the merged task vector (lambda).")] = 1.0,
    rescale: Annotated[
        Literal["expectation", "l1", "none"], typer.Option("--rescale", help="What follows a random drop.")
    ] = "expectation",
    only: OnlyOption = None,
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option("--dtype", help="Type of the result; the base's otherwise."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="Write an adapter of this rank instead of a full model.")
    ] = None,
    shard_bytes: Annotated[int, typer.Option("--shard-bytes", help="Most bytes of a file.")] = 5_000_000_000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of random drops.")] = 42,
    threads: Annotated[int | None, typer.Option("--threads", help="Processes; all cores otherwise.", min=1)] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where it is computed.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Merge models of one base into one, tensor by tensor, in little memory.

    What is merged how is kept in merge.json beside the result. The same seed gives the same result, whatever the
    number of processes or the sharding of the files.
    """
    target = Path(output).expanduser().absolute()
    if target.exists():
        raise ConfigError(f"{output} exists already; name a folder that does not")
    settings = _settings(
        {
            "method": method,
            "base": None if base is None else _name(base),
            "models": [_model(text, density=density, trim=trim, epsilon=epsilon) for text in models],
            "normalize": normalize,
            "scale": scale,
            "rescale": rescale,
            "only": only or [],
            "dtype": dtype,
            "output": "full" if rank is None else "adapter",
            "rank": rank,
            "shard_bytes": shard_bytes,
        }
    )
    began = time.monotonic()
    result = _compute(settings, target, seed=seed, threads=threads, device=device, quiet=as_json)
    _tell(settings, result, target, seconds=time.monotonic() - began, as_json=as_json)


def _name(text: str) -> str:
    """Return a model's name as a stage has it: a folder by its absolute path, a hub name as it is."""
    from ablab.contract.merge import is_hub

    path = Path(text).expanduser()
    if path.exists():
        return str(path.absolute())
    if is_hub(text):
        return text
    raise ConfigError(f"{text}: there is no such folder, and it is no hub name (owner/name)")


def _model(text: str, *, density: float | None, trim: float | None, epsilon: float | None) -> dict[str, Any]:
    """Return what MODEL[=WEIGHT[:DENSITY]] says."""
    name, equals, numbers = text.rpartition("=")
    if not equals or Path(text).expanduser().exists():
        name, numbers = text, ""
    weight, _, own = numbers.partition(":")
    found: dict[str, Any] = {"model": _name(name), "density": density, "trim": trim, "epsilon": epsilon}
    try:
        if weight:
            found["weight"] = float(weight)
        if own:
            found["density"] = float(own)
    except ValueError as error:
        raise ConfigError(f"--model {text}: expected MODEL=WEIGHT or MODEL=WEIGHT:DENSITY, both numbers") from error
    return found


def _settings(raw: dict[str, Any]) -> Merge:
    from pydantic import ValidationError

    from ablab.contract.merge import Merge

    try:
        return Merge.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place}: {message}" if place else message) from error


def _compute(settings: Merge, target: Path, *, seed: int, threads: int | None, device: str, quiet: bool) -> Result:
    """Let a worker merge, and put what it made where it belongs."""
    from ablab.launch.devices import Nvml
    from ablab.launch.on_demand import on_demand

    gpus = [gpu.index for gpu in Nvml().gpus()] if device != "cpu" else []
    if device == "cuda" and not gpus:
        raise ConfigError("--device cuda: this machine shows no GPU")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        _progress(quiet=quiet) as progress,
        on_demand(
            task="command",
            kind="merge",
            parameters=settings.model_dump(mode="json"),
            seed=seed,
            threads=threads,
            devices=gpus[:1],
            progress=progress,
            # The result is moved, not copied: it has to be on its disk from the start.
            beside=target.parent,
        ) as answer,
    ):
        made = answer.folder / "artifacts" / "model"
        if not made.is_dir():
            made = next((answer.folder / "checkpoints").glob("step-*"))
        made.rename(target)
        return answer.result


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[float], None] | None]:
    """Yield what takes the share of work done: a bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("merging"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("merging", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _tell(settings: Merge, result: Result, target: Path, *, seconds: float, as_json: bool) -> None:
    facts = result.facts
    if as_json:
        told = {name.removeprefix("merge."): value for name, value in facts.items()}
        print_json({"output": str(target), "seconds": seconds, "settings": settings, **told})
        return
    norms = facts.get("merge.deltas") or {}
    rows = [
        (
            each.model,
            f"{each.weight:g}",
            "" if each.density is None else f"{each.density:g}",
            _number(norms, each.model),
        )
        for each in settings.models
    ]
    print_table(("model", "weight", "density", "norm of its task vector"), rows)
    if "merge.rank_error" in facts:
        say(f"the rank holds all but {facts['merge.rank_error']:.2%} of the norm of the worst matrix")
    copied = f", {facts['merge.copied']} copied" if facts["merge.copied"] else ""
    size = f"{facts['merge.bytes'] / 1e9:.2f} GB"
    say(f"{target}: {facts['merge.tensors']} tensors merged{copied}, {size}, {seconds:.1f} s")


def _number(norms: dict[str, float], name: str) -> str:
    return f"{norms[name]:.4g}" if name in norms else ""
