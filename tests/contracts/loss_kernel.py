"""A few rows of logits with targets of every kind that the loss kernel knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from contracts.interpreting import Arrays

from bancache.losses.weights import Codes, Labels, LossWeights, MixedLabels, Targets

ROWS, SAMPLES = 3, 7
BAN, BAN_L = LossWeights(0.0, 1.0), LossWeights(1.0, 1.0)
KD4, KD3 = LossWeights(0.1, 0.9 * 16, 4.0, divergence=True), LossWeights(0.5, 0.5 * 9, 3.0, divergence=True)


@dataclass(frozen=True)
class Kind:
    """A loss and the encoding of its targets; root 0 means probabilities."""

    weights: LossWeights
    root: int = 0
    levels: int = 256
    mixed: bool = False


CASES = {
    f"{name} of {classes}": (kind, classes)
    for name, kind in {
        "ban-l root4": Kind(BAN_L, 4),
        "ban root2-1024": Kind(BAN, 2, 1024),
        "kd root8 at 4": Kind(KD4, 8),
        "kd root8 at 3": Kind(KD3, 8),
        "ban-l dense": Kind(BAN_L),
        "kd dense": Kind(KD4),
        "ban-l mixed root4": Kind(BAN_L, 4, mixed=True),
        "kd mixed root8 at 4": Kind(KD4, 8, mixed=True),
        "kd mixed dense": Kind(KD4, mixed=True),
    }.items()
    for classes in (10, 100, 1000)
}


@dataclass(frozen=True)
class Case:
    """A batch: logits (B, C), targets, samples (B,), labels, and the loss's weights."""

    logits: torch.Tensor
    targets: Targets
    samples: torch.Tensor
    labels: Labels
    weights: LossWeights

    def to(self, device: str) -> Case:
        targets = self.targets
        moved = (
            Codes(targets.q.to(device), targets.root, targets.levels, targets.zero)
            if isinstance(targets, Codes)
            else targets.to(device)
        )
        labels = self.labels
        there = (
            MixedLabels(*(part.to(device) for part in labels))
            if isinstance(labels, MixedLabels)
            else labels.to(device)
        )
        return Case(self.logits.to(device), moved, self.samples.to(device), there, self.weights)


def case(name: str) -> Case:
    """Return a batch whose teacher is confident, as converged teachers are; one row has all its mass on one class."""
    kind, classes = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    teacher = rng.normal(0, 3, (SAMPLES, classes))
    teacher[0, 3] += 60
    share = np.exp(teacher - teacher.max(1, keepdims=True))
    targets: Targets
    if kind.root:
        steps = np.rint(share ** (1 / kind.root) * (kind.levels - 1))
        dtype = np.uint8 if kind.levels <= 256 else np.int16
        targets = Codes(torch.from_numpy(steps.astype(dtype)), kind.root, kind.levels, 0.25)
    else:
        share[0] = np.arange(classes) == 3
        probabilities = share[:ROWS] / share[:ROWS].sum(1, keepdims=True)
        targets = torch.from_numpy(probabilities.astype(np.float32))
    samples = rng.permutation(SAMPLES)[:ROWS]
    samples[0] = 0
    logits = torch.from_numpy(rng.normal(0, 4, (ROWS, classes)).astype(np.float32))
    own = torch.from_numpy(rng.integers(0, classes, ROWS))
    labels: Labels = own
    if kind.mixed:  # the first row's two labels are one
        partner = torch.from_numpy(rng.integers(0, classes, ROWS))
        partner[0] = own[0]
        labels = MixedLabels(own, partner, torch.tensor([0.7, 0.0, 0.3], dtype=torch.float32))
    return Case(logits, targets, torch.from_numpy(samples), labels, kind.weights)


def run() -> Arrays:
    """Return the kernel's losses and gradient for every case."""
    from bancache.losses.triton_kernel import launch

    found: Arrays = {}
    for name in CASES:
        given = case(name)
        losses, gradient = launch(given.logits, given.targets, given.samples, given.labels, given.weights)
        found[f"{name}: losses"], found[f"{name}: gradient"] = losses.numpy(), gradient.numpy()
    return found
