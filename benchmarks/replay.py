"""Is every view the same, whoever renders it? Random addresses with everything on, by torch, by numba and through Triton's interpreter.

Triton's interpreter takes a tenth of a second a view, so ten thousand are done in several runs that follow one another: `--first`. Each
line counts the addresses of one view space, the bytes that differ from torch's, and how often each operation and each kind of
box occurred: what never occurred would prove nothing. This does not measure speed.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ["TRITON_INTERPRET"] = "1"  # decided before triton is imported
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contracts.rendering import EVERYTHING, SIZE, addresses, opened

from bancache.views.numba_renderer import NumbaRenderer
from bancache.views.operations import OPERATIONS
from bancache.views.record import FLIP, HEIGHT, LAMBDA, LEFT, TOP, WIDTH
from bancache.views.record_renderer import RecordRenderer
from bancache.views.triton_record_renderer import TritonRecordRenderer
from benchmarks.harness import arguments, report

_BATCH = 250


def occurred(renderer: RecordRenderer, samples: NDArray[np.int64], rows: NDArray[np.int32]) -> Counter[str]:
    """Return how many views of a batch have each operation, each kind of box and each kind of mixing."""
    layout, sizes = renderer.space.layout, renderer.pictures.sizes
    top, left, height, width = (rows[:, column] for column in (TOP, LEFT, HEIGHT, WIDTH))
    heights, widths = sizes.heights[samples], sizes.widths[samples]
    share, cut = (rows[:, layout.share], rows[:, layout.cut]) if layout.mixed else (top + LAMBDA, None)
    boxes = {
        "mirrored": rows[:, FLIP] != 0,
        "at an edge": (top == 0) | (left == 0) | (top + height == heights) | (left + width == widths),
        "outside": (top < 0) | (left < 0) | (top + height > heights) | (left + width > widths),
        "enlarged": (height < SIZE[0]) | (width < SIZE[1]),
        "reduced": (height > SIZE[0]) | (width > SIZE[1]),
        "of one pixel's width": (height == 1) | (width == 1),
        "erased": rows[:, layout.erased][:, 2] > 0,
        "blended": np.zeros(len(rows), bool) if cut is None else (share != LAMBDA) & (cut[:, 2] == 0),
        "cut": np.zeros(len(rows), bool) if cut is None else cut[:, 2] > 0,
    }
    count = Counter({name: int(found.sum()) for name, found in boxes.items()})
    numbers = rows[:, layout.operations][:, ::2]
    for number, name in enumerate(OPERATIONS):
        count[name] = int((numbers == number).any(axis=1).sum())
    return count


def compared(name: str, first: int, count: int) -> dict[str, Any]:
    """Return the line of some addresses of one view space."""
    torchs, *others = (opened(kind, name) for kind in (RecordRenderer, NumbaRenderer, TritonRecordRenderer))
    every, ids = (part[first:] for part in addresses(name, first + count))
    differing, seen = [0, 0], Counter[str]()
    for start in range(0, count, _BATCH):
        part = slice(start, start + _BATCH)
        samples, rows = torchs.to_device(every[part], ids[part])
        seen += occurred(torchs, every[part], rows.numpy())
        pixels = torchs.pixels(samples, rows)
        for place, renderer in enumerate(others):
            differing[place] += int((renderer.pixels(samples, rows) != pixels).sum())
    numbas, tritons = differing
    return {
        "views": name,
        "first": first,
        "addresses": count,
        "size": f"{SIZE[0]} x {SIZE[1]}",
        "bytes": count * SIZE[0] * SIZE[1] * 3,
        "numba_differs": numbas,
        "triton_differs": tritons,
        "occurred": dict(sorted((name, found) for name, found in seen.items() if found)),
    }


def more(parser: ArgumentParser) -> None:
    """Add which addresses are compared."""
    parser.add_argument("--first", type=int, default=0, help="where to go on")
    parser.add_argument(
        "--addresses", type=int, default=10_000, help="of the first view space; the others: a tenth"
    )


def main() -> None:
    """Compare and print."""
    options = arguments("replay", str(__doc__), more)
    counts = [1, 1, 1] if options.quick else [options.addresses, *[options.addresses // 10] * 2]
    # A tenth of the first address, too: those of several runs follow one another.
    firsts = [options.first, *[options.first // 10] * 2]
    rows = [compared(*each) for each in zip(EVERYTHING, firsts, counts, strict=True)]
    report("replay", rows, options)


if __name__ == "__main__":
    main()
