"""What is refused at once: outputs that cannot be written or are in use, and other settings than those of a run that began.

Nothing here needs torch, whose import takes seconds, or the images, whose decoding takes longer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bancache.errors import UsageError
from bancache.models.names import canonical_name, parse_name
from bancache.system import configs
from bancache.system.files import require_writable
from bancache.system.locks import require_free
from bancache.training.recipe import Recipe, given
from bancache.training.recorded import recorded_run, require_same
from bancache_cli import options


def require_file(out: Path, *, alone: bool = True) -> None:
    """Check that a file can be written; if this process is ``alone``, also that no other process writes it."""
    if out.is_dir():
        raise UsageError(f"{out} is a folder", hint=f"name a file, such as {out / 'gen0.pt'}")
    require_writable(out)
    if alone:
        require_free(out.with_name(f"{out.name}.lock"), out)


def asked_for(
    model: options.ModelOptions, recipe: options.RecipeOptions, chosen: Recipe, views: str | None, **more: Any
) -> dict[str, Any]:
    """Return the settings that the user named, with the keys of a checkpoint's header; check model and views."""
    named = given({**recipe.changes(), **more})
    if recipe.recipe is not None:
        preset = configs.to_dict(chosen)
        # These follow the device, the data and the memory unless they are given.
        named = {
            key: value for key, value in preset.items() if key not in ("amp", "batch_size", "lr")
        } | named
    asked: dict[str, Any] = {"recipe": named}
    if model.model is not None:
        parse_name(model.model)
        asked["architecture"] = {"name": canonical_name(model.model)}
    if views is not None:
        from bancache.views.space import ViewSpace

        space = ViewSpace.parse(views).to_dict()
        asked["view_space"] = {key: space[key] for key in ("pad", "mode", "flip")}
    return asked


def recorded_settings(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the run at ``out``; empty if there is none, or if only the training can read them.

    Raises:
        MismatchError: They differ from what the user asked for.
    """
    found = recorded_run(out)
    if found is None:
        return {}
    path, recorded = found
    now = {
        key: {**recorded[key], **v} if isinstance(v, dict) else v
        for key, v in asked.items()
        if key in recorded
    }
    require_same(now, recorded, str(path))
    return recorded
