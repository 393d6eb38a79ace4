"""The teacher's forward pass over one shard: render the views, run the model, encode, measure its noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.layout import Shard, block_of
from bancache.cache.views import stored_bytes
from bancache.dumping.kept import KeptBlock
from bancache.dumping.settings import DumpSettings
from bancache.dumping.summary import ShardStats, require_finite
from bancache.dumping.teacher_input import input_renderer, input_shape, pictures_bytes
from bancache.encodings import Encoding
from bancache.encodings.fidelity import TEMPERATURES, divergence
from bancache.errors import NonFiniteError, OutOfMemoryError, UsageError, is_out_of_memory
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.batch_memory import Needs, free_bytes, measure
from bancache.system.progress import Progress
from bancache.system.stored import StoredImages
from bancache.system.wording import count
from bancache.views.renderer import Renderer

Advance = Callable[[int], object]
# Waits for what a device still does for a shard; returns its fields, each (rows, *shape), and its facts.
Collect = Callable[[], tuple[dict[str, NDArray[Any]], dict[str, Any]]]
NoiseFloor = dict[str, dict[str, float]]


class TeacherForward:
    """Runs the teacher on one shard at a time; ``captured.CapturedForward`` does it on a GPU."""

    def __init__(
        self,
        teacher: Teacher,
        data: ImageSet,
        encoding: Encoding,
        settings: DumpSettings,
        device: torch.device,
        progress: Progress,
    ) -> None:
        """Pad the images and copy them to ``device``, where the teacher is; OutOfMemoryError if a batch cannot fit."""
        if needs := forward_needs(teacher, data, settings, device):
            at_once, (_, height, width) = (
                min(settings.batch_size, len(data)),
                input_shape(teacher, data, settings),
            )
            needs.require(at_once, free_bytes(device), f"a forward pass on images of {height} x {width}")
        self._decoded = KeptBlock(data.images) if isinstance(data.images, StoredImages) else None
        images = data.images if self._decoded is None else self._decoded
        self.renderer = input_renderer(teacher, images, settings, device)
        self._teacher, self._encoding, self._settings = teacher, encoding, settings
        self._labels = torch.tensor(data.labels, device=self.renderer.device)
        self._classes = len(data.classes)
        self._first_batch: torch.Tensor | None = None
        self._at_once, self._progress = settings.batch_size, progress
        if self._decoded is not None:
            block = settings.shard_samples or block_of(len(data), encoding.fields(), settings.profile)
            block = min(block, len(data))
            self._tell(self._decoded.keep(0, block), block)

    def _tell(self, kept: int, block: int) -> None:
        """Say how many pictures of a block of samples are decoded once for all their views."""
        if kept == block:
            self._progress.log(f"pictures are read once for all views, {count(block, 'picture')} at a time")
        else:
            self._progress.note(
                f"of each {count(block, 'picture')} that a shard holds, {kept:,} fit a quarter of the memory that is "
                "free for this process and are read once for all views; the others are read again for each view"
            )

    def probe(self) -> float:
        """Run the first batch before anything is written, so that a teacher that fails leaves no cache behind.

        ``start`` reuses its logits. Returns the stored bytes per pair of this batch; in profile compact they are an
        upper bound for the views after view 0.
        """
        batch = Shard(0, 0, 0, 0, min(self._at_once, len(self._labels)))
        samples = np.arange(batch.stop)
        self._first_batch = logits = self._logits(samples, 0)
        require_finite(logits, batch, 0)
        fields = {name: part.cpu().numpy() for name, part in self._encode(logits, batch, 0).items()}
        return stored_bytes(fields, self._classes, self._settings.profile) / len(samples)

    def rows_that_differ(self, shard: Shard, stored: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
        """Run the first batch of a shard again; return how many of its rows have other bytes than stored, and of how many."""
        samples = np.arange(shard.start, min(shard.stop, shard.start + self._at_once))
        probed = self._first_batch if shard.index == 0 else None
        same_batch = probed is not None and len(probed) == len(samples)
        logits = probed if same_batch and probed is not None else self._logits(samples, shard.view_index)
        different = np.zeros(len(samples), bool)
        for name, values in self._encode(logits, shard, 0).items():
            fresh, kept = (
                np.ascontiguousarray(part).reshape(len(samples), -1).view(np.uint8)
                for part in (values.cpu().numpy(), stored[name][: len(samples)])
            )
            different |= (fresh != kept).any(axis=1)
        return int(different.sum()), len(samples)

    def start(self, shard: Shard, advance: Advance) -> Collect:
        """Run the teacher on a shard; the returned function raises NonFiniteError if a logit is not finite."""
        samples, size = np.arange(shard.start, shard.stop), self._at_once
        probed, self._first_batch = self._first_batch, None
        host: dict[str, torch.Tensor] = {}
        once: dict[str, NoiseFloor | None] = {}
        stats = ShardStats(shard, self._encoding, self._labels, batch_size=size)
        if self._decoded is not None:
            self._decoded.keep(shard.start, shard.stop)
        views = self.renderer.batches(samples, self._settings.space.view_ids(samples, shard.view_index), size)
        with closing(views):
            for start in range(0, len(samples), size):
                part = slice(start, start + size)
                is_first, amount = shard.index == start == 0, len(samples[part])
                known = probed if is_first and probed is not None and len(probed) == amount else None
                logits, images = self._forward(lambda: next(views)[2], amount, known)
                if is_first:
                    once["noise_floor"] = noise_floor(self._teacher, images, logits)
                fields = self._encode(logits, shard, start)
                for name, values in fields.items():
                    if name not in host:
                        host[name] = torch.empty((len(samples), *values.shape[1:]), dtype=values.dtype)
                    host[name][part] = values
                stats.add(logits, fields)
                advance(len(logits))
        return lambda: ({name: part.numpy() for name, part in host.items()}, {**stats.facts(), **once})

    def _encode(self, logits: torch.Tensor, shard: Shard, start: int) -> dict[str, torch.Tensor]:
        try:
            return self._encoding.encode(logits)
        except NonFiniteError:
            # An encoding reports what it cannot store; a NaN from the teacher is reported first, with its sample.
            require_finite(logits, shard, start)
            raise

    def _render(self, samples: NDArray[np.int64], view_index: int) -> torch.Tensor:
        return render(self.renderer, samples, self._settings.space.view_ids(samples, view_index))

    def _logits(self, samples: NDArray[np.int64], view_index: int) -> torch.Tensor:
        """Return logits float32 (B, classes) of one view of each sample."""
        return self._forward(lambda: self._render(samples, view_index), len(samples))[0]

    def _forward(
        self, render: Callable[[], torch.Tensor], amount: int, known: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of ``amount`` views, which ``render`` returns, and the views; the logits may be known."""
        try:
            images = render()
            logits = self._teacher.logits(images) if known is None else known
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # The batch size is not halved automatically: it may change the last bit, so the cache is bound to it.
            raise OutOfMemoryError(
                f"{self.renderer.device} has too little memory for a forward pass of {count(amount, 'image')}",
                hint="use a smaller --batch-size; add --overwrite if the cache was begun with another one",
            ) from error
        if logits.shape[1] != self._classes:
            raise UsageError(
                f"the teacher has {count(logits.shape[1], 'class')}, the data set has {self._classes:,}",
                hint="name the teacher's own data set with --data, or fine-tune it to this one: bancache train-teacher "
                "--weights",
            )
        return logits, images


def forward_needs(
    teacher: Teacher, data: ImageSet, settings: DumpSettings, device: torch.device
) -> Needs | None:
    """Return what a dump takes of the device's memory; None for a teacher that does not take two and three images.

    If it takes no images at all, its first batch says so.
    """
    shape = input_shape(teacher, data, settings)
    try:
        needs = measure(lambda count: teacher.logits(torch.zeros(count, *shape, device=device)))
    except (MemoryError, RuntimeError, UsageError):
        return None
    return replace(needs, fixed=needs.fixed + pictures_bytes(teacher, data, settings, device))


def render(renderer: Renderer, samples: NDArray[np.int64], view_ids: NDArray[np.int64]) -> torch.Tensor:
    """Render (sample, view id) pairs whose numbers are on the host."""
    return renderer.render(*renderer.to_device(samples, view_ids))


def pair_logits(
    teacher: Teacher,
    renderer: Renderer,
    samples: NDArray[np.int64],
    view_ids: NDArray[np.int64],
    batch_size: int,
    advance: Advance = lambda amount: None,
) -> torch.Tensor:
    """Return the teacher's logits for (sample, view id) pairs, float32 (P, classes), on the CPU."""
    parts = []
    with closing(renderer.batches(samples, view_ids, batch_size)) as batches:
        for _, _, images in batches:
            parts.append(teacher.logits(images).cpu())
            advance(len(parts[-1]))
    return torch.cat(parts)


def noise_floor(teacher: Teacher, images: torch.Tensor, logits: torch.Tensor) -> NoiseFloor | None:
    """Return the divergence of a teacher in bfloat16 autocast from the same teacher in float32.

    It is in nats for each measured temperature, or None if the model does not run in both precisions. Mixed-precision
    training accepts this much, so an encoding that loses less has no visible cost. The teacher is in either
    precision; ``images`` are normalized views (B, C, H, W), ``logits`` its outputs for them (B, classes).
    """
    is_exact = teacher.precision == "float32"
    try:
        other = replace(teacher, precision="bfloat16" if is_exact else "float32").logits(images)
    except (NotImplementedError, RuntimeError, UsageError):
        return None
    exact, rounded = (logits, other) if is_exact else (other, logits)
    if not torch.isfinite(rounded).all():
        return None
    floor = {}
    for temperature in TEMPERATURES:
        kl = divergence(exact, torch.softmax(rounded / temperature, dim=1), temperature)
        floor[f"{temperature:g}"] = {"kl_mean": float(kl.mean()), "kl_max": float(kl.max())}
    return floor
