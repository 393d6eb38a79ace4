"""Decoded pixels that were kept are those of these pictures, and as they were written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sources.tiny import Heard, encode, make_folder, random_images

from bancache.sources import open_source
from bancache.sources.image_set import ImageSet


def opened(root: Path, cache_dir: Path) -> tuple[ImageSet, Heard]:
    heard = Heard()
    return open_source(f"folder:{root}", "train", progress=heard, cache_dir=cache_dir), heard


def with_times_of(file: Path, change: object) -> None:
    """Change a file and give it back its old times."""
    before = file.stat()
    assert callable(change)
    change(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_flipped_bit_of_kept_pixels_is_found_and_mended(tmp_path: Path) -> None:
    root, kept = make_folder(tmp_path / "photos"), tmp_path / "kept"
    good = opened(root, kept)[0].images.copy()
    (file,) = kept.glob("*.npy")

    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[-40] ^= 1
        file.write_bytes(content)

    with_times_of(file, flip)
    found, heard = opened(root, kept)
    assert np.array_equal(found.images, good)
    assert heard.decoded == 5
    assert str(file) in heard.notes[0]


@pytest.mark.parametrize("key", ["labels", "classes", "mean", "fingerprint", "notes"])
def test_changed_facts_beside_kept_pixels_are_found(tmp_path: Path, key: str) -> None:
    root, kept = make_folder(tmp_path / "photos"), tmp_path / "kept"
    good = opened(root, kept)[0]
    (file,) = kept.glob("*.json")
    content = json.loads(file.read_text())
    content["facts"][key] = {"labels": [1, 0, 0, 1, 1], "classes": ["cat", "cow"], "mean": [1, 2, 3]}.get(
        key, "x"
    )
    file.write_text(json.dumps(content))
    found, heard = opened(root, kept)
    assert (found.fingerprint, found.classes, found.statistics) == (
        good.fingerprint,
        good.classes,
        good.statistics,
    )
    assert found.labels.tolist() == good.labels.tolist()
    assert heard.decoded == 5


def test_other_pictures_of_equal_names_sizes_and_times_are_other_pictures(tmp_path: Path) -> None:
    """As after a folder was replaced by another one that keeps its times."""
    roots = [tmp_path / "photos", tmp_path / "other"]
    for seed, root in enumerate(roots):
        (root / "train" / "cat").mkdir(parents=True)
        file = root / "train" / "cat" / "0.bmp"
        file.write_bytes(encode(random_images(1, seed=seed)[0], "BMP"))
        os.utime(file, ns=(5, 5))
    first = opened(roots[0], tmp_path / "kept")[0].images.copy()
    shutil.rmtree(roots[0])
    roots[1].rename(roots[0])
    assert not np.array_equal(opened(roots[0], tmp_path / "kept")[0].images, first)


def test_a_picture_written_over_with_its_old_times_is_another_picture(tmp_path: Path) -> None:
    root, (old, new) = tmp_path / "photos", random_images(2)
    (root / "train" / "cat").mkdir(parents=True)
    file = root / "train" / "cat" / "0.bmp"
    file.write_bytes(encode(old, "BMP"))
    opened(root, tmp_path / "kept")
    with_times_of(file, lambda file: file.write_bytes(encode(new, "BMP")))
    assert np.array_equal(opened(root, tmp_path / "kept")[0].images[0], new)


def test_labels_in_an_annotation_file_are_read_anew_after_it_changed(tmp_path: Path) -> None:
    for name in ("n01", "n02"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "0.png").write_bytes(encode(random_images(1)[0]))
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "val" / "images" / "v.png").write_bytes(encode(random_images(1)[0]))
    annotations = tmp_path / "val" / "val_annotations.txt"
    labels = []
    for name in ("n01", "n02"):
        annotations.write_text(f"v.png\t{name}\t0\t0\t1\t1\n")
        labels += open_source(f"folder:{tmp_path}", "test", cache_dir=tmp_path / "kept").labels.tolist()
    assert labels == [0, 1]
