import pytest
import torch
from torch import nn

from ccrl_wsi.training.heads import draw_xavier, predictor, projector


def test_the_papers_heads_have_as_many_weights_as_counted_by_hand():
    def count(network):
        return sum(p.numel() for p in network.parameters())

    norm = 2
    assert count(projector(512, 128, 64)) == (512 + 1) * 128 + norm * 128 + (128 + 1) * 64
    assert count(predictor(64, 32)) == (64 + 1) * 32 + norm * 32 + (32 + 1) * 64


@pytest.mark.parametrize("head", [projector(5, 4, 3), predictor(5, 4)])
def test_a_head_is_linear_norm_relu_linear(head):
    x = torch.randn(7, 5)
    first, last = head[0], head[-1]

    with torch.no_grad():
        hidden = x @ first.weight.T + first.bias
        hidden = (hidden - hidden.mean(dim=0)) / (hidden.var(dim=0, correction=0) + 1e-5).sqrt()
        expected = hidden.clamp(min=0) @ last.weight.T + last.bias

        assert torch.allclose(head(x), expected, atol=1e-5)


def test_a_predictor_gives_what_it_takes():
    assert predictor(6, 2)(torch.randn(4, 6)).shape == (4, 6)


def test_xavier_draws_convolutions_and_linear_layers_and_leaves_norms():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(30, 50, 3), nn.BatchNorm2d(50), nn.Linear(200, 300))
    nn.init.constant_(network[1].bias, 7)

    draw_xavier(network)

    # Variance 2 / (n_in + n_out), Glorot and Bengio 2010; a kernel's pixels count as channels.
    assert network[0].weight.std().item() == pytest.approx((2 / (80 * 9)) ** 0.5, rel=0.03)
    assert network[2].weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.03)
    # Normal, not uniform: some are further out than sqrt(3) standard deviations.
    assert network[2].weight.abs().max() > 3 * network[2].weight.std()
    assert not network[0].bias.any()
    assert not network[2].bias.any()
    assert (network[1].bias == 7).all()
    assert (network[1].weight == 1).all()


def test_xavier_accepts_layers_without_bias():
    draw_xavier(nn.Linear(2, 2, bias=False))
