"""The quantization error of every (sample, view) pair written, as sums that can be merged.

There are two figures at each of three temperatures. One is the divergence KL(p ‖ p̂) of the teacher's distribution p
from the decoded p̂. The other is the error of a student's gradient: the soft cross-entropy has the gradient s − p at
the student's logits, so an encoding changes it by p − p̂. It is relative to the gradient of an untrained student,
s = 1 / C: that is the same for every cache, and the largest gradient in training.

The figures are computed in float32 and are exact to a fraction of a percent: with δ = log p̂ − log p,

    KL(p ‖ p̂) = Σ p (e^δ − 1 − δ)        since both sum to 1,

has no negative term, so nothing cancels, and the rounding error of δ enters squared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.encodings import Encoding

TEMPERATURES = (1.0, 2.0, 4.0)
FIGURES = 4 * len(TEMPERATURES)
# With those of ``measuring``: whether the top class is right, the largest probability, non-finite logits.
MEASURED = FIGURES + 3

# Divergences are counted in bins of an eighth of an octave, so a quantile is known to nine percent.
_BINS_PER_OCTAVE = 8
_LOWEST = -60 * _BINS_PER_OCTAVE  # 2^-60 nats and less count as zero

# Below this δ the series of e^δ − 1 − δ is exact to float32, above it the difference is.
SERIES_TO = 0.25

# Numbers per block. On a CPU blocks in a core's own cache halve the time for a thousand classes; a GPU is kept busy by
# large ones, which bound the memory that they take.
_BLOCK = {"cpu": 1 << 16, "cuda": 1 << 23}

Tally = dict[str, Any]


def divergence(logits: torch.Tensor, decoded: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return KL(softmax(logits / T) ‖ decoded) in nats, float64 (B,), for float32 (B, C) arguments.

    The slow reference of ``tally``; ``tests/encodings/test_fidelity.py`` compares them.
    """
    log_p = torch.log_softmax(logits.to(torch.float64) / temperature, dim=1)
    q = decoded.to(torch.float64).clamp(min=torch.finfo(torch.float32).tiny)
    log_q = torch.log(q / q.sum(dim=1, keepdim=True))
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).clamp(min=0)


def tally(encoding: Encoding, logits: torch.Tensor, fields: Mapping[str, torch.Tensor]) -> Tally:
    """Return counts, sums, maxima and histograms of logits (B, C) and their fields, as JSON values by temperature."""
    return count(measure(encoding, logits, fields).cpu().numpy())


def measure(encoding: Encoding, logits: torch.Tensor, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return ``FIGURES`` numbers for each row, float32 (B, FIGURES), on the device; arguments as ``tally``."""
    rows, parts = rows_at_once(logits.shape[1], logits.device.type), []
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        stored = {name: values[part] for name, values in fields.items()}
        parts.append(_measure(encoding, logits[part], stored))
    return torch.cat(parts)


def rows_at_once(classes: int, device_type: str = "cpu") -> int:
    """Return how many rows are measured together."""
    return max(1, _BLOCK[device_type] // classes)


def count(figures: NDArray[Any]) -> Tally:
    """Return the tally of measured figures (B, FIGURES)."""
    each = figures.astype(np.float64).reshape(-1, len(TEMPERATURES), 4)
    return {f"{temperature:g}": _count(each[:, i]) for i, temperature in enumerate(reversed(TEMPERATURES))}


def merge(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up; the same order gives the same bits. A figure that an older version did not write is left out."""
    total: Tally = {}
    for one in tallies:
        for temperature, part in one.items():
            before = total.get(temperature)
            total[temperature] = _added(before, part) if before else {**part, "bins": dict(part["bins"])}
    return total


def summarize(total: Tally) -> dict[str, dict[str, float]]:
    """Return ``kl_mean``, ``kl_p999``, ``kl_max`` (nats), ``argmax_agreement`` and ``gradient_error`` by temperature.

    ``kl_p999`` is the upper edge of the bin that holds the 99.9th percentile, so never too small.
    ``gradient_error`` is √(Σ‖p̂ − p‖² / Σ‖1/C − p‖²) over all rows, the error of a gradient relative to its length.
    Below 10⁻⁶ it is float32 rounding.
    """
    return {temperature: _figures(part) for temperature, part in total.items()}


def _measure(encoding: Encoding, logits: torch.Tensor, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return divergence, agreement, ‖p̂ − p‖² and ‖1/C − p‖² at falling temperatures: float32 (B, FIGURES)."""
    best, figures = logits.argmax(dim=1), []
    for temperature, log_p, p in _softened(logits):
        decoded = encoding.probabilities(fields, temperature)
        agree = (decoded.argmax(dim=1) == best).to(torch.float32)
        wrong, scale = (decoded - p).square_().sum(dim=1), p.square().sum(dim=1).sub_(1 / p.shape[1])
        figures += [_divergence(log_p, p, decoded), agree, wrong, scale.clamp_(min=0)]
    return torch.stack(figures, dim=1)


def _softened(logits: torch.Tensor) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
    """Yield T, log softmax and softmax of logits / T, float32 (B, C), for T = 4, 2, 1, each from the former's square."""
    relative = logits - logits.amax(dim=1, keepdim=True)
    weights = torch.exp(relative / TEMPERATURES[-1])
    for temperature in reversed(TEMPERATURES):
        total = weights.sum(dim=1, keepdim=True)
        yield temperature, (relative / temperature).sub_(total.log()), weights / total
        weights.square_()


def _divergence(log_p: torch.Tensor, p: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Return KL(p ‖ decoded) in nats, float32 (B,)."""
    delta = decoded.clamp(min=torch.finfo(torch.float32).tiny).log_().sub_(log_p)
    series = delta.mul(1 / 120).add_(1 / 24).mul_(delta).add_(1 / 6).mul_(delta).add_(1 / 2)
    series.mul_(delta).mul_(delta).mul_(p)
    far = (decoded - p).addcmul_(p, delta, value=-1)
    return torch.where(delta.abs() < SERIES_TO, series, far).sum(dim=1)


def _count(figures: NDArray[np.float64]) -> dict[str, Any]:
    """Return the sums of one temperature's figures (B, 4)."""
    kl, agree, wrong, scale = figures.T
    octaves = np.ceil(np.log2(np.maximum(kl, 2.0**-70)) * _BINS_PER_OCTAVE)
    bins, counts = np.unique(np.maximum(octaves, _LOWEST).astype(np.int64), return_counts=True)
    return {
        "entries": len(kl),
        "agree": int(agree.sum()),
        "kl_sum": float(kl.sum()),
        "kl_max": float(kl.max()),
        "gradient_wrong": float(wrong.sum()),
        "gradient_scale": float(scale.sum()),
        "bins": dict(zip((str(b) for b in bins.tolist()), counts.tolist(), strict=True)),
    }


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: one[key] + other[key] for key in one.keys() & other.keys() - {"bins", "kl_max"}}
    bins = Counter(one["bins"]) + Counter(other["bins"])
    return {**result, "kl_max": max(one["kl_max"], other["kl_max"]), "bins": dict(bins)}


def _figures(part: Mapping[str, Any]) -> dict[str, float]:
    found = {
        "kl_mean": part["kl_sum"] / part["entries"],
        "kl_p999": min(_quantile(part["bins"], part["entries"], 0.999), part["kl_max"]),
        "kl_max": part["kl_max"],
        "argmax_agreement": part["agree"] / part["entries"],
    }
    if "gradient_wrong" in part:
        scale = part["gradient_scale"]
        found["gradient_error"] = math.sqrt(part["gradient_wrong"] / scale) if scale else 0.0
    return found


def _quantile(bins: Mapping[str, int], entries: int, fraction: float) -> float:
    remaining = math.ceil(entries * fraction)
    for bin_ in sorted(bins, key=int):
        remaining -= bins[bin_]
        if remaining <= 0:
            return math.exp2(int(bin_) / _BINS_PER_OCTAVE)
    return 0.0
