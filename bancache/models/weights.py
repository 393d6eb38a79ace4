"""Weights of third-party models: a file with tensors becomes a state dict that fits a model, or a sentence why not."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from bancache.errors import CheckpointError, UsageError
from bancache.models.misfit import Shape, few, misfit, other_head
from bancache.models.names import split_weights
from bancache.models.pickled import Stored, Unknown
from bancache.models.tensors import as_tensor
from bancache.models.torch_file import read_torch_file
from bancache.system.progress import Progress, Silent

_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"  # beside weights in several files
_LARGEST_INDEX = 1 << 24
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averag\w*)([._]|$)", re.IGNORECASE)
# Names that wrappers put between others: torch.compile, FSDP, activation checkpointing.
_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Heads that Inception and GoogLeNet use in training only, and the counter of torch.optim.swa_utils.
_UNUSED = re.compile(r"(AuxLogits|aux1|aux2)\.|n_averaged$")
_OLD_DENSENET = re.compile(r"(\bdenselayer\d+\.(?:norm|conv))\.(\d)\.")


@dataclass(frozen=True)
class _Fit:
    """Tensors of a file by the model's names; ``label`` is their place in the file, such as ``state_dict.model``.

    ``head`` names those that the model has with another number of classes.
    """

    label: str
    state: dict[str, Stored]
    unused: tuple[str, ...] = ()
    head: tuple[str, ...] = ()


def load_weights(model: nn.Module, spec: str, weights: str, progress: Progress | None = None) -> None:
    """Load the weights in a file into the model that ``spec`` names; errors are those of ``find_weights``."""
    state, _ = find_weights(model, spec, weights, progress)
    model.load_state_dict(state)


def find_weights(
    model: nn.Module, spec: str, weights: str, progress: Progress | None = None, *, new_head: bool = False
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the weights in a file by the names of the model that ``spec`` names; no code is executed.

    The file is of torch.save, with whatever a trainer put around and beside the weights, or safetensors, or a folder of
    Hugging Face with one of them or with the index of several. Of several sets that fit, averaged ones (EMA, SWA) are
    taken, which is noted; ``FILE:NAME`` takes another. With ``new_head``, weights fit a model with another number of
    classes, too; the names of those that differ are returned beside them.

    Raises:
        CheckpointError: The file is missing or damaged, or its weights do not fit.
        UsageError: Several sets of weights fit, or none is called as ``weights`` says.
    """
    path, asked = split_weights(weights)
    path = _in_folder(path)
    return fit_weights(model, spec, path, _read(path), progress, asked=asked, new_head=new_head)


def fit_weights(
    model: nn.Module,
    spec: str,
    path: Path,
    content: Any,
    progress: Progress | None = None,
    *,
    asked: str = "",
    new_head: bool = False,
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the weights in what was read from a file, nested dictionaries of Stored, as ``find_weights`` does."""
    progress = progress or Silent()
    sets = dict(_sets(content))
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    fits = [fit for label, found in sets.items() for fit in _fits(label, found, expected, new_head)]
    if asked and not any(_is_within(label, asked) for label in (*sets, *(fit.label for fit in fits))):
        raise UsageError(
            f"{path} has no weights called '{asked}'",
            hint=f"it has: {few(sorted({label or 'unnamed ones' for label in sets}))}",
        )
    if asked:
        sets = {label: found for label, found in sets.items() if _is_within(label, asked)} or sets
        fits = [fit for fit in fits if _is_within(fit.label, asked)]
    if not fits:
        raise _misfit(path, spec, expected, sets)
    fit = _choose(path, fits, progress)
    if fit.unused:
        progress.note(f"{path}: left out what the model does not use: {few(fit.unused)}")
    state = {name: as_tensor(stored) for name, stored in fit.state.items()}
    for name, wanted in model.state_dict().items():
        if name in state and wanted.is_floating_point() and not state[name].is_floating_point():
            raise CheckpointError(
                f"{path}: {name} is {str(state[name].dtype).removeprefix('torch.')}, the model's are floats",
                hint="name the weights as they were before they were quantized",
            )
    return state, fit.head


def _is_within(label: str, asked: str) -> bool:
    return label == asked or label.startswith(f"{asked}.")


def _in_folder(path: Path) -> Path:
    """Return the weights file of a folder as Hugging Face writes them."""
    if not path.is_dir():
        return path
    for name in (*_IN_FOLDERS, *(name + _INDEX for name in _IN_FOLDERS)):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"{path} is a folder without {' or '.join(_IN_FOLDERS)}", hint="name the file with the weights"
    )


class _Index(msgspec.Struct):
    """What Hugging Face writes beside weights in several files: the file of each tensor."""

    weight_map: dict[str, str]


def _read(path: Path) -> Any:
    """Return the content of a file, or of the files that an index names, as nested dictionaries of Stored."""
    if not path.name.endswith(_INDEX) or not path.is_file():
        return _read_one(path)
    try:
        with path.open("rb") as stream:
            names = msgspec.json.decode(stream.read(_LARGEST_INDEX), type=_Index).weight_map
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is no index of weights: {error}", hint="fetch the file again"
        ) from error
    found: dict[str, Any] = {}
    for file in sorted(set(names.values())):
        if not file or Path(file).name != file or file.endswith(_INDEX):
            raise CheckpointError(f"{path} names '{file[:60]}', which is no file of weights beside it")
        content = _read_one(path.with_name(file))
        found |= content if isinstance(content, dict) else {}
    if missing := [name for name in names if name not in found]:
        raise CheckpointError(f"{path} names {few(missing)}, which its files lack", hint="fetch them again")
    return {name: found[name] for name in names}


def _read_one(path: Path) -> Any:
    if not path.is_file():
        return read_torch_file(path).content  # it says why
    with path.open("rb") as stream:
        begin, size = stream.read(9), path.stat().st_size
    if len(begin) == 9 and begin[8:] == b"{" and struct.unpack("<Q", begin[:8])[0] < size:
        return _read_safetensors(path)
    found = read_torch_file(path)
    content = found.content
    model = content if isinstance(content, Unknown) else next(_unknown_models(content), None)
    if model is not None and not dict(_sets(content)):
        raise CheckpointError(
            f"{path} is a pickle of a whole model ({model.origin}), which would execute code, and was not read",
            hint="where it was made: torch.save(model.state_dict(), ...)",
        )
    if found.unknown and not dict(_sets(content)):
        raise CheckpointError(
            f"{path} holds no weights by name, but {found.unknown[0]}, which would execute code",
            hint="where it was made: torch.save(model.state_dict(), ...)",
        )
    return content


def _unknown_models(content: Any) -> Iterator[Unknown]:
    values = content.values() if isinstance(content, dict) else ()
    return (value for value in values if isinstance(value, Unknown) and value.is_model)


def _read_safetensors(path: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> torch.Tensor:
        with safe_open(path, framework="pt") as archive:
            tensor: torch.Tensor = archive.get_tensor(name)
            return tensor

    try:
        with safe_open(path, framework="pt") as archive:  # compares offsets, shapes and the file's size
            return {
                name: Stored(tuple(archive.get_slice(name).get_shape()), "float32", partial(read, name))
                for name in archive.keys()  # noqa: SIM118 (it is no dictionary)
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a file of safetensors: {error}") from error


def _sets(content: Any, label: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Stored]]]:
    """Yield each dictionary of tensors in a file, and its place; those of optimizers have no names."""
    if not isinstance(content, dict) or depth > 4:
        return
    found = {
        key: value for key, value in content.items() if isinstance(value, Stored) and isinstance(key, str)
    }
    if found:
        yield label, found
    for key, value in content.items():
        if isinstance(key, str) and "optim" not in key:
            yield from _sets(value, f"{label}.{key}" if label else key, depth + 1)


def _by_prefix(
    found: Mapping[str, Stored], expected: Mapping[str, Shape]
) -> tuple[dict[str, Stored], Counter[str]]:
    """Return the tensors without wrappers' names, and for each prefix how many of the model's names follow it."""
    old = any("denselayer1.norm1" in name for name in expected)
    clean = {_WRAPPERS.sub("", name): value for name, value in found.items()}
    if old:
        clean = {_OLD_DENSENET.sub(r"\1\2.", name): value for name, value in clean.items()}
    prefixes: Counter[str] = Counter()
    for name in clean:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        prefixes.update(name[:start] for start in starts if name[start:] in expected)
    return clean, prefixes


def _fits(
    label: str, found: Mapping[str, Stored], expected: Mapping[str, Shape], new_head: bool
) -> Iterator[_Fit]:
    """Yield the sets of tensors with one prefix that have all of the model's names and shapes, and no others.

    With ``new_head``, they may be for another number of classes.
    """
    clean, prefixes = _by_prefix(found, expected)
    # Files from before torch 0.4.1 lack these counters.
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    for prefix in prefixes:
        state = {name.removeprefix(prefix): value for name, value in clean.items() if name.startswith(prefix)}
        unused = [name for name in state if name not in expected and _UNUSED.match(name)]
        state = {name: value for name, value in state.items() if name not in unused}
        if not needed <= state.keys() <= expected.keys():
            continue
        shapes = {name: value.shape for name, value in state.items()}
        head = tuple(name for name, shape in shapes.items() if expected[name] != shape)
        if not head or (new_head and other_head(expected, shapes)):
            place = ".".join(part for part in (label, prefix.rstrip(".")) if part)
            heads = sorted({name.partition(".")[0] for name in unused} - {"n_averaged"})
            yield _Fit(place, state, tuple(heads), head)


def _choose(path: Path, fits: list[_Fit], progress: Progress) -> _Fit:
    """Return the only fit, or the averaged one; what was chosen is noted."""
    if len(fits) == 1:
        return fits[0]
    averaged = [fit for fit in fits if _AVERAGED.search(fit.label)]
    named = [fit.label for fit in fits if fit.label]
    if len(averaged) != 1:
        raise UsageError(
            f"{path} has {len(fits)} sets of weights that fit: {few(named)}",
            hint=f"choose one, such as --weights {path}:{named[0]}",
        )
    others = [f"; --weights {path}:{label} takes the others" for label in named if label != averaged[0].label]
    progress.note(f"{path}: took the averaged weights '{averaged[0].label}'{''.join(others[:1])}")
    return averaged[0]


def _misfit(
    path: Path, spec: str, expected: Mapping[str, Shape], sets: Mapping[str, Mapping[str, Stored]]
) -> CheckpointError:
    """Say how the set of weights that is nearest to the model differs from it, and the likeliest cause."""
    if not sets:
        return CheckpointError(
            f"{path} holds no weights by name", hint="save it with torch.save(model.state_dict(), ...)"
        )
    near: dict[str, Shape] = {}
    best = -1
    for found in sets.values():
        clean, prefixes = _by_prefix(found, expected)
        prefix, count = prefixes.most_common(1)[0] if prefixes else ("", 0)
        if count > best:
            best = count
            near = {k.removeprefix(prefix): v.shape for k, v in clean.items() if k.startswith(prefix)}
    near = {name: shape for name, shape in near.items() if name in expected or not _UNUSED.match(name)}
    return misfit(path, spec, expected, near, best)
