"""A trained model in one file that executes nothing when it is read.

The file is torch's zip format holding one dict of plain values: a header of JSON text and the tensors of
the state dict. It is read with ``weights_only``, and the header has a fingerprint of the weights, so a file that
is truncated, changed or would execute code is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch

from bancache.errors import CheckpointError, MismatchError
from bancache.models.header import check_header
from bancache.models.pickled import Stored
from bancache.models.tensors import to_tensors
from bancache.models.torch_file import TorchFile, read_torch_file
from bancache.system.files import replace_atomically
from bancache.system.fingerprint import fingerprint_arrays, short

_MARK, _VERSION = "bancache checkpoint", 1

State = Mapping[str, torch.Tensor]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        state: The model's state dict, on the CPU.
        header: JSON values: ``architecture`` (name and arguments), ``data``, ``views``, ``normalization``,
            ``recipe``, ``test``, ``history``, ``lineage``, ``generation``, ``seed`` and the like.
        fingerprint: sha256 of the weights.
    """

    state: State
    header: dict[str, Any]
    fingerprint: str


def fingerprint_state(state: State) -> str:
    """Return the sha256 of a state dict: names, dtypes, shapes and values, in the order of names."""
    return fingerprint_arrays((name, _as_numpy(state[name])) for name in sorted(state))


def _as_numpy(tensor: torch.Tensor) -> Any:
    plain = tensor.detach().cpu().contiguous()
    # numpy has no bfloat16: hash its bits as int16.
    return (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy()


def save_checkpoint(path: PathLike, state: State, header: dict[str, Any]) -> str:
    """Write a checkpoint, whole or not at all, and return the sha256 of its weights.

    After a StorageError an older file at ``path`` is still there.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    fingerprint = fingerprint_state(plain)
    text = json.dumps({**header, "weights": fingerprint}, allow_nan=False)
    save_tensors(path, {"mark": _MARK, "version": _VERSION, "header": text, "state": plain})
    return fingerprint


def load_checkpoint(path: PathLike) -> Checkpoint:
    """Read a checkpoint without executing anything.

    Raises:
        CheckpointError: The file is missing, truncated, changed, not of bancache, or would execute code, or its header
            has a value of another type or range.
        MismatchError: A newer version wrote it.
    """
    path = Path(path)
    found = read_torch_file(path)
    content = found.content
    if not isinstance(content, dict) or content.get("mark") != _MARK:
        raise CheckpointError(
            f"{path} is not a bancache checkpoint",
            hint="for weights from elsewhere: --teacher torchvision:NAME --weights FILE",
        )
    if isinstance(content.get("version"), int) and content["version"] > _VERSION:
        raise MismatchError(
            f"{path} has format {content['version']}, this bancache reads up to {_VERSION}",
            hint="upgrade bancache",
        )
    if found.unknown:
        raise _refused(path, found)
    header, state = _header(path, content), content.get("state")
    if not isinstance(state, dict) or not all(isinstance(each, Stored) for each in state.values()):
        raise _damaged(path, "its weights are not tensors by name")
    state = to_tensors(state, path)
    fingerprint = fingerprint_state(state)
    if fingerprint != header.pop("weights"):
        raise CheckpointError(
            f"{path} is damaged: its weights have sha256 {short(fingerprint)}, not the one written",
            hint="train it again, or restore the file",
        )
    return Checkpoint(state, header, fingerprint)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of bancache, intact or not."""
    try:
        content = read_torch_file(path).content
    except CheckpointError:
        return False
    return isinstance(content, dict) and content.get("mark") == _MARK


def _header(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(content["header"])
        check_header(header)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its header: {error}") from error
    return header


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why[:200]}", hint="train it again, or restore the file")


def _refused(path: Path, found: TorchFile) -> CheckpointError:
    return CheckpointError(
        f"{path} holds {found.unknown[0]}, which would execute code, and was not read",
        hint="if you trust it, convert it to plain tensors: torch.save(model.state_dict(), ...)",
    )


def save_tensors(path: PathLike, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values, durably; ``StorageError`` if the disk is full, read-only or failing."""
    replace_atomically(Path(path), partial(_save, content))


def _save(content: dict[str, Any], stream: IO[bytes]) -> None:
    try:
        torch.save(content, stream)
    except RuntimeError as error:
        # torch ends its file although it could not write it, and then speaks of positions alone.
        if isinstance(failed := error.__context__, OSError):
            raise failed from None
        raise


def load_tensors(path: PathLike) -> Any:
    """Read a file of ``save_tensors``; other content is a CheckpointError and never executed."""
    path = Path(path)
    found = read_torch_file(path)
    if found.unknown:
        raise _refused(path, found)
    return to_tensors(found.content, path)
