"""``bancache bench``: the time of each part of training from a cache on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bancache.bench import work
from bancache.bench.timing import Seconds, device_clock, interleave, ratios, spread
from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings
from bancache.loader import Batch, Loader, LoaderOptions, Targets
from bancache.loader.cache_targets import CacheTargets
from bancache.loader.open import cached_loader
from bancache.models.teacher import OnlineTargets, Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress, Silent
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.model_input import Normalization

_STEPS = 4  # steps per round
_PARTS = 16  # batches of views, of targets and of losses per round
_DUMPED_BATCHES = 8


@dataclass(frozen=True)
class Comparison:
    """Two pieces of work, each with its name and its microseconds per image, and the ``spread`` of ``one / other``."""

    question: str
    one: tuple[str, float]
    other: tuple[str, float]
    ratio: dict[str, float]


@dataclass(frozen=True)
class Findings:
    """The result of ``bench``.

    Attributes:
        comparisons: Views, targets and loss first, then steps, then the dump.
        shares: Shares of the student, the views and the targets in a step with cached data; they sum to 1.
        bottleneck: A sentence about the largest share.
    """

    comparisons: tuple[Comparison, ...]
    shares: dict[str, float]
    bottleneck: str


def bench(
    cache: Cache,
    data: ImageSet,
    student: nn.Module,
    *,
    batch_size: int,
    device: torch.device,
    rounds: int,
    teacher: Teacher | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Time the parts of training ``student``, which is on the device, from ``cache``, interleaved.

    Without ``teacher``, dumps and online distillation are not timed.
    """
    session = _Session(cache, data, batch_size, work.Student(student), device, rounds, progress or Silent())
    comparisons = [*session.parts(), *session.steps(teacher)]
    if teacher is not None:
        comparisons.append(session.dump(teacher))
    return Findings(tuple(comparisons), *_shares(comparisons))


@dataclass
class _Session:
    """The open cache, the batches and the student of one measurement."""

    cache: Cache
    data: ImageSet
    batch_size: int
    student: work.Student
    device: torch.device
    rounds: int
    progress: Progress

    def __post_init__(self) -> None:
        device, cache = self.device, self.cache
        self._clock = device_clock(device.type)
        manifest = cache.manifest
        self._space = ViewSpace.from_dict(manifest.view_space)
        self._normalization = Normalization.from_dict(manifest.pixels["normalisation"])
        self._batches = work.endless(self._loader(None))
        self._batch: Batch = next(self._batches)

    def _loader(self, targets: Targets | None) -> Loader:
        options = LoaderOptions(batch_size=self.batch_size, device=self.device)
        return cached_loader(
            self.cache, self.data, options, targets=targets, normalization=self._normalization
        )

    def parts(self) -> list[Comparison]:
        """Time views, targets and the loss, each next to the best possible time."""
        targets = CacheTargets(self.cache, device=self.device)
        targets.begin(0, 0)
        self.progress.log("timing views, targets and the loss")
        renderer = choose_renderer(
            self.data.images,
            self._space,
            self._normalization,
            size=self.cache.manifest.teacher_size,
            device=self.device,
        )
        images, size = self._batch.images, len(self._batch.images)
        addresses = [
            renderer.to_device(batch.samples, batch.views)
            for batch in itertools.islice(self._batches, _PARTS)
        ]
        pixels, row = images[0].numel(), self.cache.manifest.classes
        stored = sum(part.nbytes for part in self.cache.read_view(0).values()) // len(self.data)
        ids, samples = itertools.cycle(addresses), itertools.cycle(address[0] for address in addresses)
        variants = {
            "views": lambda: renderer.render(*next(ids)),
            "copy of the views' bytes": work.copying(size * pixels, size * pixels * 4, self.device, count=8),
            "targets": lambda: targets.probabilities(next(samples), images),
            "copy of the targets' bytes": work.copying(
                size * stored, size * row * 4, self.device, count=_PARTS
            ),
            **work.loss_against_eager(size, row, self.device),
        }
        seconds = interleave(_repeated(variants, _PARTS), rounds=max(self.rounds, 5), clock=self._clock)
        pairs = (
            ("speed of views relative to a copy of their bytes", "copy of the views' bytes", "views"),
            ("speed of targets relative to a copy of their bytes", "copy of the targets' bytes", "targets"),
            ("time of the loss relative to torch's", "loss", "eager loss"),
        )
        return [_compare(*pair, seconds, _PARTS * size) for pair in pairs]

    def steps(self, teacher: Teacher | None) -> list[Comparison]:
        """Time steps with cached data, with data in place, and with online distillation."""
        self.progress.log("timing steps of the student")
        batch, size = self._batch, len(self._batch.images)

        variants: dict[str, Callable[[], Any]] = {
            "step, data in place": lambda: self.student.step(batch),
            "step, cached data": lambda: self.student.step(next(self._batches)),
        }
        if teacher is not None:
            online = work.endless(self._loader(OnlineTargets(teacher)))
            variants["step, teacher online"] = lambda: self.student.step(next(online))
            variants["teacher's forward pass"] = lambda: teacher.logits(batch.images)
        seconds = interleave(_repeated(variants, _STEPS), rounds=self.rounds, clock=self._clock)
        images = _STEPS * size
        pairs = [("speed with cached data relative to data in place", "step, data in place")]
        if teacher is not None:
            both = zip(seconds["step, data in place"], seconds["teacher's forward pass"], strict=True)
            seconds["student and teacher alone"] = [a + b for a, b in both]
            pairs += [
                ("speedup over online distillation", "step, teacher online"),
                ("speedup over the best possible online distillation", "student and teacher alone"),
            ]
        return [_compare(question, one, "step, cached data", seconds, images) for question, one in pairs]

    def dump(self, teacher: Teacher) -> Comparison:
        """Time the shards of a small dump next to the teacher alone."""
        self.progress.log("timing a small dump")
        manifest, size = self.cache.manifest, self.cache.manifest.compute["batch_size"]
        settings = DumpSettings(
            space=self._space,
            num_views=1,
            encoding=manifest.encoding["name"],
            batch_size=size,
            normalization=self._normalization,
            size=self.cache.manifest.teacher_size,
        )
        some = self.data.first(min(len(self.data), _DUMPED_BATCHES * size))
        some.fingerprint  # noqa: B018 (computed before the timing starts)
        images = self._batch.images.repeat(-(-size // len(self._batch.images)), 1, 1, 1)[:size]
        batches, rest = divmod(len(some), size)
        seconds: Seconds = {"dump": [], "teacher alone": []}
        for turn in range(self.rounds + 1):
            shards = work.dump_once(teacher, some, settings, self.device, self._clock)[1]
            began = self._clock()
            work.run_teacher(teacher, images, batches)
            if rest:
                teacher.logits(images[:rest])
            if turn:
                seconds["teacher alone"].append(self._clock() - began)
                seconds["dump"].append(shards)
        question = "speed of a dump relative to the teacher alone"
        return _compare(question, "teacher alone", "dump", seconds, len(some))


def _repeated(variants: dict[str, Callable[[], Any]], times: int) -> dict[str, Callable[[], None]]:
    def repeat(piece: Callable[[], Any]) -> None:
        for _ in range(times):
            piece()

    return {name: partial(repeat, piece) for name, piece in variants.items()}


def _compare(question: str, one: str, other: str, seconds: Seconds, images: int) -> Comparison:
    def an_image(name: str) -> tuple[str, float]:
        return name, spread(seconds[name])["median"] / images * 1e6

    return Comparison(question, an_image(one), an_image(other), ratios(seconds[one], seconds[other]))


def _shares(comparisons: list[Comparison]) -> tuple[dict[str, float], str]:
    """Return the share of each part in a step, and a sentence about the largest."""
    views, targets, _, step = comparisons[:4]
    times = {"student": step.one[1], "views": views.other[1], "targets": targets.other[1]}
    total = sum(times.values())
    shares = {name: value / total for name, value in times.items()}
    name, share = max(shares.items(), key=lambda item: item[1])
    if name == "student":
        sentence = f"the student takes {share:.1%} of a step: a faster loader would save little"
    else:
        sentence = f"the {name} take {share:.1%} of a step: a larger student would cost little more"
    return shares, f"bottleneck: {sentence}"
