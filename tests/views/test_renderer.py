"""The pixels of a view, compared with padding, cropping and mirroring written out."""

import numpy as np
import pytest
import torch
from contracts.lattices import lattice
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.views import Lattice
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.model_input import Normalization

NORMAL = Normalization((100.0, 120.5, 90.25), (50.0, 60.5, 70.125))


def images(count: int = 6, size: int = 9, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def by_hand(image: NDArray[np.uint8], space: Lattice, number: int) -> NDArray[np.uint8]:
    """Crop and mirror one image the slow way."""
    edges = ((space.pad,) * 2, (space.pad,) * 2, (0, 0))
    padded = np.pad(image, edges, mode="reflect") if space.mode == "reflect" else np.pad(image, edges)
    dy, dx, flip = (int(part) for part in space.params(number))
    crop = padded[dy : dy + image.shape[0], dx : dx + image.shape[1]]
    return crop[:, ::-1] if flip else crop


@pytest.mark.parametrize("name", ["identity", "flip", "crop2", "crop2-flip", "crop3-zero-flip"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_view_has_the_pixels_of_pad_crop_mirror(name: str, channels: int) -> None:
    space, data = lattice(name), images(channels=channels)
    renderer = LatticeRenderer(data, space, Normalization((0.0,) * channels, (1.0,) * channels))
    samples = torch.arange(len(data)).repeat_interleave(space.size)
    ids = torch.arange(space.size).repeat(len(data))
    expected = [by_hand(data[s], space, v) for s, v in zip(samples.tolist(), ids.tolist(), strict=True)]
    np.testing.assert_array_equal(renderer.pixels(samples, ids).numpy(), np.stack(expected))


def test_the_identity_view_is_the_image() -> None:
    space, data = lattice("crop4-flip"), images()
    samples = torch.arange(len(data))
    shown = LatticeRenderer(data, space, NORMAL).pixels(samples, torch.full_like(samples, space.identity))
    np.testing.assert_array_equal(shown.numpy(), data)


def test_normalization_is_subtract_then_multiply_in_float32() -> None:
    space, data = lattice("identity"), images()
    shown = LatticeRenderer(data, space, NORMAL).render(torch.arange(6), torch.zeros(6, dtype=torch.int64))
    mean, std = np.asarray(NORMAL.mean), np.asarray(NORMAL.std)
    expected = (data.astype(np.float32) - mean.astype(np.float32)) * (1.0 / std).astype(np.float32)
    np.testing.assert_array_equal(shown.permute(0, 2, 3, 1).numpy(), expected)
    assert shown.is_contiguous(memory_format=torch.channels_last)


def test_a_view_has_the_same_bits_in_any_batch() -> None:
    space, data = lattice("crop4-flip"), images(40)
    renderer = LatticeRenderer(data, space, NORMAL)
    samples = torch.from_numpy(np.random.default_rng(1).permutation(40))
    ids = torch.from_numpy(space.view_ids(samples.numpy(), 5))
    whole = renderer.render(samples, ids)
    for size in (1, 7, 16):
        parts = [renderer.render(samples[i : i + size], ids[i : i + size]) for i in range(0, 40, size)]
        assert torch.equal(torch.cat(parts), whole)


def test_a_batch_that_is_kept_is_not_written_again() -> None:
    """The memory of a batch is used again, but only when the batch is gone."""
    space, data = lattice("crop4-flip"), images(40)
    renderer, samples = LatticeRenderer(data, space, NORMAL), torch.arange(40)
    kept = [renderer.render(samples, samples * 0 + number) for number in range(7)]
    fresh = [
        LatticeRenderer(data, space, NORMAL).render(samples, samples * 0 + number).clone()
        for number in range(7)
    ]
    assert all(torch.equal(one, other) for one, other in zip(kept, fresh, strict=True))


def test_a_space_too_large_for_a_table_shows_the_same_views(monkeypatch: pytest.MonkeyPatch) -> None:
    space, data = lattice("crop3-zero-flip"), images()
    samples = torch.arange(6).repeat_interleave(space.size)
    ids = torch.arange(space.size).repeat(6)
    usual = LatticeRenderer(data, space, NORMAL).pixels(samples, ids)
    monkeypatch.setattr("bancache.views.lattice_renderer._LARGEST_TABLE", 1)
    assert torch.equal(LatticeRenderer(data, space, NORMAL).pixels(samples, ids), usual)


def test_golden_pixels_are_frozen() -> None:
    """Caches hold this hash: if it changes, every cache of these views is refused."""
    renderer = LatticeRenderer(images(), lattice("crop2-flip", seed=3), NORMAL)
    assert renderer.golden(4) == "13aad1b590759d17df2f139ab02c76c911d68ff4dfd4ab7f92d16192819f42cd"


def test_reflection_needs_an_image_larger_than_the_pad() -> None:
    with pytest.raises(UsageError, match="reflect 9 pixels of images that have 9 x 9"):
        LatticeRenderer(images(), lattice("crop9"), NORMAL)


@pytest.mark.parametrize("sample", [-1, 3, 2**40])
def test_a_sample_that_does_not_exist_is_refused(sample: int) -> None:
    renderer = LatticeRenderer(images(3), lattice("crop1-zero"), NORMAL)
    with pytest.raises(IndexError):
        renderer.render(torch.tensor([0, sample]), torch.tensor([8, 8]))
    assert renderer.render(torch.tensor([2]), torch.tensor([8])).shape == (1, 3, 9, 9)


def test_a_large_batch_is_rendered_in_blocks_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    space, data = lattice("crop4-flip"), images(40)
    samples = torch.arange(40)
    whole = LatticeRenderer(data, space, NORMAL).render(samples, samples)
    monkeypatch.setattr(
        "bancache.views.lattice_renderer._BLOCK_BYTES", 7 * 4 * 9 * 9 * 3
    )  # blocks of seven images
    assert torch.equal(LatticeRenderer(data, space, NORMAL).render(samples, samples), whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_renders_the_same_bits() -> None:
    space, data = lattice("crop4-flip"), images(40)
    samples = torch.arange(40)
    ids = torch.from_numpy(space.view_ids(samples.numpy(), 5))
    on_gpu = LatticeRenderer(data, space, NORMAL, device="cuda").render(samples.cuda(), ids.cuda())
    assert torch.equal(on_gpu.cpu(), LatticeRenderer(data, space, NORMAL).render(samples, ids))


@pytest.mark.parametrize(
    ("mean", "std", "channels", "expected"),
    [
        ([0.5], [0.25], 1, Normalization((127.5,), (63.75,))),
        ([0.5], [0.25], 3, Normalization((127.5,) * 3, (63.75,) * 3)),
        ([0.2, 0.4, 0.6], [0.2, 0.2, 0.4], 3, Normalization((51.0, 102.0, 153.0), (51.0, 51.0, 102.0))),
        ([0.2, 0.4, 0.6], [0.2, 0.2, 0.5], 1, Normalization((102.0,), (76.5,))),
    ],
)
def test_one_number_is_for_all_channels_and_a_gray_image_takes_the_mean_of_three(
    mean: list[float], std: list[float], channels: int, expected: Normalization
) -> None:
    found = Normalization.of_fractions(mean, std, channels)
    assert found.mean == pytest.approx(expected.mean)
    assert found.std == pytest.approx(expected.std)
