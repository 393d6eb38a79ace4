"""Files in the layout that torchvision reads, with its checksums replaced by theirs."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sources.tiny import random_images


def make_cifar(root: Path, dataset: str, patch: pytest.MonkeyPatch, *, seed: int = 0) -> Path:
    """Write 6 training and 4 test images of 10 or 100 classes as CIFAR's own pickles."""
    import torchvision.datasets

    cifar = getattr(torchvision.datasets, dataset)
    directory = root / cifar.base_folder
    directory.mkdir(parents=True, exist_ok=True)
    key, classes = ("labels", 10) if dataset == "CIFAR10" else ("fine_labels", 100)

    def dump(name: str, content: dict[str, Any]) -> str:
        (directory / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((directory / name).read_bytes()).hexdigest()

    def batch(name: str, n: int) -> list[str]:
        pixels = random_images(n, height=32, width=32, seed=seed + n).transpose(0, 3, 1, 2).reshape(n, 3072)
        return [name, dump(name, {"data": pixels, key: [(i * 7) % classes for i in range(n)]})]

    if dataset == "CIFAR10":
        patch.setattr(cifar, "train_list", [batch("data_batch_1", 2), batch("data_batch_2", 4)])
    else:
        patch.setattr(cifar, "train_list", [batch("train", 6)])
    patch.setattr(cifar, "test_list", [batch("test_batch" if dataset == "CIFAR10" else "test", 3)])
    names = [f"class {index}" for index in range(classes)]
    meta = {**cifar.meta, "md5": dump(cifar.meta["filename"], {cifar.meta["key"]: names})}
    patch.setattr(cifar, "meta", meta)
    return root


def make_fashion_mnist(root: Path) -> Path:
    """Write 5 training and 4 test images of 28 x 28 as torchvision's unpacked IDX files."""
    directory = root / "FashionMNIST" / "raw"
    directory.mkdir(parents=True)
    for prefix, n in (("train", 5), ("t10k", 4)):
        images = random_images(n, height=28, width=28, channels=1, seed=n)[..., 0]
        _write_idx(directory / f"{prefix}-images-idx3-ubyte", images)
        _write_idx(directory / f"{prefix}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) * 2)
    return root


def _write_idx(file: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    file.write_bytes(header + array.tobytes())
