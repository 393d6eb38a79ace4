"""Tensors out of a file that was read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bancache.models.pickled import Elements, Stored
from bancache.models.torch_file import damaged


def as_tensor(stored: Stored) -> torch.Tensor:
    """Read a tensor; errors are those of its file."""
    found: Elements | torch.Tensor = stored.read()
    if isinstance(found, torch.Tensor):
        return found
    dtype = getattr(torch, found.dtype)
    if not found.content:
        return torch.empty(found.shape, dtype=dtype)
    return torch.frombuffer(found.content, dtype=dtype).as_strided(found.shape, found.stride, found.offset)


def to_tensors(content: Any, path: Path) -> Any:
    """Return the content with its tensors read; tensors that take more than twice the file are refused."""
    left = 2 * path.stat().st_size

    def read(value: Any, depth: int) -> Any:
        nonlocal left
        if isinstance(value, Stored):
            left -= value.bytes + 1
            if left < 0:
                raise damaged(path)
            return as_tensor(value)
        if depth > 20:
            raise damaged(path)
        if isinstance(value, dict):
            return {key: read(each, depth + 1) for key, each in value.items()}
        return type(value)(read(each, depth + 1) for each in value) if type(value) in {list, tuple} else value

    return read(content, 0)
