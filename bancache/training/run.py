"""Run: the settings that decide the final weights, so that a run can be named, resumed and repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from bancache.cache.info import model_name
from bancache.cache.reader import Cache
from bancache.errors import UsageError
from bancache.loader.open import student_normalization, teacher_normalization
from bancache.models import canonical_name
from bancache.models.match_frame import ShareMode
from bancache.models.start import StartWeights
from bancache.philox import derive_seed
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training.own_loss import OwnLoss
from bancache.training.recipe import Recipe, own_name
from bancache.training.recorded import START, require_same
from bancache.views.model_input import Normalization
from bancache.views.space import ViewSpace


@dataclass(frozen=True)
class Run:
    """The settings of one training run. ``run_for_labels`` and ``run_for_cache`` make them.

    Attributes:
        architecture: Name and arguments of the model, as for ``build_model``.
        seed: Decides initial weights, sample order, dropout and permuted targets.
        data_fingerprint: Fingerprint of the training images, their labels and their order.
        generation: 0 for training on labels, else the teacher's generation plus 1.
        lineage: One dict per ancestor, generation 0 first: ``generation``, ``model``, ``weights``, ``accuracy``, the
            digest of the ``cache`` that taught the next generation, ``share_ends`` if layers were shared, and of an ensemble
            the weights of its ``members``; their own ancestors are in their checkpoints.
        cache_digest: Digest of the cache; None for generation 0.
        share_layers: Whether the student takes the teacher's first and last layer: ``copy`` (and trains them
            further), ``freeze`` or ``none``. Its key on disk is ``share_ends``.
        label_weight: Factor of the cross-entropy in training on labels alone. 2 is the control "doubled CE weight"
            of loss ``ban-l``, which sums two cross-entropies and so has twice the gradient at the same weight decay.
        own_loss: What the recipe's loss ``module:function`` names. It is code, so no file can give it.
        ranks: Number of processes that share every batch. It changes the weights: BatchNorm sees one share at a time, loss
            ``cwtm`` weighs the samples of one share, and sums are rounded in another order.
        start: Weights that the model has before its first step, from ``load_start``; None for initial ones by the seed.
    """

    architecture: dict[str, Any]
    recipe: Recipe
    seed: int
    data: DataSpec
    data_fingerprint: str
    space: ViewSpace
    num_views: int
    normalization: Normalization
    generation: int
    lineage: tuple[dict[str, Any], ...]
    cache_digest: str | None
    share_layers: ShareMode = "none"
    label_weight: float = 1.0
    ranks: int = 1
    own_loss: OwnLoss | None = None
    start: StartWeights | None = None

    def __post_init__(self) -> None:
        if (self.own_loss.name if self.own_loss else None) != own_name(self.recipe.loss):
            raise UsageError(
                f"loss '{self.recipe.loss}' is code, and was not named for this run",
                hint="name it with --loss, or choose another one, such as --loss ban-l",
            )
        if self.share_layers not in get_args(ShareMode):
            raise UsageError(
                f"layers are shared by {', '.join(get_args(ShareMode))}, not '{self.share_layers}'"
            )
        if not 0 < self.label_weight < math.inf or (self.label_weight != 1 and self.cache_digest):
            raise UsageError(
                f"label weight {self.label_weight:g} is not possible for this run",
                hint="give a positive weight, and only to a run without a teacher",
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels."""
        height, width = self.architecture["image_size"]
        return height, width

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values with the keys of a checkpoint's header."""
        return {
            "architecture": self.architecture,
            "recipe": self.recipe.to_dict(),
            "seed": self.seed,
            "data": self.data.to_dict(),
            "data_fingerprint": self.data_fingerprint,
            "view_space": self.space.to_dict(),
            "num_views": self.num_views,
            "normalisation": self.normalization.to_dict(),
            "cache": self.cache_digest,
            "share_ends": self.share_layers,
            "label_weight": self.label_weight,
            "ranks": self.ranks,
            "generation": self.generation,
            "lineage": list(self.lineage),
            **({} if self.own_loss is None else {"loss_source": self.own_loss.source}),
            **({} if self.start is None else {START: self.start.fingerprint}),
        }

    def require_same(self, stored: dict[str, Any], what: str) -> None:
        """Check that a stored header or state belongs to this run; ``what`` names it in the error."""
        require_same({START: None, **self.to_dict()}, stored, what)


def run_for_labels(
    architecture: dict[str, Any],
    recipe: Recipe,
    seed: int,
    spec: DataSpec,
    data: ImageSet,
    views: str,
    *,
    label_weight: float = 1.0,
    start: StartWeights | None = None,
) -> Run:
    """Return the settings for training on labels alone: generation 0, or a control.

    A whole run, with ``import torch`` and ``from bancache import DataSpec, Recipe, TrainerOptions, run_for_labels, train``:

        spec = DataSpec("digits")
        data, test = spec.open("train"), spec.open("test")
        run = run_for_labels(
            {"name": "convnet-16", "classes": 10, "channels": 1, "image_size": [8, 8]},
            Recipe(epochs=15, batch_size=64, lr=0.2, schedule="onecycle", weight_decay=5e-4),
            0, spec, data, "crop1",
        )
        print(train(run, data, test, TrainerOptions("gen0.pt", torch.device("cpu"))).checkpoint.header["test"])

    For a student, make the run with ``run_for_cache`` and pass the cache to both functions.

    Args:
        architecture: Arguments of ``build_model`` as JSON values: at least ``name``, ``classes``, ``channels`` and
            ``image_size`` ([height, width]).
        recipe: Hyper-parameters; the loss is always cross-entropy.
        seed: Decides initial weights, sample order, views and dropout.
        spec: How ``data`` was opened.
        data: Training images.
        views: Name of the view space, such as ``crop4-flip``. Each sample goes through all its views in turn.
        label_weight: Factor of the cross-entropy.
        start: Weights to go on from; the images are then normalized as those that they were trained on, if that is known.

    Raises:
        UsageError: No model or view space has this name, or the label weight is not positive.
    """
    statistics, space = data.statistics, ViewSpace.parse(views, seed=derive_seed(seed, "views"))
    known = start.input if start else None
    return Run(
        architecture=_canonical(architecture),
        recipe=recipe,
        seed=seed,
        data=spec,
        data_fingerprint=data.fingerprint,
        space=space,
        num_views=space.size,
        normalization=known.normalization if known else Normalization(statistics.mean, statistics.std),
        generation=0,
        lineage=(),
        cache_digest=None,
        label_weight=label_weight,
        start=start,
    )


def run_for_cache(
    architecture: dict[str, Any],
    recipe: Recipe,
    seed: int,
    spec: DataSpec,
    data: ImageSet,
    cache: Cache,
    *,
    share_layers: ShareMode = "none",
    own_loss: OwnLoss | None = None,
    start: StartWeights | None = None,
) -> Run:
    """Return the settings for training a student from a cache.

    Args:
        architecture: As for ``run_for_labels``; ``cache.manifest.teacher["architecture"]`` is the teacher's own.
        recipe: Hyper-parameters and the distillation loss.
        seed: Decides initial weights, sample order, dropout and permuted targets.
        spec: How ``data`` was opened.
        data: The training images of the cache.
        cache: Soft targets of the teacher; its views apply to the student, too.
        share_layers: Whether the student takes the teacher's first and last layer, and with them the normalization of its
            images, which the first layer was trained on.
        own_loss: What the recipe's loss names if it is ``module:function``, from ``load_loss``.
        start: Weights to go on from, as for ``run_for_labels``.

    Raises:
        MismatchError: The cache belongs to other images.
        UsageError: No model has this name, ``share_layers`` is not valid, or the recipe's loss is code and ``own_loss``
            is missing.
    """
    cache.require_dataset(data.fingerprint)
    if share_layers != "none" and "members" in cache.manifest.teacher:
        raise UsageError(
            "layers are shared with one teacher, not an ensemble", hint="add --share-layers none"
        )
    manifest, teacher, known = cache.manifest, cache.manifest.teacher, start.input if start else None
    usual = student_normalization(cache, data) if share_layers == "none" else teacher_normalization(cache)
    return Run(
        architecture=_canonical(architecture),
        recipe=recipe,
        seed=seed,
        data=spec,
        data_fingerprint=data.fingerprint,
        space=ViewSpace.from_dict(manifest.view_space),
        num_views=manifest.num_views,
        normalization=known.normalization if known else usual,
        generation=teacher["generation"] + 1,
        lineage=ancestors(cache, share_layers),
        cache_digest=cache.digest,
        share_layers=share_layers,
        own_loss=own_loss,
        start=start,
    )


def ancestors(cache: Cache, share_layers: ShareMode = "none") -> tuple[dict[str, Any], ...]:
    """Return the lineage of a cache's students: that of its teacher, and the teacher."""
    teacher = cache.manifest.teacher
    ancestor = {
        "generation": teacher["generation"],
        "model": model_name(teacher),
        "weights": teacher["fingerprint"],
        "accuracy": teacher.get("accuracy"),
        "cache": cache.digest,
        **({"members": [each["fingerprint"] for each in teacher["members"]]} if "members" in teacher else {}),
        **({} if share_layers == "none" else {"share_ends": share_layers}),
    }
    return (*teacher.get("lineage", ()), ancestor)


def _canonical(architecture: dict[str, Any]) -> dict[str, Any]:
    if "classes" not in architecture:
        raise UsageError(f"a student cannot be built like '{architecture['name']}'", hint="add --model NAME")
    return {**architecture, "name": canonical_name(architecture["name"])}
