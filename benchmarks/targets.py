"""What do the teacher's answers to a batch cost, against copying their bytes and against files read sample by sample?

An epoch over a resident cache of 50,000 samples (root4), 512 random rows after 512, gathered and decoded to float32, for 100
and 1,000 classes, by torch alone and by numba; copied bytes are one read and four written a class. Per-sample readers answer
the same question for 100 classes: one file of records of the ten largest (class, probability), found by seek and read and
spread over a row; and one file a sample, written by torch.save and read by torch.load; both behind a DataLoader without
workers, as they are used, and the first also in a bare loop. All files are in the page cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bancache.bench.work import copying
from bancache.loader.cache_targets import CacheTargets
from bancache.system import numba as compiled
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import CPU, Table, cache_of, image_set, settings, teacher_of

BATCH, LARGEST = 512, 10
RECORD = np.dtype([("classes", "<u2", (LARGEST,)), ("probabilities", "<f2", (LARGEST,))])


class Records(torch.utils.data.Dataset[torch.Tensor]):
    """One file of a record a sample, its largest classes, found by seek and read and spread over a row."""

    def __init__(self, probabilities: torch.Tensor, path: Path) -> None:
        values, classes = probabilities.topk(LARGEST, dim=1)
        records = np.empty(len(probabilities), RECORD)
        records["classes"], records["probabilities"] = classes.numpy(), values.numpy()
        path.write_bytes(records.tobytes())
        self.stream, self.classes = path.open("rb", buffering=0), probabilities.shape[1]

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def __getitem__(self, sample: int) -> torch.Tensor:
        self.stream.seek(sample * RECORD.itemsize)
        record = np.frombuffer(self.stream.read(RECORD.itemsize), RECORD)[0]
        row = np.zeros(self.classes, np.float32)
        row[record["classes"]] = record["probabilities"]
        return torch.from_numpy(row)


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """One file a sample, written by torch.save."""

    def __init__(self, probabilities: torch.Tensor, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        for sample, row in enumerate(probabilities):
            torch.save(row.clone(), folder / f"{sample}.pt")

    def __getitem__(self, sample: int) -> torch.Tensor:
        return torch.load(self.folder / f"{sample}.pt", weights_only=True)  # type: ignore[no-any-return]  # noqa: TID251


def batches_of(data: torch.utils.data.Dataset[torch.Tensor], samples: list[int]) -> Callable[[], Any]:
    """Return a read of samples through torch's DataLoader without workers, as these readers are used."""
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, sampler=samples)
    return lambda: [None for _ in loader]


def of_files(answers: torch.Tensor, records: Records, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return the per-sample readers, each reading one batch."""
    files = Files(answers, folder / "files")
    some = np.random.default_rng(1).integers(0, len(answers), BATCH).tolist()
    return {
        "seek and read": batches_of(records, some),
        "seek and read, no DataLoader": lambda: torch.stack([records[sample] for sample in some]),
        "torch.load": batches_of(files, some),
    }


def of_cache(classes: int, count: int, folder: Path) -> dict[str, CacheTargets]:
    """Return the answers of a resident cache, for each way to decode them."""
    data, teacher = image_set(count, classes=classes, size=8), teacher_of(Table(classes), "table")
    cache = cache_of(teacher, data, folder / f"{classes}.zarr", settings())
    ways = {"cache": CacheTargets(cache, accelerator="none")}
    if compiled.is_installed():
        ways["cache, numba"] = CacheTargets(cache, accelerator="numba")
    for targets in ways.values():
        targets.begin(0, 0)
    return ways


def reading(targets: CacheTargets, orders: list[torch.Tensor]) -> Callable[[], None]:
    """Return a read of batch after batch, each dropped before the next."""
    unseen = torch.empty(0)

    def run() -> None:
        for samples in orders:
            targets.probabilities(samples, unseen)

    return run


def main() -> None:
    """Measure and print."""
    options = arguments("targets", str(__doc__))
    count, rounds, files = (1_024, 2, 64) if options.quick else (50_000, 25, 1_000)
    batches = count // BATCH
    rng, nothing = np.random.default_rng(0), torch.empty(0)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as still_open:
        folder = Path(name)
        for classes in (100, 1000):
            ways = of_cache(classes, count, folder)
            orders = list(torch.from_numpy(rng.permutation(count)).split(BATCH))[:batches]
            copy = copying(BATCH * classes, BATCH * 4 * classes, CPU, count=batches)
            timed: dict[str, Callable[[], Any]] = {
                "memcpy": lambda copy=copy: [copy() for _ in range(batches)],  # type: ignore[misc]
                **{name: reading(targets, orders) for name, targets in ways.items()},
            }
            images = {}
            if classes == 100:
                answers = ways["cache"].probabilities(torch.arange(files), nothing)
                records = still_open.enter_context(closing(Records(answers, folder / "records")))
                timed |= of_files(answers, records, folder)
                images = {"seek and read": BATCH, "torch.load": BATCH, "seek and read, no DataLoader": BATCH}
            seconds = interleave(timed, rounds=rounds)
            each = {n: [v / images.get(n, batches * BATCH) * 1e9 for v in vs] for n, vs in seconds.items()}
            rows += [
                {"what": n, "classes": classes, "nanoseconds_an_entry": spread(vs)} for n, vs in each.items()
            ]
            for way in ways:
                name = f"memcpy / {way}, {classes} classes"
                rows.append(compared(name, each["memcpy"], each[way], ">= 0.5"))
                for reader, target in (("seek and read", ">= 300"), ("torch.load", ">= 3000")):
                    if reader in each:
                        rows.append(compared(f"{reader} / {way}", each[reader], each[way], target))
    report("targets", rows, options)


if __name__ == "__main__":
    main()
