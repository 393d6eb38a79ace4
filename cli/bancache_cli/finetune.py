"""``--weights`` of ``train-teacher`` and ``train-student``: a training that starts from weights that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bancache.errors import CheckpointError, UsageError
from bancache.models.names import LIBRARIES, PRETRAINED, parse_name, split_weights
from bancache.training.recorded import START, header_of
from bancache_cli.teacher_input import input_text

if TYPE_CHECKING:
    from bancache.models.start import StartWeights
    from bancache.system.progress import Progress
    from bancache.training import Recipe
    from bancache_cli.options import ModelOptions
    from bancache_cli.recipes import RecipeOptions

Weights = Annotated[
    str | None,
    Option(
        metavar="FILE|pretrained",
        help="Fine-tune: start from a checkpoint, from a file with weights of --model, or from those that torchvision "
        "or timm publish.",
    ),
]
# What was learned is lost at the rates of a training from scratch.
_SLOWER = 0.1


def check(
    weights: str | None,
    model: ModelOptions,
    recipe: Recipe,
    asked: RecipeOptions,
    reporter: Progress,
    taught: Mapping[str, Any] | None = None,
) -> tuple[ModelOptions, Recipe]:
    """Refuse weights that cannot be read, without importing torch; return the model that they are for, and the recipe.

    A checkpoint says the model; for other weights the user does, or they are for that of the teacher, which ``taught``
    describes as a manifest does. The recipe has the learning rate of a fine-tuning, unless the user ``asked`` for one. Without
    weights both stay; the rate of a fine-tuned teacher, too low for a student from scratch, is warned of.
    """
    usual = taught["architecture"]["name"] if taught else None
    tuned = taught is not None and taught.get("fine_tuned", False) and asked.recipe is None
    if taught is not None and tuned:  # another optimizer has a rate of its own
        tuned = recipe.optimizer == taught["recipe"].get("optimizer", "sgd")
    if weights is not None:
        model = _model(weights, model, usual)
        recipe = recipe if tuned else _slower(recipe, asked.lr, reporter)
    elif tuned and asked.lr is None:
        reporter.warn(
            f"learning rate {recipe.lr:g} is that of the fine-tuned teacher, and low for a student that begins from scratch: "
            f"--lr {recipe.lr / _SLOWER:g} is the usual one"
        )
    return model, recipe


def _model(weights: str, model: ModelOptions, usual: str | None) -> ModelOptions:
    name = model.model or usual
    if weights == PRETRAINED:
        if name is None or parse_name(name).family not in LIBRARIES:
            raise UsageError(
                f"--weights {PRETRAINED} is for models of torchvision and timm",
                hint="name one, such as --model torchvision:resnet18, or a file with --weights FILE",
            )
        return model
    path, _ = split_weights(weights)
    if not path.exists():
        raise CheckpointError(f"{path} is missing", hint="give the file with --weights")
    header = header_of(path)
    if name is None and header is None:
        raise UsageError(
            f"{path} does not say which model its weights are for", hint="add --model, such as timm:resnet18"
        )
    return model if header is None or model.model else replace(model, model=header["architecture"]["name"])


def _slower(recipe: Recipe, asked: float | None, reporter: Progress) -> Recipe:
    if asked is not None:
        return recipe
    recipe = replace(recipe, lr=recipe.lr * _SLOWER)
    reporter.note(f"learning rate {recipe.lr:g}, a tenth of the recipe's (--lr)")
    return recipe


def asked_for(weights: str | None) -> dict[str, Any]:
    """Return what a run without weights has instead of their fingerprint; which one it is, only reading them says."""
    return {START: None} if weights is None else {}


def load(weights: str | None, architecture: dict[str, Any], reporter: Progress) -> StartWeights | None:
    """Read the weights, if there are any, and say how the images are normalized."""
    if weights is None:
        return None
    from bancache.models.start import load_start

    start = load_start(architecture, weights, reporter)
    if start.input is None:
        reporter.note(
            "nothing says how the images of these weights were normalized: by the statistics of the data"
        )
    else:
        reporter.note(f"the images are normalized by {input_text(start.input.to_dict())}")
        if start.input.size not in (None, size := tuple(architecture["image_size"])):
            own = start.input.size[0]
            reporter.note(
                f"{start.input.origin} records {own} pixels for this model, which sees {size[0]} (--size {own})"
            )
    return start
