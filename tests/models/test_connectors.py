import pytest
import torch

from ablab.contract.failure import ConfigError
from ablab.models.connectors import build_connector

SIZES = {"vision_width": 16, "language_width": 24, "patches": 9}


def made(name, **options):
    torch.manual_seed(0)
    return build_connector(name, **{**SIZES, **options})


@pytest.mark.parametrize(
    ("name", "tokens", "parameters"),
    [
        ("linear", 9, 16 * 24 + 24),
        ("mlp1x_gelu", 9, 16 * 24 + 24),
        ("mlp2x_gelu", 9, 16 * 24 + 24 + 24 * 24 + 24),
        ("mlp3x_gelu", 9, 16 * 24 + 24 + 2 * (24 * 24 + 24)),
        ("moe_mlp", 9, 4 * (16 * 24 + 24 + 24 * 24 + 24) + 4 * 16),
    ],
)
def test_shapes_and_sizes(name, tokens, parameters):
    connector = made(name)
    assert connector(torch.randn(2, 9, 16)).shape == (2, tokens, 24) and connector.tokens == tokens
    assert sum(p.numel() for p in connector.parameters()) == parameters


def test_identity_needs_equal_widths():
    features = torch.randn(2, 9, 16)
    assert made("identity", language_width=16)(features) is features
    with pytest.raises(ConfigError, match="take linear"):
        made("identity")


def test_the_mlp_is_llavas():
    connector = made("mlp2x_gelu")
    x = torch.randn(2, 9, 16)
    state = connector.state_dict()
    hidden = torch.nn.functional.gelu(x @ state["mlp.0.weight"].T + state["mlp.0.bias"])
    torch.testing.assert_close(connector(x), hidden @ state["mlp.2.weight"].T + state["mlp.2.bias"])


def test_the_mixture_is_its_experts_weighted_and_balances():
    connector = made("moe_mlp", experts=3, active=2, balance=0.5)
    x = torch.randn(2, 9, 16)
    out = connector(x)
    probabilities = torch.softmax(x @ connector.router.weight.T, -1)
    for n in range(2):
        for t in range(9):
            best = probabilities[n, t].argsort(descending=True)[:2]
            share = probabilities[n, t, best] / probabilities[n, t, best].sum()
            expected = sum(s * connector.experts[i](x[n, t]) for s, i in zip(share, best, strict=True))
            torch.testing.assert_close(out[n, t], expected)
    connector.auxiliary.backward()
    assert connector.router.weight.grad.abs().sum() > 0
    with torch.no_grad():
        connector.router.weight.zero_()
    connector(x)
    assert connector.auxiliary.item() == pytest.approx(0.5)  # equal probabilities: the least there is, weight x 1
    one = made("moe_mlp", experts=2, active=1)
    with torch.no_grad():
        one.router.weight.copy_(torch.stack([torch.ones(16), -torch.ones(16)]))
    one(torch.full((1, 9, 16), 5.0))
    assert one.load.tolist() == [1.0, 0.0] and one.auxiliary.item() == pytest.approx(0.02)  # all in one: E


def test_equal_experts_are_one_mlp():
    connector = made("moe_mlp")
    for expert in connector.experts[1:]:
        expert.load_state_dict(connector.experts[0].state_dict())
    x = torch.randn(1, 9, 16)
    torch.testing.assert_close(connector(x), connector.experts[0](x))


def test_the_resampler_makes_a_fixed_number_of_tokens_and_sees_every_patch():
    connector = made("resampler", queries=5, layers=2, heads=4)
    x = torch.randn(2, 9, 16, requires_grad=True)
    out = connector(x)
    assert out.shape == (2, 5, 24) and connector.tokens == 5
    out[:, 0].sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()
    moved = torch.roll(x.detach(), 1, dims=1)
    assert not torch.allclose(connector(moved), out, atol=1e-4)  # it knows where a feature was
    with pytest.raises(ConfigError, match="3 heads do not divide"):
        made("resampler", heads=3)


def test_a_connector_of_ones_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Pooled(torch.nn.Module):\n"
        "    def __init__(self, *, vision_width, language_width, patches):\n"
        "        super().__init__()\n        self.tokens = 1\n"
        "        self.linear = torch.nn.Linear(vision_width, language_width)\n"
        "    def forward(self, x):\n        return self.linear(x.mean(1, keepdim=True))\n"
        "class Wrong(torch.nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
    )
    connector = build_connector("own.py:Pooled", **SIZES, folder=tmp_path)
    assert connector(torch.randn(2, 9, 16)).shape == (2, 1, 24)
    with pytest.raises(ConfigError, match="has the signature"):
        build_connector("own.py:Wrong", **SIZES, folder=tmp_path)


@pytest.mark.parametrize("name", ["mlp2x_relu", "resample", "qformer"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ConfigError, match=r"unknown connector .*Known: .*identity, linear, .*resampler, mlpNx_gelu"):
        made(name)
