"""What the kernels for operations give where Triton interprets them."""

from __future__ import annotations

import numpy as np
import torch
from contracts.interpreting import Arrays
from contracts.operating import SHAPES, Integers, Pixels, finished, views_and_operations

from bancache.views.operations import AUTOCONTRAST, COLOR, CONTRAST, EQUALIZE, ROTATE, SHARPNESS

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


def some(kind: str) -> tuple[Pixels, Integers]:
    """Return a part of the batch, with all operations, since the interpreter is slow."""
    views, drawn = views_and_operations(kind, slots=2)
    return np.ascontiguousarray(views[::5]), drawn[::5]


def few(kind: str) -> dict[str, torch.Tensor]:
    """Return some of the views that are finished, with their partners and boxes."""
    return {name: torch.from_numpy(part[:8]) for name, part in vars(finished(kind)).items()}


def large() -> tuple[Pixels, Integers]:
    """Return views of several blocks: operations that look at all pixels, at neighbors, and elsewhere."""
    views = np.random.default_rng(4).integers(0, 256, (6, 40, 33, 3), np.uint8) // 3 + 20
    rows = [(AUTOCONTRAST, 0), (EQUALIZE, 0), (CONTRAST, 440), (SHARPNESS, 500), (ROTATE, 54), (COLOR, 100)]
    return views.astype(np.uint8), np.array(rows, np.int32)


def shown(device: str) -> Arrays:
    """Return what the kernels give for the batches of ``contracts.operating``, as arrays of bits."""
    from bancache.views import triton_operations as kernels

    views, drawn = (torch.from_numpy(part).to(device) for part in large())
    found: Arrays = {"large": kernels.apply(views, drawn).cpu().numpy()}
    for kind in SHAPES:
        views, drawn = (torch.from_numpy(part).to(device) for part in some(kind))
        found[f"{kind} operations"] = kernels.apply(views, drawn).cpu().numpy()
        case = {name: part.to(device) for name, part in few(kind).items()}
        columns = ("boxes", "fill", "partner_boxes", "partner_fill", "share", "cut")
        record = torch.cat([case[name].view(len(case["views"]), -1) for name in columns], dim=1)
        mixing = case["partners"], record[:, 5:10], record[:, 10:]
        numbers = case["mean"].tolist(), case["scale"].tolist()
        for dtype in DTYPES:
            views = kernels.finish(case["views"], record[:, :5], mixing, *numbers, dtype)
            found[f"{kind} {dtype}"] = bits(views)
        erased = kernels.finish(case["views"], record[:, :5], None, *numbers, torch.uint8)
        found[f"{kind} erased"] = bits(erased)
    return found


def run() -> Arrays:
    return shown("cpu")


def bits(views: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the bytes of views (B, C, H, W) in the order (B, H, W, C)."""
    return views.permute(0, 2, 3, 1).contiguous().view(torch.uint8).cpu().numpy()
