"""Batch: the input of one training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.losses.weights import Codes, Labels, MixedLabels


@dataclass(frozen=True)
class Batch:
    """The input of one training step, on the loader's device.

    A batch unpacks like an item of a ``ViewDataset``: ``images, labels, targets, samples, views = batch``.

    Attributes:
        images: Normalized views, float32 (B, channels, H, W), channels_last; 16-bit floats if the renderer gives them.
        labels: int64 (B,); of mixed views ``MixedLabels``: both labels and the share of the view's own. The losses take
            either.
        targets: The teacher's probabilities for exactly these views, float32 (B, classes); None without a teacher.
        samples: Positions in the data set, int64 (B,), on the CPU; empty inside a captured CUDA graph.
        views: View ids, int64 (B,), on the CPU; empty likewise.
        rows: The samples again, as a tensor on the device where the batch was made.
        codes: The encoded targets of all samples, for a loss that decodes them itself; ``targets`` is then None.
        stored_logits: ``logits``, or None if the encoding keeps none.
    """

    images: torch.Tensor
    labels: Labels
    targets: torch.Tensor | None
    samples: NDArray[np.int64]
    views: NDArray[np.int64]
    rows: torch.Tensor | None = None
    codes: Codes | None = None
    stored_logits: torch.Tensor | None = None

    @property
    def logits(self) -> torch.Tensor:
        """The teacher's logits for exactly these views, float32 (B, classes).

        Encoding ``float32`` keeps them as they were, ``float16-shift`` to float16's precision. The others keep what a
        softmax makes of them, and changed targets have none: that is a UsageError.
        """
        if self.stored_logits is None:
            raise UsageError(
                "there are no logits: the encoding keeps only what a softmax makes of them, or targets are changed",
                hint="use batch.targets, or dump with --encoding float32 or float16-shift",
            )
        return self.stored_logits

    @property
    def partner_labels(self) -> torch.Tensor | None:
        """The labels of the views that are mixed in, int64 (B,); None if there are none."""
        return self.labels.partner if isinstance(self.labels, MixedLabels) else None

    @property
    def lam(self) -> torch.Tensor | None:
        """The share of each view's own label, float32 (B,); None if views are not mixed."""
        return self.labels.lam if isinstance(self.labels, MixedLabels) else None

    def __iter__(self) -> Iterator[Any]:
        """Yield images, labels, targets, samples and views."""
        return iter((self.images, self.labels, self.targets, self.samples, self.views))
