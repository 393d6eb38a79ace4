"""CIFAR-10, CIFAR-100 and Fashion-MNIST in torchvision's layout; torchvision checks the files and names the classes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from bancache.errors import DataError
from bancache.sources.decoded import open_kept
from bancache.sources.image_set import ImageSet
from bancache.sources.nearest import listing
from bancache.sources.pictures import Pictures, array_pictures
from bancache.sources.request import Request

# Class in torchvision.datasets, and the directory below ROOT that it reads.
_DATASETS = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
}

# Errors that torchvision raises for missing or damaged files and failed downloads.
_BROKEN = (
    RuntimeError,
    OSError,
    AssertionError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    pickle.UnpicklingError,
)


def open_images(request: Request) -> ImageSet:
    """Return a split; import torchvision, which takes seconds, only if the pixels are not kept yet."""
    directory = request.place / _DATASETS[request.kind][1]
    loaded = _load(request, directory) if request.download else None
    files = sorted(directory.iterdir()) if directory.is_dir() else []
    if not files:
        raise DataError(
            f"{request.name}: {directory} is missing; {listing(request.place)}",
            hint=f"{request.other_kind()}check the path in --data, or add --download",
        )
    return open_kept(
        request, files, lambda: _pictures(_load(request, directory) if loaded is None else loaded)
    )


def _load(request: Request, directory: Path) -> Any:
    """Return the torchvision data set, which checks its files (the CIFARs by checksum) before reading them."""
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, _DATASETS[request.kind][0])
    try:
        return dataset(request.place, train=request.split == "train", download=request.download)
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if request.download:
            hint = "check the network, or put the files there by hand"
        else:
            hint = "delete that directory and add --download"
        raise DataError(f"{request.name}: {directory} cannot be read: {reason}", hint=hint) from error


def _pictures(dataset: Any) -> Pictures:
    images = np.asarray(dataset.data)  # (N, H, W) or (N, H, W, 3)
    labels = np.asarray(dataset.targets, np.int64)
    return array_pictures(images[..., None] if images.ndim == 3 else images, labels, tuple(dataset.classes))
