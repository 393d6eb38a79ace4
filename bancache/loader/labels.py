"""The labels of a batch: one for each view, or two and their shares where views are mixed."""

from __future__ import annotations

import torch

from bancache.losses.weights import Labels, MixedLabels
from bancache.views.record import LAMBDA, WHOLE, Layout


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


def own_share(records: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return the share of each view's own label, float32 (B,): of the pixels with a cut, else of the blend.

    ``records`` are int32 (B, columns), on any device; nothing is read back from it.
    """
    height, width = records[:, layout.cut][:, 2:].long().unbind(1)
    cut = height * width
    seen = (WHOLE * WHOLE - cut).float() / (WHOLE * WHOLE)
    return seen.where(cut > 0, records[:, layout.share].float() / LAMBDA)


def moved(labels: Labels, device: torch.device) -> Labels:
    """Return labels on a device."""
    if isinstance(labels, MixedLabels):
        return MixedLabels(*(part.to(device, non_blocking=True) for part in labels))
    return labels.to(device, non_blocking=True)
