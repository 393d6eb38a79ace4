"""The losses of born-again networks, and the fused kernel that training uses."""

from bancache.losses.reference import (
    LOSSES,
    ban,
    ban_l,
    check_loss,
    cwtm,
    dkpp,
    kd,
    permutation_keys,
    permute_all_but_largest,
    soft_cross_entropy,
)

__all__ = [
    "LOSSES",
    "ban",
    "ban_l",
    "check_loss",
    "cwtm",
    "dkpp",
    "kd",
    "permutation_keys",
    "permute_all_but_largest",
    "soft_cross_entropy",
]
