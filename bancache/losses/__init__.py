"""The losses of born-again networks, and the fused loss of the training loop."""

from bancache.losses.functions import (
    ban,
    ban_l,
    cwtm,
    dkpp,
    kd,
    permutation_keys,
    permute_all_but_largest,
    soft_cross_entropy,
)
from bancache.losses.fused import distil
from bancache.losses.weights import LOSSES, Codes, LossWeights, check_loss

__all__ = [
    "LOSSES",
    "Codes",
    "LossWeights",
    "ban",
    "ban_l",
    "check_loss",
    "cwtm",
    "distil",
    "dkpp",
    "kd",
    "permutation_keys",
    "permute_all_but_largest",
    "soft_cross_entropy",
]
