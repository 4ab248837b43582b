"""What every encoder promises."""

import numpy as np
import pytest

from ccrl_wsi.config import CropSettings, EmbeddingSettings
from ccrl_wsi.embeddings.checkpoint import save_checkpoint
from ccrl_wsi.embeddings.encoders import (
    BUNDLED,
    ENCODERS,
    NEED_OUTLINES,
    check_encoder,
    make_encoder,
)
from ccrl_wsi.embeddings.network import build_network
from ccrl_wsi.embeddings.size_feature import SizeFeature
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.measurement_names import NAMES, SHAPE_NAMES
from tests.small_checkpoints import WIDTHS, small_header, write_small_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("encoders") / "small.safetensors")


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    return write_small_checkpoint(
        tmp_path_factory.mktemp("encoders") / "sized.safetensors",
        size=SizeFeature(mean=3.5, std=0.5, factor=2),
        n_dimensions=WIDTHS[-1] + 1,
    )


PRESENT = [name for name, path in BUNDLED.items() if path.is_file()]


BASELINES = {
    "dcae": ("dcae_encoder", {"n_dimensions": 5, "n_clusters": 3, "widths": [8, 8, 8]}, 5),
    "infogan": ("infogan_critic", {"width": 6, "n_codes": 3}, 6),
    "pixels": ("pixel_projection", {"n_components": 7}, 7),
}


@pytest.fixture(scope="module")
def baseline_files(tmp_path_factory):
    """Untrained networks of the baselines; of the pixels, random directions."""
    import torch

    folder, files = tmp_path_factory.mktemp("baselines"), {}
    torch.manual_seed(0)
    for name, (architecture, arguments, n_dimensions) in BASELINES.items():
        state = build_network(architecture, arguments).state_dict()
        if name == "pixels":
            state = {key: torch.randn_like(tensor) for key, tensor in state.items()}
        header = small_header(
            architecture=architecture, arguments=arguments, n_dimensions=n_dimensions
        )
        files[name] = folder / f"{name}.safetensors"
        save_checkpoint(files[name], state, header)
    return files


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    import torch
    import torchvision

    path = tmp_path_factory.mktemp("photographs") / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


NAMED = [*ENCODERS, *PRESENT, *BASELINES, "imagenet", "checkpoint", "sized"]


@pytest.fixture(scope="module", params=NAMED)
def encoder(request, checkpoint, sized, baseline_files, photographs):
    own = {"checkpoint": checkpoint, "sized": sized, **baseline_files}
    name = str(own.get(request.param, request.param))
    settings = EmbeddingSettings(encoder=name, weights=photographs, batch_size=4)
    return make_encoder(settings, "cpu")


def cells(n, encoder, seed=0):
    rng = np.random.default_rng(seed)
    crops = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    n_columns = len(NAMES) + len(SHAPE_NAMES) * (encoder.name in NEED_OUTLINES)
    return crops, rng.uniform(1, 100, (n, n_columns)).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 4, 11])
def test_every_cell_has_one_finite_float32_vector(encoder, n):
    vectors = encoder(*cells(n, encoder))

    assert vectors.shape == (n, encoder.n_dimensions)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_vectors_come_in_the_order_of_the_cells(encoder):
    crops, measurements = cells(9, encoder)
    order = np.array([8, 0, 3, 5, 1, 2, 7, 4, 6])

    moved = encoder(crops[order], measurements[order])

    np.testing.assert_allclose(moved, encoder(crops, measurements)[order], rtol=1e-4, atol=1e-5)


def test_different_cells_have_different_vectors(encoder):
    vectors = encoder(*cells(6, encoder))

    assert len(np.unique(vectors, axis=0)) == 6


def test_the_same_cells_give_the_same_bits(encoder):
    first, again = (encoder(*cells(7, encoder)) for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_cells_are_left_as_they_were(encoder):
    crops, measurements = cells(5, encoder)

    encoder(crops, measurements)

    assert crops.tobytes() == cells(5, encoder)[0].tobytes()
    assert measurements.tobytes() == cells(5, encoder)[1].tobytes()


def test_an_encoder_says_who_it_is(encoder):
    assert encoder.name
    assert len(encoder.fingerprint) == 16
    assert isinstance(encoder.standardise, bool)


def test_an_unknown_encoder_is_refused_with_the_choices():
    settings = EmbeddingSettings(encoder="morphologie")

    for use in (
        lambda: make_encoder(settings, "cpu"),
        lambda: check_encoder(settings, CropSettings(), 0.25),
    ):
        with pytest.raises(
            ConfigError, match=r"'morphologie'.*morphology, morphological.* ccrl or.*\.safetensors"
        ):
            use()


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    settings = EmbeddingSettings(encoder=str(tmp_path / "gone.safetensors"))

    with pytest.raises(ModelError, match="There is no checkpoint"):
        check_encoder(settings, CropSettings(), 0.25)
    with pytest.raises(ModelError, match="There is no checkpoint"):
        make_encoder(settings, "cpu")


def test_settings_and_checkpoint_are_compared_before_the_run(checkpoint):
    settings = EmbeddingSettings(encoder=str(checkpoint))

    check_encoder(settings, CropSettings(scale=2.0), 0.25)
    with pytest.raises(ConfigError, match=r"crops\.scale=2"):
        check_encoder(settings, CropSettings(scale=1.0), 0.25)
    check_encoder(EmbeddingSettings(encoder="morphology"), CropSettings(scale=1.0), 0.5)
