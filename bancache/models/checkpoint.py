"""A trained model in one file that executes nothing when it is read.

The file is torch's zip format holding one dict of plain values: a header of JSON text and the tensors of
the state dict. It is read with ``weights_only``, and the header has a fingerprint of the weights, so a file that
is truncated, changed or would execute code is refused.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bancache.errors import CheckpointError, MismatchError
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
        CheckpointError: The file is missing, truncated, changed, not of bancache, or would execute code.
        MismatchError: A newer version wrote it.
    """
    content = load_checked_tensors(path)
    if not isinstance(content, dict) or content.get("mark") != _MARK:
        raise CheckpointError(
            f"{path} is not a bancache checkpoint",
            hint="for weights from elsewhere: --teacher torchvision:NAME --weights FILE",
        )
    if content["version"] > _VERSION:
        raise MismatchError(
            f"{path} has format {content['version']}, this bancache reads up to {_VERSION}",
            hint="upgrade bancache",
        )
    header, state = json.loads(content["header"]), content["state"]
    found = fingerprint_state(state)
    if found != header.pop("weights"):
        raise CheckpointError(
            f"{path} is damaged: its weights have sha256 {short(found)}, not the one written",
            hint="train it again, or restore the file",
        )
    return Checkpoint(state, header, found)


def save_tensors(path: PathLike, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain values, durably."""
    replace_atomically(Path(path), lambda stream: torch.save(content, stream))


def load_checked_tensors(path: PathLike) -> Any:
    """Read a file of ``save_tensors`` after checking its checksums; errors as ``load_tensors``."""
    path = Path(path)
    if path.is_file() and _is_changed(path):
        raise CheckpointError(
            f"{path} is damaged: a checksum in it does not match", hint="train it again, or restore the file"
        )
    return load_tensors(path)


def _is_changed(path: Path) -> bool:
    """Whether a CRC-32 of the archive does not match; torch writes them and does not check them."""
    try:
        if not zipfile.is_zipfile(path):
            return False  # torch.load names the reason
        with zipfile.ZipFile(path) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            return packed or archive.testzip() is not None
    except OSError as error:
        return error.errno == errno.EINVAL  # an offset before the file's beginning
    # All of these come from zipfile when the archive's directory is changed.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
        return True


def load_tensors(path: PathLike) -> Any:
    """Read a file of tensors and plain values; other content is a CheckpointError and never executed."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CheckpointError(f"{path} is not a regular file")  # reading a pipe would block
    try:
        with warnings.catch_warnings():
            # torch warns of pickles of other versions, which are read or refused below.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (the one place)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except pickle.UnpicklingError as error:
        with path.open("rb") as stream:
            is_bare_pickle = stream.read(1) == pickle.PROTO
        if "global" not in str(error).lower() and not is_bare_pickle:
            raise CheckpointError(f"{path} is truncated or not a checkpoint") from error
        raise CheckpointError(
            f"{path} holds something that would execute code, and was not read",
            hint="if you trust it, convert it to plain tensors: torch.save(model.state_dict(), ...)",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is truncated or not a checkpoint: {first}") from error
