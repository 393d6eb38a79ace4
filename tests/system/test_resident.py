"""Who asks for the same images on a device shares them. ``meta`` is a device that every machine has."""

from __future__ import annotations

import gc

import numpy as np
import torch

from bancache.system.resident import _RESIDENT, resident

META = torch.device("meta")


def test_two_that_ask_for_the_same_memory_get_one_tensor() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    first = resident(images, META)
    assert resident(images[:], META) is first
    assert resident(images[:3], META) is not first
    assert resident(images.copy(), META) is not first


def test_it_is_gone_with_the_last_who_keeps_it() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    before = len(_RESIDENT)
    first, second = resident(images, META), resident(images, META)
    assert len(_RESIDENT) == before + 1
    del first
    gc.collect()
    assert len(_RESIDENT) == before + 1
    del second
    gc.collect()
    assert len(_RESIDENT) == before


def test_memory_that_is_in_use_is_never_another_arrays() -> None:
    """The tensor keeps its array, whose address no other can get then."""
    kept = resident(np.full((1000,), 7, np.uint8), META)
    others = [np.zeros((1000,), np.uint8) for _ in range(100)]
    assert all(resident(other, META) is not kept for other in others)


def test_on_a_cpu_the_memory_is_the_arrays() -> None:
    images = np.arange(6, dtype=np.uint8)
    images.setflags(write=False)
    assert resident(images, torch.device("cpu")).data_ptr() == images.ctypes.data
