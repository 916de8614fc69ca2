"""Which parameters moved in the first steps of a run, told without copying any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ablab.training.facts import FirstSteps, movement, snapshot


class Parts(nn.Module):
    """A part that trains, one that is frozen, one that nothing uses, and an adapter that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.trains, self.frozen, self.unused = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.down, self.up = nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False)
        nn.init.zeros_(self.up.weight)
        self.frozen.requires_grad_(False)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.frozen(self.trains(given)) + self.up(self.down(given))
        return found


def steps(model: Parts, *, meddle: bool = False, warmup: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    torch.manual_seed(0)
    before, first = snapshot(model), FirstSteps(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.0)
    for step in range(10):
        if first.done:
            break
        rate = 0.1 * min(1.0, step / warmup) if warmup else 0.1
        optimizer.param_groups[0]["lr"] = rate
        model(torch.randn(4, 3)).square().sum().backward()
        first.look(rate=rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if meddle:
            with torch.no_grad():
                model.frozen.bias.add_(1.0)
    return first.facts(), movement(before, model)


def test_it_tells_what_copies_tell() -> None:
    told, copied = steps(Parts())
    assert told == {"moved.still": ["unused.weight", "unused.bias"], "moved.frozen": []}
    assert {name: copied[name] for name in told} == told
    told, copied = steps(Parts(), meddle=True)
    assert told["moved.frozen"] == copied["moved.frozen"] == ["frozen.bias"]


def test_a_step_of_a_warm_up_at_rate_zero_tells_nothing_of_adapters() -> None:
    told, copied = steps(Parts(), warmup=4)
    assert told["moved.still"] == copied["moved.still"] == ["unused.weight", "unused.bias"]


def test_every_run_tells_it_once(run_train: Callable[..., Any]) -> None:
    outcome, _ = run_train()
    assert outcome.facts["moved.still"] == [] and outcome.facts["moved.frozen"] == []
    short, _ = run_train("short", steps=1)
    assert "moved.still" not in short.facts
