import numpy as np
import pytest
import torch

from ccrl_wsi.device_work import listening
from ccrl_wsi.devices import ASKING_GPU
from ccrl_wsi.embeddings.ccrl_encoder import CPU_BATCH, CcrlEncoder, unit_rows
from ccrl_wsi.embeddings.checkpoint import save_checkpoint
from ccrl_wsi.embeddings.network import PreActResNet18
from ccrl_wsi.embeddings.size_feature import SizeFeature
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.measurement_names import NAMES
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


def sized(tmp_path, **changes):
    fields = {"size": SizeFeature(mean=3.5, std=0.5, factor=2.0), "n_dimensions": 9, **changes}
    return write_small_checkpoint(tmp_path / "sized.safetensors", **fields)


def measured(areas):
    measurements = np.random.default_rng(1).uniform(1, 90, (len(areas), len(NAMES)))
    measurements[:, NAMES.index("area_um2")] = areas
    return measurements.astype(np.float32)


def test_the_size_is_the_last_dimension_and_changes_no_other(path, tmp_path):
    areas = np.exp([3.5, 4.0, 2.5])
    encoder = CcrlEncoder(sized(tmp_path), "cpu", 16)

    found = encoder(crops(3), measured(areas))

    assert (encoder.n_dimensions, found.dtype, found.flags.c_contiguous) == (9, np.float32, True)
    np.testing.assert_array_equal(
        found[:, :8], CcrlEncoder(path, "cpu", 16)(crops(3), measured(areas))
    )
    np.testing.assert_allclose(found[:, 8], [0, 2, -4], atol=1e-5)


def test_unit_length_leaves_directions_and_the_size_as_they_are(path, tmp_path):
    areas = np.exp([3.5, 4.0, 2.5])
    found = CcrlEncoder(sized(tmp_path, unit_length=True), "cpu", 16)(crops(3), measured(areas))
    plain = CcrlEncoder(path, "cpu", 16)(crops(3), measured(areas))
    wanted = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, :8], wanted, rtol=1e-6)
    np.testing.assert_allclose(found[:, 8], [0, 2, -4], atol=1e-5)


def test_a_vector_of_zeros_has_no_direction():
    np.testing.assert_array_equal(
        unit_rows(np.array([[0, 0], [3, 4]], np.float32)),
        np.array([[0, 0], [0.6, 0.8]], np.float32),
    )


def test_a_cell_without_a_measured_area_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not one pixel"):
        CcrlEncoder(sized(tmp_path), "cpu", 16)(crops(2), measured([10, 0]))


def test_a_size_that_is_not_counted_is_refused(tmp_path):
    with pytest.raises(ModelError, match="promises 8 dimensions; its network gives 9, the size"):
        CcrlEncoder(sized(tmp_path, n_dimensions=8), "cpu", 8)


def test_sixteen_bit_weights_compute_in_thirty_two(path, tmp_path):
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, small_state(), small_header(), half=True)
    rounded = tmp_path / "rounded.safetensors"
    state = {n: t.half().float() if t.is_floating_point() else t for n, t in small_state().items()}
    save_checkpoint(rounded, state, small_header())

    found = CcrlEncoder(half, "cpu", 16)(crops(9), NO_MEASUREMENTS)

    # Bit by bit what 32-bit arithmetic makes of the rounded weights: not rounded again.
    assert found.tobytes() == CcrlEncoder(rounded, "cpu", 16)(crops(9), NO_MEASUREMENTS).tobytes()
    whole = CcrlEncoder(path, "cpu", 16)(crops(9), NO_MEASUREMENTS)
    assert 0 < np.abs(found - whole).max() < 0.01 * np.abs(whole).max()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit(path, threads):
    torch.set_num_threads(1)
    alone = CcrlEncoder(path, "cpu", 64)(crops(40), NO_MEASUREMENTS)
    torch.set_num_threads(threads)
    try:
        together = CcrlEncoder(path, "cpu", 64)(crops(40), NO_MEASUREMENTS)
    finally:
        torch.set_num_threads(1)

    assert together.tobytes() == alone.tobytes()


def test_more_crops_than_a_cpu_takes_at_once_are_the_same_as_in_small_batches(path):
    many = crops(CPU_BATCH + 5)

    found = CcrlEncoder(path, "cpu", 4 * CPU_BATCH)(many, NO_MEASUREMENTS)

    assert found.tobytes() == CcrlEncoder(path, "cpu", CPU_BATCH)(many, NO_MEASUREMENTS).tobytes()


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

    np.testing.assert_allclose(gpu, cpu, rtol=1e-4, atol=1e-4 * np.abs(cpu).max())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16"])
def test_half_precision_on_a_gpu_points_the_same_way(path, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA on this machine")

    cpu = CcrlEncoder(path, "cpu", 64)(crops(32), NO_MEASUREMENTS)
    gpu = CcrlEncoder(path, "cuda", 64, precision)(crops(32), NO_MEASUREMENTS)

    assert cosines(gpu, cpu).min() > 0.999


def cosines(one, other):
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / lengths


@pytest.mark.parametrize(
    ("precision", "dtype", "least"),
    [
        ("auto", torch.float32, 1),
        ("bfloat16", torch.bfloat16, 0.999),
        ("float16", torch.float16, 0.99999),
    ],
)
def test_lower_precision_is_computed_and_points_the_same_way(path, precision, dtype, least):
    plain = CcrlEncoder(path, "cpu", 64)(crops(32), NO_MEASUREMENTS)
    encoder, seen = CcrlEncoder(path, "cpu", 64, precision), set()
    for layer in encoder._network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda *said: seen.add(said[-1].dtype))

    found = encoder(crops(32), NO_MEASUREMENTS)

    assert seen == {dtype}
    assert found.dtype == np.float32
    assert (found.tobytes() == plain.tobytes()) == (dtype == torch.float32)
    assert cosines(found, plain).min() >= least - 1e-6
    assert not torch.is_autocast_enabled("cpu")


def test_a_gpu_is_given_few_batches_ahead_and_nothing_of_another_thread_between(
    path, monkeypatch, pretended_gpu
):
    moments, seen, heard = [], [], []

    class Moment(torch.cuda.Event):
        def record(self, stream):
            super().record(stream)
            if self.options.get("blocking"):  # not the clock's
                moments.append(self)

    monkeypatch.setattr(torch.cuda, "Event", Moment)
    encoder = CcrlEncoder(path, "cpu", 4)
    expected = encoder(crops(30), NO_MEASUREMENTS)
    encoder._is_gpu = True

    def note(*_):
        ended = moments[1:-1:2]
        seen.append((sum(not moment.is_over for moment in ended), ASKING_GPU.locked()))

    encoder._network.register_forward_hook(note)
    with listening(heard.append):
        found = encoder(crops(30), NO_MEASUREMENTS)

    assert found.tobytes() == expected.tobytes()
    # Eight batches; beside each, one more at most.
    assert seen == [(0, True)] + [(1, True)] * 7
    assert not ASKING_GPU.locked()
    assert [span.work for span in heard] == ["encoder"] * 8
    ends = [end for span in heard for end in (span.begin, span.end)]
    assert ends == sorted(ends)


def test_a_gpu_with_too_little_memory_is_told_what_to_do(path, monkeypatch, pretended_gpu):
    def fail(*_):
        raise torch.OutOfMemoryError

    encoder = CcrlEncoder(path, "cpu", 4)
    encoder._is_gpu = True
    monkeypatch.setattr(encoder, "_look", fail)
    with pytest.raises(ModelError, match=r"4 crops.*embedding\.batch_size"):
        encoder(crops(30), NO_MEASUREMENTS)
    assert not ASKING_GPU.locked()
