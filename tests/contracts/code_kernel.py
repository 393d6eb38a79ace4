"""Rows of logits for the kernel that encodes and measures: usual ones, ties, extremes, and some that are not finite."""

from __future__ import annotations

import numpy as np
import torch
from contracts.interpreting import Arrays

from bancache.encodings.root import Root

CODES = {"root4": (4, 256), "root8": (8, 256), "root12": (12, 256), "root2-1024": (2, 1024)}
CASES = {f"{name} of {classes}": (name, classes) for name in CODES for classes in (10, 100, 1000)}
# Rows that are not finite come last.
FINITE, ROWS = 13, 16


def encoding(name: str, classes: int) -> Root:
    root, levels = CODES[name]
    return Root(classes, root=root, levels=levels)


def rows(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (ROWS, C) and labels (ROWS,); half of the labels are the largest class."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 3, (ROWS, classes)).astype(np.float32)
    logits[0, 3] += 60  # all mass on one class
    logits[1] = 0.5  # all equal
    logits[2, [4, 7]] = 20  # two largest
    logits[3] *= 1e4
    logits[4, 5] = 3e38
    logits[5] = np.float32(1e-3) * logits[5]
    logits[13, 1] = np.nan
    logits[14, [2, 6]] = -np.inf
    logits[15, 0] = np.inf
    labels = rng.integers(0, classes, ROWS)
    labels[::2] = logits[::2].argmax(axis=1)
    return torch.from_numpy(logits), torch.from_numpy(labels)


def run() -> Arrays:
    """Return the kernel's codes and figures for every case."""
    from bancache.encodings.triton_kernel import launch

    found: Arrays = {}
    with np.errstate(invalid="ignore"):
        for name, (code, classes) in CASES.items():
            fields, figures = launch(encoding(code, classes), *rows(classes))
            found[f"{name}: codes"], found[f"{name}: figures"] = fields["q"].numpy(), figures.numpy()
    return found
