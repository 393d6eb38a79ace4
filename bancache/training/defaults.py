"""Default model, views and recipe for each kind of data source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bancache.models.names import parse_name
from bancache.system import configs
from bancache.training.recipe import Optimizer, Recipe, given, preset

if TYPE_CHECKING:
    from bancache.models.match_frame import ShareMode
    from bancache.views import ViewSpace

# Below this number of epochs a one-cycle schedule does better than a step schedule.
_STEPS_FROM = 60
_VIEWS_WITHOUT_RECIPE = 16
_SMALL_IMAGE = 64  # pixels; Tiny-ImageNet's
PHOTOGRAPH = 224  # pixels of a view at most, of pictures that differ in size
_SIDES = 32  # which such a view has a multiple of
OLD_MODEL = "wrn-28-2"  # for images of every size, up to version 0.2
_SAME_RATE_BATCH = 512  # photographs in a batch for which they have the rate of small images
# Of an optimizer that a recipe was not made for: that of preset "wrn", and torch's own for AdamW.
_USUAL_RATES: dict[Optimizer, float] = {"sgd": 0.1, "adamw": 1e-3}


def default_model(kind: str, height: int, width: int) -> str:
    """Return the default model for a kind of source and the size of its images in pixels.

    A wide residual network keeps its full resolution for a third of its units, so at the size of photographs it takes
    nine times the memory of a ResNet-18.
    """
    if kind == "digits" or min(height, width) < 16:
        return "convnet-16"
    return "torchvision:resnet18" if min(height, width) > _SMALL_IMAGE else OLD_MODEL


def are_photographs(height: int, width: int, ragged: bool) -> bool:
    """Return whether images count as photographs: they are seen larger than ``_SMALL_IMAGE``, or differ in size."""
    return ragged or min(height, width) > _SMALL_IMAGE


def default_side(images: Any) -> int:
    """Return the side of the views of pictures that differ in size, a ``RaggedImages`` or ``StoredImages``.

    It is the median of their shorter sides to the nearest multiple of 32, and 224 at most: enlarged pictures take the
    time of large ones and show no more.
    """
    shorter = float(np.median(np.minimum(images.heights, images.widths)))
    return min(PHOTOGRAPH, max(_SIDES, round(shorter / _SIDES) * _SIDES))


def default_views(kind: str, height: int, width: int, ragged: bool = False) -> str:
    """Return the default view space for models that see ``height`` x ``width`` pixels.

    Photographs are shown as resized crops with flips; small images as crops padded by an eighth, with flips except for
    digits.
    """
    if are_photographs(height, width, ragged):
        return "rrc-flip"
    pad = max(1, min(height, width) // 8)
    return f"crop{pad}" if kind == "digits" else f"crop{pad}-flip"


def default_recipe(kind: str, name: str | None, **changes: Any) -> Recipe:
    """Return preset ``name`` with changes; by default ``onecycle`` for short runs and ``wrn`` for long ones."""
    if name is None and kind == "digits":
        return _changed(preset("onecycle", epochs=15, batch_size=64), changes)
    usual = "wrn" if (changes.get("epochs") or 0) >= _STEPS_FROM else "onecycle"
    return _changed(preset(name or usual), changes)


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Return a recipe with changes; another optimizer has its usual rate if none is named."""
    changed = replace(recipe, **given(changes))
    if changed.optimizer == recipe.optimizer or changes.get("lr") is not None:
        return changed
    return replace(changed, lr=_USUAL_RATES[changed.optimizer])


def has_usual_rate(recipe: Recipe) -> bool:
    """Return whether a recipe has the learning rate that ``default_recipe`` gives to another optimizer."""
    return recipe.lr == _USUAL_RATES[recipe.optimizer]


def photographs_rate(lr: float, batch_size: int, samples: int) -> float:
    """Return the learning rate on photographs for one of ``default_recipe``, which was chosen on small images.

    That is 0.1 for 256 images in place of ``onecycle``'s 0.2, and in proportion to the batch, as in Goyal et al., "Accurate,
    Large Minibatch SGD", 2017. A batch holds all ``samples`` at most.

    >>> photographs_rate(0.2, 256, 1_281_167), photographs_rate(0.2, 128, 64)
    (0.1, 0.025)
    """
    return lr * min(batch_size, samples) / _SAME_RATE_BATCH


def student_recipe(
    kind: str, name: str | None, teacher_recipe: dict[str, Any] | None, **changes: Any
) -> Recipe:
    """Return the teacher's recipe with changes, or preset ``name`` if it is given or the teacher has no recipe."""
    if name is not None or teacher_recipe is None:
        return default_recipe(kind, name, **changes)
    return _changed(configs.from_dict(Recipe, teacher_recipe, what="the teacher's recipe"), changes)


def default_share_layers(model: str | None, teacher: str) -> ShareMode:
    """Return ``freeze`` for a match model built in this teacher's frame, as in the paper, else ``none``.

    ``model`` is None if the student's model is the same as the teacher's.

    >>> default_share_layers("match-wrn-1-1", "densenet-bc-90-60"), default_share_layers("wrn-28-2", "wrn-28-2")
    ('freeze', 'none')
    """
    if model is None:
        return "none"
    name = parse_name(model)
    return "freeze" if name.family.startswith("match-") and name.within == teacher else "none"


def default_num_views(space: ViewSpace, teacher_recipe: dict[str, Any] | None) -> int:
    """Return one view per epoch of the teacher's recipe, and at most the size of the space."""
    epochs = teacher_recipe["epochs"] if teacher_recipe else _VIEWS_WITHOUT_RECIPE
    return min(space.size, int(epochs))
