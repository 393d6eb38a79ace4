"""ChangedTargets: soft targets of a cache that are changed when they are read, for the controls of a study.

A changed row depends on the cache, the seed, the sample and the view index alone: not on the batch, the order or the
number of processes.

    smooth0.1         the label's smoothed row, without the teacher: 1 - 0.1 + 0.1/C for the label, 0.1/C for each other
                      class (Szegedy et al., "Rethinking the Inception Architecture", 2016)
    max-uniform       the largest probability keeps its class, the others share the rest evenly
    permute-rest      the largest probability keeps its class, the others change places (as loss dkpp)
    shuffle-in-class  the row of another sample with the same label, in the same view index; each row is used once
    class-mean        the mean of all rows with the same label, in the same view index
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.encodings.changes import UNCHANGED, smoothing
from bancache.errors import UsageError
from bancache.loader.cache_targets import CacheTargets
from bancache.losses import permute_all_but_largest
from bancache.losses.device_keys import device_permutation_keys
from bancache.losses.weights import Codes
from bancache.philox import permutation
from bancache.views.record import Layout

_DOMAIN = 0x5AFE_0009
_ROWS = 1 << 12
_STEPS = float(1 << 40)  # a sum of integers is the same in any order


class ChangedTargets:
    """Targets of a cache after one of the changes above.

    All that a change needs of a view is computed when the view is begun, and stays in the same memory, so that a captured
    graph can read it.
    """

    def __init__(
        self, targets: CacheTargets, change: str, labels: NDArray[np.int64], classes: int, seed: int
    ) -> None:
        """Change ``targets`` of all samples, which have ``labels`` (N,), of ``classes`` classes."""
        self._targets, self._change, self._classes, self._seed = targets, change, classes, seed
        self._own, self._view_index = labels, -1
        near, far = targets.device, targets.decode_on
        self._labels = torch.tensor(labels, device=near)
        self._partners = torch.arange(len(labels), device=near)
        self._view = torch.zeros((), dtype=torch.int64, device=far)
        self._means = torch.zeros(classes if change == "class-mean" else 0, classes, device=far)

    def begin(self, view_index: int, following: int) -> None:
        """Make a view current; ``following`` is the view index that comes next."""
        self._targets.begin(view_index, following)
        if view_index == self._view_index:
            return
        self._view_index = view_index
        self._view.fill_(view_index)
        if self._change == "shuffle-in-class":
            self._partners.copy_(torch.from_numpy(partners(self._own, view_index, self._seed)))
        elif self._change == "class-mean":
            self._means.copy_(self._class_means())

    def probabilities(self, samples: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the changed probabilities of samples in the current view, float32 (B, classes)."""
        if self._change == "shuffle-in-class":
            return self._targets.probabilities(self._partners.index_select(0, samples), images)
        labels = self._labels.index_select(0, samples).to(self._view.device, non_blocking=True)
        if self._change == "class-mean":
            return self._means.index_select(0, labels)
        if (share := smoothing(self._change)) is not None:
            return smooth(labels, self._classes, share)
        rows = self._targets.probabilities(samples, images)
        if self._change == "max-uniform":
            return flatten_rest(rows)
        near = samples.to(self._view.device, non_blocking=True)
        keys = device_permutation_keys(self._seed, self._view, near, self._classes)
        return permute_all_but_largest(rows, keys)

    def codes(self) -> Codes | None:
        """Return None: the loss is given changed rows, and decodes none itself."""
        return None

    def logits(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return None: changed rows have no logits."""
        return None

    def hold(self) -> None:
        """Copy each view's targets into the same buffers from now on."""
        self._targets.hold()

    def _class_means(self) -> torch.Tensor:
        """Return the mean row of each label in the current view, float32 (classes, classes); zeros for unused labels."""
        sums = torch.zeros(self._classes, self._classes, dtype=torch.int64, device=self._view.device)
        for samples in torch.split(torch.arange(len(self._labels), device=self._labels.device), _ROWS):
            rows = self._targets.probabilities(samples, samples)
            labels = self._labels.index_select(0, samples).to(rows.device)
            sums.index_add_(0, labels, (rows.double() * _STEPS).round().long())
        counts = torch.bincount(self._labels, minlength=self._classes).to(sums.device)
        return (sums.double() / (counts.clamp(min=1)[:, None] * _STEPS)).float()


def require_changeable(change: str, layout: Layout) -> None:
    """Raise ``UsageError`` if a change needs the label of a view, and views have two."""
    if layout.mixed and change not in (UNCHANGED, "max-uniform", "permute-rest"):
        raise UsageError(
            f"targets '{change}' need one label for each view, and these views mix two pictures",
            hint="use --targets max-uniform or permute-rest, or a cache of views without mixup and CutMix",
        )


def smooth(labels: torch.Tensor, classes: int, share: float) -> torch.Tensor:
    """Return rows with ``share`` spread over all classes and the rest at the label, float32 (B, classes)."""
    rows = torch.full((len(labels), classes), share / classes, device=labels.device)
    return rows.scatter_(1, labels[:, None], 1 - share + share / classes)


def flatten_rest(rows: torch.Tensor) -> torch.Tensor:
    """Return rows (B, classes) whose largest value, the first of equal ones, is in place, and whose others are equal."""
    largest, best = rows.max(dim=1, keepdim=True)
    return ((1 - largest) / (rows.shape[1] - 1)).expand_as(rows).scatter(1, best, largest)


def partners(labels: NDArray[np.int64], view_index: int, seed: int) -> NDArray[np.int64]:
    """Return for each sample another one with the same label, int64 (N,), each once; itself if there is no other.

    The samples of a label are put in a random order of this view index, and each takes the next one, the last the first.
    """
    order = permutation(seed, view_index, len(labels), domain=_DOMAIN)
    grouped = order[np.argsort(labels[order], kind="stable")]
    _, starts, counts = np.unique(labels[grouped], return_index=True, return_counts=True)
    following = np.roll(grouped, -1)
    following[starts + counts - 1] = grouped[starts]
    found = np.empty_like(grouped)
    found[grouped] = following
    return found
