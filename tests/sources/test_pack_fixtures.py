"""Packs of format 1 open as they did; and docs/format.md is enough to read one."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bancache.errors import DataError
from bancache.sources import open_source
from bancache.sources.image_set import channel_statistics, fingerprint_images
from bancache.sources.pack import open_file
from bancache.sources.pack_check import verify_pack
from bancache.system.progress import Silent
from bancache.system.ragged import as_ragged

FIXTURES = Path(__file__).parent / "fixtures"
FORMAT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
FINGERPRINTS = {
    ("encoded", "train"): "4723e347cb1c7a209051fdef49c60dd72734318ba28a783130e8b5c64a1873a2",
    ("encoded", "test"): "58ca8131ad3dbe34415ba9dfbfb004c5ae20e38e1efa664997706101667a7445",
    ("pixels", "train"): "6066fb0e34b729b3e87b352584ea9beaeb16bed3f9d19dc981292cc57c44e178",
    ("pixels", "test"): "96e45b685a74aa19db509413b41a4fe1c2dbc2198d1c9006676c6fcc63a3f569",
}
PATHS = {"train": ["a/0", "a/1", "b/0", "b/1"], "test": ["a/0", "b/0"]}


@pytest.mark.parametrize(("kind", "split"), FINGERPRINTS)
def test_a_pack_of_format_1_has_the_data_that_it_had(kind: str, split: str) -> None:
    images = open_source(f"pack:{FIXTURES / kind}.pack", split)
    assert images.fingerprint == FINGERPRINTS[kind, split]
    assert images.fingerprint == fingerprint_images(images.images, images.labels, images.classes)
    assert images.statistics == channel_statistics(images.images)
    assert images.classes == ("a", "b")
    assert images.labels.tolist() == [0, 0, 1, 1][:: 1 if split == "train" else 2]
    assert list(images.paths or ()) == [f"{split}/{path}.jpg" for path in PATHS[split]]


@pytest.mark.parametrize("kind", ["encoded", "pixels"])
def test_a_pack_of_format_1_is_found_intact(kind: str) -> None:
    assert not verify_pack(open_file(FIXTURES / f"{kind}.pack"), deep=True, progress=Silent())


def test_a_pack_of_a_later_format_is_named(tmp_path: Path) -> None:
    content = (FIXTURES / "pixels.pack").read_bytes()
    (tmp_path / "d.pack").write_bytes(content.replace(b"pack 1\n", b"pack 2\n", 1))
    with pytest.raises(DataError, match=r"format 2") as refused:
        open_source(f"pack:{tmp_path / 'd.pack'}", "train")
    assert "newer bancache" in refused.value.hint


@pytest.mark.parametrize("kind", ["encoded", "pixels"])
def test_the_documents_reader_gets_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    shutil.copy(FIXTURES / f"{kind}.pack", tmp_path / "train.pack")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```py\n(.*?)```", FORMAT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    images = open_source("pack:train.pack", "train")
    assert names["labels"].tolist() == images.labels.tolist()
    for content, pixels in zip(names["pictures"], as_ragged(images.images), strict=True):
        if kind == "pixels":
            assert content == pixels.tobytes()
        else:
            picture = Image.open(io.BytesIO(content))
            assert picture.size in (pixels.shape[:2], pixels.shape[1::-1])
    assert np.array_equal(names["column"]("heights", "<i4"), as_ragged(images.images).heights)
