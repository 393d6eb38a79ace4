"""Dump: run the teacher on every view of every image, and write its encoded outputs to a cache.

The shards on disk are the only state. A killed dump continues where it stopped, and the bytes depend neither on
interruptions nor on the number of processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bancache.cache.info import accuracy_warning, describe, model_name
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, read_manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache, open_cache
from bancache.cache.records import count_records
from bancache.cache.remote_opening import open_remote_writer
from bancache.cache.remote_writer import Writer
from bancache.cache.writer import Summarize
from bancache.dumping.forward import TeacherForward
from bancache.dumping.pipeline import Filled, fill
from bancache.dumping.prepare import Binding, prepare
from bancache.dumping.settings import DumpSettings
from bancache.dumping.summary import summarize_shards
from bancache.encodings.temperature_limits import require_max_divergence
from bancache.errors import CacheDamagedError, StorageError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.address import Address, as_place
from bancache.system.device import choose_device
from bancache.system.files import bytes_below, free_bytes
from bancache.system.progress import Progress, Silent
from bancache.system.ranks import ALONE, Rank
from bancache.system.signals import Interrupt

_PAGE_BYTES = 4096
# A thread waits for the disk five times a shard, and a GPU finishes shards faster than one disk answers.
_GPU_WRITERS = 8


@dataclass(frozen=True)
class DumpResult:
    """A finished dump.

    ``seconds`` is the duration of this run, 0 if the cache was complete already. ``num_pairs`` counts the (sample,
    view) pairs that the teacher was run on. ``finished``: of several processes, one makes the cache complete.
    """

    cache: Cache
    seconds: float
    num_pairs: int
    finished: bool = True

    def record(self) -> dict[str, Any]:
        """Return the dump's line for results.jsonl; the rate is null if nothing was left to do."""
        about, teacher = describe(self.cache.path), self.cache.manifest.teacher
        kept = ("samples", "views", "classes", "bytes", "fidelity", "teacher_accuracy", "chance")
        return {
            "kind": "dump",
            "generation": teacher["generation"],
            "model": model_name(teacher),
            **{key: about[key] for key in kept},
            "bytes_per_entry": about["bytes_per_pair"],
            "encoding": about["encoding"]["name"],
            "profile": about["profile"],
            "digest": self.cache.digest,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.num_pairs / self.seconds, 1) if self.seconds else None,
            "out": str(self.cache.path),
        }


def dump(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    out: str | os.PathLike[str],
    settings: DumpSettings,
    *,
    device: torch.device | str,
    overwrite: bool = False,
    join: bool = False,
    rank: Rank = ALONE,
    force: bool = False,
    mixed: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> DumpResult:
    """Write the teacher's encoded outputs for ``num_views`` views of every image; continue an unfinished cache.

    Args:
        teacher: The teacher.
        data: The training images.
        spec: The data's address, for the manifest.
        out: The cache's directory, or its address in an object store.
        settings: The views, the encoding and the layout.
        device: Device of the teacher: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        overwrite: Start anew instead of continuing.
        join: Work together with the processes that write the cache, or begin it for others to join.
        rank: Rank of this process among those that join; decides its first shards.
        force: Do not check the free disk space.
        mixed: Go on with another kind of device than the one that began the cache; the cache says so.
        progress: Shows every batch.
        interrupt: Checked between shards.

    Raises:
        BusyError: Another process writes the cache, and ``join`` is not set.
        MismatchError: The cache at ``out`` was made from something else.
        NonFiniteError: The teacher's logits have a NaN or an infinity.
        OutOfMemoryError: A batch is too large for the device.
        UsageError: The encoding lost more than ``settings.bound`` allows.
        StorageError: The disk is too small, full, read-only or failing. Finished shards stay.
        StoppedError: ``interrupt`` was set. Finished shards stay.
    """
    device = choose_device(device) if isinstance(device, str) else device
    progress, interrupt, started = progress or Silent(), interrupt or Interrupt(), time.monotonic()
    begun = None if overwrite else out
    prepared = prepare(teacher, data, spec, settings, begun, device=device, progress=progress)
    forward, threads = prepared.forward, _GPU_WRITERS if device.type == "cuda" else 1

    def write(writer: Writer, summarize: Summarize) -> Filled:
        if warning := mixture_warning(writer, forward):
            progress.warn(warning)
        work = partial(fill, threads=threads, by_image=forward.renderer.streams)
        return work(writer, forward.start, summarize, rank, progress, interrupt)

    work = partial(carry_out, prepared.binding, out, write, started=started, progress=progress)
    return work(overwrite=overwrite, join=join, force=force, mixed=mixed)


def carry_out(
    binding: Binding,
    out: str | os.PathLike[str],
    write: Callable[[Any, Summarize], Filled],
    *,
    started: float,
    overwrite: bool,
    join: bool,
    force: bool,
    mixed: bool,
    progress: Progress,
) -> DumpResult:
    """Begin a cache or go on with one, let ``write`` fill it, and return the result. ``started`` is by the monotonic clock."""
    out, manifest = as_place(out), binding.manifest
    if not force and not isinstance(out, Address):
        _require_disk_space(out, Layout(manifest), binding.bytes_per_pair, overwrite=overwrite)
    summarize = partial(
        _summarize, num_views=manifest.num_views, name=manifest.encoding["name"], bound=binding.bound
    )
    with _writing(out, manifest, overwrite=overwrite, join=join, mixed=mixed) as writer:
        filled = None if writer is None else write(writer, summarize)
    cache = open_cache(out)
    if filled is None:
        progress.note(f"{out} is complete already")
        require_max_divergence(manifest.encoding["name"], binding.bound, cache.summary.get("fidelity"))
    _warn_of_accuracy(out, progress)
    seconds = time.monotonic() - started if filled else 0.0
    return DumpResult(cache, seconds, *((filled.num_pairs, filled.finished) if filled else (0,)))


def _writing(
    out: Path, manifest: Manifest, *, overwrite: bool, join: bool, mixed: bool
) -> contextlib.AbstractContextManager[Writer | None]:
    if isinstance(out, Address):
        return open_remote_writer(out, manifest, overwrite=overwrite, mixed=mixed)
    return open_writer(out, manifest, overwrite=overwrite, join=join, mixed=mixed)


def mixture_warning(writer: Writer, forward: TeacherForward) -> str | None:
    """Ask for the first batch of what is recorded again: elsewhere, the last bits of a forward pass may differ."""
    # Another process may have recorded what is not there; that is found when all is read.
    with contextlib.suppress(CacheDamagedError):
        if recorded := writer.recorded():
            wrong, rows = forward.rows_that_differ(*recorded)
            if wrong:
                return (
                    f"{writer.path} will be a mixture: on this machine the teacher's outputs differ from the stored ones "
                    f"in {wrong} of {rows} rows of {recorded[0]} (other libraries, threads or hardware); --overwrite or "
                    "another --out makes it of one piece"
                )
    return None


def _warn_of_accuracy(out: Path, progress: Progress) -> None:
    facts = describe(out)
    if facts["teacher_accuracy"] is not None:
        own = facts["teacher"].get("accuracy")
        if warning := accuracy_warning(facts["teacher_accuracy"], facts["chance"], own, facts["view_space"]):
            progress.warn(warning)


def _summarize(
    facts: Sequence[dict[str, Any]], *, num_views: int, name: str, bound: tuple[float, float] | None
) -> dict[str, Any]:
    summary = summarize_shards(facts, num_views)
    require_max_divergence(name, bound, summary["fidelity"])
    return summary


def _require_disk_space(out: Path, layout: Layout, bytes_per_pair: float, *, overwrite: bool) -> None:
    """Refuse a disk with less free space than the missing shards will take, estimated from the first batch."""
    shards = layout.count
    if (out / MANIFEST).is_file() and not overwrite:
        shards = 0 if read_manifest(out)["complete"] else shards - count_records(out)
    # A file for each field and a record, each with a last page that is half empty on average.
    files = shards * (len(layout.manifest.fields) + 1)
    needed = shards * layout.block * bytes_per_pair + files * _PAGE_BYTES / 2
    free = free_bytes(out) + (bytes_below(out) if overwrite and out.is_dir() else 0)
    if needed > free:
        raise StorageError(
            f"{out} needs about {needed / 1e6:,.1f} MB more, but its disk has {free / 1e6:,.1f} MB free",
            hint="free some space, choose another --out or a smaller --encoding, or skip this check with --force",
        )
