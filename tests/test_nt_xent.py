import numpy as np
import torch

from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.losses.nt_xent import nt_xent, view_cosines
from ccrl_wsi.training.settings import LossSettings, NetworkSettings
from ccrl_wsi.training.simclr_model import SimclrModel


def plain_nt_xent(first, second, temperature):
    """Eq. 1 of the SimCLR paper, in NumPy and loops."""
    views = np.concatenate([first, second])
    views = views / np.linalg.norm(views, axis=1, keepdims=True)
    n, losses = len(first), []
    for i in range(2 * n):
        similarity = np.exp(views @ views[i] / temperature)
        losses.append(-np.log(similarity[(i + n) % (2 * n)] / np.delete(similarity, i).sum()))
    return np.mean(losses)


def loss_of(first, second, rows, temperature=0.5):
    views, others = torch.cat([first, second]), torch.cat([second, first])
    both = torch.cat([rows, rows])
    return nt_xent(view_cosines(views, others, both, views, both), temperature)


def test_it_is_the_papers_equation():
    rng = rng_for(0, "nt-xent")
    first, second = (torch.from_numpy(rng.normal(size=(6, 4))).float() for _ in range(2))
    expected = plain_nt_xent(first.numpy(), second.numpy(), 0.5)
    np.testing.assert_allclose(loss_of(first, second, torch.arange(6)), expected, rtol=1e-5)


def test_a_cell_drawn_twice_is_no_negative_of_itself():
    torch.manual_seed(0)
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    rows = torch.tensor([0, 1, 2, 0])
    found = view_cosines(
        torch.cat([first, second]),
        torch.cat([second, first]),
        rows.repeat(2),
        torch.cat([first, second]),
        rows.repeat(2),
    )
    counted = (found.negative > -torch.inf).sum(dim=1)
    assert counted.tolist() == [4, 6, 6, 4, 4, 6, 6, 4]


def test_two_parts_of_a_batch_give_the_loss_of_the_whole():
    """What each process computes, with the pool of both, averages to the undivided loss."""
    torch.manual_seed(1)
    first, second = torch.randn(6, 5), torch.randn(6, 5)
    rows = torch.arange(6)
    pool, pool_rows = torch.cat([first, second]), rows.repeat(2)
    parts = []
    for mine in (slice(0, 3), slice(3, 6)):
        views = torch.cat([first[mine], second[mine]])
        others = torch.cat([second[mine], first[mine]])
        found = view_cosines(views, others, rows[mine].repeat(2), pool, pool_rows)
        parts.append(nt_xent(found, 0.5))
    torch.testing.assert_close(sum(parts) / 2, loss_of(first, second, rows))


def make_encoder():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8))


def test_the_model_learns_to_tell_cells_apart():
    network = NetworkSettings(projector=(16, 8), predictor=None)
    loss = LossSettings(kind="nt_xent", temperature=0.2)
    model = SimclrModel(make_encoder, 8, network, loss, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    torch.manual_seed(0)
    cells = torch.randn(32, 3, 2, 2)
    values = []
    for _ in range(60):
        views = [cells + 0.3 * torch.randn_like(cells) for _ in range(2)]
        outcome = model(*views, torch.arange(32))
        optimiser.zero_grad()
        outcome.loss.backward()
        optimiser.step()
        values.append(float(outcome.loss))
    assert values[-1] < 0.5 * values[0]
    assert set(outcome.parts) == {"nt_xent", "alignment", "negative_similarity", "accuracy"}
    assert outcome.keys.shape == (32, 8)
    assert not outcome.keys.requires_grad
    assert model.encoder("momentum") is model.encoder("query")


def test_weights_depend_on_the_seed_alone():
    network = NetworkSettings(projector=(16, 8), predictor=None)
    states = [
        SimclrModel(make_encoder, 8, network, LossSettings(kind="nt_xent"), seed).state_dict()
        for seed in (0, 0, 1)
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=0, atol=0)
    weight = "query_encoder.1.weight"
    assert not torch.equal(states[0][weight], states[2][weight])
