"""A tiny data set and a tiny trained teacher, made once; nothing global."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.interpreting import Interpreter
from contracts.killing import Forker
from contracts.tiny import RECIPE, architecture, images

from bancache.bench import timing
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


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_disks() -> Iterator[None]:
    """Tests flush thousands of files, each for milliseconds; what is not flushed is lost only with the power.

    Tests that cut it flush to a disk of their own, or in another process; processes that are killed flush, too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses a closed file, too
        yield


@pytest.fixture(scope="session", autouse=True)
def _warm_caches() -> Iterator[None]:
    """What tests time need not be cold: 128 MB are not written before each run of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_MORE_THAN_CACHES", 1)
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


# Files that share a process which takes seconds to start run in the same one of pytest's processes.
SHARED = {
    "forker": (
        "tests/test_ranks.py",
        "tests/test_kill.py",
        "tests/remote/test_writing.py",
        "tests/sources/test_pack.py",
        "tests/study/test_generations.py",
    ),
    "interpreter": (
        "tests/views/test_record_renderer.py",
        "tests/views/test_resample.py",
        "tests/views/test_triton_operations.py",
        "tests/views/test_triton_renderer.py",
        "tests/encodings/test_code_kernel.py",
        "tests/losses/test_kernel.py",
    ),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give away whole files, as ``--dist loadfile``, and those of ``SHARED`` together."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class Together(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return next((name for name, files in SHARED.items() if file in files), file)

    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for examples in docstrings of the package alone: tests have none, and each is imported once more for that."""
    found = yield
    return [collector for collector in found if type(collector) is pytest.Module]


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over the modules that are loaded now: half a second each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Some libraries say on exit what was not collected."""
    gc.unfreeze()


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
