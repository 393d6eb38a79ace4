"""Views of boxes are the specification's, byte by byte, by every implementation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.compiling import CAPABILITIES, machine_code
from contracts.interpreting import Interpreter
from contracts.resampling import Boxes, Pixels, kernel_batches, random_boxes, run_kernel, weights
from PIL import Image

from bancache.views.resample import most_taps, resample, taps

# The sha256 of 64 views of fixed boxes: other bytes would be other views than those that caches were made of.
GOLDEN = "c1913622f70adc7ad55de056eba137c33e551a82540da9c3f5229d45b48ffa77"
IMPLEMENTATIONS = ["torch", "numba"]
SIZES = [(1, 1), (2, 31), (31, 2), (8, 8), (13, 17), (32, 32)]


def implementation(name: str) -> Callable[..., torch.Tensor]:
    if name == "torch":
        return resample
    if find_spec("numba") is None:
        pytest.skip("numba is an extra")
    from bancache.views import numba_resample

    return numba_resample.resample


@pytest.fixture(scope="module")
def batches() -> list[Boxes]:
    """Thousands of boxes, smaller and larger than their views."""
    rng = np.random.default_rng(0)
    small = [random_boxes(rng, 75, 48, size) for size in SIZES * 5]
    return [*small, *(random_boxes(rng, 4, longest, (48, 40)) for longest in (200, 400, 700))]


@pytest.fixture(scope="module")
def expected(batches: list[Boxes]) -> list[Pixels]:
    return [given.expected() for given in batches]


def golden() -> Boxes:
    """64 boxes without a random generator, which may change."""
    number = np.arange(64)
    pictures = [
        ((np.arange(height * width * 3) ** 2 * 7919) >> 5).astype(np.uint8).reshape(height, width, 3)
        for height, width in zip((20 + number).tolist(), (90 - number).tolist(), strict=True)
    ]
    boxes = np.stack([number % 7 - 3, number % 11 - 5, 1 + number * 5 % 83, 1 + number * 29 % 97], 1)
    return Boxes(pictures, boxes.astype(np.int32), (number % 2).astype(np.int32), (24, 28), "reflect")


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_thousands_of_boxes_are_the_specifications_bytes(
    name: str, batches: list[Boxes], expected: list[Pixels]
) -> None:
    differing = boxes = 0
    for given, views in zip(batches, expected, strict=True):
        found = implementation(name)(*given.arguments()).numpy()
        differing += int((found != views).sum())
        boxes += len(found)
    assert boxes > 2000
    assert differing == 0


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_bytes_of_a_few_boxes_are_frozen(name: str) -> None:
    given = golden()
    assert hashlib.sha256(given.expected().tobytes()).hexdigest() == GOLDEN
    found = implementation(name)(*given.arguments())
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest() == GOLDEN


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_a_box_as_long_as_its_view_is_copied(mode: str) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    box, one = torch.tensor([[-2, 3, 9, 14]]), torch.tensor([1])
    numbers = (torch.from_numpy(picture).view(-1), one - 1, 9 * one, 14 * one, 3)
    found = resample(*numbers, box, one, (9, 14), mode)[0].numpy()  # type: ignore[arg-type]
    padded = np.pad(picture, [(2, 0), (0, 3), (0, 0)], mode="reflect" if mode == "reflect" else "constant")
    np.testing.assert_array_equal(found, padded[:9, 3:17][:, ::-1])


@pytest.mark.parametrize("size", [1, 7, 32, 224])
def test_weights_are_the_specifications_for_many_lengths_at_once(size: int) -> None:
    lengths = torch.tensor([1, 2, size, size + 1, 3 * size // 2, 2 * size, 375, 500, 1199])
    first, found = taps(lengths, size, most_taps(int(lengths.max()), size))
    for view, length in enumerate(lengths.tolist()):
        table = np.zeros((size, 1200 + found.shape[-1]), np.int64)
        place = first[view].numpy()[:, None] + np.arange(found.shape[-1])
        np.put_along_axis(table, place, found[view].numpy(), axis=1)
        np.testing.assert_array_equal(table[:, :length], weights(length, size))
        assert not table[:, length:].any()


@pytest.mark.parametrize(("length", "size"), [(1, 300), (400, 224), (8160, 32), (255, 1)])
def test_float32_sums_are_exact_at_the_extremes(length: int, size: int) -> None:
    """White stays white, and no weight is negative, so that no partial sum is larger than the last."""
    _, found = taps(torch.tensor([length]), size, most_taps(length, size))
    assert int(found.min()) >= 0
    assert (found.sum(-1) == 2**16).all()
    assert 255 * 2**16 + 2**15 < 2**24
    one, white = torch.ones(1, dtype=torch.int64), torch.full((length,), 255, dtype=torch.uint8)
    for shape in [(1, length), (length, 1)]:
        box = torch.tensor([[0, 0, *shape]])
        assert (
            resample(white, one - 1, one * shape[0], one * shape[1], 1, box, one, (size, 1), "zero") == 255
        ).all()


def test_numbas_normalized_views_have_the_bits_of_torchs_difference_and_product() -> None:
    mean, scale = torch.tensor([123.675, 116.28, 103.53]), 1 / torch.tensor([58.395, 57.12, 57.375])
    given = golden().arguments()
    found = implementation("numba")(*given, normalization=(mean, scale))
    assert found.equal((resample(*given).float() - mean) * scale)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_view_depends_neither_on_its_batch_nor_on_threads(name: str) -> None:
    flat, offsets, heights, widths, channels, boxes, flips, size, mode = golden().arguments()
    torch.set_num_threads(3)
    together = implementation(name)(flat, offsets, heights, widths, channels, boxes, flips, size, mode)
    torch.set_num_threads(1)
    for view in (0, 5, 63):
        pick = slice(view, view + 1)
        alone = implementation(name)(
            flat, offsets[pick], heights[pick], widths[pick], channels, boxes[pick], flips[pick], size, mode
        )
        assert alone[0].equal(together[view])


@pytest.mark.parametrize("box", [(0, 0, 190, 200), (10, 21, 90, 64), (40, 3, 30, 41)])
def test_pillow_shows_the_same_to_one_255th(box: tuple[int, int, int, int]) -> None:
    top, left, height, width = box
    ramp = np.random.default_rng(3).integers(0, 256, (190, 200, 3), dtype=np.uint8)
    one = torch.tensor([1])
    numbers = (torch.from_numpy(ramp).view(-1), one - 1, 190 * one, 200 * one, 3)
    found = resample(*numbers, torch.tensor([box]), one - 1, (64, 96), "zero")[0].numpy()
    cut = Image.fromarray(ramp[top : top + height, left : left + width])
    pillow = np.asarray(cut.resize((96, 64), Image.Resampling.BILINEAR))
    assert int(np.abs(found.astype(int) - pillow.astype(int)).max()) <= 1


def test_the_kernel_writes_the_specifications_bytes(interpreter: Interpreter) -> None:
    shown = interpreter.run("resampling")
    for number, given in enumerate(kernel_batches()):
        np.testing.assert_array_equal(shown[str(number)], given.expected())


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_compiled_kernel_spills_nothing_and_has_no_floats(capability: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="the kernel is triton's")
    from bancache.views.triton_resample import SIZE, WARPS, resample_kernel

    tables = dict.fromkeys(("rows", "row_weights", "columns", "column_weights"), "*i32")
    numbers = {"offsets": "*i64", "widths": "*i32", "boxes": "*i32", "flips": "*i32"}
    sizes = {"HEIGHT": 224, "WIDTH": 224, "CHANNELS": 3, "ROW_TAPS": 5, "COLUMN_TAPS": 5, "SIZE": SIZE}
    pointers = {"flat": "*u8", **numbers, **tables, "out": "*u8"}
    code = machine_code(resample_kernel, capability, pointers, {}, sizes, warps=WARPS, folder=tmp_path)
    assert code.stack == 0
    assert code.count(r"LDL|STL") == 0
    assert code.count(r"F2I|I2F|FFMA|FMUL|FADD") == 0
    assert code.registers <= 96


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_a_gpu_kernel_and_torch_give_the_specifications_bytes(
    batches: list[Boxes], expected: list[Pixels]
) -> None:
    for given, views in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(run_kernel(given, "cuda"), views)
        np.testing.assert_array_equal(resample(*given.arguments("cuda")).cpu().numpy(), views)
