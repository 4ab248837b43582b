import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ccrl_wsi.training.ccrl_model import CcrlModel, trained_parameters
from ccrl_wsi.training.losses.byol import byol
from ccrl_wsi.training.losses.cosines import cosines
from ccrl_wsi.training.losses.debiased import debiased
from ccrl_wsi.training.losses.info_nce import info_nce
from ccrl_wsi.training.losses.prototypes import prototype_scattering
from ccrl_wsi.training.settings import LossSettings, NetworkSettings

N, DIMENSIONS, QUEUE = 6, 4, 10


def tiny_encoder():
    return nn.Sequential(
        nn.Conv2d(3, DIMENSIONS, 3, bias=False),
        nn.BatchNorm2d(DIMENSIONS),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def tiny_model(seed=0, predictor=4, gather=None, **loss):
    network = NetworkSettings(projector=(6, 5), predictor=predictor)
    given = {"queue_size": QUEUE, "temperature": 0.3} | loss
    extra = {} if gather is None else {"gather": gather}
    return CcrlModel(tiny_encoder, DIMENSIONS, network, LossSettings(**given), seed, **extra)


def batch(seed=0, n=N):
    rng = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(n, 3, 8, 8, generator=rng) for _ in range(2))
    return first, second, torch.arange(n) + 100


def key_side(model):
    return [*model.key_encoder.parameters(), *model.key_projector.parameters()]


def query_side(model):
    parts = (model.query_encoder, model.query_projector, model.predictor)
    return [p for part in parts for p in part.parameters()]


def values(parameters):
    return [p.detach().clone() for p in parameters]


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def queries_of(model, views):
    return model.predictor(model.query_projector(model.query_encoder(views)))


def keys_of(model, views):
    keys = model.key_projector(model.key_encoder(views)).detach()
    return keys / keys.norm(dim=1, keepdim=True)


def descend(model, rate):
    """A step of gradient descent by hand: torch.optim takes seconds to load."""
    with torch.no_grad():
        for parameter in trained_parameters(model):
            parameter -= rate * parameter.grad
            parameter.grad = None


def diverged(model, seed=9):
    """The model with a key network of its own, so that confusing the two is seen."""
    torch.manual_seed(seed)
    for parameter in key_side(model):
        parameter.data += 0.5 * torch.randn_like(parameter)
    return model


# What it computes


def test_one_sided_is_local_views_asking_for_the_keys_of_whole_views():
    model = diverged(tiny_model())
    whole, local, rows = batch()
    found = cosines(queries_of(model, local), keys_of(model, whole), model.queue.keys)

    outcome = model(whole, local, rows)

    assert outcome.loss.item() == pytest.approx(info_nce(found, 0.3).item(), rel=1e-5)
    assert outcome.parts["info_nce"] == outcome.loss
    assert outcome.parts["alignment"].item() == pytest.approx(found.positive.mean().item())
    assert outcome.parts["negative_similarity"].item() == pytest.approx(
        found.negative.mean().item(), abs=1e-6
    )
    nearest = found.positive > found.negative.amax(dim=1)
    assert outcome.parts["accuracy"].item() == pytest.approx(nearest.float().mean().item())


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"batch_negatives": True, "mask_own": True},
        {"debias": 0.2},
        {"kind": "byol"},
        {"prototypes": 3},
    ],
    ids=str,
)
def test_symmetric_is_the_mean_of_both_one_sided(loss):
    whole, local, rows = batch()
    assignment = torch.tensor([0, 1, 2, 0, 1, -1]) if "prototypes" in loss else None
    one, both = diverged(tiny_model(**loss)), diverged(tiny_model(symmetric=True, **loss))

    ways = [one(*views, rows, assignment) for views in ((whole, local), (local, whole))]
    outcome = both(whole, local, rows, assignment)

    assert outcome.loss.item() == pytest.approx(sum(w.loss.item() for w in ways) / 2, rel=1e-5)
    for name, value in outcome.parts.items():
        mean = sum(w.parts[name].item() for w in ways) / 2
        assert value.item() == pytest.approx(mean, abs=1e-5), name


@pytest.mark.parametrize("symmetric", [False, True])
def test_only_the_keys_of_whole_views_are_for_the_queue(symmetric):
    model = diverged(tiny_model(symmetric=symmetric))
    whole, local, rows = batch()

    outcome = model(whole, local, rows)

    assert torch.allclose(outcome.keys, keys_of(model, whole), atol=1e-6)
    assert torch.equal(outcome.rows, rows)


def test_the_queue_is_read_before_it_is_written():
    model = tiny_model(queue_size=N)
    before = model.queue.keys.clone()
    outcome = model(*batch())

    assert torch.equal(model.queue.keys, before)

    model.enqueue(outcome.keys, outcome.rows)

    assert torch.equal(model.queue.keys, outcome.keys)
    assert torch.equal(model.queue.rows, outcome.rows)


def test_own_older_keys_are_masked_and_only_those():
    model = diverged(tiny_model(mask_own=True))
    whole, local, rows = batch()
    model.enqueue(torch.randn(7, 5), torch.tensor([101, 3, 105, 101, 100, 7, 200]))
    ignored = torch.zeros(N, QUEUE, dtype=torch.bool)
    for query, key in ((1, 0), (5, 2), (1, 3), (0, 4)):
        ignored[query, key] = True
    found = cosines(queries_of(model, local), keys_of(model, whole), model.queue.keys, ignored)

    loss = model(whole, local, rows).loss

    assert loss.item() == pytest.approx(info_nce(found, 0.3).item(), rel=1e-5)


def test_with_all_keys_its_own_a_cell_has_nothing_to_learn():
    model = tiny_model(mask_own=True, queue_size=3)
    whole, local, _ = batch()
    model.enqueue(torch.eye(3, 5), torch.tensor([7, 7, 7]))

    outcome = model(whole, local, torch.full((N,), 7))
    outcome.loss.backward()

    assert outcome.loss == 0
    assert outcome.parts["accuracy"] == 1
    assert all(not p.grad.any() for p in query_side(model))


def test_negatives_of_the_batch_are_everybody_elses_keys():
    model = diverged(tiny_model(batch_negatives=True))
    whole, local, rows = batch()
    rows[4] = rows[1]  # drawn twice
    keys = keys_of(model, whole)
    own = torch.eye(N, dtype=torch.bool)
    own[1, 4] = own[4, 1] = True
    ignored = torch.cat([torch.zeros(N, QUEUE, dtype=torch.bool), own], dim=1)
    pool = torch.cat([model.queue.keys, keys])
    found = cosines(queries_of(model, local), keys, pool, ignored)

    loss = model(whole, local, rows).loss

    assert loss.item() == pytest.approx(info_nce(found, 0.3).item(), rel=1e-5)


def test_debias_is_the_debiased_loss():
    model = diverged(tiny_model(debias=0.25))
    whole, local, rows = batch()
    found = cosines(queries_of(model, local), keys_of(model, whole), model.queue.keys)

    outcome = model(whole, local, rows)

    assert outcome.loss.item() == pytest.approx(debiased(found, 0.3, 0.25).item(), rel=1e-5)
    assert outcome.parts["debiased"] == outcome.loss


@pytest.mark.parametrize("kind", ["info_nce", "byol"])
def test_the_prototype_term_is_added_with_its_weight(kind):
    model = diverged(
        tiny_model(kind=kind, prototypes=4, prototype_weight=0.7, prototype_temperature=0.2)
    )
    whole, local, rows = batch()
    assignment = torch.tensor([0, 2, 2, 0, 3, -1])
    queries, keys = queries_of(model, local), keys_of(model, whole)
    term = prototype_scattering(queries, keys, assignment, 4, 0.2).item()

    before = model(whole, local, rows)
    outcome = model(whole, local, rows, assignment)

    assert before.parts["prototypes"] == 0
    assert outcome.parts["prototypes"].item() == pytest.approx(term, rel=1e-5)
    assert outcome.loss.item() == pytest.approx(before.loss.item() + 0.7 * term, rel=1e-5)
    assert outcome.parts.keys() == before.parts.keys()


def test_pseudo_classes_nobody_asked_for_are_refused():
    with pytest.raises(ValueError, match="loss.prototypes"):
        tiny_model()(*batch(), torch.zeros(N, dtype=torch.int64))


def test_without_prediction_head_the_projection_asks():
    model = diverged(tiny_model(predictor=None))
    whole, local, rows = batch()
    queries = model.query_projector(model.query_encoder(local))
    found = cosines(queries, keys_of(model, whole), model.queue.keys)

    assert model(whole, local, rows).loss.item() == pytest.approx(
        info_nce(found, 0.3).item(), rel=1e-5
    )
    assert not any("predictor" in name for name, _ in model.named_parameters())


# Who learns


def test_the_optimiser_gets_exactly_the_query_side():
    model = tiny_model()
    trained = list(trained_parameters(model))

    assert {id(p) for p in trained} == {id(p) for p in query_side(model)}
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(trained) == len({id(p) for p in trained})
    assert {id(p) for p in model.parameters()} - {id(p) for p in trained} == {
        id(p) for p in key_side(model)
    }


@pytest.mark.parametrize(
    "loss",
    [{}, {"kind": "byol"}, {"symmetric": True, "batch_negatives": True, "prototypes": 2}],
    ids=str,
)
def test_keys_get_no_gradient_and_every_query_parameter_does(loss):
    model = diverged(tiny_model(**loss))
    assignment = torch.tensor([0, 1] * 3) if "prototypes" in loss else None

    outcome = model(*batch(), assignment)
    outcome.loss.backward()

    assert not outcome.keys.requires_grad
    assert not any(part.requires_grad for part in outcome.parts.values())
    assert all(p.grad is None for p in key_side(model))
    # A bias before a norm is subtracted again: its gradient is 0 but for rounding.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in query_side(model))
    assert model.query_encoder[0].weight.grad.any()


def test_a_step_moves_the_query_side_and_follow_moves_the_keys():
    model = tiny_model()
    keys, queries = values(key_side(model)), values(query_side(model))

    model(*batch()).loss.backward()
    descend(model, 0.1)

    assert equal(key_side(model), keys)
    assert not equal(query_side(model), queries)

    model.follow(0.75)

    for key, old, query in zip(key_side(model), keys, query_side(model), strict=False):
        assert torch.allclose(key, 0.75 * old + 0.25 * query, atol=1e-6)
    assert not equal(key_side(model), keys)


def test_the_key_network_begins_as_the_query_network():
    model = tiny_model()

    assert equal(model.key_encoder.parameters(), model.query_encoder.parameters())
    assert equal(model.key_projector.parameters(), model.query_projector.parameters())
    assert not {id(p) for p in key_side(model)} & {id(p) for p in query_side(model)}


def test_each_network_has_its_own_batch_statistics():
    model = tiny_model()
    whole, local, rows = batch()
    query_norm, key_norm = (model.encoder(w)[1] for w in ("query", "momentum"))
    pixels = model.query_encoder[0]
    of_local, of_whole = (pixels(v).mean(dim=(0, 2, 3)).detach() for v in (local, whole))

    model(whole, local, rows)

    assert torch.allclose(query_norm.running_mean, 0.1 * of_local, atol=1e-6)
    assert torch.allclose(key_norm.running_mean, 0.1 * of_whole, atol=1e-6)


def test_the_encoders_that_are_handed_out():
    model = tiny_model()

    assert model.encoder("momentum") is model.key_encoder
    assert model.encoder("query") is model.query_encoder


# Weights and state


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = tiny_model(seed=5).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = tiny_model(seed=5).state_dict()

    assert all(torch.equal(one[name], again[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)
    other = tiny_model(seed=6).state_dict()
    for name in ("query_encoder.0.weight", "query_projector.0.weight", "predictor.0.weight"):
        assert not torch.equal(one[name], other[name])


def test_leaving_the_prediction_head_out_leaves_the_other_weights():
    one, without = tiny_model().state_dict(), tiny_model(predictor=None).state_dict()

    assert all(torch.equal(one[name], value) for name, value in without.items())


def test_byol_keeps_no_queue():
    model = tiny_model(kind="byol")
    outcome = model(*batch())

    model.enqueue(outcome.keys, outcome.rows)

    assert model.queue is None
    assert not any("queue" in name for name in model.state_dict())


def test_a_loaded_model_goes_on_as_the_saved_one():
    model, other = diverged(tiny_model()), tiny_model(seed=3)
    outcome = model(*batch())
    model.enqueue(outcome.keys, outcome.rows)

    other.load_state_dict(copy.deepcopy(model.state_dict()))

    for m in (model, other):
        second = m(*batch(1))
        m.enqueue(second.keys, second.rows)
    assert model(*batch(2)).loss == other(*batch(2)).loss


def test_a_cell_whose_head_gives_zero_does_not_end_the_training():
    model = tiny_model()
    norm = model.predictor[1]
    norm.bias.data.fill_(-9.0)  # all hidden units off, as happens in narrow heads

    outcome = model(*batch())
    outcome.loss.backward()

    assert not queries_of(model, batch()[1]).any()
    assert all(not p.grad.any() for p in trained_parameters(model))


# Machines


def test_under_autocast_the_loss_and_the_keys_are_32_bit():
    model = tiny_model(symmetric=True, batch_negatives=True, prototypes=2)
    assignment = torch.tensor([0, 1] * 3)
    exact = copy.deepcopy(model)(*batch(), assignment)

    with torch.autocast("cpu", torch.bfloat16):
        outcome = model(*batch(), assignment)
    outcome.loss.backward()

    assert outcome.loss.dtype == outcome.keys.dtype == torch.float32
    assert all(part.dtype == torch.float32 for part in outcome.parts.values())
    assert torch.allclose(outcome.keys.norm(dim=1), torch.ones(N), atol=1e-6)
    assert outcome.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)


@settings(max_examples=10, deadline=None)
@given(st.booleans(), st.booleans())
def test_processes_together_compute_what_one_would(mask_own, symmetric):
    """Each half of the batch, told the keys of both, gives half of the loss and gradient."""
    loss = {"batch_negatives": True, "mask_own": mask_own, "symmetric": symmetric}
    whole, local, rows = batch()
    told = []
    one = diverged(tiny_model(gather=lambda t: (told.append(t), t)[1], **loss)).eval()
    one.enqueue(torch.randn(3, 5), rows[:3])
    undivided = one(whole, local, rows)
    undivided.loss.backward()

    half_losses = []
    # Running statistics, so that a cell's vector does not depend on who shares its batch.
    answers = []
    parts = diverged(tiny_model(gather=lambda t: answers.pop(0), **loss)).eval()
    parts.load_state_dict(one.state_dict())
    for half in (slice(0, 3), slice(3, 6)):
        answers[:] = told
        outcome = parts(whole[half], local[half], rows[half])
        (outcome.loss / 2).backward()
        half_losses.append(outcome.loss.item())
        assert torch.equal(outcome.keys, undivided.keys)
        assert torch.equal(outcome.rows, rows)

    assert sum(half_losses) / 2 == pytest.approx(undivided.loss.item(), rel=1e-5)
    for p, q in zip(query_side(parts), query_side(one), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-5)


def test_it_can_be_wrapped_for_several_processes(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        plain, model = tiny_model(symmetric=True), tiny_model(symmetric=True)
        wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        for m in (plain, wrapped):
            for seed in (0, 1):  # the second time, all gradients must have been used
                m(*batch(seed)).loss.backward()
    finally:
        torch.distributed.destroy_process_group()

    for p, q in zip(query_side(plain), query_side(model), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-6)


# Learning


def trained(model, n_steps=100):
    """A short training on cells of clearly different colours, in views with noise."""
    rng = torch.Generator().manual_seed(0)
    cells, rows = 2 * torch.randn(8, 3, 1, 1, generator=rng), torch.arange(8)
    for _ in range(n_steps):
        first, second = (cells + 0.1 * torch.randn(8, 3, 8, 8, generator=rng) for _ in range(2))
        outcome = model(first, second, rows)
        outcome.loss.backward()
        descend(model, 0.1)
        model.enqueue(outcome.keys, outcome.rows)
        model.follow(0.9)
    return outcome


def test_cells_learn_to_know_their_own_keys():
    outcome = trained(tiny_model(mask_own=True, batch_negatives=True))

    # By chance: an accuracy of 1 / 18 and a loss of log 18.
    assert outcome.parts["accuracy"] > 0.6
    assert outcome.loss < 0.6 * math.log(1 + QUEUE + 7)


def test_byol_agrees_without_all_cells_becoming_one_point():
    model = tiny_model(kind="byol", predictor=16)
    outcome = trained(model)

    assert outcome.parts["alignment"] > 0.9
    assert outcome.loss.item() == pytest.approx(2 - 2 * outcome.parts["alignment"].item(), abs=1e-5)
    similarity = outcome.keys @ outcome.keys.T
    assert similarity[~torch.eye(8, dtype=torch.bool)].mean() < 0.9
    assert byol(outcome.keys, outcome.keys.roll(1, dims=0)) > 0.2
