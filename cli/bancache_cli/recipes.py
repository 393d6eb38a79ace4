"""Options that make a recipe: a preset and changes to it; and what is left to device, memory and data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from bancache.training.recipe import PRESETS
from bancache_cli.options import completes

if TYPE_CHECKING:
    import torch

    from bancache.sources.image_set import ImageSet
    from bancache.system.progress import Progress
    from bancache.training import Recipe


@dataclass(frozen=True)
class RecipeOptions:
    """A training recipe: a preset and changes to it."""

    recipe: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Preset: wrn (200 epochs), densenet (300), imagenet (90), onecycle (30), deit (300) or funmatch (300). "
            "Default of a student: as its teacher.",
            autocompletion=completes(*PRESETS),
        ),
    ] = None
    epochs: Annotated[int | None, Option(help="Passes over the training images.")] = None
    batch_size: Annotated[int | None, Option(help="Images per step.")] = None
    optimizer: Annotated[
        Literal["sgd", "adamw"] | None, Option(help="torch's SGD with Nesterov momentum, or its AdamW.")
    ] = None
    lr: Annotated[float | None, Option("--lr", help="Peak learning rate.")] = None
    schedule: Annotated[
        Literal["step", "onecycle", "cosine"] | None,
        Option(help="Learning rate over a run; step is constant but for presets that have milestones."),
    ] = None
    warmup: Annotated[
        float | None, Option(help="Epochs in which the learning rate rises first.", metavar="EPOCHS")
    ] = None
    weight_decay: Annotated[float | None, Option(help="L2 penalty; adamw: decoupled weight decay.")] = None
    weight_decay_exclude_1d: Annotated[
        bool | None,
        Option(
            "--weight-decay-exclude-1d/--weight-decay-all",
            help="No weight decay on biases and norms (default: on all parameters).",
        ),
    ] = None
    label_smoothing: Annotated[
        float | None, Option(help="Share of each label that is spread over all classes.", metavar="SHARE")
    ] = None
    clip_grad: Annotated[
        float | None, Option(help="Largest norm of the gradients of a step; 0: any.", metavar="NORM")
    ] = None
    ema: Annotated[
        float | None,
        Option(
            help="Evaluate and write a moving average of the weights with this decay per step, such as 0.999; 0: none.",
            metavar="DECAY",
        ),
    ] = None
    keep_last: Annotated[
        bool | None,
        Option(
            "--keep-last/--drop-last",
            help="Train what remains of an epoch after its last full batch as a smaller one (default: drop it).",
        ),
    ] = None
    shuffle_block: Annotated[
        int | None,
        Option(
            help="Read images in runs of so many, mixed with seven other runs, for disks and object stores; 0: in any order.",
            metavar="N",
        ),
    ] = None
    amp: Annotated[
        bool | None, Option("--amp/--no-amp", help="bfloat16 autocast (default: on CUDA only).")
    ] = None
    compile: Annotated[
        bool | None,
        Option(
            "--compile/--no-compile",
            help="Compile the model with torch.compile (default: on CUDA, where measuring shows that it pays).",
        ),
    ] = None

    def changes(self) -> dict[str, Any]:
        """Return the changes to a preset; None keeps the preset's value."""
        return {key: value for key, value in asdict(self).items() if key != "recipe"}


def suit(
    asked: RecipeOptions,
    recipe: Recipe,
    architecture: dict[str, Any],
    views: str,
    splits: tuple[ImageSet, ImageSet],
    device: torch.device,
    recorded: dict[str, Any] | None,
    reporter: Progress,
    *,
    even: bool,
    alone: bool = True,
    tuned: bool = False,
    runs: int = 1,
) -> Recipe:
    """Return a recipe with what its user left to the device and the memory, and to the images if it is their default, ``even``.

    Processes that train together, not ``alone``, keep the preset's batch size and do not measure: they must all have the
    same recipe. Models that start from weights, ``tuned``, have the same rate on all images. ``runs`` models will be trained
    with it.
    """
    from bancache.training.compiling import choose_compile
    from bancache.training.defaults import are_photographs, photographs_rate
    from bancache.training.memory import choose_batch_size, has_rate_of, training_needs
    from bancache.views import ViewSpace

    images, usual, (height, width) = splits[0], recipe.lr, architecture["image_size"]
    recipe = replace(recipe, amp=device.type == "cuda" if asked.amp is None else asked.amp)
    if recorded and asked.optimizer and asked.lr is None:
        recipe = replace(recipe, lr=recorded["lr"])  # older versions gave all optimizers one rate
    usual_rate = even and not tuned and asked.lr is None and recipe.optimizer == "sgd"
    photographs = usual_rate and are_photographs(height, width, ragged=not images.uniform)
    if recorded and has_rate_of(recorded, recipe):  # a run that an older version began goes on with its rate
        photographs = False
    if photographs:
        batch_size = min(recipe.batch_size, len(images)) if asked.batch_size is None else recipe.batch_size
        recipe = replace(recipe, batch_size=batch_size, lr=photographs_rate(usual, batch_size, len(images)))
    if alone and asked.batch_size is None:
        recipe = choose_batch_size(
            recipe,
            training_needs(architecture, recipe, *splits, ViewSpace.parse(views), device),
            device,
            samples=len(images),
            even=even and not recipe.keep_last,
            recorded=recorded,
            scale_rate=asked.lr is None and not photographs,
            progress=reporter,
        )
    if photographs:
        recipe = replace(recipe, lr=photographs_rate(usual, recipe.batch_size, len(images)))
        reporter.note(
            f"learning rate {recipe.lr:g} for photographs: in proportion to the batch size, {usual / 2:g} for 256 (--lr)"
        )
    elif asked.optimizer and asked.lr is None:
        _say_rate(recipe, recorded, reporter)
    if not alone or asked.compile is not None:
        return recipe
    batches = max(1, len(images) // recipe.batch_size)
    return choose_compile(recipe, architecture, batches, runs, device, recorded=recorded, progress=reporter)


def _say_rate(recipe: Recipe, recorded: dict[str, Any] | None, reporter: Progress) -> None:
    """Say which learning rate a recipe has whose optimizer was named, and no rate."""
    from bancache.training.defaults import has_usual_rate

    if recorded or has_usual_rate(recipe):
        why = "as the run began" if recorded else f"the usual one of {recipe.optimizer}"
        reporter.note(f"learning rate {recipe.lr:g}, {why} (--lr)")
