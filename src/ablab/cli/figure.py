"""`ablab figure`: curves, gaps and points as PDF, SVG, PNG and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from ablab.cli.common import (
    JsonOption,
    OverrideArgument,
    ProfileOption,
    StoreOption,
    StudyArgument,
    open_lab,
    print_json,
    say,
)
from ablab.cli.table import ArmsOption, ComparisonOption
from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.report.figures import Figure

Format = Literal["pdf", "svg", "png", "csv"]
FORMATS: dict[str, Format] = {"pdf": "pdf", "svg": "svg", "png": "png", "csv": "csv"}
USUAL: tuple[Format, ...] = ("pdf", "svg", "csv")
Choice = TypeVar("Choice")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("figure")(figure)


def figure(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", "-k", help="curves, gap or points; all of them otherwise.")
    ] = None,
    form: Annotated[
        list[str] | None, typer.Option("--format", "-f", help="pdf, svg, png or csv; pdf, svg and csv otherwise.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", help="Curves of this name.")] = None,
    arms: ArmsOption = None,
    comparison: ComparisonOption = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder to write into, or a file where that is one figure; the store."),
    ] = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write figures: curves with seeds as a band, the gap to the baseline at equal steps, points and intervals.

    Exit code 1 when there is nothing to draw yet. PDF, SVG and PNG need the extra `plots`; CSV needs nothing.
    """
    from ablab.report.figures import KINDS, make_figures

    target, forms = _target(output, _chosen("--format", form, FORMATS))
    kinds = _chosen("--kind", kind, {name: name for name in KINDS})
    lab = open_lab(study, overrides, profile=profile, store=store)
    made = make_figures(
        lab.study,
        lab.results,
        lab.verdicts,
        kinds=kinds or KINDS,
        metrics=metric,
        arms=arms,
        comparisons=comparison,
    )
    folder = target or lab.store.study_folder(lab.study.name, profile) / "figures"
    if output is not None and folder.suffix and len(made) > 1:
        names = ", ".join(each.name for each in made)
        raise ConfigError(f"{output} is one file and these are {len(made)} figures ({names}); narrow them, or name a "
                          "folder with --output")  # fmt: skip
    files = [path for each in made for path in write(each, folder, forms)]
    if as_json:
        print_json({"files": [str(path) for path in files]})
    else:
        for path in files:
            say(str(path))
        if not files:
            say("nothing to draw: no run of these arms has logged such a curve, and no comparison has points yet")
    raise typer.Exit(0 if files else 1)


def _chosen(option: str, given: Sequence[str] | None, valid: Mapping[str, Choice]) -> tuple[Choice, ...]:
    """Return what an option that may be given several times names."""
    from ablab.report.names import unknown

    for name in given or ():
        if name not in valid:
            raise ConfigError(unknown("choice", name, valid, of=option))
    return tuple(valid[name] for name in dict.fromkeys(given or ()))


def _target(output: str | None, forms: tuple[Format, ...]) -> tuple[Path | None, tuple[Format, ...]]:
    """Return where to write and in which formats; the ending of a file says its format."""
    path = None if output is None else Path(output)
    if path is None or not path.suffix or path.is_dir():
        return path, forms or USUAL
    ending = path.suffix[1:].lower()
    if ending not in FORMATS:
        raise ConfigError(f"{output}: figures are written as {', '.join(FORMATS)}, not as {ending!r}")
    if forms not in ((), (FORMATS[ending],)):
        raise ConfigError(f"{output} is a {ending} file, and --format says {', '.join(forms)}")
    return path, (FORMATS[ending],)


def write(made: Figure, target: Path, forms: tuple[Format, ...]) -> list[Path]:
    """Write a figure in every format, into a folder or to a file; return the paths."""
    from ablab.report.figures import figure_csv
    from ablab.store.files import write_bytes

    written = []
    for form in forms:
        path = target if target.suffix and not target.is_dir() else target / f"{made.name}.{form}"
        if form == "csv":
            data = figure_csv(made).encode()
        else:
            from ablab.report.plotting import draw

            data = draw(made, form)
        write_bytes(path, data, sync=False)
        written.append(path)
    return written
