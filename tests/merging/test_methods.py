"""Every method against its definition written down plainly in numpy, on whole tensors, in fp64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablab.merging.methods import dare, della, selection, ties
from tests.merging.conftest import Merging, Tensors, plain

WEIGHTS = {"a": 0.6, "b": 0.3, "c": -0.2}


def models(names: str = "abc", **extra: float) -> list[dict[str, object]]:
    return [{"model": name, "weight": WEIGHTS[name], **extra} for name in names]


def deltas(originals: dict[str, Tensors], name: str, names: str = "abc") -> list[np.ndarray]:
    return [plain(originals[m][name]) - plain(originals["base"][name]) for m in names]


def floats(originals: dict[str, Tensors]) -> list[str]:
    return [name for name, value in originals["base"].items() if value.is_floating_point()]


def largest(delta: np.ndarray, density: float) -> np.ndarray:
    """Keep the k largest magnitudes, the first of equal ones."""
    flat = delta.ravel()
    kept = np.argsort(-np.abs(flat), kind="stable")[: max(1, int(density * flat.size))]
    out = np.zeros_like(flat)
    out[kept] = flat[kept]
    return out.reshape(delta.shape)


def elected(vectors: list[np.ndarray], weights: list[float], *, normalize: bool) -> np.ndarray:
    weighted = np.stack([w * v for w, v in zip(weights, vectors, strict=True)])
    sign = np.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agrees = np.sign(weighted) == sign
    total = (weighted * agrees).sum(0)
    if normalize:
        divisor = (np.array(weights).reshape(-1, *[1] * sign.ndim) * agrees).sum(0)
        total = total / np.where(divisor == 0, 1.0, divisor)
    return total


@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_the_weighted_mean(merge: Merging, originals: dict[str, Tensors], normalize: bool) -> None:
    found, _ = merge(method="linear", models=models(), normalize=normalize)
    for name in floats(originals):
        wanted = sum(w * plain(originals[m][name]) for m, w in WEIGHTS.items())
        wanted = wanted / sum(WEIGHTS.values()) if normalize else wanted
        np.testing.assert_allclose(plain(found[name]), wanted, atol=2e-6)


@pytest.mark.parametrize("normalize", [None, True])
def test_task_arithmetic_adds_task_vectors(
    merge: Merging, originals: dict[str, Tensors], normalize: bool | None
) -> None:
    found, report = merge(method="task-arithmetic", base="base", models=models(), normalize=normalize, scale=0.5)
    for name in floats(originals):
        total = sum(w * d for w, d in zip(WEIGHTS.values(), deltas(originals, name), strict=True))
        total = total / sum(WEIGHTS.values()) if normalize else total
        np.testing.assert_allclose(plain(found[name]), plain(originals["base"][name]) + 0.5 * total, atol=1e-6)
    square = sum((deltas(originals, name)[0] ** 2).sum() for name in floats(originals))
    assert report.deltas["a"] == pytest.approx(square**0.5, rel=1e-5)


@pytest.mark.parametrize(("t", "ends"), [(0.3, "ba"), (0.75, "ab")])
def test_slerp_goes_along_the_arc(merge: Merging, originals: dict[str, Tensors], t: float, ends: str) -> None:
    if ends == "ba":
        found, _ = merge(method="slerp", base="base", models=[{"model": "a", "weight": t}])
        first, second = originals["base"], originals["a"]
    else:
        found, _ = merge(method="slerp", models=[{"model": "a", "weight": 1}, {"model": "b", "weight": 3}])
        first, second = originals["a"], originals["b"]
    for name in floats(originals):
        a, b = plain(first[name]), plain(second[name])
        cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        if abs(cosine) > 0.9995:
            wanted = (1 - t) * a + t * b
        else:
            angle = np.arccos(cosine)
            wanted = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        np.testing.assert_allclose(plain(found[name]), wanted, atol=2e-6)


def test_slerp_of_orthogonal_tensors_keeps_the_norm() -> None:
    from ablab.merging.methods.slerp import coefficients, products, slerp

    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    halfway = slerp(a.clone(), b, coefficients(0.5, products(a, b)))
    torch.testing.assert_close(halfway, torch.full((2,), 0.5**0.5))


@pytest.mark.parametrize("normalize", [None, False])
@pytest.mark.parametrize("density", [0.2, 0.013, 1.0])
def test_ties_trims_elects_and_merges(
    merge: Merging, originals: dict[str, Tensors], density: float, normalize: bool | None
) -> None:
    found, _ = merge(method="ties", base="base", models=models(density=density), normalize=normalize)
    for name in floats(originals):
        # The same fp32 differences: the border must fall between the same entries.
        own = [(originals[m][name] - originals["base"][name]).double().numpy() for m in "abc"]
        vectors = [largest(delta, density) for delta in own]
        merged = elected(vectors, list(WEIGHTS.values()), normalize=normalize is None)
        wanted = plain(originals["base"][name]) + merged
        # Near a sum of zero the sign hangs on rounding.
        close = np.isclose(plain(found[name]), wanted, atol=2e-6)
        assert (~close).sum() <= 1, name


@pytest.mark.parametrize("values", ["normal", "few", "zeros", "rows"])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.9])
def test_exactly_the_largest_stay_whatever_the_values(values: str, density: float) -> None:
    generator = torch.Generator().manual_seed(3)
    delta = torch.randn(1500, 1000, generator=generator)
    if values == "few":
        delta = delta.mul(2).round().div(2)
    elif values == "zeros":
        delta = delta * (torch.rand(delta.shape, generator=generator) < 0.1)
    elif values == "rows":
        # What the sample sees of each block tells nothing about the rest of it.
        delta = delta * torch.arange(1500)[:, None].remainder(48).lt(3).float().mul(99).add(1)
    wanted = largest(delta.numpy(), density)
    np.testing.assert_array_equal(ties.trim(delta.clone(), density).numpy(), wanted)


def test_a_sample_that_misleads_is_noticed() -> None:
    cut = selection.Cut.of(selection.WHOLE * 2, 0.5)
    assert cut is not None and cut.sampled
    first = torch.full((selection.WHOLE,), 5.0)
    second = torch.arange(1, selection.WHOLE + 1).float() / selection.WHOLE
    cut.tally(first[: cut.part(first.numel())])
    cut.bound()
    for start, block in ((0, first), (selection.WHOLE, second)):
        cut.collect(start, block * 0 + 0.001)
    assert not cut.settle() and not cut.sampled
    for block in (first, second):
        cut.tally(block[: cut.part(block.numel())])
    cut.bound()
    for start, block in ((0, first), (selection.WHOLE, second)):
        cut.collect(start, block)
    assert cut.settle() and cut.value == 5.0


def test_dare_keeps_the_expectation_and_the_density(merge: Merging, originals: dict[str, Tensors]) -> None:
    found, _ = merge(method="dare-linear", base="base", models=[{"model": "a", "density": 0.1}])
    moved = (found["embed.weight"] - originals["base"]["embed.weight"]).double()
    delta = (originals["a"]["embed.weight"] - originals["base"]["embed.weight"]).double()
    stays = moved != 0
    count = delta.numel()
    # Four standard deviations of a binomial.
    assert abs(float(stays.double().mean()) - 0.1) < 4 * (0.09 / count) ** 0.5
    chance = dare.chance(0.1)
    torch.testing.assert_close(moved[stays], delta[stays] / chance, atol=1e-5, rtol=1e-4)
    assert abs(float((moved * delta).sum() / (delta * delta).sum()) - 1) < 0.05


def test_dare_ties_is_dare_then_the_election(merge: Merging, originals: dict[str, Tensors]) -> None:
    found, _ = merge(method="dare-ties", base="base", models=models("ab", density=0.5), seed=7)
    for name in floats(originals):
        vectors = []
        for index, delta in enumerate(deltas(originals, name, "ab")):
            bits = dare.draw_bits(7, name, index, 0, delta.size).reshape(delta.shape)
            vectors.append(np.where(bits < 32768, delta, 0) / 0.5)
        wanted = plain(originals["base"][name]) + elected(vectors, [0.6, 0.3], normalize=False)
        np.testing.assert_allclose(plain(found[name]), wanted, atol=2e-6)


def test_trim_after_the_drop_keeps_a_share_of_all(merge: Merging, originals: dict[str, Tensors]) -> None:
    drawn = {"method": "dare-linear", "base": "base", "seed": 3}
    found, _ = merge(**drawn, models=[{"model": "a", "density": 0.5, "trim": 0.2}])
    untrimmed, _ = merge(**drawn, models=[{"model": "a", "density": 0.5}])
    base = originals["base"]["embed.weight"]
    vector = (originals["a"]["embed.weight"] - base).numpy()
    dropped = np.where((untrimmed["embed.weight"] != base).numpy(), vector, 0)
    wanted = base.double().numpy() + largest(dropped, 0.2).astype(float) / 0.5
    np.testing.assert_allclose(plain(found["embed.weight"]), wanted, atol=2e-6)


def test_a_trim_beyond_the_density_changes_nothing(merge: Merging) -> None:
    drawn = {"method": "dare-linear", "base": "base"}
    trimmed, _ = merge(**drawn, models=[{"model": "a", "density": 0.1, "trim": 0.2}])
    untrimmed, _ = merge(**drawn, models=[{"model": "a", "density": 0.1}])
    assert all(torch.equal(trimmed[name], untrimmed[name]) for name in trimmed)


@pytest.mark.parametrize("method", ["dare-linear", "della-linear"])
def test_rescaling_by_the_l1_norm_keeps_it(merge: Merging, originals: dict[str, Tensors], method: str) -> None:
    found, _ = merge(method=method, base="base", rescale="l1", models=[{"model": "a", "density": 0.3}])
    for name in ("embed.weight", "layer.weight"):
        before = np.abs(deltas(originals, name, "a")[0]).sum()
        after = np.abs(plain(found[name]) - plain(originals["base"][name])).sum()
        assert after == pytest.approx(before, rel=1e-4)


def test_della_keeps_the_larger_more_often() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(4, 5, generator=generator)
    found = della.chances(delta, 0.5, 0.2)
    for row, chances in zip(delta, found, strict=True):
        ranks = row.abs().argsort().argsort().double()
        torch.testing.assert_close(chances.double(), 0.3 + 0.4 * ranks / 4, atol=1e-5, rtol=0)


def test_della_keeps_the_expectation() -> None:
    delta = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    total = torch.zeros_like(delta)
    rounds = 200
    for seed in range(rounds):
        bits = dare.draw_bits(seed, "x", 0, 0, delta.numel())
        total += della.drop_smallest(delta.clone(), bits, density=0.6, epsilon=0.3)
    assert float(((total / rounds) * delta).sum() / (delta * delta).sum()) == pytest.approx(1.0, abs=0.02)


def test_della_works_on_rows(merge: Merging, originals: dict[str, Tensors]) -> None:
    drawn = {"method": "della", "base": "base", "seed": 4, "normalize": False}
    found, _ = merge(**drawn, models=[{"model": "a", "density": 0.6, "epsilon": 0.3}])
    for name, columns in (("embed.weight", 301), ("layer.bias", 40)):
        base = originals["base"][name]
        delta = (originals["a"][name] - base).view(-1, columns)
        bits = dare.draw_bits(4, name, 0, 0, delta.numel())
        wanted = della.drop_smallest(delta.clone(), bits, density=0.6, epsilon=0.3)
        torch.testing.assert_close(found[name], base + wanted.view(base.shape))


def test_bits_of_a_part_are_a_part_of_the_bits() -> None:
    whole = dare.draw_bits(5, "x", 1, 0, 200_000)
    for start, stop in ((0, 10), (65_530, 65_540), (3, 131_075), (199_999, 200_000)):
        np.testing.assert_array_equal(dare.draw_bits(5, "x", 1, start, stop), whole[start:stop])
    assert not np.array_equal(whole, dare.draw_bits(5, "x", 0, 0, 200_000))
    assert not np.array_equal(whole, dare.draw_bits(5, "y", 1, 0, 200_000))
    assert abs(whole.mean() - 32767.5) < 4 * 65536 / 12**0.5 / 200_000**0.5
