"""Why weights do not fit a model: a sentence with the first differences, and the likeliest cause."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bancache.errors import CheckpointError
from bancache.models.names import LIBRARIES
from bancache.system.wording import command, count

Shape = tuple[int, ...]
_LARGEST_CONFIG = 1 << 20


def compare(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> str:
    """Say how the names and shapes of a file differ from those of a model; nothing if they fit."""
    missing = [name for name in expected if name not in found]
    more = [name for name in found if name not in expected]
    other = [name for name in expected if found.get(name, expected[name]) != expected[name]]
    parts = [f"{len(expected) - len(missing)} of the model's {len(expected)} names are in it"] * bool(missing)
    parts += [f"it lacks {few(missing)}"] * bool(missing)
    parts += [f"the model has no {few(more)}"] * bool(more)
    if other:
        name, differ = other[0], "differs" if len(other) == 1 else "differ"
        shapes = f"{found[name]}, in the model {expected[name]}"
        parts.append(f"{count(len(other), 'shape')} {differ}, first {name}: {shapes}")
    return "; ".join(parts)


def few(names: Any) -> str:
    """Return the first of some names, shortened, and how many more there are."""
    names = [name if len(name) <= 60 else f"{name[:28]}…{name[-28:]}" for name in names]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def other_head(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> tuple[int, int] | None:
    """Return the classes of two heads, the file's and the model's, if the shapes differ in nothing else."""
    names = [name for name, shape in expected.items() if found.get(name, shape) != shape]
    counts = {(*found[name][:1], *expected[name][:1]) for name in names}
    if len(counts) != 1 or any(found[name][1:] != expected[name][1:] for name in names):
        return None
    both = counts.pop()
    return (both[0], both[1]) if len(both) == 2 else None


def misfit(
    path: Path, spec: str, expected: Mapping[str, Shape], near: Mapping[str, Shape], names: int
) -> CheckpointError:
    """Return the error for the weights ``near`` of a file, of which so many have names of the model."""
    heads = other_head(expected, near)
    if heads and expected.keys() >= near.keys():
        of = "data" if spec.startswith(tuple(LIBRARIES)) else "model"
        return CheckpointError(
            f"{path} fits {spec} but for its head, which has {heads[0]} classes; the {of} has {heads[1]}",
            hint=f"fine-tune it: {command('train-teacher', '--data', 'SOURCE', '--model', spec, '--weights', path)}; or "
            f"name data of its {heads[0]} classes with --data",
        )
    return CheckpointError(
        f"{path} does not fit {spec}: {compare(expected, near)}", hint=_cause(path, names, near)
    )


class _Config(msgspec.Struct):
    """What Hugging Face's config.json says of the model beside it."""

    architecture: str = ""
    architectures: list[str] = []
    num_classes: int | None = None


def _cause(path: Path, names: int, near: Mapping[str, Shape]) -> str:
    """Return the likeliest cause of a misfit and what to do, from the names and from a config.json beside."""
    config, file = _Config(), path.with_name("config.json")
    if file.is_file() and file.stat().st_size < _LARGEST_CONFIG:
        try:
            config = msgspec.json.decode(file.read_bytes(), type=_Config)
        except (msgspec.DecodeError, UnicodeDecodeError):
            config = _Config()
    if config.architecture:
        return f"the config.json beside it says {config.architecture[:60]}: try --teacher timm:{config.architecture[:60]}"
    if config.architectures or any(
        re.match(r"(\w+\.)?(embeddings|embedder|encoder)\.", name) for name in near
    ):
        name = config.architectures[0][:60] if config.architectures else "a model"
        return (
            f"it looks like {name} of transformers: build that in a function of yours, and name it with "
            "--teacher module:function"
        )
    if names:
        return "it is likely of another size or variant of this architecture: name the one that it was trained as"
    return "it is likely of another architecture or library: name the one that it was trained as, or module:function"
