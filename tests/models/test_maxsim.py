"""MaxSim in blocks against loops and autograd over the naive tensor."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ablab.models.maxsim import maxsim


def naive(queries: Tensor, passages: Tensor, query_mask: Tensor | None, passage_mask: Tensor | None) -> Tensor:
    products = torch.einsum("bqd,npd->bnqp", queries, passages)
    if passage_mask is not None:
        products = products.masked_fill(~passage_mask[None, :, None], -torch.inf)
    best = products.amax(-1)
    if query_mask is not None:
        best = best.masked_fill(~query_mask[:, None], 0.0)
    return best.sum(-1)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.tuples(*[st.integers(1, 7)] * 5),
    block=st.sampled_from([1, 30, 200, 1 << 22]),
    masks=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 1000),
)
def test_scores_and_gradients_are_those_of_the_naive_tensor(sizes, block, masks, seed) -> None:
    rows, columns, tall, wide, width = sizes
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(rows, tall, width, generator=generator, requires_grad=True)
    passages = torch.randn(columns, wide, width, generator=generator, requires_grad=True)
    query_mask = torch.rand(rows, tall, generator=generator) < 0.6 if masks[0] else None
    passage_mask = torch.rand(columns, wide, generator=generator) < 0.6 if masks[1] else None
    if passage_mask is not None:
        passage_mask[:, 0] = True
    weights = torch.randn(rows, columns, generator=generator)
    expected = naive(queries, passages, query_mask, passage_mask)
    found = maxsim(queries, passages, query_mask=query_mask, passage_mask=passage_mask, block=block)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad((expected * weights).sum(), (queries, passages))
    given_ = torch.autograd.grad((found * weights).sum(), (queries, passages))
    for mine, theirs in zip(given_, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_padding_never_wins_and_a_passage_of_nothing_is_infinitely_far() -> None:
    queries = -torch.ones(1, 2, 3)
    passages = torch.cat([torch.ones(1, 1, 3), torch.zeros(1, 1, 3)], dim=1)
    padded = torch.tensor([[True, False]])
    assert maxsim(queries, passages).item() == 0.0
    assert maxsim(queries, passages, passage_mask=padded).item() == -6.0
    assert maxsim(queries, passages, passage_mask=torch.zeros(1, 2, dtype=torch.bool)).item() == -torch.inf
    assert maxsim(queries, passages, query_mask=torch.zeros(1, 2, dtype=torch.bool)).item() == 0.0


def test_more_vectors_than_a_byte_counts() -> None:
    queries = torch.randn(2, 1, 5, requires_grad=True)
    passages = torch.randn(2, 300, 5)
    maxsim(queries, passages).sum().backward()
    best = (queries @ passages.transpose(1, 2)[:, None].reshape(2, 5, 300)).argmax(-1)
    assert queries.grad is not None and best.shape == (2, 1)
    expected = torch.stack(
        [sum(passages[n, (passages[n] @ queries[b, 0]).argmax()] for n in range(2)) for b in range(2)]
    )
    torch.testing.assert_close(queries.grad[:, 0], expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected queries"):
        maxsim(torch.zeros(2, 3), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="passage_mask: expected bool"):
        maxsim(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), passage_mask=torch.ones(2, 3))


MEASURE = """
import resource, torch
from ablab.models.maxsim import maxsim
torch.set_num_threads(1)
q, p = (torch.nn.functional.normalize(torch.randn(256, 32, 16), dim=2).requires_grad_() for _ in range(2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
torch.nn.functional.cross_entropy(maxsim(q, p, block=1 << 20), torch.arange(256)).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_the_loss_takes_a_tenth_of_the_naive_tensor_at_most() -> None:
    naive_bytes = 256 * 256 * 32 * 32 * 4
    out = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120)
    assert int(out.stdout) <= naive_bytes / 10
