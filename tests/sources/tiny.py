"""Tiny sources of every kind, made on the spot."""

from __future__ import annotations

import io
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bancache.system.progress import Silent

Pixels = NDArray[np.uint8]


def random_images(n: int, *, height: int = 5, width: int = 5, channels: int = 3, seed: int = 0) -> Pixels:
    shape = (n, height, width, channels)
    return np.random.default_rng([seed, n]).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(axis=2) if image.shape[2] == 1 else image).save(stream, kind, **options)
    return stream.getvalue()


def make_folder(root: Path, *, channels: int = 3, test: str = "test") -> Path:
    """Write classes cat and dog, 3 and 2 images for training, 1 and 2 for testing."""
    for split, counts in (("train", {"cat": 3, "dog": 2}), (test, {"cat": 1, "dog": 2})):
        for name, count in counts.items():
            directory = root / split / name
            directory.mkdir(parents=True)
            for index, image in enumerate(random_images(count, channels=channels, seed=len(split + name))):
                (directory / f"{index}.png").write_bytes(encode(image))
    return root


def make_shard(file: Path, images: Pixels, labels: list[int], **options: Any) -> None:
    """Write one parquet file; options: image, label (column names), names, plain (no struct), extra columns."""
    import pyarrow as pa
    import pyarrow.parquet

    image, label = options.get("image", "img"), options.get("label", "fine_label")
    encoded = [encode(pixels, "WEBP", lossless=True) for pixels in images]
    rows: list[Any] = encoded if options.get("plain") else [{"bytes": b, "path": "x.png"} for b in encoded]
    table = pa.table({image: rows, label: pa.array(labels, pa.int64()), **options.get("extra", {})})
    names = options.get("names")
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, file, row_group_size=2)


def make_parquet(root: Path, **options: Any) -> Path:
    """Write two training shards of 3 and 2 images and one test shard of 3, of three classes."""
    options = {"names": ["ant", "bee", "cow"], **options}
    images = random_images(8)
    make_shard(root / "train-00000-of-00002.parquet", images[:3], [0, 1, 2], **options)
    make_shard(root / "train-00001-of-00002.parquet", images[3:5], [1, 0], **options)
    make_shard(root / "test-00000-of-00001.parquet", images[5:], [2, 1, 0], **options)
    return root


def make_npz(file: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "train_images": random_images(5),
        "train_labels": np.array([0, 1, 2, 1, 0]),
        "test_images": random_images(3, seed=1),
        "test_labels": np.array([2, 1, 0]),
        "classes": np.array(["ant", "bee", "cow"]),
    }
    arrays.update(changes)
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return file


class Heard(Silent):
    """Remembers the notes, the warnings, and how many images were decoded."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.decoded = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> AbstractContextManager[Any]:
        self.unit = unit
        return nullcontext(self)

    def advance(self, amount: int) -> None:
        self.decoded += amount if self.unit == "images" else 0
