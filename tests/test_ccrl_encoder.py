import numpy as np
import pytest
import torch

from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
from ccrl_wsi.embeddings.checkpoint import save_checkpoint
from ccrl_wsi.embeddings.network import PreActResNet18
from ccrl_wsi.errors import ConfigError, ModelError
from tests.small_checkpoints import small_header, small_state, write_small_checkpoint

NO_MEASUREMENTS = np.zeros((0, 20), np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("encoder") / "small.safetensors")


def crops(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def test_an_embedding_is_the_networks_output_for_the_normalised_crop(path):
    header = small_header()
    network = PreActResNet18(**header.arguments).eval()
    network.load_state_dict(small_state())
    image = (crops(4) / 255 - np.array(header.mean)) / np.array(header.std)

    found = CcrlEncoder(path, "cpu", 16)(crops(4), NO_MEASUREMENTS)

    with torch.no_grad():
        wanted = network(torch.tensor(image.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_same_call_gives_the_same_bits(path):
    first = CcrlEncoder(path, "cpu", 4)(crops(10), NO_MEASUREMENTS)
    second = CcrlEncoder(path, "cpu", 4)(crops(10), NO_MEASUREMENTS)

    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_batches_change_embeddings_by_rounding_only(path, batch_size):
    whole = CcrlEncoder(path, "cpu", 64)(crops(10), NO_MEASUREMENTS)

    parts = CcrlEncoder(path, "cpu", batch_size)(crops(10), NO_MEASUREMENTS)

    error = np.linalg.norm(parts - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert error.max() < 1e-5


def test_read_only_crops_are_embedded_without_a_warning(path, recwarn):
    fixed = crops(2)
    fixed.setflags(write=False)

    CcrlEncoder(path, "cpu", 16)(fixed, NO_MEASUREMENTS)

    assert not recwarn.list


def test_the_fingerprint_changes_with_the_file(path, tmp_path):
    same = write_small_checkpoint(tmp_path / "same.safetensors")
    other = write_small_checkpoint(tmp_path / "other.safetensors", mean=(0.7, 0.5, 0.8))

    prints = [CcrlEncoder(p, "cpu", 8).fingerprint for p in (path, same, other)]

    assert prints[0] == prints[1] != prints[2]


def test_crops_of_another_size_are_refused(path):
    with pytest.raises(ConfigError, match=r"Set crops\.size_px=32"):
        CcrlEncoder(path, "cpu", 8)(np.zeros((2, 40, 40, 3), np.uint8), NO_MEASUREMENTS)


def test_a_header_that_promises_other_dimensions_is_refused(tmp_path):
    save_checkpoint(tmp_path / "x.safetensors", small_state(), small_header(n_dimensions=512))

    with pytest.raises(ModelError, match="promises 512 dimensions; its network gives 8"):
        CcrlEncoder(tmp_path / "x.safetensors", "cpu", 8)


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu(path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA on this machine")

    cpu = CcrlEncoder(path, "cpu", 64)(crops(32), NO_MEASUREMENTS)
    gpu = CcrlEncoder(path, "cuda", 64)(crops(32), NO_MEASUREMENTS)

    np.testing.assert_allclose(gpu, cpu, rtol=1e-2, atol=1e-2 * np.abs(cpu).max())
