"""Teacher to cache: for each region, render the views, ask the teacher, encode, measure, write.

The regions on disk are the only state, so a dump that was killed goes on where it stopped, and the bytes
do not depend on how often that happened.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.info import describe
from bancache.cache.layout import Region
from bancache.cache.manifest import Manifest
from bancache.cache.reader import Cache, open_cache
from bancache.cache.writer import CacheWriter, open_writer
from bancache.dump.summary import summarise_entries
from bancache.encodings import Encoding, parse_encoding
from bancache.encodings.fidelity import TEMPERATURES, Tally, merge, tally
from bancache.errors import NonFiniteError, UsageError
from bancache.progress import Progress, Silent
from bancache.runtime import Interrupt, versions
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.teacher import Teacher
from bancache.views.apply import Normalisation, Renderer
from bancache.views.space import ViewSpace


@dataclass(frozen=True)
class DumpSettings:
    """What a dump decides beyond its teacher and data.

    Attributes:
        space: The views and the order in which each sample shows them.
        num_views: How many slots to fill; as many as the space has views makes the cache exhaustive.
        encoding: An encoding's name.
        batch_size: Views a forward pass; part of the cache's identity, since it may change the last bit.
        normalisation: What the teacher's pixels are normalised by.
        bound: A temperature, one of those that fidelity is measured at, and the mean divergence in nats that
            the encoding may cause there; None for no bound.
    """

    space: ViewSpace
    num_views: int
    encoding: str
    batch_size: int
    normalisation: Normalisation
    bound: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.bound is not None and self.bound[0] not in TEMPERATURES:
            raise UsageError(
                f"divergence is measured at temperatures {TEMPERATURES}, not at {self.bound[0]:g}"
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
    """

    cache: Cache
    seconds: float
    entries: int

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
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> DumpResult:
    """Write the teacher's answers to ``num_views`` views of every image; go on with what is there already.

    Args:
        teacher: Who answers.
        data: The training images.
        spec: How to open them again.
        out: The cache's directory.
        settings: What to ask and how to keep it.
        device: Where the teacher runs.
        overwrite: Start anew instead of going on.
        progress: Is told of every batch.
        interrupt: Asked between regions.

    Raises:
        MismatchError: What is at ``out`` was made from something else.
        NonFiniteError: The teacher answered NaN or infinity.
        UsageError: The encoding lost more than ``settings.bound``.
        StorageError: The disk is full, read-only or failing; finished regions stay.
        StoppedError: A stop was asked for; finished regions stay.
    """
    progress, interrupt = progress or Silent(), interrupt or Interrupt()
    renderer = Renderer(data.images, settings.space, settings.normalisation, device=device)
    encoding = parse_encoding(settings.encoding, len(data.classes))
    manifest = _promise(teacher, data, spec, settings, encoding, renderer)
    started, entries = time.monotonic(), 0
    asker = Asker(teacher, data, renderer, encoding, settings)
    asker.probe()
    with open_writer(out, manifest, overwrite=overwrite) as writer:
        if writer is None:
            progress.note(f"{out} is complete already")
            return DumpResult(open_cache(out), 0.0, 0)
        entries = _fill(writer, asker, progress, interrupt)
        writer.finish(lambda facts: _summary(facts, settings))
    return DumpResult(open_cache(out), time.monotonic() - started, entries)


def _fill(writer: CacheWriter, asker: Asker, progress: Progress, interrupt: Interrupt) -> int:
    """Write the regions that are missing and return how many entries they hold."""
    layout, pending = writer.layout, writer.pending()
    total = layout.manifest.samples * layout.manifest.slots
    entries = sum(region.stop - region.start for region in pending)
    if len(pending) < layout.count:
        progress.note(f"resuming: {layout.count - len(pending)} of {layout.count} regions are done")
    with progress.stage("dump", total=total, unit="images", done=total - entries) as stage:
        for done, region in enumerate(pending, layout.count - len(pending)):
            interrupt.check(f"{done} of {layout.count} regions")
            fields, facts = asker.answer(region, stage.advance)
            writer.write_region(region, fields, facts)
    return entries


class Asker:
    """Asks the teacher for one region at a time."""

    def __init__(
        self, teacher: Teacher, data: ImageSet, renderer: Renderer, encoding: Encoding, settings: DumpSettings
    ) -> None:
        self._teacher, self._renderer, self._encoding, self._settings = teacher, renderer, encoding, settings
        self._labels = torch.tensor(data.labels, device=renderer.device)
        self._classes = len(data.classes)

    def probe(self) -> None:
        """Ask for one batch and keep nothing, so that a teacher that cannot answer leaves no cache behind."""
        samples = np.arange(min(self._settings.batch_size, len(self._labels)))
        self._ask(samples, self._settings.space.view_ids(samples, 0), slot=0)

    def answer(self, region: Region, advance: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the region's fields as arrays, and what was found while making them."""
        samples = np.arange(region.start, region.stop)
        views = self._settings.space.view_ids(samples, region.slot)
        parts: list[dict[str, NDArray[Any]]] = []
        tallies: list[Tally] = []
        correct, confidence = 0, 0.0
        for start in range(0, len(samples), self._settings.batch_size):
            part = slice(start, start + self._settings.batch_size)
            logits = self._ask(samples[part], views[part], slot=region.slot)
            fields = self._encoding.encode(logits)
            tallies.append(tally(self._encoding, logits, fields))
            correct += int((logits.argmax(dim=1) == self._labels[region.start : region.stop][part]).sum())
            confidence += float(torch.softmax(logits.double(), dim=1).amax(dim=1).sum())
            parts.append({name: values.cpu().numpy() for name, values in fields.items()})
            advance(len(logits))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        finite = len(samples) * self._classes
        facts = {"tally": merge(tallies), "correct": correct, "confidence": confidence, "finite": finite}
        return whole, facts

    def _ask(self, samples: NDArray[np.int64], views: NDArray[np.int64], *, slot: int) -> torch.Tensor:
        """Return what the teacher says of samples' views, float32 (B, classes), all finite."""
        which, ids = (torch.from_numpy(numbers).to(self._renderer.device) for numbers in (samples, views))
        logits = self._teacher.logits(self._renderer.render(which, ids))
        self._check(logits, samples, slot)
        return logits

    def _check(self, logits: torch.Tensor, samples: NDArray[np.int64], slot: int) -> None:
        if logits.shape[1] != self._classes:
            raise UsageError(
                f"the teacher answers with {logits.shape[1]} classes, the data set has {self._classes}",
                hint="name the teacher's own data set with --data",
            )
        finite = torch.isfinite(logits).cpu().numpy()
        if not finite.all():
            first = int(samples[np.argmin(finite.all(axis=1))])
            raise NonFiniteError(
                f"the teacher gave {int((~finite).sum())} non-finite logits, first sample {first}, slot {slot}",
                hint="the teacher has diverged, or overflows: try --precision float32",
            )


def _promise(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    settings: DumpSettings,
    encoding: Encoding,
    renderer: Renderer,
) -> Manifest:
    normalisation = settings.normalisation.to_dict()
    return Manifest(
        samples=len(data),
        slots=settings.num_views,
        classes=len(data.classes),
        fields=encoding.fields(),
        encoding=encoding.to_config(),
        view_space=settings.space.to_dict(),
        pixels={"normalisation": normalisation, "golden": renderer.golden(settings.num_views)},
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
    )


def _summary(facts: list[dict[str, Any]], settings: DumpSettings) -> dict[str, Any]:
    """Return what the manifest says of the entries.

    Raises:
        UsageError: The encoding lost more than its bound; the cache stays incomplete.
    """
    summary = summarise_entries(facts, settings.num_views)
    if settings.bound is not None:
        temperature, allowed = settings.bound
        lost = summary["fidelity"][f"{temperature:g}"]["kl_mean"]
        if lost > allowed:
            raise UsageError(
                f"encoding '{settings.encoding}' lost {lost:.2e} nats at temperature {temperature:g}, "
                f"more than the {allowed:g} allowed",
                hint="dump again with --overwrite and a more faithful --encoding",
            )
    return summary
