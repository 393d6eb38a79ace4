"""What an encoding loses: KL(teacher ‖ decoded) of every entry written, kept as sums that can be merged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from bancache.encodings.base import Encoding

TEMPERATURES = (1.0, 2.0, 4.0)

# Divergences are counted in bins an eighth of an octave wide, so a quantile is known to nine per cent.
_BINS_PER_OCTAVE = 8
_LOWEST = -60 * _BINS_PER_OCTAVE  # 2^-60: nothing below it is distinguishable from zero

Tally = dict[str, Any]


def divergence(logits: torch.Tensor, decoded: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return KL(softmax(logits / T) ‖ decoded) in nats, float64 (B,), for float32 (B, C) arguments."""
    log_p = torch.log_softmax(logits.to(torch.float64) / temperature, dim=1)
    q = decoded.to(torch.float64).clamp(min=torch.finfo(torch.float32).tiny)
    log_q = torch.log(q / q.sum(dim=1, keepdim=True))
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).clamp(min=0)


def tally(encoding: Encoding, logits: torch.Tensor, fields: Mapping[str, torch.Tensor]) -> Tally:
    """Return counts, sums, maxima and histograms for one batch, as JSON values keyed by temperature.

    Args:
        encoding: The encoding that made ``fields``.
        logits: What the teacher said, float32 (B, C).
        fields: What is written for it.
    """
    result: Tally = {}
    best = logits.argmax(dim=1)
    for temperature in TEMPERATURES:
        decoded = encoding.probabilities(fields, temperature)
        kl = divergence(logits, decoded, temperature)
        octaves = torch.log2(kl.clamp(min=2.0**-70)).mul(_BINS_PER_OCTAVE).ceil().clamp(min=_LOWEST)
        bins, counts = torch.unique(octaves.to(torch.int64), return_counts=True)
        result[f"{temperature:g}"] = {
            "entries": len(kl),
            "agree": int((decoded.argmax(dim=1) == best).sum()),
            "kl_sum": float(kl.sum()),
            "kl_max": float(kl.max()),
            "bins": dict(zip((str(b) for b in bins.tolist()), counts.tolist(), strict=True)),
        }
    return result


def merge(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up; in the same order, the same sums to the last bit."""
    total: Tally = {}
    for one in tallies:
        for temperature, part in one.items():
            if temperature not in total:
                total[temperature] = {**part, "bins": dict(part["bins"])}
                continue
            into = total[temperature]
            into["entries"] += part["entries"]
            into["agree"] += part["agree"]
            into["kl_sum"] += part["kl_sum"]
            into["kl_max"] = max(into["kl_max"], part["kl_max"])
            for bin_, count in part["bins"].items():
                into["bins"][bin_] = into["bins"].get(bin_, 0) + count
    return total


def summarise(total: Tally) -> dict[str, dict[str, float]]:
    """Return ``kl_mean``, ``kl_p999``, ``kl_max`` (nats) and ``argmax_agreement`` for each temperature.

    ``kl_p999`` is the upper edge of the bin that holds the 99.9th percentile, so never too small.
    """
    return {
        temperature: {
            "kl_mean": part["kl_sum"] / part["entries"],
            "kl_p999": min(_quantile(part["bins"], part["entries"], 0.999), part["kl_max"]),
            "kl_max": part["kl_max"],
            "argmax_agreement": part["agree"] / part["entries"],
        }
        for temperature, part in total.items()
    }


def _quantile(bins: Mapping[str, int], entries: int, fraction: float) -> float:
    remaining = math.ceil(entries * fraction)
    for bin_ in sorted(bins, key=int):
        remaining -= bins[bin_]
        if remaining <= 0:
            return math.exp2(int(bin_) / _BINS_PER_OCTAVE)
    return 0.0
