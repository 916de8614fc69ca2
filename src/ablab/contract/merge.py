"""The generic stage kind `merge`: one model out of several, and the settings that `ablab merge` shares with it.

Only the declaration stands here; the methods and how they run over files are `ablab.merging`'s.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.registry import is_file_reference, nearest
from ablab.contract.task import Complaint, DataReference, Sections, StageSpec

Rescale = Literal["expectation", "l1", "none"]

#: Built-in methods.
METHODS = ("linear", "slerp", "task-arithmetic", "ties", "dare-linear", "dare-ties", "della", "della-linear")
#: Methods that interpolate weights; all others add up task vectors (model minus base).
OF_WEIGHTS = ("linear", "slerp")
#: Methods that drop entries, at random or by magnitude, and so need a density.
SPARSE = ("ties", "dare-linear", "dare-ties", "della", "della-linear")
#: Methods that draw from the seed.
RANDOM = ("dare-linear", "dare-ties", "della", "della-linear")
#: Methods that divide by the weights that took part, unless told otherwise.
NORMALIZED = ("linear", "ties", "della")
#: DELLA's epsilon where none is given.
EPSILON = 0.15
#: Name of the model as the task's sections load it, before any training; a base for what stages tuned from it.
LOADED = "loaded"
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


class MergedModel(Strict):
    """One of the models that are merged."""

    model: str = setting(
        ..., "A stage as `needs` names it, a folder (./name, /name), or a hub model (owner/name); a folder or hub name "
        "may be a LoRA adapter."
    )  # fmt: skip
    weight: float = setting(1.0, "Factor of its task vector (of its weights for linear and slerp).")
    density: float | None = setting(
        None, "Share of its task vector's entries that stay (1 - drop rate); for ties, dare and della.", gt=0, le=1
    )
    trim: float | None = setting(
        None, "After DARE's drop, the share of all entries that stays by magnitude; null trims nothing.", gt=0, le=1
    )
    epsilon: float | None = setting(
        None,
        f"DELLA: chances to stay reach from density - epsilon (smallest) to density + epsilon; null is {EPSILON}.",
        ge=0,
        lt=0.5,
    )


class Merge(Strict):
    """Parameters of a merge stage: method, base, models."""

    method: str = setting(
        ..., f"How: {', '.join(METHODS)}, or file.py:Name of a function of one's own: "
        "def Name(base, models, *, weights, seed) takes and returns fp32 tensors of one name."
    )  # fmt: skip
    base: str | None = setting(
        None,
        "What the task vectors are taken from, named like a model, or `loaded`: the model as its sections load it. "
        "linear and slerp may go without.",
    )
    models: tuple[MergedModel, ...] = setting(..., "The models, the order of which counts.", min_length=1)
    normalize: bool | None = setting(
        None, "Divide by the sum of the weights that took part; null: linear, ties and della do."
    )
    scale: float = setting(1.0, "Factor of the merged task vector (lambda).")
    rescale: Rescale = setting(
        "expectation",
        "After a random drop: divide by the probability of being kept, match the L1 norm before, or leave as it is.",
    )
    only: tuple[str, ...] = setting(
        (), "fnmatch patterns of the tensors to merge; the others are the base's. None given merges all."
    )
    dtype: Literal["fp32", "bf16", "fp16"] | None = setting(None, "Type of the result; null keeps the base's.")
    output: Literal["full", "adapter"] = setting(
        "full", "adapter factors the merged task vector again by SVD; every model must be an adapter."
    )
    rank: int | None = setting(None, "Rank of the resulting adapter.", ge=1)
    shard_bytes: int = setting(5_000_000_000, "Most bytes of a file of the result.", ge=1, keyed=False, unit="bytes")

    @model_validator(mode="after")
    def _fits(self) -> Merge:
        for problem in (self._method(), self._sparsity(), self._names(), self._weights(), self._output()):
            if problem:
                raise ValueError(problem)
        return self

    @property
    def own(self) -> bool:
        """Whether the method is code of the user's."""
        return is_file_reference(self.method)

    @property
    def normalized(self) -> bool:
        """Whether the merge divides by the weights that took part."""
        return self.method in NORMALIZED if self.normalize is None else self.normalize

    @property
    def sources(self) -> tuple[str, ...]:
        """Every model by name, the base first where there is one."""
        return (*(() if self.base is None else (self.base,)), *(each.model for each in self.models))

    def _method(self) -> str | None:
        if self.method in METHODS or self.own:
            return None
        near = nearest(self.method, METHODS)
        hint = f"; did you mean {near}?" if near else ""
        return f"unknown method {self.method!r}; known: {', '.join(METHODS)}, or file.py:Name{hint}"

    def _sparsity(self) -> str | None:
        for index, each in enumerate(self.models):
            where, reach = f"models[{index}]", 0.0
            if self.method.startswith("della"):
                reach = EPSILON if each.epsilon is None else each.epsilon
            if each.density is None and self.method in SPARSE:
                return f"{where}: {self.method} needs density, the share of entries that stay"
            if each.density is not None and self.method not in SPARSE and not self.own:
                return f"{where}: density belongs to {', '.join(SPARSE)}; method is {self.method}"
            if each.trim is not None and not self.method.startswith("dare"):
                return f"{where}: trim belongs to dare-linear and dare-ties; method is {self.method}"
            if each.epsilon is not None and not self.method.startswith("della"):
                return f"{where}: epsilon belongs to della; method is {self.method}"
            if each.density is not None and each.density < 1 and not reach < each.density < 1 - reach:
                return f"{where}: density {each.density} ± epsilon {reach} leaves the range from 0 to 1; lower epsilon"
        return None

    def _names(self) -> str | None:
        names = [each.model for each in self.models]
        if self.base is None and self.only:
            return "only needs `base`: the tensors it leaves out are the base's"
        if self.base is None and self.method not in OF_WEIGHTS and not self.own and self.output == "full":
            return f"{self.method} needs `base`, the model that the others were tuned from"
        if self.base in names:
            return f"{self.base!r} is the base and models[{names.index(self.base)}] too: its task vector is zero"
        double = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if double is not None:
            return f"{double!r} is named twice; give it the sum of both weights instead"
        ends = len(names) + (self.base is not None)
        if self.method == "slerp" and ends != 2:
            return f"slerp lies between two models: base and one model, or two models; found {ends}"
        if self.method == "linear" and ends < 2:
            return "linear needs two models at least"
        return None

    def _weights(self) -> str | None:
        weights = [each.weight for each in self.models]
        if not any(weights):
            return "every weight is 0: the result would be the base"
        if self.normalized and abs(sum(weights)) < 1e-8:
            return f"the weights {', '.join(map(str, weights))} sum to 0 and the merge divides by their sum"
        if self.method == "slerp":
            t = weights[-1] if len(weights) == 1 else weights[1] / (sum(weights) or 1.0)
            if not 0 <= t <= 1:
                return f"slerp: the weight says how far to go, from 0 to 1; found {t:g}"
        return None

    def _output(self) -> str | None:
        if self.output == "adapter" and self.rank is None:
            return "output: adapter needs rank"
        if self.output == "full" and self.rank is not None:
            return "rank belongs to output: adapter"
        if self.output == "adapter" and (self.method in OF_WEIGHTS or self.own):
            return f"{self.method} does not merge task vectors, so its result cannot be an adapter"
        return None


def is_folder(name: str) -> bool:
    """Tell whether a model's name is a folder: it begins like a path."""
    return name.startswith((".", "/", "~"))


def is_hub(name: str) -> bool:
    """Tell whether a model's name is one of the hub, owner/name."""
    return not is_folder(name) and _HUB.fullmatch(name) is not None


def _references(_: Sections, parameters: Any) -> list[DataReference]:
    """Return the folders and hub models that a merge reads."""
    found = []
    for name in parameters.sources:
        path = "pipeline.base" if name == parameters.base else "pipeline.models"
        if is_folder(name):
            found.append(DataReference(kind="folder", name=name, path=path))
        elif is_hub(name):
            found.append(DataReference(kind="hub", name=name, path=path, repository="model"))
    return found


def _check(_: Sections, parameters: Any, needs: tuple[str, ...] | None) -> list[Complaint]:
    """Complain about names that lead nowhere, and needs that nothing reads."""
    stages = [n for n in parameters.sources if not is_folder(n) and not is_hub(n) and n != LOADED]
    if needs is None:
        return []
    found = []
    for name in stages:
        if name not in needs:
            path = "base" if name == parameters.base else f"models[{_position(parameters, name)}].model"
            known = ", ".join(needs) or "none"
            message = f"{name!r} is no stage this one needs ({known}), no folder (./name) and no hub name (owner/name)"
            found.append(Complaint(path=path, message=message, suggestion=nearest(name, needs)))
    return found


def _position(parameters: Any, name: str) -> int:
    return next(i for i, each in enumerate(parameters.models) if each.model == name)


def _files(_: Sections, parameters: Any) -> list[str]:
    """Return the code file of a method of one's own."""
    return [parameters.method.rpartition(":")[0]] if parameters.own else []


def _seeded(_: Sections, parameters: Any) -> bool:
    """Tell whether a merge draws from the seed."""
    return parameters.own or parameters.method in RANDOM


MERGE = StageSpec(
    kind="merge",
    parameters=Merge,
    run="ablab.worker.stages.merge:run",
    seeded=_seeded,
    references=_references,
    files=_files,
    check=_check,
    summary="merge models or adapters into one",
)
