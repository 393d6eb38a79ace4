"""What a run uses where nobody says otherwise: each data source gets a net, views and a recipe that suit it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bancache.models.names import parse_name
from bancache.models.share_layers import ShareMode
from bancache.system import configs
from bancache.training.recipe import Recipe, preset
from bancache.views.space import ViewSpace

# Schedules with steps need room between them; below this many epochs one cycle does better.
_STEPS_FROM = 60
_FOREIGN_VIEWS = 16


def default_model(kind: str, height: int, width: int) -> str:
    """Return a net's name for a kind of source and its images' size in pixels."""
    return "convnet-16" if kind == "digits" or min(height, width) < 16 else "wrn-28-2"


def default_views(kind: str, height: int, width: int) -> str:
    """Return a view space's name: crops within an eighth of the image, mirrored unless mirroring lies."""
    pad = max(1, min(height, width) // 8)
    return f"crop{pad}" if kind == "digits" else f"crop{pad}-flip"


def default_recipe(kind: str, name: str | None, **changes: Any) -> Recipe:
    """Return a preset with changes; without a name, one cycle for short runs and steps for long ones."""
    epochs = changes.get("epochs")
    if name is None and kind == "digits":
        digits = {"epochs": 15, "batch_size": 64}
        return preset("onecycle", **{**digits, **{k: v for k, v in changes.items() if v is not None}})
    chosen = name or ("wrn" if epochs is not None and epochs >= _STEPS_FROM else "onecycle")
    return preset(chosen, **changes)


def student_recipe(
    kind: str, name: str | None, teacher_recipe: dict[str, Any] | None, **changes: Any
) -> Recipe:
    """Return the teacher's recipe with changes, unless a preset is asked for or the teacher has none."""
    if name is not None or teacher_recipe is None:
        return default_recipe(kind, name, **changes)
    taught = configs.from_dict(Recipe, teacher_recipe, what="the teacher's recipe")
    return replace(taught, **{key: value for key, value in changes.items() if value is not None})


def default_share_ends(model: str | None, teacher: str) -> ShareMode:
    """Return ``freeze`` for a match net in the frame of this very teacher, as in the paper; ``none`` for others.

    Args:
        model: The student's net by name; None when it is the teacher's own.
        teacher: The teacher's net by name.

    >>> default_share_ends("match-wrn-1-1", "densenet-bc-90-60"), default_share_ends("wrn-28-2", "wrn-28-2")
    ('freeze', 'none')
    """
    if model is None:
        return "none"
    name = parse_name(model)
    return "freeze" if name.family.startswith("match-") and name.within == teacher else "none"


def default_num_views(space: ViewSpace, teacher_recipe: dict[str, Any] | None) -> int:
    """Return as many views as a student trained like its teacher will show, or all if those are fewer."""
    epochs = teacher_recipe["epochs"] if teacher_recipe else _FOREIGN_VIEWS
    return min(space.size, int(epochs))
