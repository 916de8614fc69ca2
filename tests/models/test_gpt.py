from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from ablab.contract.failure import DataError
from ablab.models.gpt import GPT, Shape, is_query_key, parameter_count

SMALL = Shape(vocabulary=97, width=32, layers=3, heads=4, hidden=128, context=16)
MEDIUM = Shape(vocabulary=50257, width=512, layers=6, heads=8, hidden=2048, context=512)
ARMS = [
    "trained", "trained-orthogonal", "frozen-orthogonal", "frozen-global-orthogonal", "frozen-normal", "identity-query",
]  # fmt: skip


def arm(query_key: str, **changes: object) -> Shape:
    return dataclasses.replace(SMALL, query_key=query_key, **changes)


def tokens(batch: int = 2, length: int = 16, *, vocabulary: int = 97) -> tuple[Tensor, Tensor]:
    stream = torch.randint(0, vocabulary, (batch, length + 1), generator=torch.Generator().manual_seed(5))
    return stream[:, :-1], stream[:, 1:]


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    """The plainly written GPT that benchmarks/step.py measures against: a second implementation."""
    path = Path(__file__).parents[2] / "benchmarks" / "plain_gpt.py"
    spec = importlib.util.spec_from_file_location("plain_gpt", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_gpt"] = module
    spec.loader.exec_module(module)
    return module


def test_loss_and_gradients_equal_the_plainly_written_model(peer: ModuleType) -> None:
    model = GPT(SMALL, seed=1)
    plain = peer.PlainGPT(vocabulary=97, width=32, layers=3, heads=4, context=16, dropout=0.0)
    plain.load_state_dict(model.state_dict())
    inputs, targets = tokens()
    expected = plain(inputs, targets)
    found = model(inputs, targets) / targets.numel()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    expected.backward()
    found.backward()
    wanted = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_medium_has_the_parameters_and_checkpoint_sizes_of_the_log() -> None:
    counts = {}
    with torch.device("meta"):
        for query_key in ("trained", "frozen-orthogonal"):
            shape = dataclasses.replace(MEDIUM, query_key=query_key)
            model = GPT.__new__(GPT)
            torch.nn.Module.__init__(model)
            model.build(shape)
            counts[query_key] = model
    total = parameter_count(counts["trained"].parameters())
    held = sum(p.numel() for name, p in counts["trained"].named_parameters() if is_query_key(name))
    assert (total, held) == (44_896_768, 3_145_728)
    # fp32 weights with Adam's two moments of what is trained: the log's 514 and 490 MB.
    assert total * 12 / 2**20 == pytest.approx(513.8, abs=0.05)
    assert (total * 4 + (total - held) * 8) / 2**20 == pytest.approx(489.8, abs=0.05)
    # ... and with the frozen matrices as a seed.
    assert (total - held) * 12 / 2**20 == pytest.approx(477.8, abs=0.05)


@pytest.mark.parametrize("query_key", ARMS)
def test_arms_start_equal_in_all_they_share(query_key: str) -> None:
    base, other = GPT(SMALL, seed=4).state_dict(), GPT(arm(query_key), seed=4).state_dict()
    shared = [name for name in base if name in other and not is_query_key(name)]
    assert len(shared) == len(base) - 2 * SMALL.layers
    assert all(torch.equal(base[name], other[name]) for name in shared)
    assert not torch.equal(base["tokens.weight"], GPT(SMALL, seed=5).state_dict()["tokens.weight"])


@pytest.mark.parametrize("query_key", ARMS)
def test_what_is_frozen_stays_and_all_else_moves(query_key: str) -> None:
    model = GPT(arm(query_key), seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(*tokens()).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        frozen = query_key.startswith("frozen") and is_query_key(name)
        assert torch.equal(before[name], parameter) is frozen, name


def test_the_last_layers_can_stay_trained() -> None:
    model = GPT(arm("frozen-orthogonal", unfrozen_layers=1), seed=0)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {f"blocks.{i}.attention.{part}.weight" for i in (0, 1) for part in ("query", "key")}
    whole = GPT(arm("frozen-orthogonal"), seed=0)
    assert torch.equal(whole.blocks[2].attention.query.weight, model.blocks[2].attention.query.weight)


def test_head_blocks_of_the_frozen_arm_are_orthonormal() -> None:
    weight = GPT(arm("frozen-orthogonal"), seed=0).blocks[1].attention.query.weight
    for block in weight.view(4, 8, 32):
        assert (block @ block.T - torch.eye(8)).norm() < 1e-5


def test_initial_logit_scale_of_each_arm_is_the_logs() -> None:
    """Orthogonal 0.99, N(0, 0.02) 0.21, N(0, 1/d) 1.01: what the log's comparison confounded."""
    inputs, _ = tokens(1, 256, vocabulary=1000)
    shape = dataclasses.replace(MEDIUM, vocabulary=1000, layers=1)
    scales = {}
    for name, query_key, scale in (
        ("orthogonal", "frozen-orthogonal", None),
        ("random", "frozen-normal", 0.02),
        ("matched", "frozen-normal", None),
        ("trained", "trained", None),
    ):
        model = GPT(dataclasses.replace(shape, query_key=query_key, query_key_scale=scale), seed=1)
        scales[name] = model.attention_logits(inputs)[0].std().item()
    assert scales["orthogonal"] == pytest.approx(0.99, abs=0.06)
    assert scales["random"] == pytest.approx(0.208, abs=0.02)
    assert scales["matched"] == pytest.approx(1.011, abs=0.08)
    assert scales["random"] == pytest.approx(scales["trained"], rel=1e-5)


def test_zero_attention_output_makes_a_token_see_itself_only() -> None:
    model = GPT(dataclasses.replace(SMALL, attention_output="zero"), seed=0).eval()
    inputs, targets = tokens()
    changed = inputs.clone()
    changed[:, :8] = 3
    assert torch.equal(model.nats(inputs, targets)[:, 8:], model.nats(changed, targets)[:, 8:])
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".attention." in name)
    assert torch.count_nonzero(model.blocks[0].attention.output.weight) == 0
    whole = GPT(SMALL, seed=0)
    assert parameter_count(model.parameters()) == parameter_count(whole.parameters())


def test_identity_query_has_no_query_weight() -> None:
    model = GPT(arm("identity-query"), seed=0)
    assert not [name for name, _ in model.named_parameters() if ".query." in name]
    x = torch.randn(1, 16, 32)
    attention = model.blocks[0].attention
    expected = attention.split(x) @ attention.split(attention.key(x)).transpose(-1, -2) / 8**0.5
    torch.testing.assert_close(attention.logits(x), expected)


@pytest.mark.parametrize("query_key", ["frozen-orthogonal", "frozen-global-orthogonal", "frozen-normal"])
def test_frozen_projections_come_back_from_their_recipe(query_key: str) -> None:
    model = GPT(arm(query_key), seed=11, store_frozen="seed")
    recipes = model.regenerable()
    assert len(recipes) == 2 * SMALL.layers
    other = GPT(arm(query_key), seed=12, store_frozen="seed")
    for name, recipe in recipes.items():
        assert torch.equal(other.regenerate(name, recipe), model.get_parameter(name))
    assert GPT(arm(query_key), seed=11).regenerable() == {}


def test_a_recipe_of_another_initialisation_is_refused() -> None:
    recipes = GPT(arm("frozen-normal"), seed=1, store_frozen="seed").regenerable()
    name, recipe = next(iter(recipes.items()))
    with pytest.raises(DataError, match="frozen-normal"):
        GPT(arm("frozen-orthogonal"), seed=1).regenerate(name, recipe)
    with pytest.raises(DataError, match="not a query"):
        GPT(arm("frozen-normal"), seed=1).regenerate("tokens.weight", recipe)


@pytest.mark.parametrize("changes", [{}, {"bias": False}, {"attention_bias": True}, {"tied_head": False}])
def test_options_change_what_they_say(changes: dict[str, bool]) -> None:
    shape = dataclasses.replace(SMALL, **changes)
    model = GPT(shape, seed=0)
    names = {name for name, _ in model.named_parameters()}
    assert ("blocks.0.feedforward.up.bias" in names) is shape.bias
    assert ("norm.bias" in names) is shape.bias
    assert ("blocks.0.attention.value.bias" in names) is shape.attention_bias
    assert ("head.weight" in names) is not shape.tied_head
    model(*tokens()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_gradient_checkpointing_changes_memory_only() -> None:
    inputs, targets = tokens()
    gradients = []
    for recompute in (False, True):
        model = GPT(dataclasses.replace(SMALL, dropout=0.2), seed=0)
        if recompute:
            model.gradient_checkpointing_enable()
        torch.manual_seed(3)
        model(inputs, targets).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_nats_sum_to_the_loss_and_logits_normalise_to_them() -> None:
    model = GPT(SMALL, seed=0).eval()
    inputs, targets = tokens()
    nats = model.nats(inputs, targets)
    torch.testing.assert_close(nats.sum(), model(inputs, targets).detach(), rtol=1e-5, atol=1e-5)
    last = model.logits(inputs).log_softmax(-1).gather(1, targets[:, -1:]).squeeze(1)
    torch.testing.assert_close(nats[:, -1], -last, rtol=1e-5, atol=1e-5)


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="context of 16"):
        GPT(SMALL, seed=0).hidden(torch.zeros(1, 17, dtype=torch.int64))


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_compiled_it_is_the_same_model_in_one_graph(p: float) -> None:
    inputs, targets = tokens()
    shape = dataclasses.replace(SMALL, layers=1, dropout=p)
    losses, gradients = [], []
    for compiled in (False, True):
        model = GPT(shape, seed=0)
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        torch.manual_seed(3)
        loss = run(inputs, targets)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    # With dropout the draws are others: losses stay near, gradients point the same way (unrelated ones differ by 1.4).
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5 if p == 0.0 else 0.02, atol=0)
    error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert error < (1e-4 if p == 0.0 else 0.9)
