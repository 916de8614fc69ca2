import math

import numpy as np
import pytest
import torch

from ablab.contract.failure import NotFiniteError
from ablab.training.batches import StepBatch
from ablab.training.distribution import World
from ablab.training.guard import Ledger, MicroSums
from ablab.training.state import Sums


def batch(step, *ids):
    return StepBatch(step=step, offset=0, ids=np.array(ids), micros=(), weights=(), sizes=())


def micro(loss, **terms):
    sums = MicroSums()
    sums.add(torch.tensor(loss, requires_grad=True), {name: torch.tensor(value) for name, value in terms.items()})
    return sums


def ledger(*, later, scaled=False):
    made = Ledger(Sums(), device=torch.device("cpu"), world=World(), scaled=scaled)
    # What a GPU does, without one: records wait until they are read.
    made._later = later
    return made


@pytest.mark.parametrize("later", [False, True])
def test_a_line_averages_by_weight_and_begins_anew(later):
    book = ledger(later=later)
    book.add(batch(0, 1), 4.0, micro(8.0, hits=2), torch.tensor(1.0))
    book.add(batch(1, 2), 1.0, micro(7.0, hits=1), torch.tensor(3.0))
    assert book.open
    assert book.line() == {"loss": 3.0, "hits": 0.6, "grad_norm": 2.0}
    assert not book.open and book.sums == Sums()


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_bad_step_is_named_at_once_or_when_it_is_read(loss, norm):
    for later in (False, True):
        book = ledger(later=later)
        with pytest.raises(NotFiniteError, match=r"step 1: .*samples of the batch: 7, 9") as caught:
            book.add(batch(0, 5, 6), 2.0, micro(1.0), torch.tensor(1.0))
            book.add(batch(1, 7, 9), 2.0, micro(loss), torch.tensor(norm))
            assert later
            book.add(batch(2, 1, 2), 2.0, micro(math.nan), torch.tensor(math.nan))
            book.read()
        assert caught.value.detail["step"] == 1 and caught.value.detail["samples"] == [7, 9]


def test_an_overflow_under_loss_scaling_is_no_failure():
    book = ledger(later=True, scaled=True)
    book.add(batch(0, 1), 1.0, micro(2.0), torch.tensor(math.inf))
    book.read()
    assert book.sums.loss == 2.0
    book.add(batch(1, 1), 1.0, micro(math.nan), torch.tensor(math.inf))
    with pytest.raises(NotFiniteError, match="step 1"):
        book.read()


def test_sums_of_micro_batches_hold_no_graph():
    sums = micro(1.0)
    sums.add(torch.tensor(2.0, requires_grad=True) * 2, {"new": torch.tensor(1)})
    assert sums.loss.item() == 5.0 and not sums.loss.requires_grad and sums.terms["new"].item() == 1
