"""torchvision's data sets: their pixels, labels and classes, and nothing fetched unless asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sources.tiny import random_images
from sources.tiny_torchvision import make_cifar, make_fashion_mnist

from bancache.errors import DataError
from bancache.sources import open_source


def test_cifar_pixels_labels_and_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channel-first rows become images, batches are joined in order, names come from the meta file."""
    make_cifar(tmp_path, "CIFAR10", monkeypatch)
    train = open_source(f"cifar10:{tmp_path}", "train")
    expected = [random_images(n, height=32, width=32, seed=n) for n in (2, 4)]
    assert np.array_equal(train.images, np.concatenate(expected))
    assert train.labels.tolist() == [0, 7, 0, 7, 4, 1]
    assert train.classes[:2] == ("class 0", "class 1")
    assert len(train.classes) == 10


def test_fashion_mnist_is_gray_with_its_class_names(tmp_path: Path) -> None:
    """One channel, and torchvision's names."""
    make_fashion_mnist(tmp_path)
    test = open_source(f"fashion-mnist:{tmp_path}", "test")
    assert np.array_equal(test.images, random_images(4, height=28, width=28, channels=1, seed=4))
    assert test.labels.tolist() == [0, 2, 4, 6]
    assert test.classes[0] == "T-shirt/top"


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "fashion-mnist"])
def test_missing_is_not_fetched(kind: str, tmp_path: Path) -> None:
    """Without files the hint says how to ask for them, and no directory appears."""
    with pytest.raises(DataError, match=r"/cifar|/Fashion") as caught:
        open_source(f"{kind}:{tmp_path / 'none'}", "train")
    assert "--download" in caught.value.hint
    assert not (tmp_path / "none").exists()


def test_download_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With download the data set fetches what is missing, and the next start finds it kept."""
    import torchvision.datasets

    monkeypatch.setattr(
        torchvision.datasets.FashionMNIST, "download", lambda self: make_fashion_mnist(tmp_path)
    )
    first = open_source(f"fashion-mnist:{tmp_path}", "train", download=True)
    assert open_source(f"fashion-mnist:{tmp_path}", "train").fingerprint == first.fingerprint


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network gives a DataError, not torchvision's traceback."""
    import torchvision.datasets

    def fail(self: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", fail)
    with pytest.raises(DataError, match="no route") as caught:
        open_source(f"cifar100:{tmp_path}", "train", download=True)
    assert caught.value.hint == "check the network, or put the files there by hand"


def test_checksums_are_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An altered batch is refused before its pickle is read, even after good pixels were kept."""
    make_cifar(tmp_path, "CIFAR10", monkeypatch)
    open_source(f"cifar10:{tmp_path}", "train")
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    batch.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(DataError, match="cifar"):
        open_source(f"cifar10:{tmp_path}", "train")


def test_cut_fashion_mnist(tmp_path: Path) -> None:
    """torchvision keeps no checksum of the unpacked files, but a cut one does not fit its header."""
    make_fashion_mnist(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cifar|fashion"):
        open_source(f"fashion-mnist:{tmp_path}", "train")


def test_second_start_needs_no_torchvision(tmp_path: Path) -> None:
    """Kept pixels are mapped without the seconds that importing torch takes."""
    make_fashion_mnist(tmp_path)
    open_source(f"fashion-mnist:{tmp_path}", "train")
    code = (
        "import sys; from bancache.sources import open_source;"
        f"open_source('fashion-mnist:{tmp_path}', 'train'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
