"""From an order to what is started: the values behind the placeholders, the command line, the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablab.contract.command import SECTION, Command, hub_name
from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.order import Input, Order
from ablab.contract.placeholders import fill, fill_all
from ablab.contract.task import DataReference
from ablab.logging import VARIABLE
from ablab.store.fingerprint import bundled_folder
from ablab.store.hub import lock_name
from ablab.store.layout import RunFolder
from ablab.training.retention import find as find_checkpoint


class Values:
    """The value of every placeholder of one attempt.

    Args:
        order: the order.
        parameters: of its stage.
        context: the worker.
    """

    def __init__(self, order: Order, parameters: Command, context: Context) -> None:
        self._order, self._parameters = order, parameters
        section = order.sections.get(SECTION, {})
        self.own: dict[str, Any] = {**section, **parameters.parameters, **order.resources.parameters}
        self._built_in: Mapping[str, Any] = {
            "seed": order.seed if order.seed is not None else 0,
            "output": str(context.artifacts),
            "device": context.numerics.device,
            "study": order.study_folder or ".",
        }

    def __call__(self, name: str) -> Any:
        """Return the value of a name. Raises ConfigError for one that means nothing here."""
        if name in self._built_in:
            return self._built_in[name]
        if name in self.own:
            return self.own[name]
        family, _, member = name.partition(".")
        if family == "input":
            return str(RunFolder(self._input(name, member).path).artifacts)
        if family == "checkpoint":
            return self._checkpoint(name, member)
        if family == "bundled":
            return str(bundled_folder(member))
        if family == "revision":
            return self._revision(member)
        raise ConfigError(f"{{{name}}} in the command of {self._order.stage} is no parameter")

    def fill(self, text: str) -> str:
        """Return a text with its placeholders filled in."""
        return fill(text, self)

    def command(self, *more: str) -> list[str]:
        """Return program and arguments, with more arguments behind them."""
        if self._parameters.shell:
            line = fill(self._parameters.words()[0], self, quote=True)
            return ["/bin/sh", "-c", " ".join([line, *more])]
        return [*fill_all(self._parameters.words(), self), *more]

    def _input(self, name: str, reference: str) -> Input:
        found = [given for given in self._order.inputs if given.reference.partition("@")[0] == reference]
        if len(found) != 1:
            given = ", ".join(one.reference for one in self._order.inputs) or "none"
            raise ConfigError(f"{{{name}}}: {self._order.stage} has the inputs {given}; correct its `needs`")
        return found[0]

    def _checkpoint(self, name: str, reference: str) -> str:
        given = self._input(name, reference)
        folder = RunFolder(given.path).checkpoints
        if not folder.is_dir():
            raise ConfigError(f"{{{name}}}: {given.reference} ({given.kind}) makes no checkpoints; use {{input.…}}")
        return str(find_checkpoint(folder, given.checkpoint))

    def _revision(self, name: str) -> str:
        for text in self._parameters.hub:
            kind, known, revision = hub_name(text)
            if known == name:
                reference = DataReference(
                    kind="hub", name=name, revision=revision, repository="model" if kind == "model" else "dataset"
                )
                return self._order.revisions.get(lock_name(reference)) or revision or "main"
        raise ConfigError(f"{{revision.{name}}}: {name} does not stand in `hub:`")


def environment(order: Order, parameters: Command, values: Values, context: Context, *, log: Path) -> dict[str, str]:
    """Return the whole environment of the program.

    `python` is the interpreter that runs Ablab; GPUs that are not leased to the run are hidden.
    """
    threads = str(context.numerics.threads)
    found = {
        **os.environ,
        "PATH": os.pathsep.join(filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")])),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        VARIABLE: str(log),
    }
    if context.numerics.device == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    return found | {name: values.fill(text) for name, text in parameters.env.items()}
