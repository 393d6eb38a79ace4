"""Pictures that differ in size keep their own, each at its place in one run of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sources.test_decoded import is_mapped, the_file
from sources.tiny import Heard, encode, make_folder, make_npz, make_parquet, make_shard, random_images
from sources.tiny_torchvision import make_fashion_mnist

from bancache.errors import DataError, OutOfMemoryError, UsageError
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet, fingerprint_images
from bancache.sources.pictures import Pictures, decode_in_memory
from bancache.sources.request import Request
from bancache.sources.spec import DataSpec
from bancache.system import memory
from bancache.system.fingerprint import fingerprint_json
from bancache.system.ragged import RaggedImages, as_ragged

Pixels = NDArray[np.uint8]
REAL = Path(__file__).parents[3] / "shared" / "data" / "photographs"
SIZES = [(4, 6), (6, 4), (5, 5), (2, 9)]  # height, width; the first two have equally many pixels


def pictures(channels: int = 3) -> list[Pixels]:
    return [
        random_images(1, height=h, width=w, channels=channels, seed=i)[0] for i, (h, w) in enumerate(SIZES)
    ]


def joined(images: list[Pixels]) -> RaggedImages:
    heights, widths, channels = np.array([image.shape for image in images]).T
    flat = np.concatenate([image.reshape(-1) for image in images])
    return RaggedImages(flat, heights, widths, int(channels[0]))


def ragged_set(**changes: Any) -> ImageSet:
    values: dict[str, Any] = {
        "images": joined(pictures()),
        "labels": np.array([0, 1, 1, 0]),
        "classes": ("ant", "bee"),
        "name": "photos",
        "split": "train",
    }
    return ImageSet(**{**values, **changes})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures of four sizes in two classes for training, and test pictures of one size."""
    root = make_folder(tmp_path / "photos")
    for file in (root / "train").rglob("*.png"):
        file.unlink()
    for number, image in enumerate(pictures()):
        (root / "train" / ("cat", "dog")[number // 2] / f"{number}.png").write_bytes(encode(image))
    return root


def opened(root: Path, heard: Heard | None = None, **options: Any) -> ImageSet:
    return open_source(f"folder:{root}", "train", progress=heard or Heard(), **options)


def require_pictures(found: ImageSet, expected: list[Pixels]) -> None:
    assert len(found) == len(expected)
    for index, image in enumerate(expected):
        assert np.array_equal(found.images[index], image)


# The type.


def test_one_number_gives_a_picture_and_several_give_the_same_type() -> None:
    parts, images = pictures(), joined(pictures())
    assert images.offsets.tolist() == [0, 72, 144, 219]
    assert images.nbytes == 72 + 72 + 75 + 54
    for index in (0, 3, -1, np.int64(2)):
        assert np.array_equal(images[index], parts[int(index)])
    first, some, masked = (
        images[1:3],
        images[np.array([3, 0, 3])],
        images[np.array([True, False, False, True])],
    )
    for found, expected in ((first, [1, 2]), (some, [3, 0, 3]), (masked, [0, 3]), (images[::-2], [3, 1])):
        assert [image.tolist() for image in found] == [parts[i].tolist() for i in expected]
    assert np.shares_memory(first.flat, images.flat)
    assert not np.shares_memory(some.flat, images.flat)
    assert (some.flat.size, first.offsets.tolist()) == (54 + 72 + 54, [0, 72])
    assert len(images[:0]) == 0
    with pytest.raises(IndexError):
        images[4]


def test_the_pixels_are_read_only_and_the_callers_array_is_not() -> None:
    flat = np.zeros(12, np.uint8)
    images = RaggedImages(flat, np.array([1, 3]), np.array([1, 1]), 3)
    assert flat.flags.writeable
    assert np.shares_memory(images.flat, flat)
    with pytest.raises(ValueError, match="read-only"):
        images[0][0, 0, 0] = 1


@pytest.mark.parametrize(
    ("flat", "heights"),
    [
        (np.zeros(11, np.uint8), [1, 3]),
        (np.zeros((4, 3), np.uint8), [1, 3]),
        (np.zeros(12, np.int16), [1, 3]),
        (np.zeros(12, np.uint8), [0, 4]),
        (np.zeros(12, np.uint8), [-1, 5]),
    ],
)
def test_sizes_that_are_not_those_of_the_pixels_are_refused(flat: Any, heights: list[int]) -> None:
    with pytest.raises(DataError):
        RaggedImages(flat, np.array(heights), np.array([1, 1]), 3)


def test_images_of_one_size_are_seen_in_the_same_way_without_a_copy() -> None:
    images = random_images(3, height=2, width=4)
    found = as_ragged(images)
    assert np.shares_memory(found.flat, images)
    assert (found.heights.tolist(), found.widths.tolist(), found.channels) == ([2] * 3, [4] * 3, 3)
    assert found.offsets.tolist() == [0, 24, 48]
    assert [part.dtype.name for part in (found.offsets, found.heights, found.widths)] == [
        "int64",
        "int32",
        "int32",
    ]


# The set.


def test_the_fingerprint_is_frozen() -> None:
    images = RaggedImages(np.arange(27, dtype=np.uint8), np.array([2, 1, 2]), np.array([3, 1, 1]), 3)
    found = ragged_set(images=images, labels=np.array([0, 1, 1]))
    assert found.fingerprint == "ceb30a68a6fb0ace32642692e8a12e59ded93c11a53df5e046a324a47f1b0b0b"


def test_the_fingerprint_counts_pixels_order_sizes_labels_and_names() -> None:
    parts = pictures()
    turned = [parts[0].reshape(6, 4, 3), parts[1].reshape(4, 6, 3), *parts[2:]]
    one_pixel = [part.copy() for part in parts]
    one_pixel[3][1, 8, 2] ^= 1
    order = [1, 0, 2, 3]
    variants = [
        ragged_set(),
        ragged_set(images=joined(turned)),
        ragged_set(images=joined(one_pixel)),
        ragged_set(images=joined([parts[i] for i in order]), labels=np.array([1, 0, 1, 0])),
        ragged_set(images=joined([part.reshape(*part.shape[:2], 3)[..., :1].copy() for part in parts])),
        ragged_set(labels=np.array([0, 1, 1, 1])),
        ragged_set(classes=("ant", "cow")),
    ]
    assert len({found.fingerprint for found in variants}) == len(variants)
    assert ragged_set(name="other", split="test").fingerprint == variants[0].fingerprint


def test_statistics_are_those_of_all_pixels_in_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.concatenate([part.reshape(-1, 3) for part in pictures()]).astype(object)
    count = len(pixels)
    total, squares = pixels.sum(axis=0), (pixels * pixels).sum(axis=0)
    expected = [(count * q - s * s) ** 0.5 / count for s, q in zip(total, squares, strict=True)]
    for block in (1 << 24, 132):  # also in several blocks
        monkeypatch.setattr("bancache.sources.content._BLOCK_BYTES", block)
        found = ragged_set().statistics
        assert found.mean == tuple(s / count for s in total)
        assert found.std == pytest.approx(expected, rel=1e-15)


def test_one_size_by_chance_is_an_array_and_the_same_data() -> None:
    images = random_images(4)
    labels, classes = np.array([0, 1, 1, 0]), ("ant", "bee")
    found = ragged_set(images=as_ragged(images))
    assert found.uniform
    assert np.shares_memory(found.images, images)
    assert found.images.shape == (4, 5, 5, 3)
    assert found.fingerprint == fingerprint_images(images, labels, classes)


def test_height_and_width_of_pictures_that_differ_are_refused_with_both_sizes() -> None:
    found = ragged_set()
    assert (found.uniform, found.channels) == (False, 3)
    for side in ("height", "width"):
        with pytest.raises(UsageError, match="9x2 to 5x5") as caught:
            getattr(found, side)
        assert "--image-size" in caught.value.hint
        assert "rrc-flip" in caught.value.hint


def test_the_first_pictures_keep_their_paths() -> None:
    found = ragged_set(paths=("a", "b", "c", "d")).first(2)
    require_pictures(found, pictures()[:2])
    assert (found.uniform, found.paths, found.labels.tolist()) == (False, ("a", "b"), [0, 1])
    alone = found.first(1)
    assert alone.images.shape == (1, 4, 6, 3)
    assert alone.paths == ("a",)


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": ("a", "b", "c")},
        {"images": joined(pictures())[:3]},
        {"images": joined([np.zeros((*size, 2), np.uint8) for size in SIZES])},
        {"images": joined(pictures())[:0], "labels": np.zeros(0, np.int64)},
    ],
)
def test_sets_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        ragged_set(**changes)


# A folder or a file of rows.


def test_each_picture_of_a_folder_keeps_its_size_now_and_when_opened_again(photos: Path) -> None:
    heard = Heard()
    first = opened(photos, heard)
    again = opened(photos, heard)
    assert heard.decoded == 4
    for found in (first, again):
        require_pictures(found, pictures())
        assert found.labels.tolist() == [0, 0, 1, 1]
        assert found.fingerprint == fingerprint_images(found.images, found.labels, found.classes)
        assert found.statistics == ImageSet(found.images, found.labels, ("a", "b"), "x", "train").statistics
        assert is_mapped(found)
        assert found.paths == tuple(
            str(photos / "train" / ("cat", "dog")[number // 2] / f"{number}.png") for number in range(4)
        )
    notes = [note for note in heard.notes if "9x2" in note and "5x5" in note]
    assert len(notes) == len(heard.notes) == 2


def test_without_a_place_to_keep_them_the_pictures_are_the_same(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found, kept = opened(photos, cache_dir=tmp_path / "file" / "below"), opened(photos)
    require_pictures(found, pictures())
    assert (found.fingerprint, found.paths) == (kept.fingerprint, kept.paths)


def test_an_image_size_makes_them_squares_as_before(photos: Path) -> None:
    heard = Heard()
    found = opened(photos, heard, image_size=4)
    assert found.images.shape == (4, 4, 4, 3)
    assert found.paths is not None
    assert not any("keeps its own" in note for note in heard.notes)


def test_gray_pictures_among_color_and_turned_ones(photos: Path) -> None:
    gray, exif = random_images(1, height=3, width=7, channels=1, seed=9)[0], Image.Exif()
    exif[0x0112] = 6  # stored rotated by 90 degrees against the clock
    (photos / "train" / "dog" / "8.png").write_bytes(encode(gray))
    (photos / "train" / "dog" / "9.png").write_bytes(encode(pictures()[0], exif=exif))
    expected = [*pictures(), np.repeat(gray, 3, axis=2), np.rot90(pictures()[0], -1)]
    require_pictures(opened(photos), expected)
    for file in (photos / "train").rglob("[0-79].png"):
        file.unlink()
    (photos / "train" / "cat" / "0.png").write_bytes(encode(pictures(channels=1)[0]))
    only_gray = opened(photos)
    assert only_gray.channels == 1
    require_pictures(only_gray, [pictures(channels=1)[0], gray])


def test_a_torn_picture_before_the_first_one_says_nothing_of_color(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "gray", channels=1)
    torn = encode(random_images(1, height=40, width=40)[0])
    (root / "train" / "cat" / "-.png").write_bytes(torn[: len(torn) // 2])
    assert opened(root, skip_bad=True).channels == 1


def test_rows_of_parquet_files_keep_their_sizes_and_say_where_they_are(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    shards = [tmp_path / f"train-0000{i}-of-00002.parquet" for i in range(2)]
    options = {"names": ["ant", "bee", "cow"]}
    for shard, images in zip(shards, (pictures()[:3], pictures()[3:]), strict=True):
        make_shard(shard, images, [0] * len(images), **options)  # type: ignore[arg-type]
    heard = Heard()
    for _ in range(2):
        found = open_source(f"parquet:{tmp_path}", "train", progress=heard)
        require_pictures(found, pictures())
        assert found.paths == (*(f"{shards[0]} row {row}" for row in range(3)), f"{shards[1]} row 0")
    assert heard.decoded == 4


@pytest.mark.parametrize("bad", [0, 2])
def test_what_cannot_be_read_is_left_out_with_its_size_and_path(photos: Path, bad: int) -> None:
    file = next((photos / "train").rglob(f"{bad}.png"))
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=file.name):
        opened(photos)
    found = [opened(photos, skip_bad=True) for _ in range(2)]
    file.unlink()
    clean = opened(photos)
    for each in found:
        require_pictures(each, [image for number, image in enumerate(pictures()) if number != bad])
        assert (each.fingerprint, each.paths) == (clean.fingerprint, clean.paths)
        assert str(file) not in (each.paths or ())


def test_if_the_odd_one_is_left_out_the_others_are_an_array(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "same")
    clean = opened(root)
    odd = encode(random_images(1, height=40, width=41)[0])
    (root / "train" / "cat" / "9.png").write_bytes(odd[: len(odd) // 2])
    for _ in range(2):
        found = opened(root, skip_bad=True)
        assert found.images.shape == (5, 5, 5, 3)
        assert (found.fingerprint, found.paths) == (clean.fingerprint, clean.paths)


def test_a_limit_takes_the_first_pictures(photos: Path) -> None:
    found = DataSpec(f"folder:{photos}", limit=3).open("train")
    require_pictures(found, pictures()[:3])
    assert found.fingerprint == fingerprint_images(joined(pictures()[:3]), found.labels, found.classes)
    assert found.paths == (opened(photos).paths or ())[:3]


def test_sources_of_arrays_have_no_paths(tmp_path: Path) -> None:
    source = f"fashion-mnist:{make_fashion_mnist(tmp_path)}"
    for name, size in (("digits", None), ("digits", 6), (f"npz:{make_npz(tmp_path / 'a.npz')}", None)):
        assert open_source(name, "train", image_size=size).paths is None
    assert [open_source(source, "test").paths for _ in range(2)] == [None, None]


# Kept files.


def sealed(file: Path, **changes: Any) -> None:
    """Change the facts beside kept pixels under a hash that is right; None takes one away."""
    facts = {**json.loads(file.read_text())["facts"], **changes}
    facts = {name: value for name, value in facts.items() if value is not None}
    file.write_text(json.dumps({"facts": facts, "sha256": fingerprint_json(facts)}))


@pytest.mark.parametrize("damage", ["flip", "cut", "shape", "sizes", "more sizes"])
def test_damaged_pixels_or_sizes_are_made_anew(photos: Path, cache_home: Path, damage: str) -> None:
    fingerprint = opened(photos).fingerprint
    file, facts = the_file(cache_home, ".npy"), the_file(cache_home, ".json")
    content = file.read_bytes()
    file.unlink()  # a mapping of the old file must not see the new one
    changed = {"flip": content[:-1] + bytes([content[-1] ^ 1]), "cut": content[:-9]}
    file.write_bytes(changed.get(damage, content))
    if damage == "shape":
        np.save(file, np.frombuffer(content[-273:], np.uint8).reshape(91, 3))
    if "sizes" in damage:
        heights, widths, channels = json.loads(facts.read_text())["facts"]["sizes"]
        sealed(facts, sizes=[[*heights, 1], [*widths, 1], channels] if "more" in damage else [heights, 7, 3])
    heard = Heard()
    found = opened(photos, heard)
    require_pictures(found, pictures())
    assert (found.fingerprint, heard.decoded) == (fingerprint, 4)
    opened(photos, heard)
    assert heard.decoded == 4


def test_pixels_of_one_size_are_kept_as_older_versions_kept_them(tmp_path: Path, cache_home: Path) -> None:
    """One array as numpy writes it, and facts with nothing new but the paths, which older versions pass over."""
    found = opened(make_folder(tmp_path / "same"))
    np.save(tmp_path / "a.npy", found.images)
    assert the_file(cache_home, ".npy").read_bytes() == (tmp_path / "a.npy").read_bytes()
    facts = json.loads(the_file(cache_home, ".json").read_text())["facts"]
    old = {"source", "split", "labels", "classes", "fingerprint", "mean", "std", "crc32c", "notes"}
    assert set(facts) == {*old, "paths"}


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_old_kept_pixels_are_used_and_get_their_paths_where_the_files_are_known(
    kind: str, tmp_path: Path, cache_home: Path
) -> None:
    source = f"{kind}:{(make_folder if kind == 'folder' else make_parquet)(tmp_path / 'data')}"
    paths = open_source(source, "train").paths
    sealed(the_file(cache_home, ".json"), paths=None)
    heard = Heard()
    found = open_source(source, "train", progress=heard)
    assert heard.decoded == 0
    assert found.paths == (paths if kind == "folder" else None)


def test_old_kept_pixels_without_what_was_left_out_have_no_paths(tmp_path: Path, cache_home: Path) -> None:
    root = make_folder(tmp_path / "torn")
    (root / "train" / "cat" / "1.png").write_bytes(b"x")
    assert len(opened(root, skip_bad=True).paths or ()) == 4
    sealed(the_file(cache_home, ".json"), paths=None)
    assert opened(root, skip_bad=True).paths is None


# Memory.


def test_more_pixels_than_fit_are_refused_before_they_are_decoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        image = np.zeros((100, 100 + number, 3), np.uint8)
        (photos / "train" / "dog" / f"{10 + number}.png").write_bytes(encode(image))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(memory, "_NOT_WORTH_ASKING", 0)
    monkeypatch.setattr(memory, "free_on_host", lambda: 500_000)  # 657,273 bytes of pixels
    heard = Heard()
    with pytest.raises(OutOfMemoryError, match="24 pictures") as caught:
        opened(photos, heard, cache_dir=tmp_path / "file" / "below")
    assert "--image-size" in caught.value.hint
    assert heard.decoded == 0


def test_a_picture_that_grew_while_it_was_read_is_refused() -> None:
    sizes = iter([4, 5])

    def stream() -> Iterator[tuple[str, bytes]]:
        side = next(sizes)
        yield "photo.png", encode(random_images(1, height=side, width=side)[0])

    found = Pictures(np.zeros(1, np.int64), ("cat",), stream)
    with pytest.raises(DataError, match=r"photo\.png"):
        decode_in_memory(Request("folder:x", "folder", "x", "train", None, False, Heard(), None), found)


# Real ones.


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the photographs are not beside this repository")
@pytest.mark.parametrize("split", ["train", "test"])
def test_real_photographs_are_what_pillow_decodes(split: str) -> None:
    found = open_source(f"folder:{REAL}", split)
    assert len(found) == {"train": 132, "test": 35}[split]
    total, squares, count = np.zeros(3, np.int64), np.zeros(3, np.int64), 0
    for index, path in enumerate(found.paths or ()):
        with Image.open(path) as picture:
            pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        assert np.array_equal(found.images[index], pixels)
        wide = pixels.reshape(-1, 3).astype(np.int64)
        total, squares, count = total + wide.sum(axis=0), squares + (wide**2).sum(axis=0), count + len(wide)
    assert np.allclose(found.statistics.mean, total / count, rtol=1e-12)
    assert np.allclose(found.statistics.std, np.sqrt(squares / count - (total / count) ** 2), rtol=1e-9)
    again = open_source(f"folder:{REAL}", split)
    assert (again.fingerprint, again.paths) == (found.fingerprint, found.paths)
