"""The stages `describe`, `compare`, `filter` and `balance`: rows of data files counted, compared and chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ablab.contract.context import Context
from ablab.contract.order import Order
from ablab.contract.result import Evaluation, Outcome, Table
from ablab.contract.tables import Balance, Compare, Describe, Filter
from ablab.data.tables import choose, plots
from ablab.data.tables import compare as comparing
from ablab.data.tables import describe as describing
from ablab.data.tables.parts import parts_of
from ablab.store.files import write_json
from ablab.worker.code import parameters_of

#: Files that a filter and a balance stage write, and the description of the others.
ROWS, DESCRIPTION, PLOTS = "rows.jsonl", "description.json", "plots"


def describe(order: Order, context: Context) -> Outcome:
    """Count every row of the files."""
    parameters: Describe = _begin(order, context)
    files = _paths(order, parameters.files)
    with context.time("data"):
        tally = describing.describe(
            files,
            fields=parameters.fields,
            processes=order.resources.threads,
            done=_progress(context, files),
        )
    name = _name(parameters.files)
    drawn = plots.draw({name: tally}, context.artifacts / PLOTS) if parameters.plots else []
    found = describing.as_json(tally)
    shown = describing.evaluation(tally, name=name)
    return _outcome(context, found, shown, drawn, facts={"rows": tally.rows})


def compare(order: Order, context: Context) -> Outcome:
    """Count every row of two sets and put them beside each other."""
    parameters: Compare = _begin(order, context)
    first, second = _paths(order, parameters.first), _paths(order, parameters.second)
    with context.time("data"):
        tallies = comparing.compare(
            first,
            second,
            fields=parameters.fields,
            processes=order.resources.threads,
            done=_progress(context, [*first, *second]),
        )
    names = parameters.names
    drawn = plots.draw(dict(zip(names, tallies, strict=True)), context.artifacts / PLOTS) if parameters.plots else []
    found = comparing.as_comparison(*tallies, names=names)
    shown = comparing.evaluation(*tallies, names=names)
    return _outcome(context, found, shown, drawn, facts={"rows": [tally.rows for tally in tallies]})


def filter_rows(order: Order, context: Context) -> Outcome:
    """Keep the rows that have what is required."""
    parameters: Filter = _begin(order, context)
    files = _paths(order, parameters.files)
    with context.time("data"):
        kept = choose.filter_rows(
            files,
            context.artifacts / ROWS,
            require=parameters.require,
            passages=_paths(order, parameters.passages),
            fields=parameters.fields,
            processes=order.resources.threads,
            done=_progress(context, files),
        )
    rows = [
        ("rows read", kept.rows, 1.0),
        ("rows kept", kept.kept, kept.kept / kept.rows),
        *((f"left out, lacking {side}", count, count / kept.rows) for side, count in kept.lacking.items()),
        ("candidates read", kept.candidates, None),
        ("candidates kept", kept.candidates_kept, None),
    ]
    shown = _table("kept", ("what", "count", "share of rows"), rows)
    facts = {"rows": kept.rows, "kept": kept.kept, "lacking": dict(kept.lacking)}
    return Outcome(
        facts=facts | {"candidates": kept.candidates, "candidates_kept": kept.candidates_kept},
        artifacts={"rows": f"artifacts/{ROWS}"},
        evaluations=(shown,),
    )


def balance(order: Order, context: Context) -> Outcome:
    """Draw a subset with equal numbers from each stratum."""
    parameters: Balance = _begin(order, context)
    files = _paths(order, parameters.files)
    parameters = parameters.model_copy(update={"files": tuple(map(str, files))})
    with context.time("data"):
        drawn = choose.balance(
            parameters,
            context.artifacts / ROWS,
            processes=order.resources.threads,
            # Rows are read twice: to see what there is, and to write what was drawn.
            done=_progress(context, [*files, *files]),
        )
    rows = [
        (name, there, there / drawn.rows, taken, taken / drawn.taken if drawn.taken else None)
        for name, (there, taken) in drawn.strata.items()
    ]
    columns = (", ".join(parameters.strata), "rows", "share", "drawn", "share of the draw")
    return Outcome(
        facts={"rows": drawn.rows, "drawn": drawn.taken, "seed": parameters.seed},
        artifacts={"rows": f"artifacts/{ROWS}"},
        evaluations=(_table("strata", columns, rows),),
    )


def _begin(order: Order, context: Context) -> Any:
    context.event("start", step=0)
    return parameters_of(order)


def _paths(order: Order, files: Sequence[str]) -> list[Path]:
    """Return files by their place from the study's folder."""
    return [Path(order.study_folder or ".") / Path(file).expanduser() for file in files]


def _name(files: Sequence[str]) -> str:
    return Path(files[0]).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _progress(context: Context, files: Sequence[Path]) -> Callable[[int], None]:
    whole = sum(part.bytes for part in parts_of(files))
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        context.progress(done, whole, unit="bytes")

    return tell


def _table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Evaluation:
    return Evaluation(name=name, tables=(Table(name=name, columns=tuple(columns), rows=tuple(map(tuple, rows))),))


def _outcome(
    context: Context, found: dict[str, Any], shown: Evaluation, drawn: Sequence[Path], *, facts: dict[str, Any]
) -> Outcome:
    write_json(context.artifacts / DESCRIPTION, json.loads(json.dumps(found)))
    artifacts = {"description": f"artifacts/{DESCRIPTION}"}
    if drawn:
        artifacts["plots"] = f"artifacts/{PLOTS}"
    images = plots.names_of(drawn, context.folder)
    return Outcome(facts=facts, artifacts=artifacts, evaluations=(shown.model_copy(update={"images": images}),))
