import pytest
import torch
from torch import nn
from torch.nn import functional

from ccrl_wsi.embeddings.network import (
    PreActBlock,
    PreActResNet18,
    build_network,
    expected_shapes,
    multiply_adds,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # threads cost so small a network more than they save


def test_the_papers_network_has_as_many_weights_as_counted_by_hand():
    stem = 3 * 64 * 9
    convolutions = 4 * 64 * 64 * 9
    convolutions += sum(n * 2 * n * 9 + 3 * (2 * n) ** 2 * 9 + n * 2 * n for n in (64, 128, 256))
    # Each block normalises its input and its middle: weight and bias per channel.
    norms = 2 * (4 * 64 + sum(n + 3 * 2 * n for n in (64, 128, 256)))

    network = PreActResNet18()

    assert stem + convolutions + norms == 11_166_016
    assert sum(p.numel() for p in network.parameters()) == 11_166_016


def test_thirty_two_pixels_become_512_numbers_by_way_of_four_pixels():
    network = PreActResNet18().eval()
    seen = []
    network.blocks.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape)))

    with torch.no_grad():
        out = network(torch.zeros(1, 3, 32, 32))

    assert seen == [(1, 512, 4, 4)]
    assert out.shape == (1, 512)


def test_stages_have_two_blocks_and_only_later_ones_begin_with_a_stride():
    blocks = PreActResNet18().blocks

    assert [b.conv1.stride[0] for b in blocks] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert [b.conv2.out_channels for b in blocks] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [b.shortcut is not None for b in blocks] == [False, False] + [True, False] * 3


def test_nothing_is_normalised_after_the_last_block():
    network = PreActResNet18(3, (4, 4, 8, 8)).eval()
    x = torch.randn(3, 3, 32, 32)

    with torch.no_grad():
        last = network.blocks(network.stem(x))
        out = network(x)

    assert torch.allclose(out, last.mean(dim=(2, 3)), atol=1e-6)
    assert (last < 0).any()


@pytest.mark.parametrize(("n_in", "n_out", "stride"), [(4, 4, 1), (4, 8, 2)])
def test_a_block_is_the_formula_of_the_paper(n_in, n_out, stride):
    torch.manual_seed(0)
    block = PreActBlock(n_in, n_out, stride).eval()
    x = torch.randn(2, n_in, 8, 8)

    with torch.no_grad():
        found = block(x)
        active = functional.relu(block.norm1(x))
        branch = block.conv2(functional.relu(block.norm2(block.conv1(active))))
        kept = x if stride == 1 else block.shortcut(active)

    assert torch.allclose(found, branch + kept, atol=1e-6)


def test_a_block_with_dead_convolutions_passes_its_input_on():
    block = PreActBlock(4, 4, 1).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)

    assert torch.equal(block(x), x)


def test_channels_and_widths_are_arguments():
    network = build_network("preact_resnet18", {"n_channels": 5, "widths": [2, 4, 6]}).eval()

    assert network(torch.zeros(1, 5, 16, 16)).shape == (1, 6)
    shapes = expected_shapes("preact_resnet18", {"n_channels": 5, "widths": [2, 4, 6]})
    assert shapes == {k: tuple(v.shape) for k, v in network.state_dict().items()}


@pytest.mark.parametrize(("stem_stride", "side"), [(1, 8), (2, 4)])
def test_a_stem_of_stride_two_halves_the_image_at_once_and_nothing_else(stem_stride, side):
    network = PreActResNet18(3, (2, 4, 6), stem_stride).eval()
    seen = []
    network.blocks.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[2:]))

    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 6)
    assert seen == [(side, side)]
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    assert shapes == expected_shapes("preact_resnet18", {"widths": (2, 4, 6)})


def test_a_stem_of_stride_two_keeps_every_second_pixel_of_the_other():
    torch.manual_seed(0)
    one = PreActResNet18(3, (4, 4), 1)
    two = PreActResNet18(3, (4, 4), 2)
    two.load_state_dict(one.state_dict())
    x = torch.randn(2, 3, 8, 8)

    assert torch.allclose(two.stem(x), one.stem(x)[:, :, ::2, ::2], atol=1e-6)


@pytest.mark.parametrize("widths", [(3,), (2, 4), (2, 4, 6, 8, 10)])
def test_there_are_as_many_stages_as_widths(widths):
    network = PreActResNet18(3, widths).eval()

    assert len(network.blocks) == 2 * len(widths)
    assert network.n_dimensions == widths[-1]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, widths[-1])


@pytest.mark.parametrize("stem_stride", [0, -1])
def test_a_stem_that_cannot_move_is_refused(stem_stride):
    with pytest.raises(ValueError, match="stem_stride"):
        PreActResNet18(stem_stride=stem_stride)


def test_the_cost_of_the_papers_network_is_as_counted_by_hand():
    stem = 32**2 * 3 * 64 * 9
    # Each later stage has a quarter of the pixels and twice the channels, both in and out.
    first = 32**2 * 4 * 64 * 64 * 9
    later = sum(
        (32 >> i) ** 2 * (n * 2 * n * 9 + 3 * (2 * n) ** 2 * 9 + n * 2 * n)
        for i, n in ((1, 64), (2, 128), (3, 256))
    )

    assert multiply_adds("preact_resnet18", {}, 32) == stem + first + later == 555_417_600
    halved = multiply_adds("preact_resnet18", {"stem_stride": 2, "n_channels": 3}, 32)
    assert 4 * halved == stem + first + later
