"""Dump: run the teacher on every view of every image, and write its encoded outputs to a cache.

The shards on disk are the only state. A killed dump continues where it stopped, and the bytes depend neither on
interruptions nor on the number of processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bancache.cache.info import accuracy_warning, describe
from bancache.cache.layout import Layout, shard_samples_of
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, manifest_of, read_manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache, open_cache
from bancache.cache.records import count_records
from bancache.cache.writer import CacheWriter
from bancache.dumping.captured import open_forward
from bancache.dumping.check_teacher import check_teacher
from bancache.dumping.forward import TeacherForward
from bancache.dumping.pipeline import OnShard, fill
from bancache.dumping.recompute import compute_of
from bancache.dumping.settings import DumpSettings
from bancache.dumping.summary import summarize_shards
from bancache.encodings import Encoding, parse_encoding
from bancache.encodings.fields import FieldSpec
from bancache.encodings.temperature_limits import require_max_divergence
from bancache.errors import CacheDamagedError, StorageError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import versions
from bancache.system.files import bytes_below, free_bytes
from bancache.system.progress import Progress, Silent
from bancache.system.ranks import ALONE, Rank
from bancache.system.signals import Interrupt
from bancache.system.wording import count

_PAGE_BYTES = 4096
# A thread waits for the disk five times a shard, and a GPU finishes shards faster than one disk answers.
_GPU_WRITERS = 8
# Of views drawn at random, 5 taught less than labels alone do, and 50 as much as 400.
_FEW_VIEWS = 10


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
            "model": teacher["architecture"]["name"],
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
    device: torch.device,
    overwrite: bool = False,
    join: bool = False,
    rank: Rank = ALONE,
    force: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
    recorded: OnShard | None = None,
) -> DumpResult:
    """Write the teacher's encoded outputs for ``num_views`` views of every image; continue an unfinished cache.

    Args:
        teacher: The teacher.
        data: The training images.
        spec: The data's address, for the manifest.
        out: The cache's directory.
        settings: The views, the encoding and the layout.
        device: Device of the teacher.
        overwrite: Start anew instead of continuing.
        join: Work together with the processes that write the cache, or begin it for others to join.
        rank: Rank of this process among those that join; decides its first shards.
        force: Do not check the free disk space.
        progress: Shows every batch.
        interrupt: Checked between shards.
        recorded: Called with each shard once it is durable.

    Raises:
        BusyError: Another process writes the cache, and ``join`` is not set.
        MismatchError: The cache at ``out`` was made from something else.
        NonFiniteError: The teacher's logits have a NaN or an infinity.
        OutOfMemoryError: A batch is too large for the device.
        UsageError: The encoding lost more than ``settings.bound`` allows.
        StorageError: The disk is too small, full, read-only or failing. Finished shards stay.
        StoppedError: ``interrupt`` was set. Finished shards stay.
    """
    out, progress, interrupt = Path(out), progress or Silent(), interrupt or Interrupt()
    settings = _without_own_size(settings, data)
    _warn_of_few_views(settings, progress)
    encoding = parse_encoding(settings.encoding, len(data.classes))
    settings = _with_shards(settings, out, len(data), encoding.fields(), overwrite=overwrite)
    forward = open_forward(teacher, data, encoding, settings, device, progress)
    golden = forward.renderer.golden(settings.num_views)
    manifest = _manifest(teacher, data, spec, settings, encoding, golden, device)
    started = time.monotonic()
    bytes_per_pair = forward.probe()
    check_teacher(teacher, data, settings, device=device, progress=progress)
    if not force:
        _require_disk_space(out, Layout(manifest), bytes_per_pair, overwrite=overwrite)
    with open_writer(out, manifest, overwrite=overwrite, join=join) as writer:
        if writer is None:
            return _already_complete(out, teacher, settings, progress)
        _warn_of_mixture(writer, forward, progress)
        summarize = partial(_summarize, settings=settings)
        threads = _GPU_WRITERS if device.type == "cuda" else 1
        filled = fill(writer, forward.start, summarize, rank, progress, interrupt, recorded, threads=threads)
    _warn_of_accuracy(out, teacher, progress)
    return DumpResult(open_cache(out), time.monotonic() - started, filled.num_pairs, filled.finished)


def _without_own_size(settings: DumpSettings, data: ImageSet) -> DumpSettings:
    """Return settings without a size that is the images' own: such caches are those of earlier versions."""
    own = data.uniform and settings.size == (data.height, data.width)
    return replace(settings, size=None) if own else settings


def _with_shards(
    settings: DumpSettings, out: Path, samples: int, fields: tuple[FieldSpec, ...], *, overwrite: bool
) -> DumpSettings:
    """Return settings with the samples of a shard: those of the cache at ``out``, which an earlier version may have begun."""
    if (out / MANIFEST).is_file() and not overwrite:
        kept = manifest_of(read_manifest(out))
        if (kept.samples, kept.fields, kept.profile) == (samples, fields, settings.profile):
            return replace(settings, shard_samples=kept.shard_samples)
    asked = settings.shard_samples or shard_samples_of(samples, fields, settings.profile)
    return replace(settings, shard_samples=asked)


def _warn_of_few_views(settings: DumpSettings, progress: Progress) -> None:
    if settings.space.is_endless and settings.num_views < _FEW_VIEWS:
        progress.warn(
            f"{count(settings.num_views, 'view')} of each image, of any number that '{settings.space.name}' draws: with "
            f"fewer than {_FEW_VIEWS}, students may do worse than without a teacher; use --num-views 50"
        )


def _warn_of_mixture(writer: CacheWriter, forward: TeacherForward, progress: Progress) -> None:
    """Ask for the first batch of what is recorded again: elsewhere, the last bits of a forward pass may differ."""
    with contextlib.suppress(
        CacheDamagedError
    ):  # another process recorded what is not there: found when all is read
        if recorded := writer.recorded():
            wrong, rows = forward.rows_that_differ(*recorded)
            if wrong:
                progress.warn(
                    f"{writer.path} will be a mixture: on this machine the teacher's outputs differ from the stored ones "
                    f"in {wrong} of {rows} rows of {recorded[0]} (other libraries, threads or hardware); --overwrite or "
                    "another --out makes it of one piece"
                )


def _already_complete(out: Path, teacher: Teacher, settings: DumpSettings, progress: Progress) -> DumpResult:
    progress.note(f"{out} is complete already")
    cache = open_cache(out)
    require_max_divergence(settings.encoding, settings.bound, cache.summary.get("fidelity"))
    _warn_of_accuracy(out, teacher, progress)
    return DumpResult(cache, 0.0, 0)


def _warn_of_accuracy(out: Path, teacher: Teacher, progress: Progress) -> None:
    facts = describe(out)
    if facts["teacher_accuracy"] is not None:
        own = teacher.header.get("test", {}).get("accuracy")
        if warning := accuracy_warning(facts["teacher_accuracy"], facts["chance"], own, facts["view_space"]):
            progress.warn(warning)


def _summarize(facts: list[dict[str, Any]], *, settings: DumpSettings) -> dict[str, Any]:
    summary = summarize_shards(facts, settings.num_views)
    require_max_divergence(settings.encoding, settings.bound, summary["fidelity"])
    return summary


def _manifest(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    settings: DumpSettings,
    encoding: Encoding,
    golden: str,
    device: torch.device,
) -> Manifest:
    normalization = settings.normalization.to_dict()
    return Manifest(
        samples=len(data),
        num_views=settings.num_views,
        classes=len(data.classes),
        fields=encoding.fields(),
        encoding=encoding.to_config(),
        view_space=settings.space.to_dict(),
        pixels={
            "normalisation": normalization,
            "golden": golden,
            **({} if settings.size is None else {"size": list(settings.size)}),
        },
        dataset={
            "spec": spec.to_dict(),
            "fingerprint": data.fingerprint,
            "classes": list(data.classes),
            "image_shape": list(data.images.shape[1:]) if data.uniform else None,
            "chance": data.chance,
        },
        teacher={
            "fingerprint": teacher.fingerprint,
            "architecture": teacher.architecture,
            "generation": teacher.header.get("generation", 0),
            "accuracy": teacher.header.get("test", {}).get("accuracy"),
            "recipe": teacher.header.get("recipe"),
            "lineage": teacher.header.get("lineage", []),
            "path": teacher.path,
            "input": None if teacher.input is None else teacher.input.to_dict(),
        },
        compute=compute_of(teacher, settings, device),
        created_with=versions(device),
        profile=settings.profile,
        shard_samples=settings.shard_samples,
    )


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
