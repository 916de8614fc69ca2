"""The loss that knows ids, against its definition, and the recall it logs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ablab.models.contrastive import cross_entropy, first_is_positive, positive_mask


def test_positives_are_told_by_id() -> None:
    positives = torch.tensor([[5, -1], [7, 9], [9, 5]])
    candidates = torch.tensor([5, 7, 9, 5])
    found = positive_mask(positives, candidates)
    assert found.tolist() == [[True, False, False, True], [False, True, True, False], [True, False, True, True]]
    assert not positive_mask(torch.tensor([[-1]]), torch.tensor([-1])).any()


def test_without_repeats_it_is_plain_cross_entropy() -> None:
    scores = torch.randn(6, 9)
    own = torch.arange(6)
    expected = F.cross_entropy(scores, own, reduction="none")
    for repeats in ("positive", "ignored", "negative"):
        nothing = torch.zeros(6, 9, dtype=torch.bool)
        torch.testing.assert_close(cross_entropy(scores, own, nothing, repeats=repeats), expected)


def test_a_repeated_positive_makes_a_soft_target_by_loops() -> None:
    scores, own = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    positive = torch.rand(4, 6) < 0.4
    for row in range(4):
        total = math.log(sum(math.exp(value) for value in scores[row].tolist()))
        targets = {own[row].item(), *positive[row].nonzero().flatten().tolist()}
        wanted = sum(total - scores[row, j].item() for j in targets) / len(targets)
        found = cross_entropy(scores, own, positive)[row].item()
        assert found == pytest.approx(wanted, abs=1e-5)
        left = [j for j in range(6) if j == own[row].item() or j not in targets]
        alone = math.log(sum(math.exp(scores[row, j].item()) for j in left)) - scores[row, own[row]].item()
        assert cross_entropy(scores, own, positive, repeats="ignored")[row].item() == pytest.approx(alone, abs=1e-5)
        false = total - scores[row, own[row]].item()
        assert cross_entropy(scores, own, positive, repeats="negative")[row].item() == pytest.approx(false, abs=1e-5)


def test_ignored_repeats_leave_finite_gradients() -> None:
    scores = torch.randn(3, 3, requires_grad=True)
    cross_entropy(scores, torch.arange(3), torch.ones(3, 3, dtype=torch.bool), repeats="ignored").sum().backward()
    assert scores.grad is not None and scores.grad.eq(0).all()


def test_recall_of_random_scores_is_chance() -> None:
    """The released code of this line of work counts candidates that are anyone's best: 0.63 for random scores."""
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(400):
        scores = torch.randn(64, 64, generator=generator)
        rates.append(first_is_positive(scores, torch.arange(64), torch.zeros(64, 64, dtype=torch.bool)).double().mean())
    assert torch.stack(rates).mean().item() == pytest.approx(1 / 64, abs=0.004)
    inflated = torch.zeros(64).scatter(0, scores.argmax(1), 1.0).mean()
    assert inflated > 0.5


def test_any_positive_counts_as_found() -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0]])
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert not first_is_positive(scores, torch.tensor([0]), none).item()
    assert first_is_positive(scores, torch.tensor([0]), torch.tensor([[False, True, False]])).item()
