"""Run: everything that decides what a training run ends with, so that it can be named, resumed and repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from bancache.cache.reader import Cache
from bancache.errors import MismatchError, UsageError
from bancache.models import canonical_name
from bancache.models.share_layers import ShareMode
from bancache.philox import derive_seed
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import configs
from bancache.system.fingerprint import short
from bancache.training.recipe import Recipe
from bancache.views.renderer import Normalization
from bancache.views.space import ViewSpace

# What settings were in files that are older than the settings.
_BEFORE = {"share_ends": "none", "label_weight": 1.0, "ranks": 1}


@dataclass(frozen=True)
class Run:
    """One training run as values.

    Attributes:
        architecture: Name and arguments of the net.
        recipe: Hyper-parameters.
        seed: Decides initial weights, order of samples, dropout and permuted targets.
        data: How to open the data.
        data_fingerprint: Its content and order.
        space: The views that the net is shown.
        num_views: How many of them each sample has.
        normalization: Of the pixels.
        generation: 0 when taught by labels, else one more than the teacher's.
        lineage: The ancestors, generation 0 first: ``generation``, ``model``, ``weights``, ``accuracy``, and
            the digest of the ``cache`` through which each taught the next; ``share_ends`` where it gave its ends.
        cache_digest: Of the cache it is taught from; None for generation 0.
        share_ends: Whether the first and last layer are the teacher's: ``copy`` (they learn on), ``freeze`` or ``none``.

        label_weight: What the cross-entropy with the labels is multiplied by where they alone teach. 2 is the
            control of loss ``ban-l``: a sum of two cross-entropies has twice the gradient beside one weight decay.
        ranks: How many processes share every batch. BatchNorm sees one share at a time, and sums are rounded in another
            order, so it decides weights too.

    Raises:
        UsageError: The ends cannot be shared so, or the weight makes no sense.
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
    share_ends: ShareMode = "none"
    label_weight: float = 1.0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.share_ends not in get_args(ShareMode):
            raise UsageError(f"ends are shared by {', '.join(get_args(ShareMode))}, not '{self.share_ends}'")
        if not 0 < self.label_weight < math.inf or (self.label_weight != 1 and self.cache_digest):
            raise UsageError(
                f"labels weighted {self.label_weight:g} teach nothing here",
                hint="give a positive weight, and only to a run without a teacher",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, in the words of a checkpoint's header."""
        return {
            "architecture": self.architecture,
            "recipe": configs.to_dict(self.recipe),
            "seed": self.seed,
            "data": self.data.to_dict(),
            "data_fingerprint": self.data_fingerprint,
            "view_space": self.space.to_dict(),
            "num_views": self.num_views,
            "normalisation": self.normalization.to_dict(),
            "cache": self.cache_digest,
            "share_ends": self.share_ends,
            "label_weight": self.label_weight,
            "ranks": self.ranks,
            "generation": self.generation,
            "lineage": list(self.lineage),
        }

    def require_same(self, stored: dict[str, Any], what: str) -> None:
        """Refuse to go on with the work of another run.

        Raises:
            MismatchError: Naming the first setting that differs, with both values.
        """
        for key, now in self.to_dict().items():
            before = stored.get(key, _BEFORE.get(key))
            if (
                key == "data" or before == now
            ):  # where the data lies decides nothing, what it is has its own key
                continue
            if isinstance(before, dict) and isinstance(now, dict):
                changed = next(name for name in {**before, **now} if before.get(name) != now.get(name))
                key, before, now = f"{key}'s {changed}", before.get(changed), now.get(changed)
            raise MismatchError.between(
                f"{what}: {key.replace('_', ' ')}",
                stored=_shown(before),
                given=_shown(now),
                hint="use the same settings, another --out, or --overwrite to start anew",
            )


def run_for_labels(
    architecture: dict[str, Any],
    recipe: Recipe,
    seed: int,
    spec: DataSpec,
    data: ImageSet,
    views: str,
    *,
    label_weight: float = 1.0,
) -> Run:
    """Return the run of a generation 0: labels alone, every view of the space in turn."""
    space = ViewSpace.parse(views, seed=derive_seed(seed, "views"))
    statistics = data.statistics
    return Run(
        architecture=_canonical(architecture),
        recipe=recipe,
        seed=seed,
        data=spec,
        data_fingerprint=data.fingerprint,
        space=space,
        num_views=space.size,
        normalization=Normalization(statistics.mean, statistics.std),
        generation=0,
        lineage=(),
        cache_digest=None,
        label_weight=label_weight,
    )


def run_for_cache(
    architecture: dict[str, Any],
    recipe: Recipe,
    seed: int,
    spec: DataSpec,
    data: ImageSet,
    cache: Cache,
    *,
    share_ends: ShareMode = "none",
) -> Run:
    """Return the run of a student, bound to its cache.

    Raises:
        MismatchError: The data set is not the cache's.
        UsageError: No net is called so, or the ends cannot be shared so.
    """
    cache.require_dataset(data.fingerprint)
    manifest, teacher = cache.manifest, cache.manifest.teacher
    ancestor = {
        "generation": teacher["generation"],
        "model": teacher["architecture"]["name"],
        "weights": teacher["fingerprint"],
        "accuracy": teacher.get("accuracy"),
        "cache": cache.digest,
        **({} if share_ends == "none" else {"share_ends": share_ends}),
    }
    return Run(
        architecture=_canonical(architecture),
        recipe=recipe,
        seed=seed,
        data=spec,
        data_fingerprint=data.fingerprint,
        space=ViewSpace.from_dict(manifest.view_space),
        num_views=manifest.num_views,
        normalization=Normalization.from_dict(manifest.pixels["normalisation"]),
        generation=teacher["generation"] + 1,
        lineage=(*teacher["lineage"], ancestor),
        cache_digest=cache.digest,
        share_ends=share_ends,
    )


def _canonical(architecture: dict[str, Any]) -> dict[str, Any]:
    if "classes" not in architecture:
        raise UsageError(f"a student cannot be built like '{architecture['name']}'", hint="add --model NAME")
    return {**architecture, "name": canonical_name(architecture["name"])}


def _shown(value: Any) -> str:
    return f"'{short(value)}'" if isinstance(value, str) and len(value) == 64 else f"{value}"
