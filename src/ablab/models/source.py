"""Where the weights of a model came from, so that a checkpoint need not hold what never trained.

A model loaded by name carries a `Source` on its outermost module. Frozen tensors below that module are the very ones
it was built with, unless a checkpoint was loaded over them: `ablab.training.weights` leaves them out of its files,
keeps a digest of each, and holds the model that is built again against those digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch import nn

_ATTRIBUTE = "ablab_source"


@dataclass(kw_only=True)
class Source:
    """What a module's weights were before any training of ours.

    Args:
        text: where from, for people: name@revision, a folder, a stage, or a configuration and its seed.
        overwritten: names of tensors, below the module, that hold something else by now.
        digests: digest of a tensor by name, with the memory and version it was taken of.
    """

    text: str
    overwritten: set[str] = field(default_factory=set)
    digests: dict[str, tuple[int, int, str]] = field(default_factory=dict)


def set_source(module: nn.Module, text: str) -> None:
    """Note where the weights of a module came from; parameters added to it later (adapters) train, and are stored."""
    setattr(module, _ATTRIBUTE, Source(text=text))


def sources(model: nn.Module) -> Iterator[tuple[str, Source]]:
    """Yield (prefix, source) of the modules that carry one; a prefix is empty or ends with a dot."""
    for name, module in model.named_modules():
        found = getattr(module, _ATTRIBUTE, None)
        if isinstance(found, Source):
            yield f"{name}." if name else "", found


def plain_name(name: str) -> str:
    """Return the name a tensor has without adapters beside it."""
    return name.replace(".base_layer.", ".")


def source_of(name: str, found: Iterable[tuple[str, Source]]) -> Source | None:
    """Return the source of the tensor `name` among (prefix, source); None where it has none or was overwritten."""
    for prefix, source in found:
        if name.startswith(prefix) and plain_name(name.removeprefix(prefix)) not in source.overwritten:
            return source
    return None


def mark_overwritten(model: nn.Module, names: Iterable[str]) -> None:
    """Note that tensors of these names no longer hold what the model was built with."""
    wanted = list(names)
    for prefix, source in sources(model):
        source.overwritten |= {plain_name(name.removeprefix(prefix)) for name in wanted if name.startswith(prefix)}


def mark_moved(model: nn.Module, before: str, after: Iterable[str]) -> None:
    """Note that the tensors below a name stand below others now: what was overwritten is so there too."""
    places = list(after)
    for prefix, source in sources(model):
        old = [name for name in source.overwritten if f"{prefix}{name}".startswith(f"{before}.")]
        for name in old:
            rest = f"{prefix}{name}".removeprefix(f"{before}.")
            source.overwritten |= {f"{place}.{rest}".removeprefix(prefix) for place in places}
