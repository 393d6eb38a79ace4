"""The root code's error on paper: what its formula expects and what its bound allows, derived in docs/encodings.md."""

from __future__ import annotations

from typing import Any

import torch

from bancache.encodings.fidelity import TEMPERATURES, divergence
from bancache.encodings.root import Root

_BLOCK = 1 << 16  # numbers worked on at a time: what a core's own cache holds


def expected(logits: torch.Tensor, code: Root, temperature: float) -> torch.Tensor:
    """Return the divergence that the formula expects of each entry, float64 (B,), for logits (B, C).

    s² / (24 (L − 1)²) · Σ p (1 − p) w^−2 over all classes but the largest, with s = r / T and w = (p / p_max)^(1/s).
    """
    p, w, exponent = _shape(logits, code, temperature)
    inside = torch.where(w < 1, p * (1 - p) * w.clamp(min=1e-12) ** -2, 0.0)
    # A class that is stored as 0 has lost no more than its own probability's worth.
    unseen = w < 0.5 / (code.levels - 1)
    return exponent**2 / (24 * (code.levels - 1) ** 2) * torch.where(unseen, 0.0, inside).sum(dim=1)


def bound(logits: torch.Tensor, code: Root, temperature: float) -> torch.Tensor:
    """Return the most that rounding can cost each entry, float64 (B,), for logits (B, C).

    p_max Σ max over ŵ = w ± h/2 of ŵ^s − w^s − s w^s log(ŵ / w), with h = 1 / (L − 1) and ŵ no less than h / 4.
    """
    p, w, exponent = _shape(logits, code, temperature)
    step = 1 / (code.levels - 1)
    ends = [(w - step / 2).clamp(min=step / 4), w + step / 2]
    true = w**exponent
    cost = [
        end**exponent
        - true
        - exponent * true * torch.log(end / w.clamp(min=1e-300)).where(w > 0, torch.zeros(()))
        for end in ends
    ]
    worst = torch.maximum(*cost)
    return p.amax(dim=1) * torch.where(w < 1, worst, 0.0).sum(dim=1)


def compare(answers: list[torch.Tensor], code: Root) -> list[dict[str, Any]]:
    """Return a line for each temperature: what was measured, expected and allowed, mean over all entries."""
    lines, rows = [], max(1, _BLOCK // code.classes)
    answers = [part for view_index in answers for part in torch.split(view_index, rows)]
    for temperature in TEMPERATURES:
        found, formula, allowed = [], [], []
        for logits in answers:
            decoded = code.probabilities(code.encode(logits), temperature)
            found.append(divergence(logits, decoded, temperature))
            formula.append(expected(logits, code, temperature))
            allowed.append(bound(logits, code, temperature))
        kl, limit = torch.cat(found), torch.cat(allowed)
        largest = torch.cat([torch.softmax(part / temperature, dim=1).amax(dim=1) for part in answers])
        lines.append(
            {
                "theory": code.name,
                "classes": code.classes,
                "temperature": temperature,
                "kl_mean": float(kl.mean()),
                "formula_mean": float(torch.cat(formula).mean()),
                "bound_mean": float(limit.mean()),
                "worst_share_of_bound": float((kl / limit.clamp(min=1e-12)).max()),
                "mean_max_probability": float(largest.mean()),
            }
        )
    return lines


def _shape(logits: torch.Tensor, code: Root, temperature: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return probabilities, their roots relative to the largest, float64 (B, C), and s."""
    exponent = code.root / temperature
    scaled = logits.double() / temperature
    p = torch.softmax(scaled, dim=1)
    return p, torch.exp((scaled - scaled.amax(dim=1, keepdim=True)) / exponent), exponent
