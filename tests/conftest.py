"""A tiny data set and a tiny trained teacher, made once; nothing global."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.interpreting import Interpreter
from contracts.killing import Forker
from contracts.tiny import RECIPE, architecture, images

from bancache.models.checkpoint import load_checkpoint
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import TrainerOptions, run_for_labels, train
from bancache.views import factory


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests compare bits, and two cores are shared with other tests' processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _views_by_torch() -> Iterator[None]:
    """numba compiles its loops for a minute on a fresh machine; their bytes have tests of their own in tests/views."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "is_installed", lambda: False)
        yield


# The files that take longest: begun last, one of them would run alone, on one core of two.
LONGEST = (
    "test_ranks.py",
    "test_benchmarks.py",
    "test_kill.py",
    "test_docs.py",
    "cases/test_photographs.py",
    "views/test_record_renderer.py",
    "remote/test_commands.py",
    "study/test_generations.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """One process that has loaded everything, for all tests that kill processes."""
    process = Forker()
    yield process
    process.close()


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """One process that interprets kernels, for all tests of them."""
    pytest.importorskip("triton", reason="the kernels are triton's")
    process = Interpreter(tmp_path_factory.mktemp("interpreted"))
    yield process
    process.close()


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set as a file that commands can open."""
    train_set, test_set = images(seed=0, count=96), images(seed=1, count=40)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(
        path,
        train_images=train_set.images,
        train_labels=train_set.labels,
        test_images=test_set.images,
        test_labels=test_set.labels,
        classes=np.array(train_set.classes),
    )
    return path


@pytest.fixture(scope="session")
def spec(npz: Path) -> DataSpec:
    return DataSpec(f"npz:{npz}")


@pytest.fixture(scope="session")
def data(spec: DataSpec) -> ImageSet:
    return spec.open("train")


@pytest.fixture(scope="session")
def held_out(spec: DataSpec) -> ImageSet:
    return spec.open("test")


@pytest.fixture(scope="session")
def teacher_path(
    tmp_path_factory: pytest.TempPathFactory, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> Path:
    """A checkpoint of a teacher that has learned something."""
    path = tmp_path_factory.mktemp("teacher") / "gen0.pt"
    run = run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")
    train(run, data, held_out, TrainerOptions(path, torch.device("cpu")))
    assert load_checkpoint(path).header["history"][-1]["train_accuracy"] > 0.5
    return path
