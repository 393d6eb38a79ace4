"""Refusing teachers and weights that are not there, without importing torch."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from bancache.errors import CheckpointError, UsageError
from bancache.models.names import canonical_name, is_third_party, split_weights
from bancache.system.wording import command


def check_files(name: str, weights: Path | None = None) -> None:
    """Refuse a teacher or weights that are not there, without importing torch."""
    library, file = name.startswith(("torchvision:", "timm:")), Path(name)
    if weights is not None and (name.endswith(".pt2") or not is_third_party(name)):
        what = (
            f"--weights {weights} is for a model that is no checkpoint or export; {name} has its own weights"
        )
        raise UsageError(what, hint="leave out --weights")
    if library and weights is None:
        raise UsageError(f"teacher '{name}' has no weights", hint="add --weights FILE")
    if weights is not None and not split_weights(str(weights))[0].exists():
        raise CheckpointError(
            f"{split_weights(str(weights))[0]} is missing", hint="give the file with --weights"
        )
    if is_third_party(name) and not name.endswith(".pt2"):
        return
    if file.suffix == ".safetensors" or file.is_dir():
        hint = f"name the model, and give this as its weights: timm:NAME --weights {name}"
        if (file / "manifest.json").exists():
            hint = f"it is a cache: {command('info', name)} shows its teacher"
        raise CheckpointError(f"{name} is no bancache checkpoint", hint=hint)
    if not file.exists():
        raise _missing(file)


def _missing(file: Path) -> CheckpointError | UsageError:
    """Return the error for a teacher that is not there, with what may have been meant."""
    near = get_close_matches(file.name, [each.name for each in file.parent.glob("*.pt*")], n=2)
    if near or file.suffix or len(file.parts) > 1:
        shown = f"the nearest: {', '.join(str(file.with_name(name)) for name in near)}"
        return CheckpointError(f"{file} is missing", hint=shown if near else "")
    try:
        own = canonical_name(file.name)
        hint = f"train it first: {command('train-teacher', '--data', 'SOURCE', '--model', own, '--out', 'gen0.pt')}"
    except UsageError:
        hint = f"did you mean torchvision:{file} or timm:{file}, with --weights FILE?"
    return UsageError(f"no teacher '{file}': there is no such file", hint=hint)


def with_weights(names: list[str], weights: list[Path] | None) -> list[tuple[str, Path | None]]:
    """Return each teacher with its weights: those of several belong to the models of torchvision and timm, in order."""
    if len(names) == 1 and len(weights or []) <= 1:
        return [(names[0], weights[0] if weights else None)]
    left = list(weights or [])
    libraries = [name for name in names if name.startswith(("torchvision:", "timm:"))]
    if len(left) != len(libraries):
        raise UsageError(
            f"{len(libraries)} of the teachers need weights, and {len(left)} are given",
            hint="give one --weights for each torchvision:NAME and timm:NAME, in the order of --teacher",
        )
    return [(name, left.pop(0) if name in libraries else None) for name in names]
