"""Language experts: equal to what they replace, losses that reach the routers, and loaded as they were saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ablab.contract.experts import ExpertSettings
from ablab.contract.failure import ConfigError, DataError
from ablab.models import experts as subject
from ablab.models.experts import add_experts, auxiliary_losses, expert_layers, fill_expert, set_languages
from ablab.models.source import mark_overwritten, set_source
from ablab.training.weights import load_weights, save_weights

SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)).eval()


def qwen() -> Any:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8)).eval()


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2, n_positions=16)).eval()


def settings(**given: Any) -> ExpertSettings:
    return ExpertSettings(**{"layers": (0, 2), "hidden": 8, **given})


TOKENS = torch.randint(0, 50, (4, 7), generator=torch.Generator().manual_seed(1))
LANGUAGES = torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize("routing", ["dense", "top-1", "top-2"])
@pytest.mark.parametrize("adapters", [None, 3], ids=["whole", "low-rank"])
@pytest.mark.parametrize("make", [llama, qwen, gpt2])
@torch.no_grad()
def test_equal_experts_compute_what_the_layer_did(make: Any, routing: str, adapters: int | None) -> None:
    model = make()
    wanted = model(TOKENS).logits
    add_experts(model, settings(routing=routing, adapters=adapters), seed=1)
    set_languages(model, LANGUAGES)
    torch.testing.assert_close(model(TOKENS).logits, wanted, atol=1e-5, rtol=1e-5)


def differ(model: Any) -> None:
    """Make all experts and routers different."""
    generator = torch.Generator().manual_seed(5)
    for _, layer in expert_layers(model):
        for parameter in layer.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def reference(layer: Any, hidden: torch.Tensor, language: torch.Tensor) -> torch.Tensor:
    """The definition token by token, in fp64, for two languages."""
    layer = copy.deepcopy(layer).double()
    out = torch.zeros_like(hidden)
    for b, t in ((b, t) for b in range(hidden.size(0)) for t in range(hidden.size(1))):
        h = hidden[b, t]
        flagged = torch.cat([h, language[b].double().view(1)])
        first, second = layer.router.first, layer.router.second
        scores = second.weight @ torch.relu(first.weight @ flagged + first.bias) + second.bias
        weights = torch.softmax(scores / layer.settings.temperature, 0)
        chosen = weights.argsort(descending=True)[: layer.settings.active]
        for e in chosen.tolist():
            out[b, t] += weights[e] / weights[chosen].sum() * layer.experts[e](h)
    return out


@pytest.mark.parametrize("routing", ["dense", "top-1", "top-2"])
@torch.no_grad()
def test_mixtures_are_their_definition(routing: str) -> None:
    model = llama().double()
    add_experts(model, settings(routing=routing, temperature=0.5), seed=1)
    differ(model)
    set_languages(model, LANGUAGES)
    _, layer = next(expert_layers(model))
    hidden = torch.randn(4, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(layer(hidden), reference(layer, hidden, LANGUAGES), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_low_rank_experts_add_to_each_matrix() -> None:
    model = llama()
    add_experts(model, settings(adapters=2, layers=(1,), routing="top-1"), seed=1)
    differ(model)
    _, layer = next(expert_layers(model))
    hidden = torch.randn(1, 5, 16)
    set_languages(model, torch.tensor([1]))
    scores = layer.router(hidden, torch.ones(1, 5, dtype=torch.long))
    for t, expert in enumerate(scores[0].argmax(-1).tolist()):
        whole = copy.deepcopy(layer.layer)
        for name in ("gate_proj", "up_proj", "down_proj"):
            matrix, own = whole.get_submodule(name), layer.experts[expert]
            matrix._forward_hooks.clear()
            matrix.weight.add_(own.up[name] @ own.down[name])
        torch.testing.assert_close(layer(hidden)[0, t], whole(hidden[0, t]), atol=1e-5, rtol=1e-4)


def train_once(model: Any, **options: Any) -> None:
    model.train()
    set_languages(model, LANGUAGES, **options)
    model(TOKENS)


def test_losses_are_their_definitions_and_reach_the_router() -> None:
    model = llama()
    add_experts(model, settings(layers=(1,), routing="top-2", balance=0.02, z=0.003), seed=1)
    differ(model)
    _, layer = next(expert_layers(model))
    seen: list[torch.Tensor] = []
    layer.router.register_forward_hook(lambda module, given, made: seen.append(made.detach().double()))
    mask = torch.ones(4, 7, dtype=torch.bool)
    mask[2, 3:] = False
    train_once(model, mask=mask)
    scores = seen[0][mask]
    weights = torch.softmax(scores, -1)
    chosen = weights.argsort(-1, descending=True)[:, :2]
    share = torch.stack([(chosen == e).any(-1).double().mean() / 2 for e in range(3)])
    found = {name: value for name, value in auxiliary_losses(model).items()}
    assert float(found["experts-balance"]) == pytest.approx(0.02 * 3 * float((share * weights.mean(0)).sum()), rel=1e-5)
    assert float(found["experts-z"]) == pytest.approx(
        0.003 * float(torch.logsumexp(scores, -1).square().mean()), rel=1e-5
    )
    loss = sum(found.values(), torch.zeros(()))
    gradient = subject.auxiliary_gradient(model, loss)
    loss.backward()
    norms = [p.grad.norm() for p in layer.router.parameters() if p.grad is not None]
    assert gradient == pytest.approx(float(torch.stack(norms).norm()), rel=1e-5)
    assert all(p.grad is not None and bool(p.grad.any()) for p in layer.router.parameters())


def test_a_balanced_router_has_a_balance_loss_of_its_weight() -> None:
    model = llama()
    add_experts(model, settings(layers=(1,), balance=0.01, z=0.0), seed=1)
    _, layer = next(expert_layers(model))
    torch.nn.init.zeros_(layer.router.second.weight)
    train_once(model)
    assert float(auxiliary_losses(model)["experts-balance"]) == pytest.approx(0.01)
    assert set(auxiliary_losses(model)) == {"experts-balance"}


def test_frozen_routers_are_told_by_the_gradient() -> None:
    model = llama()
    add_experts(model, settings(), seed=1)
    train_once(model)
    # Losses that are computed and never added train nothing, whatever their own gradient is.
    likelihood = model(TOKENS).logits.square().mean()
    assert subject.auxiliary_gradient(model, likelihood) == 0.0
    train_once(model)
    loss = sum(auxiliary_losses(model).values(), torch.zeros(()))
    assert subject.auxiliary_gradient(model, likelihood.detach() + loss) > 0
    for _, layer in expert_layers(model):
        layer.router.requires_grad_(False)
    assert subject.auxiliary_gradient(model, loss) == 0.0
    silent = llama()
    add_experts(silent, settings(balance=0.0, z=0.0), seed=1)
    train_once(silent)
    assert subject.auxiliary_gradient(silent, torch.zeros(())) is None


@pytest.mark.parametrize("routing", ["dense", "top-1", "top-2"])
def test_the_likelihood_trains_routers_and_experts_alone(routing: str) -> None:
    model = llama()
    add_experts(model, settings(routing=routing), seed=1)
    differ(model)
    subject.train_experts_only(model)
    train_once(model)
    model(TOKENS, labels=TOKENS).loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved and all(".mlp.router." in name or ".mlp.experts." in name for name in moved)
    assert any(".router." in name for name in moved)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = llama()
        add_experts(model, settings(layers=(1,)), seed=1)
        differ(model)
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        set_languages(model, LANGUAGES)
        loss = model(TOKENS, labels=TOKENS, use_cache=False).loss + sum(auxiliary_losses(model).values())
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_language_reaches_the_router_and_beams_share_it() -> None:
    model = llama()
    add_experts(model, settings(), seed=1)
    differ(model)
    set_languages(model, torch.zeros(4, dtype=torch.long))
    first = model(TOKENS).logits
    set_languages(model, LANGUAGES)
    both = model(TOKENS).logits
    torch.testing.assert_close(both[0], first[0])
    assert not torch.allclose(both[1], first[1])
    per_token = LANGUAGES.unsqueeze(1).expand(-1, 7)
    set_languages(model, per_token)
    torch.testing.assert_close(model(TOKENS).logits, both)
    set_languages(model, LANGUAGES)
    beams = model(TOKENS.repeat_interleave(3, 0)).logits
    torch.testing.assert_close(beams[::3], both)
    with pytest.raises(DataError, match="were told, and the batch is 3 x 7"):
        model(TOKENS[:3])
    set_languages(model, None)
    with pytest.raises(DataError, match="none was told"):
        model(TOKENS)


@torch.no_grad()
def test_use_is_told_by_language() -> None:
    model = llama()
    add_experts(model, settings(layers=(1,), flag=True), seed=1)
    _, layer = next(expert_layers(model))
    # The router looks at the language alone: the one that is flagged goes to the second expert.
    for parameter in layer.router.parameters():
        parameter.zero_()
    layer.router.first.weight[0, -1] = 1.0
    layer.router.second.weight[1, 0] = 50.0
    subject.note_use(model)
    set_languages(model, LANGUAGES)
    model(TOKENS)
    table = subject.use_of_experts(model)
    assert table.columns == ("layer", "language", "ko", "en", "shared")
    rows = {row[1]: row[2:] for row in table.rows}
    assert rows["ko"] == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert rows["en"] == pytest.approx((0.0, 1.0, 0.0))
    subject.note_use(model, False)
    model(TOKENS)
    assert subject.use_of_experts(model) == table


@pytest.mark.parametrize("make", [llama, gpt2])
@torch.no_grad()
def test_filled_experts_are_the_other_model_s_layers(make: Any) -> None:
    model, other = make(), make()
    for parameter in other.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    whole, low = make(), make()
    add_experts(whole, settings(layers=(1,)), seed=1)
    add_experts(low, settings(layers=(1,), adapters=16), seed=1)
    weights = other.state_dict()
    path = next(name for name, _ in expert_layers(whole))
    for mixed in (whole, low):
        lost = fill_expert(mixed, "en", weights)
        assert lost[path] < 1e-3
        _, layer = next(expert_layers(mixed))
        hidden = torch.randn(2, 3, 16)
        wanted = other.get_submodule(path)(hidden)
        torch.testing.assert_close(layer._expert(1, hidden), wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(layer._expert(0, hidden), model.get_submodule(path)(hidden), atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="no expert 'fr'; there are ko, en, shared"):
        fill_expert(whole, "fr", weights)
    with pytest.raises(DataError, match="is not among the expert's weights"):
        fill_expert(whole, "en", {})


@pytest.mark.parametrize("adapters", [None, 3], ids=["whole", "low-rank"])
@torch.no_grad()
def test_saved_is_loaded(tmp_path: Path, adapters: int | None) -> None:
    from ablab.models.hub import load_model

    model = llama()
    add_experts(model, settings(adapters=adapters, routing="top-2"), seed=1)
    differ(model)
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    loaded = load_model(str(tmp_path / "model"), kind="causal")
    for one in (model, loaded):
        set_languages(one, LANGUAGES)
    assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
    for file in sorted((tmp_path / "model").glob("*.safetensors"))[:1]:
        file.unlink()
    with pytest.raises(DataError, match="weights are missing"):
        load_model(str(tmp_path / "model"), kind="causal")


@pytest.mark.parametrize("adapters", [None, 3], ids=["whole", "low-rank"])
@torch.no_grad()
def test_a_checkpoint_holds_what_is_no_longer_the_source_s(tmp_path: Path, adapters: int | None) -> None:
    """Frozen layers of a model that went on from another stage are not those it was built with."""

    def built() -> Any:
        model = llama()
        set_source(model, "the hub")
        return model

    model, tuned = built(), random_like(llama())
    model.load_state_dict(tuned)
    mark_overwritten(model, tuned)
    add_experts(model, settings(adapters=adapters), seed=1)
    fill_expert(model, "ko", random_like(llama(), seed=8))
    model.requires_grad_(False)
    save_weights(tmp_path / "model.safetensors", model)
    again = built()
    add_experts(again, settings(adapters=adapters), seed=1)
    load_weights(tmp_path / "model.safetensors", again)
    for one in (model, again):
        set_languages(one, LANGUAGES)
    assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)


def random_like(model: Any, *, seed: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) * 0.2 for name, value in model.state_dict().items()}


def test_layers_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="experts in layer 3, and the last layer is 2"):
        add_experts(llama(), settings(layers=(1, 3)))
    sizes = {"ffn_dim": 24, "max_position_embeddings": 16, "word_embed_proj_dim": 16}
    flat = OPTForCausalLM(OPTConfig(**{name: SIZES[name] for name in SIZES if name != "intermediate_size"}, **sizes))
    with pytest.raises(ConfigError, match="expected one feed-forward module, found fc1, fc2"):
        add_experts(flat, settings(layers=(1,)))


def test_the_draw_depends_on_seed_and_layer() -> None:
    drawn = []
    for seed in (1, 1, 2):
        model = llama()
        add_experts(model, settings(), seed=seed)
        drawn.append([layer.router.first.weight for _, layer in expert_layers(model)])
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert not torch.equal(drawn[0][0], drawn[2][0]) and not torch.equal(drawn[0][0], drawn[0][1])


@pytest.mark.parametrize(
    "wrong", [{"layers": (1, 1)}, {"layers": (-1,)}, {"languages": ("ko", "shared")}, {"languages": ("ko", "ko")}]
)
def test_settings_that_contradict_themselves(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found"):
        settings(**wrong)
