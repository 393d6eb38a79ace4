"""The rows of the paper's Tables 1 and 2 with their parameters and FLOPs, counted on the meta device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bancache.models.build import build_skeleton
from bancache.models.names import PAPER_ROWS


@dataclass(frozen=True)
class CatalogRow:
    """One model of the paper for 100 classes of 32x32 images in color.

    Attributes:
        name: Canonical name, as ``build_model`` takes it.
        parameters: All parameters.
        trainable: Parameters without the first and last layer that match models share, frozen, with their teacher.
        paper_millions: Millions of parameters that the paper prints.
        difference: Millions counted minus millions printed. Counted are ``trainable`` for match models of residual
            units, as in the paper, and ``parameters`` for the others.
        gflop: 10⁹ operations of a forward pass for one image: twice the multiply-adds of convolutions and linear layers.
        note: On the paper's figure; may be empty.
    """

    name: str
    parameters: int
    trainable: int
    paper_millions: float
    difference: float
    gflop: float
    note: str


def catalog() -> list[CatalogRow]:
    """Return every row of Tables 1 and 2, in the paper's order; it takes a few seconds."""
    return [_row(name) for name in PAPER_ROWS]


def _row(name: str) -> CatalogRow:
    """Build the model once on the meta device and count."""
    model = build_skeleton(name, classes=100)
    gflop = _gflop(model, torch.empty(1, 3, 32, 32, device="meta"))
    parameters = _count(model)
    shared = sum(_count(model.get_submodule(layer)) for layer in ("first_layer", "last_layer"))
    trainable = parameters - shared if name.startswith("match-") else parameters
    printed, note = PAPER_ROWS[name]
    compared = trainable if name.startswith(("match-wrn", "match-preresnet")) else parameters
    return CatalogRow(
        name, parameters, trainable, printed, round(compared / 1e6 - printed, 3), round(gflop, 4), note
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _gflop(model: nn.Module, image: Tensor) -> float:
    """Return 10⁹ operations of one forward pass, two per multiply-add; the hooks stay in the model."""
    multiply_adds: list[int] = []

    def note(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            multiply_adds.append(module.weight.numel() * (out[0, 0].numel() if out.dim() == 4 else 1))

    for module in model.modules():
        module.register_forward_hook(note)
        if isinstance(module, nn.BatchNorm2d):  # on the meta device it takes most of the time
            module.forward = lambda input: input  # type: ignore[method-assign]
    with torch.no_grad():
        model.eval()(image)
    return 2 * sum(multiply_adds) / 1e9
