"""The contract of ``contracts/source.py``, for every kind of source; and the table of kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from contracts import source as contract
from sources.tiny import make_folder, make_npz, make_parquet
from sources.tiny_torchvision import make_cifar, make_fashion_mnist

from bancache.errors import DataError, UsageError
from bancache.sources import SOURCES, open_source
from bancache.sources.pack_source import Shape
from bancache.sources.pack_writer import pack
from bancache.sources.spec import DataSpec
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt

MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], str]] = {
    "digits": lambda root, patch: "digits",
    "cifar10": lambda root, patch: f"cifar10:{make_cifar(root, 'CIFAR10', patch).name}",
    "cifar100": lambda root, patch: f"cifar100:{make_cifar(root, 'CIFAR100', patch).name}",
    "fashion-mnist": lambda root, patch: f"fashion-mnist:{make_fashion_mnist(root).name}",
    "folder": lambda root, patch: f"folder:{make_folder(root).name}",
    "parquet": lambda root, patch: f"parquet:{make_parquet(root).name}",
    "npz": lambda root, patch: f"npz:{make_npz(root.with_suffix('.npz')).name}",
    "pack": lambda root, patch: f"pack:{make_pack(root).name}",
}


def make_pack(root: Path) -> Path:
    out = root.with_suffix(".pack")
    pack(f"folder:{make_folder(root)}", out, Shape("encoded"), progress=Silent(), interrupt=Interrupt())
    return out


@pytest.fixture(params=list(MAKERS))
def spec(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSpec:
    """A tiny source of each kind, written relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    return DataSpec(MAKERS[request.param](tmp_path / "data", monkeypatch))


def test_arrays(spec: DataSpec) -> None:
    contract.check_arrays(spec)


def test_opening_again(spec: DataSpec) -> None:
    contract.check_opening_again(spec)


def test_splits_differ(spec: DataSpec) -> None:
    contract.check_splits_differ(spec)


def test_limit(spec: DataSpec) -> None:
    contract.check_limit(spec)


def test_image_size(spec: DataSpec) -> None:
    contract.check_image_size(spec)


def test_travel(spec: DataSpec, tmp_path_factory: pytest.TempPathFactory) -> None:
    contract.check_travel(spec, lambda: os.chdir(tmp_path_factory.mktemp("elsewhere")))


def test_no_network(spec: DataSpec) -> None:
    contract.check_no_network(spec)


def test_every_kind_is_here() -> None:
    """A new kind of source has to pass the contract."""
    assert list(MAKERS) == list(SOURCES)


def test_unknown_source_names_the_nearest() -> None:
    """A typing error is answered by what was meant, and by the list."""
    with pytest.raises(UsageError, match="'cifar1O:x'") as caught:
        open_source("cifar1O:x", "train")
    assert caught.value.hint == (
        "did you mean cifar10 or cifar100? known: digits, cifar10:ROOT, cifar100:ROOT, fashion-mnist:ROOT, "
        "folder:PATH, parquet:PATH, npz:FILE, pack:FILE"
    )


@pytest.mark.parametrize(
    ("source", "what", "hint"),
    [
        ("folder", "data source 'folder' needs a path", "write it as folder:PATH"),
        ("npz:", "data source 'npz:' needs a path", "write it as npz:FILE"),
        ("digits:here", "data source 'digits:here' has no path", "write it as digits"),
    ],
)
def test_path_missing_or_too_much(source: str, what: str, hint: str) -> None:
    """Every kind but digits has a path."""
    with pytest.raises(UsageError) as caught:
        open_source(source, "train")
    assert (str(caught.value), caught.value.hint) == (what, hint)


def test_image_size_is_bounded() -> None:
    """A size that no image can have is refused before anything is read."""
    for size in (0, -1, 5000):
        with pytest.raises(UsageError, match=rf"{size}.*1\.\.4096"):
            open_source("digits", "train", image_size=size)


def test_what_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is too long, or a directory that may not be listed, is a DataError that names it."""
    with pytest.raises(DataError, match="xxx") as caught:
        open_source(f"folder:{'x' * 5000}", "train")
    assert caught.value.hint == "check the path and who may read it"

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    place = make_folder(tmp_path / "tree")
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=str(place)):
        open_source(f"folder:{place}", "train")


def test_importing_is_light() -> None:
    """The table of sources can be shown without loading numpy, torch or any reader."""
    heavy = "{'numpy', 'torch', 'torchvision', 'pyarrow', 'sklearn', 'PIL'}"
    code = f"import sys, bancache.sources; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
