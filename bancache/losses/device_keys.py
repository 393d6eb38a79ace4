"""The keys of permuted targets, computed where the targets are, so that a captured graph can compute them."""

from __future__ import annotations

import torch

from bancache.losses import PERMUTATION_DOMAIN
from bancache.philox import MULTIPLIERS, WEYL, split_seed

_LOW = 0xFFFFFFFF


def device_permutation_keys(
    seed: int, epoch: torch.Tensor, samples: torch.Tensor, classes: int
) -> torch.Tensor:
    """Return the bits of ``permutation_keys``, int64 (B, classes), on the device of ``samples``, int64 (B,).

    ``epoch`` is an int64 scalar on that device. Nothing is read back from it.
    """
    index = torch.arange(classes, device=samples.device)
    word = _first_word(split_seed(seed), index[None], samples[:, None], epoch)
    return (word << 24) | index


def _first_word(key: tuple[int, int], c0: torch.Tensor, c1: torch.Tensor, c2: torch.Tensor) -> torch.Tensor:
    """Return the first word of ``philox`` for counters (c0, c1, c2, domain), each int64 below 2^32."""
    one, other = (int(multiplier) for multiplier in MULTIPLIERS)
    x0, x1, x2, x3 = c0, c1, c2, torch.full_like(c2, PERMUTATION_DOMAIN)
    for step in range(10):
        # Products wrap at 64 bits. Their upper half is right after the mask, though the shift copies the sign.
        p0, p1 = x0 * one, x2 * other
        k0, k1 = ((word + step * weyl) & _LOW for word, weyl in zip(key, WEYL, strict=True))
        x0, x1 = ((p1 >> 32) & _LOW) ^ x1 ^ k0, p1 & _LOW
        x2, x3 = ((p0 >> 32) & _LOW) ^ x3 ^ k1, p0 & _LOW
    return x0
