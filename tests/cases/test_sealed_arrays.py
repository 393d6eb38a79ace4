"""Images are sealed, or mapped for reading. torch warns of such arrays at every start, which says nothing to a user."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import succeed
from contracts.tiny import photographs
from numpy.typing import NDArray

from bancache.sources.image_set import ImageSet
from bancache.system.buffers import tensor_of
from bancache.views import Lattice
from bancache.views.model_input import Normalization
from bancache.views.triton_renderer import TritonRenderer


@pytest.fixture(autouse=True)
def _sealed_arrays_are_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch warns once a process unless asked, and a filter could hide it."""
    given = torch.from_numpy

    def checked(array: NDArray[Any]) -> torch.Tensor:
        assert array.flags.writeable
        return given(array)

    monkeypatch.setattr(torch, "from_numpy", checked)
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def test_a_tensor_shares_the_memory_of_a_sealed_array_and_keeps_it() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2]
    array.flags.writeable = False
    tensor = tensor_of(array)
    assert tensor.data_ptr() == array.ctypes.data
    del array
    gc.collect()
    assert tensor.tolist() == [[0, 2], [4, 6], [8, 10]]


def test_no_command_hands_torch_a_sealed_array(tmp_path: Path) -> None:
    """From pictures, through a cache that is mapped."""
    made = ("--data", photographs(tmp_path / "pictures").source, "--image-size", "16", "--views", "rrc-flip")
    succeed("train-teacher", *made, "--model", "convnet-4", "--epochs", "1", "--out", tmp_path / "gen0.pt")
    succeed("dump", "--teacher", tmp_path / "gen0.pt", "--num-views", "2", "--profile", "mmap")
    succeed("train-student", "--cache", tmp_path / "gen0.zarr", "--epochs", "1")
    succeed("evaluate", tmp_path / "gen1.pt")


def test_the_view_kernels_images_may_be_sealed(data: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="the kernel is triton's")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # it may be made on a CPU, and is not launched
    assert not data.images.flags.writeable
    TritonRenderer(data.images, Lattice(), Normalization((0.0,) * 3, (1.0,) * 3), device="cpu")
