"""Teacher to cache: for each shard, render the views, ask the teacher, encode, measure, write.

The shards on disk are the only state, so a dump that was killed goes on where it stopped, and the bytes
do not depend on how often that happened, nor on how many processes took part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bancache.cache.info import describe
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.opening import open_writer
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.disk_space import require_room
from bancache.dumping.forward import TeacherForward
from bancache.dumping.pipeline import fill
from bancache.dumping.summary import summarize_entries
from bancache.encodings import Encoding, parse_encoding
from bancache.encodings.certify import require_bound
from bancache.encodings.fidelity import TEMPERATURES
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.device import Interrupt, versions
from bancache.system.progress import Progress, Silent
from bancache.system.ranks import Rank
from bancache.views.renderer import Normalization, Renderer
from bancache.views.space import ViewSpace


@dataclass(frozen=True)
class DumpSettings:
    """What a dump decides beyond its teacher and data.

    Attributes:
        space: The views and the order in which each sample shows them.
        num_views: How many views to fill; as many as the space has views makes the cache exhaustive.
        encoding: An encoding's name.
        batch_size: Views a forward pass; part of the cache's identity, since it may change the last bit.
        normalization: What the teacher's pixels are normalized by.
        bound: A temperature, no higher than fidelity is measured at, and the mean divergence in nats that
            the encoding may cause there; None for no bound.
        profile: How the cache lies on disk: ``default``, ``compact`` or ``mmap``.
    """

    space: ViewSpace
    num_views: int
    encoding: str
    batch_size: int
    normalization: Normalization
    bound: tuple[float, float] | None = None
    profile: str = "default"

    def __post_init__(self) -> None:
        if self.bound is not None and not 0 < self.bound[0] <= TEMPERATURES[-1]:
            raise UsageError(
                f"divergence is measured up to temperature {TEMPERATURES[-1]:g}, not at {self.bound[0]:g}",
                hint="use --encoding float32 instead of a bound",
            )
        if not 1 <= self.num_views <= self.space.size:
            raise UsageError(
                f"views '{self.space.name}' are {self.space.size}, so --num-views cannot be {self.num_views}",
                hint=f"use 1 to {self.space.size}, or all",
            )
        if self.batch_size < 1:
            raise UsageError(f"a batch has at least one image, not {self.batch_size}")


@dataclass(frozen=True)
class DumpResult:
    """A finished dump.

    Attributes:
        cache: The cache, open.
        seconds: Of this run alone; 0 when there was nothing left to do.
        entries: Views answered in this run.
        finished: Whether it was this run that made the cache complete; of several that join, one is.
    """

    cache: Cache
    seconds: float
    entries: int
    finished: bool = True

    def record(self) -> dict[str, Any]:
        """Return the dump as a result line says it; a rate is null when nothing was left to do."""
        about, teacher = describe(self.cache.path), self.cache.manifest.teacher
        kept = ("samples", "views", "classes", "bytes", "bytes_per_entry", "fidelity")
        return {
            "kind": "dump",
            "generation": teacher["generation"],
            "model": teacher["architecture"]["name"],
            **{key: about[key] for key in kept},
            "encoding": about["encoding"]["name"],
            "profile": about["profile"],
            "digest": self.cache.digest,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.entries / self.seconds, 1) if self.seconds else None,
            "out": str(self.cache.path),
        }


def dump(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    out: Path,
    settings: DumpSettings,
    *,
    device: torch.device,
    overwrite: bool = False,
    join: bool = False,
    place: Rank | None = None,
    force: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
    recorded: Callable[[Shard], object] | None = None,
) -> DumpResult:
    """Write the teacher's answers to ``num_views`` views of every image; go on with what is there already.

    While it works, any number of other processes may help by the same call with ``join``.

    Args:
        teacher: Who answers.
        data: The training images.
        spec: How to open them again.
        out: The cache's directory.
        settings: What to ask and how to keep it.
        device: Where the teacher runs.
        overwrite: Start anew instead of going on.
        join: Help whoever writes the cache, or begin it for others to join.
        place: Which of several helpers this is; decides what it does first.
        force: Begin although there seems to be no room for the cache.
        progress: Is told of every batch.
        interrupt: Asked between shards.
        recorded: Is told of each shard once it is durable.

    Raises:
        BusyError: Another process writes the cache, and this one does not join.
        MismatchError: What is at ``out`` was made from something else.
        NonFiniteError: The teacher answered NaN or infinity.
        OutOfMemoryError: A batch is too large for the device.
        UsageError: The encoding lost more than ``settings.bound``.
        StorageError: The cache cannot fit; the disk is full, read-only or failing. Finished shards stay.
        StoppedError: A stop was asked for; finished shards stay.
    """
    progress, interrupt = progress or Silent(), interrupt or Interrupt()
    renderer = Renderer(data.images, settings.space, settings.normalization, device=device)
    encoding = parse_encoding(settings.encoding, len(data.classes))
    manifest = _promise(teacher, data, spec, settings, encoding, renderer)
    started = time.monotonic()
    asker = TeacherForward(teacher, data, renderer, encoding, settings)
    bytes_per_entry = asker.probe()
    if not force:
        require_room(out, Layout(manifest), bytes_per_entry, overwrite=overwrite)
    with open_writer(out, manifest, overwrite=overwrite, join=join) as writer:
        if writer is None:
            progress.note(f"{out} is complete already")
            cache = open_cache(out)
            require_bound(settings.encoding, settings.bound, cache.summary.get("fidelity"))
            return DumpResult(cache, 0.0, 0)
        filled = fill(
            writer,
            asker.ask,
            lambda facts: _summary(facts, settings),
            place=place or Rank(),
            progress=progress,
            interrupt=interrupt,
            recorded=recorded,
        )
    return DumpResult(open_cache(out), time.monotonic() - started, filled.entries, filled.finished)


def _promise(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    settings: DumpSettings,
    encoding: Encoding,
    renderer: Renderer,
) -> Manifest:
    normalization = settings.normalization.to_dict()
    return Manifest(
        samples=len(data),
        num_views=settings.num_views,
        classes=len(data.classes),
        fields=encoding.fields(),
        encoding=encoding.to_config(),
        view_space=settings.space.to_dict(),
        pixels={"normalisation": normalization, "golden": renderer.golden(settings.num_views)},
        dataset={
            "spec": spec.to_dict(),
            "fingerprint": data.fingerprint,
            "classes": list(data.classes),
            "image_shape": list(data.images.shape[1:]),
        },
        teacher={
            "fingerprint": teacher.fingerprint,
            "architecture": teacher.architecture,
            "generation": teacher.header.get("generation", 0),
            "accuracy": teacher.header.get("test", {}).get("accuracy"),
            "recipe": teacher.header.get("recipe"),
            "lineage": teacher.header.get("lineage", []),
            "path": teacher.path,
        },
        compute={"batch_size": settings.batch_size, "precision": teacher.precision},
        created_with=versions(),
        profile=settings.profile,
    )


def _summary(facts: list[dict[str, Any]], settings: DumpSettings) -> dict[str, Any]:
    """Return what the manifest says of the entries.

    Raises:
        UsageError: The encoding lost more than its bound; the cache stays incomplete.
    """
    summary = summarize_entries(facts, settings.num_views)
    require_bound(settings.encoding, settings.bound, summary["fidelity"])
    return summary
