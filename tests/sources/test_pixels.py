"""What one picture becomes: upright, 8 bits, L or RGB, and square if a size is given."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sources.tiny import encode, random_images

from bancache.errors import DataError, OutOfMemoryError
from bancache.sources.pixels import Rules, decode, look, to_array


def save(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def pixels_of(content: bytes, *, channels: int, image_size: int | None = None) -> NDArray[np.uint8]:
    return to_array(decode("here", content, Rules(image_size)), channels=channels)


def test_exif_orientation_is_applied() -> None:
    """A picture stored on its side is decoded upright."""
    image = random_images(1, height=2, width=3)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated by 90 degrees against the clock
    assert np.array_equal(pixels_of(encode(image, exif=exif), channels=3), np.rot90(image, -1))


def test_palette_is_color() -> None:
    """A palette picture is what its palette says."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    content = save(picture)
    assert not look("here", content).gray
    assert pixels_of(content, channels=3).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_transparency_lies_on_white() -> None:
    """What shows through is white, whatever color the file holds there; opaque pixels stay exact."""
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    assert pixels_of(save(Image.fromarray(rgba)), channels=3).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putdata([0, 1])
    found = pixels_of(save(palette, transparency=bytes([255, 0])), channels=3)
    assert found.tolist() == [[[1, 2, 3], [255, 255, 255]]]
    gray_alpha = np.array([[[40, 255], [40, 0]]], np.uint8)
    content = save(Image.merge("LA", _bands(gray_alpha)))
    assert look("here", content).gray
    assert pixels_of(content, channels=1).tolist() == [[[40], [255]]]


def _bands(array: NDArray[np.uint8]) -> list[Image.Image]:
    return [Image.fromarray(np.ascontiguousarray(array[..., band])) for band in range(array.shape[2])]


def test_one_bit_is_gray() -> None:
    """Black and white become 0 and 255."""
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert pixels_of(save(picture), channels=1).tolist() == [[[0], [255]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    """65535 becomes 255 and values in between are rounded, not cut off."""
    picture = Image.fromarray(np.array([[0, 128, 129, 257, 65535]], np.uint16))
    content = save(picture, kind)
    assert look("here", content).gray
    assert pixels_of(content, channels=1).tolist() == [[[0], [0], [1], [1], [255]]]


def test_numbers_that_are_no_brightness() -> None:
    """Floating-point and 32-bit pictures have no agreed white, and are refused by name."""
    for array, message in (
        (np.zeros((2, 2), np.float32), "here"),
        (np.full((2, 2), 70000, np.int32), r"here.*70000.*70000.*0\.\.65535"),
    ):
        with pytest.raises(DataError, match=message):
            decode("here", save(Image.fromarray(array), "TIFF"), Rules())


def test_cmyk_is_color() -> None:
    """A JPEG for printing becomes RGB."""
    content = save(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG")
    assert pixels_of(content, channels=3).max() == 0


def test_resize_then_crop_the_center() -> None:
    """The shorter side gets the size, and the middle of the longer one is kept."""
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 200  # the middle third
    assert np.array_equal(pixels_of(encode(wide), channels=3, image_size=4), np.full((4, 4, 3), 200))
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    assert pixels_of(encode(tall), channels=3, image_size=2).shape == (2, 2, 3)


def test_resize_is_antialiased() -> None:
    """A fine checkerboard becomes its mean, not one of its two colors."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 254
    small = pixels_of(encode(board.astype(np.uint8)[..., None]), channels=1, image_size=4)
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_a_narrow_picture_that_would_become_longer_than_memory_is_refused() -> None:
    with pytest.raises(OutOfMemoryError, match=r"4,096 x 245,760,000 pixels of a\.png"):
        decode("a.png", encode(np.zeros((60_000, 1, 3), np.uint8)), Rules(image_size=4096))


def test_right_size_is_untouched() -> None:
    """A picture that has the size already keeps every bit."""
    image = random_images(1, height=6, width=6)[0]
    assert np.array_equal(pixels_of(encode(image), channels=3, image_size=6), image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_damage_never_escapes(kind: str) -> None:
    """Cut anywhere, or with bytes altered, a picture decodes or raises DataError, nothing else."""
    whole = encode(random_images(1, height=12, width=10)[0], kind)
    draw = np.random.default_rng(0)
    for attempt in range(120):
        broken = bytearray(whole)
        if attempt % 2:
            broken = broken[: int(draw.integers(len(whole)))]
        else:
            broken[int(draw.integers(len(whole)))] = int(draw.integers(256))
        with contextlib.suppress(DataError):
            decode("here", bytes(broken), Rules(4))
