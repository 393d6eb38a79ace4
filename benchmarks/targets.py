"""What do the soft targets of a batch cost, beside one file per sample that torch.load reads?

An epoch over a resident cache of 50,000 samples (root4), gathered and decoded to float32 by torch alone in batches of 512
random rows, for 100 and 1,000 classes. For 100 classes also one file per sample, written by torch.save and read by
torch.load behind a DataLoader without workers. All files are in the page cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bancache.loader.cache_targets import CacheTargets
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import Table, cache_of, image_set, settings, teacher_of

BATCH = 512
UNUSED = torch.empty(0)  # a cache does not look at the images


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """One file per sample, written by torch.save."""

    def __init__(self, probabilities: torch.Tensor, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        for sample, row in enumerate(probabilities):
            torch.save(row.clone(), folder / f"{sample}.pt")

    def __getitem__(self, sample: int) -> torch.Tensor:
        return torch.load(self.folder / f"{sample}.pt", weights_only=True)  # type: ignore[no-any-return]  # noqa: TID251


def files_of(targets: CacheTargets, count: int, folder: Path) -> Callable[[], Any]:
    """Write the first targets to files, and return a function that reads one batch of them."""
    files = Files(targets.probabilities(torch.arange(count), UNUSED), folder / "files")
    some = np.random.default_rng(1).integers(0, count, BATCH).tolist()
    loader = torch.utils.data.DataLoader(files, batch_size=BATCH, sampler=some)
    return lambda: [None for _ in loader]


def targets_of(classes: int, count: int, folder: Path) -> CacheTargets:
    """Return the targets of a resident cache."""
    data, teacher = image_set(count, classes=classes, size=8), teacher_of(Table(classes), "table")
    targets = CacheTargets(cache_of(teacher, data, folder / f"{classes}.zarr", settings()))
    targets.begin(0, 0)
    return targets


def main() -> None:
    """Measure and print."""
    options = arguments("targets", str(__doc__))
    count, rounds, files = (512, 2, 16) if options.quick else (50_000, 25, 1_000)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for classes in (100, 1000):
            targets = targets_of(classes, count, Path(name))
            batches = torch.split(torch.from_numpy(rng.permutation(count)), BATCH)[: count // BATCH]

            def decode(targets: CacheTargets = targets, batches: Any = batches) -> None:
                for samples in batches:
                    targets.probabilities(samples, UNUSED)

            timed: dict[str, tuple[Callable[[], Any], int]] = {"cache": (decode, len(batches) * BATCH)}
            if classes == 100:
                timed["torch.load"] = files_of(targets, files, Path(name)), BATCH
            seconds = interleave({n: function for n, (function, _) in timed.items()}, rounds=rounds)
            each = {n: [v / timed[n][1] * 1e9 for v in values] for n, values in seconds.items()}
            rows += [
                {"what": n, "classes": classes, "nanoseconds_a_pair": spread(values)}
                for n, values in each.items()
            ]
            if classes == 100:
                rows.append(compared("torch.load / cache", each["torch.load"], each["cache"], ">= 3000"))
    report("targets", rows, options)


if __name__ == "__main__":
    main()
