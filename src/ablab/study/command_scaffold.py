"""`ablab new --command`: a study from a command line, with its parameters, files and metrics found.

The line is taken apart in `ablab.study.command_line`; what a Python script says about its metrics is
`ablab.study.program_metrics`'s. Nothing is run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ablab.contract.base import Scalar
from ablab.contract.command import Command
from ablab.contract.placeholders import plain
from ablab.contract.task import usual_direction
from ablab.study.command_line import Line, join, take_apart
from ablab.study.program_files import used_files
from ablab.study.program_metrics import Found, find_metrics

_EPOCHS = re.compile(r"(?:num_|max_|n_)?(?:train_)?epochs?$")
_STEPS = re.compile(r"(?:num_|max_|n_|total_)?(?:train_)?(?:steps|iters|iterations)$")
_RATE = re.compile(r"(?:lr|learning_rate)$")
_CODE = re.compile(r"\.(?:py|sh|awk|c|cc|cpp|cu|h|rs|go|jl|r|lua|pl|ipynb|ya?ml|json|toml|cfg|ini)$", re.IGNORECASE)
#: Steps that a smoke profile leaves.
_FEW = 20


def command_scaffold(text: str, *, name: str, base: Path, study_folder: Path) -> str:
    """Return the text of a study called `name` that runs a command line as it is.

    Args:
        text: the command line, as typed in a shell.
        name: of the study.
        base: folder it was typed in.
        study_folder: where the study file will stand.

    Raises:
        ConfigError: the line cannot be taken apart.
    """
    line = take_apart(text, base)
    shown = join(line)
    probe = Command.model_validate({"command": shown, "shell": line.shell, "parameters": line.values})
    files = used_files(probe, base)
    code, data = _sorted_files(files, base)
    scripts = [path for path, how in files.items() if path.endswith(".py")]
    metrics = find_metrics([base / path for path in scripts])
    return _text(line, shown, name=name, folder=_folder(base, study_folder), code=code, data=data, metrics=metrics)


def _sorted_files(files: Iterable[str], base: Path) -> tuple[list[str], list[str]]:
    """Return (code, data); files of a package are declared by its folder."""
    code: dict[str, None] = {}
    data: dict[str, None] = {}
    for path in files:
        if Path(path).is_absolute() or path.startswith(".."):
            data[path] = None
            continue
        top = path.partition("/")[0]
        if not _CODE.search(path) and PurePosixPath(path).suffix:
            data[path] = None
        else:
            code[top if (base / top / "__init__.py").is_file() else path] = None
    return list(code), [path for path in data if not path.startswith("..")]


def _folder(base: Path, study_folder: Path) -> str:
    return Path(os.path.relpath(base.resolve(), study_folder.resolve())).as_posix()


def _text(
    line: Line, shown: str, *, name: str, folder: str, code: list[str], data: list[str], metrics: Found | None
) -> str:
    """Return the study file."""
    seeds = [line.seed, line.seed + 1, line.seed + 2] if line.seed is not None else [0]
    arm = _arm(line)
    rows = [
        "# Made from a command line by `ablab new`. Every key is explained by `ablab explain KEY --task command`.",
        f"#   ablab check {name}.yaml      is it sound?",
        f"#   ablab run   {name}.yaml      kill it at any time, start it again",
        f"name: {name}",
        "question: What does the study ask? Write it here, it heads the report.",
        "task: command",
        f"seeds: {json.dumps(seeds)}",
    ]
    if line.seed is None:
        rows[-1] += "     # no seed among the arguments: put {seed} where the program takes one"
    rows += ["", "defaults:"]
    if line.values:
        rows += ["  parameters:", *(f"    {key}: {_yaml(value)}" for key, value in line.values.items())]
    rows += [
        "  pipeline:",
        "    train:",
        "      kind: command",
        f"      command: {json.dumps(shown, ensure_ascii=False)}",
    ]
    rows += ["      shell: true"] if line.shell else []
    rows += [f"      folder: {folder}"] if folder != "." else []
    rows += [f"      code: {json.dumps(code)}"] if code else []
    rows += [f"      data: {json.dumps(data)}"] if data else []
    if line.env:
        rows += ["      env:", *(f"        {key}: {json.dumps(value)}" for key, value in line.env.items())]
    rows += _metric_rows(metrics)
    rows += ["      # resume: {file: last.pt, argument: --resume {file}}   # without it a killed run starts at zero"]
    rows += ["", "experiments:", "  base: {label: baseline, purpose: the command as it was given}"]
    if arm is not None:
        key, value = arm
        rows += [f"  {key}-doubled:", "    like: base", "    purpose: what does it change?"]
        rows += [f"    parameters: {{{key}: {_yaml(value)}}}"]
    rows += ["", *_comparison_rows(arm, metrics), "profiles:", "  smoke:", f"    seeds: {json.dumps(seeds[:2])}"]
    short = _shortened(line)
    if short:
        rows += ["    defaults:", f"      parameters: {{{', '.join(f'{k}: {_yaml(v)}' for k, v in short.items())}}}"]
    return "\n".join(rows) + "\n"


def _arm(line: Line) -> tuple[str, Scalar] | None:
    """Return the parameter that a second arm doubles: the learning rate where there is one, else a number."""
    numbers = {
        name: value
        for name, value in line.values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    own = [name for name in numbers if not _EPOCHS.match(name) and not _STEPS.match(name) and numbers[name]]
    chosen = next((name for name in own if _RATE.search(name)), None) or next(iter(own), None)
    return None if chosen is None else (chosen, numbers[chosen] * 2)


def _shortened(line: Line) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name, value in line.values.items():
        if isinstance(value, int) and not isinstance(value, bool):
            if _EPOCHS.match(name) and value > 1:
                found[name] = 1
            elif _STEPS.match(name) and value > _FEW:
                found[name] = _FEW
    return found


def _metric_rows(metrics: Found | None) -> list[str]:
    if metrics is None:
        return [
            '      # metrics: [{line: "step {step} loss {train/loss} val {val/loss}"}]   # or jsonl, csv, json, ...'
        ]
    return ["      metrics:", *(f"        - {row}" for row in metrics.sources)]


def _comparison_rows(arm: tuple[str, Scalar] | None, metrics: Found | None) -> list[str]:
    metric = metrics.metric if metrics is not None else None
    rows = [
        "comparisons:",
        "  - baseline: base",
        f"    variants: [{arm[0] if arm else 'other'}-doubled]",
        f"    factor: parameters.{arm[0] if arm else 'other'}",
        f"    metric: {metric or 'val/loss'}",
        f"    criterion: {'ratio >= 1.0' if metric and usual_direction(metric) == 'higher' else 'ratio <= 1.0'}",
        "    # controls: {fail: [...]}    an arm that must fail shows that the comparison can see a failure",
    ]
    if arm is None or metric is None:
        why = "the metrics are not known" if metric is None else "there is no second arm"
        return [
            f"# No comparison yet, since {why}: say it, then take the marks away.",
            *(f"# {row}" for row in rows),
            "",
        ]
    return [*rows, ""]


def _yaml(value: Scalar) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return plain(value)
