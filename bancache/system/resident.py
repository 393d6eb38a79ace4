"""Images in the memory of a device, once for all models that train side by side there."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.system.buffers import tensor_of

_Key = tuple[int, tuple[int, ...], str, torch.device]
# An array stays here as long as its tensor lives, so that no other array can take its address.
_RESIDENT: dict[_Key, tuple[NDArray[Any], weakref.ref[torch.Tensor]]] = {}


def resident(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array that nobody writes to as a tensor on a device: the same tensor as long as anyone keeps it.

    On a CPU it shares the array's memory.
    """
    if device.type == "cpu":
        return tensor_of(array)
    array = np.ascontiguousarray(array)
    key = array.ctypes.data, array.shape, array.dtype.str, device
    if key in _RESIDENT and (known := _RESIDENT[key][1]()) is not None:
        return known
    tensor = tensor_of(array).to(device)
    _RESIDENT[key] = array, weakref.ref(tensor)
    weakref.finalize(tensor, _RESIDENT.pop, key, None).atexit = False
    return tensor
