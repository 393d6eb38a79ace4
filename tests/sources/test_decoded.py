"""Kept pixels: the second start decodes nothing, and nothing wrong is ever trusted."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sources.tiny import Heard, encode, make_folder, make_npz, make_parquet, random_images

from bancache.errors import DataError
from bancache.sources import open_source
from bancache.sources.image_set import ImageSet
from bancache.system.ragged import as_ragged


def opened(place: Path, heard: Heard | None = None, *, cache_dir: Path | None = None) -> ImageSet:
    return open_source(f"folder:{place}", "train", progress=heard or Heard(), cache_dir=cache_dir)


def the_file(directory: Path, suffix: str) -> Path:
    (file,) = directory.glob(f"*{suffix}")
    return file


def is_mapped(images: ImageSet) -> bool:
    array: object = as_ragged(images.images).flat
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "tree")


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_second_start_decodes_and_hashes_nothing(
    kind: str, tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With decoder, hash and statistics broken, the second start gives the same set, mapped from the file."""
    source = f"{kind}:{(make_folder if kind == 'folder' else make_parquet)(tmp_path / 'data')}"
    heard = Heard()
    first = open_source(source, "train", progress=heard)
    assert heard.decoded == 5

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("called")

    for name in (
        "pictures.decode",
        "pictures.look",
        "image_set.fingerprint_images",
        "image_set.channel_statistics",
    ):
        monkeypatch.setattr(f"bancache.sources.{name}", fail)
    second = open_source(source, "train", progress=heard)
    assert is_mapped(second)
    assert np.array_equal(second.images, first.images)
    assert np.array_equal(second.labels, first.labels)
    assert (second.classes, second.fingerprint) == (first.classes, first.fingerprint)
    assert second.statistics == first.statistics
    assert heard.decoded == 5
    assert not heard.notes


def test_digits_and_npz_keep_nothing(tmp_path: Path, cache_home: Path) -> None:
    """What needs no decoding leaves no file behind."""
    open_source("digits", "train", image_size=6)
    open_source(f"npz:{make_npz(tmp_path / 'a.npz')}", "train")
    assert not cache_home.exists()


def test_changed_source_is_decoded_anew(place: Path) -> None:
    """A touched, replaced, added or removed file, or another size, is another data set."""
    fingerprints = {opened(place).fingerprint}

    def decoded_anew() -> ImageSet:
        heard = Heard()
        images = opened(place, heard)
        assert heard.decoded == len(images)
        return images

    file = place / "train" / "dog" / "0.png"
    other = random_images(2, seed=77)
    file.write_bytes(encode(other[0]))
    fingerprints.add(decoded_anew().fingerprint)
    (place / "train" / "dog" / "7.png").write_bytes(encode(other[1]))
    fingerprints.add(decoded_anew().fingerprint)
    file.unlink()
    fingerprints.add(decoded_anew().fingerprint)
    assert len(fingerprints) == 4
    before = opened(place).fingerprint
    os.utime(place / "train" / "dog" / "7.png", ns=(1, 1))
    assert decoded_anew().fingerprint == before


def test_splits_sizes_and_places_are_kept_apart(place: Path, tmp_path: Path, cache_home: Path) -> None:
    """Nothing of one opening answers another."""
    opened(place)
    open_source(f"folder:{place}", "test")
    open_source(f"folder:{place}", "train", image_size=4)
    shutil.copytree(place, tmp_path / "copy")
    opened(tmp_path / "copy")
    assert len(list(cache_home.glob("*.npy"))) == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "garbage", "missing", "other shape"])
def test_damaged_pixels_are_made_anew(place: Path, cache_home: Path, damage: str) -> None:
    """Pixels that are not what was written are found by their hash, and replaced."""
    good = opened(place)
    expected, fingerprint = good.images.copy(), good.fingerprint
    file = the_file(cache_home, ".npy")
    whole = file.read_bytes()
    file.unlink()  # a mapping of the old file must not see the new one
    if damage == "other shape":
        np.save(file, np.zeros((5, 2, 2, 3), np.uint8))
    elif damage != "missing":
        file.write_bytes(
            {"flip": whole[:-1] + bytes([whole[-1] ^ 1]), "cut": whole[:-7], "garbage": b"x" * len(whole)}[
                damage
            ]
        )
    heard = Heard()
    again = opened(place, heard)
    assert np.array_equal(again.images, expected)
    assert again.fingerprint == fingerprint
    assert heard.decoded == 5
    assert "are made anew" in heard.notes[0]
    opened(place, heard)
    assert heard.decoded == 5


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mean": 3}', None])
def test_damaged_facts_are_made_anew(place: Path, cache_home: Path, text: str | None) -> None:
    """Whatever the JSON has become, the pixels are decoded again."""
    fingerprint = opened(place).fingerprint
    file = the_file(cache_home, ".json")
    kept = json.loads(file.read_text())
    kept["facts"]["labels"][0] ^= 1
    file.write_text(json.dumps(kept) if text is None else text)
    heard = Heard()
    assert opened(place, heard).fingerprint == fingerprint
    assert heard.decoded == 5


def test_copied_pixels_are_used(place: Path, cache_home: Path) -> None:
    """Times of the kept files mean nothing: their checksums do."""
    fingerprint = opened(place).fingerprint
    for file in cache_home.iterdir():
        os.utime(file, ns=(5, 5))
    heard = Heard()
    assert opened(place, heard).fingerprint == fingerprint
    assert heard.decoded == 0


def test_killed_between_pixels_and_facts(place: Path, cache_home: Path) -> None:
    """Pixels without their JSON do not count, and are replaced."""
    fingerprint = opened(place).fingerprint
    the_file(cache_home, ".json").unlink()
    heard = Heard()
    assert opened(place, heard).fingerprint == fingerprint
    assert heard.decoded == 5


def test_failed_decoding_leaves_nothing(place: Path, cache_home: Path) -> None:
    """An image that cannot be decoded leaves no pixels, facts or temporary file."""
    (place / "train" / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(DataError):
        opened(place)
    assert list(cache_home.iterdir()) == []


def test_abandoned_temporaries_are_removed(place: Path, cache_home: Path) -> None:
    """What a killed process left goes after a day; a younger file may still be written to."""
    cache_home.mkdir(parents=True)
    old, young = cache_home / "a.npy.1.partial", cache_home / "b.npy.2.partial"
    for file in (old, young):
        file.write_bytes(b"")
    day_ago = time.time() - 90000
    os.utime(old, (day_ago, day_ago))
    opened(place)
    assert (old.exists(), young.exists()) == (False, True)


def test_unwritable_directory_decodes_in_memory(place: Path, tmp_path: Path) -> None:
    """Where nothing can be kept the data still opens, and the progress says why."""
    (tmp_path / "file").write_text("not a directory")
    heard = Heard()
    images = opened(place, heard, cache_dir=tmp_path / "file" / "below")
    assert images.fingerprint == opened(place).fingerprint
    assert heard.decoded == 5
    assert any("are not kept" in note for note in heard.notes)


def test_full_disk_decodes_in_memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while pixels are written costs the file, not the run."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    heard = Heard()
    assert len(opened(place, heard)) == 5
    assert "are not kept: no space left on device" in heard.notes[0]


def test_two_writers_at_once(place: Path, cache_home: Path) -> None:
    """Processes that decode the same source at the same time both get it, and leave one good file."""
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(opened(place).fingerprint)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = Heard()
    assert {*found} == {opened(place, heard).fingerprint}
    assert len(found) == 4
    assert heard.decoded == 0
    assert sorted(file.suffix for file in cache_home.iterdir()) == [".json", ".npy"]
