"""Pictures as cameras, microscopes and phones write them: pixels are right, and what was done to them is said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sources.tiny import Heard, encode, make_folder, random_images

from bancache.errors import DataError
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec

Values = NDArray[np.uint16]


def opened(root: Path, split: str = "train", **options: Any) -> tuple[ImageSet, str]:
    """Return a split of a folder, and what was noted."""
    heard = Heard()
    return open_source(f"folder:{root}", split, progress=heard, **options), "\n".join(heard.notes)


def folder_of(root: Path, train: list[Values], test: list[Values], suffix: str = ".png") -> Path:
    """Write pictures of 16 bits, all of one class."""
    for split, pictures in (("train", train), ("test", test)):
        (root / split / "cell").mkdir(parents=True)
        for number, values in enumerate(pictures):
            Image.fromarray(values).save(root / split / "cell" / f"{number}{suffix}")
    return root


def values(*pixels: int) -> Values:
    return np.array([pixels], np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_values_of_8_bits_in_16_bit_pictures_stay_as_they_are(tmp_path: Path, suffix: str) -> None:
    image = random_images(1, channels=1)[0, ..., 0]
    root = folder_of(tmp_path, [image.astype(np.uint16)], [values(0, 255)], suffix)
    train, note = opened(root)
    assert np.array_equal(train.images[0, ..., 0], image)
    assert "255 is white" in note


def test_values_of_12_bits_are_scaled_from_12_bits_and_said(tmp_path: Path) -> None:
    train, note = opened(folder_of(tmp_path, [values(0, 16, 2048, 4095)], [values(5)]))
    assert train.images[0, ..., 0].tolist() == [[0, 1, 128, 255]]
    assert "4,095" in note


def test_the_range_is_that_of_all_pictures_of_both_splits(tmp_path: Path) -> None:
    """One bright picture decides for all dark ones, wherever it is."""
    root = folder_of(tmp_path, [values(0, 200), values(0, 300)], [values(4000, 4095)])
    assert opened(root)[0].images[..., 0].tolist() == [[[0, 12]], [[0, 19]]]
    assert opened(root, "test")[0].images[..., 0].tolist() == [[[249, 255]]]


def test_the_range_is_found_anew_after_the_other_split_changed(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [values(0, 200)], [values(9)])
    assert opened(root)[0].images.max() == 200
    Image.fromarray(values(65535)).save(root / "test" / "cell" / "late.png")
    assert opened(root)[0].images.max() == 1


def test_a_spec_of_an_older_version_takes_the_full_range_as_that_version_did(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [values(0, 257, 4095)], [values(9)])
    old = DataSpec.from_dict({"source": f"folder:{root}", "limit": None, "image_size": None})
    assert old.open("train").images[..., 0].tolist() == [[[0, 1, 16]]]
    new = DataSpec(f"folder:{root}")
    assert DataSpec.from_dict(new.to_dict()).open("train").images[..., 0].tolist() == [[[0, 16, 255]]]


def png_of_16_bits(colors: Values) -> bytes:
    """A PNG of 16 bits a channel, ``(H, W, 3)``, which Pillow reads and cannot write."""
    height, width, _ = colors.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colors)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def test_color_pictures_of_16_bits_are_refused_if_their_upper_bytes_are_dark(tmp_path: Path) -> None:
    cell = tmp_path / "train" / "cell"
    cell.mkdir(parents=True)
    file = cell / "0.png"
    file.write_bytes(png_of_16_bits(np.full((2, 2, 3), 4000, np.uint16)))
    with pytest.raises(DataError, match=r"0\.png.*4,095") as caught:
        opened(tmp_path)
    assert "8 bits" in caught.value.hint
    file.write_bytes(png_of_16_bits(np.full((2, 2, 3), 40000, np.uint16)))
    assert opened(tmp_path)[0].images.max() == 40000 >> 8


def altered(root: Path, content: bytes, suffix: str = ".png") -> Path:
    """Return a folder of five training pictures of 5 x 5 pixels, one more of which is given."""
    make_folder(root)
    (root / "train" / "dog" / f"9{suffix}").write_bytes(content)
    return root


def _saved(picture: Image.Image, file: Path, **options: Any) -> bytes:
    picture.save(file, **options)
    return file.read_bytes()


def _with_alpha(alpha: int) -> Image.Image:
    picture = Image.fromarray(random_images(1)[0]).convert("RGBA")
    picture.putalpha(alpha)
    return picture


def test_what_was_done_to_a_picture_is_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    color = random_images(1)[0]
    frames = [Image.fromarray(image) for image in random_images(2)]
    made = {
        "turned": (encode(color, exif=exif), ".png"),
        "transparent": (_saved(_with_alpha(7), tmp_path / "a.png"), ".png"),
        "CMYK": (_saved(Image.new("CMYK", (5, 5)), tmp_path / "c.jpg"), ".jpg"),
        "gray": (encode(color[..., :1]), ".png"),
        "first": (_saved(frames[0], tmp_path / "f.gif", save_all=True, append_images=frames[1:]), ".gif"),
    }
    for word, (content, suffix) in made.items():
        note = opened(altered(tmp_path / word, content, suffix))[1]
        assert len(note.splitlines()) == 1
        assert word in note
        assert "1 of 6" in note


def test_resizing_says_how_many_pictures_lose_their_sides_and_how_many_grow(tmp_path: Path) -> None:
    root = altered(tmp_path, encode(random_images(1, height=8, width=12)[0]))
    said = {line.rpartition(": ")[0].split()[2]: line for line in opened(root, image_size=7)[1].splitlines()}
    assert "1 of 6" in said["cropped"]
    assert "5 of 6" in said["enlarged"]


def test_nothing_is_said_where_nothing_was_decided(tmp_path: Path) -> None:
    """Upright, opaque, of one frame, of the right size."""
    root = altered(tmp_path, _saved(_with_alpha(255), tmp_path / "a.png"))
    assert opened(root)[1] == ""
    assert opened(root, image_size=5)[1] == ""


def test_what_was_said_is_said_again_when_the_pixels_are_kept(tmp_path: Path) -> None:
    root = altered(tmp_path, encode(random_images(1)[0][..., :1]))
    assert opened(root)[1] == opened(root)[1] != ""
