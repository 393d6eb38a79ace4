"""The compiled loops give the bytes and floats of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.operating import SHAPES, finished, views_and_operations

from bancache.views import torch_operations

pytest.importorskip("numba", reason="the loops are compiled by numba")
from bancache.views import numba_operations


@pytest.mark.parametrize("kind", SHAPES)
def test_operations_give_torchs_bytes(kind: str) -> None:
    views, drawn = views_and_operations(kind, slots=2)
    expected = torch_operations.apply(torch.from_numpy(views), torch.from_numpy(drawn)).numpy()
    scratch = np.empty_like(views[0])
    # Numbers of the records' type: for Python's, numba would compile all of it again.
    for view, row in zip(views, drawn, strict=True):
        for slot in (0, 2):
            numba_operations.apply_one(view, scratch, row[slot], row[slot + 1])
    np.testing.assert_array_equal(views, expected)


@pytest.mark.parametrize("kind", SHAPES)
def test_erased_mixed_and_normalized_views_are_torchs(kind: str) -> None:
    case = finished(kind)
    tensors = {name: torch.from_numpy(part) for name, part in vars(case).items()}
    erased = torch_operations.erase(tensors["views"], tensors["boxes"], tensors["fill"])
    mixed = torch_operations.mix(erased, tensors["partners"], tensors["share"], tensors["cut"])
    floats = (mixed.float() - tensors["mean"]) * tensors["scale"]
    for at, view in enumerate(case.views.copy()):
        numba_operations.erase_one(view, *[*case.boxes[at].tolist(), int(case.fill[at])])
        np.testing.assert_array_equal(view, erased[at])
        numba_operations.mix_one(view, case.partners[at], int(case.share[at]), *case.cut[at].tolist())
        np.testing.assert_array_equal(view, mixed[at])
        out = np.empty(view.shape, np.float32)
        numba_operations.normalize_one(view, case.mean, case.scale, out)
        np.testing.assert_array_equal(out.view(np.int32), floats[at].numpy().view(np.int32))
