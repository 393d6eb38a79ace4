"""The rows of the paper's Tables 1 and 2, counted: no weights are drawn and no image is seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bancache.models.build import build_model
from bancache.models.names import PAPER_NAMES

_THIRD = "has a third 1x1, inferred from the printed count"
_FITTED = "inner widths fitted: no sensible rule gives the printed counts"
# Millions as printed (the paper truncates), and what there is to say about them.
_PRINTED: dict[str, tuple[float, str]] = {
    "densenet-bc-112-33": (6.3, "also written 116-33; the printed count is that of depth 106"),
    "densenet-bc-90-60": (16.1, _THIRD),
    "densenet-bc-80-80": (22.4, _THIRD),
    "densenet-bc-80-120": (50.4, _THIRD),
    "preresnet-1001": (10.2, "the printed count leaves BatchNorm out"),
    "wrn-28-10": (36.0, ""),
    "wrn-28-20": (146.0, ""),
    "match-preresnet-14-0.5": (7.3, f"{_FITTED}; printed without shared ends"),
    "match-preresnet-14-1": (17.7, f"{_FITTED}; printed without shared ends"),
    "match-wrn-1-1": (20.9, "printed without shared ends"),
    "match-wrn-2-1": (43.1, "printed without shared ends"),
    "match-wrn-4-0.5": (24.3, "printed without shared ends"),
    "match-wrn-4-1": (87.3, "printed without shared ends"),
    "match-densenet-7-1-2": (21.2, ""),
    "match-densenet-14-0.5-1": (5.1, ""),
    "match-densenet-14-0.75-1.5": (10.1, ""),
    "match-densenet-14-1-3": (
        80.5,
        "cannot be reproduced: exactly twice the count, taken for a slip of the paper",
    ),
    "match-densenet-28-1-2": (13.7, ""),
    "match-densenet-42-1-2": (12.9, ""),
    "match-densenet-56-1-2": (12.6, ""),
}


@dataclass(frozen=True)
class CatalogRow:
    """One net of the paper for 100 classes of 32x32 images in color.

    Attributes:
        name: Canonical name, as ``build_model`` takes it.
        parameters: All parameters.
        trainable: Parameters that learn; match nets have the first and last layer of their teacher, frozen.
        paper_millions: What the paper prints.
        difference: Millions counted less millions printed; of ``trainable`` for the match nets of residual units, for
            which the paper prints that, of ``parameters`` for the others.
        gflop: Twice the multiply-adds of convolutions and linear layers, forward, for one image, in thousand millions.
        note: What to know about the paper's figure; may be empty.
    """

    name: str
    parameters: int
    trainable: int
    paper_millions: float
    difference: float
    gflop: float
    note: str


def catalog() -> list[CatalogRow]:
    """Every row of Tables 1 and 2, in the paper's order, in a few seconds."""
    return [_row(name) for name in PAPER_NAMES]


def _row(name: str) -> CatalogRow:
    """Build the net once on the meta device and count."""
    with torch.device("meta"):
        net = build_model(name, classes=100)
    gflop = _gflop(net, torch.empty(1, 3, 32, 32, device="meta"))
    parameters = _count(net)
    shared = sum(_count(net.get_submodule(end)) for end in ("first_layer", "last_layer"))
    trainable = parameters - shared if name.startswith("match-") else parameters
    printed, note = _PRINTED[name]
    compared = trainable if name.startswith(("match-wrn", "match-preresnet")) else parameters
    return CatalogRow(
        name, parameters, trainable, printed, round(compared / 1e6 - printed, 3), round(gflop, 4), note
    )


def _count(net: nn.Module) -> int:
    """Numbers that a net can learn."""
    return sum(parameter.numel() for parameter in net.parameters())


def _gflop(net: nn.Module, image: Tensor) -> float:
    """Twice the multiply-adds of one forward pass, in thousand millions; the hooks stay in the net."""
    multiply_adds: list[int] = []

    def note(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            multiply_adds.append(module.weight.numel() * (out[0, 0].numel() if out.dim() == 4 else 1))

    for module in net.modules():
        module.register_forward_hook(note)
    with torch.no_grad():
        net.eval()(image)
    return 2 * sum(multiply_adds) / 1e9
