"""The labels of a batch: one for each view, or two and their shares where views are mixed."""

from __future__ import annotations

import torch

from bancache.losses.weights import Labels, MixedLabels
from bancache.views.mixing import own_share
from bancache.views.record import Layout


def labels_of(labels: torch.Tensor, samples: torch.Tensor, rows: torch.Tensor, layout: Layout) -> Labels:
    """Return the labels of views, on the device of the arguments, without reading a value back from it.

    Args:
        labels: Those of all samples, int64 (N,).
        samples: int64 (B,).
        rows: What the renderer wants to know of each view: records, int32 (B, columns), if the views are mixed.
        layout: The columns of a record.
    """
    own = labels.index_select(0, samples)
    if not layout.mixed:
        return own
    partner = labels.index_select(0, rows[:, layout.partner])
    return MixedLabels(own, partner, own_share(rows, layout))


def moved(labels: Labels, device: torch.device) -> Labels:
    """Return labels on a device."""
    if isinstance(labels, MixedLabels):
        return MixedLabels(*(part.to(device, non_blocking=True) for part in labels))
    return labels.to(device, non_blocking=True)
