"""Encode rows of logits and measure them: by one kernel on a GPU where there is one for the encoding, else by torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import torch

from bancache.encodings import Encoding
from bancache.encodings.fidelity import measure
from bancache.encodings.root import Root


def encode_and_measure(
    encoding: Encoding, logits: torch.Tensor, labels: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the fields of logits float32 (B, C), and ``all_figures`` of them, without waiting for a GPU."""
    if logits.is_cuda and isinstance(encoding, Root) and find_spec("triton") is not None:
        from bancache.encodings.triton_kernel import MAX_CLASSES, launch

        if logits.shape[1] <= MAX_CLASSES:
            return launch(encoding, logits.contiguous(), labels)
    fields = encoding.encode(logits)
    return fields, all_figures(encoding, logits, fields, labels)


def all_figures(
    encoding: Encoding, logits: torch.Tensor, fields: Mapping[str, torch.Tensor], labels: torch.Tensor
) -> torch.Tensor:
    """Return ``MEASURED`` numbers for each row, float64 (B, MEASURED); arguments as ``tally``, labels (B,)."""
    right = (logits.argmax(dim=1) == labels).double()
    confidence = torch.softmax(logits.double(), dim=1).amax(dim=1)
    more = torch.stack([right, confidence, non_finite(logits).double()], dim=1)
    return torch.cat([measure(encoding, logits, fields).double(), more], dim=1)


def non_finite(logits: torch.Tensor) -> torch.Tensor:
    """Return the number of NaN or infinite logits in each row, int64 (B,)."""
    return torch.isfinite(logits).logical_not_().sum(dim=1)
